"""Settings shared by all tests."""

import faulthandler
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is no installed package

# The first example of a property compiles kernels: a deadline would measure the compiler.
settings.register_profile(
    "minidl", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("minidl")

_HANGS = 1200  # seconds: far more than any test takes on a slow machine that compiles first


def pytest_configure(config):
    config.own_stderr = os.dup(2)  # what tests print is captured
    # a shell that runs the tests in the background has told them to ignore Ctrl-C, which some of them send
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def all_threads(monkeypatch):
    """Calls use as many threads as are set, though there may be fewer processors or others may be faster."""
    from minidl.kernels import barrier, threads
    from minidl.kernels.thread_choice import ThreadChoice

    monkeypatch.setattr(threads, "usable_processors", lambda: barrier.MOST_THREADS)
    monkeypatch.setattr(threads, "SHORT_FLOPS", 0.0)
    monkeypatch.setattr(ThreadChoice, "next", lambda self, most: (most, 1.0))
    monkeypatch.setattr(ThreadChoice, "record", lambda self, count, steps, seconds: None)


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home folder, who has named no folder for data either."""

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "MINIDL_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def no_test_hangs(request):
    """One that does ends the run, with a traceback of every thread: a deadlock must not look like slowness."""
    if not request.node.get_closest_marker("long"):
        faulthandler.dump_traceback_later(_HANGS, exit=True, file=request.config.own_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()
