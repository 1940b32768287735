"""Builds the sdist and the wheel, compares their files with the repository's, and tries the wheel.

    pip install build twine
    python -m tests.packages                              # on this Python: the main job
    python -m tests.packages --every                      # on each Python that PATH or pyenv has: tests, too
    python -m tests.packages ~/python3.14/bin/python      # on those named: tests, too

On each Python the wheel alone is installed, in a new virtual environment and a folder of its own. The main job runs
there with few steps. The tests are those of the sdist that need nothing else: the page to read first, the names users
import, the hash of a training. Compiled code goes into that folder, so nothing compiled before helps: about half a
minute for the main job, and as much for the tests.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAIN_JOB = "-m minidl distill --labels 100 --teacher 32 --student 8 --teacher-steps 20 --steps 40 --seeds 2"
TESTS = ["test_tiny.py", "test_api.py", "test_trust.py"]
EGG_INFO = "PKG-INFO SOURCES.txt dependency_links.txt entry_points.txt requires.txt top_level.txt".split()
DIST_INFO = """METADATA RECORD WHEEL entry_points.txt top_level.txt licenses/LICENSE
    licenses/minidl/datasets/LICENSE-MNIST.txt""".split()


def repository_files() -> list[str]:
    """The files of the repository, new ones that git does not ignore among them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in found if (ROOT / name).is_file()]


def sdist_files(repository: Iterable[str]) -> set[str]:
    return {*repository, "PKG-INFO", *(f"minidl.egg-info/{name}" for name in EGG_INFO)}


def wheel_files(repository: Iterable[str], version: str) -> set[str]:
    package = {name for name in repository if name.startswith("minidl/")}
    return package | {f"minidl-{version}.dist-info/{name}" for name in DIST_INFO}


def differences(found: Iterable[str], wanted: set[str]) -> list[str]:
    """What is wrong with the ``found`` names of files; empty if nothing is."""
    found = set(found)
    missing = [f"missing: {name}" for name in sorted(wanted - found)]
    return missing + [f"too much: {name}" for name in sorted(found - wanted)]


def names_in_sdist(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        return [member.name.partition("/")[2] for member in archive if member.isfile()]


def names_in_wheel(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def copy_repository(folder: Path) -> None:
    """A build leaves folders behind: it runs on a copy."""
    for name in repository_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def build(folder: Path, *options: str) -> tuple[Path, Path]:
    """(sdist, wheel) of the copy in ``folder``; the wheel is built from what is in the sdist."""
    subprocess.run(
        [sys.executable, "-m", "build", *options, "."], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return sdist, wheel


def wrong_files(sdist: Path, wheel: Path) -> list[str]:
    repository, version = repository_files(), wheel.name.split("-")[1]
    return differences(names_in_sdist(sdist), sdist_files(repository)) + differences(
        names_in_wheel(wheel), wheel_files(repository, version)
    )


def version_of(python: str) -> tuple[int, int] | None:
    """None if ``python`` does not run: pyenv has commands on PATH for Pythons that are switched off."""
    command = [python, "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = map(int, shown.split())
    return major, minor


def pythons_present() -> list[str]:
    """One interpreter of each version from 3.10 on, oldest first."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    named = [shutil.which(f"python3.{minor}") for minor in range(10, 30)]
    found = [sys.executable, *filter(None, named), *map(str, pyenv.glob("versions/*/bin/python"))]
    by_version: dict[tuple[int, int], str] = {}
    for python in found:
        version = version_of(python)
        if version is not None and version >= (3, 10):
            by_version.setdefault(version, python)
    return [by_version[version] for version in sorted(by_version)]


def try_on(python: str, wheel: Path, tests: list[str], folder: Path) -> bool:
    """Whether the main job and ``tests`` pass on ``python`` with the installed wheel; what ran is shown."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean["NUMBA_CACHE_DIR"] = str(folder / "cache")
    inside = str(folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python")
    commands = [
        [python, "-m", "venv", "venv"],
        [inside, "-m", "pip", "install", "--quiet", str(wheel)],
        [inside, *MAIN_JOB.split()],
    ]
    if tests:
        commands.append([inside, "-m", "pip", "install", "--quiet", "pytest", "hypothesis"])
        commands.append([inside, "-m", "pytest", "-q", *tests])
    for command in commands:
        print("+", " ".join(command), flush=True)
        if subprocess.run(command, cwd=folder, env=clean).returncode:
            return False
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("tests.packages", description="build, compare, install, try")
    parser.add_argument("python", nargs="*", help="interpreters to try the wheel on; default: this one")
    parser.add_argument("--every", action="store_true", help="each version from 3.10 on that is found")
    options = parser.parse_args(arguments)
    absent = [name for name in ("build", "twine") if importlib.util.find_spec(name) is None]
    if absent:
        parser.error(f"needs {' and '.join(absent)}: pip install {' '.join(absent)}")
    if options.every and options.python:
        parser.error("--every finds the interpreters itself; name none, or leave --every out")
    for python in options.python:
        if version_of(python) is None:
            parser.error(f"python must be an interpreter that runs, got {python}")
    named = [os.path.abspath(shutil.which(python)) for python in options.python]
    pythons = pythons_present() if options.every else named or [sys.executable]
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "source"
        copy_repository(source)
        sdist, wheel = build(source)
        if problems := wrong_files(sdist, wheel):
            print("\n".join(problems))
            return 1
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", sdist, wheel], check=True)
        tests, failed = [], []
        if options.every or options.python:
            shutil.unpack_archive(sdist, work)
            unpacked = Path(work) / sdist.name.removesuffix(".tar.gz")
            tests = [str(unpacked / "tests" / name) for name in TESTS]
        for number, python in enumerate(pythons):
            folder = Path(work) / f"try{number}"
            folder.mkdir()
            if not try_on(python, wheel, tests, folder):
                failed.append(python)
            shutil.rmtree(folder)
    versions = ["{}.{}".format(*version_of(python)) for python in pythons]
    print("failed on " + ", ".join(failed) if failed else f"sdist and wheel pass on {', '.join(versions)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
