"""Judges the answers to chapter 2."""

import numpy as np
import pytest

from minidl import tiny


def differences(value, x, h=1e-5):
    """The central differences of ``value``, a number, by each entry of x."""
    slopes = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        move = np.zeros_like(x)
        move[index] = h
        slopes[index] = (value(x + move) - value(x - move)) / (2 * h)
    return slopes


def test_exercise_1_the_gradient_on_logits(answers):
    _, dlogits = tiny.crossentropy(np.array([[2.0, 1.0, 0.0]]), np.array([[1.0, 0.0, 0.0]]))
    assert answers.DLOGITS == pytest.approx(dlogits[0], abs=0.01)
    _, dlogits = tiny.crossentropy(np.zeros((1, 100)), np.eye(100)[:1])
    assert pytest.approx(np.linalg.norm(dlogits), abs=0.004) == answers.NORM_100_CLASSES
    _, in_a_batch = tiny.crossentropy(np.zeros((32, 100)), np.eye(100)[[0] * 32])
    factor = np.linalg.norm(in_a_batch[0]) / np.linalg.norm(dlogits)
    assert pytest.approx(factor, rel=0.01) == answers.FACTOR_IN_A_BATCH_OF_32


def test_exercise_2_the_backward_pass_of_softmax(answers):
    rng = np.random.default_rng(0)
    z, dout = 3 * rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    for T in (1.0, 4.0):
        q = np.exp(tiny.log_softmax(z / T))
        slopes = differences(lambda z, T=T: (dout * np.exp(tiny.log_softmax(z / T))).sum(), z)
        assert np.allclose(answers.softmax_backward(dout, q, T), slopes, atol=1e-8)


def test_exercise_3_the_backward_pass_of_layer_normalization(answers):
    rng = np.random.default_rng(0)
    x, dout, gamma, beta = (rng.normal(size=shape) for shape in ((4, 6), (4, 6), 6, 6))

    def loss(x, gamma, beta):
        mean, variance = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        return (dout * (gamma * (x - mean) / np.sqrt(variance + 0.1) + beta)).sum()

    dx, dgamma, dbeta = answers.layer_normalization_backward(dout, x, gamma, epsilon=0.1)
    assert np.allclose(dx, differences(lambda x: loss(x, gamma, beta), x), atol=1e-8)
    assert np.allclose(dgamma, differences(lambda gamma: loss(x, gamma, beta), gamma), atol=1e-8)
    assert np.allclose(dbeta, differences(lambda beta: loss(x, gamma, beta), beta), atol=1e-8)
