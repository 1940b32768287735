"""The memory a compiled run writes to, allocated once: by a fit, by a predictor, and by ``minidl.warmup``."""

from typing import NamedTuple

import numpy as np

from .network import Buffers, Plan, packing_size, tile_size
from .target import ALIGNMENT, aligned_zeros


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
    ops, plan: Plan, batch_size: int, dtype: np.dtype, threads: int, input_copies: int, parts: BatchParts
) -> Buffers:
    """Buffers for steps on ``batch_size`` rows; ``input_copies``: how many threads copy the batch for themselves."""

    def matrix(wanted: bool) -> np.ndarray:
        return np.zeros((batch_size, plan.out_size) if wanted else (0, 0), dtype)

    in_size = ops[0].in_size
    return Buffers(
        inputs=aligned_rows(input_copies, batch_size * in_size, dtype),
        values=aligned_zeros(plan.size, dtype),
        dvalues=aligned_zeros(plan.size, dtype),
        scratch=aligned_rows(threads, packing_size(ops, batch_size, dtype.itemsize), dtype),
        tile=aligned_rows(threads, tile_size(ops, dtype.itemsize), dtype),
        scalars=aligned_rows(threads, 8, np.dtype(np.float64)),
        row_loss=np.zeros(batch_size),
        row_scale=np.zeros(batch_size),
        row_metric=np.zeros((parts.metrics, batch_size)),
        labels=np.zeros(batch_size if parts.labels else 0, np.int64),
        targets=matrix(parts.targets),
        teacher=matrix(parts.teacher),
        predictions=matrix(parts.predictions),
    )
