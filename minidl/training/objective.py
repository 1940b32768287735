"""How a loss meets a model's output, and what it and the metrics make of a batch of outputs.

A loss is applied to the logits, fused with the final activation, or to what comes out.
"""

from typing import NamedTuple

import numpy as np

from ..kernels.activations import CODES, activation_forward
from ..kernels.losses import Batch, loss_batch
from ..kernels.metrics import OF_CLASSES
from ..validation import describe
from .samples import Samples


class Objective(NamedTuple):
    """How a model is trained with a loss: the kernel's number and settings, and where the loss is applied."""

    kind: int  # negative: the user's own loss, which no kernel knows
    hyper: np.ndarray
    on_logits: bool
    """True: to what goes into the final softmax or sigmoid, which is then left out. False: to the output."""


def objective_of(model, loss) -> Objective:
    """How ``loss`` meets the output of ``model``, or a ValueError that says why it cannot."""
    model.require_built("a loss")
    final, wanted = model.final_activation, loss.fused_activation
    if (wanted is not None or loss.is_of_rows) and len(model.output_shape) != 1:
        raise ValueError(
            f"loss {loss.name} needs outputs of shape (B, C), got (B, *{model.output_shape}): add a Flatten"
        )
    if wanted is None:
        return Objective(loss.kind(False), loss.hyper, False)
    if loss.distills and model.hides_a_softmax():
        raise ValueError(
            f"loss {loss.name} needs logits, but the model's are probabilities already: let softmax be its "
            "last layer, and there once"
        )
    if final == wanted and (loss.distills or not loss.from_logits):
        return Objective(loss.kind(True), loss.hyper, True)
    if loss.from_logits:
        if final in ("softmax", "sigmoid"):
            instead = "leave from_logits out" if final == wanted else "end with Dense(C)"
            raise ValueError(f"loss {loss.name} needs logits, but the model ends with {final}: {instead}")
        return Objective(loss.kind(True), loss.hyper, False)
    if final == "linear" or loss.kind(True) < 0:  # a value_and_grad of the user's own takes logits
        ending = "without an activation" if final == "linear" else f"with {final}"
        raise ValueError(
            f"loss {loss.name} needs probabilities, but the model ends {ending}: end with "
            f"activation={wanted!r}, or make the loss with from_logits=True"
        )
    return Objective(loss.kind(False), loss.hyper, False)


def score_rows(
    loss, objective: Objective, logits: np.ndarray, batch: Samples, count: int, with_gradient: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(row_loss float64 (B,), dlogits (B, C), or (0, 0) without gradient) of ``logits`` (B, C).

    Each row's loss is divided by ``count``: B in a training step, all samples in an evaluation.
    """
    rows, dtype = len(logits), logits.dtype
    row_loss, empty = np.zeros(rows), np.empty((0, 0), dtype)
    if objective.kind < 0:  # the user's own
        teacher = (batch.teacher_logits,) if loss.distills else ()
        weight = batch.weight if batch.weight.size else None
        value, gradient = loss.value_and_grad(logits, batch.y, *teacher, sample_weight=weight)
        if np.shape(gradient) != logits.shape:
            raise ValueError(
                f"loss {loss.name} must give a gradient of shape {logits.shape}, got {describe(gradient)}"
            )
        row_loss[:] = value / count
        return row_loss, np.array(gradient, dtype) if with_gradient else empty
    teacher = empty if batch.teacher_logits is None else np.require(batch.teacher_logits, dtype, "CAW")
    if teacher.size and teacher.shape != logits.shape:
        raise ValueError(f"teacher must give logits of shape {logits.shape}, got {teacher.shape}")
    scale = batch.weight / count if batch.weight.size else np.full(rows, 1.0 / count)
    dlogits = np.empty_like(logits) if with_gradient else empty
    rows_batch = Batch(logits, *_labels_and_targets(batch, dtype), teacher, scale)
    loss_batch(objective.kind, row_loss, dlogits, rows_batch, objective.hyper)
    return row_loss, dlogits


def reduced(loss, objective: Objective, samples: Samples, batch_size: int | None = None) -> Samples:
    """``samples`` with the weights that the loss's ``reduction`` asks for; a loss of the user's own reduces itself."""
    if objective.kind < 0:
        return samples
    weight = loss.batch_weights(samples.labels, samples.weight, len(samples.x), batch_size)
    return samples._replace(weight=weight)


def predictions_for(model, metrics, objective: Objective, logits: np.ndarray) -> np.ndarray:
    """The model's output, where one of ``metrics`` needs it and the loss is applied to ``logits``; else these."""
    outputs = logits.shape[1]
    if not (objective.on_logits and any(metric.needs_output_for(outputs) for metric in metrics)):
        return logits
    predictions = np.empty_like(logits)
    activation_forward(predictions, logits, CODES[model.final_activation], 0.0)
    return predictions


def metric_values(model, metrics, predictions: np.ndarray, batch: Samples) -> list[np.ndarray]:
    """Each metric's float64 (B,) over the rows of a batch, by its kernel."""
    outputs = predictions.shape[1]
    labels, targets = _labels_and_targets(batch, predictions.dtype)
    for metric in metrics:
        if len(model.output_shape) > 1 and metric.kind_for(batch.targets is None, outputs) in OF_CLASSES:
            raise ValueError(
                f"metric {metric.name} needs outputs of shape (B, C), got (B, *{model.output_shape}): add a Flatten"
            )
    return [metric.values(predictions, labels, targets) for metric in metrics]


def _labels_and_targets(batch: Samples, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """As kernels are compiled for: writeable and aligned, empty where there are none."""
    targets = np.empty((0, 0), dtype) if batch.targets is None else np.require(batch.targets, dtype, "CAW")
    return np.require(batch.labels, np.int64, "CAW"), targets
