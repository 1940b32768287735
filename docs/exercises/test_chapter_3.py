"""Judges the answers to chapter 3."""

import numpy as np
import pytest

import minidl
from minidl import tiny
from minidl.optimizers.schedules import CosineDecay


def moved(update, w, gradients):
    """What each step subtracts from w."""
    taken = []
    for g in gradients:
        before = w[0]
        update(np.array([g]))
        taken.append(before - w[0])
    return np.array(taken)


def test_exercise_1_adam_with_and_without_correction(answers):
    t = np.array([1, 10])
    uncorrected = (1 - 0.9**t) / np.sqrt(1 - 0.999**t)
    assert np.allclose((answers.STEP_1_CORRECTED, answers.STEP_10_CORRECTED), 1, atol=0.01)
    assert np.allclose((answers.STEP_1_UNCORRECTED, answers.STEP_10_UNCORRECTED), uncorrected, atol=0.05)
    gradients, w = np.random.default_rng(0).normal(size=30), np.zeros(1)
    update = tiny.adam([w], 0.01)
    expected = moved(lambda g: update([g]), w, gradients)
    assert np.allclose(answers.adam_steps(gradients, 0.01, corrected=True), expected, rtol=1e-6)
    t = np.arange(1, 31)
    without = expected / (np.sqrt(1 - 0.999**t) / (1 - 0.9**t))
    assert np.allclose(answers.adam_steps(gradients, 0.01, corrected=False), without, rtol=1e-6)


def test_exercise_2_rates_and_momentum(answers):
    for factor, arrives in ((0.98, True), (1.02, False)):
        w = np.ones(1)
        moved(lambda g, w=w, f=factor: w.__isub__(f * answers.LARGEST_RATE * 50 * w), w, np.zeros(500))
        assert (abs(w[0]) < 1) == arrives
    w, gradients = np.zeros(1), np.array([1.0, *np.zeros(200)])
    optimizer = minidl.SGD(0.01, momentum=0.9)
    steps = moved(lambda g: optimizer.step(w, g), w, gradients)
    assert pytest.approx(steps.sum(), rel=0.01) == answers.DISTANCE
    gradients, w = np.random.default_rng(0).normal(size=30), np.zeros(1)
    optimizer = minidl.SGD(0.1, momentum=0.7)
    expected = moved(lambda g: optimizer.step(w, g), w, gradients)
    assert np.allclose(answers.momentum_steps(gradients, 0.1, 0.7), expected)


def test_exercise_3_decay_and_cosine(answers):
    w, optimizer = np.ones(1), minidl.AdamW(0.001, weight_decay=0.1)
    for _ in range(1000):
        optimizer.step(w, np.zeros(1))
    assert pytest.approx(w[0], abs=0.01) == answers.LEFT_OF_A_WEIGHT
    schedule = CosineDecay(0.3, 50)
    for step in (0, 7, 25, 49, 50, 80):
        assert answers.cosine(step, rate=0.3, steps=50) == pytest.approx(schedule(step), abs=1e-12)
