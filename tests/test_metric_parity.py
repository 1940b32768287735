"""Metrics against the numbers of Keras 3 that ``benchmarks/parity.py --write`` kept."""

import json
from pathlib import Path

import metric_cases as cases
import numpy as np
import pytest

import minidl
import minidl.layers
import minidl.metrics
import minidl.models
import minidl.optimizers

GOLDEN = json.loads((Path(__file__).parent / "golden" / "metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", cases.CASES)
def test_results_as_keras_shows_them(name):
    expected = np.array(GOLDEN["results"][name])
    assert cases.disagreement(cases.results(minidl, name), expected) < cases.TOLERANCE


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("AUC curve=ROC summation_method=interpolation on binary", {"num_thresholds": 199}),
        ("AUC curve=ROC summation_method=minoring on edges", {"summation_method": "majoring"}),
        ("AUC curve=PR summation_method=interpolation on binary", {"summation_method": "minoring"}),
        ("AUC multi_label=True num_labels=4 on several", {"multi_label": False, "num_labels": None}),
        ("Precision thresholds=0.1 on edges", {"thresholds": 0.0999}),
        ("Recall on edges", {"thresholds": 0.4999}),
        ("F1Score average=macro on one-hot", {"average": "weighted"}),
        ("R2Score class_aggregation=uniform_average on numbers", {"num_regressors": 1}),
        ("CategoricalCrossentropy on one-hot", {"label_smoothing": 0.001}),
    ],
)
def test_another_setting_is_seen(monkeypatch, name, setting):
    """At a threshold, among equal outputs and without a class as elsewhere."""
    class_name, settings, data = cases.CASES[name]
    monkeypatch.setitem(cases.CASES, name, (class_name, {**settings, **setting}, data))
    expected = np.array(GOLDEN["results"][name])
    assert cases.disagreement(cases.results(minidl, name), expected) > cases.TOLERANCE


@pytest.mark.parametrize("case", cases.OF_FITS)
def test_logs_of_a_fit_as_keras_has_them(case):
    found, expected = cases.logs_of_fit(minidl, case), GOLDEN[case]
    assert list(found) == list(expected)
    for name, values in found.items():
        assert cases.disagreement(values, np.array(expected[name])) < cases.TOLERANCE, name
