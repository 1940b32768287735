"""The number of threads on machines that are simulated: by a clock of their own and the time that a step takes."""

import itertools
import math

import numpy as np
import pytest

import minidl
from minidl.kernels import cpu_count, thread_choice, threads
from minidl.kernels.thread_choice import ThreadChoice
from minidl.layers import Dense


class Machine:
    """Runs steps; ``seconds(threads)`` is what one takes now."""

    def __init__(self, monkeypatch, seconds, most=2, choice=None):
        self.now, self.seconds, self.most, self.used = 0.0, seconds, most, []
        self.choice = choice or ThreadChoice()
        monkeypatch.setattr(thread_choice.time, "perf_counter", lambda: self.now)

    def run(self, duration):
        """How many steps are done in so long, on the numbers of threads that are chosen."""
        end, done, self.used = self.now + duration, 0, []
        while self.now < end:
            count, allowed = self.choice.next(self.most)
            step = self.seconds(count)
            steps = max(1, math.ceil(allowed / step))
            self.now += steps * step
            self.choice.record(count, steps, steps * step)
            self.used.append(count)
            done += steps
        return done


def quiet(step):
    """Two threads take 0.6 of the time, four 0.4 and so on."""
    return lambda threads: step * threads**-0.7


def crowded(step, free, slice_seconds=0.004):
    """As many processors as ``free`` are quiet; with more threads every step waits for the system's time slices."""
    return lambda threads: quiet(step)(threads) if threads <= free else step + threads * slice_seconds


@pytest.mark.parametrize("step", [1e-4, 1e-3, 4e-3, 3e-2])
def test_on_a_busy_machine_one_thread_does_the_work(monkeypatch, step):
    """Long steps, too, which were once thought to gain from threads whatever they wait."""
    machine = Machine(monkeypatch, quiet(step))
    assert machine.run(5) > 0.95 * 5 / quiet(step)(2)
    machine.seconds = crowded(step, free=1)
    assert machine.run(5) > 0.9 * 5 / step
    machine.seconds = quiet(step)
    machine.run(25)  # trials are rarer the more they have cost
    assert machine.run(5) > 0.95 * 5 / quiet(step)(2)


def test_it_reacts_within_a_few_slices(monkeypatch):
    machine = Machine(monkeypatch, quiet(1e-4))
    machine.run(5)
    machine.seconds = crowded(1e-4, free=1)
    machine.run(0.1)
    assert machine.used[-1] == 1
    machine.seconds = quiet(1e-4)
    machine.run(5)
    assert machine.used[-1] == 2


def test_a_choice_that_never_backs_off_would_be_seen(monkeypatch):
    class Always(ThreadChoice):
        def next(self, most):
            return most, thread_choice.CALL_SECONDS

    machine = Machine(monkeypatch, crowded(1e-4, free=1), choice=Always())
    assert machine.run(5) < 0.1 * 5 / 1e-4


@pytest.mark.parametrize("free", [1, 2, 4, 8, 16])
def test_as_many_threads_as_there_are_free_processors(monkeypatch, free):
    machine = Machine(monkeypatch, crowded(1e-3, free), most=16)
    machine.run(10)
    assert machine.run(10) > 0.9 * 10 / quiet(1e-3)(free)
    assert max(set(machine.used), key=machine.used.count) == free


def test_threads_that_never_pay_cost_little(monkeypatch):
    machine = Machine(monkeypatch, lambda threads: 4e-6 * (1 + 0.1 * (threads - 1)))
    assert machine.run(5) > 0.98 * 5 / 4e-6


def test_one_slow_call_does_not_change_the_number_for_long(monkeypatch):
    machine = Machine(monkeypatch, lambda threads: 1e-4 * threads)
    machine.run(3)
    machine.seconds = lambda threads: 2e-3 if threads == 1 else 2e-4  # for a moment
    machine.run(0.04)
    machine.seconds = lambda threads: 1e-4 * threads
    assert machine.run(5) > 0.95 * 5 / 1e-4


def test_never_more_than_there_are_now(monkeypatch):
    machine = Machine(monkeypatch, quiet(1e-3), most=8)
    machine.run(3)
    machine.most = 3
    machine.run(3)
    assert max(machine.used) == 3
    machine.most = 1
    machine.run(1)
    assert set(machine.used) == {1}


# ---- calls of a kernel, such as matrix products and predictions


class Calls:
    """A machine on which calls of a kernel are timed; ``seconds(threads)`` is what one takes now."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.seconds, self.used = 0.0, seconds, []
        thread_choice.choice_for.cache_clear()
        monkeypatch.setattr(thread_choice.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(threads, "run", self.run)

    def run(self, kernel, *args, threads):
        self.used.append(threads)
        self.now += self.seconds(threads)
        return threads

    def call(self, duration, flops, pause=0.0):
        """What a call takes in the mean, of those that are made in so long."""
        end, self.used, spent = self.now + duration, [], 0.0
        while self.now < end:
            self.now += pause
            before = self.now
            threads.run_measured("a kernel", threads=2, flops=flops)
            spent += self.now - before
        return spent / len(self.used)


@pytest.mark.parametrize("pause", [0.0, 0.005])
@pytest.mark.parametrize("one", [1e-3, 3e-2])
def test_calls_back_off_on_a_busy_machine(monkeypatch, one, pause):
    machine = Calls(monkeypatch, quiet(one))
    assert machine.call(10, 1e9, pause) < 1.05 * quiet(one)(2)
    machine.seconds = crowded(one, free=1, slice_seconds=one)
    assert machine.call(20, 1e9, pause) < 1.1 * one
    assert crowded(one, free=1, slice_seconds=one)(2) > 2.9 * one, "the control: what two threads take"
    machine.seconds = quiet(one)
    machine.call(60, 1e9, pause)
    assert machine.call(10, 1e9, pause) < 1.05 * quiet(one)(2)


def test_a_long_call_is_not_tried_on_one_thread(monkeypatch):
    machine = Calls(monkeypatch, quiet(3.0))
    machine.call(100, 1e12)
    assert set(machine.used) == {2}
    machine.call(100, 1e9)
    assert set(machine.used) == {1, 2}  # the control


def test_calls_of_one_size_are_judged_by_themselves(monkeypatch):
    machine = Calls(monkeypatch, lambda threads: 1e-3 * threads)
    machine.call(5, 1e8)
    assert machine.used[-1] == 1
    machine.seconds = quiet(1e-2)
    machine.call(0.01, 1e9)
    assert set(machine.used) == {2}


def test_short_calls_are_judged_several_together(monkeypatch):
    """One that is lucky says nothing of the others."""
    machine = Calls(monkeypatch, lambda threads: 1e-4 if threads == 1 else 3e-4)
    machine.call(2, 1e8)
    turn = itertools.count()
    machine.seconds = lambda threads: 1e-4 if threads == 1 else (2e-5 if next(turn) % 10 == 0 else 4e-4)
    assert machine.call(5, 1e8) < 1.05e-4


# ---- how many threads there are by default


@pytest.fixture
def no_numbers(monkeypatch):
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_count, "usable_processors", lambda: 6)


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({}, 6),
        ({"OMP_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "3,2"}, 3),
        ({"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "4"}, 4),
        ({"OMP_NUM_THREADS": "none", "NUMBA_NUM_THREADS": "0"}, 6),
    ],
)
def test_the_environment_tells_how_many_threads(monkeypatch, no_numbers, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cpu_count.default_threads() == expected


def test_a_quota_limits_the_processors(monkeypatch):
    allowed = cpu_count.usable_processors()
    for quota, expected in ((0, 1), (1, 1), (10**6, allowed)):
        monkeypatch.setattr(cpu_count, "_QUOTA", quota)
        assert cpu_count.usable_processors() == expected


@pytest.mark.parametrize(
    "cgroup, files, expected",
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),  # a container that sees its own group as the root
        ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/", {}, math.inf),
        ("0::/pod/box", {"pod/cpu.max": "200000 100000", "pod/box/cpu.max": "300000 100000"}, 2.0),
        ("0::/../elsewhere", {"cpu.max": "400000 100000"}, 4.0),
        ("4:memory:/x\n3:cpu,cpuacct:/box\n0::/", {
            "cpu,cpuacct/box/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("", {"cpu.max": "100000 100000"}, math.inf),
    ],
)  # fmt: skip
def test_the_quotas_of_cgroups(tmp_path, cgroup, files, expected):
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_count.read_quota(tmp_path) == expected


def test_work_that_is_over_before_a_worker_comes_is_done_alone_and_tells_nothing(monkeypatch):
    told = []
    monkeypatch.setattr(ThreadChoice, "next", lambda self, most: (most, 1.0))
    monkeypatch.setattr(ThreadChoice, "record", lambda self, *what: told.append(what))
    model = minidl.Sequential([Dense(16, "relu", input_dim=4), Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((150, 4)), np.zeros(150, int), verbose=0)
    assert not told
    monkeypatch.setattr(threads, "SHORT_FLOPS", 1e3)
    model.fit(np.zeros((150, 4)), np.zeros(150, int), verbose=0)
    assert told


def test_calls_of_many_threads_share_a_choice():
    """Another thread begins anew between the lines of `record`: nothing is divided by what it has set to 0."""

    class Interrupted(ThreadChoice):
        @property
        def _allowed(self):
            allowed = vars(self)["allowed"]
            if told:  # as if the system had changed threads here
                self._done = self._spent = 0.0
                self._seconds.setdefault(7, 1.0)
            return allowed

        @_allowed.setter
        def _allowed(self, value):
            vars(self)["allowed"] = value

    told, choice = [], Interrupted()
    for _ in range(5):
        count, _ = choice.next(2)
        told.append(count)
        choice.record(count, 10, 1.0)
        told.clear()
    assert choice.next(2)[0] in (1, 2)
