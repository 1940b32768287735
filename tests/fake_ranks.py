"""Ranks that are threads of this process, to test what several processes do without MPI."""

import threading

import numpy as np


class FakeCommunicator:
    """One of the communicators that `run_ranks` gives to its threads."""

    def __init__(self, rank: int, size: int, shared: dict):
        self.rank, self.size, self._shared = rank, size, shared

    def _exchange(self, array: np.ndarray) -> list[np.ndarray]:
        self._shared[self.rank] = array.copy()
        self._shared["barrier"].wait()
        found = [self._shared[rank] for rank in range(self.size)]
        self._shared["barrier"].wait()
        shapes = {(each.shape, each.dtype) for each in found}
        assert len(shapes) == 1, f"the ranks exchange different things: {shapes}"
        return found

    def sum_in_place(self, array: np.ndarray) -> None:
        found = self._exchange(array)
        array[...] = found[0]
        for other in found[1:]:
            array += other

    def broadcast(self, array: np.ndarray) -> None:
        array[...] = self._exchange(array)[0]

    def abort(self) -> None:
        self._shared["aborted_by"] = self.rank
        self._shared["barrier"].abort()


def run_ranks(size: int, work, timeout: float = 120.0) -> list:
    """What ``work(communicator)`` returns on each rank, or the exception that it raises."""
    shared: dict = {"barrier": threading.Barrier(size, timeout=timeout)}
    results: list = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(FakeCommunicator(rank, size, shared))
        except BaseException as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * timeout)
    assert not any(thread.is_alive() for thread in threads), "a rank hangs"
    return results
