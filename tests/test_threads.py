"""Threads that meet at barriers: all work done once, in step, and nobody left waiting."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest
from numba import TypingError

import minidl
from minidl.kernels import barrier, threads
from minidl.kernels.barrier import meet, share, start_together
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


def parked_workers():
    return int(threads._pool.sync[barrier.JOB + barrier.PARKED])


def new_pool(parked, number=2):
    """A new pool after its first call, its workers parked or perhaps not yet."""
    minidl.set_num_threads(number)
    threads.run(one_round, np.zeros(number, np.int64))
    while parked and parked_workers() < number - 1:
        time.sleep(1e-3)


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


@pytest.mark.parametrize("parked", [False, True])
def test_workers_come_whether_they_spin_or_are_parked(parked):
    minidl.set_num_threads(3)
    counts = np.zeros(3, np.int64)
    for number in [3, 2, 3, 1, 2, 3] * 5:
        threads.run(one_round, counts, threads=number)
        while parked and not JIT_DISABLED and parked_workers() < 2:
            time.sleep(1e-3)
    assert counts.tolist() == ([30, 0, 0] if JIT_DISABLED else [30, 25, 15])


def test_another_number_of_threads_while_workers_spin():
    for number in [2, 3, 1, 2] * 5:
        minidl.set_num_threads(number)
        counts = np.zeros(3, np.int64)
        threads.run(one_round, counts)
        assert counts.tolist() == [1 if i < threads.get_num_threads() else 0 for i in range(3)]


@pytest.mark.parametrize("parked", [False, True])
def test_workers_end_when_their_number_changes(parked):
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    new_pool(parked, number=3)
    pool = threads._pool
    minidl.set_num_threads(2)
    assert pool._ended.empty() and threads._pool is None  # both have said that they end, and were heard


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
    monkeypatch.setattr(threads, "usable_processors", lambda: 16)
    clock = iter([100.0, 200.0, 200.0004, 300.0, 400.0])
    monkeypatch.setattr(threads.time, "perf_counter", lambda: next(clock))
    assert threads.count_for(1e3) == 1
    assert threads.count_for(1e7) == 1  # by itself it does not pay to wake anybody
    assert threads.count_for(1e7) == 1
    assert threads.count_for(1e7) == most  # one after the other
    assert threads.count_for(1e9) == most
    monkeypatch.setattr(threads, "usable_processors", lambda: 2)
    assert threads.count_for(1e9) == min(most, 2)  # more would wait for each other


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
    assert counts[1] == 1  # the worker did nothing


class LockInPython:
    """Interrupted in ``__enter__`` after its lock is taken, it never gives it back; a `threading.Lock` is not."""

    def __init__(self):
        self._lock = threading.Lock()
        self.locked = lambda: False

    def __enter__(self):
        self._lock.acquire()
        return self

    def __exit__(self, *error):
        self._lock.release()


def exit_after_an_interrupt(events, parked, lock=None, seconds=60):
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
        new_pool(parked)
        if lock is not None:
            threads._busy = lock()

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
    assert exits[-1] == 1 and len(exits) > 4


def test_a_lock_that_an_interrupt_leaves_locked_would_be_noticed(counts):
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    exits = [0]
    while exits[-1] == 0:
        exits.append(exit_after_an_interrupt(len(exits) - 1, parked=True, lock=LockInPython, seconds=10))
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


def fails_on(thread):
    @jit
    def kernel(team, counts):
        start_together(team)
        counts[team.thread] += 1
        if team.thread == thread:
            raise ValueError("no")
        meet(team)
        meet(team)

    return kernel


@pytest.mark.parametrize("thread", [0, 1, 2])
def test_a_thread_that_fails_inside_a_kernel_leaves_nobody_waiting(thread):
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    minidl.set_num_threads(3)
    kernel, counts = fails_on(thread), np.zeros(3, np.int64)
    expected = (ValueError, "no") if thread == 0 else (RuntimeError, "kernel failed on one of 3 threads")
    for _ in range(20):
        with pytest.raises(expected[0], match=expected[1]):
            threads.run(kernel, counts)
    assert counts[thread] == 20
    counts = np.zeros(4, np.int64)
    threads.run(add_in_turns, counts, 5)
    assert counts.tolist() == [5, 5, 5, 0]


def allocating(team):
    start_together(team)
    np.empty(team.threads)[0] = 1.0
    meet(team)


@jit(allocates=True)
def allocating_by_itself(
    team,
):  # not `allocating`: the disk's cache knows a function by its name, not by its flags
    start_together(team)
    np.empty(team.threads)[0] = 1.0
    meet(team)


def test_a_kernel_for_several_threads_cannot_allocate():
    """Between start and barrier an allocation could fail on one thread; the compiler refuses the kernel."""
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    with pytest.raises(TypingError, match="No implementation of function .*built-in function empty"):
        jit(allocating)(barrier.ALONE)
    allocating_by_itself(barrier.ALONE)  # the control


def no_thread(*arguments):
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("start", [no_thread, lambda function, arguments: None, "never comes"])
def test_where_no_thread_comes_there_is_one_and_nobody_waits(start, monkeypatch):
    """The system refuses one; gevent and eventlet give greenlets, which run while their caller waits in Python."""
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    if start == "never comes":  # a worker that is a thread by its name, and is never run
        start = print
        monkeypatch.setattr(threads, "_PATIENCE", 0.01)
    elif start is no_thread:  # which looks like the original
        monkeypatch.setattr(threads.types, "BuiltinFunctionType", object)
    minidl.set_num_threads(2)
    monkeypatch.setattr(threads, "start_new_thread", start)
    for _ in range(2):
        counts = np.zeros(3, np.int64)
        assert threads.run(add_in_turns, counts, 5) == 1
        assert counts.tolist() == [5, 0, 0]
    minidl.set_num_threads(2)
    monkeypatch.undo()
    assert threads.run(add_in_turns, np.zeros(3, np.int64), 5) == 2


PATCHED = """
import numpy as np

def train():
    import minidl
    minidl.set_num_threads(2)
    x, y = np.linspace(-1, 1, 640 * 20).reshape(640, 20).astype("f4"), np.arange(640) % 3
    layers = [minidl.Dense(40, "relu", input_dim=20), minidl.Dense(3, "softmax")]
    model = minidl.Sequential(layers, seed=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=3, verbose=0)
    return float(model.predict(x).sum(dtype="f8")), hash(model.params.tobytes())

{lines}
"""
PATCH = "import gevent.monkey; gevent.monkey.patch_all()"


@pytest.mark.parametrize(
    "lines",
    [
        f"{PATCH}; print(train())",
        f"train(); {PATCH}; print(train())",
        f"{PATCH}; greenlet = gevent.spawn(train); greenlet.join(); print(greenlet.value)",
    ],
)
def test_after_gevents_patch_a_training_ends_with_the_same_bits(lines):
    def printed(lines):
        code, environment = PATCHED.format(lines=lines), {**os.environ, "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-W", "ignore", "-c", code]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=True
        ).stdout

    found = printed(lines)
    assert found.startswith("(") and found == printed("print(train())")


def test_some_threads_are_better_than_none(monkeypatch):
    if JIT_DISABLED:
        assert threads.get_num_threads() == 1
        return
    start, started = threads.start_new_thread, []

    def start_two(*arguments):
        if len(started) == 2:
            no_thread()
        started.append(start(*arguments))

    monkeypatch.setattr(threads.types, "BuiltinFunctionType", object)
    monkeypatch.setattr(threads, "start_new_thread", start_two)
    minidl.set_num_threads(5)
    counts = np.zeros(6, np.int64)
    assert threads.run(add_in_turns, counts, 5) == 3
    assert counts.tolist() == [5, 5, 5, 0, 0, 0]


LEAVING = """
import threading, time
import numpy as np, minidl
from minidl.kernels import threads

class Stop(Exception): pass

def train():
    x, y = np.random.rand(640, 20).astype("f4"), np.arange(640) % 3
    model = minidl.Sequential([minidl.Dense(40, "relu", input_dim=20), minidl.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs={epochs}, verbose=0, callbacks=[minidl.callbacks.LambdaCallback(on_epoch_end=seen)])

def seen(epoch, logs):
    trained.set()

minidl.set_num_threads(2)
trained = threading.Event()
threading.Thread(target=train, daemon=True).start()
assert trained.wait(300)
{then}
print("left")
"""


@pytest.mark.parametrize("epochs, then", [(3, ""), (10**7, ""), (10**7, "minidl.set_num_threads(1)"),
                                          (10**7, "import os; os.fork() or os._exit(0); os.wait()")])  # fmt: skip
def test_a_process_leaves_while_workers_wait_or_run(epochs, then):
    """A training in a daemon thread goes on; so it may when the number of threads changes, or the process forks."""
    code = LEAVING.format(epochs=epochs, then=then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
