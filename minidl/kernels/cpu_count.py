"""How many processors this process may use, and how many threads it uses by default.

The default is the first of these that is set, and is never more than `usable_processors` when work is shared out:

| source | what sets it |
|---|---|
| ``NUMBA_NUM_THREADS`` | the user; joblib, in the workers of its loky backend, to their share of the machine |
| ``OMP_NUM_THREADS`` (the first number of a list) | the user, batch systems; joblib again, and Dask |
| `usable_processors` | affinity (``taskset``, ``sched_setaffinity``, Slurm), ``PYTHON_CPU_COUNT``; a cgroup's quota |

A cgroup's quota (``docker run --cpus``, Kubernetes' limits) is rounded down: threads that use it up are all stopped for
the rest of its period. `threadpoolctl` asks the shared libraries that it knows, and minidl is none: use
`set_num_threads` beside ``threadpool_limits``. joblib's threads share the workers: one call has them, others run alone.
"""

import math
import os
from pathlib import Path


def default_threads() -> int:
    """The number of threads that a call may use unless `set_num_threads` is called."""
    return _read_environment()[0] or usable_processors()


def _read_environment() -> tuple[int, str]:
    """The number that a variable of the environment sets, and its name; 0 if none does."""
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        number = os.environ.get(name, "").split(",")[0].strip()
        if number.isdecimal() and int(number) > 0:
            return int(number), name
    return 0, ""


def usable_processors() -> int:
    """Processors that this process may run on now."""
    return max(1, min(_allowed_processors(), _QUOTA))


def _allowed_processors() -> int:
    """Those that affinity leaves to this process."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def explain_default() -> str:
    """Why `default_threads` is what it is, in words."""
    allowed, there, usable = _allowed_processors(), os.cpu_count() or 1, usable_processors()
    if allowed > usable:
        limit = f"a cgroup's quota leaves the time of {usable} of {there} processors"
    elif allowed < there:
        limit = f"affinity or PYTHON_CPU_COUNT leaves {usable} of {there} processors"
    else:
        limit = "all processors" if there > 1 else "the only processor"
    number, name = _read_environment()
    return limit if not number else f"{name}; {limit}, and no more are used" if number > usable else name


def read_quota(root: Path) -> float:
    """The least of the quotas of this process's cgroups and of those that hold them, in processors; inf: none."""
    quota = math.inf
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # version 2 has one tree for all controllers, and names none
        top = root / "sys/fs/cgroup" / controllers
        for folder in (top / path.strip("/"), *(top / path.strip("/")).parents):
            if not folder.is_relative_to(top):
                break
            if controllers:
                words = [_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                words = _read(folder / "cpu.max").split()
            # anything else is "max", or -1: no limit
            if len(words) == 2 and all(word.strip().isdecimal() for word in words):
                quota = min(quota, int(words[0]) / int(words[1]))
    return quota


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


_QUOTA = int(min(read_quota(Path("/")), 1e6))
