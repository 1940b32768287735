"""The public matrix product: every layout and dtype against NumPy, and what it refuses."""

import contextlib
import importlib
import io
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from minidl import Dense, Sequential, born_again, distill, losses, mutual_learning, runtime, warmup
from minidl.__main__ import main
from minidl.kernels import threads
from minidl.kernels.jit import JIT_DISABLED
from minidl.training import compiled as compiled_steps

compiling = importlib.import_module("minidl.warmup")  # minidl.warmup is the function


@given(
    st.tuples(*[st.integers(0, 40)] * 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["f4", "f8", "u1", "f2", "i8", ">f4", "?"]),
    st.sampled_from(["f4", "f8", "i2"]),
    st.sampled_from(["C", "F", "strided", "readonly", "reversed"]),
    st.integers(0, 2**32 - 1),
)
def test_product(shape, transpose_a, transpose_b, first, second, layout, seed):
    m, k, n = shape
    rng = np.random.default_rng(seed)

    def matrix(rows, columns, dtype):
        values = (
            rng.integers(0, 2, (2 * rows, columns)) if dtype == "?" else rng.normal(0, 3, (2 * rows, columns))
        )
        values = np.abs(values).astype(dtype)
        if layout == "strided":
            return values[::2]
        if layout == "reversed":
            return values[:rows, ::-1]
        values = np.array(values[:rows], order="F" if layout == "F" else "C")
        values.flags.writeable = layout != "readonly"
        return values

    a = matrix(*((k, m) if transpose_a else (m, k)), first)
    b = matrix(*((n, k) if transpose_b else (k, n)), second)
    expected = reference.matmul(a.T if transpose_a else a, b.T if transpose_b else b)
    found = runtime.matmul(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    exact = np.result_type(a, b, np.float32) != np.float32
    assert found.dtype == (np.float64 if exact else np.float32)
    # all terms are >= 0: the sum's relative error is that of its additions
    np.testing.assert_allclose(found, expected, rtol=(k + 2) * np.finfo(found.dtype).eps)
    out = np.full(found.shape, np.nan, found.dtype)
    assert runtime.matmul(a, b, out, transpose_a, transpose_b) is out
    np.testing.assert_array_equal(out, found)


def test_the_comparison_would_see_a_wrong_entry():
    a = np.ones((3, 4), np.float32)
    wrong = runtime.matmul(a, a.T)
    wrong[1, 2] = 0
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong, reference.matmul(a, a.T), rtol=6 * np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    "args, kwargs, message",
    [
        (
            (np.ones((2, 3)), np.ones((2, 3))),
            {},
            r"a \(2, 3\) and b \(2, 3\) do not fit together .* 3 columns, 2 rows",
        ),
        ((np.ones(3), np.ones((3, 2))), {}, r"a must have 2 axes, got shape \(3,\)"),
        ((np.ones((2, 2), complex), np.ones((2, 2))), {}, "a must hold real numbers"),
        ((np.ones((2, 2)), None), {}, "b must be an array, got None"),
        ((np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 3))), {}, r"out must be an array of shape \(2, 2\)"),
        ((np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2), "f4")), {}, "and dtype float64, got"),
        ((np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 4))[:, ::2]), {}, "out must be C-contiguous"),
        ((np.ones((2, 2)), np.ones((2, 2)), "x"), {}, "out must be an array"),
        ((np.ones((2, 2)), np.ones((2, 2))), {"transpose_a": 1}, "transpose_a must be True or False"),
    ],
)
def test_bad_input(args, kwargs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        runtime.matmul(*args, **kwargs)


def test_out_may_not_overlap():
    a = np.ones((2, 2))
    with pytest.raises(ValueError, match="out must not share memory"):
        runtime.matmul(a, np.ones((2, 2)), out=a)


def test_warmup(capsys):
    assert runtime.warmup(verbose=False) > 0
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64', got 'int8'"):
        runtime.warmup("int8")


ANNOUNCED = "minidl: compiling for this machine, once; it may take ten seconds\n"


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("seconds", [0.0, 3.0])
@pytest.mark.parametrize("aloud", [False, True])
def test_a_first_fit_says_that_it_compiles(monkeypatch, capsys, on_disk, seconds, aloud):
    """And where the code is kept. It says nothing of a load, and of what is in memory."""
    clock, done = [100.0], []
    monkeypatch.setattr(compiling.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(compiling, "JIT_DISABLED", False)
    monkeypatch.setattr(compiling, "_ready", {})
    monkeypatch.setattr(
        compiling, "_jobs", lambda dtype: dict.fromkeys(compiling._FIT + compiling._PREDICT, ())
    )
    monkeypatch.setattr(compiling, "_is_on_disk", lambda *job: on_disk)
    monkeypatch.setattr(compiling, "_compile", lambda jobs: done.append("loaded"))

    def compile_slowly(jobs, new, dtype):
        done.append("compiled")
        clock[0] += seconds

    monkeypatch.setattr(compiling, "_compile_in_two_processes", compile_slowly)
    monkeypatch.setattr(compiling.cache, "folder", lambda: "/some/folder")
    for _ in range(2):
        compiling.compile_before_fit("float32", aloud)
    assert done == ["loaded" if on_disk else "compiled"]
    said = ANNOUNCED + "minidl: compiling for float32 took 3.0 s; kept in /some/folder\n" * (seconds > 2)
    assert capsys.readouterr().out == said * (aloud and not on_disk)


def compile_on_a_clock(monkeypatch, names, seconds, looks):
    """An empty disk, and a compilation that takes so long on a clock of its own and ends after so many looks at it.

    Returns the list that it adds what it has compiled to.
    """
    clock, seen, compiled, may_end, wait = [100.0], [], [], threading.Event(), compiling.wait

    def compile_slowly(jobs, new, dtype):
        clock[0] += seconds
        may_end.wait()
        compiled.extend(new)

    def look(*arguments, timeout):
        seen.append(None)
        if len(seen) > looks:
            may_end.set()
        return wait(*arguments, timeout=timeout)

    monkeypatch.setattr(compiling.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(compiling, "JIT_DISABLED", False)
    monkeypatch.setattr(compiling, "_ready", {})
    monkeypatch.setattr(compiling, "_jobs", lambda dtype: dict.fromkeys(names, ()))
    monkeypatch.setattr(compiling, "_is_on_disk", lambda *job: False)
    monkeypatch.setattr(compiling, "_compile_in_two_processes", compile_slowly)
    monkeypatch.setattr(compiling, "wait", look)
    return compiled


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_a_first_predict_says_why_it_takes_long(monkeypatch, capsys, seconds):
    compile_on_a_clock(monkeypatch, compiling._PREDICT, seconds, looks=2)
    monkeypatch.setattr(compiling.cache, "folder", lambda: None)

    compiling.compile_before_predict("float32", ())
    said = capsys.readouterr()
    assert said.out == ""
    if seconds > 2:
        assert said.err == ANNOUNCED + (
            "minidl: compiling for float32 took 3.0 s; not kept; "
            "let NUMBA_CACHE_DIR name a folder that can be written to\n"
        )
    else:
        assert said.err == ""


def test_a_second_process_compiles_a_part(monkeypatch, tmp_path):
    """It leaves on disk what it was asked for, and a process that cannot start costs nothing but time."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiling, "get_num_threads", lambda: 2)
    helper = compiling._start_helper(["update.ADAM", "permutation"], "float32")
    assert helper.wait(timeout=300) == 0
    written = {path.name.split("-")[0] for path in tmp_path.rglob("*.nbc")}
    assert written == {"updates.update.ADAM", "random.permutation"}
    monkeypatch.setattr(compiling.sys, "executable", str(tmp_path / "nothing"))
    assert compiling._start_helper(["work"], "float32") is None


@pytest.mark.skipif(sys.platform == "win32", reason="the host is a shell script")
def test_a_host_that_embeds_python_is_not_started_again(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "get_num_threads", lambda: 2)
    monkeypatch.setattr(compiling.cache, "folder", lambda: tmp_path)
    started = []
    for name in ("qgis", "uwsgi", "pythonservice.exe", "", "python3", "python3.13t", "Python", "pythonw.exe"):
        host = tmp_path / (name or "none")
        host.write_text("#!/bin/sh\n")
        host.chmod(0o755)
        monkeypatch.setattr(compiling.sys, "executable", str(host) if name else name)
        helper = compiling._start_helper(["work"], "float32")
        if helper is not None:
            helper.wait(timeout=60)
            started.append(name)
    assert started == ["python3", "python3.13t", "Python", "pythonw.exe"]


@pytest.mark.parametrize("helps", [False, True])
def test_two_processes_begin_at_opposite_ends(monkeypatch, helps):
    """Nobody waits: a second process that writes nothing, or never starts, leaves all to this one."""
    killed, ended, on_disk, compiled, asked = [], [], set(), [], []

    class Helper:
        def wait(self, timeout=None):
            if not killed:
                pytest.fail(f"waits {timeout} s for a process that does nothing")
            ended.append(self)

        poll = wait

        def kill(self):
            killed.append(list(compiled))

    def start(names, dtype):
        asked.extend(names)
        return Helper()

    def compile_one(jobs):
        for name in jobs:
            if name not in compiled and name not in on_disk:
                compiled.append(name)
                if helps:  # the other has done one meanwhile
                    on_disk.update(asked[: len(compiled)])

    names = ["update.ADAM", "train", "loss.DIST", "infer", "all_ready", "matmul.product"]
    seconds = {"train": 3.0, "matmul.product": 2.0, "infer": 1.0, "loss.DIST": 0.5}
    monkeypatch.setattr(compiling, "_SECONDS", seconds)
    monkeypatch.setattr(compiling, "_start_helper", start)
    monkeypatch.setattr(compiling, "_compile", compile_one)
    compiling._compile_in_two_processes({name: name for name in names}, names, "float32")
    assert asked == ["matmul.product", "infer", "loss.DIST", "update.ADAM", "all_ready"]
    assert compiled[:3] == ["train", "all_ready", "update.ADAM"], "the longest first, then the shortest"
    assert killed == [compiled]
    assert len(ended) == 1, "a killed process that nobody waits for stays a zombie"
    assert set(compiled) | on_disk == set(names)
    assert len(compiled) == (3 if helps else len(names)), "what the other has left is not compiled here"


@pytest.mark.filterwarnings("always:progress can no longer be shown:UserWarning")
@pytest.mark.parametrize("aloud", [True, None])
def test_a_stream_that_is_lost_does_not_end_a_compilation(monkeypatch, aloud):
    """One warning, and it goes on."""

    class Lost(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

        def isatty(self):
            return True

    compiled = compile_on_a_clock(monkeypatch, compiling._FIT, 3.0, looks=3)
    monkeypatch.setattr(compiling.sys, "stdout" if aloud else "stderr", Lost())

    with pytest.warns(UserWarning, match="No space left on device") as warned:
        compiling.compile_ahead({*compiling._FIT}, "float32", aloud)
    assert len(warned) == 1
    assert set(compiled) == {*compiling._FIT}


def test_warmup_leaves_the_users_names_alone():
    def numbers():
        return [int(re.sub(r"\D", "", part.name) or 0) for part in (Sequential(), Dense(1))]

    before = numbers()
    warmup()
    assert numbers() == [number + 1 for number in before]


COMPILED_BY_WARMUP = """
import importlib, pkgutil
import numpy as np
import minidl, minidl.kernels
from minidl.layers import Dense, Dropout

modules = [importlib.import_module(f"minidl.kernels.{m.name}") for m in pkgutil.iter_modules(minidl.kernels.__path__)]

def compiled():
    kernels = {id(k): k for module in modules for k in vars(module).values() if hasattr(k, "py_func")}.values()
    return {(k.__name__, str(s), len(k._addressed)) for k in kernels for s in k.signatures}

minidl.warmup(verbose=False)
before = compiled()
x, y = np.random.rand(40, 6).astype("f4"), np.arange(40) % 3
model = minidl.Sequential([Dense(5, "tanh", input_dim=6), Dropout(0.1), Dense(3, "softmax")])
model.compile("rmsprop", "sparse_categorical_crossentropy", ["accuracy"])
model.fit(x, y, epochs=2, verbose=0, validation_split=0.2)
model.evaluate(x, y, verbose=0)
model.predict(x)
print(sorted(name for name, *_ in compiled() - before))
minidl.losses.DIST().value_and_grad(model.predict_logits(x), y, np.eye(3)[y] * 5)
print(sorted(name for name, *_ in compiled() - before))
"""


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_warmup_compiles_all_that_training_and_prediction_need():
    run = subprocess.run(
        [sys.executable, "-c", COMPILED_BY_WARMUP], capture_output=True, text=True, check=True
    )
    first, with_another_loss = run.stdout.splitlines()
    assert first == "[]"
    assert "dist_batch" in with_another_loss  # what warmup leaves out is seen


@pytest.mark.parametrize("loss", ["kl_divergence", "DIST"])
def test_distill_compiles_in_one_go(monkeypatch, loss):
    """Loop, loss and update rule of the student together, before its teacher is asked; what is left is a metric."""
    asked, compile_ahead = [], compiling.compile_ahead
    monkeypatch.setattr(
        compiling, "compile_ahead", lambda names, *rest: asked.append(names) or compile_ahead(names, *rest)
    )
    x = np.random.default_rng(0).random((40, 6), np.float32)
    logits = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    student = Sequential([Dense(5, "tanh", input_dim=6), Dense(3, "softmax")])
    used = losses.DIST(hard_weight=0.0) if loss == "DIST" else losses.KnowledgeDistillation(hard_weight=0.0)
    distill(logits, student, x, loss=used, epochs=1, verbose=0, optimizer="sgd")
    first, *later = asked
    units = {name for names in asked for name in names} - first
    assert {name.split(".")[0] for name in units} <= ({"forward", "matmul"} if loss == "DIST" else set())
    assert later, "what is asked for later is seen"
    if loss != "DIST":
        assert {"update.SGD", "scalars.SGD", "backward.TANH"} < first
        assert any(name.startswith("loss.") for name in first)


def teach_each_other(x, y, student):
    models = [student(), student()]
    mutual_learning(models, x, y, epochs=2, optimizer="sgd", verbose=0)


def teach_the_next(x, y, student):
    born_again(student, x, y, generations=2, optimizer="sgd", epochs=1, verbose=0, validation_split=0.2)


def teach_with_all_there_is(x, y, student):
    teacher = 5 * np.eye(3)[y]
    distill(teacher, student(), x, y, epochs=1, optimizer="sgd", verbose=0, plain_student=True)
    distill(teacher, student(), x, np.eye(3)[y], epochs=1, optimizer="sgd", verbose=0, validation_split=0.2)


def run_the_main_job(x, y, student):
    few = "--labels 100 --teacher 32 --student 8 --teacher-steps 20 --steps 40 --seeds 2"
    assert main(["distill", *few.split()]) == 0


TOGETHER = [teach_each_other, teach_the_next, teach_with_all_there_is, run_the_main_job]


@pytest.mark.parametrize("run", TOGETHER)
def test_trainings_that_belong_together_compile_in_one_go(monkeypatch, run):
    """All that they need, before the first of them begins, and nothing that they do not need."""
    asked, before = [], set()
    compile_ahead, train = compiling.compile_ahead, threads.run

    def ask(names, *rest):
        asked.append(names)
        return compile_ahead(names, *rest)

    def run_kernel(*arguments, **options):
        before.update(*asked)
        return train(*arguments, **options)

    compiled_steps._kept.clear()  # a fit that finds another's memory asks for nothing
    monkeypatch.setattr(compiling, "compile_ahead", ask)
    monkeypatch.setattr(threads, "run", run_kernel)
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 6), np.float32), np.arange(40) % 3
    run(x, y, lambda: Sequential([Dense(5, "tanh", input_dim=6), Dense(3, "softmax")]))
    first, *later = asked
    if run is teach_with_all_there_is:  # two, of which the second has rows for labels
        second = next(names for names in later if "metric.CATEGORICAL_ACCURACY" in names)
        assert {name.split(".")[0] for name in second - first} == {"metric", "loss"}
        first = first | second
    assert later and first >= set().union(*later)
    needed = set().union(*later) | {"panel_order", *compiling._FIT, *compiling._PREDICT}
    assert first <= needed, "nothing that no training asks for"


@pytest.mark.parametrize("guarded", [True, False])
def test_two_trainings_that_begin_at_once_compile_once(monkeypatch, guarded):
    compiled, both = [], threading.Barrier(2)

    def compile_all(jobs, new, dtype):
        time.sleep(0.05)  # for the other to come
        compiled.append(new)

    monkeypatch.setattr(compiling, "JIT_DISABLED", False)
    monkeypatch.setattr(compiling, "_ready", {})
    monkeypatch.setattr(compiling, "_is_on_disk", lambda *job: bool(compiled))
    monkeypatch.setattr(compiling, "_compile_in_two_processes", compile_all)
    monkeypatch.setattr(compiling, "_compile", lambda jobs: None)
    if not guarded:  # the control
        monkeypatch.setattr(compiling, "_compiling", contextlib.nullcontext())
        monkeypatch.setattr(compiling.time, "sleep", lambda seconds: both.wait(60))

    def begin():
        compiling.compile_before_fit("float32", False)

    trainings = [threading.Thread(target=begin) for _ in range(2)]
    for training in trainings:
        training.start()
    for training in trainings:
        training.join()
    assert len(compiled) == (1 if guarded else 2)


def test_where_no_thread_can_be_started_the_caller_compiles(monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    compiled = []
    monkeypatch.setattr(compiling, "JIT_DISABLED", False)
    monkeypatch.setattr(compiling, "_ready", {})
    monkeypatch.setattr(compiling, "_is_on_disk", lambda *job: False)
    monkeypatch.setattr(compiling, "_compile", lambda jobs: compiled.append(threading.current_thread()))
    monkeypatch.setattr(compiling, "get_num_threads", lambda: 2)
    monkeypatch.setattr(compiling.subprocess, "Popen", refuse)
    monkeypatch.setattr(compiling.threading.Thread, "start", refuse)
    monkeypatch.setattr(compiling.cache, "folder", lambda: "/some/folder")
    with pytest.raises(RuntimeError):  # the control
        threading.Thread(target=print).start()
    compiling.compile_before_fit("float32", False)
    assert compiled == [threading.current_thread()]
