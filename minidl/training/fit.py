"""The training loop: epochs -> slices of steps -> callbacks. `Sequential.fit` hands over to ``fit``.

A model whose parts are all minidl's own runs in the compiled loop, in slices of about a tenth of a second. Steps run
layer by layer if a part is the user's own, if a row's loss depends on the other rows (`DIST`), or if the teacher must
be asked about each batch. Neither that, nor the slices, nor the number of threads changes a result.
"""

import time
from collections.abc import Callable

import numpy as np

from ..callbacks import CallbackList, History
from ..kernels.random import SHUFFLE, key_of
from ..losses import Loss
from ..validation import warn
from .compiled import CompiledSteps
from .inference import evaluate_samples
from .interrupts import uninterrupted, watch_signals
from .layerwise import LayerwiseSteps
from .options import FitOptions
from .preparation import TrainingData, prepare, read_validation
from .samples import loss_without_teacher
from .shared import SharedSteps, check_shared
from .tally import Unfinished
from .watch import Watch

_SLICE_SECONDS = 0.1
"""How long a slice should take: between two slices Ctrl-C, the progress bar and callbacks have their turn."""


def fit(
    model, options: FitOptions, data: TrainingData | None = None, order: Callable | None = None
) -> History:
    """Train ``model`` and return the history of losses and metrics.

    ``data``: if it was prepared already. ``order(draw_epoch)``: the rows (N,) of an epoch, int64, in the order in which
    they are trained on, in place of ``shuffle``. It may be asked for an epoch again.
    """
    data, ranks = data or prepare(model, options), options.communicator
    if ranks.size > 1:
        check_shared(model, options, data)
        data = ranks.begin(model, options, data)
    batch_size = min(options.batch_size, max(data.count, len(data.samples.x)))
    callbacks = callbacks_of(model, options, -(-data.count // batch_size))
    if options.initial_epoch > options.epochs:
        warn(
            f"nothing is trained: initial_epoch={options.initial_epoch} lies beyond epochs={options.epochs}, which is "
            "the number of the last epoch, not of further ones"
        )
    loop = EpochLoop(model, data, batch_size, options, callbacks, order)
    model.stop_training = False
    logs: dict[str, float] = {}
    callbacks.on_train_begin()
    if options.initial_epoch < options.epochs:
        _begin_epochs(model, options, batch_size, data.count)
    epoch = options.initial_epoch
    while epoch < options.epochs:
        if unwatched := loop.run_unwatched(epoch, options.epochs):
            epoch, logs = epoch + len(unwatched), unwatched[-1]
        else:
            data.loss.set_epoch(epoch)
            callbacks.on_epoch_begin(epoch)
            logs = loop.run(epoch)
            if (epoch + 1) % options.validation_freq == 0:
                logs.update(validate(model, data, options, batch_size, callbacks))
            callbacks.on_epoch_end(epoch, logs)
            epoch += 1
            ranks.end_epoch(model)
        if loop.stops():
            break
    return finish(model, options, loop, callbacks, logs)


def callbacks_of(model, options: FitOptions, steps: int | None) -> CallbackList:
    """Those of the user, a history, and a progress bar that counts the ``steps`` of an epoch."""
    return CallbackList(
        options.callbacks,
        is_first_rank=options.communicator.rank == 0,
        add_history=True,
        add_progbar=options.verbose != 0,
        model=model,
        epochs=options.epochs,
        steps=steps,
        verbose=options.verbose,
    )


def finish(model, options: FitOptions, loop: "EpochLoop", callbacks, logs: dict[str, float]) -> History:
    """What a fit ends with: the average of the parameters takes their place, if the optimizer keeps one."""
    if model.optimizer.use_ema and options.initial_epoch < options.epochs:
        model.turns.change(model.optimizer.finalize_variable_values, model.params, model.learning_segments)
    callbacks.on_train_end(logs)
    loop.stepper.keep_memory()
    return callbacks.history


def validate(model, data: TrainingData, options: FitOptions, batch_size: int, callbacks) -> dict[str, float]:
    """The logs of a validation, their names with "val_" before them; none where there is nothing to validate on."""
    samples = read_validation(model, data, options)
    if samples is None:
        return {}
    loss = loss_without_teacher(model, data.loss, samples.y)
    size = options.validation_batch_size or batch_size
    values = evaluate_samples(model, loss, model.metrics, samples, size, callbacks)
    return {f"val_{name}": value for name, value in values.items()}


def _begin_epochs(model, options: FitOptions, batch_size: int, count: int) -> None:
    """Go on in the epoch ``model`` was left in, if this fit begins there and has the same batches; else begin anew.

    An epoch that begins anew has draws of its own. An epoch of a first fit draws under its own number.
    """
    left, first = model.unfinished, options.initial_epoch
    if left is not None:
        batches = left.batch_size, left.samples, left.shuffle
        goes_on = first == model.epoch and batches == (batch_size, count, options.shuffle)
        if goes_on and not options.communicator.has_shards:
            return
        warn(
            f"epoch {model.epoch + 1} was left after {left.step} steps of batch_size {left.batch_size} on "
            f"{left.samples} samples with shuffle={left.shuffle}; this fit begins epoch {first + 1} anew, with "
            f"batch_size {batch_size} on {count} samples with shuffle={options.shuffle}. initial_epoch={model.epoch} "
            "and the same batches go on there, but of Shards none do"
        )
    model.turns.change(begin_anew, model, first)


def begin_anew(model, epoch: int) -> None:
    """Have the next step be the first of ``epoch``, with draws of its own."""
    model.leave_epoch()
    model.epoch, model.draw_epoch = epoch, max(model.draw_epoch, epoch)


def choose_stepper(model, data: TrainingData, batch_size: int, stepwise: bool, options: FitOptions):
    """The compiled loop where it knows all parts of model and loss, else steps layer by layer."""
    if options.communicator.size > 1:
        return SharedSteps(model, data, batch_size, stepwise, options)
    # the compiled loop splits a batch between threads, which a loss of the whole batch does not allow
    if data.online_teacher is None and not data.loss.whole_batch:
        objective = model.objective(data.loss)
        ops = model.ops(training=True, logits=objective.on_logits)
        if ops is not None and objective.kind >= 0:  # negative: a loss of the user's own
            return CompiledSteps(model, data, ops, batch_size, stepwise, options.verbose != 0)
    return LayerwiseSteps(model, data)


def _loss_unlike_validation(loss: Loss, options: FitOptions) -> str:
    """What the loss of training is, if that of validation is another; "" if they are the same."""
    if loss.distills:
        return "distillation loss"
    weights = [name for name in ("class_weight", "sample_weight") if getattr(options, name) is not None]
    return f"loss with {' and '.join(weights)}" if weights else ""


class EpochLoop:
    """Runs the epochs of a fit in slices, with running means for the callbacks; its stepper runs the steps."""

    def __init__(
        self, model, data: TrainingData, batch_size: int, options: FitOptions, callbacks, order=None
    ):
        self._model, self._data, self._callbacks = model, data, callbacks
        callbacks.history.training_loss = _loss_unlike_validation(data.loss, options)
        self._batch_size, self._shuffle, self._ranks = batch_size, options.shuffle, options.communicator
        self._given_order = order
        self._tally = data.tally
        has_label = self._ranks.joined(data.samples.labels >= 0)
        is_whole = not data.loss.distills or has_label.all()
        self._has_label = None if is_whole or not data.tally.metrics else has_label
        self._steps = -(-data.count // batch_size)
        self._sizes = np.full(self._steps, batch_size)
        self._sizes[-1] = data.count - batch_size * (self._steps - 1)
        self._watch = Watch(model, data.samples.x, options.epochs, self._steps, callbacks.callbacks)
        self._watches_anew = bool(options.callbacks)  # one may have set a handler for a signal
        self._every_batch = callbacks.wants_every_batch
        stepwise = self._every_batch or self._watch.careful
        self.stepper = choose_stepper(model, data, batch_size, stepwise, options)
        epochs_are_alike = type(data.loss).set_epoch is Loss.set_epoch and self._has_label is None
        self._in_one = epochs_are_alike and data.validation is None and self._ranks.size == 1

    def run(self, epoch: int) -> dict[str, float]:
        """Run an epoch from where the model is. Returns the mean loss, and the metrics' means over labelled samples."""
        stepper, batch_size = self.stepper, self._batch_size
        unlogged = self._begin(epoch)
        order = self._order(self._model.draw_epoch)
        labelled_before = None
        if self._has_label is not None:
            labelled_before = np.append(0, np.cumsum(self._has_label[order]))
        logs: dict[str, float] = {}
        while self._done < self._steps:
            step = self._done
            length = min(stepper.pace, stepper.most_steps, self._steps - step)
            if self._every_batch or self._watch.stepwise:
                length = 1
            length = self._ranks.least(length)
            losses = self._run_watched(step, order[step * batch_size : (step + length) * batch_size])
            if not len(losses):  # they are run again one by one
                continue
            last = min(self._done * batch_size, len(order))
            seen = labelled = last - unlogged
            if labelled_before is not None:
                labelled = int(labelled_before[last] - labelled_before[unlogged])
            logs = self._logs(self._loss_sum, seen, self._metric_sums, labelled)
            self._callbacks.on_train_batch_end(self._done - 1, logs)
            self._watch.warn(losses, epoch, step)
            if self.stops():
                break
        return logs

    def stops(self) -> bool:
        """Whether a callback wants training to stop, on any rank."""
        self._model.stop_training = self._ranks.stops(self._model)
        return self._model.stop_training

    def _run_watched(self, step: int, rows: np.ndarray) -> np.ndarray:
        """Train on ``rows``, from that step of the epoch on; returns each step's loss. Its time sets the pace."""
        self._callbacks.on_train_batch_begin(step)
        began = time.perf_counter()
        if self._watches_anew:
            watch_signals()
        losses = self._model.turns.change(self._run_slice, rows)
        if len(losses):
            self._tally.raise_error()
            self._set_pace(len(losses), time.perf_counter() - began)
        return losses

    def run_unwatched(self, epoch: int, epochs: int) -> list[dict[str, float]]:
        """Run as many epochs from ``epoch`` on as a slice holds and the callbacks allow. Returns the logs."""
        stepper, steps = self.stepper, self._steps
        allowed = self._callbacks.epochs_at_once
        count = int(min(min(stepper.pace, stepper.most_steps) // steps, epochs - epoch, allowed))
        if not self._in_one or count < 2 or self._model.unfinished is not None:
            return []
        began = time.perf_counter()
        logs, losses = self._model.turns.change(self._run_epochs, epoch, count)
        self._tally.raise_error()
        self._set_pace(len(losses), time.perf_counter() - began)
        if logs:
            losses = losses[: len(logs) * steps].reshape(-1, steps)
            bad = ~np.isfinite(losses).all(axis=1)
            ahead = int(np.argmax(bad)) if bad.any() else len(logs) - 1
            self._watch.warn(losses[ahead], epoch + ahead, 0)
        return logs

    def _run_epochs(self, epoch: int, count: int) -> tuple[list[dict[str, float]], np.ndarray]:
        """Train for ``count`` epochs, or as many steps of them as a slice holds; returns logs and each step's loss."""
        model, steps = self._model, self._steps
        orders = np.array([self._order(model.draw_epoch + ahead) for ahead in range(count)])
        sums = np.zeros((count, self._tally.size))
        losses, _ = self._watch.run_slice(self.stepper, orders, 0, sums)
        done, left = divmod(len(losses), steps)
        padded = np.append(losses, np.zeros(steps - left)).reshape(-1, steps)
        loss_sums = np.cumsum(padded * self._sizes, axis=1)
        samples = self._data.count
        logs = [self._logs(loss_sums[ahead, -1], samples, sums[ahead], samples) for ahead in range(done)]
        model.epoch, model.draw_epoch = epoch + done, model.draw_epoch + done
        if left:
            self._leave(left, float(loss_sums[done, left - 1]), sums[done])
        for ahead, log in enumerate(logs):
            self._callbacks.on_epoch_end(epoch + ahead, log)
        return logs, losses

    @uninterrupted  # an interrupt would be lost while the kernel is compiled or loaded
    def _order(self, draw_epoch: int) -> np.ndarray:
        if self._given_order is not None:
            return self._given_order(draw_epoch)

        def key(rank: int) -> np.uint64:
            return key_of(self._model.seed, SHUFFLE, draw_epoch, rank)

        return self._ranks.order(key if self._shuffle else None, self._data.count, self._batch_size)

    def _logs(self, loss_sum, seen: int, metric_sums: np.ndarray, labelled: int) -> dict[str, float]:
        # a row without a label adds nothing to the sums
        return {"loss": float(loss_sum) / seen, **self._tally.results(metric_sums, labelled)}

    def _set_pace(self, steps: int, seconds: float) -> None:
        """Aim at slices of _SLICE_SECONDS, but grow by a factor of 8 at most: the first slice may hold the compiler."""
        pace, wanted = self.stepper.pace, steps * _SLICE_SECONDS / max(seconds, 1e-9)
        self.stepper.pace = int(max(1, min(wanted, max(pace, 8 * steps))))

    def _begin(self, epoch: int) -> int:
        """Begin an epoch, anew or where it was left. Returns how many of its samples are done but not in the logs."""
        if self._model.epoch != epoch:  # the last step was undone, and a callback lets training go on
            self._model.leave_epoch()
            self._model.epoch = epoch
        left = self._model.unfinished
        self._done, self._loss_sum, self._metric_sums = 0, 0.0, np.zeros(self._tally.size)
        if left is None:
            return 0
        self._done = left.step
        sums = self._tally.read(left.metric_sums)
        if sums is None:  # compiled with other metrics since
            return left.step * self._batch_size
        self._loss_sum, self._metric_sums = left.loss_sum, sums
        return 0

    def _run_slice(self, rows: np.ndarray) -> np.ndarray:
        """Train on ``rows`` and tell the model how far it is, all or nothing; returns each step's loss."""
        model, sums, first = self._model, self._metric_sums, self._done
        losses, sums_before = self._watch.run_slice(self.stepper, rows, first, sums)
        if not len(losses):
            return losses
        loss_sums = self._add_up(losses, self._sizes[first : first + len(losses)])
        undone = sums_before is not None  # the last step
        done = self._done - undone
        if done == self._steps:
            model.epoch, model.draw_epoch, model.unfinished = model.epoch + 1, model.draw_epoch + 1, None
        elif done:
            self._leave(done, float(loss_sums[done - first]), sums_before if undone else sums)
        return losses

    def _add_up(self, losses: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Count steps on batches of these sizes; returns the epoch's sum of losses before them and after each."""
        # one after the other, so that the sum does not depend on where slices end
        loss_sums = np.cumsum(np.concatenate(([self._loss_sum], losses * sizes)))
        self._done, self._loss_sum = self._done + len(losses), float(loss_sums[-1])
        return loss_sums

    def _leave(self, done: int, loss_sum: float, metric_sums: np.ndarray) -> None:
        """Tell the model where in the epoch it is."""
        place = done, self._batch_size, self._data.count, self._shuffle
        self._model.unfinished = Unfinished(*place, loss_sum, self._tally.named(metric_sums))
