"""The training step in C on libxsmm (``train_step_xsmm.c``): what an expert makes by hand for one processor.

It is compiled where it runs, with the processor's own instructions; it wants gcc, and libxsmm with its headers
(Debian: libxsmm-dev). Without them it is left out, like any library that is not installed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from .harness import Missing, Refused
from .trainers import BETA_1, BETA_2, LEARNING_RATE, ArraysTrainer

SOURCE = Path(__file__).with_name("train_step_xsmm.c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-fopenmp", "-fPIC")
LIBRARIES = ("-lxsmm", "-lxsmmnoblas", "-lm", "-ldl", "-lpthread")
WIDE = "-mprefer-vector-width=512"  # not every processor's gcc knows it


def build() -> ctypes.CDLL:
    """Compile and load; raises Missing where gcc or libxsmm is not there."""
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        raise Missing("no C compiler: gcc is not installed")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "train_step_xsmm.so")
        for flags in ((*FLAGS, WIDE), FLAGS):
            # linked apart: with -ffast-math the linker adds code that flushes the whole process's denormals for good
            compile_it = [compiler, *flags, "-c", str(SOURCE), "-o", f"{library}.o"]
            link = [compiler, "-shared", "-fopenmp", f"{library}.o", "-o", str(library), *LIBRARIES]
            for command in (compile_it, link):
                done = subprocess.run(
                    command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
                )
                if done.returncode:
                    break
            if done.returncode == 0:
                return _declare(ctypes.CDLL(str(library)))  # it stays loaded without its file
    if "libxsmm.h: No such file" in done.stderr or "cannot find -lxsmm" in done.stderr:
        raise Missing("no libxsmm, or not its headers (Debian: libxsmm-dev)")
    raise Refused(f"{compiler} fails on {SOURCE.name}: {done.stderr.strip()[-500:]}")


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, whole, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_double
    library.xsmm_new.restype = pointer
    library.xsmm_new.argtypes = [whole, pointer, real, real, real, real, whole, ctypes.c_uint64]
    library.xsmm_parameters.restype = ctypes.POINTER(ctypes.c_float)
    library.xsmm_parameters.argtypes = [pointer, whole]
    library.xsmm_epoch.restype = real
    library.xsmm_epoch.argtypes = [pointer, pointer, pointer, ctypes.c_int64, whole, whole]
    return library


class XsmmTrainer(ArraysTrainer):
    """A whole epoch a call; its data must be contiguous float32 and int64."""

    def load(self) -> None:
        self.library = build()

    def build(self, arrays) -> None:
        if self.distilled:
            raise Refused("it has no distilled loss")
        sizes = (ctypes.c_int * len(self.sizes))(*self.sizes)
        self.net = self.library.xsmm_new(
            len(sizes) - 1, sizes, LEARNING_RATE, BETA_1, BETA_2, self.epsilon, self.threads, self.seed
        )
        if not self.net:
            raise Refused(f"it makes no net of {self.sizes} on {self.threads} threads")
        self.arrays = []
        for layer, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            flat = self.library.xsmm_parameters(self.net, layer)
            both = np.ctypeslib.as_array(flat, (inputs + 1, outputs))
            self.arrays += [both[:-1], both[-1]]
        self.set(arrays)

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        x, y = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.int64)
        for _ in range(epochs):
            loss = self.library.xsmm_epoch(
                self.net, x.ctypes.data, y.ctypes.data, len(x), self.batch, bool(shuffle)
            )
            if not loss >= 0:
                raise Refused(
                    "libxsmm makes no kernels of these sizes" if loss == -1 else f"a loss of {loss}"
                )
