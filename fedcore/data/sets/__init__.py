"""Real and bundled data sets."""
