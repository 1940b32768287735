"""Callbacks: what happens around epochs and batches. Names, arguments and order of calls are those of Keras.

``on_train_batch_end`` is called once a slice of the compiled loop (at most about 100 ms of steps), with the
index of the slice's last batch and the running means of loss and metrics since the epoch began.
"""

from __future__ import annotations

import csv
import inspect
import math
import os
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable

import numpy as np

from .validation import check_bool, check_choice, check_float, check_int, describe

_HOOKS = tuple(
    f"on_{name}"
    for name in (
        *("train_begin", "train_end", "epoch_begin", "epoch_end", "train_batch_begin", "train_batch_end"),
        *("test_begin", "test_end", "test_batch_begin", "test_batch_end"),
        *("predict_begin", "predict_end", "predict_batch_begin", "predict_batch_end"),
        *("batch_begin", "batch_end"),
    )
)


class Callback:
    """Base class: override the hooks you need. ``self.model`` is the model, ``self.params`` holds ``epochs``,
    ``steps`` and ``verbose``. Setting ``self.model.stop_training = True`` ends training after the epoch.
    """

    def __init__(self):
        self.params: dict = {}
        self.model = None

    def set_params(self, params: dict) -> None:
        self.params = params

    def set_model(self, model) -> None:
        self.model = model

    def on_train_begin(self, logs=None):
        """Before the first epoch."""

    def on_train_end(self, logs=None):
        """After the last epoch; ``logs`` are those of its end."""

    def on_epoch_begin(self, epoch, logs=None):
        """Before an epoch; ``epoch`` counts from 0."""

    def on_epoch_end(self, epoch, logs=None):
        """After an epoch and its validation. ``logs``: loss, metrics, and the same with ``val_`` before."""

    def on_batch_begin(self, batch, logs=None):
        """The older name of ``on_train_batch_begin``."""

    def on_batch_end(self, batch, logs=None):
        """The older name of ``on_train_batch_end``."""

    def on_train_batch_begin(self, batch, logs=None):
        """Before some batches of an epoch, the first of which is ``batch``."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch, logs=None):
        """After some batches of an epoch, the last of which is ``batch``."""
        self.on_batch_end(batch, logs=logs)

    def on_test_begin(self, logs=None):
        """Before an evaluation."""

    def on_test_end(self, logs=None):
        """After an evaluation."""

    def on_test_batch_begin(self, batch, logs=None):
        """Before some batches of an evaluation."""

    def on_test_batch_end(self, batch, logs=None):
        """After some batches of an evaluation."""

    def on_predict_begin(self, logs=None):
        """Before a prediction."""

    def on_predict_end(self, logs=None):
        """After a prediction."""

    def on_predict_batch_begin(self, batch, logs=None):
        """Before some batches of a prediction."""

    def on_predict_batch_end(self, batch, logs=None):
        """After some batches of a prediction."""


class CallbackList(Callback):
    """Several callbacks called as one, in order.

    ``add_history`` and ``add_progbar`` append a ``History`` and a ``ProgressBar`` unless one is there.
    """

    def __init__(self, callbacks=None, add_history=False, add_progbar=False, model=None, **params):
        super().__init__()
        if callbacks is None:
            callbacks = []
        elif isinstance(callbacks, CallbackList):
            callbacks = callbacks.callbacks
        elif isinstance(callbacks, Callback):
            callbacks = [callbacks]
        elif not isinstance(callbacks, Iterable):
            raise TypeError(
                f"callbacks must be a list of minidl.callbacks.Callback, got {describe(callbacks)}"
            )
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if isinstance(callback, type):
                name = callback.__name__
                raise TypeError(f"callbacks must be instances, got the class {name}: write {name}()")
            if not all(callable(getattr(callback, hook, None)) for hook in _HOOKS):
                raise TypeError(f"callbacks must be minidl.callbacks.Callback, got {describe(callback)}")
        self.history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if self.history is None and add_history:
            self.history = History()
            self.callbacks.append(self.history)
        if add_progbar and not any(isinstance(c, ProgressBar) for c in self.callbacks):
            self.callbacks.append(ProgressBar())
        if params:
            self.set_params(params)
        if model is not None:
            self.set_model(model)

    def append(self, callback: Callback) -> None:
        self.callbacks.append(callback)

    def set_params(self, params: dict) -> None:
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model) -> None:
        self.model = model
        for callback in self.callbacks:
            callback.set_model(model)


def _call_each(hook: str) -> Callable:
    def call(self, logs=None):
        for callback in self.callbacks:
            getattr(callback, hook)(logs)

    def call_at(self, index, logs=None):
        for callback in self.callbacks:
            getattr(callback, hook)(index, logs)

    return call_at if "epoch" in hook or "batch" in hook else call


for _hook in _HOOKS:
    setattr(CallbackList, _hook, _call_each(_hook))


def _no_model() -> None:
    """The model of a history whose model is gone."""


class History(Callback):
    """What ``fit`` returns: ``history`` maps each log to its values, ``epoch`` lists the epochs.

    It does not keep its model alive: model and history would hold each other, and the arrays of a model that
    nobody uses any more would stay until Python next looks for cycles.
    """

    def __init__(self):
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    @property
    def model(self):
        return self._model()

    @model.setter
    def model(self, model) -> None:
        self._model = _no_model if model is None else weakref.ref(model)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_model": _no_model}

    def on_train_begin(self, logs=None):
        self.epoch = []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.append(epoch)
        for key, value in (logs or {}).items():
            self.history.setdefault(key, []).append(value)
        self.model.history = self

    def __repr__(self) -> str:
        return f"History(epochs={len(self.epoch)}, keys={sorted(self.history)})"


class _Monitor(Callback):
    """Watches one log; knows which way is better."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0):
        super().__init__()
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be the name of a log, got {describe(monitor)}")
        self.monitor = monitor
        self.mode = check_choice("mode", mode, ("auto", "min", "max"))
        self.min_delta = abs(check_float("min_delta", min_delta))

    def _upward(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        if name == "loss":
            return False
        for metric in getattr(self.model, "metrics", ()):
            if metric.name == name:
                return metric.direction == "up"
        raise ValueError(
            f"{type(self).__name__}: monitor={self.monitor!r} is no loss and no metric of this model, "
            "so whether more is better is not known: pass mode='min' or mode='max'"
        )

    def _improves(self, value: float, reference: float | None) -> bool:
        """Better than ``reference`` by more than ``min_delta``. NaN improves on nothing, anything on NaN."""
        if math.isnan(value):
            return False
        if reference is None or math.isnan(reference):
            return True
        return value - self.min_delta > reference if self._upward() else value + self.min_delta < reference

    def _value(self, logs: dict | None) -> float | None:
        value = (logs or {}).get(self.monitor)
        if value is None:
            known = ", ".join(logs or ()) or "none"
            warnings.warn(
                f"{type(self).__name__}: there is no log {self.monitor!r}; there are: {known}", stacklevel=3
            )
        return value


class EarlyStopping(_Monitor):
    """Stop when ``monitor`` has not improved for ``patience`` epochs.

    ``min_delta``: the least change that counts. ``baseline``: a value to be better than before the count of
    epochs starts anew. ``restore_best_weights``: end with the parameters of the best epoch. Before
    ``start_from_epoch`` nothing is watched.
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
        super().__init__(monitor, mode, min_delta)
        self.patience = check_int("patience", patience, minimum=0)
        self.verbose = verbose
        self.baseline = None if baseline is None else check_float("baseline", baseline)
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = check_int("start_from_epoch", start_from_epoch, minimum=0)
        self.on_train_begin()

    def on_train_begin(self, logs=None):
        self.wait = 0
        self.stopped_epoch = 0
        self.best: float | None = None
        self.best_epoch = 0
        self.best_weights: np.ndarray | None = None

    def on_epoch_end(self, epoch, logs=None):
        value = self._value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.params.copy(), epoch
        self.wait += 1
        if self._improves(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                np.copyto(self.best_weights, self.model.params)
            if self.baseline is None or self._improves(value, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.stopped_epoch > 0 and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the parameters of the best epoch: {self.best_epoch + 1}.")
            self.model.params[...] = self.best_weights


class ModelCheckpoint(_Monitor):
    """Save the model at the end of epochs (``save_freq="epoch"``) or every so many batches.

    ``filepath`` may hold ``{epoch}`` (from 1), ``{batch}`` and logs: ``"{epoch:02d}-{val_loss:.2f}.npz"``.
    The whole model with its training state is saved, so that ``m = load_model(path)`` and
    ``m.fit(..., initial_epoch=m.epoch)`` go on from there, in the middle of an epoch too, to the same bits as
    if it had never stopped; ``save_weights_only`` leaves that state out. What other callbacks remember is not
    saved: early stopping, say, begins to wait anew.
    ``save_best_only``: only when ``monitor`` is better than ever before (``initial_value_threshold``: than
    this). The old file stays whole until the new one is: see ``minidl.serialization``.
    """

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
        super().__init__(monitor, mode)
        self.filepath = _check_path("filepath", filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        every_epoch = isinstance(save_freq, str) and save_freq == "epoch"
        self.save_freq = save_freq if every_epoch else check_int("save_freq", save_freq, minimum=1)
        threshold = initial_value_threshold
        self.best = None if threshold is None else check_float("initial_value_threshold", threshold)
        self._epoch = 0
        self._unsaved = 0
        self._last_batch = -1

    def on_epoch_begin(self, epoch, logs=None):
        begun = getattr(self.model, "unfinished", None)
        self._epoch = epoch
        self._last_batch = begun.step - 1 if begun else -1

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq == "epoch":
            return
        self._unsaved += batch - self._last_batch
        self._last_batch = batch
        if self._unsaved >= self.save_freq:
            self._unsaved = 0
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
            value = self._value(logs)
            if value is not None:
                if not self._improves(value, self.best):
                    if self.verbose:
                        print(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {self.best}")
                    return
                self.best = value
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: saving model to {path}")
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)


class LearningRateScheduler(Callback):
    """At each epoch's beginning set the learning rate to ``schedule(epoch, learning_rate)``.

    An epoch that goes on where it was left keeps the rate it was begun with.
    """

    def __init__(self, schedule: Callable[[int, float], float], verbose: int = 0):
        super().__init__()
        if not callable(schedule):
            raise TypeError(
                f"schedule must be a function of epoch and learning rate, got {describe(schedule)}"
            )
        self.schedule = schedule
        self.verbose = verbose

    def _next(self, epoch: int, rate: float) -> float:
        try:
            inspect.signature(self.schedule).bind(epoch, rate)
        except TypeError:  # Keras takes schedule(epoch) too
            return self.schedule(epoch)
        except ValueError:  # a built-in without a signature
            pass
        return self.schedule(epoch, rate)

    def on_epoch_begin(self, epoch, logs=None):
        if getattr(self.model, "unfinished", None):
            return
        optimizer = self.model.optimizer
        rate = self._next(epoch, float(optimizer.learning_rate))
        optimizer.learning_rate = check_float("the value schedule returned", rate, minimum=0)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.")

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class ReduceLROnPlateau(_Monitor):
    """Multiply the learning rate by ``factor`` when ``monitor`` has not improved for ``patience`` epochs.

    After that, ``cooldown`` epochs pass before the count begins again. Never below ``min_lr``.
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
        super().__init__(monitor, mode, min_delta)
        self.factor = check_float("factor", factor, above=0, below=1)
        self.patience = check_int("patience", patience, minimum=0)
        self.verbose = verbose
        self.cooldown = check_int("cooldown", cooldown, minimum=0)
        self.min_lr = check_float("min_lr", min_lr, minimum=0)
        self.on_train_begin()

    def on_train_begin(self, logs=None):
        self.best: float | None = None
        self.wait = 0
        self.cooldown_counter = 0

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        rate = float(optimizer.learning_rate)
        if logs is not None:
            logs["learning_rate"] = rate
        value = self._value(logs)
        if value is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._improves(value, self.best):
            self.best = value
            self.wait = 0
        elif self.cooldown_counter == 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                optimizer.learning_rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter = self.cooldown
                self.wait = 0
                if self.verbose:
                    print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau: learning rate {optimizer.learning_rate}.")


class CSVLogger(Callback):
    """Write each epoch's logs as a line of a CSV file; ``append`` goes on in an existing file."""

    def __init__(self, filename: str | os.PathLike, separator: str = ",", append: bool = False):
        super().__init__()
        self.filename = _check_path("filename", filename)
        self.separator = separator
        self.append = append
        self._file = None
        self._writer = None

    def on_train_begin(self, logs=None):
        self._close()
        self._file = open(self.filename, "a" if self.append else "w", newline="", encoding="utf-8")
        self._writer = None

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self._writer is None:
            keys = sorted(logs)
            if not any(key.startswith("val_") for key in keys):
                keys += [f"val_{key}" for key in keys]  # as Keras: a later fit may bring validation data
            self._writer = csv.DictWriter(
                self._file, ["epoch", *keys], restval="NA", extrasaction="ignore", delimiter=self.separator
            )
            if self._file.tell() == 0:
                self._writer.writeheader()
        self._writer.writerow({"epoch": epoch, **logs})
        self._file.flush()

    def on_train_end(self, logs=None):
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._writer = None


class TerminateOnNaN(Callback):
    """Stop training at the first step whose loss, or a parameter after it, is NaN or infinite.

    ``restore``: end with the parameters and the optimizer's state from before that step, the last good ones;
    else with those after it. ``raise_error``: raise a RuntimeError, then, instead of printing. ``found`` says
    where it was: epoch and step (both from 1), and the layer in which the first such number appeared.
    """

    def __init__(self, raise_error: bool = False, restore: bool = True):
        super().__init__()
        self.raise_error = check_bool("raise_error", raise_error)
        self.restore = check_bool("restore", restore)
        self.found: str | None = None

    def on_train_begin(self, logs=None):
        self.found = None

    def on_train_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss")
        if self.found is None and (loss is None or math.isfinite(loss)):
            return
        if self.raise_error:
            raise RuntimeError(self.found or f"the loss is {loss} at batch {batch}")
        print(f"{self.found or f'Batch {batch}: the loss is {loss}'}, terminating training")
        self.model.stop_training = True


class LambdaCallback(Callback):
    """Hooks from functions: ``LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs))``.

    Any hook of ``Callback`` can be given by keyword.
    """

    def __init__(
        self,
        on_epoch_begin: Callable | None = None,
        on_epoch_end: Callable | None = None,
        on_train_begin: Callable | None = None,
        on_train_end: Callable | None = None,
        on_train_batch_begin: Callable | None = None,
        on_train_batch_end: Callable | None = None,
        **hooks: Callable | None,
    ):
        super().__init__()
        hooks.update(
            on_epoch_begin=on_epoch_begin,
            on_epoch_end=on_epoch_end,
            on_train_begin=on_train_begin,
            on_train_end=on_train_end,
            on_train_batch_begin=on_train_batch_begin,
            on_train_batch_end=on_train_batch_end,
        )
        for name, function in hooks.items():
            if name not in _HOOKS:
                raise TypeError(f"LambdaCallback takes {', '.join(_HOOKS)}; got {name}")
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"{name} must be a function, got {describe(function)}")
            setattr(self, name, function)


class ProgressBar(Callback):
    """Shows an epoch as it runs; ``fit`` adds one by itself.

    ``verbose`` 0: nothing; 1: a bar; 2: one line an epoch; "auto": a bar on a terminal, lines elsewhere
    (a file, a pipe, a CI log).
    """

    _WIDTH = 20
    _INTERVAL = 0.05  # seconds between two drawings

    def __init__(self, verbose: int | str | None = None, stream=None):
        super().__init__()
        self.verbose = None if verbose is None else check_verbose(verbose)
        self._stream = stream
        self._in_fit = False
        self._drawn = 0
        self._mode = 0

    def _begin(self) -> None:
        verbose = self.params.get("verbose", "auto") if self.verbose is None else self.verbose
        stream = self._stream or sys.stdout
        if verbose == "auto":
            verbose = 1 if getattr(stream, "isatty", lambda: False)() else 2
        self._mode = int(verbose)
        self._start = time.perf_counter()
        self._last = 0.0
        self._drawn = 0

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stdout
        if stream is None:  # a windowed Windows program has no standard output
            return
        try:
            text.encode(getattr(stream, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            text = text.replace("━", "=").replace("╺", ">").encode("ascii", "replace").decode()
        stream.write(text)
        stream.flush()

    def _draw(self, done: int, logs: dict, last: bool) -> None:
        total = self.params.get("steps") or done
        now = time.perf_counter()
        if not last and now - self._last < self._INTERVAL:
            return
        self._last = now
        seconds = now - self._start
        filled = self._WIDTH * min(done, total) // max(total, 1)
        bar = "━" * filled + "╺" * (filled < self._WIDTH) + " " * (self._WIDTH - filled - 1)
        left = seconds * (total - done) / max(done, 1)
        clock = _seconds(seconds) if last else f"{_seconds(left)} left"
        line = f"{done}/{total} {bar} {clock} {_per_step(seconds / max(done, 1))}{_values(logs)}"
        # blanks wipe what is left of a longer line
        self._write("\r" + line.ljust(self._drawn) + ("\n" if last else ""))
        self._drawn = len(line)

    def _line(self, prefix: str, logs: dict) -> None:
        total = self.params.get("steps") or 1
        seconds = time.perf_counter() - self._start
        self._write(f"{prefix}{_seconds(seconds)} - {_per_step(seconds / total)}{_values(logs)}\n")

    def on_train_begin(self, logs=None):
        self._in_fit = True

    def on_train_end(self, logs=None):
        self._in_fit = False

    def on_epoch_begin(self, epoch, logs=None):
        self._begin()
        if self._mode == 1 and self.params.get("epochs", 1) > 1:
            self._write(f"Epoch {epoch + 1}/{self.params['epochs']}\n")

    def on_train_batch_end(self, batch, logs=None):
        if self._mode == 1:
            self._draw(batch + 1, logs or {}, last=False)

    def on_epoch_end(self, epoch, logs=None):
        if self._mode == 1:
            self._draw(self.params.get("steps") or 1, logs or {}, last=True)
        elif self._mode == 2:
            self._line(f"Epoch {epoch + 1}/{self.params.get('epochs', 1)} - ", logs or {})

    def on_test_begin(self, logs=None):
        if not self._in_fit:
            self._begin()

    def on_test_batch_end(self, batch, logs=None):
        if not self._in_fit and self._mode == 1:
            self._draw(batch + 1, logs or {}, last=False)

    def on_test_end(self, logs=None):
        if not self._in_fit and self._mode == 1:
            self._draw(self.params.get("steps") or 1, logs or {}, last=True)
        elif not self._in_fit and self._mode == 2:
            self._line("", logs or {})

    def on_predict_begin(self, logs=None):
        self._begin()

    def on_predict_batch_end(self, batch, logs=None):
        if self._mode == 1:
            self._draw(batch + 1, {}, last=False)

    def on_predict_end(self, logs=None):
        if self._mode == 1:
            self._draw(self.params.get("steps") or 1, {}, last=True)


def check_verbose(verbose: object) -> int | str:
    """0, 1, 2 or "auto"; True and False are 1 and 0."""
    if isinstance(verbose, (bool, np.bool_, np.integer)):
        verbose = int(verbose)
    return check_choice("verbose", verbose, ("auto", 0, 1, 2))


def _check_path(argument: str, value: object) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{argument} must be a string or a path, got {describe(value)}")
    return os.fspath(value)


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f}s" if seconds >= 9.95 else f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _per_step(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f}s/step"
    return f"{seconds * 1e3:.0f}ms/step" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us/step"


def _values(logs: dict) -> str:
    shown = ((key, float(value)) for key, value in logs.items())
    return "".join(
        f" - {key}: {value:.4f}" if abs(value) > 1e-3 or value == 0 else f" - {key}: {value:.4e}"
        for key, value in shown
    )
