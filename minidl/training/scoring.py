"""Loss and metrics of a batch of outputs: what a training step differentiates and what an evaluation reports."""

from __future__ import annotations

import numpy as np

from ..kernels.activations import CODES, activation_forward
from ..kernels.losses import Batch, loss_batch
from ..kernels.metrics import metric_rows
from ..validation import describe
from .objective import Objective
from .samples import Samples


def score_rows(
    loss, objective: Objective, logits: np.ndarray, batch: Samples, count: int, with_gradient: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(row_loss float64 (B,), dlogits (B, C), or (0, 0) without gradient) of ``logits`` (B, C).

    Each row's loss is divided by ``count``: B in a training step, all samples in an evaluation.
    """
    rows, dtype = len(logits), logits.dtype
    empty = np.empty((0, 0), dtype)
    row_loss, dlogits = np.zeros(rows), np.empty_like(logits) if with_gradient else empty
    if objective.kind < 0:  # the user's own
        value, gradient = loss.value_and_grad(logits, batch.y, batch.weight if batch.weight.size else None)
        if np.shape(gradient) != logits.shape:
            raise ValueError(
                f"loss {loss.name} must give a gradient of shape {logits.shape}, got {describe(gradient)}"
            )
        row_loss[:] = value / count
        if with_gradient:
            dlogits[...] = gradient
        return row_loss, dlogits
    teacher = empty if batch.teacher_logits is None else np.require(batch.teacher_logits, dtype, "CAW")
    if teacher.size and teacher.shape != logits.shape:
        raise ValueError(f"teacher must give logits of shape {logits.shape}, got {teacher.shape}")
    scale = batch.weight / count if batch.weight.size else np.full(rows, 1.0 / count)
    rows_batch = Batch(logits, *_labels_and_targets(batch, dtype), teacher, scale)
    loss_batch(objective.kind, row_loss, dlogits, rows_batch, objective.hyper)
    return row_loss, dlogits


def metric_values(
    model, metrics, objective: Objective, logits: np.ndarray, batch: Samples
) -> list[np.ndarray]:
    """Each metric's float64 (B,) over the rows of a batch."""
    predictions, outputs = logits, logits.shape[1]
    if objective.on_logits and any(metric.needs_output_for(outputs) for metric in metrics):
        predictions = np.empty_like(logits)
        activation_forward(predictions, logits, CODES[model.final_activation], 0.0)
    labels, targets = _labels_and_targets(batch, logits.dtype)
    found = []
    for metric in metrics:
        values = np.zeros(len(logits))
        metric_rows(
            metric.kind_for(batch.targets is None, outputs), values, predictions, labels, targets, metric.k
        )
        found.append(values)
    return found


def _labels_and_targets(batch: Samples, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """As kernels are compiled for: writeable and aligned, empty where there are none."""
    targets = np.empty((0, 0), dtype) if batch.targets is None else np.require(batch.targets, dtype, "CAW")
    return np.require(batch.labels, np.int64, "CAW"), targets
