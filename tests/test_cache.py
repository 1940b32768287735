"""Compiled code on disk: found again, never older than the source, and no condition for anything to work."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minidl

CALLEE = "from .jit import jit\n\n\n@jit\ndef inner(x):\n    return x + 1.0\n"
CALLER = (
    "from .callee import inner\nfrom .jit import jit\n\n\n@jit\ndef outer(x):\n    return 10.0 * inner(x)\n"
)
RUN = (
    "from minidl.kernels.caller import outer; value = outer(1.0); stats = outer.stats; "
    "print(value, sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))"
)


@pytest.fixture
def package(tmp_path):
    """A copy of minidl's kernels with two more, one of which calls the other."""
    root = tmp_path / "copy"
    source = Path(minidl.__file__).parent / "kernels"
    shutil.copytree(source, root / "minidl" / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "minidl" / "__init__.py").write_text("")
    (root / "minidl" / "kernels" / "callee.py").write_text(CALLEE)
    (root / "minidl" / "kernels" / "caller.py").write_text(CALLER)
    return root


def run(root: Path, code: str = RUN, **environment: str) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT")}
    found = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=root,
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


def change_callee(root: Path) -> None:
    (root / "minidl" / "kernels" / "callee.py").write_text(CALLEE.replace("1.0", "2.0"))


def test_an_edited_callee_discards_its_callers_code(package):
    assert run(package) == ["20.0", "0", "1"]
    assert run(package) == ["20.0", "1", "0"]
    change_callee(package)
    assert run(package) == ["30.0", "0", "1"]


def test_an_edit_of_any_kernel_file_discards_all(package):
    run(package)
    with open(package / "minidl" / "kernels" / "softmax.py", "a") as file:
        file.write("# another line\n")
    assert run(package) == ["20.0", "0", "1"]


def test_without_the_stamp_the_old_callee_would_run(package):
    """The danger is real: Numba alone looks at the caller's file only."""
    path = package / "minidl" / "kernels" / "jit.py"
    text = path.read_text()
    line = "    dispatcher._cache._cache_file._source_stamp = _STAMP\n"
    assert line in text
    path.write_text(text.replace(line, ""))
    run(package)
    change_callee(package)
    assert run(package) == ["20.0", "1", "0"]


def test_nowhere_to_write(package, tmp_path):
    """A file where each folder would be, which stops even root: compiled anew, with the same values."""
    (package / "minidl" / "kernels" / "__pycache__").write_text("")
    (tmp_path / "home").write_text("")
    nowhere = {name: str(tmp_path / "home") for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA")}
    for _ in range(2):
        assert run(package, **nowhere) == ["20.0", "0", "1"]


def test_the_users_folder_when_the_packages_is_read_only(package, tmp_path):
    (package / "minidl" / "kernels" / "__pycache__").write_text("")
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA")}
    assert run(package, **home) == ["20.0", "0", "1"]
    assert run(package, **home) == ["20.0", "1", "0"]


def test_plain_python_where_compiling_is_off(package):
    code = "from minidl.kernels.caller import outer; print(outer(1.0), type(outer).__name__)"
    assert run(package, code, NUMBA_DISABLE_JIT="1") == ["20.0", "function"]


def test_a_full_disk_costs_a_compilation_and_nothing_else(package):
    full = (
        "import errno, numba.core.caching as c\n"
        "def save(self, name, data): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "c.IndexDataCacheFile._save_data = save\n"
    )
    assert run(package, full + RUN) == ["20.0", "0", "1"]
    assert run(package, full + RUN) == ["20.0", "0", "1"]
    assert run(package) == ["20.0", "0", "1"]
    assert run(package) == ["20.0", "1", "0"]


def test_a_damaged_index_costs_a_compilation_and_nothing_else(package):
    run(package)
    for index in (package / "minidl" / "kernels" / "__pycache__").glob("caller.*.nbi"):
        index.write_bytes(index.read_bytes()[:-7])
    assert run(package) == ["20.0", "0", "1"]
