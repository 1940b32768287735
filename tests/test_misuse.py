"""What published distillation libraries, or their users, got wrong: a test for each, named after it.

Each misuse is either refused, with an error that says what was meant and what to write, or harmless by
design. z are the student's logits, v the teacher's; q and p their softmax at temperature T.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util

import numpy as np
import pytest
import reference

from minidl.callbacks import Callback, EarlyStopping, ModelCheckpoint
from minidl.distillation import born_again, distill, mutual_learning
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    RandomTranslation,
    Rescaling,
    Softmax,
)
from minidl.losses import (
    DIST,
    DecoupledKD,
    KnowledgeDistillation,
    LogitMatching,
    NormalizedKD,
    Ramp,
    SparseCategoricalCrossentropy,
)
from minidl.models import Sequential
from minidl.optimizers import SGD
from minidl.sweep import distill_sweep
from minidl.teachers import Ensemble, as_teacher, cached_logits, save_logits

CLASSES = 4
CENTRES = 2.5 * np.random.default_rng(11).normal(size=(CLASSES, 6))


def samples(count, seed):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, CLASSES, count)
    return (CENTRES[y] + draw.normal(size=(count, 6))).astype(np.float32), y


X, Y = samples(160, 1)
X_TEST, Y_TEST = samples(80, 2)
IMAGES = np.random.default_rng(3).normal(size=(40, 6, 6)).astype(np.float32)
IMAGE_LABELS = np.arange(40) % CLASSES
SOFT_ONLY = KnowledgeDistillation(4.0, 0.0, 1.0)


def student(seed=3, dropout=0.0, softmax=True):
    last = Dense(CLASSES, activation="softmax" if softmax else None)
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dropout(dropout), last], seed=seed)


def train(model, x=X, y=Y, epochs=8):
    model.compile(optimizer="adam", loss=SparseCategoricalCrossentropy(model.final_activation != "softmax"))
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


@pytest.fixture(scope="module")
def teacher():
    last = Dense(CLASSES, activation="softmax")
    return train(Sequential([Input((6,)), Dense(32, activation="relu"), Dropout(0.5), last], seed=0))


@pytest.fixture(scope="module")
def image_teacher():
    return train(Sequential([Input((6, 6)), Flatten(), Dense(CLASSES)], seed=1), IMAGES, IMAGE_LABELS, 1)


def taught(teacher, model=None, x=X, y=Y, **arguments):
    model = student() if model is None else model
    if "loss" not in arguments:
        arguments["loss"] = KnowledgeDistillation(4.0, *((0.0, 1.0) if y is None else (0.1, 0.9)))
    distill(teacher, model, x, y, **{"epochs": 2, "verbose": 0, **arguments})
    return model.params.copy()


def jittery(*first, seed=3):
    layers = [Input((6, 6)), *(first or [RandomTranslation(1 / 6, 1 / 6)]), Flatten(), Dense(CLASSES)]
    return Sequential(layers, seed=seed)


# ---------------------------------------------------------------- mistakes in the formula

# A student of one Dense layer takes one step of gradient descent with rate 1 on all samples: its bias moves by
# -sum of dlogits, its weights by -x' dlogits, and the loss fit reports is the value. Both are compared with the
# formula, differentiated numerically, and with what each published mistake would give.
V = np.random.default_rng(5).normal(0, 2, (12, CLASSES))
STEP_X, STEP_Y = np.random.default_rng(6).normal(size=(12, 3)), np.arange(12) % CLASSES


def value(z, t=4.0, t_teacher=None, hard=0.1, soft=0.9, square=True, reduce=np.sum, reverse=False, map=None):
    v = V
    if map is not None:
        z, v = map(z), map(v)
    log_q, log_p = reference.log_softmax(z, t), reference.log_softmax(v, t_teacher or t)
    if reverse:
        log_q, log_p = log_p, log_q
    kl = reduce(np.exp(log_p) * (log_p - log_q), axis=1)
    ce = reference.crossentropy(np.eye(CLASSES)[STEP_Y], z)
    return (hard * ce + soft * (t * t if square else 1) * kl).mean()


def step_is(loss, formula):
    """Whether fit's value and step are those of ``formula``, a function of the logits."""
    model = Sequential([Input((3,)), Dense(CLASSES)], dtype="float64", seed=2)
    before = model.get_weights()
    model.compile(optimizer=SGD(1.0), loss=loss)
    reported = model.fit(STEP_X, STEP_Y, batch_size=12, target_model=V, verbose=0).history["loss"][0]
    z = STEP_X @ before[0] + before[1]
    dlogits = reference.differences(formula, z)
    after = [before[0] - STEP_X.T @ dlogits, before[1] - dlogits.sum(axis=0)]
    found = [reported, *(w.ravel() for w in model.get_weights())]
    expected = [formula(z), *(w.ravel() for w in after)]
    return all(np.allclose(f, e, rtol=1e-6, atol=1e-7) for f, e in zip(found, expected, strict=True))


KD = KnowledgeDistillation(4.0, 0.1, 0.9)


def test_t_squared_left_out():
    assert step_is(KD, value)
    assert not step_is(KD, lambda z: value(z, square=False))


def test_kl_averaged_over_classes():
    assert step_is(KD, value)
    assert not step_is(KD, lambda z: value(z, reduce=np.mean))


def test_temperature_on_one_side_only():
    assert step_is(KD, value)
    assert not step_is(KD, lambda z: value(z, t_teacher=1.0))
    assert not step_is(KnowledgeDistillation(1.0, 0.1, 0.9), lambda z: value(z, t=1.0, t_teacher=4.0))


def test_kl_reversed():
    assert step_is(KD, value)
    assert not step_is(KD, lambda z: value(z, reverse=True))


def test_weights_of_the_two_terms_exchanged():
    assert step_is(KD, value)
    assert not step_is(KD, lambda z: value(z, hard=0.9, soft=0.1))


def test_standardisation_with_the_wrong_ddof():
    loss = KnowledgeDistillation(2.0, 0.0, 1.0, standardize=True)

    def standardized(ddof):
        def map(z):
            return (z - z.mean(axis=1, keepdims=True)) / (z.std(axis=1, ddof=ddof, keepdims=True) + 1e-7)

        return lambda z: value(z, t=2.0, hard=0.0, soft=1.0, map=map)

    assert step_is(loss, standardized(1))
    assert not step_is(loss, standardized(0))


def test_dkd_infinite_at_p_t_1():
    """The teacher is so sure that p_t rounds to 1; the usual log(1 - p_t) is then log 0."""
    for sure in (50.0, 1e4):
        v = np.array([[sure, 0.0, 0.0], [sure, 0.0, 1.0]])
        assert np.any(1 - reference.softmax(v)[:, 0] == 0)
        for z in (v, -v, np.zeros_like(v)):
            loss, dlogits = DecoupledKD(1.0).value_and_grad(z, [0, 0], v)
            assert np.isfinite(loss) and np.isfinite(dlogits).all()
    np.testing.assert_allclose(
        DecoupledKD(1.0, hard_weight=0.0).value_and_grad(v, [0, 0], v)[1], 0, atol=1e-12
    )


def test_dkd_undefined_for_two_classes():
    """Of two classes there is one other, and nothing to compare among the others: that term is 0, not 0/0."""
    z, v = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([[2.0, 0.0], [1.0, 1.0]])
    both = DecoupledKD(hard_weight=0.0).value_and_grad(z, [0, 1], v)
    target_only = DecoupledKD(hard_weight=0.0, nontarget_weight=0.0).value_and_grad(z, [0, 1], v)
    as_kd = KnowledgeDistillation(4.0, 0.0, 1.0).value_and_grad(z, None, v)
    assert both[0] == pytest.approx(target_only[0]) == pytest.approx(as_kd[0]) and both[0] > 0
    np.testing.assert_allclose(both[1], as_kd[1], atol=1e-14)


# ---------------------------------------------------------------- the wrong thing as teacher


def test_probabilities_for_logits(teacher):
    """A softmax of a softmax is nearly uniform and teaches next to nothing."""
    probs = teacher.predict(X)
    for wrong in (
        probs,
        probs.tolist(),
        probs.astype(np.float16),
        teacher.predict,
        Ensemble([teacher]).predict,
    ):
        with pytest.raises(ValueError, match="looks like probabilities.*Logits are wanted.*from_probs=True"):
            taught(wrong)
    with pytest.raises(ValueError, match="looks like probabilities"):
        Ensemble([probs, teacher])
    z = teacher.predict_logits(X)
    with pytest.raises(ValueError, match="teacher_logits must be logits, got rows .* probabilities"):
        KnowledgeDistillation().value_and_grad(z, Y, probs)
    batch = student()
    batch.compile("adam", KD)
    with pytest.raises(ValueError, match="teacher_logits must be logits, got rows .* probabilities"):
        batch.train_on_batch(X, Y, teacher_logits=probs)
    # A model that ends in softmax gives what stands before it; one that applies it twice has no logits to give.
    np.testing.assert_array_equal(taught(teacher), taught(z))
    for more in ([Softmax()], [Activation("softmax")], [Dropout(0.5)]):
        twice = Sequential([Input((6,)), Dense(CLASSES, activation="softmax"), *more], seed=1)
        with pytest.raises(ValueError, match="gives probabilities where logits are wanted: let softmax be"):
            taught(twice)
        with pytest.raises(
            ValueError, match="the model's are probabilities already: let softmax be its last"
        ):
            taught(teacher, Sequential.from_config(twice.get_config()))
    # With from_probs=True they are what they are.
    for given in (as_teacher(probs, from_probs=True), as_teacher(teacher.predict, from_probs=True)):
        np.testing.assert_allclose(taught(given), taught(teacher), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(taught(probs, from_probs=True), taught(as_teacher(probs, from_probs=True)))
    with pytest.raises(ValueError, match="from_probs=True is for arrays and functions"):
        taught(teacher, from_probs=True)


def test_teacher_and_student_swapped(teacher):
    before = teacher.params.copy()
    for wrong in (student(), Ensemble([student(1), student(2)])):  # never trained, as a student is
        with pytest.raises(ValueError, match=r"look swapped.*distill\(teacher, student, x, y\)"):
            taught(wrong, teacher)
        with pytest.raises(ValueError, match=r"look swapped.*student.fit\(x, y, target_model=teacher\)"):
            teacher.fit(X, Y, target_model=wrong, verbose=0)
    ignorant = student()
    ignorant.params[...] = 0  # not its initial weights, but of no use
    ignorant.layers[-1].bias[3] = 1e-3
    with pytest.raises(ValueError, match=r"look swapped.*distill\(teacher, student, x, y\)"):
        taught(ignorant, teacher)
    np.testing.assert_array_equal(teacher.params, before)
    assert not np.array_equal(taught(teacher), student().params), "control: the right order is taken"
    going_on = student()
    for epoch in (0, 1):  # a student that was taught before is no teacher, whoever taught it
        with pytest.warns(UserWarning, match="still has its initial weights"):
            taught(student(1), going_on, initial_epoch=epoch, epochs=epoch + 1)
    with pytest.warns(UserWarning, match="still has its initial weights"):
        taught(student(1), going_on, epochs=1)


def test_teacher_that_was_never_trained(teacher):
    for wrong in (student(9), Ensemble([teacher, student(9)])):
        with pytest.warns(UserWarning, match="still has its initial weights and knows nothing to teach"):
            report = distill(wrong, student(), X, Y, epochs=1, verbose=0)
        assert "still has its initial weights" in " ".join(report.notes)
        with pytest.warns(UserWarning, match="still has its initial weights"):
            fitted = student()
            fitted.compile("adam", "sparse_categorical_crossentropy")
            fitted.fit(X, Y, target_model=wrong, verbose=0)
    with pytest.raises(ValueError, match="has no weights yet: train it before it teaches"):
        taught(Sequential([Dense(CLASSES)], seed=1))
    with pytest.warns(UserWarning, match="still has its initial weights"):  # not swapped: one member knows
        taught(Ensemble([teacher, student(9)]), train(student(8), epochs=1))
    by_hand = student(9)
    by_hand.set_weights([weight + 0.1 for weight in by_hand.get_weights()])
    for trained in (teacher, by_hand, teacher.predict_logits(X)):
        report = distill(trained, student(), X, Y, epochs=1, verbose=0)
        assert "initial weights" not in " ".join(report.notes)


def test_teacher_given_other_inputs_than_it_was_trained_on(teacher):
    """Inputs of another scale, or classes in another order, give answers that look as good as any."""
    for wrong in (lambda x: teacher.predict_logits(-x), np.roll(teacher.predict_logits(X), 1, axis=1)):
        report = distill(wrong, student(), X, Y, epochs=1, verbose=0)
        assert report.teacher.accuracy < 0.3
        assert "hardly more than by chance: does it get its inputs as it was trained" in " ".join(
            report.notes
        )
    report = distill(teacher, student(), X, Y, epochs=1, verbose=0)
    assert "by chance" not in " ".join(report.notes)


def test_alpha_means_opposite_things(teacher):
    with pytest.raises(
        TypeError, match=r"alpha means the labels' weight in some.*hard_weight=..., soft_weight"
    ):
        taught(teacher, alpha=0.1)


def test_teacher_and_student_aliased(teacher):
    model = student()
    before = model.params.copy()
    for same in (model, model.predict_logits, Ensemble([teacher, model]), Ensemble([Ensemble([model])])):
        with pytest.raises(ValueError, match="teacher must not be the student itself: teach a copy"):
            taught(same, model)
        with pytest.raises(ValueError, match="teacher must not be the student itself"):
            model.compile("adam", KnowledgeDistillation())
            model.fit(X, Y, target_model=same, verbose=0)
    np.testing.assert_array_equal(model.params, before)
    with pytest.raises(ValueError, match="already belongs to a model"):  # nor can two models share a layer
        Sequential([Input((6,)), teacher.layers[0], Dense(CLASSES)])
    learner = copy.deepcopy(teacher)
    taught(teacher, learner)  # a copy shares nothing
    assert not np.array_equal(teacher.params, learner.params)


# ---------------------------------------------------------------- the teacher is not touched


@contextlib.contextmanager
def untouched(*models):
    """The parameters, the optimizer's state and the answers of models, bit for bit."""

    def state(model):
        slots = model.optimizer.slots if model.optimizer is not None and model.optimizer.built else ()
        arrays = [model.params, *slots, model.predict_logits(X[:5].reshape(5, *model.input_shape))]
        steps = getattr(model.optimizer, "iterations", 0)
        return [array.tobytes() for array in arrays], steps, model.epoch, model.loss

    before = [state(model) for model in models]
    yield
    assert [state(model) for model in models] == before


class OthersStay(Callback):
    """Of models that learn in turn, none but the one that is being trained may change."""

    def __init__(self, models):
        super().__init__()
        self.models, self.seen = models, 0

    def others(self):
        return [model.params.tobytes() for model in self.models if model is not self.model]

    def on_epoch_begin(self, epoch, logs=None):
        self.before = self.others()

    def on_epoch_end(self, epoch, logs=None):
        assert self.others() == self.before
        self.seen += 1


def mutually(teacher):
    models = [student(1, dropout=0.3), student(2), student(4)]
    watch = OthersStay(models)
    mutual_learning(models, X, Y, epochs=2, verbose=0, callbacks=[watch])
    assert watch.seen == 6


def born(teacher):
    result = born_again(lambda: student(5), X, Y, 2, teacher, epochs=2, verbose=0, plain_student=True)
    first = result.models[0]
    with untouched(first):
        taught(first)


def chain(teacher):
    assistant = student(5)
    taught(teacher, assistant)
    with untouched(assistant):
        taught(assistant, student(6))


def stopped_early(teacher):
    early, stop = student(7), EarlyStopping(monitor="val_loss", patience=1, restore_best_weights=True)
    early.compile("adam", "sparse_categorical_crossentropy")
    early.fit(X, Y, epochs=3, validation_data=(X_TEST, Y_TEST), callbacks=[stop], verbose=0)
    with untouched(early, teacher):
        taught(Ensemble([early, teacher]))


PARTLY = np.where(np.arange(len(Y)) < 40, Y, -1)
REGIMES = {
    "cached": lambda teacher: taught(teacher),
    "from fit": lambda teacher: (
        (m := student()).compile("adam", "sparse_categorical_crossentropy"),
        m.fit(X, Y, target_model=teacher, verbose=0),
    ),
    "soft only": lambda teacher: taught(teacher, y=None),
    "some labels": lambda teacher: taught(teacher, y=PARTLY),
    "extra unlabelled data": lambda teacher: taught(teacher, transfer=X_TEST),
    "with everything": lambda teacher: taught(
        teacher,
        validation_split=0.2,
        plain_student=True,
        test_data=(X_TEST, Y_TEST),
        sample_weight=np.ones(160),
    ),
    "every loss": lambda teacher: [
        taught(teacher, loss=loss) for loss in (DecoupledKD(), NormalizedKD(), DIST(), LogitMatching())
    ],
    "its bound method": lambda teacher: taught(teacher.predict_logits),
    "ensemble": lambda teacher: taught(Ensemble([teacher, teacher.predict_logits(X)])),
    "self-distillation": lambda teacher: taught(teacher, copy.deepcopy(teacher)),
    "born again": born,
    "through an assistant": chain,
    "stopped early": stopped_early,
    "mutual learning": mutually,
    "sweep": lambda teacher: distill_sweep(
        teacher, student(), X, Y, (4.0,), seeds=(0,), epochs=1, validation_data=(X_TEST, Y_TEST), processes=1
    ),
}


@pytest.mark.parametrize("regime", REGIMES)
def test_teacher_updated(teacher, regime):
    with untouched(teacher):
        REGIMES[regime](teacher)


def test_logits_that_teach_are_not_written_to(teacher):
    for logits in (
        cached_logits(teacher, X),
        np.zeros((160, CLASSES), np.float32),
    ):  # the second smooths labels
        kept = logits.copy()
        logits.flags.writeable = False
        for loss in (
            KD,
            KnowledgeDistillation(standardize=True),
            DecoupledKD(),
            NormalizedKD(),
            DIST(),
            LogitMatching(),
        ):
            taught(logits, loss=loss)
            taught(Ensemble([logits, logits]), loss=KD)
        np.testing.assert_array_equal(logits, kept)


def test_teacher_updated_while_it_teaches_online(image_teacher):
    before = image_teacher.params.tobytes()
    for online in (image_teacher, Ensemble([image_teacher, image_teacher])):
        distill(online, jittery(), IMAGES, IMAGE_LABELS, epochs=2, verbose=0)
    models = [jittery(seed=1), jittery(seed=2)]
    watch = OthersStay(models)
    mutual_learning(models, IMAGES, IMAGE_LABELS, epochs=2, verbose=0, callbacks=[watch])
    assert watch.seen == 4 and image_teacher.params.tobytes() == before


def test_a_teacher_that_is_updated_is_seen(teacher):
    changed = copy.deepcopy(teacher)
    with pytest.raises(AssertionError), untouched(changed):
        changed.params[0] = np.nextafter(changed.params[0], np.float32(np.inf))


def test_teacher_left_with_dropout_on(teacher):
    first, second = cached_logits(teacher, X), cached_logits(teacher, X)
    np.testing.assert_array_equal(first, second)
    with_dropout = teacher.forward(X, training=True, logits=True)
    assert np.abs(with_dropout - first).max() > 0.1, "control: this teacher's dropout is worth turning off"
    np.testing.assert_array_equal(taught(teacher), taught(first))
    assert not np.array_equal(taught(teacher), taught(with_dropout))


class Part:
    """As much of a PyTorch module as is looked at."""

    def __init__(self, *parts):
        self.parts, self.training = parts, True

    def modules(self):
        return [self, *self.parts]

    def eval(self):
        for part in self.modules():
            part.training = False
        return self

    def __call__(self, x):
        return x[:, :CLASSES]


Part.__module__ = "torch.nn.modules"
FakeDropout = type("Dropout", (Part,), {"__module__": "torch.nn.modules"})
FakeBatchNorm = type("BatchNorm1d", (Part,), {"__module__": "torch.nn.modules"})


def test_a_function_around_a_module_with_dropout_on():
    """minidl cannot turn off what a user's function calls, but it can see a module in training mode."""
    for layer in (FakeDropout(), FakeBatchNorm()):
        net = Part(layer)
        name = type(layer).__name__
        for function in (lambda x: net(x), net.__call__):  # noqa: B023
            with pytest.raises(
                ValueError, match=rf"whose {name} is in training mode: write \w+.eval\(\) first"
            ):
                taught(function)
        net.eval()
        taught(lambda x: net(x))  # noqa: B023
    early = as_teacher(lambda x: later(x))  # what it calls is not there yet
    later = harmless = Part()
    assert early.logits(X).shape == (160, CLASSES)
    taught(lambda x: harmless(x))  # in training mode, without a layer that would care
    careful = Part(FakeDropout())
    taught(lambda x: careful.eval()(x))  # it sees to it by itself


def test_a_real_module_with_dropout_on():
    if importlib.util.find_spec("torch") is None:  # the test above has what is looked at of a module
        return
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(6, CLASSES), torch.nn.Dropout(0.5))

    def wrapped(x):
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    before = [parameter.detach().clone() for parameter in net.parameters()]
    with pytest.raises(
        ValueError, match=r"'net', whose Dropout is in training mode: write net.eval\(\) first"
    ):
        taught(wrapped)
    net.eval()
    np.testing.assert_array_equal(taught(wrapped), taught(wrapped(X)))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    with pytest.raises(
        TypeError, match=r"is a PyTorch module: put it in eval mode, module.eval\(\), and wrap it"
    ):
        taught(net)


def test_student_left_in_inference_mode_after_validation(teacher):
    """Dropout goes on after an epoch is validated: the runs with and without are equal."""
    without = taught(teacher, student(dropout=0.4), epochs=3)
    for arguments in (dict(validation_data=(X_TEST, Y_TEST)), dict(test_data=(X_TEST, None))):
        np.testing.assert_array_equal(taught(teacher, student(dropout=0.4), epochs=3, **arguments), without)
    off_after_the_first = student(dropout=0.4)
    taught(teacher, off_after_the_first, epochs=1)
    off_after_the_first.layers[1].rate = 0.0
    off_after_the_first.fit(X, Y, initial_epoch=1, epochs=3, target_model=teacher, verbose=0)
    assert not np.array_equal(off_after_the_first.params, without), "control"


# ---------------------------------------------------------------- the logit cache


def test_cached_logits_misaligned_by_shuffling(teacher):
    """They are kept by sample index: shuffled batches, subsets and held-out rows take their own."""
    logits = cached_logits(teacher, X)
    right = taught(teacher.predict_logits, epochs=3)
    np.testing.assert_allclose(taught(logits, epochs=3), right, rtol=1e-4, atol=1e-5)
    # in any order of the samples; in one batch, so that their order changes the sums by rounding alone
    order = np.random.default_rng(5).permutation(len(X))
    whole = dict(epochs=1, batch_size=len(X))
    first = taught(logits, **whole)
    np.testing.assert_allclose(
        taught(logits[order], x=X[order], y=Y[order], **whole), first, rtol=1e-3, atol=1e-5
    )
    assert np.abs(taught(logits, x=X[order], y=Y[order], **whole) - first).max() > 1e-4, "control: misaligned"
    # a subset, and what validation_split leaves
    np.testing.assert_array_equal(taught(logits[order[:50]], x=X[order[:50]], y=Y[order[:50]]),
                                  taught(teacher, x=X[order[:50]], y=Y[order[:50]]))  # fmt: skip
    spoilt = logits.copy()
    spoilt[120:] = spoilt[120:, ::-1]
    held_out = dict(validation_split=0.25, shuffle=True)
    np.testing.assert_array_equal(taught(spoilt, **held_out), taught(logits, **held_out))
    assert not np.array_equal(taught(spoilt), taught(logits)), "control: without the split those rows count"
    with pytest.raises(ValueError, match="one row per sample.*expected 160, got 120"):
        taught(logits[:120])


def test_cached_logits_stale_under_augmentation(image_teacher):
    """A student that augments its inputs is taught online, on the inputs as it sees them."""
    seen = []

    def watched(batch):
        seen.append(batch.copy())
        return image_teacher.predict_logits(batch)

    distill(watched, jittery(), IMAGES, IMAGE_LABELS, epochs=2, batch_size=40, verbose=0)
    batches = [
        b for b in seen if len(b) == 40 and (b == 0).all(axis=2).any() and not np.array_equal(b, IMAGES)
    ]
    assert len(batches) >= 2 and not np.array_equal(batches[0], batches[1]), "shifted anew in each epoch"
    logits = image_teacher.predict_logits(IMAGES)
    for cached in (logits, Ensemble([logits, logits]), Ensemble([image_teacher, logits])):
        for model in (jittery(), jittery(GaussianNoise(0.1))):
            with pytest.raises(ValueError, match="give the teacher itself.*or leave that layer out"):
                distill(cached, model, IMAGES, IMAGE_LABELS, epochs=1, verbose=0)
    # dropout regularises the student; the teacher's answer to a sample is the same in every epoch
    plain = Sequential([Input((6, 6)), Flatten(), Dropout(0.2), Dense(CLASSES)], seed=1)
    distill(logits, plain, IMAGES, IMAGE_LABELS, epochs=1, verbose=0)


def test_augmentation_behind_other_layers(image_teacher):
    """The teacher is to see what the student sees; what other layers made of it is no input of the teacher."""
    model = jittery(Rescaling(0.5, name="scale"), RandomTranslation(0.2, 0.2, name="shift"))
    before = model.params.copy()
    with pytest.raises(
        ValueError, match="'shift' augments what 'scale' has made.*put 'shift' before 'scale'"
    ):
        distill(image_teacher, model, IMAGES, IMAGE_LABELS, epochs=1, verbose=0)
    np.testing.assert_array_equal(model.params, before)
    right = jittery(RandomTranslation(0.2, 0.2), Rescaling(0.5))
    distill(image_teacher, right, IMAGES, IMAGE_LABELS, epochs=1, verbose=0)


def test_stale_logits_from_a_file(teacher, tmp_path):
    from minidl.teachers import load_logits

    path = tmp_path / "logits.npz"
    trained_on = copy.deepcopy(teacher)
    save_logits(path, cached_logits(trained_on, X), X, trained_on)
    np.testing.assert_array_equal(taught(load_logits(path, X, trained_on)), taught(teacher))
    with pytest.raises(ValueError, match="computed from another x; compute them again"):
        load_logits(path, X[::-1], trained_on)
    trained_on.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match="another teacher, or it was trained since; compute them again"):
        load_logits(path, X, trained_on)


# ---------------------------------------------------------------- labels and weights


def test_sample_weight_ignored(teacher):
    """Of both terms: a sample of weight 0 does not count, whatever its label and its teacher say."""
    logits = cached_logits(teacher, X)
    weight = np.ones(160)
    np.testing.assert_array_equal(taught(logits, sample_weight=weight), taught(logits))
    weight[:20] = 0
    wrong_logits, wrong_labels = logits.copy(), Y.copy()
    wrong_logits[:20], wrong_labels[:20] = wrong_logits[:20, ::-1], (Y[:20] + 1) % CLASSES
    for loss in (KD, SOFT_ONLY, DecoupledKD(), NormalizedKD(), LogitMatching(hard_weight=0.5), DIST()):
        right = taught(logits, loss=loss, sample_weight=weight)
        wrong = taught(wrong_logits, y=wrong_labels, loss=loss, sample_weight=weight)
        np.testing.assert_allclose(wrong, right, rtol=1e-6, atol=1e-7)
        assert not np.allclose(taught(wrong_logits, y=wrong_labels, loss=loss), taught(logits, loss=loss)), (
            "control"
        )


def test_class_weight_ignored(teacher):
    by_class = {0: 2.0, 2: 0.25}
    by_sample = np.array([by_class.get(label, 1.0) for label in Y])
    for loss in (KD, DecoupledKD()):
        with_classes = taught(teacher, loss=loss, class_weight=by_class)
        np.testing.assert_array_equal(with_classes, taught(teacher, loss=loss, sample_weight=by_sample))
        assert not np.array_equal(with_classes, taught(teacher, loss=loss))


def test_soft_only_training_needs_no_labels(teacher):
    unlabelled = taught(teacher, y=None)
    np.testing.assert_array_equal(unlabelled, taught(teacher, y=(Y + 1) % CLASSES, loss=SOFT_ONLY))
    np.testing.assert_array_equal(unlabelled, taught(teacher, y=np.full(160, -1), loss=SOFT_ONLY))
    model = student()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    soft = dict(target_model=teacher, temperature=SOFT_ONLY.temperature, hard_weight=0.0, soft_weight=1.0)
    history = model.fit(X, epochs=2, verbose=0, **soft).history
    assert list(history) == ["loss"], "no accuracy without labels to compare with"
    np.testing.assert_array_equal(model.params, unlabelled)
    history = model.fit(X, epochs=1, verbose=0, validation_data=(X_TEST, Y_TEST), **soft).history
    assert list(history) == ["loss", "val_loss", "val_accuracy"]
    model.compile("adam", SOFT_ONLY, metrics=["accuracy"])
    assert len(model.train_on_batch(X, teacher_logits=cached_logits(teacher, X))) == 1


def test_labels_missing_where_the_loss_needs_them(teacher):
    model = student()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    without = {
        KD: r"learns from labels too \(hard_weight is 0.1, not 0\); without labels write hard_weight=0.0, soft_w",
        DIST(): r"dist learns from labels too \(hard_weight is 1, not 0\); without labels write hard_weight=0.0$",
        DecoupledKD(): "decoupled_kd treats the labelled class apart; without labels write loss=KnowledgeDist",
        NormalizedKD(hard_weight=0): "normalized_kd treats the labelled class apart; without labels write",
    }
    for loss, message in without.items():
        with pytest.raises(ValueError, match="y must be given, got None: .*" + message):
            distill(teacher, model, X, None, loss=loss, verbose=0)
        model.compile("adam", loss)
        with pytest.raises(ValueError, match="y must be given, got None: .*" + message):
            model.fit(X, target_model=teacher, verbose=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="without labels write hard_weight=0.0, soft_weight=1.0"):
        model.fit(X, target_model=teacher, verbose=0)
    with pytest.raises(
        ValueError, match="y must be given, got None: the first generation learns from labels"
    ):
        born_again(student, X, None, 2)
    with pytest.raises(ValueError, match="y must be given, got None: models that know nothing yet"):
        mutual_learning([student(1), student(2)], X, None)
    soft = born_again(student, X, None, 2, teacher, loss=SOFT_ONLY, epochs=1, verbose=0)
    assert len(soft.reports) == 2
    with pytest.raises(ValueError, match="validation_split needs y, got y=None: without labels leave it out"):
        distill(teacher, model, X, None, validation_split=0.2, verbose=0)


def test_unlabelled_samples_counted_as_errors(teacher):
    """Metrics are of the samples that have labels, in training and in validation."""
    frozen = dict(optimizer=SGD(1e-30))  # so that the accuracy of an epoch is that of one model
    model = student()
    right = model.predict_logits(X).argmax(axis=1) == Y
    shuffled = np.random.default_rng(0).permutation(160)
    y = np.where(np.isin(np.arange(160), shuffled[:60]), Y, -1)
    expected = right[y >= 0].mean()
    assert abs(expected * 60 / 160 - expected) > 0.05, "control: counted among all it would be another number"
    for loss in (KD, DIST()):  # in the compiled loop, and layer by layer
        model.compile(loss=loss, metrics=["accuracy", "sparse_top_k_categorical_accuracy"], **frozen)
        history = model.fit(X, y, target_model=teacher, verbose=0, validation_split=0.5).history
        assert history["accuracy"] == [pytest.approx(right[:80][y[:80] >= 0].mean())]
        assert history["val_accuracy"] == [pytest.approx(right[80:][y[80:] >= 0].mean())]
        assert history["sparse_top_k_categorical_accuracy"] == [1.0]
        labelled = y[80:] >= 0
        assert history["val_loss"] == [
            pytest.approx(model.evaluate(X[80:][labelled], Y[80:][labelled], verbose=0)[0])
        ]
        history = model.fit(X, y, target_model=teacher, verbose=0, validation_data=(X, y)).history
        assert history["accuracy"] == history["val_accuracy"] == [pytest.approx(expected)]
        loss_and_accuracy = model.train_on_batch(X, y, teacher_logits=cached_logits(teacher, X))
        assert loss_and_accuracy[1] == pytest.approx(expected)
    none_left = np.where(np.arange(160) < 80, Y, -1)
    with pytest.raises(ValueError, match="last 80 of y, held out for validation, must have labels, got -1"):
        model.fit(X, none_left, target_model=teacher, verbose=0, validation_split=0.5)
    with pytest.raises(
        ValueError, match="y must hold whole numbers in 0..3"
    ):  # labels alone: none to leave out
        train(student(), y=y)


def test_labels_of_minus_and_plus_one_are_no_classes(teacher, capsys):
    """Half of them would count as "no label", and the accuracy would be that of a single class."""
    signs = np.where(Y > 1, 1, -1)
    model = student()
    model.compile("adam", metrics=["accuracy"])
    told = "y must hold labels of two or more classes, got 1 .* times and -1 .* times: -1 means 'no label'"
    for misuse in (
        lambda: model.fit(X, signs, target_model=teacher, verbose=0),
        lambda: model.fit(X, Y, target_model=teacher, verbose=0, validation_data=(X, signs)),
        lambda: distill(teacher, model, X, signs, verbose=0),
        lambda: distill(teacher, model, X, Y, test_data=(X, signs), verbose=0),
    ):
        with pytest.raises(ValueError, match=told):
            misuse()
    three = np.where(Y > 2, -1, Y)  # three classes from -1 on, or one of four without a label
    told = r"y is -1 for \d+ of \d+ samples and has 3 of 4 classes: -1 means 'no label'"
    for arguments in (
        dict(y=three),
        dict(y=three, verbose=2),
        dict(y=Y, validation_data=(X, three)),
    ):
        with pytest.warns(UserWarning, match=told) as seen:
            model.fit(X, target_model=teacher, **{"verbose": 0, "epochs": 3, **arguments})
        assert len(seen) == 1
    model.compile("adam", KD, metrics=["accuracy"])
    with pytest.warns(UserWarning, match="y is -1 in a batch that has not all 4 classes: -1 means"):
        model.train_on_batch(X, signs, teacher_logits=cached_logits(teacher, X))
    some = np.where(np.arange(160) < 80, Y, -1)
    model.train_on_batch(X, some, teacher_logits=cached_logits(teacher, X))  # without a warning
    model.compile("adam", metrics=["accuracy"])
    for y, line in ((some, "y is -1, no label, for 80 of 160 samples"), (Y, "no label")):
        model.fit(X, y, target_model=teacher, verbose=2)
        assert capsys.readouterr().out.count(line) == (y is some)
        model.fit(X, y, target_model=teacher, verbose=0)
        assert capsys.readouterr().out == ""


def test_nothing_to_learn_from(teacher):
    model = student()
    for loss in (
        KnowledgeDistillation(4.0, 0.0, 0.0),
        DecoupledKD(hard_weight=0.0, target_weight=0.0, nontarget_weight=0.0),
        DIST(beta=0.0, gamma=0.0, hard_weight=0.0),
        LogitMatching(0.0, 0.0),
    ):
        with pytest.raises(ValueError, match=f"of {loss.name} must not all be 0: nothing is left to learn"):
            distill(teacher, model, X, Y, loss=loss, verbose=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(
        ValueError, match="hard_weight and soft_weight of knowledge_distillation must not all"
    ):
        model.fit(X, Y, target_model=teacher, hard_weight=0.0, soft_weight=0.0, verbose=0)
    with pytest.raises(ValueError, match="hard_weight must be > 0"):  # the first epoch is of labels alone
        mutual_learning([student(1), student(2)], X, Y, hard_weight=0.0)


def test_a_schedule_that_begins_at_0_forgets_the_teacher(teacher):
    """The teacher is not asked where soft_weight is 0, but it is if it will not stay 0."""
    growing = taught(teacher, loss=KnowledgeDistillation(4.0, 0.5, Ramp(0.0, 1.0, 2)), epochs=3)
    by_hand = student()
    for epoch, soft in enumerate((0.0, 0.5, 1.0)):
        if epoch == 0:
            by_hand.compile("adam", KnowledgeDistillation(4.0, 0.5, soft))
        by_hand.fit(X, Y, initial_epoch=epoch, epochs=epoch + 1, verbose=0,
                    target_model=teacher, temperature=4.0, hard_weight=0.5, soft_weight=soft)  # fmt: skip
    np.testing.assert_array_equal(growing, by_hand.params)
    assert not np.array_equal(growing, taught(np.zeros((160, CLASSES)), loss=KnowledgeDistillation(
        4.0, 0.5, Ramp(0.0, 1.0, 2)), epochs=3))  # fmt: skip


# ---------------------------------------------------------------- the report


def test_best_epoch_picked_on_the_test_set(teacher):
    """Whatever chose the epoch was chosen on data the report cannot call unseen."""
    stop = EarlyStopping(monitor="val_loss", patience=1, restore_best_weights=True)
    val, other = (X_TEST[:40], Y_TEST[:40]), (X_TEST[40:], Y_TEST[40:])

    def said(**arguments):
        report = distill(teacher, student(), X, Y, epochs=2, verbose=0, **arguments)
        return report.unseen, " ".join(report.notes)

    assert said(validation_data=val)[0], "nothing was chosen by it"
    for data in (dict(validation_data=val), dict(validation_split=0.25)):
        unseen, notes = said(callbacks=[stop], **data)
        assert not unseen and "EarlyStopping chose the epoch on these samples" in notes
        assert "flatter the student: give test_data" in notes
    unseen, notes = said(callbacks=[stop], validation_data=val, test_data=val)
    assert not unseen and "chose the epoch on these samples" in notes and "give other test_data" in notes
    assert said(callbacks=[stop], validation_data=val, test_data=other)[0]


@pytest.mark.parametrize(
    "name, value, error, message",
    [
        ("learning_rate", 3, AttributeError, "Sequential has no attribute 'learning_rate' to set"),
        ("optimiser", "adam", AttributeError, "did you mean 'optimizer'"),
        ("name", 3, TypeError, "name must be a non-empty string, got 3"),
        ("seed", -1, ValueError, "seed must be >= 0, got -1"),
        ("seed", "x", TypeError, "seed must be an integer, got 'x'"),
        ("epoch", 1.5, TypeError, "epoch must be an integer, got 1.5"),
        ("draw_epoch", -1, ValueError, "draw_epoch must be >= 0, got -1"),
        ("dtype", "float64", AttributeError, "float32 and cannot become 'float64': make a new model"),
        ("loss", "hige", ValueError, "unknown loss 'hige'"),
        ("optimizer", 3, TypeError, "optimizer must be a name, a config or Optimizer, got 3"),
        ("metrics", [3], TypeError, "metric must be a name, a config or Metric, got 3"),
        (
            "unfinished",
            {"step": 3},
            TypeError,
            "unfinished must be None or what another model's is, got {'step': 3}",
        ),
        ("best_logs", 0.5, TypeError, "best of each log must be in a dict, got 0.5"),
        ("best_logs", {"loss": "x"}, TypeError, "best of loss must be a number, got 'x'"),
        ("stop_training", "no", TypeError, "stop_training must be True or False, got 'no'"),
    ],
)
def test_a_models_attributes_are_checked_when_they_are_set(name, value, error, message, tmp_path):
    model = student()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.save(tmp_path / "before.npz")
    with pytest.raises(error, match=message):
        setattr(model, name, value)
    model.save(tmp_path / "after.npz")
    assert (tmp_path / "after.npz").read_bytes() == (tmp_path / "before.npz").read_bytes()
    with pytest.raises((TypeError, ValueError), match="iterations must be"):
        model.optimizer.iterations = -1 if name == "seed" else "x"


def test_a_models_attributes_that_mean_something_can_be_set():
    class Own(Sequential):
        pass

    model, own = student(), Own([Dense(2, input_shape=(3,))])
    model.name, model.seed, model.loss, model.optimizer = "other", 7, "mse", "sgd"
    model.stop_training = model.trainable = True
    model.dtype, model._mine, own.tag = model.dtype, 1, 2
    assert (model.name, model.seed, own.tag) == ("other", 7, 2)
    assert model.loss.name == "mean_squared_error" and isinstance(model.optimizer, SGD)
    assert copy.deepcopy(model).name == "other"


def test_a_checkpoint_of_the_best_epoch_is_a_choice_too(teacher, tmp_path):
    best = ModelCheckpoint(tmp_path / "best.npz", monitor="val_loss", save_best_only=True)
    report = distill(
        teacher, student(), X, Y, epochs=1, verbose=0, validation_data=(X_TEST, Y_TEST), callbacks=[best]
    )
    assert not report.unseen and "ModelCheckpoint chose the epoch" in " ".join(report.notes)


def test_the_plain_student_is_held_to_the_same_samples(teacher):
    """With few labels, all at the end, a split of the labelled rows alone would train on what is held out."""
    y = np.where(np.arange(160) >= 100, Y, -1)
    report = distill(teacher, student(), X, y, epochs=2, verbose=0, validation_split=0.25, plain_student=True)
    by_hand = student()
    by_hand.compile("adam", "sparse_categorical_crossentropy")
    rows = 100 + np.arange(120) % 20  # those that have a label come again, for as many steps
    by_hand.fit(X[rows], Y[rows], epochs=2, verbose=0)
    answers = by_hand.predict_logits(X[120:]).argmax(axis=1)
    assert report.plain.samples == 40 and report.plain.errors == int((answers != Y[120:]).sum())
    assert "val_accuracy" in report.plain_history.history
    with pytest.raises(ValueError, match="validation_split keeps the last samples, and those of transfer"):
        distill(teacher, student(), X, Y, transfer=X_TEST, validation_split=0.25, verbose=0)
