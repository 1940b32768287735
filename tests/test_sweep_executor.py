"""A sweep whose runs an executor gives to threads or processes: the same figures. Dask: `interop/test_dask.py`."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
import pytest

import minidl
from minidl import sweep as module
from minidl.layers import Dense, Input
from minidl.losses import KnowledgeDistillation

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 6)).astype("float32")
Y = RNG.integers(0, 3, 80)


def run(**arguments):
    teacher, student = (minidl.Sequential([Input((6,)), Dense(3, "softmax")], seed=seed) for seed in (0, 1))
    settings = dict(temperatures=(2.0,), seeds=(0, 1), epochs=2, validation_data=(X, Y), verbose=0)
    return minidl.distill_sweep(teacher, student, X, Y, **{**settings, **arguments})


def test_runs_on_threads_are_those_here():
    before = minidl.get_num_threads()
    with ThreadPoolExecutor(2) as executor:
        there = run(executor=executor)
    here = run(processes=1)
    assert there.runs == here.runs and there.rows == here.rows
    assert minidl.get_num_threads() == before


class Elsewhere(Executor):
    """Runs what it is given at once, as a process would that has neither the files nor this one's number."""

    def __init__(self, monkeypatch):
        self.sent, self.threads, self.cancelled = [], [], 0
        monkeypatch.setattr(module, "set_num_threads", self.threads.append)

    def submit(self, function, run, sender):
        assert isinstance(run.folder, dict)  # no path of this machine
        self.sent.append(sorted(run.folder))
        future = Future()
        future.set_result(function(run, sender + 1))
        return future


def test_a_run_is_sent_with_its_arrays_and_has_one_thread(monkeypatch):
    executor = Elsewhere(monkeypatch)
    there = run(executor=executor, temperatures=(2.0, 4.0))
    assert len(there.runs) == 6 and executor.threads == [1] * 6
    assert all(sent == executor.sent[0] for sent in executor.sent)
    assert executor.sent[0][1:] == ["teacher_val", "x", "x_val", "y", "y_val"]


def test_a_client_gives_its_executor():
    class Client:
        def get_executor(self):
            return pool

    with ThreadPoolExecutor(1) as pool:
        assert run(executor=Client()).runs == run(processes=1).runs


def test_an_error_cancels_the_other_runs():
    class Failing(Executor):
        futures: list = []

        def submit(self, function, *arguments):
            self.futures.append(Future())
            if len(self.futures) == 1:
                self.futures[0].set_exception(OSError("a worker is gone"))
            return self.futures[-1]

    executor = Failing()
    with pytest.raises(OSError, match="a worker is gone"):
        run(executor=executor)
    assert [future.cancelled() for future in executor.futures] == [False, True, True, True]


@pytest.mark.parametrize("executor", [3, "dask", ThreadPoolExecutor, map])
def test_another_thing_is_no_executor(executor):
    with pytest.raises(TypeError, match="executor must be an Executor of concurrent.futures"):
        run(executor=executor)


def test_processes_beside_an_executor_are_refused():
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="processes must be left out"):
        run(executor=executor, processes=2)


def test_a_schedule_that_cannot_be_sent_is_refused():
    loss = KnowledgeDistillation(temperature=lambda epoch: 2.0)
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="minidl.losses.Ramp"):
        run(executor=executor, loss_list=[loss])
