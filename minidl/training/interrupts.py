"""What may come in the middle of a training step and waits for its end: signals, and other readers of the model.

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
_handlers: dict[int, Callable] = {}  # those whose place `_receive` has taken
waiting: list[tuple[float, Callable, int, Any]] = []
"""Handlers of signals that came in a block without interruption, with the time, number and frame."""
_watching: set[object] = set()  # trainings of the main thread
_holding: set[object] = set()  # its blocks that let nobody in


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _receive(number: int, frame) -> None:
    handler, now = _handlers[number], time.monotonic()
    if not _holding or (waiting and now - waiting[0][0] > _PATIENCE):
        handler(number, frame)
    else:
        waiting.append((now, handler, number, frame))


def watch_signals() -> None:
    """Take the place of all handlers there are now."""
    if _in_main_thread():
        for number in _NUMBERS:
            handler = _signal.getsignal(number)
            if callable(handler) and handler is not _receive:
                _handlers[number] = handler
                _signal.signal(number, _receive)


def let_in() -> None:
    """Call the handlers that wait, all of them, even if one raises."""
    if waiting and _in_main_thread():
        _, handler, number, frame = waiting.pop(0)
        try:
            handler(number, frame)
        finally:
            let_in()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Lets the handlers of signals wait for the end of the block."""
    block = object()
    try:
        if _in_main_thread():
            _holding.add(block)
        yield
    finally:
        _holding.discard(block)
        if not _holding:
            let_in()


class Turns:
    """Who has a model: a slice of its training, or somebody who reads it. A copy begins with nobody."""

    def __init__(self):
        self._next, self._has = threading.Lock(), threading.RLock()
        self._trainings: set[object] = set()
        self._begun, self._process = 0, os.getpid()

    def __reduce__(self):
        return Turns, ()

    @property
    def trained(self) -> bool:
        """Whether a training has begun that is not over."""
        return bool(self._trainings)

    @contextlib.contextmanager
    def untrained(self, what: str) -> Iterator[None]:
        """`taken`, for what a training does not bear: a RuntimeError that names it while there is one."""
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
            _watching.discard(training)
            if not _watching and _in_main_thread():
                for number, handler in _handlers.items():
                    if _signal.getsignal(number) is _receive:
                        _signal.signal(number, handler)

        try:
            try:
                with self.untrained(what):
                    self._trainings.add(training)
                    self._begun += 1
                if _in_main_thread():
                    _watching.add(training)
                watch_signals()
                yield
            finally:
                with uninterrupted():
                    end()
        finally:  # a handler may have raised before the line above
            end()

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Nobody else reads or trains the model in the block."""
        if self._process != os.getpid():  # forked, perhaps from a thread beside the one that had the model
            self.__init__()
        if self._has._is_owned():
            yield
            return
        try:
            with self._next:  # who waits here comes before who has just had the model
                self._has.acquire()
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # an interrupt came before it was acquired
                self._has.release()

    def read(self, work: Callable[..., Found], *arguments) -> Found:
        """``work(*arguments)``, on a model of one and the same step: between two slices, if it is trained."""
        begun = self._begun
        if not self.trained:
            found = work(*arguments)
            if self._begun == begun:
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
    for kept in (_holding, waiting):
        os.register_at_fork(after_in_child=kept.clear)
