"""The benchmark harness: what it refuses to time, what it says, what it writes. No time is asserted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minidl
from benchmarks import (
    busy,
    distillation_loss,
    harness,
    hinton_mnist,
    inference,
    logit_cache,
    matmul,
    report,
    soak,
    startup,
    train_step,
    trainers,
    xsmm,
)
from benchmarks.harness import Case, Missing, Refused, Suite, Target, Worker, Wrong
from minidl.layers import Dense, Flatten, Input, RandomTranslation, Rescaling
from minidl.training.preparation import _check_order

TOY = """
import os, sys
import numpy as np
from benchmarks.harness import Missing, Peer

class Right(Peer):
    answer = 42.0
    def prepare(self, case): self.case = case
    def outputs(self):
        print("a library that prints must not disturb the pipe")
        return np.array([self.answer])
    def run(self, count): sum(range(100 * count))

class Off(Right):
    answer = 42.1

class Absent(Right):
    def load(self): import a_package_nobody_has

class Unbuilt(Right):
    def load(self): raise Missing("no compiler here")

class Dying(Right):
    def run(self, count): os._exit(3)

class Raising(Right):
    def outputs(self): raise ValueError("no idea")

PEERS = {"minidl": Right, "wrong": Off, "absent": Absent, "unbuilt": Unbuilt, "dying": Dying,
         "raising": Raising}
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A suite of tiny peers in a module of its own, found by the child processes too."""
    (tmp_path / "toy_suite.py").write_text(TOY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    import toy_suite

    def verify(case, peer, outputs):
        harness.require_close([outputs], [np.array([42.0])], 1e-6, "the answers")

    yield Suite(
        name="toy", title="Toy", unit="sum", module="toy_suite", peers=toy_suite.PEERS, verify=verify,
        cases=[
            Case("one", {}, ("minidl", "wrong", "absent")),
            Case("two", {}, ("minidl", "unbuilt", "dying", "raising")),
        ],
        quick=("one",), rounds=2, slice_seconds=0.001, targets=[Target("self", "one", ("minidl",), 1.0)],
    )  # fmt: skip
    del sys.modules["toy_suite"]


def run(suite: Suite, folder: Path, *arguments: str) -> tuple[int, dict]:
    code = harness.main(suite, ["--output", str(folder), "--threads", "1", *arguments])
    return code, json.loads((folder / "toy.partial.json").read_text())


def test_wrong_missing_and_dying_peers_are_named_and_the_others_go_on(toy, tmp_path, capsys):
    code, results = run(toy, tmp_path)
    assert code == 0
    one, two = results["cases"]
    assert list(one["times"]) == ["minidl@1"] and list(two["times"]) == ["minidl@1"]
    assert one["refused"]["wrong@1"].startswith("wrong result: the answers differ")
    assert one["refused"]["absent@1"].startswith("not installed:")
    assert two["refused"]["unbuilt@1"] == "not installed: no compiler here"
    assert "process died in run" in two["refused"]["dying@1"]
    assert "ValueError: no idea" in two["refused"]["raising@1"]
    said = capsys.readouterr().out
    assert (
        "absent@1 is not timed: not installed: ModuleNotFoundError" in said and "a_package_nobody_has" in said
    )
    assert results["targets"] == [
        {"text": "self", "case": "one", "bound": 1.0, "ratio": 1.0, "met": True},
    ]


def test_our_own_wrong_result_fails_the_run(toy, tmp_path):
    def refuse(case, peer, outputs):
        raise Wrong("always")

    code, results = run(replace(toy, verify=refuse), tmp_path)
    assert code == 1 and not any(case["times"] for case in results["cases"])


PARTIAL = [["--quick"], ["--cases", "one"], ["--peers", "minidl"], ["--threads", "1"], []]  # [] misses a peer


@pytest.mark.parametrize("arguments", PARTIAL)
def test_a_partial_run_never_replaces_a_result_file(toy, tmp_path, arguments):
    (tmp_path / "toy.json").write_text("the last complete run")
    harness.main(toy, ["--output", str(tmp_path), *arguments])
    assert (tmp_path / "toy.json").read_text() == "the last complete run"
    assert json.loads((tmp_path / "toy.partial.json").read_text())["complete"] is False


def test_a_complete_run_replaces_it_and_leaves_no_other_file(toy, tmp_path):
    (tmp_path / "toy.json").write_text("the last complete run")
    whole = replace(toy, peers={"minidl": toy.peers["minidl"]}, cases=[Case("one", {}, ("minidl",))])
    assert harness.main(whole, ["--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "toy.json").read_text())["complete"] is True
    assert "# Toy" in (tmp_path / "toy.md").read_text()
    left = {path.name for path in tmp_path.iterdir()} - {"toy_suite.py", "__pycache__"}
    assert left <= {"toy.json", "toy.md", "toy.png"}


def test_an_interrupted_run_writes_nothing(toy, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(harness, "_interleave", interrupt)
    with pytest.raises(KeyboardInterrupt):
        harness.main(toy, ["--output", str(tmp_path)])
    assert not list(tmp_path.glob("toy.*"))


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(report.os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        report.replace(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_worker_that_hangs_is_given_up(toy):
    worker = Worker("toy_suite", "minidl", 1, timeout=1.0)
    try:
        with pytest.raises(Refused, match="no answer within 1 s"):
            worker.call("run", 10**9)
    finally:
        worker.close()


def test_thread_counts_reach_the_child_before_any_import():
    environment = harness.thread_environment(2)
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "2"
    assert "intra_op_parallelism_threads=2" in environment["XLA_FLAGS"]


@pytest.mark.parametrize(
    "bad", [[np.array([1.0, 2.001])], [np.array([1.0, math.nan])], [np.array([1.0])], []]
)
def test_require_close_refuses(bad):
    good = [np.array([1.0, 2.0])]
    harness.require_close(good, good, 1e-6, "they")
    with pytest.raises(Wrong):
        harness.require_close(bad, good, 1e-6, "they")


# ---------------------------------------------------------------- the verifications of the scripts


def small_case(distilled: bool) -> Case:
    sizes = (784, 16, 10) if distilled else (12, 9, 7, 10)
    params = {"sizes": list(sizes), "batch": 8, "steps": 4, "distilled": distilled}
    params["epsilon"] = train_step.EPSILON
    return Case(f"small {distilled}", params, ("numpy",))


@pytest.mark.parametrize("distilled", [False, True])
def test_train_step_verification_takes_the_right_step_and_no_other(distilled, monkeypatch):
    case = small_case(distilled)
    monkeypatch.setattr(train_step, "CASES", [case])
    train_step._reference.cache_clear()
    peer = trainers.NumpyTrainer()
    peer.prepare(case.params)
    outputs = peer.outputs()
    train_step.verify(case, trainers.NumpyTrainer, outputs)

    start = trainers.initial_weights(case.params["sizes"])
    unset = [o.copy() for o in outputs]
    unset[0][0, 0] = np.nan
    for wrong in (start, unset, [w + 1.02 * (o - w) for w, o in zip(start, outputs, strict=True)]):
        with pytest.raises(Wrong):
            train_step.verify(case, trainers.NumpyTrainer, wrong)
    with pytest.raises(Wrong):  # the other place of epsilon
        train_step.verify(case, trainers.TorchTrainer, outputs)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_step_in_c_is_that_of_every_other_trainer(threads, monkeypatch):
    """The verified steps; then a last batch that is smaller, and layers wider than a block of its products."""
    peer = xsmm.XsmmTrainer()
    peer.threads = threads
    try:
        peer.load()
    except Missing as error:
        pytest.skip(str(error))
    case = small_case(False)
    monkeypatch.setattr(train_step, "CASES", [case])
    train_step._reference.cache_clear()
    peer.prepare(case.params)
    outputs = peer.outputs()
    train_step.verify(case, xsmm.XsmmTrainer, outputs)
    start = trainers.initial_weights(case.params["sizes"])
    with pytest.raises(Wrong):
        train_step.verify(
            case, xsmm.XsmmTrainer, [w + 1.02 * (o - w) for w, o in zip(start, outputs, strict=True)]
        )

    wide = {**case.params, "sizes": [150, 200, 70, 19]}
    hand = trainers.NumpyTrainer()
    for each in (peer, hand):
        each.prepare(wide)
        each.fit(2, each.x[:-3], each.y[:-3], None, False)
    start = trainers.initial_weights(wide["sizes"])
    moved, expected = (
        [np.asarray(a, np.float64) - w for a, w in zip(each.get(), start, strict=True)]
        for each in (peer, hand)
    )
    harness.require_close(moved, expected, 3e-2, "the updates")
    before = [array.copy() for array in peer.get()]
    peer.run(1)  # shuffled
    assert all(np.isfinite(a).all() and (a != b).any() for a, b in zip(peer.get(), before, strict=True))


@pytest.mark.parametrize(
    ("compiler", "says", "kind", "told"),
    [
        (None, "", Missing, "gcc is not installed"),
        ("gcc", "fatal error: libxsmm.h: No such file or directory", Missing, "no libxsmm"),
        ("gcc", "ld: cannot find -lxsmm: No such file", Missing, "no libxsmm"),
        ("gcc", "error: expected ';'", Refused, "expected ';'"),
    ],
)
def test_the_step_in_c_says_what_it_wants(compiler, says, kind, told, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", says)
    monkeypatch.setattr(xsmm.shutil, "which", lambda name: compiler)
    monkeypatch.setattr(xsmm.subprocess, "run", lambda *command, **settings: failed)
    with pytest.raises(Refused, match=told) as caught:
        xsmm.XsmmTrainer().load()
    assert type(caught.value) is kind


@pytest.mark.parametrize(("hard", "soft"), [(1, 1 / trainers.TEMPERATURE), (2, 2)])
def test_a_gradient_off_by_a_factor_is_refused(monkeypatch, hard, soft):
    """Adam hides the scale of a gradient; the verification must not."""
    case = small_case(True)
    monkeypatch.setattr(train_step, "CASES", [case])
    train_step._reference.cache_clear()
    peer = trainers.NumpyTrainer()
    with monkeypatch.context() as patch:
        patch.setattr(trainers, "SOFT", soft * trainers.SOFT)
        patch.setattr(trainers, "HARD", hard * trainers.HARD)
        peer.prepare(case.params)
        outputs = peer.outputs()
    with pytest.raises(Wrong):
        train_step.verify(case, trainers.NumpyTrainer, outputs)


def test_matmul_verification():
    case = next(c for c in matmul.CASES if c.name.startswith("small 3 dX"))
    peer = matmul.Numpy()
    peer.prepare(case.params)
    out = peer.outputs()
    matmul.verify(case, matmul.Numpy, out)
    broken = out.copy()
    broken[3, 5] *= 1 + 1e-4
    for wrong in (broken, out.T, np.zeros_like(out), np.full_like(out, np.nan)):
        with pytest.raises(Wrong):
            matmul.verify(case, matmul.Numpy, wrong)


def test_distillation_loss_verification():
    case = distillation_loss.SUITE.cases[0]
    value, gradient = distillation_loss.value_and_gradient(*distillation_loss.inputs(case.params))
    distillation_loss.verify(case, distillation_loss.Numpy, (value, gradient))
    for wrong in ((value * 1.001, gradient), (value, gradient * 4), (value, gradient[:-1])):
        with pytest.raises(Wrong):
            distillation_loss.verify(case, distillation_loss.Numpy, wrong)


def test_the_distillation_gradient_is_that_of_its_value():
    """The reference itself, by central differences in float64."""
    logits, y, teacher = (a[:3] for a in distillation_loss.inputs({"rows": 32, "classes": 10}))
    logits, teacher = logits.astype(np.float64), teacher.astype(np.float64)
    _, gradient = distillation_loss.value_and_gradient(logits, y, teacher)
    for index in np.ndindex(logits.shape):
        moved = [logits.copy(), logits.copy()]
        moved[0][index] += 1e-5
        moved[1][index] -= 1e-5
        up, down = (distillation_loss.value_and_gradient(z, y, teacher)[0] for z in moved)
        assert abs((up - down) / 2e-5 - gradient[index]) < 1e-8


def test_logit_cache_verification(monkeypatch):
    """However the teacher is asked, the student is the same, or there is no time to be had of it."""
    small = logit_cache.case(784, 16, 10, batch=8, steps=6)
    monkeypatch.setattr(trainers, "TEACHER", (784, 20, 10))
    monkeypatch.setattr(logit_cache, "CASES", [small])
    monkeypatch.setattr(logit_cache, "_students", {})
    logit_cache._reference.cache_clear()
    threads = minidl.get_num_threads()
    outputs = {}
    try:
        for name in (logit_cache.OURS, logit_cache.PLAIN, logit_cache.FILLING, logit_cache.ONLINE):
            peer = logit_cache.PEERS[name]()
            peer.load()
            peer.prepare(small.params)
            outputs[name] = peer.outputs()
            logit_cache.verify(small, type(peer), outputs[name])
            peer.run(1)
    finally:
        minidl.set_num_threads(threads)
    right = outputs[logit_cache.ONLINE]
    off = [np.nextafter(array, np.float32(9)) for array in right["epoch"]]
    start = trainers.initial_weights(small.params["sizes"])
    wrong = [right | {"epoch": off}, right | {"first": start}, outputs[logit_cache.PLAIN]]
    for bad in wrong:
        with pytest.raises(Wrong):
            logit_cache.verify(small, logit_cache.Online, bad)
    with pytest.raises(Wrong):  # a teacher where there should be none
        logit_cache.verify(small, logit_cache.Plain, right)
    logit_cache._reference.cache_clear()


def test_inference_verification():
    case = inference.CASES[0]
    peer = inference.Numpy()
    peer.prepare(case.params)
    inference.verify(case, inference.Numpy, peer.outputs())
    with pytest.raises(Wrong):
        inference.verify(case, inference.Numpy, np.roll(peer.outputs(), 1, axis=1))


def test_startup_verification_and_its_programs():
    case = startup.SUITE.cases[1]
    startup.verify(case, startup.NewProcess, 2.3)
    for loss in (None, 0.0, math.nan, 9.0):
        with pytest.raises(Wrong):
            startup.verify(case, startup.NewProcess, loss)
    for library in startup.PEERS.values():
        compile(startup.program(library, fit=True), "program", "exec")


def test_every_target_names_a_case_and_peers_that_are_there():
    scripts = (matmul, train_step, distillation_loss, logit_cache, inference, startup)
    for suite in (script.SUITE for script in scripts):
        names = {case.name for case in suite.cases}
        assert len(names) == len(suite.cases) and set(suite.quick) <= names
        for target in suite.targets:
            assert target.case in names and (target.against_case or target.case) in names
            assert target.against == ("limit",) or set(target.against) <= set(suite.peers)
        for case in suite.cases:
            assert set(case.peers) <= set(suite.peers)


def test_train_step_counts_the_arithmetic():
    # a row: forward and weight gradients 2*(2*3 + 3*4) each, input gradients 2*3*4 (none for the data)
    assert train_step.flops((2, 3, 4), 5) == 5 * (2 * 2 * (6 + 12) + 2 * 12)


class Scripted:
    """A contender of `busy` without processes; one cannot start, one dies under load."""

    def __init__(self, name, processes):
        self.name = name

    def start(self, case):
        if self.name == "jax-scan":
            raise Refused("Traceback\nno jax here")

    def sample(self, together, seconds):
        if self.name == "keras-jax":
            raise Refused("its process died in run")
        return 2e-3 if self.name == busy.OURS and together else 1e-3

    def stop(self): ...


def test_busy_names_who_is_left_out_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(busy, "Contender", Scripted)
    monkeypatch.setattr(busy, "CASES", busy.CASES[:1])
    monkeypatch.setattr(busy, "busy", lambda count: busy.contextlib.nullcontext())
    monkeypatch.setattr(busy, "leave", lambda crowd, rounds: {"set_num_threads": 1e-3, "leaving": 2e-3})
    (tmp_path / "busy.json").write_text("the last complete run")
    assert busy.main(["--output", str(tmp_path)]) == 0
    assert (tmp_path / "busy.json").read_text() == "the last complete run"
    results = json.loads((tmp_path / "busy.partial.json").read_text())
    name = busy.CASES[0].name
    assert list(results["steps"]) == [name, "8 threads, " + name]
    assert set(results["refused"]) == {"jax-scan", "keras-jax"}
    assert results["refused"]["jax-scan"].endswith("no jax here")
    for load, times in results["steps"][name].items():
        assert set(times) == {busy.OURS, busy.ONE, "torch-fused"}
        assert times[busy.OURS] / times[busy.ONE] == (2 if load == "2 trainings" else 1)
    said = capsys.readouterr()
    assert "keras-jax is left out" in said.out and f"{name}: round 5 of 5, 2 busy processes: " in said.err

    monkeypatch.setattr(busy, "RIVALS", ("torch-fused",))
    for arguments in (["--rounds", "1"], ["--load", "1 busy"], ["--ours"], []):
        assert (tmp_path / "busy.json").read_text() == "the last complete run"
        assert busy.main([*arguments, "--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "busy.json").read_text())["complete"] is True
    assert "| 2.00| 1.3 |" in (tmp_path / "busy.md").read_text()


def test_a_sample_of_busy_is_bounded_however_slow_the_peer():
    """Epochs of a few steps where a whole one takes far longer than the sample."""
    asked = []

    class Slow:
        def __init__(self, step):
            self.step = step

        def call(self, method, count, stop=True):
            seconds = count * self.step * (busy.FEW if method == "few" else 300)
            asked.append((method, count, seconds))
            return None, seconds, 0.0

    for step, methods in ((1e-4, ["few", "run", "run"]), (0.1, ["few", "few"])):
        asked.clear()
        contender = object.__new__(busy.Contender)  # without processes
        contender._workers, contender._steps = [Slow(step)], 300
        contender._pool = busy.ThreadPoolExecutor(1)
        assert contender.sample(False, 0.8) == pytest.approx(step)
        contender._pool.shutdown()
        assert [method for method, _, _ in asked] == methods
        assert sum(seconds for _, _, seconds in asked) < 3.0


def test_idx_files_are_read(tmp_path):
    import gzip

    for part, images in (("train", 3), ("t10k", 2)):
        pixels = np.arange(images * 4, dtype=np.uint8)
        header = bytes([0, 0, 8, 3]) + np.array([images, 2, 2], ">i4").tobytes()
        labels = bytes([0, 0, 8, 1]) + np.array([images], ">i4").tobytes() + bytes(range(images))
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    x, y = trainers.mnist(str(tmp_path), "train")
    assert x.shape == (3, 4) and x.dtype == np.float32 and x[2, 3] == np.float32(11 / 255)
    assert y.tolist() == [0, 1, 2]
    with pytest.raises(FileNotFoundError):
        trainers.mnist(str(tmp_path / "nowhere"), "train")


def test_soak_notices_results_that_change():
    assert soak.soak(0.0, lambda folder: "same")["constant"]
    numbers = iter(range(10**9))
    changing = soak.soak(0.05, lambda folder: str(next(numbers)))
    assert changing["rounds"] > 1 and not changing["constant"]


def test_only_a_whole_soak_replaces_the_result_files(tmp_path, monkeypatch, capsys):
    lengths = []

    def soak_for(seconds):
        lengths.append(seconds)
        return whole_soak(0.0, lambda folder: "same")

    whole_soak = soak.soak
    monkeypatch.setattr(soak, "soak", soak_for)
    for arguments in (["--quick"], ["--minutes", "1"], []):
        assert soak.main([*arguments, "--output", str(tmp_path)]) == 0
        written = {path.name for path in tmp_path.iterdir()}
        assert written >= {"soak.partial.json", "soak.partial.md"}
        assert ("soak.json" in written) == ("soak.md" in written) == (not arguments)
    assert lengths == [20.0, 60.0, 60.0 * soak.MINUTES]


def test_soak_notices_memory_that_grows(monkeypatch):
    sizes = iter(range(0, 10**9, 100))
    monkeypatch.setattr(soak, "resident", lambda: float(next(sizes)))
    assert not soak.soak(0.05, lambda folder: "same")["flat"]
    monkeypatch.setattr(soak, "resident", lambda: 100.0)
    assert soak.soak(0.05, lambda folder: "same")["flat"]


# ---------------------------------------------------------------- the distillation paper's MNIST section


@pytest.fixture
def few_digits(monkeypatch):
    (x, y), (x_test, y_test) = hinton_mnist.mnist.load_subset()
    few = hinton_mnist.Digits(x[::10], y[::10], x_test[::10], y_test[::10])
    monkeypatch.setattr(hinton_mnist.Digits, "load", classmethod(lambda cls, folder: few))
    return few


def small_protocol(**settings) -> hinton_mnist.Protocol:
    once = hinton_mnist.Training(1, 1e-3, 64)
    trainings = dict.fromkeys(
        ("teacher", "plain", "distilled", "without_threes", "sevens_and_eights", "sweep"), once
    )
    small = dict(teacher_units=(16,), student_units=(12,), held_out=100, sweep_units=(4,))
    return replace(hinton_mnist.FULL, **trainings, **small, sweep_temperatures=(1.0, 8.0), **settings)


def test_hinton_mnist_gives_every_row_and_replaces_no_result(few_digits, tmp_path, capsys):
    (tmp_path / "hinton_mnist.json").write_text("the last complete run")
    command = ["--quick", "--seeds", "2", "--threads", "1", "--output", str(tmp_path)]
    assert hinton_mnist.main(command, small_protocol()) == 0
    assert (tmp_path / "hinton_mnist.json").read_text() == "the last complete run"
    results = json.loads((tmp_path / "hinton_mnist.partial.json").read_text())
    assert results["complete"] is False and results["targets"] == []  # targets are for the 10,000 test digits
    sweep = [hinton_mnist.sweep_key(4, t) for t in (1, 8)]
    assert list(results["rows"]) == [*hinton_mnist.ROWS, *sweep]
    for row in results["rows"].values():
        assert [sum(errors) for errors in row["class_errors"]] == row["errors"] and len(row["errors"]) == 2
    for missing in ("no 3s", "7s and 8s"):  # the best shift on the test digits is at least as good as none
        before, after = (results["rows"][missing + end]["errors"] for end in ("", ", shifted on test"))
        assert all(a <= b for a, b in zip(after, before, strict=True))
    text = (tmp_path / "hinton_mnist.partial.md").read_text()
    assert "the quick version" in text and text.replace(".partial.png", ".png") in capsys.readouterr().out
    for row in hinton_mnist.ROWS.values():
        assert f"| {row.name} " in text and f" {row.paper / 100:.2f} % |" in text


def test_the_teacher_of_hinton_mnist_augments_first():
    """One rule for teachers and students; `fit` has it for students."""
    _check_order(hinton_mnist.teacher_net(small_protocol(), 0))
    wrong = [Input((4, 4)), Rescaling(1 / 255), RandomTranslation(0.2, 0.2), Flatten(), Dense(3)]
    with pytest.raises(ValueError, match="before"):
        _check_order(minidl.Sequential(wrong))


def test_hinton_mnist_wants_data_for_the_full_run(tmp_path, capsys):
    for command, message in (([], "--data FOLDER is needed"), (["--data", str(tmp_path)], "four files")):
        with pytest.raises(SystemExit):
            hinton_mnist.main(command)
        assert message in capsys.readouterr().err


def test_an_interrupted_run_goes_on_from_the_teachers_it_left(few_digits, tmp_path, monkeypatch):
    def rows(**settings):
        command = [
            "--quick",
            "--threads",
            "1",
            "--output",
            str(tmp_path),
            "--teachers",
            str(tmp_path / "teachers"),
        ]
        assert hinton_mnist.main(command, small_protocol(**settings)) == 0
        return json.loads((tmp_path / "hinton_mnist.partial.json").read_text())["rows"]

    first, taught = rows(), []
    learn = hinton_mnist.learn_labels

    def watch(model, digits, training):
        taught.append(len(model.layers))
        learn(model, digits, training)

    monkeypatch.setattr(hinton_mnist, "learn_labels", watch)
    assert rows() == first and len(taught) == 1  # the plain student alone
    assert rows(hidden_dropout=0.4)["teacher"] != first["teacher"] and len(taught) == 3


def test_a_partial_transfer_set_has_no_other_classes_and_nothing_held_out(few_digits, monkeypatch):
    seen = {}
    fit = hinton_mnist.learn_from_teacher

    def watch(model, taught, training, protocol, temperature, rows=None):
        seen["rows"] = rows
        return fit(model, taught, training, protocol, temperature, rows)

    monkeypatch.setattr(hinton_mnist, "learn_from_teacher", watch)
    rng = np.random.default_rng(0)
    logits, test_logits = (rng.normal(size=(len(y), 10)) for y in (few_digits.y, few_digits.y_test))
    taught = hinton_mnist.Taught(few_digits, logits, test_logits)
    for student, classes in (
        (hinton_mnist.without_threes, {0, 1, 2, 4, 5, 6, 7, 8, 9}),
        (hinton_mnist.sevens_and_eights, {7, 8}),
    ):
        student(taught, small_protocol(), seed=5)
        held_out = np.random.default_rng(5).permutation(len(few_digits.y))[:100]
        assert set(few_digits.y[seen["rows"]]) == classes and not set(seen["rows"]) & set(held_out)
        assert len(set(seen["rows"])) == len(seen["rows"])


def test_the_best_shift_is_the_median_of_the_best():
    logits = np.zeros((4, 3))
    logits[:, 0] = [
        1.05,
        1.05,
        2.05,
        5.0,
    ]  # the first two are of class 2, lost by 1.05; the others of class 0
    y = np.array([2, 2, 0, 0])
    assert hinton_mnist.best_shift(logits, y, [2], +1, 10.0) == pytest.approx(1.6)  # 1.1 to 2.0 are as good
    assert hinton_mnist.best_shift(logits[:2] * -1, y[:2], [0, 1], -1, 10.0) == pytest.approx(-5.1)
    assert hinton_mnist.best_shift(logits, y, [2], +1, 1.0) == 0.5  # nothing helps: all are as good


@pytest.mark.parametrize(
    ("errors", "teacher", "plain"),
    [
        ([75, 75], True, False),
        ([75, 76], False, False),
        ([130, 130], False, True),
        ([160, 161], False, False),
    ],
)
def test_targets_are_judged_by_the_mean(errors, teacher, plain):
    rows = {name: {"errors": errors} for name in hinton_mnist.ROWS}
    verdicts = {verdict["row"]: verdict["met"] for verdict in hinton_mnist.judge(rows)}
    assert verdicts["teacher"] is teacher and verdicts["plain"] is plain
    assert set(verdicts) == {name for name, row in hinton_mnist.ROWS.items() if row.target}
