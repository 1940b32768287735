"""Compiled code on disk: found again, never older than the source, and no condition for anything to work."""

import compileall
import gc
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

import minidl
from minidl.kernels.jit import jit

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
    """The danger is real: a caller's file holds the callee's code, too."""
    path = package / "minidl" / "kernels" / "cache.py"
    text = path.read_text()
    line = "_STAMP, FOLDERS = _source_stamp(), _folders()\n"
    assert line in text
    path.write_text(text.replace(line, "_STAMP, FOLDERS = 'the same', _folders()\n"))
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


# ---- what goes wrong while code is written: always after an edit, so that old code would be seen


INTERRUPTIONS = {
    "a full disk": "import builtins, errno\nopened = open\ndef opening(path, mode='r', *more):\n"
    "    if mode == 'xb': raise OSError(errno.ENOSPC, 'No space left on device')\n"
    "    return opened(path, mode, *more)\nbuiltins.open = opening\n",
    "a limit on files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n",
    "a kill before renaming": "import os; os.replace = lambda *paths: os._exit(0)\n",
    "a kill in mid-write": "import builtins, os\nopened = open\ndef opening(path, mode='r', *more):\n"
    "    file = opened(path, mode, *more)\n    if mode == 'xb': file.write(b'half'); file.close(); os._exit(0)\n"
    "    return file\nbuiltins.open = opening\n",
}


@pytest.mark.parametrize("interruption", INTERRUPTIONS.values(), ids=INTERRUPTIONS.keys())
def test_a_write_that_fails_leaves_nothing_wrong(package, interruption):
    run(package)
    change_callee(package)
    assert run(package, interruption + RUN) in ([], ["30.0", "0", "1"])
    assert run(package) == ["30.0", "0", "1"]
    assert run(package) == ["30.0", "1", "0"]


def test_what_a_killed_process_has_left_is_removed_when_code_is_next_kept(package):
    """But not what another process may be writing at this moment."""

    def parts() -> list[Path]:
        return sorted((package / "minidl" / "kernels" / "__pycache__").glob("*.part"))

    for _ in range(2):
        run(package, INTERRUPTIONS["a kill in mid-write"] + RUN)
    old, recent = parts()
    os.utime(old, (old.stat().st_atime, old.stat().st_mtime - 3600))
    assert run(package) == ["20.0", "0", "1"]
    assert parts() == [recent]
    assert run(package) == ["20.0", "1", "0"]


def files(root: Path) -> list[Path]:
    return sorted((root / "minidl" / "kernels" / "__pycache__").glob("caller.outer-*.nbc"))


def damaged(content: bytes):
    yield b""
    yield content[:20]
    yield content[:-7]
    for at in (0, 31, 32, 33, len(content) // 2, len(content) - 1):
        yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_a_damaged_file_costs_a_compilation_and_is_repaired(package):
    run(package)
    (file,) = files(package)
    content = file.read_bytes()
    for wrong in damaged(content):
        file.write_bytes(wrong)
        assert run(package) == ["20.0", "0", "1"]
    assert run(package) == ["20.0", "1", "0"]


OF_TYPES = (
    "import sys, numpy; from minidl.kernels.caller import outer; x = getattr(numpy, sys.argv[1])(1); "
    "print(outer(x), *outer.signatures[0], sum(outer.stats.cache_hits.values()))"
)


def of_type(root: Path, dtype: str) -> list[str]:
    return run(root, OF_TYPES.replace("sys.argv[1]", repr(dtype)))


def test_a_file_of_another_signature_is_not_taken(package):
    assert of_type(package, "float32") == ["20.0", "float32", "0"]
    (single,) = files(package)
    assert of_type(package, "float64") == ["20.0", "float64", "0"]
    (double,) = {*files(package)} - {single}
    double.write_bytes(single.read_bytes())
    assert of_type(package, "float64") == ["20.0", "float64", "0"]
    assert of_type(package, "float64") == ["20.0", "float64", "1"]


def test_processes_that_compile_at_once_do_not_mix_their_files(package):
    dtypes = ["float32", "float64", "int32", "int64"]
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT")}
    at_once = [
        subprocess.Popen([sys.executable, "-B", "-c", OF_TYPES, dtype], cwd=package, env=environment)
        for dtype in dtypes * 2
    ]
    assert [process.wait() for process in at_once] == [0] * len(at_once)
    assert [of_type(package, dtype)[1:] for dtype in dtypes] == [[dtype, "1"] for dtype in dtypes]
    assert len(files(package)) == len(dtypes)


# ---- where there are no source files


def home(folder: Path) -> dict[str, str]:
    return dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(folder))


def test_an_updated_zip_runs_its_own_code(package, tmp_path):
    archive = tmp_path / "minidl.zip"

    def run_from_zip() -> list[str]:
        with zipfile.ZipFile(archive, "w") as file:
            for path in (package / "minidl").rglob("*.py"):
                file.write(path, path.relative_to(package))
        return run(tmp_path, f"import sys; sys.path.insert(0, {str(archive)!r}); {RUN}", **home(tmp_path))

    assert run_from_zip() == ["20.0", "0", "1"]
    assert run_from_zip() == ["20.0", "1", "0"]
    change_callee(package)
    assert run_from_zip() == ["30.0", "0", "1"]


def test_compiled_sources_alone(package):
    def run_without_sources() -> list[str]:
        copy = package.parent / "without"
        kept = copy / "minidl" / "kernels" / "__pycache__"
        shutil.copytree(package, copy, dirs_exist_ok=True)
        compileall.compile_dir(copy, quiet=1, legacy=True, force=True)
        for path in [*copy.rglob("*.py"), *kept.glob("*.pyc")]:
            path.unlink()
        return run(copy)

    assert run_without_sources() == ["20.0", "0", "1"]
    assert run(package.parent / "without") == ["20.0", "1", "0"]
    change_callee(package)
    assert run_without_sources() == ["30.0", "0", "1"]


APP = """
import sys
import numpy as np
import minidl
from minidl.datasets import mnist
from minidl.kernels import cache

if len(sys.argv) == 1:
    (x, y), _ = mnist.load_subset()
    layers = [minidl.layers.Flatten(input_shape=(28, 28)), minidl.Dense(10, "softmax")]
    model = minidl.Sequential(layers, seed=1)
    model.compile("sgd", "sparse_categorical_crossentropy", ["accuracy"])
    accuracy = model.fit(x / np.float32(255), y, epochs=2, verbose=0).history["accuracy"][-1]
    print(len(x), accuracy > 0.7)
print(cache._STAMP)
"""


@pytest.mark.long
def test_a_frozen_app_trains_and_never_runs_another_versions_code(tmp_path):
    """PyInstaller comes with the extra ``dev``; its hook for minidl takes the sources along, for the stamp."""
    sources = Path(minidl.__file__).parent
    (tmp_path / "app.py").write_text(APP)
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(sources.parent),
    }

    def do(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    hooks = f"--additional-hooks-dir={sources / '__pyinstaller'}"
    do(sys.executable, "-m", "PyInstaller", "--log-level=ERROR", hooks, f"--paths={sources.parent}", "app.py")
    app = str(tmp_path / "dist" / "app" / "app")
    samples, learned, stamp = do(app)
    assert (samples, learned) == ("6000", "True")
    assert any(path.is_file() for path in (tmp_path / "cache").rglob("*"))
    assert do(app, "stamp") == [stamp]
    kernels = tmp_path / "dist" / "app" / "_internal" / "minidl" / "kernels"
    with open(kernels / "losses.py", "a") as file:
        file.write("# of another version\n")
    assert do(app, "stamp") != [stamp]
    shutil.rmtree(kernels)  # as without the hook: no stamp, and so no code of another process
    assert do(app, "stamp") == ["None"]


def test_nothing_is_kept_where_no_file_tells_the_version(package):
    frozen = (
        "import numba, importlib.resources\nclass Nothing:\n    def iterdir(self): return []\n"
        "importlib.resources.files = lambda name: Nothing()\n"
    )
    for _ in range(2):
        assert run(package, frozen + RUN) == ["20.0", "0", "1"]
    assert not files(package)


# ---- folders


def test_code_is_read_from_a_folder_that_cannot_be_written_to(package, tmp_path):
    """As in an image: root compiled, a user without rights or a home runs it."""
    run(package)
    (file,) = files(package)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~current_umask()
    unwritable = "import tempfile\ndef refused(**more): raise OSError\ntempfile.TemporaryFile = refused\n"
    assert run(package, unwritable + RUN, **home(tmp_path)) == ["20.0", "1", "0"]


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_folder_that_is_named_is_the_one_that_is_used(package, tmp_path):
    code = "from minidl.kernels import cache; print(cache.folder())"
    assert run(package, code) == [str(package / "minidl" / "kernels" / "__pycache__")]
    (named,) = run(package, code, NUMBA_CACHE_DIR=str(tmp_path / "given"))
    assert Path(named).parent == tmp_path / "given"
    run(package, NUMBA_CACHE_DIR=str(tmp_path / "given"))
    assert {path.name.split("-")[0] for path in Path(named).iterdir()} == {"caller.outer", "callee.inner"}


def test_no_two_functions_share_the_name_of_their_code():
    """Code from two processes would else be taken for one another where one process loads both."""
    kernels = {
        id(thing.py_func): thing.py_func for thing in gc.get_objects() if issubclass(type(thing), Dispatcher)
    }
    functions = [f for f in kernels.values() if f.__module__.startswith("minidl.kernels")]
    names = [(f.__module__, f.__qualname__) for f in functions]
    assert len(names) > 200 and len(set(names)) == len(names)

    def made(value):
        def kernel():
            return value

        return kernel

    one, two = made(1), made(2)
    assert one.__qualname__ == two.__qualname__  # control: as Python names them
    jit(one), jit(two)
    assert one.__qualname__ != two.__qualname__
