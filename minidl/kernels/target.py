"""What this processor has, and the shapes of registers, tiles and panels that follow from it."""

import llvmlite.binding as llvm
import numba
import numpy as np

_ARCHITECTURE = llvm.get_process_triple().split("-")[0]
IS_X86, IS_ARM = _ARCHITECTURE == "x86_64", _ARCHITECTURE in ("aarch64", "arm64")
_LISTED = numba.config.CPU_FEATURES
FEATURES = frozenset(
    [name for name, present in llvm.get_host_cpu_features().items() if present]
    if _LISTED is None
    else [name[1:] for name in _LISTED.split(",") if name.startswith("+")]
)
"""Instruction sets of the processor that kernels are compiled for (NUMBA_CPU_FEATURES is obeyed)."""
HAS_FMA = "fma" in FEATURES or IS_ARM  # as NEON, which 64-bit ARM always has, whatever the system tells

VECTOR_BYTES = 64 if "avx512f" in FEATURES else 32 if "avx2" in FEATURES else 16
TILE_ROWS = 12 if IS_ARM or VECTOR_BYTES == 64 else 6
"""A tile keeps rows * 2 sums, 2 vectors of B and one element of A in registers: AVX-512 and NEON have 32 of them, the
others 16."""
TILE_VECTORS = 2
"""Vectors of columns in a tile."""
PANEL_BYTES = TILE_VECTORS * VECTOR_BYTES
"""Bytes of one row of a panel: a panel is as wide as a tile."""
ROW_VECTORS = 4
"""Vectors of columns in a tile of one row: it has registers to spare, and so reads longer stretches of B."""
# Remaining rows are covered by lower tiles, the highest first: 13 rows are 12 + 1, 22 are 12 + 8 + 1 + 1.
TILE_HEIGHTS = [TILE_ROWS] + [height for height in (8, 4, 1) if height < TILE_ROWS]

ALIGNMENT = 64
"""Bytes of a cache line and of the widest vector. A vector that straddles two lines costs twice."""


def aligned_zeros(size: int, dtype) -> np.ndarray:
    """Zeros that begin on a cache line."""
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)
