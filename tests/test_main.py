"""The command line: the main job end to end on a small scale, and the three small commands."""

from __future__ import annotations

import argparse
import configparser
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Future
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl import get_num_threads, set_num_threads
from minidl.__main__ import main
from minidl.datasets import mnist
from minidl.distillation import main_job
from minidl.losses import CategoricalCrossentropy
from minidl.models import load_model

QUICK = "--labels 100 --teacher 32 --student 8 --teacher-steps 20 --steps 40 --seeds 2".split()


@pytest.fixture
def few_digits(monkeypatch):
    (x, y), (x_test, y_test) = mnist.load_subset()
    few = (x[:600], y[:600]), (x_test[:200], y_test[:200])
    monkeypatch.setattr(mnist, "load_subset", lambda: few)
    threads = get_num_threads()
    yield few
    set_num_threads(threads)


def test_the_main_job(few_digits, tmp_path, capsys):
    result, saved = tmp_path / "result.json", tmp_path / "student.npz"
    assert main(["distill", *QUICK, "--output", str(result), "--save", str(saved)]) == 0
    text = capsys.readouterr().out
    for word in (
        "600 training digits, 100 with labels",
        "200 test digits",
        "kernels: ",
        "784-32-10",
        "784-8-10",
    ):
        assert word in text
    kinds = ["labels", "labels, smoothed 0.1", "distilled", "argmax, all digits", "distilled, all digits"]
    for name, epochs in (("teacher", 13), *((kind, 4) for kind in kinds)):
        for seed in range(2):
            assert re.search(rf"^{name} {seed} .* {epochs} epochs .* accuracy", text, re.M), (
                f"a line for {name} {seed}"
            )
    data = json.loads(result.read_text())
    teacher, *students = data["models"]
    labels, smoothed, *_, distilled = students
    assert [row["model"] for row in students] == kinds and teacher["agreement"] == [1.0, 1.0]
    assert [row["digits"] for row in data["models"]] == [100, 100, 100, 100, 600, 600]
    assert all(row["shifted"] and row["labels"] == 100 and row["runs"] == 2 for row in data["models"])
    for row in students:
        assert row["parameters"] == 784 * 8 + 8 + 8 * 10 + 10 and row["errors_mean"] == np.mean(row["errors"])
        assert row["bytes"] == 4 * row["parameters"] and row["latency_us"] > 0
        assert all(0 < agreement < 1 for agreement in row["agreement"])
    best = min(labels["errors_mean"], smoothed["errors_mean"])
    gain = abs(best - distilled["errors_mean"])
    assert f"{gain:.1f}" in data["verdict"] and f"{best:.1f}" in data["verdict"]
    x_test, y_test = few_digits[1]
    errors = int((load_model(saved).predict(x_test).argmax(axis=1) != y_test).sum())
    assert errors == distilled["errors"][-1]


def test_with_all_labels_students_with_and_without_shifts_are_compared(few_digits, tmp_path, capsys):
    result = tmp_path / "result.json"
    assert main([*QUICK, "--labels", "all", "--seeds", "1", "--output", str(result)]) == 0
    rows = json.loads(result.read_text())["models"]
    assert [row["shifted"] for row in rows] == [True] + 3 * [False] + 3 * [True]
    assert all(row["labels"] == row["digits"] == 600 for row in rows)


def test_what_the_students_of_the_main_job_see():
    """Shifts of whole pixels, drawn for each digit; labels of each class alike."""
    (x, y), _ = mnist.load_subset()
    rows = np.resize(np.arange(20), 50)
    shifted = main_job._shifted(x, rows, 2, seed=0)
    for digit, moved in zip(x[rows], shifted, strict=True):
        padded = np.pad(digit, 2)
        places = [(i, j) for i in range(5) for j in range(5)]
        assert any(np.array_equal(moved, padded[i : i + 28, j : j + 28]) for i, j in places)
    assert not np.array_equal(shifted, x[rows]) and np.array_equal(main_job._shifted(x, rows, 0, 0), x[rows])
    assert not np.array_equal(shifted[:20], shifted[20:40]), "a digit that comes again is shifted anew"
    rows = main_job._first_of_each_class(y, 300)
    assert len(set(rows)) == 300 and set(np.bincount(y[rows])) == {30}


def test_a_student_of_the_argmax_has_labels_for_all_digits(few_digits, monkeypatch):
    (x, y), _ = few_digits
    options = argparse.Namespace(batch_size=32, steps=75, labels=None)
    labelled = np.arange(100)
    job = main_job._Job(options, x, y, labelled, threading.Event())
    monkeypatch.setattr(main_job._Job, "_train", lambda job, kind, seed, plan, x, y, logits=None: (y, logits))
    monkeypatch.setattr(main_job, "cached_logits", lambda teacher, x: np.eye(10)[np.full(len(x), 7)])
    teacher = Future()
    teacher.set_result("a teacher that answers 7")
    kind = main_job._Kind("argmax", CategoricalCrossentropy(), all_digits=True, by_argmax=True)
    seen, logits = job._train_student(kind, 0, teacher)
    assert len(seen) == 600 and logits is None
    np.testing.assert_array_equal(seen, np.where(np.arange(600) < 100, y, 7))


@pytest.mark.parametrize("runs, word", [(1, "says little"), (4, "more than two"), (4, "less than two")])
def test_the_verdict_compares_with_the_best_student_without_a_teacher(runs, word):
    def row(name, mean, taught, shifted=True):
        std = 30.0 if word.startswith("less") else 3.0
        return dict(model=name, errors_mean=mean, errors_std=std, runs=runs, taught=taught, shifted=shifted)

    rows = [
        row("unequal", 1.0, False, shifted=False),
        row("labels", 90.0, False),
        row("smoothed", 80.0, False),
    ]
    verdict = main_job._verdict([*rows, row("taught", 60.0, True), row("distilled", 70.0, True)])
    assert (
        "saved 10.0" in verdict and "of the 80.0" in verdict and "(smoothed)" in verdict and word in verdict
    )


def test_the_same_command_gives_the_same_figures(few_digits, tmp_path, capsys):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        main([*QUICK, "--threads", "1" if file is files[0] else "2", "--output", str(file)])
    models = [json.loads(file.read_text())["models"] for file in files]
    for one, other in zip(*models, strict=True):
        for key in ("errors", "loss", "agreement", "teacher_kl"):
            assert one[key] == other[key]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, ValueError("no digit")])
def test_what_ends_the_main_job_ends_all_its_trainings(few_digits, monkeypatch, capsys, ending):
    """Those that run stop at their next epoch, the others never begin; the threads are given back."""
    begun, threads = [], threading.active_count()

    def cached_logits(teacher, x):
        begun.append(teacher)
        raise ending

    monkeypatch.setattr(main_job, "cached_logits", cached_logits)
    forever = ["--threads", "2", "--seeds", "4", "--labels", "20"]
    assert main([*QUICK, *forever]) == (130 if ending is KeyboardInterrupt else 2)
    said = capsys.readouterr()
    assert ("interrupted" if ending is KeyboardInterrupt else "no digit") in said.err
    assert begun and "all digits 3" not in said.out
    assert get_num_threads() == 2 and threading.active_count() == threads

    options = argparse.Namespace(student=(), learning_rate=0.001)
    job = main_job._Job(options, *few_digits[0], np.arange(20), threading.Event())
    endless, plan = (
        main_job._Kind("endless", CategoricalCrossentropy()),
        (20, 10**9),
    )  # as long as nobody ends it
    training = threading.Thread(target=lambda: pytest.raises(CancelledError, train), daemon=True)

    def train():
        job._train(endless, 0, plan, job.x[:20], job.y[:20])

    training.start()
    time.sleep(0.1)
    assert training.is_alive()
    job.ended.set()
    training.join(timeout=60)
    assert not training.is_alive()


def test_markdown_output(few_digits, tmp_path, capsys):
    file = tmp_path / "result.md"
    main([*QUICK, "--seeds", "1", "--output", str(file)])
    lines = file.read_text().splitlines()
    assert lines[0].startswith("| model ") and len({line.count("|") for line in lines[:5]}) == 1
    assert "with one seed, which says little" in file.read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--temperature", "0"], "temperature must be > 0"),
        (["--seeds", "0"], "--seeds must be >= 1, got 0"),
        (["--teacher-steps", "0"], "--teacher-steps must be >= 1, got 0"),
        (["--data", "/nonexistent"], "path must be a folder"),
        (["--threads", "0"], "n must be"),
        (["--output", "no/r.md"], "--output no/r.md: there is no folder no"),
        (["--save", "no/s.npz"], "--save no/s.npz: there is no folder no"),
        (["--save", "."], "--save .: this is a folder"),
    ],
)
def test_bad_values_are_named(few_digits, capsys, arguments, message):
    assert main([*QUICK, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--teacher", "a-b"],
        ["--student", "0"],
        ["--labels", "some"],
        ["matmul", "5x7"],
        ["nonsense"],
        ["--nonsense"],
    ],
)
def test_bad_options_end_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    shown = capsys.readouterr().err
    assert stop.value.code == 2 and "usage" in shown and arguments[-1] in shown


def test_warmup_says_in_one_line_what_it_did(monkeypatch, capsys):
    asked = []
    for seconds, words in ((0.4, "kernels: 0.4 s to load from disk"), (31.0, "kernels: 31.0 s to compile, ")):
        warmup = lambda dtype, verbose, s=seconds: asked.append(dtype) or s  # noqa: E731
        monkeypatch.setattr("minidl.runtime.warmup", warmup)
        assert main(["warmup", "--dtype", "float64"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(words)
    assert asked == ["float64", "float64"]
    monkeypatch.setattr("minidl.kernels.cache.FOLDERS", [])  # none can be written to
    assert main(["warmup"]) == 0
    assert "to compile, and not kept; let NUMBA_CACHE_DIR name a folder" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["warmup"]) == 0 and capsys.readouterr().out.startswith("kernels: ")


def test_the_version_stands_in_one_place():
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    assert setup["metadata"]["version"] == "attr: minidl.__version__"
    # setuptools reads a literal without importing the package, which its build environment could not
    module = Path(minidl.__file__).read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.*)"$', module, re.M) == [minidl.__version__]


def test_matmul_and_info(capsys):
    assert main(["matmul", "5x7x3", "--dtype", "float64"]) == 0
    assert "5x7x3" in capsys.readouterr().out
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert np.__version__ in shown and minidl.__version__ in shown


def test_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "minidl", "--help"], capture_output=True, text=True, check=True, timeout=120
    )
    assert "distill" in result.stdout and "explain" in result.stdout


def run_in_shell(command, **environment):
    """``python -m minidl`` in a shell of its own; what it said on standard error, and its status."""
    command = command.replace("minidl", f"'{sys.executable}' -m minidl", 1)
    environment = {**os.environ, **environment}
    result = subprocess.run(
        ["bash", "-c", command], stderr=subprocess.PIPE, text=True, timeout=120, env=environment
    )
    return result.stderr, result.returncode


TINY = "distill --labels 20 --teacher 8 --student 8 --teacher-steps 2 --steps 8 --seeds 1"


@pytest.mark.parametrize("command", ["info", "explain", "warmup", "matmul 8x8x8", TINY])
def test_standard_output_that_nobody_takes(command):
    assert run_in_shell(f"minidl {command} > /dev/null") == ("", 0)
    assert run_in_shell(f"minidl {command} >&-") == ("", 0)  # there was none from the beginning
    if Path("/dev/full").exists():
        said, status = run_in_shell(f"minidl {command} > /dev/full")
        assert said.count("\n") == 1 and "No space left on device" in said and status == 1
    said, _ = run_in_shell(f"minidl {command} | true")
    assert said.count("\n") <= 1 and "Traceback" not in said and "Exception ignored" not in said


def test_the_main_job_goes_on_without_standard_output(few_digits, tmp_path, monkeypatch, capsys):
    class Broken(io.StringIO):
        def write(self, text):
            if "teacher" in text:
                raise BrokenPipeError(32, "Broken pipe")
            return super().write(text)

    file = tmp_path / "result.json"
    monkeypatch.setattr(sys, "stdout", Broken())
    assert main([*QUICK, "--seeds", "1", "--output", str(file)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "standard output is lost" in said and "Broken pipe" in said
    assert len(json.loads(file.read_text())["models"]) == 6
    monkeypatch.setattr(sys, "stdout", None)
    assert main([*QUICK, "--seeds", "1", "--output", str(file)]) == 0 and capsys.readouterr().err == ""


def test_a_path_that_the_locale_cannot_show(few_digits, tmp_path, monkeypatch):
    file, shown = tmp_path / "\N{GREEK SMALL LETTER LAMDA}.md", io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main([*QUICK, "--seeds", "1", "--output", str(file)]) == 0
    assert b"written to" in shown.getvalue() and b"\\u03bb.md" in shown.getvalue() and file.exists()
    with pytest.raises(UnicodeEncodeError):  # control
        str(file).encode("ascii")
    said, status = run_in_shell(
        f"minidl distill --data '{file.parent / 'λ'}'", PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0"
    )
    assert status == 2 and "path must be a folder" in said and "Traceback" not in said


def test_info_without_a_home_folder(capsys, homeless):
    assert main(["info"]) == 0
    assert "no home folder to keep data in: name a folder in MINIDL_DATA" in capsys.readouterr().out


def test_matmul_shows_slow_products(monkeypatch, capsys):
    clock = iter(range(10**6))
    monkeypatch.setattr("minidl.__main__.time.perf_counter", lambda: 0.05 * next(clock))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert main(["matmul", "64x64x64"]) == 0
    head, _, _, row = capsys.readouterr().out.splitlines()
    assert f"{get_num_threads()} thread" in head and "of minidl, its own choice of NumPy" in head
    assert row.split()[1:3] == ["0.01", "0.01"], "0.5 MFLOP in 50 ms"


def threads_of_numpy(environment):
    """How many threads a process with this environment has once NumPy has multiplied."""
    code = "import os, numpy; a = numpy.ones((500, 500)); a @ a; print(len(os.listdir('/proc/self/task')))"
    command = [sys.executable, "-c", code]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads of a process in /proc")
def test_matmul_limits_the_threads_of_both(monkeypatch, capsys):
    """NumPy's product takes its limit when NumPy is imported, here long ago: the measuring is another process's."""
    environments, threads, run = [], get_num_threads(), subprocess.run

    def watched(command, env, **options):
        environments.append(env)
        return run(command, env=env, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    try:
        assert main(["matmul", "8x9x7", "--dtype", "float64", "--threads", "1"]) == 0
    finally:
        set_num_threads(threads)
        monkeypatch.undo()
    shown = capsys.readouterr().out
    assert "float64, 1 thread of minidl, 1 of NumPy" in shown and "8x9x7" in shown
    assert [threads_of_numpy(environment) for environment in environments] == [1]
    if len(os.sched_getaffinity(0)) > 1:  # control: what NumPy takes without a limit
        unlimited = {k: v for k, v in os.environ.items() if not k.endswith("_THREADS")}
        assert threads_of_numpy(unlimited) > 1


def test_matmul_says_that_the_process_that_measured_failed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", shutil.which("false") or "nonexistent")
    threads = get_num_threads()
    try:
        assert main(["matmul", "--threads", "1"]) == 2
    finally:
        set_num_threads(threads)
    assert capsys.readouterr().err.startswith("minidl matmul: ")
