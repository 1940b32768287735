"""Lets signals, and other readers of the model, wait for the end of a training step.

Python runs a signal's handler between any two bytecodes of the main thread. One that raises there would leave
parameters of one step with counters of another, and one that saves the model would write such a mixture.
"""

import _signal  # the functions of `signal` look each handler up in an enum, which takes ten times as long
import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Found = TypeVar("Found")
Method = TypeVar("Method", bound=Callable)
_NUMBERS = sorted(int(number) for number in signal.valid_signals())
_PATIENCE = 1.0
"""Seconds a signal waits at most. Only a step that runs a user's own code takes longer, and that code may hang."""
_replaced_handlers: dict[int, Callable] = {}  # by signal: `_receive` has taken their place
waiting_handlers: list[tuple[float, Callable, int, Any]] = []
"""The calls of handlers that an `uninterrupted` block holds back: time, handler, number of the signal, frame."""
_watched_trainings: set[object] = set()  # those of the main thread
_uninterrupted_blocks: set[object] = set()  # `uninterrupted` blocks that the main thread is in


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _receive(number: int, frame) -> None:
    handler, now = _replaced_handlers[number], time.monotonic()
    if not _uninterrupted_blocks or (waiting_handlers and now - waiting_handlers[0][0] > _PATIENCE):
        handler(number, frame)
    else:
        waiting_handlers.append((now, handler, number, frame))


def watch_signals() -> None:
    """Put `_receive` in the place of all handlers there are now."""
    if _in_main_thread():
        for number in _NUMBERS:
            handler = _signal.getsignal(number)
            if callable(handler) and handler is not _receive:
                _replaced_handlers[number] = handler
                _signal.signal(number, _receive)


def call_waiting_handlers() -> None:
    """Make the calls that were held back, all of them, even if one raises."""
    if waiting_handlers and _in_main_thread():
        _, handler, number, frame = waiting_handlers.pop(0)
        try:
            handler(number, frame)
        finally:
            call_waiting_handlers()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """In the block no handler of a signal is called; those of signals that come are called at its end."""
    block = object()
    try:
        if _in_main_thread():
            _uninterrupted_blocks.add(block)
        yield
    finally:
        _uninterrupted_blocks.discard(block)
        if not _uninterrupted_blocks:
            call_waiting_handlers()


class Turns:
    """Gives a model to one at a time: a slice of its training, or a reader. A copy of a model has its own turns."""

    def __init__(self):
        self._turnstile, self._lock = threading.Lock(), threading.RLock()
        self._trainings: set[object] = set()
        self._trainings_begun, self._process = 0, os.getpid()

    def __reduce__(self):
        return Turns, ()

    @property
    def trained(self) -> bool:
        """Whether the model is in training now."""
        return bool(self._trainings)

    @contextlib.contextmanager
    def untrained(self, what: str) -> Iterator[None]:
        """As `taken`, but raises a RuntimeError that names ``what`` if the model is in training."""
        with self.taken():
            if self.trained:
                raise RuntimeError(
                    f"{what} has to wait until the fit that trains this model is over: it was called by a callback, a "
                    "handler of a signal or another thread"
                )
            yield

    @contextlib.contextmanager
    def training(self, what: str) -> Iterator[None]:
        """Around a training, the only one, in whose slices the model is `taken`. ``what``: see `untrained`."""
        training = object()

        def end():
            self._trainings.discard(training)
            _watched_trainings.discard(training)
            if not _watched_trainings and _in_main_thread():
                for number, handler in _replaced_handlers.items():
                    if _signal.getsignal(number) is _receive:
                        _signal.signal(number, handler)

        try:
            try:
                with self.untrained(what):
                    self._trainings.add(training)
                    self._trainings_begun += 1
                if _in_main_thread():
                    _watched_trainings.add(training)
                watch_signals()
                yield
            finally:
                with uninterrupted():
                    end()
        finally:  # a handler may have raised before the line above
            end()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """In the block no other thread reads or trains the model."""
        if self._process != os.getpid():  # forked, perhaps while another thread had the model
            self.__init__()
        if self._lock._is_owned():
            yield
            return
        try:
            with self._turnstile:  # a thread that waits here comes before the one that had the model last
                self._lock.acquire()
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # an interrupt came before it was acquired
                self._lock.release()

    def read(self, work: Callable[..., Found], *arguments) -> Found:
        """``work(*arguments)`` on the model as it is after one step: between two slices, if it is in training."""
        begun_before = self._trainings_begun
        if not self.trained:
            found = work(*arguments)
            if self._trainings_begun == begun_before:
                return found
        with self.taken():
            return work(*arguments)


def untrained(method: Method) -> Method:
    """``method`` of a model for what a training does not bear: see `Turns.untrained`."""

    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        with self.turns.untrained(method.__name__):
            return method(self, *args, **kwargs)

    return guarded  # type: ignore[return-value]


if hasattr(os, "register_at_fork"):  # a child has none of its parent's other threads
    for kept in (_uninterrupted_blocks, waiting_handlers):
        os.register_at_fork(after_in_child=kept.clear)
