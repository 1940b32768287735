"""The training loop: epochs -> slices of steps -> callbacks. `Sequential.fit` hands over to ``fit``.

A model whose parts are all minidl's own runs in the compiled loop, in slices of about a tenth of a second. Steps run
layer by layer if a part is the user's own, if a row's loss depends on the other rows (`DIST`), or if the teacher must
be asked about each batch. Neither that, nor the slices, nor the number of threads changes a result.
"""

import time
from typing import NamedTuple

import numpy as np

from ..callbacks import CallbackList, History
from ..kernels.random import SHUFFLE, make_key, permutation
from ..validation import warn
from .compiled import CompiledSteps
from .inference import evaluate_samples
from .interrupts import uninterrupted, watch_signals
from .layerwise import LayerwiseSteps
from .options import FitOptions
from .preparation import TrainingData, prepare
from .samples import loss_without_teacher
from .watch import Watch

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


def fit(model, options: FitOptions) -> History:
    """Train ``model``; the history of losses and metrics."""
    data = prepare(model, options)
    batch_size = min(options.batch_size, len(data.samples.x))
    callbacks = CallbackList(
        options.callbacks,
        add_history=True,
        add_progbar=options.verbose != 0,
        model=model,
        epochs=options.epochs,
        steps=-(-data.count // batch_size),
        verbose=options.verbose,
    )
    if options.initial_epoch > options.epochs:
        warn(
            f"nothing is trained: initial_epoch={options.initial_epoch} lies beyond epochs={options.epochs}, which is "
            "the number of the last epoch, not of further ones"
        )
    loop = _EpochLoop(model, data, batch_size, options, callbacks)
    model.stop_training = False
    logs: dict[str, float] = {}
    callbacks.on_train_begin()
    with model.turns.training():
        if options.initial_epoch < options.epochs:
            _begin_epochs(model, options, batch_size, data.count)
        for epoch in range(options.initial_epoch, options.epochs):
            data.loss.set_epoch(epoch)
            callbacks.on_epoch_begin(epoch)
            logs = loop.run(epoch)
            if data.validation is not None and (epoch + 1) % options.validation_freq == 0:
                loss = loss_without_teacher(model, data.loss, data.validation.y)
                size = options.validation_batch_size or batch_size
                values = evaluate_samples(model, loss, model.metrics, data.validation, size, callbacks)
                logs.update((f"val_{name}", value) for name, value in values.items())
            callbacks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
    callbacks.on_train_end(logs)
    return callbacks.history


def _begin_epochs(model, options: FitOptions, batch_size: int, count: int) -> None:
    """Go on in the epoch ``model`` was left in, if this fit begins there and has the same batches; else begin anew.

    An epoch that begins anew has draws of its own. An epoch of a first fit draws under its own number.
    """
    left, wanted = model.unfinished, (batch_size, count, options.shuffle)
    begins_there = options.initial_epoch == model.epoch
    if left is not None and begins_there and (left.batch_size, left.samples, left.shuffle) == wanted:
        return
    if left is not None:
        instead = (
            f"this fit begins at epoch {options.initial_epoch + 1}: initial_epoch={model.epoch} goes on there"
        )
        if begins_there:
            instead = (
                f"with batch_size {batch_size}, {count} samples and shuffle={options.shuffle} it cannot go on there "
                "and begins anew"
            )
        warn(
            f"epoch {model.epoch + 1} was left after {left.step} steps of batch_size {left.batch_size} on "
            f"{left.samples} samples with shuffle={left.shuffle}; {instead}"
        )
    with uninterrupted(), model.turns.taken():
        model.leave_epoch()
        model.epoch, model.draw_epoch = options.initial_epoch, max(model.draw_epoch, options.initial_epoch)


def _choose_stepper(model, data: TrainingData, batch_size: int, stepwise: bool, options: FitOptions):
    """The compiled loop where it knows all parts of model and loss, else steps layer by layer."""
    loss = data.loss
    # the compiled loop splits a batch between threads, which a loss of the whole batch does not allow
    compiled = data.online_teacher is None and not loss.whole_batch and model.ops(training=True) is not None
    if compiled and model.objective(loss).kind >= 0:  # negative: a loss of the user's own
        return CompiledSteps(model, data, batch_size, stepwise, options.verbose != 0)
    return LayerwiseSteps(model, data)


class _EpochLoop:
    """Runs the epochs of a fit in slices, with running means for the callbacks; its stepper runs the steps."""

    def __init__(self, model, data: TrainingData, batch_size: int, options: FitOptions, callbacks):
        self._model, self._data, self._callbacks = model, data, callbacks
        self._batch_size, self._shuffle = batch_size, options.shuffle
        self._names = [metric.name for metric in data.metrics]
        has_label = data.samples.labels >= 0
        self._has_label = None if has_label.all() or not data.metrics else has_label
        self._steps = -(-data.count // batch_size)
        self._watch = Watch(model, data.samples.x, options.epochs, self._steps, callbacks.callbacks)
        self._watches_anew = bool(options.callbacks)  # one may have set a handler for a signal
        self._every_batch = callbacks.wants_every_batch
        stepwise = self._every_batch or self._watch.careful
        self._stepper = _choose_stepper(model, data, batch_size, stepwise, options)

    def run(self, epoch: int) -> dict[str, float]:
        """One epoch, from where the model is; the mean loss, and the metrics' means over the labelled samples."""
        stepper, batch_size = self._stepper, self._batch_size
        unlogged = self._begin(epoch)
        order = np.arange(self._data.count)
        if self._shuffle:
            with uninterrupted():  # an interrupt would be lost while the kernel is compiled or loaded
                permutation(order, np.uint64(make_key(self._model.seed, SHUFFLE, self._model.draw_epoch, 0)))
        labelled_before = None
        if self._has_label is not None:
            labelled_before = np.append(0, np.cumsum(self._has_label[order]))
        logs: dict[str, float] = {}
        while self._done < self._steps:
            step = self._done
            length = min(stepper.pace, stepper.most_steps, self._steps - step)
            if self._every_batch or self._watch.stepwise:
                length = 1
            self._callbacks.on_train_batch_begin(step)
            began = time.perf_counter()
            losses = self._run_slice(order[step * batch_size : (step + length) * batch_size])
            if not len(losses):  # they are run again one by one
                continue
            seconds = time.perf_counter() - began
            last = min(self._done * batch_size, len(order))
            seen = labelled = last - unlogged
            if labelled_before is not None:
                labelled = int(labelled_before[last] - labelled_before[unlogged])
            sums = zip(self._names, self._metric_sums, strict=True)
            # a row without a label adds 0 to the sums
            logs = {"loss": self._loss_sum / seen, **{n: float(s) / max(labelled, 1) for n, s in sums}}
            self._callbacks.on_train_batch_end(self._done - 1, logs)
            self._watch.warn(losses, epoch, step)
            if self._model.stop_training:
                break
            # grow by at most 8 a time: the first slice may hold the compiler
            wanted = len(losses) * _SLICE_SECONDS / max(seconds, 1e-9)
            if len(losses) == stepper.pace or wanted < stepper.pace:
                stepper.pace = int(min(8 * len(losses), max(1, wanted)))
        return logs

    def _begin(self, epoch: int) -> int:
        """Begin an epoch anew, or where it was left; the number of samples done before that are not in the logs."""
        if self._model.epoch != epoch:  # the last step was undone, and a callback lets training go on
            self._model.leave_epoch()
            self._model.epoch = epoch
        left = self._model.unfinished
        self._done, self._loss_sum, self._metric_sums = 0, 0.0, np.zeros(len(self._names))
        if left is None:
            return 0
        self._done = left.step
        if list(left.metric_sums) != self._names:  # compiled with other metrics since
            return left.step * self._batch_size
        self._loss_sum, self._metric_sums[:] = left.loss_sum, list(left.metric_sums.values())
        return 0

    def _run_slice(self, rows: np.ndarray) -> np.ndarray:
        """Train on ``rows`` and tell the model how far it is, all or nothing; returns each step's loss."""
        model, batch_size, sums = self._model, self._batch_size, self._metric_sums
        if self._watches_anew:
            watch_signals()
        with uninterrupted(), model.turns.taken():
            losses, sums_before = self._watch.run_slice(self._stepper, rows, self._done, sums)
            steps = len(losses)
            if not steps:
                return losses
            sizes = np.full(steps, batch_size)
            sizes[-1] = min(batch_size, len(rows) - batch_size * (steps - 1))
            # one after the other, so that the sum does not depend on where slices end
            loss_sums = np.cumsum(np.concatenate(([self._loss_sum], losses * sizes)))
            self._done, self._loss_sum = self._done + steps, float(loss_sums[-1])
            undone = sums_before is not None  # the last step
            done = self._done - undone
            if done == self._steps:
                model.epoch, model.draw_epoch, model.unfinished = model.epoch + 1, model.draw_epoch + 1, None
            elif done:
                loss_sum, sums = float(loss_sums[steps - undone]), sums_before if undone else sums
                totals = dict(zip(self._names, sums.tolist(), strict=True))
                place = done, batch_size, self._data.count, self._shuffle
                model.unfinished = Unfinished(*place, loss_sum, totals)
        return losses
