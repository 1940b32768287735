"""What is timed to learn what a processor can do at most: multiply-adds, additions, bytes."""

import numpy as np
from llvmlite import ir
from numba.core import types

from . import emit
from .emit import intrinsic
from .jit import jit
from .target import FEATURES, TILE_ROWS, TILE_VECTORS, VECTOR_BYTES
from .vectors import fma

LANES = max(VECTOR_BYTES, 32 if "avx" in FEATURES else 0) // 4
"""float32 numbers in the widest register: a processor may have AVX without AVX2."""
CHAINS = TILE_ROWS * TILE_VECTORS
"""Independent sums, as many as a register tile has: enough to hide the latency of all multiply-add units, and few
enough for the registers."""
ADDITIONS = 16
"""Additions in a round of `additions`."""


def _plain(out, rounds):
    out[:] = 2 - 2.0 ** -(rounds - 1)  # near enough: each chain starts from another number


def _chains(count):
    @intrinsic(types.void, _plain)
    def chains(builder, out, rounds):
        """s = s/2 + 1 for ``count`` vectors, ``rounds`` times, in registers; the sums go to ``out``."""
        vector = ir.VectorType(emit.FLOATS[types.float32], LANES)
        half, one = (ir.Constant(vector, [value] * LANES) for value in (0.5, 1.0))
        entry, loop, done = builder.block, *map(builder.append_basic_block, ("loop", "done"))
        builder.branch(loop)
        builder.position_at_end(loop)
        step, sums = builder.phi(emit.INT), [builder.phi(vector) for _ in range(count)]
        results = [emit.fma(builder, value, half, one) for value in sums]
        following = builder.add(step, emit.constant(1))
        step.add_incoming(emit.constant(0), entry)
        step.add_incoming(following, loop)
        for i, (value, result) in enumerate(zip(sums, results, strict=True)):
            # different starts, or LLVM sees one chain many times
            value.add_incoming(ir.Constant(vector, [float(i)] * LANES), entry)
            value.add_incoming(result, loop)
        builder.cbranch(builder.icmp_signed("<", following, rounds), loop, done)
        builder.position_at_end(done)
        for i, result in enumerate(results):
            emit.store(builder, result, out.address(emit.constant(i * LANES)), out.align)

    return chains


_all_chains, _one_chain = _chains(CHAINS), _chains(1)


@jit
def multiply_adds(out, rounds):
    """``rounds`` multiply-adds of `CHAINS` vectors, as fast as the processor can. ``out``: CHAINS * LANES float32."""
    _all_chains(out, rounds)


@jit
def dependent_multiply_adds(out, rounds):
    """``rounds`` multiply-adds of one vector, each of which needs the result of the one before: their latency."""
    _one_chain(out, rounds)


@intrinsic(types.int64, lambda total, term: total + ADDITIONS * term)
def _dependent_additions(builder, total, term):
    kind = ir.FunctionType(emit.INT, [emit.INT])
    for _ in range(ADDITIONS):
        # the total's origin is hidden from LLVM, which would make one multiplication of the additions
        total = builder.add(builder.asm(kind, "", "=r,0", [total], False), term)
    return total


@jit
def additions(rounds, term):
    """``rounds * ADDITIONS`` integer additions, each of which needs the one before: one a cycle on every processor."""
    total = np.int64(0)
    for _ in range(rounds):
        total = _dependent_additions(total, term)
    return total


@jit
def triad(a, b, c, rounds):
    """a = b + 3c, ``rounds`` times: two numbers loaded and one stored for each multiply-add."""
    for _ in range(rounds):
        for i in range(a.size):
            a[i] = fma(np.float32(3.0), c[i], b[i])
