"""One epoch: the samples in a new order, cut into slices of steps, with running means for the callbacks.

Neither the slices nor the number of threads changes a result.
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..kernels.random import SHUFFLE, make_key, permutation
from .interrupts import uninterrupted
from .preparation import TrainingData

_SLICE_SECONDS = 0.1
"""How long a slice should take: between two slices Ctrl-C, the progress bar and callbacks have their turn."""


class Unfinished(NamedTuple):
    """Where in an epoch a training was left: its draws and logs go on from there as if it had not been."""

    step: int  # the next one, from 0
    batch_size: int
    samples: int
    shuffle: bool
    loss_sum: float  # over the samples seen
    metric_sums: dict[str, float]


@dataclass
class _Progress:
    """How far an epoch is, and its sums so far."""

    metric_sums: np.ndarray
    done: int = 0  # steps
    loss_sum: float = 0.0
    unlogged: int = 0  # samples done before the metrics were changed: they are not in the logs
    labelled: int = 0  # samples with a label among the logged


class EpochRunner:
    """Runs epochs of a fit; ``runner`` runs their steps, compiled or layer by layer."""

    def __init__(self, model, runner, data: TrainingData, batch_size: int, shuffle: bool, watch, callbacks):
        self._model, self._runner, self._data = model, runner, data
        self._batch_size, self._shuffle = batch_size, shuffle
        self._watch, self._callbacks = watch, callbacks
        self._has_label = data.labelled
        self._names = [metric.name for metric in data.metrics]
        self._steps = -(-data.count // batch_size)

    def run(self, every_batch: bool) -> dict[str, float]:
        """One epoch, from where the model is; the mean loss, and the metrics' means over the labelled samples."""
        self._epoch = self._model.epoch
        order, progress = self._order(), self._begin()
        progress.labelled = self._count_labelled(order[progress.unlogged : progress.done * self._batch_size])
        logs: dict[str, float] = {}
        while progress.done < self._steps:
            left = self._steps - progress.done
            length = 1 if every_batch else min(self._runner.pace, self._runner.most_steps, left)
            first, last = (step * self._batch_size for step in (progress.done, progress.done + length))
            self._callbacks.on_train_batch_begin(progress.done)
            losses, seconds = self._run_slice(order[first:last], progress)
            if not len(losses):  # given up for an interrupt that raised nothing
                continue
            step, progress.done = progress.done, progress.done + len(losses)
            last = min(progress.done * self._batch_size, self._data.count)
            progress.labelled += self._count_labelled(order[first:last])
            logs = self._logs(progress, last - progress.unlogged)
            self._watch.warn_of_losses(losses, self._epoch, step)
            self._callbacks.on_train_batch_end(progress.done - 1, logs)
            if self._model.stop_training:
                break
            self._set_pace(len(losses), seconds)
        return logs

    def _order(self) -> np.ndarray:
        """The rows to train on, in this epoch's order: it depends on their number, the model's seed and the epoch."""
        order = np.arange(self._data.count)
        if self._shuffle:
            with uninterrupted():  # an interrupt would be lost while the kernel is compiled or loaded
                permutation(order, np.uint64(make_key(self._model.seed, SHUFFLE, self._epoch, 0)))
        return order

    def _begin(self) -> _Progress:
        """The progress of a new epoch, or of one that goes on where it was left."""
        left, progress = self._model.unfinished, _Progress(np.zeros(len(self._names)))
        if left is not None:
            progress.done = left.step
            if list(left.metric_sums) == self._names:
                progress.loss_sum = left.loss_sum
                progress.metric_sums[:] = list(left.metric_sums.values())
            else:  # compiled with other metrics since: the logs are of the samples that follow
                progress.unlogged = left.step * self._batch_size
        return progress

    def _run_slice(self, rows: np.ndarray, progress: _Progress) -> tuple[np.ndarray, float]:
        """Train on ``rows``; each step's loss and the seconds it took. No losses: an interrupt came first."""
        batch_size, began = self._batch_size, time.perf_counter()
        with uninterrupted(self._runner.settle) as interrupts:
            losses, before = self._watch.run_slice(
                self._runner, rows, batch_size, progress.done, progress.metric_sums, interrupts
            )
            if not len(losses):
                return losses, 0.0
            seconds = time.perf_counter() - began
            steps, rows = len(losses), rows[: len(losses) * batch_size]
            sizes = np.full(steps, batch_size)
            sizes[-1] = len(rows) - batch_size * (steps - 1)
            # one after the other, so that the sum does not depend on where slices end
            loss_sums = np.cumsum(np.concatenate(([progress.loss_sum], losses * sizes)))
            kept, kept_sums = steps, progress.metric_sums
            bad_step = progress.done + steps
            if before is not None and self._watch.undo_bad_step(before, rows[-sizes[-1] :], bad_step):
                kept, kept_sums = steps - 1, before.metric_sums
            self._tell_model(progress.done + kept, float(loss_sums[kept]), kept_sums)
        progress.loss_sum = float(loss_sums[-1])
        return losses, seconds

    def _tell_model(self, done: int, loss_sum: float, metric_sums: np.ndarray) -> None:
        """Write into the model how far it is, so that a saved or interrupted one goes on from here."""
        if done == self._steps:
            self._runner.settle()
            self._model.epoch, self._model.unfinished = self._epoch + 1, None
        elif done:
            totals = dict(zip(self._names, metric_sums.tolist(), strict=True))
            self._model.unfinished = Unfinished(
                done, self._batch_size, self._data.count, self._shuffle, loss_sum, totals
            )

    def _logs(self, progress: _Progress, seen: int) -> dict[str, float]:
        labelled = max(progress.labelled, 1)  # a row without a label adds 0 to the sums
        sums = zip(self._names, progress.metric_sums, strict=True)
        return {"loss": progress.loss_sum / seen, **{name: float(total) / labelled for name, total in sums}}

    def _count_labelled(self, rows: np.ndarray) -> int:
        return len(rows) if self._has_label is None else int(np.count_nonzero(self._has_label[rows]))

    def _set_pace(self, steps: int, seconds: float) -> None:
        """Aim at slices of _SLICE_SECONDS, but grow by at most 8 a time: the first slice may hold the compiler."""
        wanted = steps * _SLICE_SECONDS / max(seconds, 1e-9)
        if steps == self._runner.pace or wanted < self._runner.pace:
            self._runner.pace = int(min(8 * steps, max(1, wanted)))
