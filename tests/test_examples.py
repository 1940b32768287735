"""The examples run, on a little data; those for other libraries where these are installed.

A new example is one row of ``EXAMPLES``, with a function that judges what its ``main`` gives and prints, and one line
of docs/examples.md.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples"
PAGE = (FOLDER.parent / "docs" / "examples.md").read_text(encoding="utf-8")


class Example(NamedTuple):
    holds: Callable[[Any, str], bool] | None  # of what main() gives, and what it prints
    settings: dict[str, Any] = {}
    needs: tuple[str, ...] = ()  # packages; without them the example says what to install
    only_if: str = ""  # a variable of the environment that must be set: it takes long
    run_by: str = ""  # the test file below tests/ that runs it instead, with processes of its own


def an_assistant_hands_on(reports, shown):
    direct, first, second = reports
    # the assistant that was taught is the teacher of the second call
    assert first.student.layers == second.teacher.layers == "784-32-10"
    assert first.student.errors == second.teacher.errors and first.teacher.errors == direct.teacher.errors
    assert second.student.layers == direct.student.layers == direct.plain.layers == "784-8-10"
    assert f"from the assistant  784-8-10         {second.student.errors:>5}" in shown
    return second.student.accuracy > 0.5 and second.unseen


def a_foreign_teacher_teaches(report, shown):
    assert str(report) in shown
    return report.student.accuracy > 0.6 and report.student.agreement > 0.6 and report.teacher.accuracy > 0.7


def every_regime_is_told(results, shown):
    return len(results) == 11 and all(name in shown and errors < 1000 for name, errors in results.items())


def a_fraud_is_found(results, shown):
    """Balanced weights find more frauds at 0.5; a chosen threshold gives both nets much the same."""
    (plain, at_half, chosen), (balanced, balanced_at_half, balanced_chosen) = results.values()
    assert balanced_at_half[1] > 2 * at_half[1] and balanced_at_half[0] < at_half[0]
    return min(plain, balanced, chosen[0], balanced_chosen[0]) > 0.2  # 0.01 is chance


def weights_help_rare_classes(errors, shown):
    """Errors (seeds, 2): of all classes, of the rare ones."""
    rare = {name: counts[:, 1].mean() for name, counts in errors.items()}
    plain = rare.pop("plain")
    return (
        len(rare) == 3
        and all(few < 0.97 * plain for few in rare.values())
        and all(name in shown for name in errors)
    )


def soft_answers_are_compared(errors, shown):
    """Of a class that no label and no answer names, only what soft answers say of it is left to learn from."""
    missed = {row: counts for (row, column), counts in errors.items() if column == "3s missed"}
    assert (
        min(missed["teacher's argmax"]) > 190 and len(errors) == 37 and "What the label does not say" in shown
    )
    # two digits side by side, twice
    assert sum(line.startswith(("label ", "T 1")) for line in shown.splitlines()) == 4
    return all(row in shown for row, _ in errors) and shown.count("than two standard errors") == 4


EXAMPLES = {
    "assistant_chain": Example(an_assistant_hands_on, dict(digits=800, epochs=6, sizes=((64,), (32,), (8,)))),
    "balanced_classes": Example(weights_help_rare_classes, dict(many=200, few=20, epochs=8, seeds=2)),
    "early_stopped_regression": Example(
        lambda errors, shown: max(errors.values()) < 0.8,  # 1 is the mean
        dict(known=200, unknown=1000, epochs=60, units=((64, 64), (16,))),
    ),
    "fraud": Example(a_fraud_is_found, dict(count=20_000)),
    "image_folder": Example(
        lambda accuracy, shown: accuracy > 0.6, dict(count=400, epochs=15), needs=("PIL",)
    ),
    "keras_teacher": Example(
        lambda report, shown: report.student.accuracy > 0.5,
        dict(digits=400, epochs=4),
        needs=("keras",),
        only_if="KERAS_BACKEND",  # it starts up for longer than all others take
    ),
    "mixup": Example(
        lambda errors, shown: len(errors) == 6 and all(np.mean(counts) < 1000 for counts in errors.values()),
        dict(labels=200, steps=150, seeds=2, units=((64,), (32,))),
    ),
    "model_service": Example(
        lambda result, shown: result[0] == 16 and "x must have shape (N, 784), got (1, 2)" in shown,
        dict(digits=200, epochs=1, requests=16),
        needs=("fastapi", "httpx"),
    ),
    "mpi_training": Example(None, run_by="interop/test_mpi.py"),
    "dask_search": Example(None, run_by="interop/test_dask.py"),
    "ray_search": Example(None, only_if="MINIDL_RAY", needs=("ray",)),
    "onnx_teacher": Example(
        a_foreign_teacher_teaches, dict(digits=800, epochs=6), needs=("onnx", "onnxruntime")
    ),
    "pytorch_teacher": Example(a_foreign_teacher_teaches, dict(digits=800, epochs=6), needs=("torch",)),
    "regimes": Example(every_regime_is_told, dict(digits=800, epochs=6, units=(64, 16))),
    "sklearn_teacher": Example(
        a_foreign_teacher_teaches, dict(digits=800, epochs=6, trees=20), needs=("sklearn",)
    ),
    "spoken_words": Example(lambda accuracy, shown: accuracy > 0.6, dict(count=30, epochs=20)),
    "text_pipeline": Example(
        lambda accuracies, shown: min(accuracies.values()) > 0.6,
        dict(modules=("numpy", "scipy.signal", "sklearn.metrics"), features=2**10, most=200),
        needs=("sklearn", "scipy"),
    ),
    "why_soft": Example(
        soft_answers_are_compared,
        dict(labels=100, bad_labels=20, steps=200, seeds=2, units=((48,), (24,))),
    ),
}


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if not example.run_by])
def test_an_example_runs(name, capsys):
    example = EXAMPLES[name]
    if example.only_if and not os.environ.get(example.only_if):
        pytest.skip(f"runs where {example.only_if} is set")
    absent = [package for package in example.needs if not importlib.util.find_spec(package)]
    if absent and not os.environ.get("MINIDL_EXTRAS"):  # in CI's stage of extras it fails
        pytest.skip(f"needs {', '.join(absent)}")
    assert example.holds(load(name).main(**example.settings), capsys.readouterr().out)


def test_what_learns_nothing_is_seen(capsys, monkeypatch):
    example, module = EXAMPLES["spoken_words"], load("spoken_words")
    rng = np.random.default_rng(0)
    monkeypatch.setattr(module, "features", lambda path: rng.normal(size=(module.PARTS, module.BANDS)))
    assert not example.holds(module.main(**example.settings), capsys.readouterr().out)


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example.needs])
def test_what_an_example_needs_is_said(name, monkeypatch):
    for package in EXAMPLES[name].needs:
        for loaded in [other for other in sys.modules if other.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    with pytest.raises(ImportError, match="this example needs .+: pip install "):
        load(name)


def commands_on(page):
    return re.findall(r"python examples/(\w+)\.py", page)


def test_every_example_is_listed_and_has_a_row_here():
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert names == sorted(EXAMPLES) == sorted(commands_on(PAGE))
    for name, example in EXAMPLES.items():
        source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        assert name in commands_on(ast.get_docstring(ast.parse(source))), (
            f"{name}.py does not say its command"
        )
        if example.run_by:
            assert name in (Path(__file__).parent / example.run_by).read_text(encoding="utf-8")
    assert commands_on(PAGE.replace("examples/fraud.py", "examples/fraud")).count("fraud") == 0


@pytest.mark.parametrize(
    "name, kind", [("spoken_words", "WORD/NAME.wav"), ("image_folder", "CLASS/NAME.png")]
)
def test_a_folder_without_data_is_refused(name, kind, tmp_path):
    if not all(map(importlib.util.find_spec, EXAMPLES[name].needs)):
        pytest.skip(f"needs {EXAMPLES[name].needs}")
    with pytest.raises(ValueError, match=f"folder must hold {kind}, got .*{tmp_path.name}"):
        load(name).main(tmp_path)


@pytest.mark.parametrize(
    "width, seconds, message", [(1, 1.0, "16 bits a sample, got 8"), (2, 0.05, "0.11 s at least, got 0.05 s")]
)
def test_a_recording_that_cannot_be_used_is_named(width, seconds, message, tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, width, 8000, 0, "NONE", ""))
        file.writeframes(bytes(int(8000 * seconds) * width))
    with pytest.raises(ValueError, match=f"a.wav .*{message}"):
        load("spoken_words").features(tmp_path / "a.wav")


def test_mixed_samples_have_mixed_labels():
    mixup, rng = load("mixup"), np.random.default_rng(0)
    y = np.arange(100) % 10
    images = np.repeat(y / 10, 784).reshape(-1, 28, 28)  # grey as the label says
    for alpha in (0, 0.4):
        x, targets = next(mixup.batches(images, np.eye(10)[y], 64, alpha, rng))
        assert x.shape == (64, 784) and np.allclose(targets.sum(axis=1), 1)
        assert np.allclose(
            x[:, 14 * 28 + 14], targets @ np.arange(10) / 10
        )  # the middle, wherever it was moved to
        are_mixed = (targets > 0).sum(axis=1) > 1
        assert not are_mixed.any() if alpha == 0 else are_mixed.mean() > 0.5


def test_images_are_shifted_each_its_own_way():
    dot = np.zeros((200, 28, 28))
    dot[:, 14, 9] = 1
    rows, columns = np.divmod(load("mixup").shifted(dot, np.random.default_rng(0)).argmax(axis=1), 28)
    assert set(zip(rows, columns, strict=True)) == {
        (14 + i, 9 + j) for i in range(-2, 3) for j in range(-2, 3)
    }


def test_bands_cover_what_is_heard():
    bands = load("spoken_words").mel_bands(8000, 129)
    assert bands.shape == (129, 24) and (bands.sum(axis=0) > 0).all()
    # each frequency between the centres of the outer bands belongs to two, whose shares make one
    assert np.allclose(bands[8:115].sum(axis=1), 1)
