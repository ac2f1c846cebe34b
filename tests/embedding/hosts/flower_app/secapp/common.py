"""What client and server agree on."""

from __future__ import annotations

import numpy as np

from fedcore import Mean

MEAN = Mean(clip=1.0, bits=20, weight_cap=100, metrics={"loss": (0, 10)})
MODEL = {"w": np.arange(20, dtype=np.float32).reshape(4, 5) / 10, "b": np.zeros(3)}
