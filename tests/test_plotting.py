"""The pictures show the numbers they are given; without matplotlib the error names the extra."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from minidl import plotting
from minidl.callbacks import History
from minidl.losses import softmax
from minidl.report import calibration_bins, expected_calibration_error
from minidl.sweep import Sweep

HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
rng = np.random.default_rng(4)
LOGITS, OTHERS = rng.normal(0, 2, (2, 60, 4))
LABELS = rng.integers(0, 4, 60)


def row(setting, temperature, mean, std):
    return dict(setting=setting, temperature=temperature, errors_mean=mean, errors_std=std)


KD = "KnowledgeDistillation(temperature={}, hard_weight={}, soft_weight={})"
SWEEP = Sweep(
    [
        row("labels alone", None, 50.0, 4.0),
        row(KD.format(4, 0.1, 0.9), 4.0, 31.0, 2.0),
        row(KD.format(1, 0.1, 0.9), 1.0, 40.0, 3.0),
        row(KD.format(4, 0.5, 0.5), 4.0, 35.0, 1.0),
        row(KD.format(4, 0.1, 0.9)[:-1] + ", standardize=True)", 4.0, 30.0, 1.5),
        row(KD.format("Ramp(8, 2, 3)", 0.1, 0.9), None, 29.0, 1.0),
        row("DIST(temperature=1, beta=1, gamma=1, hard_weight=1)", 1.0, 33.0, 2.5),
        row("LogitMatching(hard_weight=0, soft_weight=1)", None, 36.0, 1.0),
    ],
    [],
)


def history(**logs):
    made = History()
    made.history = logs
    return made


DRAW = {
    "learning_curves": lambda **ax: plotting.learning_curves(
        {
            "student": history(loss=[3.0, 2.0, 1.5], val_loss=[3.1, 2.5, 2.4]),
            "plain": history(loss=[4.0, 2.0, 1.0]),
        },
        **ax,
    ),
    "softened_probabilities": lambda **ax: plotting.softened_probabilities(
        LOGITS[0], (1, 4, 20), list("abcd"), **ax
    ),
    "confusion": lambda **ax: plotting.confusion(LOGITS, OTHERS, **ax),
    "reliability": lambda **ax: plotting.reliability({"teacher": LOGITS, "student": OTHERS}, LABELS, 5, **ax),
    "sweep": lambda **ax: plotting.sweep(SWEEP, **ax),
}


@pytest.mark.parametrize("name", DRAW)
def test_draws(name, tmp_path):
    if not HAS_MATPLOTLIB:
        with pytest.raises(ImportError, match=r'plotting needs matplotlib: pip install "minidl\[plots\]"'):
            DRAW[name]()
        return
    from matplotlib.figure import Figure

    ax = DRAW[name]()
    ax.figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000 and ax.get_xlabel() and ax.get_ylabel()
    mine = Figure().add_subplot()
    assert DRAW[name](ax=mine) is mine, "on axes of the user's own"
    CHECKS[name](ax)


def labels_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def check_learning_curves(ax):
    lines = [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines]
    assert lines == [
        ("student training", [0.5, 1.5, 2.5], [3.0, 2.0, 1.5]),
        ("student validation", [1, 2, 3], [3.1, 2.5, 2.4]),
        ("plain training", [0.5, 1.5, 2.5], [4.0, 2.0, 1.0]),
    ]


def check_softened_probabilities(ax):
    """Dark knowledge: at high temperature the small answers grow visible."""
    heights = np.reshape([bar.get_height() for bar in ax.patches], (3, 4))
    for shown, temperature in zip(heights, (1, 4, 20), strict=True):
        np.testing.assert_allclose(shown, softmax(LOGITS[:1], temperature)[0])
    assert (np.diff(heights.min(axis=1)) > 0).all() and labels_of(ax) == ["T = 1", "T = 4", "T = 20"]
    assert [text.get_text() for text in ax.get_xticklabels()] == list("abcd")


def check_confusion(ax):
    expected = np.zeros((4, 4), int)
    np.add.at(expected, (LOGITS.argmax(axis=1), OTHERS.argmax(axis=1)), 1)
    assert ax.get_title() == f"they agree on {expected.trace() / 60:.2%} of 60"
    np.fill_diagonal(expected, 0)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("student says", "teacher says")
    shown = {(text.get_position()[1], text.get_position()[0]): int(text.get_text()) for text in ax.texts}
    assert shown == {(r, c): expected[r, c] for r, c in zip(*np.nonzero(expected), strict=True)}


def check_reliability(ax):
    for line, logits, name in zip(ax.lines, (LOGITS, OTHERS), ("teacher", "student"), strict=False):
        confidence, accuracy, counts = calibration_bins(softmax(logits), LABELS, 5)
        np.testing.assert_allclose(line.get_xdata(), confidence[counts > 0])
        np.testing.assert_allclose(line.get_ydata(), accuracy[counts > 0])
        error = expected_calibration_error(softmax(logits), LABELS, 5)
        assert line.get_label() == f"{name}, calibration error {error:.2%}"
    (above,) = ax.child_axes
    counts = [calibration_bins(softmax(logits), LABELS, 5)[2] for logits in (LOGITS, OTHERS)]
    np.testing.assert_array_equal([bar.get_height() for bar in above.patches], np.concatenate(counts))
    assert np.sum(counts) == 120 and above.get_ylabel() == "samples"


def check_sweep(ax):
    """A line for each method and what tells its settings apart; a band for what has no one temperature."""
    found = {c.get_label(): c for c in ax.containers}
    weights = "KnowledgeDistillation, hard_weight=0.1, soft_weight=0.9"
    assert list(found) == [
        weights, "KnowledgeDistillation, hard_weight=0.5, soft_weight=0.5", f"{weights}, standardize=True", "DIST",
    ]  # fmt: skip
    points, _, bars = found[weights]
    beside = 1.02**-1.5  # the first of four curves
    np.testing.assert_allclose(points.get_xdata(), [1.0 * beside, 4.0 * beside])
    assert list(points.get_ydata()) == [40.0, 31.0]
    np.testing.assert_allclose([part[:, 1] for part in bars[0].get_segments()], [[37, 43], [29, 33]])
    level = {line.get_label(): line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"}
    ramp = "KnowledgeDistillation, temperature=Ramp(8, 2, 3), hard_weight=0.1, soft_weight=0.9"
    assert level == {"labels alone": 50.0, ramp: 29.0, "LogitMatching": 36.0}
    bands = [(band.get_y(), band.get_height()) for band in ax.patches]
    assert bands == [(46.0, 8.0), (28.0, 2.0), (35.0, 2.0)] and {
        text.replace("\n", " ") for text in labels_of(ax)
    } == {*found, *level}
    assert ax.get_xscale() == "log" and [t.get_text() for t in ax.get_xticklabels()] == ["1", "4"]


CHECKS = {
    "learning_curves": check_learning_curves,
    "softened_probabilities": check_softened_probabilities,
    "confusion": check_confusion,
    "reliability": check_reliability,
    "sweep": check_sweep,
}


def test_what_distill_sweep_returns_can_be_drawn():
    from test_sweep import VALIDATION, X, Y, distill_sweep, student, trained

    swept = distill_sweep(
        trained(),
        student(),
        X,
        Y,
        (1.0, 4.0),
        seeds=(0, 1),
        epochs=1,
        processes=1,
        validation_data=VALIDATION,
    )
    if HAS_MATPLOTLIB:
        assert len(plotting.sweep(swept).containers) == 1


def test_samples_without_a_label_are_neither_right_nor_wrong():
    if not HAS_MATPLOTLIB:
        return
    known = np.arange(60) % 3 > 0
    some = plotting.reliability(LOGITS, np.where(known, LABELS, -1), 5).lines[0]
    expected = plotting.reliability(LOGITS[known], LABELS[known], 5).lines[0]
    np.testing.assert_array_equal(some.get_xydata(), expected.get_xydata())
    counted = plotting.reliability(LOGITS, np.where(known, LABELS, LOGITS.argmin(axis=1)), 5).lines[0]
    assert not np.array_equal(some.get_xydata(), counted.get_xydata()), "control"


def test_curves_of_what_holds_a_history():
    if not HAS_MATPLOTLIB:
        return
    made = history(loss=[2.0, 1.0])
    for holder in (made, type("Report", (), {"history": made})()):
        assert list(plotting.learning_curves(holder).lines[0].get_ydata()) == [2.0, 1.0]


def test_refuses():
    if not HAS_MATPLOTLIB:
        return
    for call, message in (
        (
            lambda: plotting.learning_curves(history(loss=[1.0]), "los"),
            r"metric must be one of \['loss'\], got 'los'",
        ),
        (lambda: plotting.softened_probabilities(LOGITS), "logits must have 1 axes"),
        (
            lambda: plotting.softened_probabilities(LOGITS[0], classes=["a", "b"]),
            "classes must have one name for each of the 4 classes of logits, got 2",
        ),
        (
            lambda: plotting.confusion(LOGITS, OTHERS[:5]),
            "student_logits must have the shape of teacher_logits",
        ),
        (lambda: plotting.reliability(LOGITS, LABELS[:5]), "y must have one row per sample of logits"),
        (
            lambda: plotting.reliability(softmax(LOGITS), LABELS),
            "logits must be logits, got rows .* probabilities",
        ),
        (lambda: plotting.reliability(LOGITS, None), "y must be an array, got None"),
        (lambda: plotting.reliability(LOGITS, 0 * LABELS - 1), "y must hold labels, got none >= 0"),
        (lambda: plotting.reliability(LOGITS, LABELS + 1), r"y must hold whole numbers in -1..3 .*, got 4"),
        (lambda: plotting.confusion(LOGITS, np.nan * LOGITS), "student_logits must be finite, got nan"),
        (
            lambda: plotting.softened_probabilities(LOGITS[0], 4),
            r"temperatures must be a list .*, got 4 \(int\)",
        ),
        (
            lambda: plotting.softened_probabilities(LOGITS[0], ()),
            "temperatures must be a list of one or more",
        ),
        (
            lambda: plotting.confusion(LOGITS, LABELS),
            r"student_logits must have shape \(N, C\), .*given as y=",
        ),
        (lambda: plotting.reliability({}, LABELS), "logits must hold those of one model or more, got none"),
        (
            lambda: plotting.softened_probabilities(LOGITS[0], classes=4),
            "classes must be a list of names, got 4",
        ),
        (lambda: plotting.learning_curves({}), "histories must hold one History or more, got none"),
        (lambda: plotting.softened_probabilities(np.nan * LOGITS[0]), "logits must be finite, got nan"),
        (lambda: plotting.learning_curves(None), "histories must be a History or a dict of them, got None"),
        (lambda: plotting.sweep(None), "result must be what distill_sweep returned, got None"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()
