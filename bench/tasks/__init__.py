"""Tasks with published or pooled reference results, trained under secure aggregation."""
