"""Judges the answers to chapter 1. They read better unread: the numbers here are computed, the formulas are checked."""

import numpy as np
import pytest

from minidl import tiny


def test_exercise_1_the_loss_of_an_untrained_net(answers):
    for prediction, classes in ((answers.LOSS_10_CLASSES, 10), (answers.LOSS_1000_CLASSES, 1000)):
        params = tiny.make_params([5, classes], np.random.default_rng(0), np.float64)
        logits, _ = tiny.forward([0 * param for param in params], np.ones((1, 5)))
        assert prediction == pytest.approx(tiny.crossentropy(logits, np.eye(classes)[:1])[0], abs=0.01)
    rng = np.random.default_rng(1)
    logits, y = 0.5**0.5 * rng.normal(size=(20_000, 10)), np.eye(10)[rng.integers(0, 10, 20_000)]
    logits *= (0.5 / logits.var(axis=1, keepdims=True)) ** 0.5
    assert answers.LOSS_VARIANCE_HALF == pytest.approx(tiny.crossentropy(logits, y)[0], abs=0.03)


def test_exercise_2_parameters_and_multiply_adds(answers):
    params = tiny.make_params([784, 64, 64, 10], np.random.default_rng(0))
    assert sum(param.size for param in params) == answers.PARAMETERS
    for sizes, rows in (([784, 64, 64, 10], 32), ([3, 5], 2), ([4, 4, 4], 1)):
        forward = weight_gradients = sum(i * o for i, o in zip(sizes[:-1], sizes[1:], strict=True)) * rows
        input_gradients = sum(i * o for i, o in zip(sizes[1:-1], sizes[2:], strict=True)) * rows
        assert answers.multiply_adds(sizes, rows) == forward + weight_gradients + input_gradients


def test_exercise_3_the_backward_pass_of_tanh(answers, monkeypatch):
    monkeypatch.setattr(tiny, "relu_forward", np.tanh)
    monkeypatch.setattr(tiny, "relu_backward", answers.tanh_backward)
    assert tiny.check_gradients() < 1e-7
