"""Judges the answers to chapter 4."""

import json
from pathlib import Path

import numpy as np
import pytest

from minidl.losses import CategoricalCrossentropy, KnowledgeDistillation

RNG = np.random.default_rng(0)
Z, V = 3 * RNG.normal(size=(2, 6, 10))
Y = np.eye(10)[RNG.integers(0, 10, 6)]
MEASURED = Path(__file__).parents[2] / "benchmarks" / "results" / "does_it_pay.json"


def soft_norm(z, v, T):
    """The norm of the soft term's gradient by z, T squared included."""
    loss = KnowledgeDistillation(T, hard_weight=0.0, soft_weight=1.0)
    return np.linalg.norm(loss.value_and_grad(z, None, v)[1])


def test_exercise_1_the_norm_of_the_soft_gradient(answers):
    z, v = np.zeros((1, 10)), np.array([[8.0, *[0.0] * 9]])
    with_t_squared = np.array([soft_norm(z, v, T) for T in (1.0, 4.0, 20.0)])
    assert np.allclose(answers.NORMS_WITH_T_SQUARED, with_t_squared, rtol=0.03)
    assert np.allclose(answers.NORMS_WITHOUT, with_t_squared / [1, 16, 400], rtol=0.03)
    small = [soft_norm(Z / 1000, V / 1000, T) for T in (1.0, 20.0)]
    assert pytest.approx(small[1] / small[0], rel=0.01) == answers.SMALL_LOGITS_20_TO_1_WITH_T_SQUARED
    assert pytest.approx(small[1] / small[0] / 400, rel=0.01) == answers.SMALL_LOGITS_20_TO_1_WITHOUT


def test_exercise_2_the_gradient_of_the_distillation_loss(answers):
    for T, hard_weight, soft_weight in ((1.0, 0.5, 0.5), (4.0, 0.1, 0.9), (20.0, 0.0, 1.0)):
        loss = KnowledgeDistillation(T, hard_weight, soft_weight)
        _, expected = loss.value_and_grad(Z, Y, V)
        found = answers.distillation_gradient(Z, Y, V, T, hard_weight, soft_weight)
        assert np.allclose(found, expected, atol=1e-10)
    _, expected = KnowledgeDistillation(1.0, 0.8, 0.2).value_and_grad(Z, Y, 0 * V)
    labels = answers.labels_of_an_ignorant_teacher(Y, soft_weight=0.2)
    _, found = CategoricalCrossentropy(from_logits=True).value_and_grad(Z, labels)
    assert np.allclose(found, expected, atol=1e-10)
    _, hot = KnowledgeDistillation(1e5, 0.0, 1.0).value_and_grad(Z, None, V)
    assert np.allclose(answers.gradient_at_large_T(Z, V), hot, rtol=1e-3, atol=1e-6)


def test_exercise_3_when_it_pays(answers):
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))["rows"]
    measured = {f"{row['task']}, taught by {row['teacher']}": row["fixed_saved"] for row in rows}
    wrong = []
    for row, answer in answers.DOES_IT_PAY.items():
        mean, error = measured[row]
        if answer is not (mean > 2 * error):
            wrong.append(f"{row}: {answer}, but it saves {mean:.1f} +- {error:.1f} errors")
    assert len(answers.DOES_IT_PAY) == 5 and not wrong, "\n".join(wrong)
