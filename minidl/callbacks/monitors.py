"""Callbacks that steer a run: stop it, save the best model, set the learning rate, stop at NaN."""

import contextlib
import inspect
import math
import os
from collections.abc import Callable

import numpy as np

from ..archive import check_path
from ..validation import check_bool, check_choice, check_float, check_int, describe, warn
from .base import BuiltIn
from .display import check_verbose, say


class Reporting(BuiltIn):
    """Base of the callbacks that print what they do, if they are ``verbose``."""

    def __init__(self, verbose: int | str):
        super().__init__()
        self.verbose = check_verbose(verbose)

    def _say(self, epoch: int, text: str) -> None:
        if self.verbose:
            say(f"\nEpoch {epoch + 1}: {text}\n")

    def _refuse_a_schedule(self) -> None:
        """The learning rate is to be set here, which an optimizer that follows a schedule does not allow."""
        schedule = getattr(getattr(self.model, "optimizer", None), "schedule", None)
        if schedule is not None:
            raise TypeError(
                f"{type(self).__name__} sets the learning rate, but the optimizer's follows {schedule!r}: make the "
                "optimizer with a number, or leave this callback out"
            )


class Monitor(Reporting):
    """Base of the callbacks that watch one log. ``mode``: "min" or "max", the better direction, or "auto"."""

    def __init__(self, monitor: str, mode: str, verbose: int | str, min_delta: float = 0.0):
        super().__init__(verbose)
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be the name of a log, got {describe(monitor)}")
        self.monitor = monitor
        self.mode = check_choice("mode", mode, ("auto", "min", "max"))
        self.min_delta = abs(check_float("min_delta", min_delta))
        self._missed = False

    def _direction(self) -> str | None:
        """What is better, "up" or "down"; None: of a log that is no loss and no metric it is not known."""
        return {"max": "up", "min": "down"}.get(self.mode) or self._known_direction()

    def _known_direction(self) -> str | None:
        name = self.monitor.removeprefix("val_")
        return "down" if name == "loss" else self._directions().get(name)

    def _directions(self) -> dict[str, str | None]:
        return {metric.name: metric.direction for metric in getattr(self.model, "metrics", ())}

    def _is_better(self, value: float, reference: float | None) -> bool:
        """Better than ``reference`` by more than ``min_delta``. Any number is better than NaN or None."""
        if math.isnan(value):
            return False
        if reference is None or math.isnan(reference):
            return True
        if self._direction() == "up":
            return value - self.min_delta > reference
        return value + self.min_delta < reference

    def _monitored(self, logs: dict | None) -> float | None:
        """The value of this epoch. None, and the first time a warning, without the validation it would come from.

        Another name without a value is refused, and one of which it is not known whether more is better.
        """
        logs = logs or {}
        value, known = logs.get(self.monitor), f"There are: {', '.join(logs) or 'none'}"
        if self._direction() is None:
            is_function = self.monitor.removeprefix("val_") in self._directions()
            what = "a function of yours" if is_function else "no loss and no metric of this model"
            raise ValueError(
                f"{type(self).__name__}: monitor={self.monitor!r} is {what}, so it is "
                f"not known whether more is better: pass mode='min' or mode='max'. {known}"
            )
        if np.ndim(value):
            raise ValueError(
                f"{type(self).__name__}: monitor={self.monitor!r} has {np.size(value)} numbers, and one is needed to "
                "tell which epoch is the best: give the metric an average, or one threshold"
            )
        if value is None:
            message = f"{type(self).__name__}: there is no log {self.monitor!r}. {known}"
            validated = any(name.startswith("val_") for name in logs)
            if self._known_direction() is None and (validated or not self.monitor.startswith("val_")):
                raise ValueError(message)
            if not self._missed:
                self._missed = True
                warn(message)
        return value


class EarlyStopping(Monitor):
    """Stop when ``monitor`` has not improved for ``patience`` epochs.

    ``min_delta``: the smallest change that counts as an improvement. ``baseline``: an improvement resets the count
    of epochs only if the value is better than this one, too. ``restore_best_weights``: end with the parameters of
    the best epoch. Epochs before ``start_from_epoch`` do not count.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, verbose, min_delta)
        self.patience = check_int("patience", patience, minimum=0)
        self.baseline = None if baseline is None else check_float("baseline", baseline)
        self.restore_best_weights = check_bool("restore_best_weights", restore_best_weights)
        self.start_from_epoch = check_int("start_from_epoch", start_from_epoch, minimum=0)
        self.on_train_begin()

    def on_train_begin(self, logs=None):
        self.wait = 0
        self.stopped_epoch = 0
        self.best: float | None = None
        self.best_epoch = 0
        self.best_weights: np.ndarray | None = None

    def on_epoch_end(self, epoch, logs=None):
        value = self._monitored(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.params.copy(), epoch
        self.wait += 1
        if self._is_better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                np.copyto(self.best_weights, self.model.params)
            if self.baseline is None or self._is_better(value, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.stopped_epoch > 0 and self.verbose:
            say(f"Epoch {self.stopped_epoch + 1}: early stopping\n")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                say(f"Restoring the parameters of the best epoch: {self.best_epoch + 1}.\n")
            # another thread may be reading them
            self.model.turns.take(np.copyto, self.model.params, self.best_weights)


class ModelCheckpoint(Monitor):
    """Save the model at the end of epochs (``save_freq="epoch"``) or every so many batches.

    ``filepath`` may hold ``{epoch}`` (from 1), ``{batch}`` and logs: ``"{epoch:02d}-{val_loss:.2f}.npz"``.
    The whole model is saved with its training state. So ``m = load_model(path)`` and
    ``m.fit(..., initial_epoch=m.epoch)`` continue from there, even within an epoch, and end with the same bits as a
    run without a stop. ``save_weights_only`` leaves the training state out. The state of other callbacks is not
    saved: ``EarlyStopping``, for example, counts its epochs from 0 again.
    ``save_best_only``: save only when ``monitor`` is better than in all epochs before, and better than
    ``initial_value_threshold`` if that is given. The model remembers its best value, in its file too: a later fit of
    it replaces the file at ``filepath`` only by a better model, and warns where it keeps the file. A new model replaces
    it, and so does one with another loss (``compile``) or other weights (``set_weights``). A crash while saving leaves
    the old file whole.
    """

    first_rank_only = True

    def __init__(
        self,
        filepath: str | os.PathLike,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ):
        super().__init__(monitor, mode, verbose)
        self.filepath = check_path(filepath, "filepath")
        self.save_best_only = check_bool("save_best_only", save_best_only)
        self.save_weights_only = check_bool("save_weights_only", save_weights_only)
        every_epoch = isinstance(save_freq, str) and save_freq == "epoch"
        self.save_freq = save_freq if every_epoch else check_int("save_freq", save_freq, minimum=1)
        threshold = initial_value_threshold
        self.best = None if threshold is None else check_float("initial_value_threshold", threshold)
        self._epoch: int | None = None
        self._keeps_unasked = False
        self._batches_since_save = 0

    @property
    def wants_every_batch(self) -> bool:
        return self.save_freq != "epoch"

    def on_train_begin(self, logs=None):
        self._epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        exists = os.path.exists(self.filepath)
        if self.save_best_only and self.best is None and self._epoch is None and (epoch > 0 or exists):
            self.best = self.model.best_logs.get(self.monitor)
            self._keeps_unasked = epoch == 0 and self.best is not None
            if self.best is None and exists and epoch > 0:
                warn(
                    f"{self.filepath} is replaced by the first epoch of this fit: it is not known how good "
                    f"{self.monitor} was there. Pass initial_value_threshold"
                )
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq == "epoch":
            return
        self._batches_since_save += 1
        if self._batches_since_save >= self.save_freq:
            self._batches_since_save = 0
            self._save(self._epoch, batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch":
            self._save(epoch, None, logs)

    def _path(self, epoch: int, batch: int | None, logs: dict) -> str:
        fields = {"epoch": epoch + 1, **logs}
        if batch is not None:
            fields["batch"] = batch + 1
        try:
            return self.filepath.format(**fields)
        except (KeyError, IndexError) as error:
            known = ", ".join(fields)
            raise ValueError(
                f"filepath {self.filepath!r} names {error}, but there are only: {known}"
            ) from None

    def _save(self, epoch: int, batch: int | None, logs: dict | None) -> None:
        logs = logs or {}
        path = self._path(epoch, batch, logs)
        if self.save_best_only:
            value = self._monitored(logs)
            if value is None:
                return
            if not self._is_better(value, self.best):
                self._say(epoch, f"{self.monitor} did not improve from {self.best}")
                if self._keeps_unasked:
                    self._keeps_unasked = False
                    warn(
                        f"{path} is kept: {self.monitor} of this model was {self.best:g} in an earlier fit and is "
                        f"{value:g} now. Delete the file if this fit shall have a best of its own"
                    )
                return
            self.best = self.model.best_logs[self.monitor] = float(value)
        self._say(epoch, f"saving model to {path}")
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by ``factor`` when ``monitor`` has not improved for ``patience`` epochs.

    Afterwards ``cooldown`` epochs pass before the count starts again. The rate never falls below ``min_lr``.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, verbose, min_delta)
        self.factor = check_float("factor", factor, above=0, below=1)
        self.patience = check_int("patience", patience, minimum=0)
        self.cooldown = check_int("cooldown", cooldown, minimum=0)
        self.min_lr = check_float("min_lr", min_lr, minimum=0)
        self.on_train_begin()

    def on_train_begin(self, logs=None):
        self._refuse_a_schedule()
        self.best: float | None = None
        self.wait = 0
        self.cooldown_counter = 0

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        rate = float(optimizer.learning_rate)
        if logs is not None:
            logs["learning_rate"] = rate
        value = self._monitored(logs)
        if value is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._is_better(value, self.best):
            self.best = value
            self.wait = 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience and np.float32(rate) > np.float32(self.min_lr):  # as in Keras
                optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter = self.cooldown
                self.wait = 0
                self._say(epoch, f"ReduceLROnPlateau: learning rate {optimizer.learning_rate}.")


class LearningRateScheduler(Reporting):
    """Set the learning rate to ``schedule(epoch, learning_rate)``, or ``schedule(epoch)``, before each epoch.

    ``epoch`` counts from 0. An epoch resumed in the middle keeps the rate it started with.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0):
        super().__init__(verbose)
        if not callable(schedule) or self._arguments(schedule) == 0:
            raise TypeError(
                f"schedule must be a function of epoch and learning rate, or of epoch, got {describe(schedule)}"
            )
        self.schedule = schedule

    @staticmethod
    def _arguments(schedule: Callable) -> int:
        """How many of (epoch, learning rate) it takes: 2, or 1 as in Keras too."""
        try:
            signature = inspect.signature(schedule)
        except ValueError:  # a built-in without a signature
            return 2
        for count in (2, 1):
            with contextlib.suppress(TypeError):
                signature.bind(*range(count))
                return count
        return 0

    def on_train_begin(self, logs=None):
        self._refuse_a_schedule()

    def on_epoch_begin(self, epoch, logs=None):
        if getattr(self.model, "unfinished", None):
            return
        optimizer = self.model.optimizer
        arguments = (epoch, float(optimizer.learning_rate))[: self._arguments(self.schedule)]
        rate = check_float("the value schedule returned", self.schedule(*arguments), minimum=0)
        optimizer.learning_rate = rate
        self._say(epoch, f"LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class TerminateOnNaN(BuiltIn):
    """Stop training at the first step with a loss, or a parameter afterwards, that is NaN or infinite.

    ``restore``: go back to the parameters and the optimizer's state before that step; otherwise keep those after
    it. ``raise_error``: raise a RuntimeError instead of printing a message. ``found`` then says where it was: epoch
    and step, both counted from 1, and the layer in which the first such number appeared. It is None otherwise.
    """

    def __init__(self, raise_error: bool = False, restore: bool = True):
        super().__init__()
        self.raise_error = check_bool("raise_error", raise_error)
        self.restore = check_bool("restore", restore)
        self.found: str | None = None

    @property
    def wants_every_batch(self) -> bool:
        return type(self) is not TerminateOnNaN  # training finds the step itself; a subclass may look at more

    def on_train_begin(self, logs=None):
        self.found = None

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss")
        if self.found is None and (loss is None or math.isfinite(loss)):
            return
        if self.raise_error:
            raise RuntimeError(self.found or f"the loss is {loss} at batch {batch}")
        say(f"{self.found or f'Batch {batch}: the loss is {loss}'}, terminating training\n")
        self.model.stop_training = True
