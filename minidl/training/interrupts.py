"""Ctrl-C during training: it waits until parameters, optimizer and counters belong to the same step."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def uninterrupted():
    """Delays the first Ctrl-C to the end of the block; a second one is not delayed.

    Yields the list of interrupts that wait.
    """
    handler, waiting = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield waiting
        return

    def remember(number, frame):
        waiting.append((number, frame))
        if len(waiting) > 1:
            handler(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield waiting
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[0])
