"""`fit` on a `Stream`: the loop of `fit.EpochLoop`, which here reads a window of batches at a time.

The steps, their draws and their bits are those of a fit on the same rows in the same order.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..callbacks import History
from ..validation import warn
from .fit import EpochLoop, begin_anew, callbacks_of, choose_stepper, finish, validate
from .options import FitOptions
from .preparation import TrainingData, prepare
from .streams import Stream, Window


def fit_stream(model, options: FitOptions, stream: Stream) -> History:
    """Train ``model`` on the batches of ``stream``, and return the history."""
    loop = _StreamLoop(model, options, stream)
    callbacks, first = loop.callbacks, options.initial_epoch
    model.stop_training = False
    logs: dict[str, float] = {}
    callbacks.on_train_begin()
    if first < options.epochs:
        if model.unfinished is not None:
            warn(
                f"epoch {model.epoch + 1} was left in its middle; a fit on an iterable begins epoch {first + 1} anew"
            )
        model.turns.change(begin_anew, model, first)
    for epoch in range(first, options.epochs):
        callbacks.on_epoch_begin(epoch)
        logs = loop.run(epoch)
        if not logs:  # the stream is over, and has said so
            break
        if (epoch + 1) % options.validation_freq == 0:
            logs.update(validate(model, loop.data, options, loop.batch_size, callbacks))
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    return finish(model, options, loop, callbacks, logs)


class _StreamLoop(EpochLoop):
    """Runs the epochs of a fit on a stream. ``data`` has the loss, the metrics' sums and the validation of all."""

    def __init__(self, model, options: FitOptions, stream: Stream):
        self._options, self._stream = options, stream
        self._done, self.data = 0, None
        window = stream.first()
        self.batch_size = window.batch_size
        self.data = self._prepared(model, window, validation_data=options.validation_data)
        self.callbacks = callbacks_of(model, options, stream.length)
        super().__init__(model, self.data, window.batch_size, options, self.callbacks)

    def _prepared(self, model, window: Window, **validation) -> TrainingData:
        """`prepare` for the rows of a window, with the loss and the sums of the first."""
        own = {"x": window.x, "y": window.y, "sample_weight": window.weight, "batch_size": window.batch_size}
        own |= {"steps_per_epoch": None, "validation_data": None, **validation, "verbose": 0}
        if own["validation_data"] is None:
            own["validation_steps"] = None
        try:
            kept = (self.data.loss, self.data.tally) if self.data else ()
            return prepare(model, dataclasses.replace(self._options, **own), *kept)
        except (ValueError, TypeError) as error:
            raise type(error)(
                f"{error} (in x, an iterable, from its step {self._done + 1} of the epoch on)"
            ) from error

    def run(self, epoch: int) -> dict[str, float]:
        """Run an epoch. Returns its logs; {} if the stream has no batch for it.

        An epoch that is left in its middle cannot be gone on with: the next fit begins it anew, with other draws.
        """
        model, logs, whole = self._model, {}, False
        self._seen = self._labelled = 0
        self._begin(epoch)
        self.data.loss.set_epoch(epoch)
        self._stream.begin_epoch()
        try:
            while not (whole or model.stop_training):
                window = self._stream.take(self.stepper.pace)
                if window is not None:
                    logs = self._run_window(window, epoch)
                whole = window is None or self._done == self._stream.length
        finally:
            if self._done:
                model.turns.change(self._end, whole)
        if whole:
            self._stream.end_epoch()
        return logs

    def _end(self, whole: bool) -> None:
        self._model.epoch += whole
        self._model.draw_epoch += 1

    def _run_window(self, window: Window, epoch: int) -> dict[str, float]:
        """Train on a window, to its end unless a callback stops training. Returns the means of the epoch so far."""
        self._read(window)
        order, place, size, logs = np.arange(len(window.x)), 0, window.batch_size, {}
        while place < len(order) and not self._model.stop_training:
            step, stepper = self._done, self.stepper
            length = 1 if self._every_batch or self._watch.stepwise else stepper.most_steps
            losses = self._run_watched(step, order[place : place + length * size])
            if not len(losses):  # they are run again one by one
                continue
            place += len(losses) * size
            logs = self._logs(self._loss_sum, self._seen, self._metric_sums, self._labelled)
            self._callbacks.on_train_batch_end(self._done - 1, logs)
            self._watch.warn(losses, epoch, step)
        return logs

    def _read(self, window: Window) -> None:
        """Have the steps read a window, by a stepper that goes on at the pace of the one before."""
        self._data = self._prepared(self._model, window)
        self._batch_size = window.batch_size
        self._watch.follow(self._data.samples.x, self._stream.length)
        last = self.stepper
        last.keep_memory()
        stepwise = self._every_batch or self._watch.careful
        self.stepper = choose_stepper(self._model, self._data, self._batch_size, stepwise, self._options)
        self.stepper.pace = last.pace

    def _run_slice(self, rows: np.ndarray) -> np.ndarray:
        """Train on ``rows`` of the window; returns each step's loss."""
        losses, _ = self._watch.run_slice(self.stepper, rows, self._done, self._metric_sums)
        if len(losses):
            size, steps = self._batch_size, len(losses)
            rows = rows[: steps * size]
            sizes = np.full(steps, size)
            sizes[-1] = len(rows) - size * (steps - 1)
            self._add_up(losses, sizes)
            self._seen += len(rows)
            labels = self._data.samples.labels
            without = np.count_nonzero(labels[rows] < 0) if labels.size and self._data.loss.distills else 0
            self._labelled += len(rows) - without
        return losses
