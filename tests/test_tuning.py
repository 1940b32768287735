"""``temperature="auto"``: what it tries, on which samples, what it costs; the training after it is as any other."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from minidl import losses, training
from minidl.callbacks import Callback, EarlyStopping
from minidl.distillation import distill
from minidl.layers import Dense, Dropout, GaussianNoise, Input
from minidl.losses import KnowledgeDistillation, softmax
from minidl.models import Sequential
from minidl.runtime import get_num_threads, set_num_threads
from minidl.teachers import Ensemble, cached_logits
from minidl.training import tuning

CLASSES, FEATURES = 3, 5
CENTRES = 1.6 * np.random.default_rng(5).normal(size=(CLASSES, FEATURES))


def samples(count, seed):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, CLASSES, count)
    return (CENTRES[y] + draw.normal(size=(count, FEATURES))).astype(np.float32), y


X, Y = samples(120, 1)
X_TEST, Y_TEST = samples(200, 2)
LOGITS = (-0.5 * ((X[:, None] - CENTRES) ** 2).sum(axis=2)).astype(np.float32)
"""What the best possible teacher says."""


def student(*first, seed=3, dtype="float32"):
    layers = [Input((FEATURES,)), *first, Dense(8, "relu"), Dropout(0.1), Dense(CLASSES, "softmax")]
    return Sequential(layers, seed=seed, dtype=dtype)


def run(teacher=LOGITS, model=None, x=X, y=Y, **arguments):
    model = student() if model is None else model
    return model, distill(teacher, model, x, y, **{"epochs": 4, "verbose": 0, **arguments})


def always(choice):
    return lambda scores: choice


# ---------------------------------------------------------------- the training that follows


@pytest.mark.parametrize("choice", range(len(tuning.CANDIDATES)))
def test_the_student_is_that_of_an_explicit_call(monkeypatch, choice):
    """Its parameters, its optimizer, its history, and the draws of a later fit, all to the bit."""
    monkeypatch.setattr(tuning, "choose", always(choice))
    temperature, hard, soft = tuning.CANDIDATES[choice]
    explicit = dict(temperature=temperature, hard_weight=hard, soft_weight=soft)
    (auto, report), (other, expected) = run(), run(**explicit)
    assert report.tuning.trials and report.loss == expected.loss and expected.tuning is None
    assert repr(auto.loss) == repr(other.loss)
    assert report.history.history == expected.history.history
    for model in (auto, other):
        model.fit(X, Y, epochs=2, verbose=0, target_model=LOGITS)
    np.testing.assert_array_equal(auto.params, other.params)
    for one, same in zip(auto.optimizer.slots, other.optimizer.slots, strict=True):
        np.testing.assert_array_equal(one, same)
    assert (auto.draw_epoch, auto.epoch) == (other.draw_epoch, other.epoch)
    another = tuning.CANDIDATES[choice - 1]
    control, _ = run(**dict(zip(explicit, another, strict=True)))
    control.fit(X, Y, epochs=2, verbose=0, target_model=LOGITS)
    assert not np.array_equal(auto.params, control.params), "control"


def test_fit_on_request(monkeypatch):
    monkeypatch.setattr(tuning, "choose", always(1))
    auto, other = student(), student()
    for model, settings in (
        (auto, {"temperature": "auto"}),
        (other, {"temperature": 4.0, "hard_weight": 0.1}),
    ):
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        settings = settings if model is auto else {**settings, "soft_weight": 0.9}
        model.fit(X, Y, epochs=3, verbose=0, target_model=LOGITS, validation_split=0.25, **settings)
    np.testing.assert_array_equal(auto.params, other.params)
    assert auto.history.history == other.history.history
    assert auto.history.tuning.chosen == "temperature 4, weights 0.1 and 0.9" and other.history.tuning is None
    assert auto.loss.name == "sparse_categorical_crossentropy", "what it was compiled with"
    assert auto.history.tuning.held_out == pytest.approx(0.3 * 90, abs=2), "of what validation leaves"


def test_a_student_that_goes_on_goes_on_from_where_it_is(monkeypatch):
    """The trials begin where the student is, with its optimizer, and change neither."""
    monkeypatch.setattr(tuning, "choose", always(0))
    auto, other = student(), student()
    for model in (auto, other):
        run(model=model, temperature=3.0)
    run(model=auto, optimizer=auto.optimizer)
    temperature, hard, soft = tuning.CANDIDATES[0]
    run(model=other, optimizer=other.optimizer, temperature=temperature, hard_weight=hard, soft_weight=soft)
    np.testing.assert_array_equal(auto.params, other.params)


# ---------------------------------------------------------------- the search


def test_a_trial_is_a_training_on_the_other_samples():
    """By hand: the same rows, weights and steps, and the Brier score of what was held out, weighted too."""
    weight = np.linspace(0.2, 2.0, len(X))
    _, report = run(sample_weight=weight, class_weight={1: 3.0}, optimizer="sgd")
    model = student()
    options = training.FitOptions(X, Y, epochs=4, target_model=LOGITS, verbose=0)
    model.compile("sgd", KnowledgeDistillation())
    data = training.preparation.prepare(model, options)
    rest, held = tuning._Search(model, options, data, None)._choose_rows(Y)
    assert sorted([*rest, *held]) == list(range(len(X))) and report.tuning.held_out == len(held)
    epochs = 4 * 4 // -(-len(rest) // 32)
    for trial, (temperature, hard, soft) in zip(report.tuning.trials, tuning.CANDIDATES, strict=True):
        by_hand = student()
        by_hand.compile("sgd", KnowledgeDistillation(temperature, hard, soft))
        settings = dict(sample_weight=weight[rest], class_weight={1: 3.0}, target_model=LOGITS[rest])
        by_hand.fit(X[rest], Y[rest], epochs=epochs, verbose=0, **settings)
        probs = softmax(by_hand.predict_logits(X[held]).astype(float))
        each = ((probs - np.eye(CLASSES)[Y[held]]) ** 2).sum(axis=1)
        weights = weight[held] * np.where(Y[held] == 1, 3.0, 1.0)
        assert trial.score == pytest.approx((each * weights).sum() / weights.sum())
        assert trial.score != pytest.approx(each.mean()), "control: the weights count"
        assert trial.errors == int((probs.argmax(axis=1) != Y[held]).sum())


@pytest.mark.parametrize(
    "count, batch_size, epochs", [(120, 32, 4), (67, 1, 2), (120, 500, 3), (101, 7, 1), (97, 32, 5)]
)
def test_all_trainings_together_take_at_most_four_times_the_steps(monkeypatch, count, batch_size, epochs):
    steps, fit = [], tuning.fit

    def counted(model, *arguments):
        before = model.optimizer.iterations
        found = fit(model, *arguments)
        steps.append(model.optimizer.iterations - before)
        return found

    monkeypatch.setattr(tuning, "fit", counted)
    _, report = run(LOGITS[:count], x=X[:count], y=Y[:count], batch_size=batch_size, epochs=epochs)
    *trials, own = steps
    assert len(trials) == len(tuning.CANDIDATES) and own == epochs * -(-count // min(batch_size, count))
    assert sum(steps) <= 4 * own and min(trials) > 0.6 * own
    assert (report.tuning.steps, report.tuning.student_steps) == (sum(trials), own)


@pytest.mark.parametrize("ensemble", [False, True])
def test_the_teacher_is_asked_as_often_as_by_an_explicit_call(monkeypatch, ensemble):
    monkeypatch.setattr(tuning, "choose", always(1))
    asked = []

    def teacher(x):
        asked.append(len(x))
        return (-0.5 * ((x[:, None] - CENTRES) ** 2).sum(axis=2)).astype(np.float32)

    def count(**settings):
        asked.clear()
        model = student()
        model.compile("adam", "sparse_categorical_crossentropy")
        who = Ensemble([teacher, LOGITS[::-1].copy()], weights=[2, 1]) if ensemble else teacher
        model.fit(X, Y, epochs=2, verbose=0, target_model=who, **settings)
        return sum(asked), model.params.copy()

    numbers = dict(temperature=4.0, hard_weight=0.1, soft_weight=0.9)
    (once, auto), (expected, explicit) = count(temperature="auto"), count(**numbers)
    assert once == expected == len(X)
    np.testing.assert_array_equal(auto, explicit)
    monkeypatch.setattr(tuning, "remembering", lambda teacher: teacher)
    assert count(temperature="auto")[0] > len(X), "control"


def test_the_same_share_of_each_class_is_held_out():
    labels = np.r_[np.zeros(200, int), np.ones(10, int), np.full(1, 2), np.full(50, -1)]
    search = tuning._Search.__new__(tuning._Search)
    search._model, x = student(), np.zeros((len(labels), FEATURES), np.float32)
    search._data = training.preparation.TrainingData(
        None, training.samples.Samples(x, labels, None, None, np.empty(0)), len(labels), None, [], None
    )
    rest, held = search._choose_rows(labels)
    assert [int((labels[held] == each).sum()) for each in (0, 1, 2, -1)] == [60, 3, 0, 0]
    assert len(rest) + len(held) == len(labels) and not set(rest) & set(held)
    search._model = student(seed=4)
    assert not np.array_equal(search._choose_rows(labels)[1], held), "another seed, other samples"


def test_the_choice_depends_on_the_seed_alone():
    threads, found = get_num_threads(), []
    try:
        for count in (1, 2, 2):
            set_num_threads(count)
            model, report = run()
            found.append((report.tuning.trials, model.params.tobytes()))
    finally:
        set_num_threads(threads)
    assert found[0] == found[1] == found[2]
    assert run(model=student(seed=8))[1].tuning.trials != found[0][0]


def test_the_safe_candidate_stays_unless_another_is_clearly_better():
    safe, noise = np.full(40, 0.5), np.tile([0.3, -0.3], 20)
    assert tuning.choose([safe, safe - 0.2, safe - 0.1]) == 1
    assert tuning.choose([safe, safe - 0.01 + noise, safe + 1]) == 0, "by less than a standard error"
    assert tuning.choose([safe, safe + 0.1, safe + 0.1]) == 0
    assert tuning.choose([np.full(40, np.inf), safe, safe]) == 1, "the safe one diverged"
    assert tuning.choose([safe, np.full(40, np.inf), np.full(40, np.inf)]) == 0


def test_a_useless_teacher_is_left_and_the_report_says_so():
    _, report = run(-20 * LOGITS, epochs=20, test_data=(X_TEST, Y_TEST), plain_student=True)
    text = str(report)
    assert report.tuning.chosen == "labels alone" and "labels alone were best" in text
    assert report.student.errors == report.plain.errors and "did not help here" not in text
    assert (
        "labels alone: " in text
        and "temperature 4, weights 0.1 and 0.9: " in text
        and "times the student's" in text
    )
    told = json.loads(json.dumps(report.to_dict()))["tuning"]
    assert told["chosen"] == "labels alone" and len(told["trials"]) == 3 and told["steps"] > 0


def test_a_good_teacher_of_few_labels_is_taken():
    some = np.where(np.arange(len(Y)) < 90, np.random.default_rng(0).permutation(Y), Y)  # most are wrong
    _, report = run(y=some, epochs=20, test_data=(X_TEST, Y_TEST), plain_student=True)
    assert report.tuning.loss.soft_weight > 0 and report.student.errors < report.plain.errors


# ---------------------------------------------------------------- where nothing can be tried


@pytest.mark.parametrize("y", [None, np.full(len(Y), -1)], ids=["None", "-1"])
def test_without_labels_only_the_teacher_counts(y):
    model, report = run(y=y)
    expected, _ = run(y=y, temperature=tuning.CANDIDATES[0][0], hard_weight=0.0, soft_weight=1.0)
    np.testing.assert_array_equal(model.params, expected.params)
    assert "tried nothing, because no sample has a label" in str(report) and report.tuning.trials == ()


def test_few_samples_are_not_divided():
    count = 40
    model, report = run(LOGITS[:count], x=X[:count], y=Y[:count])
    temperature, hard, soft = tuning.CANDIDATES[0]
    expected, _ = run(
        LOGITS[:count], x=X[:count], y=Y[:count], temperature=temperature, hard_weight=hard, soft_weight=soft
    )
    np.testing.assert_array_equal(model.params, expected.params)
    assert "40 samples with a label are too few to hold some out" in str(report)
    assert run(epochs=0)[1].tuning.reason == "there are no epochs to train"


def test_some_labels_and_rows_of_probabilities():
    partly = np.where(np.arange(len(Y)) < 100, Y, -1)
    assert run(y=partly)[1].tuning.held_out == pytest.approx(30, abs=1)
    rows = run(y=np.eye(CLASSES)[Y])[1].tuning
    assert [(t.errors, round(t.score, 5)) for t in rows.trials] == [
        (t.errors, round(t.score, 5)) for t in run()[1].tuning.trials
    ]


# ---------------------------------------------------------------- callbacks, interrupts, online teachers


class Counting(Callback):
    def __init__(self):
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1


def test_callbacks_see_the_student_alone():
    counting, stopping = Counting(), EarlyStopping(monitor="loss", patience=0, min_delta=100.0)
    _, report = run(callbacks=[counting, stopping], epochs=9)
    assert counting.epochs == 2 == len(report.history.epoch)
    assert report.tuning.steps > 2 * 9 * 4, "the trials run all epochs"


@pytest.mark.parametrize("call", ["distill", "fit"])
def test_an_interrupt_in_the_search_leaves_the_student_as_it_was(monkeypatch, call):
    model = student()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=1, verbose=0)
    before, state = copy.deepcopy(model), (model.optimizer, model.loss, model.metrics)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_judge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            if call == "distill":
                run(model=model, optimizer="adam")
            else:
                model.fit(X, Y, epochs=3, verbose=0, target_model=LOGITS, temperature="auto")
    assert (model.optimizer, model.loss, model.metrics) == state
    for each in (model, before):
        each.fit(X, Y, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.params, before.params)


def test_a_student_that_augments_is_tried_online(monkeypatch):
    monkeypatch.setattr(tuning, "choose", always(0))

    def teacher(x):
        return (-0.5 * ((x[:, None] - CENTRES) ** 2).sum(axis=2)).astype(np.float32)

    temperature, hard, soft = tuning.CANDIDATES[0]
    explicit = dict(temperature=temperature, hard_weight=hard, soft_weight=soft)
    model, report = run(teacher, student(GaussianNoise(0.3)))
    np.testing.assert_array_equal(
        model.params, run(teacher, student(GaussianNoise(0.3)), **explicit)[0].params
    )
    assert len(report.tuning.trials) == 3
    model = student(GaussianNoise(0.3))
    before = model.params.copy()
    with pytest.raises(ValueError, match="target_model is an array of logits, but the student's layer"):
        run(LOGITS, model)
    assert np.array_equal(model.params, before) and model.optimizer is None


def test_an_arithmetic_ensemble_is_asked_at_each_temperature(monkeypatch):
    monkeypatch.setattr(tuning, "choose", always(1))
    ensemble = Ensemble([LOGITS, LOGITS[::-1].copy()])
    temperature, hard, soft = tuning.CANDIDATES[1]
    explicit = dict(temperature=temperature, hard_weight=hard, soft_weight=soft)
    np.testing.assert_array_equal(run(ensemble)[0].params, run(ensemble, **explicit)[0].params)
    cold = cached_logits(ensemble, X, temperature=2.0)
    assert not np.array_equal(run(ensemble)[0].params, run(cold, **explicit)[0].params), "control"


# ---------------------------------------------------------------- what is said and refused


def test_what_is_said(capsys):
    found = run(verbose=2, epochs=2)[1].tuning
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("minidl:")]
    settings = "T 2, 0.5/0.5", "T 4, 0.1/0.9", "labels alone"
    trials = zip(settings, found.trials, strict=True)
    assert lines[:3] == [
        f"tuning {n} of 3: {name} - score {trial.score:.4f}" for n, (name, trial) in enumerate(trials, 1)
    ]
    assert lines[3].startswith('temperature="auto" tried, on ') and lines[4].startswith("chosen: ")
    title = (
        "student (labels alone)"
        if found.alone
        else f"student (distilled, {tuning.short_setting(found.loss)})"
    )
    assert [line.split(" - ")[0] for line in lines[-2:]] == [f"{title}  epoch {n}/2" for n in (1, 2)]
    run(verbose=0, epochs=2)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "loss, name",
    [
        (None, "labels alone"),
        (losses.KnowledgeDistillation(hard_weight=1.0, soft_weight=0.0), "labels alone"),
        (losses.KnowledgeDistillation(4.0, 0.1, 0.9), "T 4, 0.1/0.9"),
        (losses.KnowledgeDistillation(4.0, 0.1, 0.9, standardize=True), "T 4, 0.1/0.9, standardize"),
        (losses.KnowledgeDistillation(losses.Ramp(8, 2, 3)), "T Ramp(8, 2, 3), 0.5/0.5"),
        (losses.BinaryKnowledgeDistillation(), "T 2, 0.5/0.5"),
        (losses.RegressionDistillation(), "0.5/0.5"),
        (losses.TeacherBoundedRegression(margin=0.5), "TeacherBoundedRegression, 1/0.5, margin 0.5"),
        (losses.DIST(), "DIST, T 1"),
        (losses.DecoupledKD(4.0, target_weight=8.0), "DecoupledKD, T 4, target_weight 8"),
    ],
)
def test_settings_have_short_names_that_tell_them_apart(loss, name):
    assert tuning.short_setting(loss) == name


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(temperature="auto", hard_weight=0.5),
            'temperature="auto" chooses the weights too, got hard_weight=0.5',
        ),
        (
            dict(temperature="auto", target_model=None),
            'temperature="auto" belongs to distillation: it needs target_model',
        ),
        (dict(temperature="automatic"), "temperature must be"),
    ],
)
def test_what_fit_refuses(arguments, message):
    model = student()
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises((TypeError, ValueError), match=message):
        model.fit(X, Y, verbose=0, **{"target_model": LOGITS, **arguments})
    assert model.optimizer.iterations == 0


def test_numbers_and_a_loss_are_not_both_taken():
    for name, value in (("temperature", 4.0), ("hard_weight", 0.0), ("soft_weight", 1.0)):
        with pytest.raises(
            ValueError, match=f"{name} belongs to the loss, which is given: leave {name}={value} out"
        ):
            run(loss=KnowledgeDistillation(), **{name: value})
    model, report = run(hard_weight=0.3, soft_weight=0.7)
    assert report.tuning is None and model.loss.hard_weight == 0.3
    assert model.loss.temperature == KnowledgeDistillation().temperature
    assert (
        run(y=None, temperature=5.0)[1].loss
        == "KnowledgeDistillation(temperature=5, hard_weight=0, soft_weight=1)"
    )


# ---------------------------------------------------------------- other tasks


def test_sigmoids_and_numbers_are_tuned_too():
    """The candidates are those of the task's loss, and the score is the squared distance from the labels."""
    answers = (X[:, :2] > 0).astype(np.float32)
    for units, activation, y, teacher, settings in (
        (1, "sigmoid", answers[:, 0], 3 * X[:, 0], ["temperature 2, weights 0.5 and 0.5", "labels alone"]),
        (2, "sigmoid", answers, 3 * X[:, :2], ["temperature 4, weights 0.1 and 0.9", "labels alone"]),
        (
            1,
            None,
            X[:, 0] + 0.1 * X[:, 1],
            X[:, 0],
            ["weights 0.5 and 0.5", "weights 0.1 and 0.9", "labels alone"],
        ),
    ):
        model, other = (
            Sequential([Input((FEATURES,)), Dense(8, "relu"), Dense(units, activation)], seed=2)
            for _ in range(2)
        )
        report = distill(teacher, model, X, y, epochs=4, verbose=0)
        found = report.tuning
        assert set(settings) <= {trial.setting for trial in found.trials}
        assert all((trial.errors is None) == (activation is None) for trial in found.trials)
        chosen = {name: getattr(found.loss, name) for name in ("hard_weight", "soft_weight")}
        if activation:
            chosen["temperature"] = found.loss.temperature
        explicit = distill(teacher, other, X, y, epochs=4, verbose=0, **chosen)
        np.testing.assert_array_equal(model.params, other.params)
        assert report.loss == explicit.loss and found.chosen in str(report)
    with pytest.raises(ValueError, match="temperature softens probabilities; a regression has none, got 3.0"):
        distill(teacher, other, X, y, epochs=4, verbose=0, temperature=3.0)
