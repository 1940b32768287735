"""docs/own_layer.md: its listings run, and its session with pdb stops inside the kernels it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl

PAGE = Path(__file__).parents[1] / "docs" / "own_layer.md"
TEXT = PAGE.read_text(encoding="utf-8")
LISTINGS = re.findall(r"```python\n(.*?)```", TEXT, re.S)
(STEP,) = (listing for listing in LISTINGS if listing.startswith("# step.py"))
(SESSION,) = re.findall(r"```\n(\(Pdb\).*?)```", TEXT, re.S)
STOPS = (
    ("network.py", "_train_together"),
    ("supervised.py", "_crossentropy_in_registers"),
    ("learning.py", "_learn_weight"),
)


def test_the_listings_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, listing in enumerate(LISTINGS):
        exec(compile(listing, f"{PAGE.name}, listing {number + 1}", "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    assert float(shown[0]) < 1e-9 and "True" in shown
    accuracy = float(re.search(r", (0\.\d+|1\.0)\]", "\n".join(shown))[1])
    assert accuracy > 0.9, "training through fit works"


def test_the_layer_has_twenty_lines():
    (listing,) = (each for each in LISTINGS if "class UnitRows" in each)
    lines = [line for line in listing[listing.index("class") :].splitlines() if line.strip()]
    assert len(lines) <= 20


def test_a_wrong_derivative_of_the_layer_is_named():
    wrong = next(each for each in LISTINGS if "class UnitRows" in each).replace(
        " - self.u * (du", " + self.u * (du"
    )
    names: dict = {}
    exec(wrong, names)
    model = minidl.Sequential([minidl.Input((4,)), names["UnitRows"](), minidl.Dense(3)], seed=0)
    x = np.random.default_rng(0).normal(size=(5, 4))
    with pytest.raises(minidl.GradientError, match="gradient of input.x"):
        minidl.check_gradients(model, x, np.zeros((5, 3)), loss="mse")


def debug(folder, disable):
    """What pdb prints in the page's session, and the page's commands."""
    (folder / "step.py").write_text(STEP, encoding="utf-8")
    commands = [line.removeprefix("(Pdb) ") for line in SESSION.splitlines() if line.startswith("(Pdb) ")]
    done = subprocess.run(
        [sys.executable, "-m", "pdb", "step.py"],
        cwd=folder, env={**os.environ, "NUMBA_DISABLE_JIT": disable, "PYTHONPATH": str(PAGE.parents[1])},
        input="\n".join([*commands, "q", ""]), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return done.stdout


def stops(shown):
    return re.findall(r"^(?:\(Pdb\) )?> \S+[/\\]kernels[/\\](\w+\.py)\(\d+\)(\w+)\(\)$", shown, re.M)


def test_pdb_steps_into_kernels(tmp_path):
    shown = debug(tmp_path, "1")
    assert list(dict.fromkeys(stops(shown))) == list(STOPS)
    answers = [line for line in SESSION.splitlines() if not line.startswith("(Pdb) ")]
    assert len(answers) > 8
    at = 0
    for answer in answers:  # in this order
        assert answer in shown[at:], f"the page says {answer!r}, pdb:\n{shown}"
        at = shown.index(answer, at) + len(answer)


def test_compiled_kernels_are_not_stepped_into(tmp_path):
    """Control: without the variable no breakpoint is hit."""
    assert stops(debug(tmp_path, "0")) == []
