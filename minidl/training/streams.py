"""Data that come in batches: generators, iterables, loaders with ``len`` and ``[number]``; their epochs as in Keras.

A `Stream` gives the batches of an epoch in windows: consecutive batches of one size, joined, which the steps of a fit
read as if they were rows of arrays.
"""

from __future__ import annotations

import array
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..validation import check_array, check_int, check_rows, describe, warn

_WINDOW_BYTES, _WINDOW_SECONDS = 8 << 20, 0.1
"""A window ends with the batch that brings it to this size, or after this time: a slow source still shows progress."""
_NO_STREAMS = (str, bytes, bytearray, dict, set, range, memoryview, array.array)
"""What can be iterated and gives no batches: for NumPy an array, or nothing that it knows."""


class Window(NamedTuple):
    """Consecutive batches, joined: all of ``batch_size`` samples, the last perhaps of fewer."""

    x: np.ndarray
    y: np.ndarray | None
    weight: np.ndarray | None
    batch_size: int


def is_stream(data: Any) -> bool:
    """Whether ``data`` give batches one after the other, and are no array, frame or list of samples."""
    if isinstance(data, (list, tuple)):
        first = data[0] if len(data) else None
        return isinstance(first, tuple) and 0 < len(first) <= 3 and len(getattr(first[0], "shape", ())) > 0
    if (
        data is None
        or isinstance(data, (*_NO_STREAMS, type))
        or hasattr(data, "shape")
        or hasattr(data, "__array__")
    ):
        return False
    return hasattr(data, "__iter__") or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))


class Stream:
    """The batches of ``data``, epoch by epoch.

    ``steps``: how many batches an epoch has; None: all there are, and each epoch begins anew where ``data`` can. Where
    an epoch ends in the middle of ``data``, the next goes on there. Data that run out before that end the epoch, with
    a warning; a generator, which cannot begin anew, has then ended for good.
    """

    def __init__(self, argument: str, data: Any, steps: int | None, steps_argument: str):
        self.argument, self._data = argument, data
        self.steps = None if steps is None else check_int(steps_argument, steps, minimum=1)
        self._is_sequence = not hasattr(data, "__iter__")
        self._can_restart = not hasattr(data, "__next__")
        self._iterator: Any = None
        self._kept: list[Window] = []  # a batch that was read and not given yet
        self._number = self._taken = 0  # of batches: read at all, given in this epoch
        self._has_ended = False  # this epoch: there are no more batches for it

    @property
    def length(self) -> int | None:
        """Batches an epoch, where that is known."""
        if self.steps is not None:
            return self.steps
        try:
            return len(self._data)
        except TypeError:  # it has none
            return None

    def first(self) -> Window:
        """The first batch, which the first epoch gives again. A ValueError if there is none."""
        if self._kept:
            return self._kept[0]
        self._restart()
        batch = self._read()
        if batch is None:
            raise ValueError(f"{self.argument} must give at least one batch, got an iterable without any")
        self._kept.append(batch)
        return batch

    def begin_epoch(self) -> None:
        """Begin the data anew, unless an epoch has a fixed number of steps: then it goes on where it was."""
        self._taken, self._has_ended = 0, False
        if self.steps is None and not self._kept:
            self._restart()

    def end_epoch(self) -> None:
        """Tell the data, if they want to know: a ``keras.utils.Sequence`` shuffles then."""
        if callable(told := getattr(self._data, "on_epoch_end", None)):
            told()

    def take(self, most: int) -> Window | None:
        """The next window of at most ``most`` batches; None at the end of the epoch."""
        if self.steps is not None:
            most = min(most, self.steps - self._taken)
        parts: list[Window] = []
        began, size = time.perf_counter(), 0
        while len(parts) < most:
            if parts and (size >= _WINDOW_BYTES or time.perf_counter() - began >= _WINDOW_SECONDS):
                break
            batch = self._next()
            if batch is None:
                break
            if parts and not _continues(parts, batch):
                self._kept.append(batch)
                break
            parts.append(batch)
            self._taken += 1
            size += batch.x.nbytes
            if len(batch.x) < len(parts[0].x):
                break
        return _joined(parts) if parts else None

    def _next(self) -> Window | None:
        """The next batch; None, with a warning where it is owed, if there is no more in this epoch."""
        if self._kept:
            return self._kept.pop()
        if self._has_ended:
            return None
        batch = self._read()
        if batch is None and self._can_restart and self._taken == 0:  # the last epoch had the rest
            self._restart()
            batch = self._read()
        if batch is not None:
            return batch
        self._has_ended = True
        if self.steps is not None or self._taken == 0:
            wanted = "a batch an epoch" if self.steps is None else f"{self.steps} batches an epoch"
            warn(
                f"{self.argument} has run out of data after {self._number} batches, of this epoch {self._taken}: it "
                f"must give {wanted}, for every epoch. A generator gives its batches once; a list, a loader or an "
                "object whose __iter__ begins anew gives them in every epoch"
            )
        self._iterator = None if self._can_restart else self._iterator
        return None

    def _restart(self) -> None:
        if self._iterator is None or self._can_restart:
            data = self._data
            self._iterator = (data[at] for at in range(len(data))) if self._is_sequence else iter(data)

    def _read(self) -> Window | None:
        if self._iterator is None:
            self._restart()
        try:
            batch = next(self._iterator)
        except StopIteration:
            return None
        self._number += 1
        checked = _checked(f"batch {self._number} of {self.argument}", batch)
        if isinstance(self._data, (list, tuple)):  # all its batches are there at once
            return checked
        # whoever makes them one by one may fill the same arrays again, and several are read before the first is used
        copies = (None if part is None else np.array(part) for part in checked[:3])
        return Window(*copies, checked.batch_size)


def _checked(argument: str, batch: Any) -> Window:
    """A batch as arrays: x, (x, y) or (x, y, sample_weight)."""
    parts = batch if isinstance(batch, (tuple, list)) else (batch,)
    if not 0 < len(parts) <= 3:
        raise ValueError(f"{argument} must be (x, y) or (x, y, sample_weight), got {describe(batch)}")
    x, y, weight = (*parts, None, None)[:3]
    if isinstance(x, (tuple, list)) and len(x) == 1 and len(getattr(x[0], "shape", ())) > 1:
        x = x[0]
    x = check_array(f"x of {argument}", x)
    if y is not None:
        y = check_array(f"y of {argument}", y)
        check_rows(f"y of {argument}", len(y), len(x))
    if weight is not None:
        weight = check_array(f"sample_weight of {argument}", weight)
        check_rows(f"sample_weight of {argument}", len(weight), len(x))
    return Window(x, y, weight, len(x))


def _continues(parts: list[Window], batch: Window) -> bool:
    """Whether ``batch`` can be joined to ``parts``: it is as large, or smaller and then the last."""
    first = parts[0]
    if len(batch.x) > len(first.x):
        return False
    pairs = zip(first[:3], batch[:3], strict=True)
    return all((a is None) == (b is None) and _form(a) == _form(b) for a, b in pairs)


def _form(array: np.ndarray | None) -> tuple:
    return () if array is None else (array.shape[1:], array.dtype)


def _joined(parts: list[Window]) -> Window:
    if len(parts) == 1:
        return parts[0]
    columns = zip(*(part[:3] for part in parts), strict=True)
    return Window(*(None if of[0] is None else np.concatenate(of) for of in columns), parts[0].batch_size)


def open_stream(options: Any) -> tuple[Stream | None, Any]:
    """What `fit` reads: (a stream, its first inputs), or (None, x) where x are arrays."""
    if not is_stream(options.x):
        return None, options.x
    for name in ("temperature", "class_weight"):  # they look at all samples before the first step
        if isinstance(value := getattr(options, name), str):
            raise ValueError(f"{name} must hold numbers where x is an iterable of batches, got {value!r}")
    stream = Stream("x", options.x, options.steps_per_epoch, "steps_per_epoch")
    return stream, stream.first().x


def windows(stream: Stream) -> Iterator[Window]:
    """The windows of the next epoch."""
    stream.begin_epoch()
    yield from iter(lambda: stream.take(1 << 30), None)
    stream.end_epoch()


def everything(stream: Stream) -> tuple[Any, Any, Any] | None:
    """All batches of the next epoch, joined: x, y and sample_weight; None if there are none."""
    parts, joined = [window[:3] for window in windows(stream)], []
    for name, of in zip(("x", "y", "sample_weight"), zip(*parts, strict=True), strict=False):
        shapes = sorted({"none" if each is None else str((None, *each.shape[1:])) for each in of})
        if len(shapes) > 1:
            raise ValueError(
                f"{name} of {stream.argument} must have one shape in all batches, got {', '.join(shapes)}"
            )
        joined.append(None if of[0] is None else np.concatenate(of))
    return tuple(joined) if joined else None  # type: ignore[return-value]


def refuse_with_stream(**arguments: Any) -> None:
    """A ValueError for the first argument that is not None: an iterable of batches has it within."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"{name} must be left out where x is an iterable, which gives batches (x, y) or (x, y, sample_weight) "
                f"of its own size: got {describe(value)}"
            )


def arrays_of(
    x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int | None
) -> tuple[Any, Any, Any]:
    """What `evaluate` was given, as arrays: of an iterable all batches, or as many as ``steps`` says."""
    if not is_stream(x):
        if steps is not None:
            raise ValueError(f"steps counts the batches of an iterable, but x is {describe(x)}")
        return x, y, sample_weight
    refuse_with_stream(y=y, sample_weight=sample_weight, batch_size=None if batch_size == 32 else batch_size)
    stream = Stream("x", x, steps, "steps")
    stream.first()
    return everything(stream)  # type: ignore[return-value]


def check_fit_data(options: Any) -> None:
    """Refuse arguments of `fit` that do not go with the kind of its data."""
    for steps, data in (("steps_per_epoch", "x"), ("validation_steps", "validation_data")):
        given, of = getattr(options, steps), getattr(options, data)
        if given is not None:
            check_int(steps, given, minimum=1)
            if not is_stream(of):
                raise ValueError(f"{steps} counts the batches of an iterable, but {data} is {describe(of)}")
    if is_stream(options.x):
        batch_size = None if options.batch_size == 32 else options.batch_size
        split = options.validation_split or None
        refuse_with_stream(
            y=options.y, sample_weight=options.sample_weight, batch_size=batch_size, validation_split=split
        )
        if isinstance(options.target_model, np.ndarray):
            raise ValueError(
                "target_model must be a model or a function where x is an iterable, got an array of logits"
            )
