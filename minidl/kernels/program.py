"""A model as data for the compiled loop: a table of its operations, and the memory that a run of them writes to."""

import functools
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from .barrier import ALONE
from .jit import jit
from .matmul import scratch_size, store_panels
from .simd import copy
from .target import ALIGNMENT, PANEL_BYTES, TILE_ROWS, aligned_zeros


class Operation(IntEnum):
    """What an operation does. Kernels compare these numbers for equality only."""

    DENSE = 0
    ACTIVATION = 1
    DROPOUT = 2
    GAUSSIAN_NOISE = 3
    RANDOM_TRANSLATION = 4
    RESCALING = 5
    BATCH_NORMALIZATION = 6
    MOVING_NORMALIZATION = 7
    LAYER_NORMALIZATION = 8
    PRELU = 9


DENSE, ACTIVATION, DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION, RESCALING = list(Operation)[:6]
BATCH_NORMALIZATION, MOVING_NORMALIZATION, LAYER_NORMALIZATION, PRELU = list(Operation)[6:]


class Op(NamedTuple):
    """One primitive operation on rows of ``in_size`` numbers.

    ``weight`` and ``bias`` are offsets into the flat parameter vector (-1: none): of gamma and beta, or of alpha, where
    a feature has parameters of its own. ``layer`` is the layer's position in its model (random operations key their
    draws with it). ``trainable``: whether the layer learns. ``seed``: a random layer's own, in the place of the
    model's (-1: none).

    ====================  =================================================================  =================
    kind                  i                                                                  f
    ====================  =================================================================  =================
    DENSE
    ACTIVATION                                                                               slope
    DROPOUT                                                                                  rate
    GAUSSIAN_NOISE                                                                           stddev
    RANDOM_TRANSLATION    height, width, channels, low_dy, high_dy, low_dx, high_dx          fill value
    RESCALING             0                                                                  scale, offset
    RESCALING             columns: each has a center, a scale and an offset                  those of all
    BATCH_NORMALIZATION   offset and number of the moving averages                           epsilon, momentum
    MOVING_NORMALIZATION  the same                                                           the same
    LAYER_NORMALIZATION                                                                      epsilon
    PRELU
    ====================  =================================================================  =================
    """

    kind: Operation
    in_size: int
    out_size: int
    weight: int = -1
    bias: int = -1
    activation: int = 0
    layer: int = -1
    i: tuple[int, int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0, 0)
    f: tuple[float, ...] = (0.0, 0.0)
    trainable: bool = True
    seed: int = -1


# Columns of the table: an `Op`, whose seven integers begin at FIRST_I; where its input and output lie, and what its
# backward reads besides dout; the addresses of its `units`. A dense layer has the product in FORWARD and in BACKWARD.
# TRAINABLE: whether it has parameters that learn. Of a line of `featurewise.FEATUREWISE`: its averages (see `Op`), the
# place and number of what it keeps of a batch, and which columns or rows a thread takes. STEP_FORWARD and those after
# it: addresses of `operations`, where it is neither dense nor an activation; in predictions that of FEATURES.
KIND, IN, OUT, WEIGHT, BIAS, CODE, LAYER_INDEX, FIRST_I = range(8)
IN_AT, OUT_AT, SEEN_AT, FORWARD, BACKWARD, PREFETCHING, TRAINABLE, SEED = range(14, 22)
GRADIENTS, KEPT_AT, KEPT, IS_FEATUREWISE, OF_BATCH = range(22, 27)
STEP_FORWARD, STEP_BACKWARD, STEP_LEARN, COLUMNS = range(27, 31)
AVERAGES_AT, AVERAGES = FIRST_I, FIRST_I + 1

UPDATE_ROWS, UPDATE_PANELS = 16 * TILE_ROWS, 4
"""Rows and panels of a weight whose gradient is computed, used and forgotten together: 96 KB. The update reads it
from the second-level cache, which costs nothing beside Adam's divisions. Smaller parts would make more products, and
each takes time to begin."""


class Program(NamedTuple):
    """A model in training."""

    ops: np.ndarray  # int64 (n, COLUMNS)
    settings: np.ndarray  # float64 (n, 2 or more): the numbers of `Op.f`
    params: np.ndarray
    grads: np.ndarray
    in_panels: bool  # whether weights are stored by `panel_order`
    final: int  # address of the activation that turns the last output into predictions, for metrics
    gather: int  # address of `batch.gather`
    parts: "Parts"


class Parts(NamedTuple):
    """The addresses of a step's parts: see `network.PARTS`."""

    gather: int
    forward: int
    loss: int
    backward: int
    learn: int
    restrain: int = 0  # only where `Restraints` are active


@jit
def panel_order(panels, rows, ops, back):
    """Copy all parameters from their matrices, row by row, into panels, or ``back``."""
    target, source = (rows, panels) if back else (panels, rows)
    copy(target, source)
    for index in range(ops.shape[0]):
        if ops[index, KIND] == DENSE:
            store_panels(panels, rows, ops[index, WEIGHT], ops[index, IN], ops[index, OUT], back)


def packing_size(ops, batch: int, itemsize: int) -> int:
    """Elements of scratch that any product of ``ops`` needs for packing."""
    sizes = [scratch_size(1, 1, itemsize)]
    for op in ops:
        if op.kind == DENSE:
            sizes += [
                scratch_size(batch, op.in_size, itemsize),
                scratch_size(batch, op.out_size, itemsize),
                scratch_size(UPDATE_ROWS, batch, itemsize),
            ]
    return max(sizes)


# How stored numbers are coded; every other dtype is converted before it gets here.
UINT8, FLOAT32, FLOAT64 = 0, 1, 2
CODES_OF_DTYPES = {np.dtype(np.uint8): UINT8, np.dtype(np.float32): FLOAT32, np.dtype(np.float64): FLOAT64}


class Rows(NamedTuple):
    """A matrix in its stored dtype, read row by row: the bytes, bytes a row, and the code of the dtype."""

    data: np.ndarray  # uint8, 1-D, read-only
    stride: int
    code: int


class Data(NamedTuple):
    """What one slice of training reads."""

    x: Rows
    x_order: np.ndarray  # int64: rows of x, one after the other
    order: np.ndarray  # int64: rows of all else
    labels: np.ndarray  # int64 (N,) or (0,)
    targets: Rows
    teacher: Rows
    sample_weight: np.ndarray  # float64 (N,) or (0,)
    batches: np.ndarray  # int64 (steps, 6): see `START`
    divisor: int  # of each batch's losses, see `reductions`
    ignored: int  # the label of rows that do not count there
    penalty_rows: float  # see `reductions.penalty_factor`


START, ROWS, PLACE, WHOLE, EPOCH, STEP = range(6)
"""Of a batch in ``batches``: where it begins in the order, and its rows there; where these stand in the whole batch,
and how many rows that has: other processes may have the others. Its epoch, counted from the slice's first, and its step
in that epoch, counted from the slice's first step."""


@functools.lru_cache(maxsize=8)  # the slices of an epoch are alike, and so are those of short fits
def consecutive_batches(epochs: int, epoch_rows: int, batch_size: int) -> np.ndarray:
    """``batches`` of an order of so many epochs, of which this process has all rows; not to be written to."""
    firsts = np.arange(0, epoch_rows, batch_size)
    batches = np.zeros((epochs, len(firsts), 6), np.int64)
    batches[:, :, START] = np.arange(epochs)[:, None] * epoch_rows + firsts
    batches[:, :, ROWS] = batches[:, :, WHOLE] = np.minimum(batch_size, epoch_rows - firsts)
    batches[:, :, EPOCH], batches[:, :, STEP] = np.arange(epochs)[:, None], np.arange(len(firsts))
    return batches.reshape(-1, 6)


class Part(NamedTuple):
    """The rows of each batch that one call of `network.train` works on. Parameters change only if it ``learns``.

    A long step comes in several calls, one part of its batch after the other, so that Ctrl-C is heard in between. The
    last one learns, from the rows of all parts.
    """

    first_row: int
    last_row: int
    learns: bool


def rows_of(array: np.ndarray) -> Rows:
    """``array`` (N, ...), contiguous rows of a dtype in CODES_OF_DTYPES, as `Rows`; nothing is copied."""
    data = np.ndarray(array.nbytes, np.uint8, array)
    data.setflags(write=False)  # even if the array is writable, so that the kernels see one type
    return Rows(data, array.nbytes // (len(array) or 1), CODES_OF_DTYPES[array.dtype])


NO_ROWS = rows_of(np.empty((0, 1), np.float32))


class LossTable(NamedTuple):
    """Loss and metrics as data, and where their values go."""

    loss: int  # addresses of units, as are the metrics
    hyper: np.ndarray
    metric_units: np.ndarray  # int64 (metrics,)
    metric_ks: np.ndarray
    losses: np.ndarray  # float64 (steps,): mean over the batch, penalties included
    metrics: np.ndarray  # float64 (epochs, metrics): sums over samples, added to
    progress: np.ndarray  # int64 (3,), see `DONE`
    predictions: np.ndarray  # (rows of the slice, out) to keep the model's outputs in, or (0, 0)


DONE, END, NANOSECONDS = range(3)
"""In ``progress``: the steps done, those to do (fewer, once time is up), and how long the call may take."""


class Restraints(NamedTuple):
    """What needs whole gradients or weights at once: penalties, clipping, constraints.

    Accumulated gradients and averages are elementwise, but rare enough to be done beside them.
    """

    active: bool
    penalize: int  # addresses of units
    move_average: int
    constrain: int
    segments: np.ndarray  # int64 (n, 2): offset and size of each parameter that learns
    penalties: np.ndarray  # float64 (n, 2): l1, l2
    clips: np.ndarray  # float64 (3,): value, norm, global norm; 0: none
    steps: int  # batches to an update
    accumulated: np.ndarray  # their gradients so far, if they are several; else of size 0
    average: np.ndarray  # of the parameters, or of size 0
    averaging: np.ndarray  # float64 (2,), see `restraints.move_average`
    places: np.ndarray  # int64 (constraints, 4) and float64 (constraints, 3), see `restraints.constrain`
    numbers: np.ndarray
    exchange: int  # address of `exchange.exchange`'s function; 0: none


class UpdateState(NamedTuple):
    """An optimizer as data: see `updates`."""

    update: int  # addresses of units
    fill_scalars: int
    hyper: np.ndarray
    slot0: np.ndarray
    slot1: np.ndarray
    slot2: np.ndarray
    learning_rates: np.ndarray  # float64 (steps,)
    batches: int  # steps taken before this slice
    restraints: Restraints


class Moment(NamedTuple):
    """With the layer, the key of a step's random draws."""

    seed: int
    epoch: int
    step: int


def sample_arguments(dtype: np.dtype) -> tuple:
    """Arguments of `network.train` whose types are those of every call."""
    vector, matrix, row = np.zeros(1, dtype), np.zeros((1, 1), dtype), np.zeros(1)
    table, numbers, integers = np.zeros((1, 1), np.int64), np.zeros((1, 1)), np.zeros(1, np.int64)
    rows = rows_of(matrix)
    restraints = Restraints(False, 0, 0, 0, table, numbers, row, 1, vector, vector, row, table, numbers, 0)
    return (
        ALONE,
        Program(table, numbers, vector, vector, False, 0, 0, Parts(*[0] * 6)),
        Buffers(matrix, vector, vector, matrix, matrix, numbers, row, row, numbers, integers, *[matrix] * 3),
        Data(rows, integers, integers, integers, rows, rows, row, table, 0, 0, 0.0),
        LossTable(0, row, integers, integers, row, numbers, integers, matrix),
        UpdateState(0, 0, row, vector, vector, vector, row, 0, restraints),
        Moment(0, 0, 0),
        Part(0, 1, True),
    )


class Inference(NamedTuple):
    """What predictions need of a model: see `plan.Plan`. ``rows`` is the address of `infer.infer_rows`, ``gather`` that
    of `batch.gather`, where rows are not of the model's dtype."""

    ops: np.ndarray
    settings: np.ndarray
    params: np.ndarray
    rows: int
    gather: int = 0


class Space(NamedTuple):
    """What predictions write, for chunks of rows; the first three are (threads, n)."""

    values: np.ndarray
    scratch: np.ndarray
    inputs: np.ndarray
    nonfinite: np.ndarray  # int64 (threads,): chunks with a NaN or an infinity


class Buffers(NamedTuple):
    """Everything a step writes besides parameters; allocated once for each fit."""

    inputs: np.ndarray  # (threads, batch * input size) if each thread gathers for itself, or (1, ...) for all
    values: np.ndarray  # outputs of all operations, (operations, batch, size) one after the other
    dvalues: np.ndarray  # their gradients, in the same places
    scratch: np.ndarray  # (threads, n) for packing
    tile: np.ndarray  # (threads, n) gradient of the weights being updated
    scalars: np.ndarray  # float64 (threads, 8): what a step needs of the optimizer's hyperparameters
    row_loss: np.ndarray  # float64 (batch,)
    row_scale: np.ndarray
    row_metric: np.ndarray  # float64 (metrics, batch)
    labels: np.ndarray  # int64 (batch,) or (0,)
    targets: np.ndarray  # (batch, out) or (0, 0)
    teacher: np.ndarray  # (batch, out) or (0, 0)
    predictions: np.ndarray  # (batch, out) or (0, 0)


class BatchParts(NamedTuple):
    """What a training batch has besides its inputs."""

    metrics: int = 0
    labels: bool = False
    targets: bool = False
    teacher: bool = False
    predictions: bool = False  # metrics need the model's output, and the loss is applied to its logits


def aligned_rows(rows: int, size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (rows, size or a little more), every row on a cache line."""
    size = -(-size * dtype.itemsize // ALIGNMENT) * ALIGNMENT // dtype.itemsize
    return aligned_zeros(rows * size, dtype).reshape(rows, size)


def training_buffers(
    ops, size: int, batch_size: int, dtype: np.dtype, threads: int, input_copies: int, parts: BatchParts
) -> Buffers:
    """Buffers for steps on ``batch_size`` rows.

    ``size`` is the `Plan`'s. ``input_copies``: how many threads copy the batch for themselves.
    """

    def matrix(wanted: bool) -> np.ndarray:
        return np.zeros((batch_size, ops[-1].out_size) if wanted else (0, 0), dtype)

    tile = UPDATE_ROWS * UPDATE_PANELS * (PANEL_BYTES // dtype.itemsize)
    tile = max([tile, *(TILE_ROWS * op.out_size for op in ops if op.kind == DENSE)])
    return Buffers(
        inputs=aligned_rows(input_copies, batch_size * ops[0].in_size, dtype),
        values=aligned_zeros(size, dtype),
        dvalues=aligned_zeros(size, dtype),
        scratch=aligned_rows(threads, packing_size(ops, batch_size, dtype.itemsize), dtype),
        tile=aligned_rows(threads, tile, dtype),
        scalars=aligned_rows(threads, 8, np.dtype(np.float64)),
        row_loss=np.zeros(batch_size),
        row_scale=np.zeros(batch_size),
        row_metric=np.zeros((parts.metrics, batch_size)),
        labels=np.zeros(batch_size if parts.labels else 0, np.int64),
        targets=matrix(parts.targets),
        teacher=matrix(parts.teacher),
        predictions=matrix(parts.predictions),
    )
