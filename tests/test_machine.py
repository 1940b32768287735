"""What is told of the machine, and what is measured of it. No figure is asserted: only what would make one wrong."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from minidl import info, machine
from minidl.__main__ import main
from minidl.kernels import cpu_count, limits
from minidl.kernels.jit import JIT_DISABLED

PROCESSOR = next(iter(os.sched_getaffinity(0)), 0) if hasattr(os, "sched_getaffinity") else 0


@pytest.fixture
def system(tmp_path):
    """A Linux of one's own: ``system(path, text)`` writes a file of it."""

    def write(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return tmp_path

    return write


def write_cache(system, index, **values):
    for name, value in values.items():
        root = system(f"sys/devices/system/cpu/cpu{PROCESSOR}/cache/index{index}/{name}", f"{value}\n")
    return root


def test_the_processor_has_its_name_and_numbers(system, tmp_path):
    assert machine.processor(tmp_path), "something is told even where there is no such file"
    root = system(
        "proc/cpuinfo", "model name\t: A Processor @ 2 GHz\ncpu family\t: 25\nmodel\t\t: 1\n\nmodel name: B\n"
    )
    assert machine.processor(root).startswith(
        ("A Processor", "B")
    ) and "family 25, model 1" in machine.processor(root)


def test_caches_are_read_and_sorted(system, tmp_path):
    assert machine.caches(tmp_path) == []
    common = dict(coherency_line_size=64, number_of_sets=64)
    write_cache(system, 2, type="Unified", level=2, size="1M", **common)
    write_cache(system, 1, type="Instruction", level=1, size="32K", **common)
    write_cache(system, 3, type="Unified", level=3, size="many", **common)  # not understood: left out
    root = write_cache(system, 0, type="Data", level=1, size="32K", **common)
    assert machine.caches(root) == [machine.Cache(1, 2**15, 64, 64), machine.Cache(2, 2**20, 64, 64)]
    assert machine.caches(root)[0].ways == 8
    assert machine.memory_size(machine.caches(root)) == 144_000_000
    assert machine.memory_size([machine.Cache(3, 2**26, 64, 2**16)]) == 2**28


@pytest.mark.parametrize("cores, expected", [(("0", "0"), True), (("0", "1"), False), (("0",), False)])
def test_hyper_threads_are_told_from_cores(system, tmp_path, monkeypatch, cores, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(len(cores))), raising=False)
    assert machine.shares_cores(tmp_path) is False  # nothing is known
    for number, core in enumerate(cores):
        system(f"sys/devices/system/cpu/cpu{number}/topology/core_id", core)
        system(f"sys/devices/system/cpu/cpu{number}/topology/physical_package_id", "0")
    assert machine.shares_cores(tmp_path) is expected


def test_quantities_have_units():
    assert [machine.size_text(size) for size in (100, 2**15, 1.5 * 2**20)] == ["100 bytes", "32 KB", "1.5 MB"]
    assert machine.size_text(1000 * 2**10) == "1,000 KB" and machine.rate_text(1234.5e9) == "1,234"
    assert machine.rate_text(106.2e9) == "106" and machine.time_text(1.25e-9) == "1.25 ns"


@pytest.mark.skipif(JIT_DISABLED, reason="measures compiled code")
@pytest.mark.parametrize("work", [machine.MultiplyAdds, lambda threads: machine.Triad(12 * 1000, threads)])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_timed_is_right_and_a_wrong_result_is_no_figure(work, threads, monkeypatch):
    work = work(threads)
    assert not work.is_right(), "nothing has run"
    work.run(work.rounds_to_check)
    assert work.is_right() and 0 < work.together.share <= 1
    assert machine.rate(work, 0.001) > 0
    kernel = "multiply_adds" if isinstance(work, machine.MultiplyAdds) else "triad"
    monkeypatch.setattr(limits, kernel, lambda out, *_: out.fill(5))
    monkeypatch.setattr(machine, "least_seconds", lambda run, *_: run(1))
    with pytest.raises(RuntimeError, match="gave wrong numbers"):
        machine.rate(work)


def test_units_count_operations_and_bytes():
    assert machine.MultiplyAdds(3).units == 3 * 2 * limits.CHAINS * limits.LANES
    assert machine.Triad(12 * 1000, 2).units == 12 * 1000


@pytest.mark.skipif(JIT_DISABLED, reason="plain Python does not run the rounds one by one")
def test_the_chains_depend_on_what_was_before():
    out = np.zeros(limits.CHAINS * limits.LANES, np.float32)
    for rounds in (1, 2, 5):
        limits.multiply_adds(out, rounds)
        starts = np.repeat(np.arange(limits.CHAINS), limits.LANES)
        np.testing.assert_allclose(out, starts / 2.0**rounds + 2 - 2.0 ** (1 - rounds), rtol=1e-6)
    one = np.zeros(limits.LANES, np.float32)
    limits.dependent_multiply_adds(one, 3)
    assert (one == 1.75).all()
    assert limits.additions(10, 7) == 70 * limits.ADDITIONS


def test_a_thread_that_had_no_processor_is_noticed():
    together = machine.Together(2)
    assert together.share == 1.0
    together.run(lambda thread: time.sleep(0.05))
    assert together.share < 0.5


def test_the_least_time_is_of_long_calls_only(monkeypatch):
    """The clock of this thread may be coarse; here it is one of the test's own."""
    now, calls = [0.0], []

    def run(rounds):
        calls.append(rounds)
        now[0] += 1e-5 * rounds + (0.5 if len(calls) == 5 else 0.0)  # one call is disturbed

    monkeypatch.setattr(machine, "_own_time", lambda: now[0])
    found = machine.least_seconds(run, 0.01)
    assert calls[:2] == [1, 1] and calls[-1] == 32 and found == pytest.approx(1e-5)


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    "environment, allowed, quota, reason",
    [
        ({}, 4, 10**6, "all processors"),
        ({}, 1, 10**6, "affinity or PYTHON_CPU_COUNT leaves 1 of 4 processors"),
        ({}, 4, 2, "a cgroup's quota leaves the time of 2 of 4 processors"),
        ({"OMP_NUM_THREADS": "3"}, 4, 10**6, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"}, 4, 10**6, "NUMBA_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "8"}, 4, 10**6, "OMP_NUM_THREADS; all processors, and no more are used"),
        ({"OMP_NUM_THREADS": "none"}, 4, 10**6, "all processors"),
    ],
)
def test_why_so_many_threads(monkeypatch, environment, allowed, quota, reason):
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(cpu_count, "_allowed_processors", lambda: allowed)
    monkeypatch.setattr(cpu_count, "_QUOTA", quota)
    assert cpu_count.explain_default() == reason
    expected = int(next((v for v in reversed(environment.values()) if v.isdecimal()), min(allowed, quota)))
    assert cpu_count.default_threads() == expected


def test_info(capsys, monkeypatch):
    assert main(["info"]) == 0
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    for name in ("minidl", "numpy", "numba, llvmlite", "processor", "caches", "vectors", "tiles", "threads"):
        assert told[name].strip()
    assert (
        "MB)" in told["compiled code"]
        or "KB)" in told["compiled code"]
        or "(0 files" in told["compiled code"]
        or JIT_DISABLED
    )
    monkeypatch.setattr("minidl.kernels.cache.FOLDERS", [])
    assert main(["info"]) == 0
    assert JIT_DISABLED or "not kept; let NUMBA_CACHE_DIR" in capsys.readouterr().out


@pytest.mark.skipif(JIT_DISABLED, reason="measures compiled code")
def test_info_measures(capsys, monkeypatch):
    monkeypatch.setattr(info, "_SECONDS", 0.001)
    monkeypatch.setattr(machine, "memory_size", lambda caches: 10**6)
    assert main(["info", "--measure"]) == 0
    shown = capsys.readouterr().out
    for name in ("multiply-adds", "a multiply-add", "clock", "memory"):
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{name} ")]
        assert any(
            0 < float(word) for word in line.replace(",", "").split() if word.replace(".", "").isdecimal()
        )
    for cache in machine.caches():
        assert f"L{cache.level} cache" in shown


def test_info_without_compiled_code_measures_nothing(capsys, monkeypatch):
    monkeypatch.setattr(info, "JIT_DISABLED", True)
    assert main(["info"]) == 0 and "NUMBA_DISABLE_JIT" in capsys.readouterr().out
    assert main(["info", "--measure"]) == 2 and "needs compiled code" in capsys.readouterr().err


def test_the_environment_of_a_process_limits_every_library(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = machine.thread_environment(2)
    assert {name: value for name, value in found.items() if name.endswith("_NUM_THREADS")}[
        "OPENBLAS_NUM_THREADS"
    ] == "2"
    assert found["OMP_NUM_THREADS"] == "2" and found["PATH"] == os.environ["PATH"]
