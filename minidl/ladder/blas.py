"""NumPy's product, timed in a process of its own: its BLAS takes its number of threads when NumPy is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from .. import machine
from .problem import Problem


def time_numpy(size: int, seconds: float, threads: int) -> tuple[float, float]:
    """(seconds of a product, share of its processors that it got), as `Problem.time` has them."""
    command = [sys.executable, "-m", __name__, str(size), str(seconds), str(threads)]
    environment = machine.thread_environment(threads)
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return tuple(json.loads(child.stdout))


def _main(size: int, seconds: float, threads: int) -> None:
    found = Problem(size).time("NumPy", lambda c, a, b: np.matmul(a, b, out=c), size, seconds, threads)
    print(json.dumps(found))


if __name__ == "__main__":
    _main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
