"""Differential privacy: accounting, exact samplers, noise, plans, and a site's own guard."""
