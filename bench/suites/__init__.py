"""What `python -m bench` measures, a module for each suite, and what these share."""
