"""Random numbers without a state: every draw is a hash of (key, index).

A key is made of (seed, purpose, epoch, step); an index is the element's place in its batch. So a draw depends
neither on earlier draws, nor on threads, nor on how rows are split. A backward pass repeats the forward's draws
instead of storing them.

The hash is SplitMix64 (Steele, Lea & Flood 2014, constants of Stafford's variant 13): the ``index``-th
output of the generator whose state starts at ``key``.
"""

import math
from collections import namedtuple

import numpy as np

from .elementary import log
from .jit import JIT_DISABLED, jit

# What a key is for. Layer i of a model draws under LAYER + i.
SHUFFLE = 1
INITIALIZER = 2
LAYER = 16

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: walks through all 2^64 states
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53


@jit(inline=True)
def _bits(key, index):
    z = np.uint64(key) + (np.uint64(index) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


if JIT_DISABLED:
    _bits = np.errstate(over="ignore")(_bits)  # NumPy's scalars warn when a product wraps around


@jit(inline=True)
def _bits_53(key, index):
    """53 random bits as a non-negative int64: what a float64 holds exactly."""
    return np.int64(_bits(key, index) >> np.uint64(11))


@jit
def make_key(seed, purpose, epoch, step):
    """The uint64 key of one use of randomness, for kernels. Python calls `key_of`."""
    return _bits(_bits(_bits(_bits(np.uint64(0), seed), purpose), epoch), step)


def key_of(seed: int, purpose: int, epoch: int, step: int) -> np.uint64:
    """`make_key` in Python's integers: a model is built without compiling anything."""
    key = 0
    for index in (seed, purpose, epoch, step):
        z = (key + (int(index) + 1) * int(_GOLDEN)) % 2**64
        z = (z ^ (z >> 30)) * int(_MIX_1) % 2**64
        z = (z ^ (z >> 27)) * int(_MIX_2) % 2**64
        key = z ^ (z >> 31)
    return np.uint64(key)


@jit(inline=True)
def uniform(key, index):
    """A float64 in [0, 1), a multiple of 2^-53."""
    return np.float64(_bits_53(key, index)) * _TO_UNIT


@jit(inline=True)
def _below(key, index, n):
    """An integer in 0 .. n-1 (bias below n * 2^-53). The draw u is at most 1 - 2^-53, so u * n rounds below n."""
    return np.int64(uniform(key, index) * np.float64(n))


@jit
def permutation(out, key):
    """Write a random order of 0 .. n-1 to ``out`` (n,) int64: the inside-out form of Fisher-Yates."""
    for i in range(out.size):
        j = _below(key, i, i + 1)
        out[i] = out[j]
        out[j] = i


@jit(inline=True)
def _sine_turn(t):
    """sin(2 pi t) for t in [-1/4, 1/4], absolute error below 1e-15: the Taylor series at 2 pi t."""
    a = 6.283185307179586 * t
    z = a * a
    p = z * (-1 / 121645100408832000) + 1 / 355687428096000
    p = z * p - 1 / 1307674368000
    p = z * p + 1 / 6227020800
    p = z * p - 1 / 39916800
    p = z * p + 1 / 362880
    p = z * p - 1 / 5040
    p = z * p + 1 / 120
    p = z * p - 1 / 6
    return a + a * z * p


@jit(inline=True)
def normal(key, index):
    """A standard normal float64 (|value| < 8.6) by Box-Muller: sqrt(-2 log u) cos(2 pi v).

    From + - * / sqrt alone, so that loops over it vectorise.
    """
    twice = np.int64(2) * np.int64(index)
    u = (np.float64(_bits_53(key, twice)) + 0.5) * _TO_UNIT  # above 0; 1 at most, after rounding
    v = uniform(key, twice + np.int64(1))
    # cos(2 pi v) for uniform v is by symmetry distributed as over the half turn [0, 1/2)
    return math.sqrt(-2.0 * log(u)) * _sine_turn(0.25 - 0.5 * v)


@jit
def dropout(out, x, rate, key, first_row):
    """out = x / (1 - rate) where the draw is >= rate, else 0. May run in place.

    It is its own backward: dx = dropout(dout) with the same key. Nothing is stored.
    """
    start = first_row * x.shape[1]
    drop_below = np.int64(math.ceil(rate / _TO_UNIT))
    scale, zero = x.dtype.type(1.0 / (1.0 - rate)), x.dtype.type(0)
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    for i in range(flat_out.size):
        flat_out[i] = zero if _bits_53(key, start + i) < drop_below else flat_x[i] * scale


@jit
def gaussian_noise(out, x, stddev, key, first_row):
    """out = x + stddev * normal. May run in place. Its backward is the identity."""
    real = x.dtype.type
    start = first_row * x.shape[1]
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    for i in range(flat_out.size):
        flat_out[i] = flat_x[i] + real(stddev * normal(key, start + i))


Image = namedtuple("Image", "height width channels")
"""The shape of the samples that `translate` shifts: rows of height * width * channels elements."""
Reach = namedtuple("Reach", "low_dy high_dy low_dx high_dx")
"""The smallest and the largest shift in pixels: ``dy`` down, ``dx`` to the right."""


@jit
def translate(out, x, image, reach, fill_value, key, first_row, direction):
    """Shift each image by its own whole-pixel (dy, dx), uniform within ``reach``, times ``direction``.

    out, x (B, H*W*C), not the same memory. Pixels that come from outside are ``fill_value``. The draws of row r have
    the indices 2r and 2r + 1. With direction -1 and fill value 0 it is its own backward: the transpose of the
    forward shift, which is 0 where the forward's pixel fell off the edge.
    """
    height, width, channels = image
    fill = x.dtype.type(fill_value)
    line = width * channels
    for r in range(x.shape[0]):
        index = 2 * (first_row + r)
        dy = direction * (reach.low_dy + _below(key, index, reach.high_dy - reach.low_dy + 1))
        dx = direction * (reach.low_dx + _below(key, index + 1, reach.high_dx - reach.low_dx + 1))
        shift = (dy * width + dx) * channels
        # elements left..right of a line come from the image, the others are filled
        left = min(max(dx, 0), width) * channels
        right = min(max(width + dx, 0), width) * channels
        for row in range(height):
            first = row * line
            inside = 0 <= row - dy < height
            start = first + left if inside else first + line
            stop = first + right if inside else first + line
            for c in range(first, start):
                out[r, c] = fill
            for c in range(start, stop):
                out[r, c] = x[r, c - shift]
            for c in range(stop, first + line):
                out[r, c] = fill
