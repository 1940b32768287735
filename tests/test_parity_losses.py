"""Losses, their reductions and ``ignore_class`` against Keras 3, by the numbers that ``benchmarks/parity.py`` kept."""

import json
from pathlib import Path

import numpy as np
import parity_losses as cases
import pytest

import minidl

GOLDEN = Path(__file__).parent / "golden" / "losses.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def test_the_file_says_where_it_is_from(golden):
    assert json.loads(str(golden["versions"]))["keras"].startswith("3.")
    assert GOLDEN.stat().st_size < 120_000


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", cases.LOSSES)
def test_value_and_gradient(golden, name, weighted):
    class_name, settings, y, outputs = cases.LOSSES[name]
    expected = golden[f"{name}/{weighted}/value"], golden[f"{name}/{weighted}/gradient"]
    assert cases.disagreement(cases.value(minidl, name, weighted)[0], expected[0]) < cases.TOLERANCE
    given, loss = cases.inputs(), getattr(minidl.losses, class_name)(**settings)
    if outputs != "probs":  # the gradient by probabilities is compared in training
        for dtype in (np.float32, np.float64):
            weight = given["weight"] if weighted else None
            _, gradient = loss.value_and_grad(given[outputs].astype(dtype), given[y], weight)
            assert cases.disagreement(gradient, expected[1]) < cases.TOLERANCE
            assert cases.disagreement(1.0001 * gradient, expected[1]) > cases.TOLERANCE
    other = golden[f"{name}/{not weighted}/value"]
    assert cases.disagreement(cases.value(minidl, name, weighted)[0], other) > 1e-3


@pytest.mark.parametrize("name", cases.TRAININGS)
def test_training(golden, name):
    found = cases.train(minidl, name)
    for key, value in found.items():
        assert cases.disagreement(value, golden[f"train/{name}/{key}"]) < cases.TOLERANCE, key


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sum", {"reduction": "mean"}),
        ("ignored", {"ignore_class": 9, "reduction": "mean_with_sample_weight"}),
        ("weighted mean", {"reduction": "mean"}),
        ("binary focal", {"gamma": 1.6}),
        ("focal", {"alpha": 0.601}),
    ],
)
def test_a_slightly_different_loss_is_seen(golden, monkeypatch, name, change):
    class_name, settings, *rest = cases.TRAININGS[name]
    monkeypatch.setitem(cases.TRAININGS, name, (class_name, settings | change, *rest))
    found = cases.train(minidl, name)
    assert cases.disagreement(found["loss"], golden[f"train/{name}/loss"]) > cases.TOLERANCE
    assert cases.disagreement(found["head"], golden[f"train/{name}/head"]) > cases.TOLERANCE
