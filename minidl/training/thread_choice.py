"""Chooses the number of threads for the next slice of a fit from measured step times."""

from __future__ import annotations

import time

from ..kernels import threads


class ThreadChoice:
    """All threads, or one where that was found to be faster.

    Threads meet at barriers several times a step. On a busy machine a barrier waits for a thread that the system
    has put to sleep. So where steps are short, a slice now and then is run on one thread, as a trial: first the
    second slice, which is short.

    ``with choice.for_slice(steps) as count:`` times the slice.
    """

    _SHORT_STEP = 1e-3  # seconds; a longer step gains from threads whatever they wait
    _FIRST_TRIAL, _TRIALS_EVERY = 2, 64  # slices

    def __init__(self, most: int):
        self._most = most
        self._seconds: dict[int, float] = {}  # a step, by number of threads
        self._slices = 0

    def for_slice(self, steps: int) -> ThreadChoice:
        self._steps = steps
        return self

    def __enter__(self) -> int:
        most = min(self._most, threads.get_num_threads())
        self._slices += 1
        self._count = min(self._seconds, key=self._seconds.get, default=most)
        if self._slices == self._FIRST_TRIAL + 1:
            self._count = most  # the first slice woke the workers, and its time tells nothing of them
        elif (
            self._slices % self._TRIALS_EVERY == self._FIRST_TRIAL
            and self._seconds.get(most, 1.0) < self._SHORT_STEP
        ):
            self._count = most if self._count == 1 else 1
        self._began = time.perf_counter()
        return self._count

    def __exit__(self, *error) -> None:
        self._seconds[self._count] = (time.perf_counter() - self._began) / self._steps
