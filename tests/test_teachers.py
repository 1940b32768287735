"""Teachers: what may teach, what is refused, and that logits stay with their samples."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.teachers import (
    ArrayTeacher,
    Ensemble,
    Teacher,
    as_teacher,
    cached_logits,
    fingerprint,
    load_logits,
    save_logits,
)

rng = np.random.default_rng(7)
X = rng.normal(size=(50, 6)).astype(np.float32)


class Linear:
    """A model as far as a teacher needs to be one: logits x @ w."""

    def __init__(self, seed=0, classes=4):
        self.name = f"linear_{seed}"
        self.params = np.random.default_rng(seed).normal(size=6 * classes).astype(np.float32)
        self.output_shape = (classes,)
        self.layers = []
        self.asked = 0

    def predict_logits(self, x):
        self.asked += 1
        return x @ self.params.reshape(6, -1)


def softmax(z, temperature=1.0):
    e = np.exp((z - z.max(axis=1, keepdims=True)) / temperature)
    return e / e.sum(axis=1, keepdims=True)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(axis=1)


# ---------------------------------------------------------------- each kind


def test_every_kind_gives_the_same_logits(tmp_path):
    model = Linear()
    before = model.params.copy()
    expected = model.predict_logits(X)
    file = np.lib.format.open_memmap(tmp_path / "l.npy", "w+", np.float32, expected.shape)
    file[:] = expected
    for teacher in (
        model,
        expected,
        expected.tolist(),
        file,
        lambda x: x @ model.params.reshape(6, -1),
        model.predict_logits,
        Ensemble([model], mean="geometric"),
        as_teacher(model),
    ):
        for batch_size in (7, 50, 1000):
            logits = cached_logits(teacher, X, batch_size)
            assert logits.dtype == np.float32
            np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)
    assert cached_logits(expected, X) is expected, "an array in the right dtype is not copied"
    np.testing.assert_array_equal(model.params, before)


def test_whatever_can_be_an_array_is_one():
    """A tensor, a data frame."""

    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return np.ones((50, 4), np.float32)

    np.testing.assert_array_equal(cached_logits(Tensor(), X), np.ones((50, 4)))


def test_logits_by_row():
    logits = rng.normal(size=(50, 3))
    teacher = as_teacher(logits)
    rows = rng.permutation(50)[:8]
    np.testing.assert_array_equal(teacher.logits(X[rows], rows), logits[rows])
    both = Ensemble([logits, 2 * logits], mean="geometric")
    np.testing.assert_allclose(both.logits(X[rows], rows), 1.5 * logits[rows], rtol=1e-12)
    assert (both.samples, both.classes) == (50, 3)


def test_a_function_gets_float_batches():
    seen = []

    def teacher(x):
        seen.append((x.dtype, x.flags.c_contiguous, x.shape))
        return np.eye(4)[np.zeros(len(x), int)] * 3

    cached_logits(teacher, np.zeros((10, 8), np.uint8)[:, ::2], 4)
    assert seen == [(np.dtype("f4"), True, (n, 4)) for n in (4, 4, 2)]
    seen.clear()
    cached_logits(teacher, np.zeros((3, 4), np.float32), dtype="float64")
    assert seen == [(np.dtype("f8"), True, (3, 4))]


def test_probabilities_when_asked_for():
    z = rng.normal(size=(50, 4))
    p = softmax(z)
    for teacher in (as_teacher(p, from_probs=True), as_teacher(lambda x: p, from_probs=True)):
        for temperature in (1.0, 4.0):
            np.testing.assert_allclose(
                softmax(teacher.logits(X), temperature), softmax(z, temperature), rtol=1e-6
            )
    hard = as_teacher(np.eye(3), from_probs=True).array
    assert np.isfinite(hard).all() and hard[0, 1] == pytest.approx(np.log(1e-7))


# ---------------------------------------------------------------- ensembles


@given(
    members=st.integers(1, 4),
    classes=st.integers(2, 6),
    temperature=st.floats(0.3, 20),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 10**6),
)
def test_arithmetic_mean_is_of_softened_probabilities(members, classes, temperature, scale, seed):
    draw = np.random.default_rng(seed)
    logits = [scale * draw.normal(size=(5, classes)) for _ in range(members)]
    weights = draw.uniform(0.1, 2, members)
    ensemble = Ensemble(logits, weights=weights)
    expected = sum(w * softmax(v, temperature) for w, v in zip(weights / weights.sum(), logits, strict=True))
    got = softmax(ensemble.logits(np.zeros((5, 2)), temperature=temperature), temperature)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(
        ensemble.predict(np.zeros((5, 2)), temperature), expected, rtol=1e-9, atol=1e-300
    )


@given(st.floats(0.3, 20), st.integers(0, 10**6))
def test_distilling_from_the_mean_is_distilling_from_all(temperature, seed):
    draw = np.random.default_rng(seed)
    logits, weights = draw.normal(size=(3, 5, 4)), np.array([0.2, 0.5, 0.3])
    mean = softmax(
        Ensemble(list(logits), weights=weights).logits(np.zeros((5, 2)), temperature=temperature), temperature
    )

    def difference(z):
        q = softmax(z, temperature)
        return sum(w * kl(softmax(v, temperature), q) for w, v in zip(weights, logits, strict=True)) - kl(
            mean, q
        )

    one, other = draw.normal(size=(2, 5, 4))
    np.testing.assert_allclose(difference(one), difference(other), rtol=1e-9, atol=1e-12)
    # Control: the mean at another temperature is not what the members say at this one.
    wrong = softmax(
        Ensemble(list(logits), weights=weights).logits(np.zeros((5, 2)), temperature=3 * temperature),
        temperature,
    )
    assert np.abs(wrong - mean).max() > 1e-6


@given(st.floats(0.3, 20), st.integers(0, 10**6))
def test_geometric_mean(temperature, seed):
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(3, 5, 4))
    product = np.prod([softmax(v, temperature) for v in logits], axis=0) ** (1 / 3)
    expected = product / product.sum(axis=1, keepdims=True)
    got = Ensemble(list(logits), mean="geometric").predict(np.zeros((5, 2)), temperature)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_arithmetic_mean_of_saturated_logits_is_finite():
    sure = np.array([[1e4, 0.0, -1e4]])
    logits = Ensemble([sure, -sure]).logits(np.zeros((1, 1)))
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(softmax(logits), [[0.5, 0.0, 0.5]], atol=1e-12)


def test_cached_logits_of_an_arithmetic_ensemble_are_for_the_temperature_asked():
    models = [Linear(1), Linear(2)]
    ensemble = Ensemble(models)
    expected = (
        softmax(X @ models[0].params.reshape(6, 4), 4.0) + softmax(X @ models[1].params.reshape(6, 4), 4.0)
    ) / 2
    np.testing.assert_allclose(softmax(cached_logits(ensemble, X, temperature=4.0), 4.0), expected, rtol=1e-5)
    assert np.abs(softmax(cached_logits(ensemble, X), 4.0) - expected).max() > 1e-3
    assert ensemble.softens and not Ensemble(models, mean="geometric").softens


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([],), "members must be a list of one or more"),
        ((np.zeros((3, 4)),), "members must be a list"),
        (([Linear(), Linear()], "harmonic"), "mean must be one of 'arithmetic', 'geometric'"),
        (([Linear(), Linear()], "geometric", [1]), r"weights must have one number a member: 2, got \[1\]"),
        (([Linear(), Linear()], "geometric", [1, 0]), r"weights\[1\] must be > 0"),
        (([Linear(classes=4), Linear(classes=5)],), r"same number of classes, got \[4, 5\]"),
        (([np.zeros((3, 4)), np.zeros((5, 4))],), r"same number of samples, got \[3, 5\]"),
        (([np.zeros((3, 4)), "x"],), r"^members\[1\]: teacher must be a model"),
        (([Linear(), Linear()], "geometric", 3), r"weights must have one number a member: 2, got 3 \(int\)"),
    ],
)
def test_ensemble_refuses(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Ensemble(*arguments)


# ---------------------------------------------------------------- what is refused

PROBS = softmax(rng.normal(size=(50, 4)))


@pytest.mark.parametrize(
    "teacher, message",
    [
        (PROBS, "looks like probabilities.*from_probs=True"),
        (PROBS.astype(np.float16), "looks like probabilities"),
        (np.eye(4)[rng.integers(0, 4, 50)], "looks like probabilities"),
        (lambda x: PROBS[: len(x)], "looks like probabilities"),
        (np.zeros(50), r"shape \(N, classes\)"),
        (np.zeros((50, 1)), r"classes >= 2, got \(50, 1\)"),
        (np.zeros((49, 4)), "expected 50, got 49"),
        (np.full((50, 4), np.nan), r"teacher must be finite, got nan at index \(0, 0\)"),
        (lambda x: np.full((len(x), 4), np.inf), "what teacher returned must be finite"),
        (np.full((50, 4), 1e300), r"teacher must fit float32, got 1e\+300 at index \(0, 0\)"),
        (lambda x: np.zeros((len(x) + 1, 4)), r"must return logits of shape \(50, classes\), got \(51, 4\)"),
        (lambda x: np.zeros(len(x)), "must return logits of shape"),
        (lambda x: np.zeros((len(x), 4), complex), "real numbers"),
        (lambda x: None, "what teacher returned must be an array, got None"),
        ([Linear(), Linear()], r"teacher=Ensemble\(\[...\]\)"),
        ("resnet", "teacher must be a model, an Ensemble"),
        (None, "teacher must be a model, an Ensemble"),
        (3, "teacher must be a model, an Ensemble"),
    ],
)
def test_refuses(teacher, message):
    with pytest.raises((ValueError, TypeError), match=message):
        cached_logits(teacher, X)


def test_logits_that_are_nearly_probabilities_are_taken():
    almost = PROBS.copy()
    almost[17] *= 1.01
    assert cached_logits(almost, X).shape == (50, 4)
    assert as_teacher(lambda x: np.array([[0.4, 0.6]])).logits(X[:1]).shape == (1, 2), "one row: chance"
    with pytest.raises(ValueError, match="from_probs=True wants rows"):
        as_teacher(almost, from_probs=True)


def test_a_model_that_changes_its_classes_is_refused():
    calls = []

    def teacher(x):
        calls.append(1)
        return np.zeros((len(x), 3 + len(calls)))

    with pytest.raises(ValueError, match=r"shape \(N, 4\), got \(10, 5\)"):
        cached_logits(teacher, X, 10)


def test_an_array_does_not_know_other_samples():
    with pytest.raises(ValueError, match="logits of 50 samples and knows no others, got x of 8"):
        as_teacher(np.zeros((50, 4))).logits(X[:8])


def test_the_student_is_refused_as_its_own_teacher():
    student = Linear(1)
    twin = Linear(2)
    twin.params = student.params[:]
    for teacher in (student, student.predict_logits, Ensemble([Linear(3), student]), twin):
        with pytest.raises(ValueError, match="teacher must not"):
            as_teacher(teacher, student)
    copy = Linear(2)
    copy.params = student.params.copy()
    assert isinstance(as_teacher(copy, student), Teacher)


def test_a_teacher_of_other_classes_is_refused():
    for teacher in (Linear(1, classes=5), np.zeros((50, 5)), lambda x: np.zeros((len(x), 5))):
        with pytest.raises(ValueError, match="4.*got"):
            cached_logits(teacher, X, classes=4)
    for teacher in (Linear(1, classes=5), np.zeros((50, 5)), Ensemble([Linear(1, classes=5)])):
        with pytest.raises(ValueError, match="student's 4 classes, got 5"):
            as_teacher(teacher, Linear(0, classes=4))


@pytest.mark.parametrize(
    "module, name, extra, message",
    [
        ("torch.nn.modules", "Linear", {"parameters": lambda self: []}, "PyTorch module.*detach"),
        (
            "sklearn.svm",
            "SVC",
            {"predict_proba": lambda self, x: x},
            r"scikit-learn estimator.*sklearn_teacher\(estimator\)",
        ),
        ("keras.src.models", "Model", {}, "Keras model.*keras_teacher.*from_probs=True"),
        ("onnxruntime.capi", "InferenceSession", {}, "ONNX session.*session.run"),
    ],
)
def test_foreign_models_are_refused_with_the_line_that_wraps_them(module, name, extra, message):
    kind = type(name, (), {"__module__": module, "__call__": lambda self, x: x, **extra})
    with pytest.raises(TypeError, match=message):
        as_teacher(kind())


def test_a_tensor_that_needs_gradients_is_explained():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

    with pytest.raises((TypeError, ValueError), match="requires grad"):
        cached_logits(lambda x: Tensor(), X)


def test_a_function_may_write_to_what_it_gets():
    """It gets a copy: the samples stay as they are."""

    def spoil(x):
        logits = x[:, :3].copy()
        x[:] = 0
        return logits

    x = X.copy()
    np.testing.assert_array_equal(cached_logits(spoil, x), X[:, :3])
    np.testing.assert_array_equal(x, X)


def test_arguments_of_cached_logits():
    for arguments, message in (
        (dict(batch_size=0), "batch_size must be >= 1, got 0"),
        (dict(temperature=0), "temperature must be > 0, got 0"),
        (dict(temperature=float("nan")), "temperature must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            cached_logits(Linear(), X, **arguments)
    with pytest.raises(ValueError, match="teacher 'linear_0' cannot take x"):
        cached_logits(Linear(), X[:, :5])


# ---------------------------------------------------------------- logits on disk


def test_save_and_load(tmp_path):
    model, path = Linear(), tmp_path / "logits.npz"
    logits = cached_logits(model, X)
    save_logits(path, logits, X, model)
    np.testing.assert_array_equal(load_logits(path, X, model), logits)
    assert [p.name for p in tmp_path.iterdir()] == ["logits.npz"]


def test_whole_numbers_are_kept_as_floats(tmp_path):
    logits = rng.integers(-9, 9, (50, 4))
    save_logits(tmp_path / "l.npz", logits, X, "t")
    np.testing.assert_array_equal(load_logits(str(tmp_path / "l.npz"), X, "t"), logits)


def test_what_is_not_to_be_saved(tmp_path):
    path = tmp_path / "l.npz"
    for arguments, message in (
        ((path, PROBS, X, "t"), "logits looks like probabilities"),
        ((path, X, X, Linear()), "logits must have the teacher's 4 classes, got 6"),
        ((3, np.zeros((50, 4)), X, "t"), r"path must be a string or a path, got 3 \(int\)"),
        ((tmp_path / "no" / "l.npz", np.zeros((50, 4)), X, "t"), "l.npz: there is no folder .*no"),
    ):
        with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
            save_logits(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_stale_logits_are_refused(tmp_path):
    model, path = Linear(), tmp_path / "logits.npz"
    save_logits(path, cached_logits(model, X), X, model)
    changed = X.copy()
    changed[3, 2] += 1e-6
    for other in (changed, X[::-1], X[:-1], X.astype(np.float64), X.reshape(50, 3, 2)):
        with pytest.raises(ValueError, match="logits.npz: these logits were computed from another x"):
            load_logits(path, other, model)
    with pytest.raises(ValueError, match="another teacher"):
        load_logits(path, X, Linear(1))
    model.params[0] += 1
    with pytest.raises(ValueError, match="trained since"):
        load_logits(path, X, model)


def test_ensembles_and_functions_have_fingerprints_or_names(tmp_path):
    path = tmp_path / "l.npz"
    logits = np.zeros((50, 4))
    save_logits(path, logits, X, Ensemble([Linear(1), Linear(2)]))
    load_logits(path, X, Ensemble([Linear(1), Linear(2)]))
    for other in (
        Ensemble([Linear(1), Linear(3)]),
        Ensemble([Linear(1), Linear(2)], mean="geometric"),
        Ensemble([Linear(1), Linear(2)], weights=[1, 2]),
    ):
        with pytest.raises(ValueError, match="another teacher"):
            load_logits(path, X, other)
    for unknown in (lambda x: x, Ensemble([lambda x: x, Linear()])):
        with pytest.raises(ValueError, match="give a text that names its version"):
            save_logits(path, logits, X, unknown)
    save_logits(path, logits, X, "resnet of May")
    load_logits(path, X, "resnet of May")
    with pytest.raises(ValueError, match="another teacher"):
        load_logits(path, X, "resnet of June")


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "l.npz"
    save_logits(path, np.zeros((50, 4)), X, "t")
    whole = path.read_bytes()
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="l.npz: not a file of save_logits"):
            load_logits(path, X, "t")
    with open(path, "wb") as file:
        np.save(file, np.zeros((50, 4)))
    with pytest.raises(ValueError, match="l.npz: not a file of save_logits"):
        load_logits(path, X, "t")
    with pytest.raises(TypeError, match="path must be a string or a path, got 3"):
        load_logits(3, X, "t")
    np.savez(path, header=np.array(["{}"], dtype=object), logits=np.zeros((50, 4)))
    with pytest.raises(ValueError, match="l.npz: not a file of save_logits"):
        load_logits(path, X, "t")
    with pytest.raises(FileNotFoundError):
        load_logits(tmp_path / "none.npz", X, "t")
    for logits, message in ((np.zeros((49, 4)), "expected 50, got 49"), (np.full((50, 4), np.nan), "finite")):
        with pytest.raises(ValueError, match=message):
            save_logits(tmp_path / "new.npz", logits, X, "t")
    assert not (tmp_path / "new.npz").exists()


def test_a_small_file_does_not_grow(tmp_path):
    path = tmp_path / "l.npz"
    np.savez_compressed(path, header=np.array("{}"), logits=np.zeros((1 << 20, 40), np.float32))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="l.npz: not a file of save_logits.*is compressed"):
            load_logits(path, X, "t")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        with np.load(path) as data:  # control: elsewhere it does
            assert data["logits"].nbytes > 1 << 27 and tracemalloc.get_traced_memory()[1] > 1 << 27
    finally:
        tracemalloc.stop()


def test_any_damage_is_a_value_error(tmp_path):
    path, rng = tmp_path / "l.npz", random.Random(5)
    logits = np.random.default_rng(1).normal(size=(50, 4))
    save_logits(path, logits, X, "t")
    whole, refused = path.read_bytes(), 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 3])):
            at = rng.randrange(len(damaged))
            damaged[at : at + rng.choice([1, 1, 8])] = rng.randbytes(rng.choice([1, 1, 8]))
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(load_logits(path, X, "t"), logits)
        except ValueError as error:
            refused += 1
            assert "l.npz" in str(error) and not str(error).endswith("()")
    assert refused > 750
    for text in ("[" * 10**6, "[]", "{", "1"):
        np.savez(path, header=np.array(text), logits=logits)
        with pytest.raises(ValueError, match="l.npz: not a file of save_logits, or damaged"):
            load_logits(path, X, "t")


def test_files_of_earlier_versions_are_read(tmp_path):
    path, model = tmp_path / "l.npz", Linear()
    logits = cached_logits(model, X)
    save_logits(path, logits, X, model)
    with np.load(path) as data:
        header = data["header"]
    for stored in (logits, np.asfortranarray(logits), logits.astype(">f4")):
        np.savez(path, header=header, logits=stored)  # as they were written
        found = load_logits(path, X, model)
        np.testing.assert_array_equal(found, logits)
        found[0] = 0  # an array of one's own


def test_fingerprint_sees_values_dtype_shape_not_layout():
    a = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert fingerprint(a) == fingerprint(np.asfortranarray(a)) == fingerprint(a.astype(">i4"))
    b = a.copy()
    b[2, 3] = 0
    others = [b, a.reshape(4, 3), a.astype(np.int64), a.view(np.uint32)]
    assert len({fingerprint(v) for v in [a, *others]}) == 5


def test_array_teacher_keeps_a_memory_map(tmp_path):
    np.save(tmp_path / "l.npy", rng.normal(size=(50, 4)))
    teacher = ArrayTeacher(np.load(tmp_path / "l.npy", mmap_mode="r"))
    assert isinstance(teacher.array.base, np.memmap) or isinstance(teacher.array, np.memmap)
