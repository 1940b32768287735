"""distill and its relatives: what they learn, what they refuse, and what the report says."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from minidl import validation
from minidl.callbacks import EarlyStopping, ProgressBar, ReduceLROnPlateau
from minidl.distillation import born_again, distill, mutual_learning
from minidl.layers import Dense, Dropout, Flatten, Input, RandomTranslation
from minidl.losses import (
    DIST,
    CategoricalCrossentropy,
    DecoupledKD,
    KnowledgeDistillation,
    LogitMatching,
    NormalizedKD,
    Ramp,
    SparseCategoricalCrossentropy,
)
from minidl.models import Sequential
from minidl.optimizers import Adam
from minidl.teachers import Ensemble, cached_logits

CLASSES = 4
rng = np.random.default_rng(11)
CENTRES = 2.5 * rng.normal(size=(CLASSES, 6))


def samples(count, seed):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, CLASSES, count)
    return (CENTRES[y] + draw.normal(size=(count, 6))).astype(np.float32), y


X, Y = samples(200, 1)
X_TEST, Y_TEST = samples(120, 2)


def student(seed=3, softmax=True, dropout=0.0):
    last = Dense(CLASSES, activation="softmax" if softmax else None)
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dropout(dropout), last], seed=seed)


@pytest.fixture(scope="module")
def teacher():
    layers = [Input((6,)), Dense(32, activation="relu"), Dropout(0.3), Dense(CLASSES, activation="softmax")]
    model = Sequential(layers, seed=0)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=15, verbose=0)
    return model


def linear_teacher(seed):
    model = Sequential([Input((6,)), Dense(CLASSES)], seed=seed)
    model.compile(optimizer="adam", loss=SparseCategoricalCrossentropy(from_logits=True))
    model.fit(X, Y, epochs=1, verbose=0)
    return model


def run(teacher, model=None, x=X, y=Y, **arguments):
    model = student() if model is None else model
    if "loss" not in arguments:  # what `temperature="auto"` chooses is tested in test_tuning.py
        arguments["loss"] = KnowledgeDistillation(4.0, *((0.0, 1.0) if y is None else (0.1, 0.9)))
    report = distill(teacher, model, x, y, **{"epochs": 3, "verbose": 0, **arguments})
    return model, report


# ---------------------------------------------------------------- what distill does


def test_the_student_learns_from_the_teacher(teacher):
    before = teacher.params.copy()
    model = student()
    start = model.params.copy()
    _, report = run(teacher, model, epochs=40, test_data=(X_TEST, Y_TEST), plain_student=True)
    np.testing.assert_array_equal(teacher.params, before)
    assert not np.array_equal(model.params, start)
    assert report.student.agreement > 0.7 and report.student.errors < 60
    assert report.unseen and report.teacher.agreement is None
    logits = model.predict_logits(X_TEST)
    assert report.student.errors == int((logits.argmax(axis=1) != Y_TEST).sum())
    assert report.teacher.errors == int((teacher.predict_logits(X_TEST).argmax(axis=1) != Y_TEST).sum())
    assert report.plain.parameters == report.student.parameters == model.count_params()
    assert len(report.history.history["loss"]) == len(report.plain_history.history["loss"]) == 40
    assert model.evaluate(X_TEST, Y_TEST, verbose=0)[1] == pytest.approx(report.student.accuracy)


def test_every_kind_of_teacher_gives_the_same_student(teacher):
    logits = cached_logits(teacher, X)
    first, _ = run(teacher)
    teachers = (logits, logits.tolist(), teacher.predict_logits, lambda x: teacher.predict_logits(x))
    for same in (*teachers, Ensemble([teacher])):
        other, _ = run(same)
        np.testing.assert_allclose(other.params, first.params, rtol=1e-4, atol=1e-5)
    shifted, _ = run(np.roll(logits, 1, axis=0))
    assert np.abs(shifted.params - first.params).max() > 1e-2, (
        "control: logits of the neighbour teach otherwise"
    )


def test_a_memory_map_of_logits_teaches_as_the_logits_do(teacher, tmp_path):
    logits = cached_logits(teacher, X)
    np.save(tmp_path / "logits.npy", logits)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    assert np.shares_memory(cached_logits(mapped, X), mapped), "rows are read as they are needed"
    np.testing.assert_array_equal(run(mapped)[0].params, run(logits)[0].params)


def test_a_teacher_stopped_early_teaches_as_it_was_then():
    stop = EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=True)
    early = Sequential(
        [Input((6,)), Dense(64, activation="relu"), Dense(CLASSES, activation="softmax")], seed=4
    )
    early.compile(optimizer=Adam(0.05), loss="sparse_categorical_crossentropy")
    history = early.fit(
        X, Y, epochs=60, validation_data=(X_TEST, Y_TEST), callbacks=[stop], verbose=0
    ).history
    best = int(np.argmin(history["val_loss"]))
    assert best < len(history["val_loss"]) - 1 < 59, "it was stopped, after its best epoch"
    assert early.evaluate(X_TEST, Y_TEST, verbose=0) == pytest.approx(history["val_loss"][best], rel=1e-5)
    model, report = run(early, test_data=(X_TEST, Y_TEST))
    np.testing.assert_array_equal(model.params, run(early.predict_logits(X))[0].params)
    assert report.teacher.loss == pytest.approx(history["val_loss"][best], rel=1e-5)


def test_the_uniform_teacher_smooths_labels():
    uniform = KnowledgeDistillation(temperature=1.0, hard_weight=0.8, soft_weight=0.2)
    taught, _ = run(np.zeros((200, CLASSES)), loss=uniform)
    smoothed = student()
    smoothed.compile(optimizer="adam", loss=CategoricalCrossentropy(label_smoothing=0.2))
    smoothed.fit(X, np.eye(CLASSES)[Y], epochs=3, verbose=0)
    np.testing.assert_allclose(taught.params, smoothed.params, rtol=1e-3, atol=1e-5)
    plain = student()
    plain.compile(optimizer="adam", loss=CategoricalCrossentropy())
    plain.fit(X, np.eye(CLASSES)[Y], epochs=3, verbose=0)
    assert np.abs(plain.params - smoothed.params).max() > 1e-3, "control"


def test_self_distillation(teacher):
    """A copy teaches the model it was copied from, as its logits would."""
    going_on = copy.deepcopy(teacher)
    run(teacher, going_on)
    by_logits = copy.deepcopy(teacher)
    run(teacher.predict_logits(X), by_logits)
    np.testing.assert_array_equal(going_on.params, by_logits.params)
    anew = Sequential.from_config({**teacher.get_config(), "seed": 6})
    _, report = run(teacher, anew, epochs=20, test_data=(X_TEST, Y_TEST))
    assert report.student.layers == report.teacher.layers and report.student.agreement > 0.7


def test_schedules_run_through_training(teacher):
    """Each epoch at its temperature and weights, as three trainings of one epoch each."""
    scheduled = KnowledgeDistillation(Ramp(8.0, 2.0, 2), lambda epoch: 0.1 * epoch, Ramp(1.0, 0.5, 1))
    model, _ = run(teacher, loss=scheduled)
    by_hand = student()
    by_hand.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    for epoch, (temperature, hard, soft) in enumerate([(8.0, 0.0, 1.0), (5.0, 0.1, 0.5), (2.0, 0.2, 0.5)]):
        settings = dict(temperature=temperature, hard_weight=hard, soft_weight=soft)
        by_hand.fit(X, Y, initial_epoch=epoch, epochs=epoch + 1, verbose=0, target_model=teacher, **settings)
    np.testing.assert_array_equal(model.params, by_hand.params)
    assert not np.array_equal(model.params, run(teacher, loss=KnowledgeDistillation(8.0, 0.0, 1.0))[0].params)


def test_decoupled_warms_up_in_training(teacher):
    warm = run(teacher, loss=DecoupledKD(warmup_epochs=2), epochs=2)[0].params
    by_hand = student()
    by_hand.compile(optimizer="adam", loss=DecoupledKD(4.0, 0.5, 4.0, warmup_epochs=0))
    by_hand.fit(X, Y, epochs=1, verbose=0, target_model=teacher)
    by_hand.loss = DecoupledKD(4.0, 1.0, 8.0, warmup_epochs=0)
    by_hand.fit(X, Y, initial_epoch=1, epochs=2, verbose=0, target_model=teacher)
    np.testing.assert_array_equal(warm, by_hand.params)
    assert not np.array_equal(warm, run(teacher, loss=DecoupledKD(warmup_epochs=0), epochs=2)[0].params)


def test_distill_is_fit_with_a_target_model(teacher):
    first, _ = run(teacher, loss=KnowledgeDistillation(2.0, 0.3, 0.7))
    other = student()
    other.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    settings = dict(target_model=teacher, temperature=2.0, hard_weight=0.3, soft_weight=0.7)
    other.fit(X, Y, epochs=3, verbose=0, **settings)
    np.testing.assert_array_equal(first.params, other.params)


def test_a_model_that_ends_in_logits_learns_the_same(teacher):
    first, _ = run(teacher, student(softmax=True))
    other, _ = run(teacher, student(softmax=False))
    np.testing.assert_array_equal(first.params, other.params)


def test_some_labels(teacher):
    partly = Y.copy()
    partly[50:] = -1
    model, report = run(teacher, y=partly, plain_student=True, test_data=(X_TEST, Y_TEST))
    assert report.history.history["accuracy"][-1] > 0.4, "of the labelled 50 only, else 0.25 at most"
    assert model.evaluate(X_TEST, Y_TEST, verbose=0)[1] == pytest.approx(report.student.accuracy)
    others = Y.copy()
    others[50:] = 0
    assert not np.array_equal(model.params, run(teacher, y=others)[0].params)
    plain = student()
    plain.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    again = np.arange(200) % 50  # as many steps
    plain.fit(X[again], Y[again], epochs=3, verbose=0)
    assert "its 50 labelled samples came 4.0 times an epoch" in " ".join(report.notes)
    assert report.plain.errors == int((plain.predict_logits(X_TEST).argmax(axis=1) != Y_TEST).sum())


@pytest.mark.parametrize("one_hot", [False, True])
def test_transfer_samples(teacher, one_hot):
    extra, _ = samples(60, 9)
    y = np.eye(CLASSES)[Y] if one_hot else Y
    model, _ = run(teacher, y=y, transfer=extra)
    both, labels = np.concatenate([X, extra]), np.concatenate([Y, np.full(60, -1)])
    np.testing.assert_array_equal(model.params, run(teacher, x=both, y=labels)[0].params)
    logits = cached_logits(teacher, both)
    np.testing.assert_allclose(model.params, run(logits, y=y, transfer=extra)[0].params, rtol=1e-4, atol=1e-5)
    weight = np.linspace(0.5, 1.5, 200)
    run(teacher, y=y, transfer=extra, sample_weight=weight)


def test_soft_weight_zero_never_asks_the_teacher():
    def teacher(x):
        raise AssertionError("asked")

    model = student()
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    arguments = dict(target_model=teacher, temperature=4.0, hard_weight=1.0, soft_weight=0.0)
    model.fit(X, Y, epochs=2, verbose=0, **arguments)
    other = student()
    other.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    other.fit(X, Y, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.params, other.params)


def jittery(seed=3):
    layers = [Input((6, 6)), RandomTranslation(1 / 6, 1 / 6), Flatten(), Dense(CLASSES)]
    return Sequential(layers, seed=seed)


def test_arithmetic_ensembles_teach_at_the_temperature_of_the_loss(teacher):
    other = linear_teacher(seed=8)
    ensemble = Ensemble([teacher, other])
    right = cached_logits(ensemble, X, temperature=4.0)
    np.testing.assert_allclose(run(ensemble)[0].params, run(right)[0].params, rtol=1e-4, atol=1e-5)
    wrong = cached_logits(ensemble, X, temperature=1.0)
    assert np.abs(run(ensemble)[0].params - run(wrong)[0].params).max() > 1e-3


def test_an_arithmetic_ensemble_and_a_changing_temperature_are_refused(teacher):
    changing = KnowledgeDistillation(temperature=Ramp(8.0, 2.0, epochs=2))
    members = [teacher, linear_teacher(seed=8)]
    with pytest.raises(ValueError, match='mean="geometric"'):
        run(Ensemble(members), loss=changing)
    run(Ensemble(members, mean="geometric"), loss=changing)
    with pytest.raises(
        ValueError, match='normalized_kd uses them at 1 and at 2: write Ensemble.*"geometric"'
    ):
        run(Ensemble(members), loss=NormalizedKD(temperature=2.0))
    for loss, mean in ((NormalizedKD(), "arithmetic"), (NormalizedKD(temperature=2.0), "geometric")):
        run(Ensemble(members, mean=mean), loss=loss)


@pytest.mark.parametrize(
    "loss", [DecoupledKD(), NormalizedKD(), DIST(), LogitMatching()], ids=lambda loss: loss.name
)
def test_every_distillation_loss_teaches(teacher, loss):
    model, report = run(teacher, loss=loss, epochs=30, test_data=(X_TEST, Y_TEST))
    assert report.student.agreement > 0.6 and type(loss).__name__ in report.loss
    if loss.needs_labels:
        with pytest.raises(ValueError, match="y must be given"):
            run(teacher, y=None, loss=loss)
    else:
        run(teacher, y=None, loss=loss)


# ---------------------------------------------------------------- what distill refuses


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            dict(y=None, loss=KnowledgeDistillation(4.0)),
            "y must be given, got None: .*hard_weight=0.0, soft_weight=1.0",
        ),
        (dict(loss="categorical_crossentropy"), "loss must be a distillation loss"),
        (dict(loss=CategoricalCrossentropy()), "loss must be a distillation loss"),
        (
            dict(temperature=3, loss=LogitMatching()),
            "temperature belongs to the loss, which is given: leave temperature=3 out, or loss",
        ),
        (dict(target_model=1), "target_model is what distill calls teacher"),
        (dict(y=Y[:-1]), "y must have one row per sample"),
        (dict(y=Y + CLASSES), "y must hold whole numbers in -1..3"),
        (dict(y=None, plain_student=True), "plain_student=True needs labels"),
        (dict(x=X[:, :5]), r"x must have shape \(N, 6\)"),
        (dict(validation_data=(X_TEST, Y_TEST[:-1])), "validation_data y must have one row per sample"),
        (dict(test_data=X_TEST), r"test_data must be \(x, y\)"),
        (dict(test_data=(X_TEST[:, :5], Y_TEST)), "test_data x must have shape"),
        (dict(transfer=X[:, :5]), r"transfer must have samples of shape \(6,\)"),
        (dict(transfer=X, y=np.full((200, CLASSES), 1 / CLASSES)), "y must be class indices or one-hot"),
        (dict(epochs=-1), "epochs must be >= 0"),
        (dict(validation_split=1.0), "validation_split must be < 1"),
        (dict(validation_split=-0.1), "validation_split must be >= 0, got -0.1"),
        (dict(transfer=np.full((3, 6), np.nan)), r"^transfer must be finite, got nan at index \(0, 0\)"),
        (
            dict(y=np.full(200, -1), loss=DecoupledKD()),
            "y must hold labels, got -1 for all 200 samples: decoupled",
        ),
        (
            dict(y=np.full(200, -1), loss=NormalizedKD()),
            "y must hold labels, got -1 for all 200 samples: normal",
        ),
        (
            dict(validation_data=(X_TEST, None)),
            r"validation_data must be \(x, y\), got y=None.*test_data=\(x_test",
        ),
        (
            dict(test_data=(X_TEST, Y_TEST), test_teacher=np.zeros((120, CLASSES))),
            "test_teacher is for a teacher",
        ),
        (dict(y=np.array(list("abcd"))[Y]), "y must hold real numbers, got an array .* dtype <U1"),
        (dict(class_weight={0: 2.0}, y=None), "class_weight needs y"),
    ],
)
def test_refuses_and_changes_nothing(teacher, arguments, message):
    model = student()
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    before = model.params.copy(), model.optimizer, model.loss
    with pytest.raises((ValueError, TypeError), match=message):
        run(teacher, model, **arguments)
    np.testing.assert_array_equal(model.params, before[0])
    assert model.optimizer is before[1] and model.loss is before[2]


def test_refuses_wrong_teachers(teacher):
    model = student()
    probs = teacher.predict(X)
    nan = cached_logits(teacher, X).copy()
    nan[7, 1] = np.nan
    other = Sequential([Input((6,)), Dense(CLASSES + 1)], seed=0)
    for wrong, message in (
        (model, "teacher must not be the student itself"),
        (model.predict_logits, "teacher must not be the student itself"),
        (Ensemble([teacher, model]), "teacher must not be the student itself"),
        (probs, "looks like probabilities"),
        (teacher.predict, "looks like probabilities"),
        (probs[:, :3], "student's 4 classes, got 3"),
        (other, "student's 4 classes, got 5"),
        (nan, r"teacher must be finite, got nan at index \(7, 1\)"),
        (nan[:-1] * 0, "finite|expected 200, got 199"),
        ([teacher, teacher], r"Ensemble\("),
        (Sequential, "teacher must be a model that was trained, got the class Sequential"),
        (lambda x: 3 * model.predict_logits(x), "teacher must not be the student itself"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            run(wrong, model)
    with pytest.raises(TypeError, match="student must be a Sequential"):
        distill(teacher, "student", X, Y)
    with pytest.raises(
        ValueError, match="student ends in 1 output without an activation, and y holds 0 and 1 alone"
    ):
        distill(linear_teacher(1), Sequential([Input((6,)), Dense(1)]), X, Y % 2)


@pytest.mark.parametrize("declared", [True, False], ids=["shape known", "shape from x"])
def test_x_is_scanned_by_fit_alone(teacher, monkeypatch, declared):
    """A student built for x costs no further scan."""
    x, y = samples(2500, 5)  # the teacher is shown fewer at a time
    scanned, check = [], validation.check_finite
    monkeypatch.setattr(
        validation,
        "check_finite",
        lambda name, array, *rest: scanned.append(array) or check(name, array, *rest),
    )
    first = [Input((6,))] if declared else []
    model = Sequential([*first, Dense(8, activation="relu"), Dense(CLASSES, activation="softmax")])
    run(teacher, model, x, y, epochs=1)
    assert sum(array.shape == x.shape for array in scanned) == 1
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"x must be finite, got nan at index \(3, 1\)"):
        run(teacher, None, x, y)


# ---------------------------------------------------------------- the report


def test_the_report_says_what_it_was_measured_on(teacher):
    def notes(**arguments):
        report = run(teacher, epochs=1, **arguments)[1]
        return report.unseen, " ".join(report.notes)

    assert notes(test_data=(X_TEST, Y_TEST)) == (True, "measured on the 120 samples of test_data")
    assert notes(validation_data=(X_TEST, Y_TEST)) == (True, "measured on the 120 samples of validation_data")
    assert notes(validation_split=0.25) == (True, "measured on the 50 samples of validation_split")
    unseen, text = notes()
    assert not unseen and "training samples themselves" in text
    unseen, text = notes(test_data=(np.concatenate([X_TEST, X[:7]]), np.concatenate([Y_TEST, Y[:7]])))
    assert not unseen and "7 of the 127 samples" in text
    stopping = EarlyStopping(monitor="val_loss", patience=1, restore_best_weights=True)
    unseen, text = notes(validation_data=(X_TEST, Y_TEST), callbacks=[stopping])
    assert not unseen and "EarlyStopping chose the epoch on these samples" in text
    extra = samples(50, 77)
    assert notes(validation_data=(X_TEST, Y_TEST), callbacks=[stopping], test_data=extra)[0]


def test_the_report_counts_labelled_samples(teacher):
    partly = np.where(np.arange(200) < 50, Y, -1)
    _, report = run(teacher, y=partly, epochs=1)
    assert report.student.samples == 50 and "of the 50 that have labels" in " ".join(report.notes)
    assert sum(report.student.class_errors) == report.student.errors <= 50


def test_an_array_teacher_in_the_report(teacher):
    logits = cached_logits(teacher, X)
    _, report = run(logits, test_data=(X_TEST, Y_TEST), epochs=1)
    assert report.teacher is None and "give test_teacher" in " ".join(report.notes)
    _, report = run(logits, test_data=(X_TEST, Y_TEST), test_teacher=teacher, epochs=1)
    assert report.teacher.errors == int((teacher.predict_logits(X_TEST).argmax(axis=1) != Y_TEST).sum())
    test = dict(test_data=(X_TEST, Y_TEST), epochs=1)
    for wrong, message in (
        (logits, "test_teacher must have one row per sample of the test data: expected 120, got 200"),
        (teacher.predict, "looks like probabilities"),
        (teacher.predict(X_TEST), "^test_teacher: teacher looks like probabilities"),
        ("teacher", "^test_teacher: teacher must be a model"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            run(logits, test_teacher=wrong, **test)
    _, report = run(logits, validation_split=0.25, epochs=1)
    assert report.teacher.errors == int((logits[150:].argmax(axis=1) != Y[150:]).sum())


def test_the_report_admits_when_it_did_not_help(teacher):
    useless = -20 * cached_logits(teacher, X)
    arguments = dict(loss=KnowledgeDistillation(1.0, 0.0, 1.0), plain_student=True, epochs=10)
    _, report = run(useless, test_data=(X_TEST, Y_TEST), **arguments)
    assert report.student.errors > report.plain.errors
    assert "distillation did not help here" in " ".join(report.notes)


def test_the_report_as_text_and_data(teacher):
    _, report = run(teacher, plain_student=True, test_data=(X_TEST, Y_TEST))
    data = json.loads(json.dumps(report.to_dict()))
    assert [m["role"] for m in data["models"]] == ["teacher", "plain student", "student"]
    assert data["models"][2]["errors"] == sum(data["models"][2]["class_errors"]) == report.student.errors
    assert data["models"][2]["layers"] == "6-8-4" and data["models"][2]["bytes"] == 4 * 92
    assert data["models"][2]["latency"] > 0
    text = str(report)
    for word in (
        "teacher",
        "plain student",
        "6-32-4",
        "KL to teacher",
        "errors of class",
        "KnowledgeDistillation",
    ):
        assert word in text
    lines = report.to_markdown().splitlines()
    assert lines[0].startswith("| model") and set(lines[1]) <= set("| -:")
    assert len({line.count("|") for line in lines[:5]}) == 1


# ---------------------------------------------------------------- relatives


def test_born_again():
    built = []

    def build():
        built.append(student(seed=len(built)))
        return built[-1]

    result = born_again(build, X, Y, generations=3, epochs=3, verbose=0, test_data=(X_TEST, Y_TEST))
    assert [id(m) for m in result.models] == [id(m) for m in built] and len(result.reports) == 2
    np.testing.assert_allclose(result.ensemble.predict(X[:5]).sum(axis=1), 1, rtol=1e-12)
    by_hand = student(seed=1)
    loss = KnowledgeDistillation(1.0, 0.5, 0.5)
    distill(built[0], by_hand, X, Y, loss=loss, optimizer="adam", epochs=3, verbose=0)
    np.testing.assert_array_equal(by_hand.params, built[1].params)
    one = student()
    with pytest.raises(ValueError, match="build_student must return a new model each time"):
        born_again(lambda: one, X, Y, generations=2, epochs=1, verbose=0)
    for arguments, message in (
        ((build, X, Y, 0), "generations must be >= 1"),
        ((one, X, Y, 2), "build_student must be a function that makes a new model, got <Sequential"),
        ((lambda: None, X, Y, 2), "build_student must return a Sequential, got None"),
        (
            (build, X, np.full(200, -1), 2),
            "y must hold labels to learn from without a teacher, got -1 for all 200",
        ),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            born_again(*arguments)
    with pytest.raises(ValueError, match="from_probs need a teacher, got None"):
        born_again(build, X, Y, 2, from_probs=True)


def test_what_is_said_of_the_first_teacher_ends_with_it(teacher):
    """Probabilities, and answers on the test data, are its own: the second generation has another teacher."""
    answers = teacher.predict_logits(X_TEST)
    arguments = dict(epochs=2, verbose=0, test_data=(X_TEST, Y_TEST))
    seeds = iter(range(10))
    result = born_again(
        lambda: student(next(seeds)),
        X,
        Y,
        2,
        teacher.predict(X),
        from_probs=True,
        test_teacher=answers,
        **arguments,
    )
    first, second = result.reports
    assert first.teacher.errors == int((answers.argmax(axis=1) != Y_TEST).sum())
    assert second.teacher.errors == first.student.errors != first.teacher.errors


def test_mutual_learning():
    models = [student(seed) for seed in (1, 2, 3)]
    histories = mutual_learning(models, X, Y, epochs=3, verbose=0)
    assert [len(h.history["loss"]) for h in histories] == [3, 3, 3]
    assert histories[0].epoch == [0, 1, 2]
    # Snapshots: the order of the models does not matter.
    turned = [student(seed) for seed in (3, 1, 2)]
    mutual_learning(turned, X, Y, epochs=3, verbose=0)
    np.testing.assert_allclose(turned[1].params, models[0].params, rtol=1e-4, atol=1e-5)
    # Peers pull together what labels alone leave apart.
    alone = [student(seed) for seed in (1, 2, 3)]
    mutual_learning(alone, X, Y, epochs=3, soft_weight=0.0, verbose=0)
    assert spread(models) < spread(alone)
    for wrong in ([student()], student(), None):
        with pytest.raises(ValueError, match="models must be two or more"):
            mutual_learning(wrong, X, Y)
    two = [student(1), student(2)]
    with pytest.raises(ValueError, match="y must hold labels, got none >= 0: models that know nothing yet"):
        mutual_learning(two, X, np.full(200, -1))
    for callback in (EarlyStopping(), ReduceLROnPlateau()):
        with pytest.raises(
            ValueError, match=f"callbacks must not compare epochs, got {type(callback).__name__}"
        ):
            mutual_learning(two, X, Y, callbacks=[callback], validation_split=0.2)
    one = student()
    with pytest.raises(ValueError, match="different models"):
        mutual_learning([one, one], X, Y)


def spread(models):
    probs = [model.predict(X) for model in models]
    return np.mean(np.std(probs, axis=0))


# ---------------------------------------------------------------- pictures


# ---- data frames, series, lists ----


class Frame:
    """Rows behind labels, as pandas has them: what asks by position gets a KeyError."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.shape, self.ndim, self.dtype = self.values.shape, self.values.ndim, self.values.dtype

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        raise KeyError(key)


SOME = np.where(np.arange(len(Y)) % 3 == 0, -1, Y)
"""A third of the labels is unknown."""
SOME_TEST = np.where(np.arange(len(Y_TEST)) % 3 == 0, -1, Y_TEST)


@pytest.mark.parametrize("kind", [Frame, np.ndarray.tolist])
@pytest.mark.parametrize(
    "held_out", [{}, {"validation_split": 0.25}, {"validation_data": (X_TEST, SOME_TEST)}]
)
def test_whatever_holds_the_rows_the_result_is_that_of_arrays(teacher, kind, held_out):
    def made(x, y, weight, held_out):
        model, models = student(), [student(1), student(2)]
        options = dict(epochs=2, verbose=0, sample_weight=weight, **held_out)
        report = distill(
            teacher, model, x, y, plain_student=True, transfer=X_TEST[:9] if not held_out else None, **options
        )
        born = born_again(lambda: student(5), x, y, generations=2, **options)
        histories = mutual_learning(models, x, y, **options)
        figures = [
            [f.errors, f.loss] for f in (report.student, report.plain, *(r.student for r in born.reports))
        ]
        params = [each.params for each in (model, *models, *born.models)]
        return figures, [each.history for each in (report.history, report.plain_history, *histories)], params

    x, weight = X.astype(np.float64), np.linspace(0.5, 1.5, len(X))
    given = {
        name: tuple(map(kind, pair)) if isinstance(pair, tuple) else pair for name, pair in held_out.items()
    }
    expected = made(x, SOME, weight, held_out)
    found = made(kind(x), kind(SOME), kind(weight), given)
    assert found[:2] == expected[:2]
    for one, other in zip(found[2], expected[2], strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(KeyError):  # control
        Frame(x)[:3]


def test_rows_of_probabilities_in_a_frame(teacher):
    rows = np.eye(CLASSES)[Y]
    reports = [
        distill(teacher, student(), x, y, epochs=1, verbose=0, plain_student=True)
        for x, y in ((X, rows), (Frame(X), Frame(rows)), (X, Y))
    ]
    assert len({(r.student.errors, r.plain.errors) for r in reports}) == 1


# ---- what is said ----


def test_the_epochs_printed_say_whose_they_are(teacher, capsys):
    def printed(call, *given, **options):
        capsys.readouterr()
        call(*given, epochs=1, verbose=2, **options)
        return [line for line in capsys.readouterr().out.splitlines() if not line.startswith("minidl:")]

    distilled, generations = "student (distilled, T 4, 0.5/0.5)", [f"generation {n} of 3" for n in (1, 2, 3)]
    for call, given, options, titles in (
        (distill, (teacher, student(), X, Y), dict(temperature=4.0), [distilled]),
        (
            distill,
            (teacher, student(), X, Y),
            dict(plain_student=True, temperature=4.0),
            [distilled, "plain student (labels alone)"],
        ),
        (born_again, (lambda: student(5), X, Y), dict(generations=3), generations),
        (mutual_learning, ([student(1), student(2)], X, Y), {}, ["model 1 of 2", "model 2 of 2"]),
    ):
        lines = printed(call, *given, **options)
        assert [line.split("  epoch 1/1 - ")[0] for line in lines] == titles
    mine = [ProgressBar(title="mine")]
    lines = printed(distill, teacher, student(), X, Y, temperature=4.0, callbacks=mine)
    assert [line.split("  ")[0] for line in lines] == ["mine"], "a bar of the user's own stays the only one"
    capsys.readouterr()
    distill(teacher, student(), X, Y, epochs=1, verbose=0, plain_student=True)
    assert capsys.readouterr().out == ""


def test_an_unknown_argument_is_told_of_the_function_that_was_called(teacher):
    for call, given, name in (
        (distill, (teacher, student(), X, Y), "distill"),
        (born_again, (student, X, Y), "born_again"),
        (mutual_learning, ([student(1), student(2)], X, Y), "mutual_learning"),
    ):
        wanted = rf"^{name}\(\) got an unexpected keyword argument 'validation_dat': did you mean 'validation_data'"
        with pytest.raises(TypeError, match=wanted):
            call(*given, validation_dat=(X_TEST, Y_TEST))
