"""Sites that attack: for research, and for tests of what bounds them."""
