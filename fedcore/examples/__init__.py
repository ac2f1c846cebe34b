"""Examples to start from: a learner and a strategy of one's own, experiment files, a notebook."""
