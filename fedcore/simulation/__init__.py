"""Phones on simulated clocks: who is there, how fast, and for how long."""
