"""A layer as data: the primitive operations the compiled loop is made of."""

from enum import IntEnum
from typing import NamedTuple


class Operation(IntEnum):
    """What an operation does. Kernels compare these numbers for equality only."""

    DENSE = 0
    ACTIVATION = 1
    DROPOUT = 2
    GAUSSIAN_NOISE = 3
    RANDOM_TRANSLATION = 4
    RESCALING = 5


DENSE, ACTIVATION, DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION, RESCALING = Operation


class Op(NamedTuple):
    """One primitive operation on rows of ``in_size`` numbers.

    ``weight`` and ``bias`` are offsets into the flat parameter vector (-1: none), ``layer`` is the
    layer's position in its model (random operations key their draws with it). ``trainable``: whether weight and
    bias learn. ``seed``: a random layer's own, in the place of the model's (-1: none).

    ==================  ===================================================================  =============
    kind                i                                                                    f
    ==================  ===================================================================  =============
    DENSE
    ACTIVATION                                                                               slope
    DROPOUT                                                                                  rate
    GAUSSIAN_NOISE                                                                           stddev
    RANDOM_TRANSLATION  height, width, channels, low_dy, high_dy, low_dx, high_dx            fill value
    RESCALING                                                                                scale, offset
    ==================  ===================================================================  =============
    """

    kind: Operation
    in_size: int
    out_size: int
    weight: int = -1
    bias: int = -1
    activation: int = 0
    layer: int = -1
    i: tuple[int, int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0, 0)
    f: tuple[float, float] = (0.0, 0.0)
    trainable: bool = True
    seed: int = -1
