"""Metrics, federated evaluation, models of single sites, and baselines."""
