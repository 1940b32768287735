"""minidl against the numbers of Keras 3 and PyTorch that ``benchmarks/parity.py --write`` kept."""

import copy
import json
from pathlib import Path

import numpy as np
import parity_cases as cases
import pytest

import minidl
import minidl.constraints
import minidl.layers
import minidl.losses
import minidl.models
import minidl.optimizers
import minidl.regularizers

GOLDEN = Path(__file__).parent / "golden" / "parity.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def kept(golden, prefix):
    found = {key[len(prefix) :]: value for key, value in golden.items() if key.startswith(prefix)}
    assert found, f"no {prefix} in {GOLDEN}: write it again with python -m benchmarks.parity --write"
    return found


def test_the_file_says_where_it_is_from(golden):
    versions = json.loads(str(golden["versions"]))
    assert versions["keras"].startswith("3.") and {"torch", "numpy", "made by"} <= set(versions)
    assert GOLDEN.stat().st_size < 200_000


@pytest.mark.parametrize("name", cases.CASES)
def test_training_as_keras_does(golden, name):
    expected = kept(golden, f"train/{name}/")
    difference = cases.disagreement(cases.train(minidl, cases.CASES[name]), expected)
    assert difference["loss"] < cases.LOSS_TOLERANCE
    assert difference["accuracy"] <= 3  # samples of 2,000 whose two best classes are all but equal


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("adam", {"epsilon": 1e-5}),
        ("adam", {"beta_2": 0.9985}),
        ("adamw", {"weight_decay": 0.021}),
        ("momentum", {"momentum": 0.899}),
        ("momentum, clipnorm", {"clipnorm": 0.101}),
        ("rmsprop", {"rho": 0.899}),
    ],
)
def test_a_slightly_different_optimizer_is_seen(golden, name, change):
    case = copy.deepcopy(cases.CASES[name])
    case["optimizer"][1].update(change)
    difference = cases.disagreement(cases.train(minidl, case), kept(golden, f"train/{name}/"))
    assert difference["loss"] > cases.LOSS_TOLERANCE


@pytest.mark.parametrize("without", ["sample_weight", "regularizer", "constraint"])
def test_a_forgotten_option_is_seen(golden, without):
    name = "momentum, everything"
    case = {key: value for key, value in cases.CASES[name].items() if key != without}
    difference = cases.disagreement(cases.train(minidl, case), kept(golden, f"train/{name}/"))
    assert difference["loss"] > cases.LOSS_TOLERANCE


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", cases.LOSSES)
def test_losses_as_pytorch_differentiates_them(golden, name, weighted):
    expected = kept(golden, f"loss/{name}, weighted/" if weighted else f"loss/{name}/")
    expected = float(expected["value"]), expected["gradient"]
    for dtype, tolerance in ((np.float32, cases.GRADIENT_TOLERANCE), (np.float64, 1e-12)):
        found = cases.value_and_gradient(name, weighted, dtype)
        assert found[1].dtype == dtype
        assert cases.gradient_disagreement(found, expected) < tolerance
    other = cases.value_and_gradient(name, not weighted, np.float64)
    assert cases.gradient_disagreement(other, expected) > 0.01


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("distillation, standardized", {"standardize": False}),
        ("distillation, standardized", {"temperature": 2.001}),
        ("decoupled", {"target_weight": 1.001}),
        ("decoupled, T 2", {"nontarget_weight": 2.001}),
        ("normalized", {"target_weight": 1.001}),
        ("normalized, T 3", {"gamma": 0.801}),
        ("dist", {"beta": 1.001}),
        ("dist, T 4", {"gamma": 0.501}),
        ("logit matching, labels", {"soft_weight": 0.601}),
    ],
)
def test_a_slightly_different_loss_is_seen(golden, monkeypatch, name, change):
    class_name, settings = cases.LOSSES[name]
    monkeypatch.setitem(cases.LOSSES, name, (class_name, settings | change))
    expected = kept(golden, f"loss/{name}/")
    found = cases.value_and_gradient(name, False, np.float64)
    assert cases.gradient_disagreement(found, (float(expected["value"]), expected["gradient"])) > 1e-5


def test_a_distilled_student_as_pytorch_trains_it(golden):
    expected, found = kept(golden, "distilled/"), cases.distilled()
    difference = cases.distilled_disagreement(found, expected)
    assert difference["gradient"] < cases.GRADIENT_TOLERANCE
    assert difference["loss"] < cases.LOSS_TOLERANCE


def test_another_temperature_is_seen(golden, monkeypatch):
    monkeypatch.setitem(cases.DISTILLATION, "temperature", 4.01)
    difference = cases.distilled_disagreement(cases.distilled(), kept(golden, "distilled/"))
    assert difference["gradient"] > cases.GRADIENT_TOLERANCE
    assert difference["loss"] > cases.LOSS_TOLERANCE


def test_absolute_error_as_numpy_trains_it():
    """The whole step once more in a few lines of float64 NumPy. Keras parts from both by its own rounding."""
    x, y, _, _ = cases.digits()
    x, y, sizes = x.astype(np.float64), np.eye(10)[y], cases.STUDENT_SIZES
    weights = [weight.astype(np.float64) for weight in cases.initial_weights(sizes)]
    model = minidl.models.Sequential(dtype="float64")
    model.add(minidl.layers.Input(sizes[:1]))
    for units, activation in zip(sizes[1:], ("tanh", "tanh", "linear"), strict=True):
        model.add(minidl.layers.Dense(units, activation=activation))
    model.set_weights(weights)
    model.compile(optimizer=minidl.optimizers.SGD(0.05), loss="mean_absolute_error")
    losses = model.fit(x, y, batch_size=cases.BATCH_SIZE, shuffle=False, verbose=0).history["loss"]

    total = 0.0
    for first in range(0, len(x), cases.BATCH_SIZE):
        rows = slice(first, first + cases.BATCH_SIZE)
        a = [x[rows]]
        for i in range(0, 6, 2):
            z = a[-1] @ weights[i] + weights[i + 1]
            a.append(np.tanh(z) if i < 4 else z)
        error = a[-1] - y[rows]
        total += abs(error).mean(axis=1).sum()
        dz = np.sign(error) / error.size
        for i in range(4, -1, -2):
            dweight, dbias = a[i // 2].T @ dz, dz.sum(axis=0)
            dz = (dz @ weights[i].T) * (1 - a[i // 2] ** 2)
            weights[i] -= 0.05 * dweight
            weights[i + 1] -= 0.05 * dbias
    np.testing.assert_allclose(losses, [total / len(x)], rtol=1e-12)
    for found, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-13)
