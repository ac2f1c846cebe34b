"""A Flower app with secure means: what a user writes."""
