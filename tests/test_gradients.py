"""Whole networks, drawn at random: every gradient entry against central differences in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import losses
from minidl.gradcheck import GradientError, check_gradients
from minidl.kernels.activations import ACTIVATIONS
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    LeakyReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)
from minidl.models import Sequential

NAMES = tuple(ACTIVATIONS)
names = st.sampled_from(NAMES)
sizes = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)
temperatures = st.floats(0.5, 20)

hidden_layers = st.one_of(
    st.builds(Dense, sizes, names, st.booleans()),
    st.builds(Dense, sizes, names),
    st.builds(Activation, names),
    st.builds(Softmax),
    st.builds(LeakyReLU, st.floats(0, 1)),
    st.builds(ReLU, st.none() | st.floats(0.5, 3), st.floats(0, 0.5), st.floats(0, 0.5)),
    st.builds(Dropout, st.floats(0, 0.8)),
    st.builds(GaussianNoise, st.floats(0, 0.5)),
    # not to nearly nothing: of outputs that hardly differ a correlation has no digits to difference
    st.builds(Rescaling, st.floats(-2, 2).filter(lambda scale: abs(scale) > 0.05), st.floats(-1, 1)),
)


def labels(rng, rows, classes):
    return rng.integers(0, classes, rows)


def distributions(rng, rows, classes):
    return rng.dirichlet(np.ones(classes), rows)


def bits(rng, rows, classes):
    return rng.integers(0, 2, (rows, classes)).astype(float)


def numbers(rng, rows, classes):
    return rng.normal(size=(rows, classes)) * 2


# (loss, the final activations it goes with, how y is drawn)
SUPERVISED = [
    ("categorical_crossentropy", ("softmax", "sigmoid"), distributions),
    ("sparse_categorical_crossentropy", ("softmax", "sigmoid"), labels),
    ("binary_crossentropy", ("sigmoid", "softmax"), bits),
    (losses.CategoricalCrossentropy(True, label_smoothing=0.2), ("linear", "tanh"), distributions),
    (losses.SparseCategoricalCrossentropy(from_logits=True), ("linear", "gelu"), labels),
    (losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1), ("linear", "elu"), bits),
    ("mean_squared_error", NAMES, numbers),
    ("half_mean_squared_error", NAMES, numbers),
    ("mean_absolute_error", NAMES, numbers),
    ("huber", NAMES, numbers),
    ("kl_divergence", ("softmax", "sigmoid"), distributions),
    ("log_cosh", NAMES, numbers),
    ("mean_absolute_percentage_error", NAMES, bits),
    ("mean_squared_logarithmic_error", ("sigmoid", "softplus", "relu"), numbers),
    ("poisson", ("sigmoid", "softplus"), bits),
    ("hinge", NAMES, bits),
    ("squared_hinge", NAMES, bits),
    ("categorical_hinge", NAMES, distributions),
    ("cosine_similarity", NAMES, numbers),
    ("binary_focal_crossentropy", ("sigmoid", "softmax"), bits),
    (losses.BinaryFocalCrossentropy(True, 0.3, 1.5, True, 0.1, "sum"), ("linear", "tanh"), bits),
    ("categorical_focal_crossentropy", ("softmax", "sigmoid"), distributions),
    (losses.CategoricalFocalCrossentropy(0.5, 0.5, True, 0.1), ("linear", "tanh"), distributions),
    (losses.SparseCategoricalCrossentropy(ignore_class=0), ("softmax", "sigmoid"), labels),
    (losses.MeanSquaredError("mean_with_sample_weight"), ("linear", "tanh"), numbers),
]


def draw_network(inputs, hidden, classes, final, seed):
    """The network with every parameter drawn, biases too, and small enough not to saturate."""
    model = Sequential([*hidden, Dense(classes, final)], dtype="float64", seed=seed)
    model.build((inputs,))
    model.params[...] = np.random.default_rng(seed).normal(size=model.params.size) * 0.8
    return model


networks = dict(
    inputs=sizes,
    hidden=st.lists(hidden_layers, max_size=4),
    classes=st.integers(1, 4),
    rows=st.integers(1, 4),
    weighted=st.booleans(),
    training=st.booleans(),
    seed=seeds,
)


@pytest.mark.parametrize("loss, finals, draw_y", SUPERVISED, ids=lambda v: getattr(v, "name", None))
@settings(max_examples=40)
@given(data=st.data(), **networks)
def test_supervised(loss, finals, draw_y, data, inputs, hidden, classes, rows, weighted, training, seed):
    model = draw_network(inputs, hidden, classes, data.draw(st.sampled_from(finals)), seed)
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(rows, inputs)), draw_y(rng, rows, classes)
    weight = rng.uniform(0, 3, rows) if weighted else None
    check_gradients(model, x, y, loss, sample_weight=weight, training=training)


@settings(max_examples=40)
@given(
    temperature=temperatures,
    hard_weight=st.sampled_from([0.0, 0.1, 1.0]),
    soft_weight=st.sampled_from([0.0, 0.9, 5.0]),
    final=st.sampled_from(["linear", "softmax"]),
    kind=st.sampled_from(["labels", "distributions", "none"]),
    **networks,
)
def test_distillation(
    temperature,
    hard_weight,
    soft_weight,
    final,
    kind,
    inputs,
    hidden,
    classes,
    rows,
    weighted,
    training,
    seed,
):
    classes += 1
    if hard_weight == soft_weight == 0 or (kind == "none" and hard_weight):
        hard_weight = 0.0
        soft_weight = 1.0
    model = draw_network(inputs, hidden, classes, final, seed)
    rng = np.random.default_rng(seed)
    y = {"labels": labels, "distributions": distributions, "none": lambda *_: None}[kind](rng, rows, classes)
    check_gradients(
        model,
        rng.normal(size=(rows, inputs)),
        y,
        losses.KnowledgeDistillation(temperature, hard_weight, soft_weight),
        teacher_logits=rng.normal(size=(rows, classes)) * 4,
        sample_weight=rng.uniform(0, 3, rows) if weighted else None,
        training=training,
    )


@pytest.mark.parametrize(
    "loss",
    [
        losses.KnowledgeDistillation(2.0, standardize=True),
        losses.DecoupledKD(),
        losses.NormalizedKD(),
        losses.DIST(temperature=2.0),
        losses.LogitMatching(hard_weight=0.5),
    ],
    ids=lambda loss: loss.name,
)
@settings(max_examples=15)
@given(st.lists(hidden_layers, max_size=2), st.integers(3, 5), st.integers(3, 5), st.booleans(), seeds)
def test_the_other_distillation_losses(loss, hidden, classes, rows, weighted, seed):
    model = draw_network(3, hidden, classes, "softmax", seed)
    rng = np.random.default_rng(seed)
    check_gradients(
        model,
        rng.normal(size=(rows, 3)),
        labels(rng, rows, classes),
        loss,
        teacher_logits=rng.normal(size=(rows, classes)) * 4,
        sample_weight=rng.uniform(0.1, 3, rows) if weighted else None,
    )


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2)),
    st.floats(-1, 1),
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    names,
    seeds,
)
def test_images(shape, height_factor, width_factor, activation, seed):
    model = Sequential(
        [
            Rescaling(1 / 2, 0.1),
            RandomTranslation(height_factor, width_factor, fill_value=0.3),
            Activation(activation),
            Flatten(),
            Dense(3, "softmax"),
        ],
        dtype="float64",
        seed=seed,
    )
    rng = np.random.default_rng(seed)
    check_gradients(model, rng.normal(size=(3, *shape)), labels(rng, 3, 3), "sparse_categorical_crossentropy")


@settings(max_examples=40)
@given(st.lists(hidden_layers, max_size=3), seeds, st.sampled_from([0.0, 0.99, 1.01, -1.0]))
def test_a_wrong_loss_gradient_is_always_seen(hidden, seed, factor):
    class Wrong(losses.HalfMeanSquaredError):
        def value_and_grad(self, logits, y, sample_weight=None):
            value, dlogits = super().value_and_grad(logits, y, sample_weight=sample_weight)
            return value, dlogits * factor

    model = draw_network(3, hidden, 2, "linear", seed)
    rng = np.random.default_rng(seed)
    with pytest.raises(GradientError):  # the last bias at the least has a gradient
        check_gradients(model, rng.normal(size=(2, 3)), numbers(rng, 2, 2), Wrong())
