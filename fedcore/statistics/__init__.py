"""Statistics of the rows of all sites from secure sums."""
