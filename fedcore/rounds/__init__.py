"""A training run: what is agreed, what a task asks, what a site computes, how sums are driven."""
