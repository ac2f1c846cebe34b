"""Secure aggregation inside another stack: requests in, replies out, however the host carries bytes."""
