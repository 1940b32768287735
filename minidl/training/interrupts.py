"""Lets signals, and other readers of the model, wait for the end of a training step.

Python runs a signal's handler between any two bytecodes of the main thread. One that raises there would leave
parameters of one step with counters of another, and one that saves the model would write such a mixture.
"""

import _signal  # the functions of `signal` look each handler up in an enum, which takes ten times as long
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType
from typing import Any, TypeVar

Found = TypeVar("Found")
Function = TypeVar("Function", bound=Callable)
_NUMBERS = sorted(int(number) for number in signal.valid_signals())
_PATIENCE = 1.0
"""Seconds a signal waits at most. Only a step that runs a user's own code takes longer, and that code may hang."""
_replaced_handlers: dict[int, Callable] = {}  # by signal: `_receive` has taken their place
_waiting_handlers: list[tuple[float, Callable, int, Any]] = []
"""The calls that an `uninterrupted` function holds back: time, handler, number of the signal, frame."""
_uninterrupted_code: set[CodeType] = set()
_watched_trainings: set[object] = set()  # those of the main thread


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _is_held_back() -> bool:
    """Whether an `uninterrupted` function is among the callers. They are looked at, since a count of such functions
    would be wrong for ever after a handler that raises just before the count is put back."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code not in _uninterrupted_code:
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


def _receive(number: int, frame) -> None:
    now = time.monotonic()
    _waiting_handlers.append((now, _replaced_handlers[number], number, frame))
    if not _is_held_back() or now - _waiting_handlers[0][0] > _PATIENCE:
        call_waiting_handlers()


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
    if _waiting_handlers and _in_main_thread():
        _, handler, number, frame = _waiting_handlers.pop(0)
        try:
            handler(number, frame)
        finally:
            call_waiting_handlers()


def uninterrupted(function: Function) -> Function:
    """``function``, in which no handler of a signal is called; those of signals that come are called at its end."""
    _uninterrupted_code.add(function.__code__)

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        finally:
            if _waiting_handlers and not _is_held_back():
                call_waiting_handlers()

    return guarded  # type: ignore[return-value]


@uninterrupted
def _end_watching(training: object) -> None:
    """Give the handlers their places back after the last training."""
    _watched_trainings.discard(training)
    if not _watched_trainings and _in_main_thread():
        for number, handler in _replaced_handlers.items():
            if _signal.getsignal(number) is _receive:
                _signal.signal(number, handler)


class Turns:
    """Gives a model to one at a time: a slice of its training, or a reader. A copy of a model has its own turns.

    Its methods call the work they are given: a handler that raises cannot come between a block and the ``finally``
    that ends it, as it can with a context manager.
    """

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

    def take(self, work: Callable[..., Found], *arguments) -> Found:
        """``work(*arguments)`` while no other thread reads or trains the model."""
        if self._process != os.getpid():  # forked, perhaps while another thread had the model
            self.__init__()
        if self._lock._is_owned():
            return work(*arguments)
        try:
            try:
                with self._turnstile:  # a thread that waits here comes before the one that had the model last
                    self._lock.acquire()
                return work(*arguments)
            finally:
                self._let_go()
        finally:  # a handler may have raised before the line above
            self._let_go()

    def _let_go(self) -> None:
        if self._lock._is_owned():
            self._lock.release()

    @uninterrupted
    def change(self, work: Callable[..., Found], *arguments) -> Found:
        """As `take`, for a step of training: no handler of a signal is called in the middle of it."""
        return self.take(work, *arguments)

    def take_untrained(self, what: str, work: Callable[..., Found], *arguments) -> Found:
        """As `take`, but raises a RuntimeError that names ``what`` if the model is in training."""

        def checked():
            if self.trained:
                raise RuntimeError(
                    f"{what} has to wait until the fit that trains this model is over: it was called by a callback, a "
                    "handler of a signal or another thread"
                )
            return work(*arguments)

        return self.take(checked)

    def train(self, what: str, work: Callable[..., Found], *arguments) -> Found:
        """``work(*arguments)``, the only training, in whose slices the model is taken. ``what``: as above."""
        training = object()

        def begin():
            self._trainings.add(training)
            self._trainings_begun += 1

        def end():
            self._trainings.discard(training)
            _end_watching(training)

        try:
            try:
                self.take_untrained(what, begin)
                if _in_main_thread():
                    _watched_trainings.add(training)
                watch_signals()
                return work(*arguments)
            finally:
                end()
        finally:  # as in `take`
            end()

    def read(self, work: Callable[..., Found], *arguments) -> Found:
        """``work(*arguments)`` on the model as it is after one step: between two slices, if it is in training."""
        begun_before = self._trainings_begun
        if not self.trained:
            found = work(*arguments)
            if self._trainings_begun == begun_before:
                return found
        return self.take(work, *arguments)


def taken(method: Function) -> Function:
    """``method`` of a model while no other thread has the model: see `Turns.take`."""

    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        return self.turns.take(functools.partial(method, self, *args, **kwargs))

    return guarded  # type: ignore[return-value]


def untrained(method: Function) -> Function:
    """``method`` of a model for what a training does not bear: see `Turns.take_untrained`."""

    @functools.wraps(method)
    def guarded(self, *args, **kwargs):
        return self.turns.take_untrained(method.__name__, functools.partial(method, self, *args, **kwargs))

    return guarded  # type: ignore[return-value]


if hasattr(os, "register_at_fork"):  # a child has none of its parent's signals
    os.register_at_fork(after_in_child=_waiting_handlers.clear)
