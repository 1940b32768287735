"""The figures of a report, worked by hand, and how they are shown."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minidl.layers import Dense, Input
from minidl.losses import DecoupledKD, KnowledgeDistillation, Ramp
from minidl.models import Sequential
from minidl.report import (
    DistillationReport,
    Figures,
    as_labels,
    calibration_bins,
    describe_layers,
    describe_loss,
    expected_calibration_error,
    format_table,
    measure,
)
from minidl.teachers import Ensemble, as_teacher

X = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)


def student(seed=3):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(4, activation="softmax")], seed=seed)


def test_measure_by_hand():
    z = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]]))
    v = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]]))
    figures = measure("student", z, np.array([0, 2, 2, -1]), v)
    assert (figures.samples, figures.errors, figures.class_errors) == (3, 1, [0, 0, 1])
    assert figures.accuracy == pytest.approx(2 / 3) and figures.agreement == 0.5
    assert figures.loss == pytest.approx(-np.log(0.7 * 0.3 * 0.6) / 3)
    kl = [
        0.0,
        0.2 * np.log(2) + 0.2 * np.log(1 / 3) + 0.6 * np.log(2),
        0.2 * np.log(0.5) + 0.8 * np.log(4 / 3),
        0.25 * np.log(0.5) + 0.5 * np.log(5 / 3) + 0.25 * np.log(1.25),
    ]
    assert figures.teacher_kl == pytest.approx(np.mean(kl))
    soft = measure("student", z[:2], np.array([[0.5, 0.5, 0], [0, 0, 1.0]]))
    assert soft.loss == pytest.approx(-(0.5 * np.log(0.7) + 0.5 * np.log(0.2) + np.log(0.3)) / 2)
    assert soft.agreement is None and measure("student", z).errors is None


def test_calibration_by_hand():
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])
    # bins of 10: {0.9, 0.9} half right, {0.6} right, {0.7} right
    expected = (2 * 0.4 + 0.4 + 0.3) / 4
    assert expected_calibration_error(probs, labels, bins=10) == pytest.approx(expected)
    assert expected_calibration_error(probs, labels, bins=1) == pytest.approx(abs(3.1 / 4 - 3 / 4))
    confidence, accuracy, counts = calibration_bins(probs, labels, 10)
    assert counts.tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 2, 0] and accuracy[8] == 0.5
    assert confidence[8] == pytest.approx(0.9)
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert (
        expected_calibration_error(certain, [0, 1]) == 0 and expected_calibration_error(certain, [1, 0]) == 1
    )


def test_small_helpers():
    assert as_labels(np.eye(3)[[2, 0]]).tolist() == [2, 0] and as_labels([[2], [0]]).tolist() == [2, 0]
    assert describe_layers(student()) == "6-8-4"
    assert format_table(["a", "b"], [["x", "1"], ["yy", "22"]]).splitlines()[2] == "x    1"
    narrow = format_table(["a", "b"], [["x", "1"]], markdown=True).splitlines()
    assert narrow == ["| a  |  b |", "| -- | -: |", "| x  |  1 |"], "a rule needs a dash in each column"


def test_every_column_the_report_promises():
    """Parameters, bytes, latency of one sample, loss, errors, accuracy, agreement, KL, calibration, classes."""
    model, teacher = student(), student(4)
    logits, teacher_logits = model.predict_logits(X), teacher.predict_logits(X)
    y = np.arange(30) % 4
    report = DistillationReport(
        measure("student", logits, y, teacher_logits, model, X),
        teacher=measure("teacher", teacher_logits, y, None, teacher, X),
    )
    figures = report.student
    assert (figures.parameters, figures.bytes, figures.layers) == (92, 368, "6-8-4")
    assert 0 < figures.latency < 1e6
    wrong = logits.argmax(axis=1) != y
    assert figures.errors == wrong.sum() and figures.accuracy == pytest.approx(1 - wrong.mean())
    assert figures.class_errors == [int(wrong[y == c].sum()) for c in range(4)]
    assert None not in (figures.loss, figures.agreement, figures.teacher_kl, figures.calibration_error)
    shown = [line.split("  ") for line in str(report).splitlines()[:1]][0]
    shown = [name.strip() for name in shown if name.strip()]
    assert shown == ["model", "layers", "parameters", "bytes", "loss", "errors", "accuracy", "agreement",
                     "KL to teacher", "calibration error", "us a sample"]  # fmt: skip
    for text in (str(report), report.to_markdown()):
        assert "errors of class" in text and f"{figures.teacher_kl:.4f}" in text and "92" in text
    told = json.loads(json.dumps(report.to_dict()))["models"]
    assert [set(model) for model in told] == [set(Figures("any").__dict__)] * 2
    assert told[0]["agreement"] is None and told[1]["class_errors"] == figures.class_errors


def test_what_an_ensemble_costs_is_what_its_members_cost():
    both = measure("teacher", np.zeros((30, 4)), None, None, Ensemble([student(1), student(2)]), X)
    assert (both.layers, both.parameters, both.bytes) == ("6-8-4 + 6-8-4", 184, 736) and both.latency > 0
    unknown = measure("teacher", np.zeros((30, 4)), None, None, Ensemble([student(1), lambda x: x[:, :4]]), X)
    assert unknown.parameters is None and unknown.latency is None
    calls = []
    measure("teacher", np.zeros((30, 4)), None, None, as_teacher(lambda x: calls.append(1)), X)
    assert not calls, "a function of the user's is not called for its time"


def test_a_loss_in_words():
    assert describe_loss(None) == "labels alone"
    assert describe_loss(KnowledgeDistillation(2.5)) == (
        "KnowledgeDistillation(temperature=2.5, hard_weight=0.5, soft_weight=0.5)"
    )
    assert "standardize=True" in describe_loss(KnowledgeDistillation(standardize=True))
    assert describe_loss(DecoupledKD(temperature=Ramp(8.0, 2.0, 3))).startswith(
        "DecoupledKD(temperature=Ramp(8, 2, 3), target_weight=1, "
    )
