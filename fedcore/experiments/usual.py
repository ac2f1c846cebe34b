"""Defaults of what is agreed on, for the command line: a help text loads no plan. A test holds them equal."""

from __future__ import annotations

PLAN = {"rounds": 10, "weight_cap": 10_000, "bits": 20}
CLIP, KEEP = 1.0, 1.0
WEIGHTING = "rows"
EPOCHS, LEARNING_RATE = 2, 0.02  # of the learner "logistic"
