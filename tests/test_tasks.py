"""Distillation of other tasks than one class of many: sigmoids, regression, and teachers that see other inputs."""

import copy
import json
import math

import numpy as np
import pytest
import reference

from minidl import losses, metrics, plotting
from minidl.distillation import born_again, distill, mutual_learning
from minidl.figures import area_under_curve
from minidl.layers import Dense, Dropout, Flatten, GaussianNoise, Input, RandomTranslation
from minidl.losses import (
    BinaryKnowledgeDistillation,
    KnowledgeDistillation,
    RegressionDistillation,
    TeacherBoundedRegression,
)
from minidl.models import Sequential, load_model
from minidl.report import measure
from minidl.sweep import distill_sweep
from minidl.teachers import (
    ArrayTeacher,
    Ensemble,
    InputsTeacher,
    as_teacher,
    cached_logits,
    load_logits,
    save_logits,
)
from minidl.training import tuning
from minidl.training.samples import Samples
from minidl.training.tasks import choose_task

rng = np.random.default_rng(5)
X = rng.normal(size=(300, 6)).astype("f4")
WEIGHTS = rng.normal(size=(6, 3))
SCORES = np.tanh(X) @ WEIGHTS + 0.3 * rng.normal(size=(300, 3))
TRAIN, TEST = slice(0, 200), slice(200, 300)

# name: (y, outputs, final activation, the loss a teacher is trained with, the figure a sweep compares by)
TASKS = {
    "one sigmoid": ((SCORES[:, 0] > 0).astype(int), 1, "sigmoid", "binary_crossentropy", "auc"),
    "sigmoids": ((SCORES > 0).astype(float), 3, "sigmoid", "binary_crossentropy", "auc"),
    "one number": (SCORES[:, 0], 1, None, "mse", "rmse"),
    "numbers": (SCORES.astype("f4"), 3, None, "mae", "rmse"),
}
DEFAULT = {"sigmoid": BinaryKnowledgeDistillation, None: RegressionDistillation}


def net(name, units=8, seed=3, features=6, middle=()):
    _, outputs, activation, _, _ = TASKS[name]
    layers = [Input((features,)), *middle, Dense(units, "relu"), Dense(outputs, activation)]
    return Sequential(layers, seed=seed)


@pytest.fixture(scope="module")
def teachers():
    found = {}
    for name, (y, _, _, loss, _) in TASKS.items():
        found[name] = net(name, 64, seed=0)
        found[name].compile("adam", loss)
        found[name].fit(X[TRAIN], y[TRAIN], epochs=40, verbose=0)
    return found


def run(name, teacher, model=None, **arguments):
    y, model = TASKS[name][0], net(name) if model is None else model
    settings = {"epochs": 3, "verbose": 0, "test_data": (X[TEST], y[TEST])} | arguments
    if not settings.keys() & {"loss", "temperature", "hard_weight", "soft_weight"}:
        settings["loss"] = default_loss(name, settings.get("y", y))
    settings = {"x": X[TRAIN], "y": y[TRAIN]} | settings
    return model, distill(teacher, model, **settings)


def default_loss(name, y):
    return DEFAULT[TASKS[name][2]](**({} if y is not None else {"hard_weight": 0.0, "soft_weight": 1.0}))


def sigmoid(z):
    return 1 / (1 + np.exp(-np.asarray(z, float)))


# ---------------------------------------------------------------- what a student learns


def compiled(model, loss):
    model.compile("adam", loss)
    return model


def plain(outputs, activation=None):
    return Sequential([Dense(outputs, activation, input_dim=6)], seed=0)


CLASSES = np.arange(300) % 3


@pytest.mark.parametrize(
    "model, y, task",
    [
        (plain(3, "softmax"), CLASSES, "classification"),
        (compiled(plain(3, "softmax"), "mse"), np.eye(3)[CLASSES], "classification"),
        (plain(3), CLASSES, "classification"),
        (plain(3), np.eye(3)[CLASSES], "classification"),
        (plain(3), None, "classification"),
        (compiled(plain(3), losses.BinaryCrossentropy(from_logits=True)), SCORES > 0, "binary"),
        (plain(1, "sigmoid"), CLASSES > 1, "binary"),
        (plain(3, "sigmoid"), None, "binary"),
        (plain(3), SCORES, "regression"),
        (plain(1), SCORES[:, 0], "regression"),
        (plain(1), CLASSES + 20, "regression"),
        (compiled(plain(1), "mse"), CLASSES > 1, "regression"),
        (compiled(plain(3), "huber"), None, "regression"),
        (compiled(plain(3), "mae"), np.eye(3)[CLASSES], "regression"),
        (compiled(plain(3), "mse"), CLASSES, "classification"),
        (compiled(plain(3, "sigmoid"), RegressionDistillation()), None, "regression"),
        (plain(1, "relu"), SCORES[:, 0], "regression"),
    ],
)
def test_the_table_of_tasks(model, y, task):
    assert choose_task(model, y).name == task


@pytest.mark.parametrize("model, y", [(plain(1), CLASSES > 1), (plain(3), SCORES > 0)])
def test_a_y_of_two_numbers_may_mean_either(model, y):
    message = (
        'without an activation, and y holds 0 and 1 alone: end with activation="sigmoid" .* or give loss=Regr'
    )
    with pytest.raises(ValueError, match=message):
        choose_task(model, y)


@pytest.mark.parametrize("name", TASKS)
def test_fit_and_distill_choose_the_same_loss(name, teachers):
    y, _, activation, _, _ = TASKS[name]
    by_hand = DEFAULT[activation]()
    parameters = []
    for call in (
        lambda model: run(name, teachers[name], model),
        lambda model: run(name, teachers[name], model, loss=by_hand),
        lambda model: compiled(model, TASKS[name][3]).fit(
            X[TRAIN], y[TRAIN], epochs=3, verbose=0, target_model=teachers[name]
        ),
        lambda model: run(name, as_teacher(teachers[name]), model),
        lambda model: run(name, teachers[name].predict_logits, model),
        lambda model: run(
            name,
            cached_logits(teachers[name], X[TRAIN]),
            model,
            test_teacher=cached_logits(teachers[name], X[TEST]),
        ),
    ):
        model = net(name)
        call(model)
        parameters.append(model.params.copy())
    assert all(np.array_equal(parameters[0], other) for other in parameters[1:])
    model, _ = run(name, teachers[name], loss=DEFAULT[activation](hard_weight=1.0, soft_weight=0.0))
    assert not np.array_equal(model.params, parameters[0]), "the teacher counts"


def test_an_explicit_loss_and_settings_of_fit(teachers):
    model, report = run("numbers", teachers["numbers"], loss=TeacherBoundedRegression(0.1))
    assert report.loss.startswith("TeacherBoundedRegression(margin=0.1")
    assert isinstance(model.loss, TeacherBoundedRegression)
    model = compiled(net("one sigmoid"), "binary_crossentropy")
    y = TASKS["one sigmoid"][0]
    model.fit(
        X,
        y,
        verbose=0,
        target_model=teachers["one sigmoid"],
        temperature=2.0,
        hard_weight=0.5,
        soft_weight=0.5,
    )
    again = compiled(net("one sigmoid"), BinaryKnowledgeDistillation(2.0, 0.5, 0.5))
    again.fit(X, y, verbose=0, target_model=teachers["one sigmoid"])
    assert np.array_equal(model.params, again.params)
    with pytest.raises(ValueError, match="temperature softens probabilities; a regression has none, got 2"):
        compiled(net("numbers"), "mse").fit(
            X, SCORES, verbose=0, target_model=teachers["numbers"], temperature=2.0
        )


@pytest.mark.parametrize("name", TASKS)
def test_a_trained_student_is_saved_and_goes_on(name, teachers, tmp_path):
    model, _ = run(name, teachers[name])
    model.save(tmp_path / "student")
    again = load_model(tmp_path / "student")
    assert again.loss.get_config() == model.loss.get_config()
    y = TASKS[name][0]
    for each in (model, again):
        each.fit(X[TRAIN], y[TRAIN], epochs=2, verbose=0, target_model=teachers[name])
    assert np.array_equal(model.params, again.params)
    assert again.evaluate(X[TEST], y[TEST], verbose=0) == model.evaluate(X[TEST], y[TEST], verbose=0)


# ---------------------------------------------------------------- numbers that are chosen


@pytest.mark.parametrize("choice", range(3))
@pytest.mark.parametrize("name", TASKS)
def test_auto_ends_as_an_explicit_call_does(name, choice, teachers, monkeypatch):
    monkeypatch.setattr(tuning, "choose", lambda scores: choice)
    y, settings = (
        TASKS[name][0],
        dict(zip(("temperature", "hard_weight", "soft_weight"), tuning.CANDIDATES[choice], strict=True)),
    )
    if TASKS[name][4] == "rmse":
        del settings["temperature"]
    chosen, other, third = net(name), net(name), net(name)
    report = distill(teachers[name], chosen, X[TRAIN], y[TRAIN], epochs=3, verbose=0)
    distill(teachers[name], other, X[TRAIN], y[TRAIN], epochs=3, verbose=0, **settings)
    run(name, teachers[name], third, loss=DEFAULT[TASKS[name][2]](**settings))
    assert np.array_equal(chosen.params, other.params) and np.array_equal(chosen.params, third.params)
    assert len(report.tuning.trials) == 3 and json.dumps(report.to_dict())
    assert ("labels alone were best" in str(report)) == (choice == 2)
    assert ("errors, score" in str(report)) == (TASKS[name][4] == "auc")
    assert ("temperature 2" in str(report)) == (TASKS[name][4] == "auc")


@pytest.mark.parametrize("name", TASKS)
def test_the_scores_of_auto_by_hand(name, teachers):
    y = np.asarray(TASKS[name][0], float).reshape(300, -1)
    model = compiled(net(name), TASKS[name][3])
    samples = Samples(X, np.empty(0, np.int64), y, None, np.linspace(0, 2, 300))
    score, errors = tuning._judge(model, samples, choose_task(model, y))
    answers = model.predict(X).astype(float)
    np.testing.assert_allclose(score, np.linspace(0, 2, 300) * ((answers - y) ** 2).sum(axis=1), rtol=1e-5)
    assert errors == (((answers > 0.5) != (y > 0.5)).sum() if TASKS[name][4] == "auc" else None)


def test_auto_holds_out_what_has_a_label(teachers):
    y = np.array(TASKS["one sigmoid"][0], float)
    y[100:] = -1
    report = distill(teachers["one sigmoid"], net("one sigmoid"), X, y, epochs=2, verbose=0)
    ones = int((y == 1).sum())
    assert report.tuning.held_out == round(0.3 * ones) + round(0.3 * (100 - ones))
    for name in TASKS:
        student = compiled(net(name), TASKS[name][3])
        report = distill(teachers[name], student, X[TRAIN], None, epochs=2, verbose=0)
        assert "no sample has a label" in report.tuning.reason and student.loss.hard_weight == 0


def test_numbers_given_to_distill(teachers):
    with pytest.raises(ValueError, match="temperature softens probabilities; a regression has none, got 2"):
        distill(teachers["numbers"], net("numbers"), X, SCORES, temperature=2.0, verbose=0)
    report = distill(teachers["numbers"], net("numbers"), X, SCORES, hard_weight=0.25, epochs=1, verbose=0)
    assert (
        report.loss == "RegressionDistillation(hard_weight=0.25, soft_weight=0.5)" and report.tuning is None
    )


# ---------------------------------------------------------------- labels that are missing


def test_samples_without_a_label(teachers):
    for name in ("one sigmoid", "sigmoids"):
        y = np.array(TASKS[name][0], float)
        y[50:150] = -1
        model, report = run(name, teachers[name], y=y[TRAIN], plain_student=True, validation_split=0.1)
        assert {"binary_accuracy", "val_binary_accuracy"} <= set(report.history.history)
        soft = BinaryKnowledgeDistillation(hard_weight=0.0, soft_weight=1.0)
        _, nothing = run(name, teachers[name], y=None, loss=soft)
        assert nothing.student.samples == 100
        with pytest.raises(ValueError, match=r"of -1 alone for a sample without a label, got -0.5"):
            run(name, teachers[name], y=np.where(y < 0, -0.5, y)[TRAIN])
    for name in ("one number", "numbers"):
        _, report = run(name, teachers[name], compiled(net(name), "mse"), y=None)
        assert "hard_weight=0, soft_weight=1" in report.loss and report.student.samples == 100


def test_the_metric_leaves_out_what_has_no_label(teachers):
    y = TASKS["sigmoids"][0].copy()
    y[::2] = -1
    model = net("sigmoids")
    model.compile("sgd", BinaryKnowledgeDistillation(), ["binary_accuracy"])
    model.optimizer.learning_rate = 1e-30
    right = ((model.predict(X) > 0.5) == (y > 0.5))[1::2].mean()
    logs = model.fit(X, y, verbose=0, target_model=teachers["sigmoids"]).history
    assert logs["binary_accuracy"][0] == pytest.approx(right)
    logs = model.train_on_batch(X, y, teacher_logits=teachers["sigmoids"].predict_logits(X), return_dict=True)
    assert logs["binary_accuracy"] == pytest.approx(right)
    auc = metrics.AUC(num_thresholds=50, multi_label=True)
    model.compile("sgd", BinaryKnowledgeDistillation(), [auc])
    model.optimizer.learning_rate = 1e-30
    logs = model.fit(X, y, verbose=0, target_model=teachers["sigmoids"]).history
    expected = metrics.AUC(num_thresholds=50, multi_label=True)(y[1::2], model.predict(X)[1::2])
    assert logs["auc"][0] == pytest.approx(expected)
    model.compile("sgd", BinaryKnowledgeDistillation(), ["mse"])
    with pytest.raises(
        ValueError,
        match=r"metrics must be binary_accuracy, AUC and the like where rows of y are -1.*\['mse'\]",
    ):
        model.fit(X, y, verbose=0, target_model=teachers["sigmoids"])


def test_a_class_weight_leaves_samples_without_a_label_alone(teachers):
    for name in ("one sigmoid", "sigmoids"):
        y = np.array(TASKS[name][0], float).reshape(300, -1)
        y[::2] = -1
        weight = np.where(y[:, 0] < 0, 1.0, np.where(y.argmax(axis=1) == 0, 2.0, 1.0))
        if name == "one sigmoid":
            weight = np.where(y[:, 0] == 0, 2.0, 1.0)
        parameters = []
        for given in (dict(class_weight={0: 2.0}), dict(sample_weight=weight), {}):
            model = compiled(net(name), BinaryKnowledgeDistillation())
            model.fit(X, y, verbose=0, target_model=teachers[name], **given)
            parameters.append(model.params)
        assert np.array_equal(parameters[0], parameters[1]) and not np.array_equal(
            parameters[0], parameters[2]
        )


def test_classes_of_minus_and_plus_one_are_refused(teachers):
    y = np.where(TASKS["one sigmoid"][0] > 0, 1, -1)
    with pytest.raises(
        ValueError, match=r"y must hold labels of 0 and 1, got 1 .* \(y \+ 1\) // 2 makes 0 and 1"
    ):
        run("one sigmoid", teachers["one sigmoid"], y=y[TRAIN])


def test_samples_to_transfer_to(teachers):
    for name in ("one sigmoid", "sigmoids"):
        y = TASKS[name][0]
        _, report = run(name, teachers[name], x=X[:150], y=y[:150], transfer=X[150:200])
        joined = np.concatenate([y[:150].reshape(150, -1), np.full((50, TASKS[name][1]), -1.0)])
        _, by_hand = run(name, teachers[name], y=joined)
        assert report.history.history == by_hand.history.history
    with pytest.raises(ValueError, match="transfer must be None where y holds numbers.*teacher.predict"):
        run("numbers", teachers["numbers"], x=X[:150], y=SCORES[:150], transfer=X[150:200])


# ---------------------------------------------------------------- teachers


def test_probabilities_of_sigmoids(teachers):
    """As an array (N,) or (N, 1), and from a function; the test data's too."""
    teacher = teachers["one sigmoid"]
    p, tested = teacher.predict(X[TRAIN]), teacher.predict(X[TEST])
    reports = [
        run("one sigmoid", given, from_probs=True, test_teacher=at_test)[1]
        for given, at_test in ((p, tested), (p[:, 0], tested[:, 0]), (p.astype(float), tested.tolist()))
    ]
    reports += [run("one sigmoid", lambda x: teacher.predict(x, verbose=0)[:, 0], from_probs=True)[1]]
    _, of_logits = run("one sigmoid", teacher)
    for report in reports:
        assert report.student.auc == pytest.approx(of_logits.student.auc, abs=1e-3)
        assert report.teacher.errors == of_logits.teacher.errors
        assert report.teacher.loss == pytest.approx(of_logits.teacher.loss, rel=1e-3)
    floor = as_teacher(np.array([0.0, 1.0]), from_probs=True, activation="sigmoid").array[:, 0]
    np.testing.assert_allclose(floor, [-math.log(1e7), math.log(1e7)], rtol=1e-5)
    several = teachers["sigmoids"]
    _, report = run(
        "sigmoids", several.predict(X[TRAIN]), from_probs=True, test_teacher=several.predict(X[TEST])
    )
    assert report.teacher.errors == run("sigmoids", several)[1].teacher.errors


@pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_ensembles_of_sigmoids_and_of_regressions(mean, temperature, teachers):
    v = rng.normal(size=(2, 8, 3)) * 3
    ensemble = Ensemble(list(v), mean, weights=[3, 1])
    found = as_teacher(ensemble, activation="sigmoid")(X[:8], temperature=temperature)
    expected = 0.75 * v[0] + 0.25 * v[1]
    if mean == "arithmetic":
        p = 0.75 * sigmoid(v[0] / temperature) + 0.25 * sigmoid(v[1] / temperature)
        expected = temperature * np.log(p / (1 - p))
        assert found.max() != pytest.approx((0.75 * v[0] + 0.25 * v[1]).max(), rel=1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    numbers = as_teacher(ensemble, activation=None)
    np.testing.assert_allclose(numbers(X[:8]), 0.75 * v[0] + 0.25 * v[1], rtol=1e-12)
    assert not numbers.softens and as_teacher(ensemble, activation="sigmoid").softens == (
        mean == "arithmetic"
    )
    np.testing.assert_allclose(
        ensemble(X[:8]), as_teacher(ensemble, activation="softmax")(X[:8]), rtol=1e-12
    )  # by default
    for name in TASKS:
        members = Ensemble([teachers[name], copy.deepcopy(teachers[name])], mean)
        alone, together = (run(name, each)[1].student for each in (teachers[name], members))
        assert getattr(together, TASKS[name][4]) == pytest.approx(getattr(alone, TASKS[name][4]), rel=1e-3)
    one = Ensemble([teachers["one sigmoid"]] * 2, mean)
    np.testing.assert_allclose(one.predict(X[:5]), teachers["one sigmoid"].predict(X[:5]), rtol=1e-5)


def test_cached_and_kept_logits(teachers, tmp_path):
    for name, teacher in teachers.items():
        path = tmp_path / name
        save_logits(path, cached_logits(teacher, X[TRAIN]), X[TRAIN], teacher)
        model, _ = run(name, load_logits(path, X[TRAIN], teacher), test_data=None)
        again, _ = run(name, teacher, test_data=None)
        assert np.array_equal(model.params, again.params)


@pytest.mark.parametrize(
    "name, teacher, message",
    [
        (
            "one sigmoid",
            "two columns",
            r"student's 1 outputs, got 2; of two classes .* p\[:, 1\], of logits v\[:, 1\]",
        ),
        (
            "one sigmoid",
            "two columns of a function",
            r"one logit a sample, got 2; of two classes .* p\[:, 1\]",
        ),
        (
            "one sigmoid",
            "probabilities",
            "looks like probabilities: all 200 numbers lie in .* from_probs=True",
        ),
        ("one sigmoid", "softmax", "ends in softmax, and the student learns logits of sigmoids"),
        ("sigmoids", "one column", "student's 3 outputs, got 1"),
        ("numbers", "softmax of 3", "ends in softmax, and the student learns outputs, for a regression"),
        ("one number", "sigmoid", "ends in sigmoid, and the student learns outputs, for a regression"),
        ("one number", "short", "expected 200, got 199"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(name, teacher, message, teachers):
    pair = rng.normal(size=(200, 2))
    wrong = {
        "two columns": pair,
        "two columns of a function": lambda x: np.zeros((len(x), 2)),
        "probabilities": np.linspace(0, 1, 200),
        "softmax": plain(2, "softmax"),
        "softmax of 3": plain(3, "softmax"),
        "sigmoid": teachers["one sigmoid"],
        "one column": pair[:, :1],
        "short": pair[:199, 0],
    }
    model = net(name)
    before = model.params.copy()
    with pytest.raises(ValueError, match=message):
        run(name, wrong[teacher], model)
    assert np.array_equal(model.params, before) and model.optimizer is None


def test_probabilities_that_are_none_are_refused(teachers):
    with pytest.raises(
        ValueError, match=r"teacher must be in \[0, 1\] \(probabilities, with from_probs=True\)"
    ):
        run("one sigmoid", 3 * SCORES[TRAIN, 0], from_probs=True)
    with pytest.raises(ValueError, match="from_probs=True is for classes: a regression learns"):
        run("one number", SCORES[TRAIN, 0], from_probs=True)
    with pytest.raises(
        ValueError, match=r"classes >= 2, got \(200,\); of one output .* activation='sigmoid'"
    ):
        as_teacher(SCORES[TRAIN, 0])
    assert isinstance(as_teacher(SCORES[TRAIN, 0], activation=None), ArrayTeacher)
    with pytest.raises(ValueError, match="activation must be one of 'softmax', 'sigmoid', None"):
        as_teacher(SCORES, activation="tanh")


def test_a_regressions_targets_may_sum_to_one():
    """Shares are numbers like others: nothing there looks like probabilities."""
    shares = rng.dirichlet(np.ones(3), 200)
    model = compiled(plain(3), "mse")
    distill(shares, model, X[TRAIN], shares, epochs=1, verbose=0)
    assert isinstance(model.loss, RegressionDistillation)


# ---------------------------------------------------------------- teachers that see other inputs


@pytest.mark.parametrize("name", ["one sigmoid", "numbers"])
def test_teacher_inputs(name):
    """The student sees two of six features; its teacher all."""
    y = TASKS[name][0]
    teacher = compiled(net(name, 32, seed=0), TASKS[name][3])
    teacher.fit(X[TRAIN], y[TRAIN], epochs=10, verbose=0)
    few = X[:, :2].copy()

    def model():
        return net(name, features=2)

    arguments = dict(x=few[TRAIN], test_data=(few[TEST], y[TEST]))
    inputs = dict(teacher_inputs=X[TRAIN], test_teacher_inputs=X[TEST])
    student, report = run(name, teacher, model(), **arguments, **inputs)
    of_logits = dict(test_teacher=teacher.predict_logits(X[TEST]))
    by_array, other = run(name, teacher.predict_logits(X[TRAIN]), model(), **arguments, **of_logits)
    assert np.array_equal(student.params, by_array.params)
    assert report.teacher.loss == other.teacher.loss and report.student.loss == other.student.loss
    assert report.teacher.parameters == teacher.count_params() and report.teacher.latency > 0
    # rows that are held out bring their inputs along
    _, report = run(
        name, teacher, model(), x=few[TRAIN], test_data=None, teacher_inputs=X[TRAIN], validation_split=0.2
    )
    assert report.teacher.samples == 40 and report.teacher.latency > 0
    _, report = run(name, teacher, model(), **arguments, teacher_inputs=X[TRAIN])
    assert report.teacher is None and "give test_teacher_inputs" in " ".join(report.notes)
    # transfer's come last; fit takes the same teacher
    _, report = run(
        name,
        teacher,
        model(),
        x=few[:150],
        y=None,
        transfer=few[150:200],
        test_data=None,
        teacher_inputs=X[TRAIN],
    )
    fitted = compiled(model(), TASKS[name][3])
    fitted.fit(few[TRAIN], y[TRAIN], epochs=3, verbose=0, target_model=InputsTeacher(teacher, X[TRAIN]))
    assert np.array_equal(fitted.params, student.params)
    ensemble = InputsTeacher(Ensemble([teacher, teacher.predict_logits]), X[TRAIN])
    assert np.isfinite(cached_logits(ensemble, few[TRAIN])).all()
    result = born_again(
        model, few[TRAIN], y[TRAIN], 2, teacher, epochs=1, verbose=0, test_data=(few[TEST], y[TEST]), **inputs
    )
    assert result.reports[0].teacher.loss == other.teacher.loss and len(result.reports) == 2


def test_teacher_inputs_shuffled_with_their_samples(teachers):
    """Whatever the batches, row i of the inputs belongs to sample i."""
    found = InputsTeacher(teachers["numbers"], X)
    rows = np.array([7, 3, 3, 250])
    np.testing.assert_array_equal(found.logits(None, rows=rows), teachers["numbers"].predict_logits(X[rows]))
    assert found.fingerprint() != InputsTeacher(teachers["numbers"], X[::-1]).fingerprint()
    assert InputsTeacher(lambda x: x, X).fingerprint() == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(teacher_inputs=X[:199]),
            "teacher_inputs must have one row per sample of x: expected 200, got 199",
        ),
        (
            dict(teacher=SCORES[TRAIN], teacher_inputs=X[TRAIN]),
            "teacher_inputs are for a teacher that is asked, got an",
        ),
        (
            dict(teacher_inputs=X[TRAIN], test_teacher_inputs=X[:99]),
            "test_teacher_inputs must have one row .* 100, got 99",
        ),
        (dict(test_teacher_inputs=X[TEST]), "test_teacher_inputs go with teacher_inputs"),
        (
            dict(teacher_inputs=X[TRAIN, :5]),
            r"cannot take x: x must have .* \(it was asked about teacher_inputs\)",
        ),
        (dict(teacher_inputs="x"), "teacher_inputs must"),
    ],
)
def test_teacher_inputs_that_do_not_fit_are_refused(arguments, message, teachers):
    arguments = {"teacher": teachers["numbers"]} | arguments
    with pytest.raises((ValueError, TypeError), match=message):
        run("numbers", arguments.pop("teacher"), **arguments)


def test_a_student_that_changes_its_inputs_takes_no_teacher_inputs():
    images = rng.normal(size=(60, 4, 4)).astype("f4")
    layers = [Input((4, 4)), RandomTranslation(0.2, 0.2), Flatten(), Dense(3, "sigmoid")]
    teacher = compiled(Sequential([Dense(3, "sigmoid", input_dim=6)], seed=0), "binary_crossentropy")
    teacher.fit(X[:60], SCORES[:60] > 0, verbose=0)
    with pytest.raises(ValueError, match="target_model has inputs of its own, but the student's layer"):
        distill(teacher, Sequential(layers), images, SCORES[:60] > 0, teacher_inputs=X[:60], verbose=0)


# ---------------------------------------------------------------- the report


def pairs(truth, scores):
    """The share of pairs of a positive and a negative sample that are in order."""
    positive, negative = scores[truth], scores[~truth]
    order = positive[:, None] - negative[None]
    return ((order > 0) + 0.5 * (order == 0)).mean()


def test_area_under_the_curve_by_pairs():
    for count in (2, 3, 10, 200):
        truth = np.arange(count) % 3 == 0
        for scores in (
            rng.normal(size=count),
            rng.integers(0, 4, count),
            np.zeros(count),
            truth,
            -1.0 * truth,
        ):
            assert area_under_curve(truth, scores) == pytest.approx(pairs(truth, np.asarray(scores, float)))
    assert area_under_curve([True, False], [2.0, 1.0]) == 1.0
    assert area_under_curve([True, True], [2.0, 1.0]) is None
    assert math.isnan(area_under_curve([True, False], [np.nan, 1.0]))
    truth, scores = SCORES > 0, rng.normal(size=SCORES.shape)
    truth[:, 2] = True  # nothing to tell apart there
    expected = np.mean([pairs(truth[:, i], scores[:, i]) for i in range(2)])
    assert area_under_curve(truth, scores) == pytest.approx(expected)


def test_figures_of_sigmoids():
    z, v, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)), (rng.random((50, 3)) < 0.4).astype(float)
    y[10:15] = -1
    known = np.r_[0:10, 15:50]
    figures = measure("student", z, y, v, task="binary")
    wrong = (z > 0)[known] != (y > 0.5)[known]
    assert (figures.samples, figures.errors) == (45, wrong.sum())
    assert figures.accuracy == pytest.approx(1 - wrong.mean())
    assert figures.all_right == pytest.approx((~wrong).all(axis=1).mean()) != figures.accuracy
    assert figures.class_errors == wrong.sum(axis=0).tolist() and figures.errors_of == "output"
    assert figures.loss == pytest.approx(reference.binary_crossentropy(y[known], z[known]).mean())
    assert figures.teacher_kl == pytest.approx(reference.sigmoid_kl(v, z, 1.0).mean())
    assert figures.agreement == pytest.approx(((z > 0) == (v > 0)).mean())
    assert figures.auc == pytest.approx(np.mean([pairs(y[known, i] > 0.5, z[known, i]) for i in range(3)]))
    assert 0 <= figures.calibration_error <= 1
    one = measure("student", z[:, :1], y[:, 0], task="binary")
    assert sum(one.class_errors) == one.errors and one.errors_of == "class" and one.all_right is None
    z[3] = np.inf
    spoilt = measure("student", z, y, v, task="binary")
    assert spoilt.errors >= figures.errors and math.isnan(spoilt.loss) and math.isnan(spoilt.auc)


def test_figures_of_regression():
    o, v, y = rng.normal(size=(3, 50, 2))
    figures = measure("student", o, y, v, task="regression")
    assert figures.rmse == pytest.approx(math.sqrt(((o - y) ** 2).mean()))
    assert figures.mae == pytest.approx(abs(o - y).mean())
    assert figures.teacher_rmse == pytest.approx(math.sqrt(((o - v) ** 2).mean()))
    each = [1 - ((o - y)[:, i] ** 2).sum() / ((y[:, i] - y[:, i].mean()) ** 2).sum() for i in range(2)]
    assert figures.r2 == pytest.approx(np.mean(each))
    assert (
        measure("m", y, y, task="regression").r2 == 1
        and measure("m", 0 * y, 0 * y, task="regression").r2 is None
    )
    assert figures.errors is None and figures.accuracy is None


@pytest.mark.parametrize("name", TASKS)
def test_the_report(name, teachers):
    model, report = run(
        name, teachers[name], plain_student=True, validation_data=(X[TEST], TASKS[name][0][TEST])
    )
    titles = {"auc": ["errors", "AUC", "KL to teacher"], "rmse": ["RMSE", "R2", "RMSE to teacher"]}[
        TASKS[name][4]
    ]
    absent = {"auc": ["RMSE"], "rmse": ["accuracy", "errors", "AUC"]}[TASKS[name][4]]
    for text in (str(report), report.to_markdown()):
        head = text.splitlines()[0]
        assert all(title in head for title in titles) and not any(title in head for title in absent)
        assert ("all right" in head) == (name == "sigmoids")
    told = json.loads(json.dumps(report.to_dict()))
    assert [figures["role"] for figures in told["models"]] == ["teacher", "plain student", "student"]
    assert report.teacher.samples == 100 and report.unseen
    metric = {"auc": "binary_accuracy", "rmse": "mse"}[TASKS[name][4]]
    assert {metric, f"val_{metric}", "val_loss"} <= set(report.history.history)
    score = model.evaluate(X[TEST], TASKS[name][0][TEST], verbose=0, return_dict=True)
    expected = report.student.accuracy if metric == "binary_accuracy" else report.student.rmse**2
    assert score[metric] == pytest.approx(expected, rel=1e-5)


def test_what_hints_at_a_mistake(teachers):
    for name, hint in (("sigmoids", "AUC is only"), ("numbers", "R2 is -")):
        wrong = teachers[name].predict_logits(X)[::-1]  # of other samples
        _, report = run(name, wrong[TRAIN], test_teacher=wrong[TEST], plain_student=True, epochs=1)
        assert any(hint in note for note in report.notes)
        _, report = run(name, teachers[name], plain_student=True, epochs=1)
        assert not any(hint in note for note in report.notes)
    report.plain.rmse = report.student.rmse / 2
    assert any("did not help here: RMSE" in note for note in report.concerns())
    report.plain.rmse = report.student.rmse * 2
    assert not report.concerns()


def test_students_without_an_activation(teachers):
    """Logits of sigmoids, by the loss; and outputs that an activation bends are a regression's."""
    bare = Sequential([Dense(8, "relu", input_dim=6), Dense(1)], seed=3)
    _, report = run("one sigmoid", teachers["one sigmoid"], bare, loss=BinaryKnowledgeDistillation())
    _, usual = run("one sigmoid", teachers["one sigmoid"])
    assert report.student.auc == usual.student.auc and set(report.history.history) == {"loss"}
    bent = Sequential([Dense(8, "relu", input_dim=6), Dense(1, "sigmoid")], seed=3)
    soft = sigmoid(SCORES[TRAIN, 0])
    report = distill(soft, bent, X[TRAIN], soft, loss=RegressionDistillation(), epochs=1, verbose=0)
    assert report.student.rmse == pytest.approx(
        math.sqrt(((bent.predict(X[TRAIN])[:, 0] - soft) ** 2).mean()), rel=1e-5
    )


# ---------------------------------------------------------------- swapped


@pytest.mark.parametrize("name", TASKS)
def test_teacher_and_student_that_were_swapped(name, teachers):
    with pytest.raises(ValueError, match="teacher and student look swapped"):
        run(name, net(name), copy.deepcopy(teachers[name]))
    with pytest.raises(
        ValueError, match="teacher and student look swapped: the teacher's answers .* tell nothing"
    ):
        run(name, alternating(name), copy.deepcopy(teachers[name]))


def alternating(name):
    """Answers that tell nothing: each label meets -1 and 1 equally often."""
    y = np.asarray(TASKS[name][0][TRAIN], float).reshape(200, -1)
    order = np.argsort(y, axis=0, kind="stable")
    answers = np.empty_like(y)
    signs = np.tile([1.0, -1.0, -1.0, 1.0], 50)
    for column in range(y.shape[1]):
        answers[order[:, column], column] = signs
    return answers


@pytest.mark.parametrize("name", TASKS)
def test_no_false_alarm_of_a_swap(name, teachers):
    """A student that knows much, with its better teacher; a teacher in another unit, of other signs, of zeros."""
    able = compiled(net(name, seed=1), TASKS[name][3])
    able.fit(X[TRAIN], TASKS[name][0][TRAIN], epochs=60, verbose=0)
    answers = teachers[name].predict_logits(X[TRAIN])
    for teacher in (teachers[name], 100 * answers + 7, -answers, 0 * answers):
        run(name, teacher, copy.deepcopy(able), epochs=1, test_data=None)


# ---------------------------------------------------------------- sweeps, generations, peers


@pytest.mark.parametrize("name", TASKS)
def test_sweep(name, teachers):
    y, judge = TASKS[name][0], TASKS[name][4]
    arguments = dict(epochs=2, seeds=(0, 1), validation_data=(X[TEST], y[TEST]), processes=1, verbose=0)
    if judge == "auc":
        arguments["temperatures"] = (1.0, 4.0)
    swept = distill_sweep(teachers[name], net(name), X[TRAIN], y[TRAIN], **arguments)
    assert len(swept.rows) == {"auc": 3, "rmse": 4}[judge] and swept.rows[0]["setting"] == "labels alone"
    best = {"auc": max, "rmse": min}[judge](row[f"{judge}_mean"] for row in swept.rows)
    assert swept.best[f"{judge}_mean"] == best and swept.judge == judge
    assert judge in str(swept).splitlines()[0] and judge.upper() in swept.notes[0]
    assert json.loads(json.dumps(swept.to_dict()))["task"] == choose_task(net(name), y).name
    loss = DEFAULT[TASKS[name][2]](*((4.0, 0.1, 0.9) if judge == "auc" else (0.5, 0.5)))
    model = net(name, seed=1)
    _, report = run(name, teachers[name], model, loss=loss, epochs=2)
    row = next(each for each in swept.runs if each["seed"] == 1 and each["setting"] == report.loss)
    assert row[judge] == getattr(report.student, judge)


def test_a_sweep_is_drawn_by_its_figure(teachers):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    for name, label in (("one sigmoid", "AUC"), ("numbers", "RMSE")):
        arguments = dict(
            epochs=1, seeds=(0,), processes=1, verbose=0, validation_data=(X[TEST], TASKS[name][0][TEST])
        )
        swept = distill_sweep(teachers[name], net(name), X[TRAIN], TASKS[name][0][TRAIN], **arguments)
        assert plotting.sweep(swept).get_ylabel() == label


def test_sweep_refuses(teachers):
    good = dict(validation_data=(X[TEST], SCORES[TEST]), seeds=(0,), epochs=1, processes=1, verbose=0)
    with pytest.raises(ValueError, match="temperatures must be None: a regression has none"):
        distill_sweep(teachers["numbers"], net("numbers"), X[TRAIN], SCORES[TRAIN], (1.0,), **good)
    with pytest.raises(
        ValueError, match="loss_list must hold losses for the student's task, regression, got Know"
    ):
        distill_sweep(
            teachers["numbers"],
            net("numbers"),
            X[TRAIN],
            SCORES[TRAIN],
            loss_list=[KnowledgeDistillation()],
            **good,
        )
    y = TASKS["one sigmoid"][0]
    with pytest.raises(ValueError, match="must hold both 0 and 1 to compare settings by AUC"):
        distill_sweep(
            teachers["one sigmoid"],
            net("one sigmoid"),
            X[TRAIN],
            y[TRAIN],
            **good | dict(validation_data=(X[:9], [1] * 9)),
        )


def test_sweep_with_inputs_of_the_teachers_own(teachers):
    few, y = X[:, :2].copy(), TASKS["numbers"][0]
    arguments = dict(epochs=1, seeds=(0,), validation_data=(few[TEST], y[TEST]), processes=1, verbose=0)
    arguments |= dict(weights=[(0.0, 1.0)], plain_student=False)
    small = net("numbers", features=2, seed=0)
    swept = distill_sweep(
        teachers["numbers"], small, few[TRAIN], y[TRAIN], teacher_inputs=(X[TRAIN], X[TEST]), **arguments
    )
    loss = RegressionDistillation(0.0, 1.0)
    inputs = dict(teacher_inputs=X[TRAIN], test_teacher_inputs=X[TEST], test_data=(few[TEST], y[TEST]))
    _, report = run("numbers", teachers["numbers"], small, x=few[TRAIN], loss=loss, epochs=1, **inputs)
    assert swept.runs[0]["teacher_rmse"] == report.student.teacher_rmse
    for wrong, message in (
        (X[TRAIN], "must be a pair"),
        (
            (X[TRAIN], X[:9]),
            r"teacher_inputs\[1\] must have one row per sample of validation_data: expected 100, got 9",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            distill_sweep(teachers["numbers"], small, few[TRAIN], y[TRAIN], teacher_inputs=wrong, **arguments)


@pytest.mark.parametrize("name", TASKS)
def test_generations(name):
    y = TASKS[name][0]
    seeds = iter(range(9))
    arguments = dict(epochs=2, verbose=0, test_data=(X[TEST], y[TEST]))
    result = born_again(lambda: net(name, seed=next(seeds)), X[TRAIN], y[TRAIN], 3, **arguments)
    assert len(result.models) == 3 and len(result.reports) == 2
    expected = [model.predict(X[TEST]) for model in result.models]
    np.testing.assert_allclose(
        result.ensemble.predict(X[TEST]), np.mean(expected, axis=0), rtol=1e-4, atol=1e-5
    )


def test_peers():
    y = TASKS["sigmoids"][0]
    models = [net("sigmoids", seed=seed) for seed in (1, 2)]
    histories = mutual_learning(models, X, y, epochs=3, verbose=0)
    assert [len(each.history["binary_accuracy"]) for each in histories] == [3, 3]
    alone = [net("sigmoids", seed=seed) for seed in (1, 2)]
    mutual_learning(alone, X, y, epochs=3, soft_weight=0.0, verbose=0)

    def spread(pair):
        return np.abs(pair[0].predict(X) - pair[1].predict(X)).mean()

    assert spread(models) < spread(alone)
    with pytest.raises(ValueError, match="must answer with classes or with yes and no, got a regression"):
        mutual_learning([net("numbers", seed=1), net("numbers", seed=2)], X, SCORES, verbose=0)


@pytest.mark.parametrize("name", TASKS)
def test_noise_and_dropout_change_nothing_of_the_teachers_part(name, teachers):
    model = net(name, middle=(GaussianNoise(0.1), Dropout(0.1)))
    _, report = run(name, teachers[name], model)
    assert np.isfinite(report.history.history["loss"]).all()
