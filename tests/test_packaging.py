"""What is published: the metadata, the README as an index of packages shows it, the files of sdist and wheel.

CI runs ``python -m tests.packages``, which builds both as a user would and installs the wheel.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import re
import runpy
import shutil
import sys

import packages
import pytest

README = (packages.ROOT / "README.md").read_text(encoding="utf-8")
LISTINGS = re.compile(r"^```.*?^```$", re.M | re.S)
LINKS = re.compile(r"\]\(([^)\s]+)\)")


def metadata():
    setup = configparser.ConfigParser()
    setup.read(packages.ROOT / "setup.cfg")
    return setup


def lines(text):
    return [line.strip() for line in text.strip().splitlines()]


# ---------------------------------------------------------------- metadata


def test_metadata_says_who_what_and_for_whom():
    about = metadata()["metadata"]
    for name in ("description", "author", "keywords", "project_urls", "license_expression"):
        assert about[name].strip(), name
    assert f"(c) 2026 {about['author']}" in (packages.ROOT / "LICENSE").read_text(encoding="utf-8")
    assert all((packages.ROOT / name).is_file() for name in lines(about["license_files"]))
    groups = {line.split(" :: ")[0] for line in lines(about["classifiers"])}
    assert groups >= {"Development Status", "Intended Audience", "Operating System", "Topic", "Typing"}
    # an index refuses a licence among the classifiers beside license_expression
    assert "License" not in groups


def test_pythons_are_those_of_the_readme():
    setup = metadata()
    first, last = map(int, re.search(r"Python 3\.(\d+) to 3\.(\d+)", README).groups())
    found = re.findall(r"Python :: 3\.(\d+)$", setup["metadata"]["classifiers"], re.M)
    assert [int(minor) for minor in found] == list(range(first, last + 1))
    assert setup["options"]["python_requires"] == f">=3.{first}"


# ---------------------------------------------------------------- the README on an index

on_an_index = runpy.run_path(str(packages.ROOT / "setup.py"))["on_an_index"]


def to_the_checkout(page):
    return [link for link in LINKS.findall(LISTINGS.sub("", page)) if "://" not in link and link[0] != "#"]


def test_no_link_of_the_description_is_broken():
    assert len(to_the_checkout(README)) > 10 and to_the_checkout(on_an_index(README)) == []
    assert LISTINGS.findall(on_an_index(README)) == LISTINGS.findall(README)


def test_of_a_link_the_text_stays():
    stays = "[paper](https://arxiv.org/abs/1), [below](#data), x[0](y z)"
    page = "![A\nstep](docs/flow.svg) [maths](docs/f.md#losses), " + stays
    assert on_an_index(page) == "*A\nstep* maths, " + stays


# ---------------------------------------------------------------- files


def test_files_that_lack_and_files_too_many_are_named():
    repository = ["README.md", "minidl/__init__.py", "minidl/py.typed", "tests/conftest.py"]
    wheel = packages.wheel_files(repository, "1.0")
    assert {"minidl/py.typed", "minidl-1.0.dist-info/licenses/LICENSE"} < wheel
    assert "tests/conftest.py" not in wheel and "tests/conftest.py" in packages.sdist_files(repository)
    assert packages.differences(wheel, wheel) == []
    wrong = wheel - {"minidl/py.typed"} | {"minidl/__pycache__/a.pyc"}
    assert packages.differences(wrong, wheel) == [
        "missing: minidl/py.typed",
        "too much: minidl/__pycache__/a.pyc",
    ]


def can_build():
    """Offline, and the licence as it stands in setup.cfg: from setuptools 77 on."""
    if not all(map(importlib.util.find_spec, ("build", "setuptools"))):
        return False
    return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77


needs_git = pytest.mark.skipif(
    not (packages.ROOT / ".git").exists() or not shutil.which("git"), reason="the list of files is git's"
)


@needs_git
@pytest.mark.skipif(not can_build(), reason="needs build and setuptools >= 77")
def test_sdist_and_wheel_hold_the_files_of_the_repository(tmp_path):
    packages.copy_repository(tmp_path)
    for junk in (
        "tests/__pycache__/a.pyc",
        "minidl/kernels/b.nbi",
        "benchmarks/c.tmp",
        "build/d",
        ".hypothesis/e",
    ):
        (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / junk).touch()
    sdist, wheel = packages.build(tmp_path, "--no-isolation")
    assert packages.wrong_files(sdist, wheel) == []


# ---------------------------------------------------------------- Pythons


def test_each_version_is_found_once_and_what_does_not_run_never(tmp_path, monkeypatch):
    broken = tmp_path / "python3.12"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    twin = tmp_path / "versions" / "twin" / "bin" / "python"
    twin.parent.mkdir(parents=True)
    twin.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert packages.version_of(str(broken)) is None and packages.version_of(str(tmp_path)) is None
    assert packages.version_of(str(twin)) == sys.version_info[:2]
    assert packages.pythons_present() == [sys.executable]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--every", sys.executable], "--every finds the interpreters itself"),
        (["no/such/python"], "python must be an interpreter that runs, got no/such/python"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(SystemExit):
        packages.main(arguments)
    assert message in capsys.readouterr().err


def test_what_it_needs_is_named(monkeypatch, capsys):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        packages.main([])
    assert "needs build and twine: pip install build twine" in capsys.readouterr().err
