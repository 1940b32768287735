"""Chooses the number of threads for the next call of the compiled loop, or of a kernel, from measured times."""

import functools
import time

CALL_SECONDS = 0.02
"""How long a call of the compiled loop may take. After each call the number of threads is chosen anew."""


class ThreadChoice:
    """The number of threads that was found to be fastest, with a trial of another now and then.

    Threads meet at barriers several times a step. Where other processes run, a barrier waits for a thread that the
    system has put to sleep, and one thread is faster than several, whatever the length of a step. A trial is short, and
    the more time the trials of late have lost, the longer it is until the next. Calls that are shorter than a trial are
    judged several together.
    """

    _TRIAL_SECONDS = 0.005
    _WAIT_PER_LOSS = 200  # so trials take half a percent of the time
    _LEAST_WAIT = 0.05  # seconds
    _CLEARLY = 0.95  # a number of threads is better only if its steps take less than this much of the time

    def __init__(self):
        self._seconds: dict[int, float] = {}  # a step, by number of threads
        self._current, self._calls, self._next_trial, self._tries_more = 0, 0, 0.0, True
        self._count, self._allowed = 0, 0.0  # what was last chosen, for so many seconds
        self._done, self._spent = 0.0, 0.0  # steps since then, and the seconds they took

    def next(self, most: int) -> tuple[int, float]:
        """(threads, seconds at most) of the next call; there are ``most`` threads."""
        if self._spent >= self._allowed or self._count > most:
            self._count, self._allowed = self._choose(most)
            self._done = self._spent = 0.0
        return self._count, self._allowed - self._spent

    def _choose(self, most: int) -> tuple[int, float]:
        self._calls += 1
        if self._calls <= 3:  # the first call wakes the workers, and its time tells nothing of them
            self._current = most
            return (1, CALL_SECONDS) if self._calls == 2 else (most, CALL_SECONDS)
        self._current = min(self._current, most)
        if most == 1 or time.perf_counter() < self._next_trial:
            return self._current, CALL_SECONDS
        self._tries_more = self._current == 1 or (self._current < most and not self._tries_more)
        other = min(2 * self._current, most) if self._tries_more else self._current // 2
        return other, self._TRIAL_SECONDS

    def record(self, count: int, steps: float, seconds: float) -> None:
        """Note how long a call on ``count`` threads took. ``steps``: its work, in any unit that is always the same."""
        if count != self._count:  # others had the workers
            self._count, self._done, self._spent = count, 0.0, 0.0
        # in locals from here on: calls of other threads may begin anew meanwhile
        done, spent = self._done + steps, self._spent + seconds
        self._done, self._spent = done, spent
        if spent < self._allowed:
            return
        step, before = spent / done, self._current
        if count == before and self._calls > 3:  # a mean of about the last 0.1 s
            known = self._seconds.get(count, step)
            step = known + (step - known) * spent / (spent + 0.06)
        self._seconds[count] = step
        best = min([*self._seconds], key=self._seconds.__getitem__)
        if self._seconds[best] < self._CLEARLY * self._seconds.get(before, step):
            self._current = best  # the other is tried again soon: this may have been bad luck
        if count != before or self._current != before:
            loss = done * (step - self._seconds[best]) if self._current == before else 0.0
            self._next_trial = time.perf_counter() + max(self._LEAST_WAIT, self._WAIT_PER_LOSS * loss)


@functools.lru_cache(maxsize=256)
def choice_for(what: object, size: int) -> ThreadChoice:
    """That of all fits or calls of one kind and size: a new one goes on with what the last one has found."""
    return ThreadChoice()
