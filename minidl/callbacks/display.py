"""Callbacks that record and show a run: history, CSV file, progress bar."""

import csv
import math
import os
import sys
import time
import weakref

import numpy as np

from ..archive import check_path, naming
from ..notices import quiet
from ..tables import html_lines, html_table
from ..validation import check_bool, check_choice, describe, warn
from .base import BuiltIn

_EPOCHS_SHOWN = 10
_no_model = type(None)  # called in place of a weak reference, it gives None, and it can be pickled


class History(BuiltIn):
    """What ``fit`` returns: ``history`` maps each log to its values, ``epoch`` lists the epochs, ``epochs_of`` those
    that each log has a value of. ``tuning`` is None, or what ``temperature="auto"`` tried and chose.
    ``training_loss`` says what the losses of training are where those of validation are something else.

    It holds its model by a weak reference, because the model holds its history: with a cycle the arrays of an
    unused model would stay in memory until Python's garbage collector runs.
    """

    wants_every_batch = False

    @property
    def epochs_at_once(self) -> float:
        return math.inf if type(self) is History else 1

    def __init__(self):
        super().__init__()
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.epochs_of: dict[str, list[int]] = {}
        self.training_loss = ""
        self.tuning = None

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
            self.epochs_of.setdefault(key, []).append(epoch)
        self.model.history = self

    def __repr__(self) -> str:
        return f"History(epochs={len(self.epoch)}, keys={sorted(self.history)})"

    def _repr_html_(self) -> str:
        """The last epochs as a table. Logs of some epochs alone, such as rare validations, are told below it."""
        count = max(map(len, self.history.values()), default=0)
        whole = {key: values for key, values in self.history.items() if len(values) == count}
        numbers = [number + 1 for number in self.epoch] if len(self.epoch) == count else range(1, count + 1)
        rows = [
            [str(number), *(_format_log(values[i]) for values in whole.values())]
            for i, number in list(enumerate(numbers))[-_EPOCHS_SHOWN:]
        ]
        told = [f"the last {_EPOCHS_SHOWN} of {count:,} epochs"] if count > _EPOCHS_SHOWN else []
        told += [
            f"{key}, of {len(values)} of {count} epochs: {_format_log(values[-1])} at last"
            for key, values in self.history.items()
            if 0 < len(values) < count
        ]
        return html_table(["epoch", *whole], rows) + html_lines(told)


class CSVLogger(BuiltIn):
    """Write each epoch's logs as a line of a CSV file. ``append``: add to an existing file, do not replace it.

    What is added goes under the file's own headings. A log for which it has none is refused. A file that breaks during
    training (a full disk) is warned of and given up.
    """

    first_rank_only = True

    def __init__(self, filename: str | os.PathLike, separator: str = ",", append: bool = False):
        super().__init__()
        self.filename = check_path(filename, "filename")
        if not isinstance(separator, str) or len(separator) != 1:
            raise TypeError(f"separator must be one character, got {describe(separator)}")
        self.separator = separator
        self.append = check_bool("append", append)
        self._file = None
        self._writer = None

    def on_train_begin(self, logs=None):
        self._close()
        headings, is_cut = [], False
        if self.append and os.path.exists(self.filename):
            with (
                open(self.filename, newline="", encoding="utf-8") as file,
                naming(self.filename, (UnicodeError, csv.Error)),
            ):
                lines = file.readlines()
                headings = next(csv.reader(lines, delimiter=self.separator), [])
            is_cut = bool(lines) and not lines[-1].endswith(("\n", "\r"))
        if headings and headings[0] != "epoch":
            raise ValueError(
                f"{self.filename} must begin with the heading 'epoch' to append to it, got {headings}"
            )
        self._file = open(self.filename, "a" if self.append else "w", newline="", encoding="utf-8")
        if is_cut:  # by a kill or a full disk in the middle of a row
            self._file.write("\r\n")
        if headings:
            self._write_under(headings)

    def _write_under(self, headings: list[str]) -> None:
        self._writer = csv.DictWriter(
            self._file, headings, restval="NA", extrasaction="ignore", delimiter=self.separator
        )

    def on_epoch_end(self, epoch, logs=None):
        if self._file is None:  # it broke
            return
        try:
            self._write({"epoch": epoch, **(logs or {})})
        except OSError as error:
            self._close(error)

    def _write(self, row: dict) -> None:
        if self._writer is None:
            keys = sorted(row.keys() - {"epoch"})
            if not any(key.startswith("val_") for key in keys):
                keys += [f"val_{key}" for key in keys]  # as in Keras: a later fit may validate
            self._write_under(["epoch", *keys])
            self._writer.writeheader()
        lacking = sorted(row.keys() - set(self._writer.fieldnames))
        if self.append and lacking:
            raise ValueError(
                f"{self.filename} has no heading for {', '.join(lacking)}: log into another file"
            )
        lists = {key: value.tolist() for key, value in row.items() if isinstance(value, np.ndarray)}
        self._writer.writerow({**row, **lists})
        self._file.flush()

    def on_train_end(self, logs=None):
        self._close()

    def _close(self, error: OSError | None = None) -> None:
        file, self._file, self._writer = self._file, None, None
        try:
            if file is not None:
                file.close()
        except OSError as last:
            error = error or last
        if error is not None:
            warn(f"{self.filename} can no longer be written to ({error}); training goes on")


class ProgressBar(BuiltIn):
    """Shows the progress of an epoch; ``fit`` adds one by itself.

    ``verbose`` 0: nothing; 1: a bar; 2: one line an epoch; "auto": a bar on a terminal, lines elsewhere
    (a file, a pipe, a CI log, a notebook); None: as the caller of `fit` asked. ``stream``: standard output by default.
    ``title``: what trains, where several models do: "student (distilled, T 4)".
    """

    wants_every_batch = False
    _WIDTH = 20
    _INTERVAL = 0.05  # seconds between two drawings

    def __init__(self, verbose: int | str | None = None, stream=None, title: str | None = None):
        super().__init__()
        self.verbose = None if verbose is None else check_verbose(verbose)
        if title is not None and not (isinstance(title, str) and title):
            raise TypeError(f"title must be a non-empty string, got {describe(title)}")
        self.title = title
        self._stream = stream
        self._in_fit = False

    def _start_clock(self) -> None:
        verbose = self.params.get("verbose", "auto") if self.verbose is None else self.verbose
        self._mode = _mode_of(verbose, self._stream)
        self._start = time.perf_counter()
        self._last = 0.0
        self._drawn = 0

    def _draw_bar(self, done: int, logs: dict | None, last: bool = False) -> None:
        total = self.params.get("steps") or done
        now = time.perf_counter()
        if self._mode != 1 or (not last and now - self._last < self._INTERVAL):
            return
        self._last = now
        seconds = now - self._start
        filled = self._WIDTH * min(done, total) // max(total, 1)
        bar = "━" * filled + "╺" * (filled < self._WIDTH) + " " * (self._WIDTH - filled - 1)
        left = seconds * (total - done) / max(done, 1)
        clock = _format_seconds(seconds) if last else f"{_format_seconds(left)} left"
        line = f"{done}/{total} {bar} {clock} {_format_step_time(seconds / max(done, 1))}{_format_logs(logs)}"
        # the padding overwrites the rest of a longer line
        say("\r" + line.ljust(self._drawn) + ("\n" if last else ""), self._stream)
        self._drawn = len(line)

    def _show_end(self, logs: dict | None, before_line: str = "") -> None:
        steps = self.params.get("steps") or 1
        self._draw_bar(steps, logs, last=True)
        if self._mode == 2:
            seconds = time.perf_counter() - self._start
            clock = f"{_format_seconds(seconds)} - {_format_step_time(seconds / steps)}"
            say(f"{before_line}{clock}{_format_logs(logs)}\n", self._stream)

    def on_train_begin(self, logs=None):
        global _lost
        self._in_fit, _lost = True, None

    def on_train_end(self, logs=None):
        self._in_fit = False

    def on_epoch_begin(self, epoch, logs=None):
        self._start_clock()
        if self._mode == 1 and (self.title or self.params.get("epochs", 1) > 1):
            say(f"{self._name_of(epoch)}\n", self._stream)

    def on_train_batch_end(self, batch, logs=None):
        self._draw_bar(batch + 1, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._show_end(logs, f"{self._name_of(epoch)} - ")

    def _name_of(self, epoch: int) -> str:
        """As Keras has it; with a title "student (distilled, T 4)  epoch 3/20"."""
        which = f"poch {epoch + 1}/{self.params.get('epochs', 1)}"
        return f"E{which}" if self.title is None else f"{self.title}  e{which}"

    def on_test_begin(self, logs=None):
        if not self._in_fit:
            self._start_clock()

    def on_test_batch_end(self, batch, logs=None):
        if not self._in_fit:
            self._draw_bar(batch + 1, logs)

    def on_test_end(self, logs=None):
        if not self._in_fit:
            self._show_end(logs)


class LineProgress:
    """One line for each of several trainings: on a terminal it says what runs now, everywhere how it ended.

    ``verbose`` and ``stream`` as of `ProgressBar`.
    """

    def __init__(self, verbose: int | str, stream=None):
        self._stream, self._mode = stream, _mode_of(verbose, stream)
        self._drawn, self._last = 0, 0.0

    def show(self, text: str) -> None:
        """Say what runs now, in the place of what was said of it before."""
        now = time.perf_counter()
        if self._mode == 1 and (not self._drawn or now - self._last >= ProgressBar._INTERVAL):
            say("\r" + text.ljust(self._drawn), self._stream)
            self._drawn, self._last = len(text), now

    def end(self, text: str) -> None:
        """Say how it ended; what follows is on a line of its own."""
        if self._mode:
            say("\r" * (self._drawn > 0) + text.ljust(self._drawn) + "\n", self._stream)
        self._drawn = 0


def _mode_of(verbose: int | str, stream) -> int:
    """``verbose`` without "auto"."""
    if verbose != "auto":
        return int(verbose)
    return 1 if getattr(stream or sys.stdout, "isatty", lambda: False)() else 2


_lost: object = None
"""The stream that can no longer be written to, until the next fit begins."""


def say(text: str, stream=None) -> None:
    """Write ``text`` to ``stream``, by default standard output. Where that cannot be, training goes on.

    A full disk, a closed pipe, a terminal that is gone are warned of, once.
    """
    global _lost
    stream = stream or sys.stdout
    if stream is None or stream is _lost or quiet.get():  # a windowed Windows program has no standard output
        return
    try:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            plain = text.replace("━", "=").replace("╺", ">")
            text = plain.encode(encoding, "backslashreplace").decode(encoding)
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:  # ValueError: the stream was closed
        _lost = stream
        warn(f"progress can no longer be shown ({error}); training goes on")


def check_verbose(verbose: object) -> int | str:
    """0, 1, 2 or "auto"; True and False are 1 and 0."""
    if isinstance(verbose, (bool, np.bool_, np.integer)):
        verbose = int(verbose)
    return check_choice("verbose", verbose, ("auto", 0, 1, 2))


def _format_seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f}s" if seconds >= 9.95 else f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _format_step_time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f}s/step"
    return f"{seconds * 1e3:.0f}ms/step" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us/step"


def _format_logs(logs: dict | None) -> str:
    return "".join(f" - {key}: {_format_log(value)}" for key, value in (logs or {}).items())


def _format_log(value: float | np.ndarray) -> str:
    mean = float(np.mean(value))  # of several numbers their mean, as in Keras
    return f"{mean:.4f}" if abs(mean) > 1e-3 or mean == 0 else f"{mean:.4e}"
