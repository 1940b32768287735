"""Threads that meet at barriers: all work done once, in step, and nobody left waiting."""

import os
import signal
import sys
import threading
import time
import traceback
from queue import Queue, SimpleQueue

import numpy as np
import pytest

import minidl
from minidl.kernels import barrier, processor, threads
from minidl.kernels.barrier import Team, meet, share, start_together
from minidl.kernels.jit import JIT_DISABLED, jit
from minidl.kernels.processor import flush_denormals, restore_denormals


@pytest.fixture(autouse=True)
def _restore_threads():
    before = minidl.get_num_threads()
    yield
    minidl.set_num_threads(before)


@jit
def add_in_turns(team, counts, rounds):
    """Each round every thread adds one to its own count, and checks that nobody is a round away."""
    start_together(team)
    for done in range(rounds):
        counts[team.thread] += 1
        meet(team)
        for other in range(team.threads):
            if counts[other] != done + 1:
                counts[-1] += 1
        meet(team)


@jit
def one_round(team, counts):
    """Ends as the kernels of the library do."""
    start_together(team)
    counts[team.thread] += 1
    meet(team)


@jit
def fill_shares(team, out, unit):
    start_together(team)
    low, high = share(out.size, team, unit)
    for i in range(low, high):
        out[i] += 1
    meet(team)


@pytest.fixture
def counts():
    """Of a first call of two threads, so that there is a worker."""
    minidl.set_num_threads(2)
    counts = np.zeros(3, np.int64)
    threads.run(add_in_turns, counts, 1)
    return counts


def new_worker(parked):
    """Of a new pool of two threads, after its first call."""
    minidl.set_num_threads(2)
    threads.run(one_round, np.zeros(2, np.int64))
    worker = threads._pool.workers[0]
    while parked and not worker.is_parked:
        time.sleep(1e-3)
    return worker


@pytest.mark.parametrize("number", [1, 2, 3])
def test_threads_stay_in_step(number):
    minidl.set_num_threads(number)
    counts = np.zeros(number + 1, np.int64)
    threads.run(add_in_turns, counts, 200)
    expected = 1 if JIT_DISABLED else number
    assert counts[:expected].tolist() == [200] * expected
    assert counts[-1] == 0


@pytest.mark.parametrize("total", [0, 1, 7, 64, 1000])
@pytest.mark.parametrize("unit", [1, 16])
def test_shares_cover_everything_once(total, unit):
    minidl.set_num_threads(3)
    out = np.zeros(total, np.int64)
    threads.run(fill_shares, out, unit)
    assert (out == 1).all()


def test_a_second_caller_runs_alone_while_the_workers_are_taken():
    minidl.set_num_threads(2)
    results = []

    def work():
        for _ in range(20):
            counts = np.zeros(3, np.int64)
            threads.run(add_in_turns, counts, 50)
            results.append(counts)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [counts[0] for counts in results] == [50] * 80
    assert all(counts[-1] == 0 for counts in results)


@pytest.mark.parametrize("pause", [0.0, 5e-4, 5e-3])
def test_workers_come_whether_they_spin_or_are_parked(pause):
    minidl.set_num_threads(3)
    counts = np.zeros(3, np.int64)
    for number in [3, 2, 3, 1, 2, 3] * 5:
        threads.run(one_round, counts, threads=number)
        time.sleep(pause)
    assert counts.tolist() == ([30, 0, 0] if JIT_DISABLED else [30, 25, 15])


def test_another_number_of_threads_while_workers_spin():
    for number in [2, 3, 1, 2] * 5:
        minidl.set_num_threads(number)
        counts = np.zeros(3, np.int64)
        threads.run(one_round, counts)
        assert counts.tolist() == [1 if i < threads.get_num_threads() else 0 for i in range(3)]


def test_workers_end_at_once_though_they_would_spin_for_long(monkeypatch):
    """As on a busy machine, where each spin gives the processor away for milliseconds."""
    monkeypatch.setattr(threads, "_SPINS_BEFORE_PARK", 10**15)
    minidl.set_num_threads(3)
    threads.run(one_round, np.zeros(3, np.int64))
    ending = threading.Thread(target=minidl.set_num_threads, args=(2,), daemon=True)
    ending.start()
    ending.join(60)
    assert not ending.is_alive()


@pytest.mark.parametrize("fewer", [1, 2])
def test_another_number_of_threads_while_a_call_begins(fewer, monkeypatch):
    """Set by another thread after the call was planned for three, and before it has the workers to itself."""

    class Lock:
        def locked(self):
            return False

        def __enter__(self):
            monkeypatch.setattr(threads, "_num_threads", 1 if JIT_DISABLED else fewer)
            monkeypatch.setattr(threads, "_pool", None)

        def __exit__(self, *error):
            pass

    minidl.set_num_threads(3)
    counts = np.zeros(4, np.int64)
    with monkeypatch.context() as patch:
        patch.setattr(threads, "_busy", Lock())
        threads.run(add_in_turns, counts, 5, threads=3)
    assert counts[:3].tolist() == [5] * threads.get_num_threads() + [0] * (3 - threads.get_num_threads())


def test_only_work_that_gains_from_threads_gets_them(monkeypatch):
    minidl.set_num_threads(1 if JIT_DISABLED else 4)
    most = minidl.get_num_threads()
    monkeypatch.setattr(threads, "_last_call", 0.0)
    clock = iter([100.0, 200.0, 200.001, 300.0])
    monkeypatch.setattr(threads.time, "perf_counter", lambda: next(clock))
    assert threads.count_for(1e3) == 1
    assert threads.count_for(1e7) == 1  # by itself it does not pay to wake anybody
    assert threads.count_for(1e7) == 1
    assert threads.count_for(1e7) == most  # one after the other
    assert threads.count_for(1e9) == most


def test_an_interrupt_before_the_start_leaves_no_helper_waiting(counts):
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return

    def interrupted(team, *args):
        if team.thread == 0:
            raise KeyboardInterrupt
        add_in_turns(team, *args)

    with pytest.raises(KeyboardInterrupt):
        threads.run(interrupted, counts, 1)
    threads.run(add_in_turns, np.zeros(3, np.int64), 5)  # and the next call works
    assert counts[1] == 1  # the worker was told to go, and did nothing


@pytest.mark.parametrize("woken", [True, False])
@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_an_interrupt_while_a_worker_is_woken_leaves_nobody_waiting(woken, pause, counts, monkeypatch):
    """Before the worker is told to come, and after it was, when nobody could note that it is on its way."""
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    monkeypatch.setattr(threads, "_SPINS_BEFORE_PARK", 1)
    worker = new_worker(parked=True)
    calls = worker.calls

    class Interrupted:
        def put(self, item):
            if woken:
                calls.put(item)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "calls", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            threads.run(add_in_turns, counts, 1)
    assert counts.tolist() == [1, 1, 0]
    for _ in range(5):
        counts = np.zeros(3, np.int64)
        threads.run(add_in_turns, counts, 5)
        assert counts.tolist() == [5, 5, 0]
        time.sleep(pause)


def exit_after_an_interrupt(events, parked, calls=SimpleQueue, seconds=60):
    """How a process ends that is interrupted in a call, after so many events, and then calls again.

    0: well, 1: the call had fewer events. A hang is ended by a signal. An interrupt may come wherever Python may run a
    signal's handler: where a function begins, after a line, as it returns; in the standard library too.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 3
    try:
        signal.alarm(seconds)
        threads._SPINS_BEFORE_PARK = 1 if parked else 10**15
        threads.SimpleQueue = calls
        new_worker(parked)

        def trace(frame, event, arg):
            nonlocal events
            # of `run` itself only `with` is left, which is not interrupted between its instructions
            if frame.f_code is not threads.run.__code__:
                events -= 1
                if events < 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            threads.run(add_in_turns, np.zeros(3, np.int64), 1)
            code = 1
        except KeyboardInterrupt:
            code = 0
        sys.settrace(None)
        for _ in range(3):
            counts = np.zeros(3, np.int64)
            threads.run(add_in_turns, counts, 5)
            assert counts.tolist() == [5, 5, 0]
        minidl.set_num_threads(2)  # which waits for the worker
    except BaseException:
        traceback.print_exc()
        code = 3
    finally:
        os._exit(code)


@pytest.mark.parametrize("parked", [True, False])
def test_an_interrupt_anywhere_in_a_call_leaves_nobody_waiting(parked, counts):
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    exits = [exit_after_an_interrupt(0, parked)]
    while exits[-1] == 0:
        exits.append(exit_after_an_interrupt(len(exits), parked))
    assert exits[-1] == 1 and len(exits) > 8


def test_a_lock_that_an_interrupt_leaves_locked_would_be_noticed(counts):
    """`threading.Condition` takes its lock in Python: interrupted in ``__enter__``, it never gives it back."""
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    exits = [0]
    while exits[-1] == 0:
        exits.append(exit_after_an_interrupt(len(exits), parked=True, calls=Queue, seconds=10))
    assert exits[-1] == -signal.SIGALRM


def test_a_forked_child_computes():
    minidl.set_num_threads(2)
    threads.run(add_in_turns, np.zeros(3, np.int64), 3)
    child = os.fork()
    if child == 0:
        counts = np.zeros(3, np.int64)
        threads.run(add_in_turns, counts, 7)
        os._exit(0 if counts[0] == 7 and counts[-1] == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_denormals_are_flushed_and_the_mode_restored():
    tiny = np.full(4, 1e-40, np.float32)
    mode = flush_denormals()
    try:
        flushed = tiny * np.float32(1)
    finally:
        restore_denormals(mode)
    if not JIT_DISABLED:
        assert (flushed == 0).all()
    assert (tiny * np.float32(1) != 0).all()


@pytest.mark.parametrize("bad", [0, -1, 257])
def test_a_bad_number_of_threads_is_named(bad):
    with pytest.raises(ValueError, match=f"n must be in 1..256, got {bad}"):
        minidl.set_num_threads(bad)


@pytest.mark.parametrize("bad", [1.0, "2", True, None, np.timedelta64(2)])
def test_a_number_of_threads_is_an_integer(bad):
    with pytest.raises(TypeError, match="n must be an integer"):
        minidl.set_num_threads(bad)


def test_a_kernel_that_cannot_run_is_told_once_and_leaves_nobody_waiting():
    def out_of_memory(team):
        raise MemoryError(f"no memory for {team.threads} threads")

    minidl.set_num_threads(2)
    for _ in range(2):
        with pytest.raises(MemoryError, match=f"for {minidl.get_num_threads()} threads"):
            threads.run(out_of_memory)
    counts = np.zeros(minidl.get_num_threads(), np.int64)
    threads.run(one_round, counts)
    assert counts.all()


if processor.KNOWS_CPU and not JIT_DISABLED and len(os.sched_getaffinity(0)) > 1:

    @jit
    def start(team):
        """Starts, and tells on which processor it goes on."""
        start_together(team)
        return processor.current_cpu()

    def start_as_a_worker(sync):
        return start(Team(1, 2, sync))

    @pytest.fixture
    def allowed():
        before = os.sched_getaffinity(0)
        yield before
        os.sched_setaffinity(0, before)

    def meeting_place(callers_cpu):
        sync = np.zeros(barrier.SYNC_SIZE, np.int64)
        sync[barrier.CALLERS_CPU] = callers_cpu
        return sync

    def test_a_worker_leaves_its_callers_processor_and_may_come_back(allowed):
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})  # so that it is there now
            os.sched_setaffinity(0, allowed)
            assert start_as_a_worker(meeting_place(cpu)) != cpu
            assert os.sched_getaffinity(0) == allowed

    def test_a_worker_that_has_nowhere_to_go_stays(allowed):
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            for caller in allowed:
                assert start_as_a_worker(meeting_place(caller)) == cpu
                assert os.sched_getaffinity(0) == {cpu}

    def test_the_caller_tells_its_processor(allowed):
        minidl.set_num_threads(2)
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            threads.run(one_round, np.zeros(2, np.int64))
            assert threads._pool.sync[barrier.CALLERS_CPU] == cpu
