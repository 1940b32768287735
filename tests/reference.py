"""The oracle: naive float64 NumPy, one formula a function. Imports nothing of minidl."""

from __future__ import annotations

import numpy as np


def matmul(a, b):
    return np.asarray(a, np.float64) @ np.asarray(b, np.float64)
