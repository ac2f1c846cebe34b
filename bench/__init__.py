"""Measurements. `python -m bench` runs them and writes JSON under bench/results."""
