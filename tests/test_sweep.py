"""distill_sweep: every setting from every seed, in processes of one thread each, and their statistics."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from minidl import sweep
from minidl.distillation import distill
from minidl.layers import Dense, GaussianNoise, Input
from minidl.losses import DIST, DecoupledKD, KnowledgeDistillation, LogitMatching, Ramp
from minidl.models import Sequential
from minidl.report import count_of
from minidl.runtime import get_num_threads, set_num_threads
from minidl.sweep import distill_sweep
from minidl.teachers import Ensemble, cached_logits

CENTRES = 2.5 * np.random.default_rng(11).normal(size=(4, 6))


def samples(count, seed):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 4, count)
    return (CENTRES[y] + draw.normal(size=(count, 6))).astype(np.float32), y


X, Y = samples(160, 1)
VALIDATION = samples(100, 2)


def student(seed=3, *first):
    layers = [Input((6,)), *first, Dense(8, activation="relu"), Dense(4, activation="softmax")]
    return Sequential(layers, seed=seed)


def trained(seed=0):
    model = student(seed)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=10, verbose=0)
    return model


@pytest.fixture(scope="module")
def teacher():
    return trained()


def errors(model):
    return int((model.predict_logits(VALIDATION[0]).argmax(axis=1) != VALIDATION[1]).sum())


def test_temperatures_weights_methods_and_seeds(teacher):
    model = student()
    before = model.params.copy(), teacher.params.copy()
    arguments = dict(
        temperatures=(1.0, 4.0),
        weights=((0.1, 0.9), (0.5, 0.5)),
        loss_list=[DecoupledKD(), DIST(), LogitMatching(hard_weight=0.5)],
        seeds=(0, 1, 7),
        epochs=2,
        validation_data=VALIDATION,
    )
    here = distill_sweep(teacher, model, X, Y, processes=1, **arguments)
    np.testing.assert_array_equal(model.params, before[0])
    np.testing.assert_array_equal(teacher.params, before[1])
    assert [row["method"] for row in here.rows] == [
        None,
        *["KnowledgeDistillation"] * 4,
        "DecoupledKD",
        "DIST",
        "LogitMatching",
    ]
    settings = [(row["temperature"], row["hard_weight"], row["soft_weight"]) for row in here.rows[1:5]]
    assert settings == [(1.0, 0.1, 0.9), (1.0, 0.5, 0.5), (4.0, 0.1, 0.9), (4.0, 0.5, 0.5)]
    assert here.rows[6]["temperature"] == 1.0 and here.rows[7]["temperature"] is None, (
        "logit matching has none"
    )
    assert len(here.runs) == 8 * 3 and {run["seed"] for run in here.runs} == {0, 1, 7}
    # every run is the one distill does with that setting from that seed
    by_hand = [student(0), student(1), student(7)]
    for each in by_hand:
        distill(teacher, each, X, Y, KnowledgeDistillation(4.0, 0.1, 0.9), epochs=2, verbose=0)
    expected = [errors(each) for each in by_hand]
    row = here.rows[3]
    assert [run["errors"] for run in here.runs if run["setting"] == row["setting"]] == expected
    # mean and standard deviation
    assert row["runs"] == 3 and row["errors_mean"] == np.mean(expected)
    assert row["errors_std"] == pytest.approx(np.std(expected, ddof=1)) != np.std(expected)
    for key in ("accuracy", "agreement", "loss"):
        values = [run[key] for run in here.runs if run["setting"] == row["setting"]]
        assert row[f"{key}_mean"] == pytest.approx(np.mean(values))
        assert row[f"{key}_std"] == pytest.approx(np.std(values, ddof=1))
    assert here.best["errors_mean"] == min(r["errors_mean"] for r in here.rows)
    # the table
    lines = str(here).splitlines()
    assert lines[0].split() == ["student", "runs", "errors", "accuracy", "agreement", "loss"]
    assert (
        lines[2].startswith("labels alone")
        and f"{row['errors_mean']:.1f} +- {row['errors_std']:.1f}" in lines[5]
    )
    assert here.to_markdown().startswith("| student") and "judged on others" in here.notes[0]
    assert json.loads(json.dumps(here.to_dict()))["rows"][3] == row


def test_processes_of_one_thread_give_the_same(teacher, monkeypatch):
    begun = {}

    class Pool(ProcessPoolExecutor):
        def __init__(self, *given, **options):
            begun.update(options)
            super().__init__(*given, **options)

    monkeypatch.setattr(sweep.futures, "ProcessPoolExecutor", Pool)
    arguments = dict(temperatures=(4.0,), seeds=(0, 1), epochs=2, validation_data=VALIDATION)
    loss = KnowledgeDistillation(temperature=Ramp(8.0, 2.0, 2))
    here = distill_sweep(teacher, student(), X, Y, processes=1, loss_list=[loss], **arguments)
    elsewhere = distill_sweep(teacher, student(), X, Y, processes=2, loss_list=[loss], **arguments)
    assert elsewhere.runs == here.runs and len(here.rows) == 3
    assert [row["temperature"] for row in here.rows] == [None, 4.0, None], "a schedule is no one temperature"
    before = get_num_threads()
    try:
        begun["initializer"](*begun["initargs"])  # what each process begins with
        assert get_num_threads() == 1
    finally:
        set_num_threads(before)


def test_without_labels_an_ensemble_and_a_setting_given_twice(teacher):
    ensemble = Ensemble([teacher, trained(1)])
    soft = dict(weights=((0.0, 1.0),), seeds=(0,), epochs=1, processes=1, validation_data=VALIDATION)
    swept = distill_sweep(
        ensemble, student(), X, None, (1.0, 4.0), **soft, loss_list=[KnowledgeDistillation(4, 0, 1)]
    )
    assert [row["temperature"] for row in swept.rows] == [1.0, 4.0] and len(swept.runs) == 2
    assert swept.rows[0]["errors_std"] == 0.0, "of a single run"
    by_hand = student(0)
    distill(ensemble, by_hand, X, None, KnowledgeDistillation(4.0, 0.0, 1.0), epochs=1, verbose=0)
    assert swept.runs[1]["errors"] == errors(by_hand), "an arithmetic mean made for each temperature"


def test_refuses(teacher):
    def swept(*given, **arguments):
        return distill_sweep(
            *(given or (teacher, student(), X, Y)), **{"validation_data": VALIDATION} | arguments
        )

    def schedule(epoch):
        return 4.0

    for arguments, message in (
        (dict(validation_data=None), "validation_data must be"),
        (dict(seeds=()), "seeds must hold one seed or more"),
        (dict(seeds=3), r"seeds must be a list, got 3 \(int\)"),
        (dict(temperatures=4.0), "temperatures must be a list, got 4.0"),
        (dict(weights=(0.1, 0.9)), r"weights must hold pairs \(hard_weight, soft_weight\), got 0.1"),
        (dict(loss_list=DIST()), "loss_list must be a list, got DIST"),
        (dict(validation_data=(VALIDATION[0], None)), "validation_data must be .*, got y=None"),
        (
            dict(validation_data=(VALIDATION[0], VALIDATION[1][1:])),
            "validation_data y .* expected 100, got 99",
        ),
        (dict(validation_data=(VALIDATION[0], VALIDATION[1] + 9)), r"validation_data y .* -1..3 .*, got \d+"),
        (dict(validation_data=(VALIDATION[0], 0 * VALIDATION[1] - 1)), "validation_data y must hold labels"),
        (dict(validation_data=(X[:, :5], Y)), r"validation_data x must have shape \(N, 6\), got \(160, 5\)"),
        (dict(temperatures=(0,)), "temperature must be > 0"),
        (dict(temperatures=()), "must name one setting or more"),
        (dict(weights=((0.0, 0.0),)), "must not all be 0"),
        (dict(processes=0), "processes must be >= 1"),
        (dict(loss_list=["mse"]), "loss must be a distillation loss"),
        (
            dict(loss_list=[KnowledgeDistillation(schedule)], processes=2),
            "a schedule must be a minidl.losses.Ramp",
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            swept(**arguments)
    for given, message in (
        ((cached_logits(teacher, X), student(), X, Y), "able to answer for validation_data"),
        ((teacher, student(3, GaussianNoise(0.1)), X, Y), "'gaussian_noise.*' augments its inputs"),
        ((teacher, "student", X, Y), "student must be a Sequential"),
        ((teacher, student(), X, None), "y must be given, got None.*hard_weight=0.0"),
        ((teacher, student(), X, 0 * Y - 1), "plain_student=True needs labels, got y without any"),
        ((teacher, student(), X, Y + 9), r"y must hold whole numbers in -1..3"),
        ((teacher, student(), X[:, :5], Y), r"x must have shape \(N, 6\), got \(160, 5\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            swept(*given)


def test_a_teacher_that_was_never_trained_is_told_of():
    swept = distill_sweep(
        student(9), student(), X, Y, (4.0,), seeds=(0,), epochs=1, processes=1, validation_data=VALIDATION
    )
    assert "still has its initial weights" in swept.notes[-1]


@pytest.mark.parametrize("processes", [1, 2])
def test_each_run_says_when_it_is_done(teacher, capsys, processes):
    options = dict(seeds=(0, 1), epochs=1, processes=processes, validation_data=VALIDATION)
    swept = distill_sweep(teacher, student(), X, Y.tolist(), (4.0,), **options)
    lines = capsys.readouterr().out.splitlines()
    names = ["labels alone", "labels alone", "T 4, 0.1/0.9", "T 4, 0.1/0.9"]
    assert lines == [
        f"run {n}/4: {names[n - 1]}, seed {run['seed']}: {count_of(run['errors'], 'error')}"
        for n, run in enumerate(swept.runs, 1)
    ]
    distill_sweep(teacher, student(), X, Y, (4.0,), verbose=0, **options)
    assert capsys.readouterr().out == ""


def test_one_is_not_plural():
    assert [count_of(n, "error") for n in (0, 1, 2, 1000)] == [
        "0 errors",
        "1 error",
        "2 errors",
        "1,000 errors",
    ]
