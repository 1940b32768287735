"""The examples run, on a few of the embedded digits; those for other libraries where these are installed."""

from __future__ import annotations

import ast
import importlib.util
import os
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS = {
    "pytorch_teacher": ("torch",),
    "sklearn_teacher": ("sklearn",),
    "onnx_teacher": ("onnx", "onnxruntime"),
}
SETTINGS = {"sklearn_teacher": {"trees": 20}, "regimes": {"units": (64, 16)}}
NOT_RUN = {"keras_teacher", "ray_search"}  # they start up for longer than all the others take
ELSEWHERE = {"mpi_training", "dask_search"}  # run in tests/interop


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {"assistant_chain", "regimes", *NEEDS, *NOT_RUN, *ELSEWHERE}
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    for name in names:
        assert f"{name}.py" in readme, f"the README does not name {name}.py"
        tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
        assert f"python examples/{name}.py" in ast.get_docstring(tree)


def test_an_assistant_between_teacher_and_student(capsys):
    sizes = ((64,), (32,), (8,))
    direct, first, second = load("assistant_chain").main(digits=800, epochs=6, sizes=sizes, verbose=0)
    # the chain hands on: the assistant that was taught is the teacher of the second call
    assert first.student.layers == second.teacher.layers == "784-32-10"
    assert first.student.errors == second.teacher.errors and first.teacher.errors == direct.teacher.errors
    assert second.student.layers == direct.student.layers == direct.plain.layers == "784-8-10"
    assert second.student.accuracy > 0.5 and second.unseen
    shown = capsys.readouterr().out
    assert f"from the assistant  784-8-10         {second.student.errors:>5}" in shown


def test_regimes(capsys):
    results = load("regimes").main(digits=800, epochs=6, **SETTINGS["regimes"])
    assert len(results) == 11 and all(errors < 1000 for errors in results.values())
    shown = capsys.readouterr().out
    assert all(name in shown for name in results)


@pytest.mark.parametrize("name", NEEDS)
def test_a_foreign_teacher(name, capsys):
    if not all(importlib.util.find_spec(package) for package in NEEDS[name]):
        with pytest.raises(ImportError, match=f"this example needs .*{NEEDS[name][-1]}.*pip install"):
            load(name)
        return
    report = load(name).main(digits=800, epochs=6, **SETTINGS.get(name, {}))
    assert report.student.accuracy > 0.6 and report.student.agreement > 0.6 and report.teacher.accuracy > 0.7
    assert str(report) in capsys.readouterr().out


def test_the_keras_example_is_python():
    source = (EXAMPLES / "keras_teacher.py").read_text(encoding="utf-8")
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    assert {"keras", "minidl"} <= names
    if os.environ.get("KERAS_BACKEND") and importlib.util.find_spec("keras"):
        assert load("keras_teacher").main(digits=400, epochs=4).student.accuracy > 0.5
