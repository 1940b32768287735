"""Training steps layer by layer, in Python: ``layerwise_step`` is one training step to read.

The compiled loop (``kernels/network.py``) does the same with the same kernels in the same order, and ends with the
same bits. What the compiled loop cannot do trains here: see `fit.choose_stepper`.
"""

import math

import numpy as np

from ..kernels.processor import denormals_mode, flush_denormals, restore_denormals
from ..kernels.restraints import add_regularizer, constrain
from ..validation import check_rows, check_targets
from .objective import metric_values, predictions_for, reduced, score_rows
from .preparation import TrainingData
from .samples import Samples, check_labels_left, check_samples
from .tally import Tally


def layerwise_step(
    model, batch: Samples, loss, tally: Tally, step: int, online_teacher=None
) -> tuple[float, np.ndarray]:
    """One training step: forward, loss, backward, update.

    step: its number in the epoch; random layers draw by it. ``online_teacher`` is asked for logits of the inputs
    as this step augments them. Returns the loss before the update, penalties included, and what the batch adds to
    the metrics' sums.
    """
    mode, averages = denormals_mode(), [average.copy() for average in model.averages]
    try:
        flush_denormals()
        model.set_step(model.draw_epoch, step)
        if online_teacher is not None:
            logits = online_teacher.logits(model.augmented(batch.x), temperature=loss.temperature)
            batch = batch._replace(teacher_logits=logits)
        objective = model.objective(loss)

        out = model.forward(batch.x, training=True, logits=objective.on_logits)
        logits = out.reshape(len(out), -1)
        factor = loss.penalty_factor(batch.labels, batch.weight, len(out))
        batch = reduced(loss, objective, batch)
        row_loss, dlogits = score_rows(loss, objective, logits, batch, len(out), with_gradient=True)
        predictions = predictions_for(model, tally.metrics, objective, logits)
        values = metric_values(model, tally.by_kernel, predictions, batch)
        if tally.others:
            predictions = predictions.copy()  # a layer of the user's may write to its output
        model.backward_to_learn(dlogits.reshape(out.shape), logits=objective.on_logits)

        params, grads, optimizer = model.params, model.grads, model.optimizer
        segments = model.learning_segments
        penalty = add_regularizer(grads, params, segments, model.penalties, factor)
        optimizer.update(params, grads, segments if len(segments) < len(model.parameters) else None)
        constrain(params, *model.constraint_table)
        for constraint, view in model.own_constraints:
            view[...] = constraint(view)
    except BaseException:
        for view, before in zip(model.averages, averages, strict=True):  # a step that failed moves nothing
            view[...] = before
        raise
    finally:
        restore_denormals(mode)
    # added one after the other, as the compiled loop does
    sums = np.zeros(tally.size)
    sums[: len(values)] = [np.cumsum(each)[-1] for each in values]
    tally.add(sums, predictions, batch.labels, batch.targets)
    return float(np.cumsum(row_loss)[-1] + penalty), sums


class LayerwiseSteps:
    """Runs the steps of a fit layer by layer, one at a time."""

    most_steps = pace = 1

    def __init__(self, model, data: TrainingData):
        self._model, self._data, self._tally = model, data, data.tally

    def run(self, order: np.ndarray, first_step: int, metric_sums: np.ndarray) -> np.ndarray:
        """Train on the batch of rows ``order``; returns the step's loss and adds to ``metric_sums``."""
        model, data = self._model, self._data
        batch = data.samples.take(order)
        batch = batch._replace(x=np.ascontiguousarray(batch.x, dtype=model.dtype))
        loss, sums = layerwise_step(model, batch, data.loss, self._tally, first_step, data.online_teacher)
        metric_sums += sums
        return np.array([loss])

    def own_rows(self, order: np.ndarray) -> np.ndarray:
        """Those of these rows that this process trains on."""
        return order

    def keep_memory(self) -> None:
        """There is none that a further fit could use."""


def check_batch(model, loss, x, y, sample_weight, class_weight, teacher_logits) -> Samples:
    """One batch checked against the model and the loss, in the model's dtype."""
    model.objective(loss)  # refuses a loss that does not fit the model
    batch = check_samples(model, loss, x, y, sample_weight, class_weight)
    if loss.distills:
        logits = loss.check_teacher("teacher_logits", teacher_logits)
        logits = check_targets(logits, model.output_shape, model.dtype, "teacher_logits")
        check_rows("teacher_logits", len(logits), len(batch.x))
        batch = batch._replace(teacher_logits=logits)
    elif teacher_logits is not None:
        raise ValueError(f"teacher_logits are for a distilling loss, and loss {loss.name} is none")
    return batch._replace(x=np.ascontiguousarray(batch.x, dtype=model.dtype))


def train_on_batch(model, x, y, sample_weight, class_weight, teacher_logits) -> dict[str, float]:
    """One step; the arguments are those of `Sequential.train_on_batch`. Loss and metrics by name."""
    loss = model.loss
    batch = check_batch(model, loss, x, y, sample_weight, class_weight, teacher_logits)
    unlabelled = int(np.count_nonzero(batch.labels < 0)) if loss.distills else 0
    if unlabelled:
        check_labels_left(batch, math.prod(model.output_shape), batch=True)
    model.prepare_optimizer()
    model.warn_of_what_cannot_learn()
    rows = len(batch.x) - unlabelled if batch.y is not None else 0
    metrics = model.metrics if rows else []  # they compare with labels
    tally = Tally(model, metrics, batch.targets is None, loss.distills)

    def step():
        return layerwise_step(model, batch, loss, tally, step=model.optimizer.batches)

    value, sums = model.turns.change(model.turns.train, "train_on_batch", step)
    tally.raise_error()
    return {"loss": value, **tally.results(sums, rows)}
