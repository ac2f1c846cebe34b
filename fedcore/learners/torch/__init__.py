"""PyTorch modules as learners."""
