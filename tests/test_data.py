"""Data as people have it: data frames, series, lists, CSR matrices; and the weights of classes."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import minidl
from benchmarks import sparse as sparse_benchmark
from minidl.distillation import distill
from minidl.layers import Dense, GaussianNoise, Input, Layer
from minidl.losses import BinaryKnowledgeDistillation, KnowledgeDistillation
from minidl.sparse import SparseRows
from minidl.teachers import cached_logits, load_logits, save_logits
from minidl.training.class_weight import balanced, check_class_weight
from minidl.validation import check_array

N = 90
rng = np.random.default_rng(5)
FRAME = pd.DataFrame(
    {
        "member": rng.random(N) > 0.5,
        "visits": rng.integers(-3, 9, N),
        "height": rng.normal(size=N).astype("f4"),
        "children": pd.array(rng.integers(0, 5, N), dtype="Int64"),
        "married": pd.array(rng.random(N) > 0.5, dtype="boolean"),
        "income": pd.array(rng.normal(size=N), dtype="Float64"),
        "rare": pd.arrays.SparseArray(np.where(rng.random(N) > 0.9, 1.5, 0.0)),
    },
    index=np.arange(N)[::-1] * 3,
)
X = np.column_stack([FRAME[name].to_numpy(dtype="f8") for name in FRAME])
Y = rng.integers(0, 3, N)
CSR = scipy.sparse.random_array((N, 40), density=0.1, format="csr", rng=rng, dtype="f8")
WEIGHT = rng.random(N)


def classifier(inputs=X.shape[1], outputs=3, seed=1, loss="sparse_categorical_crossentropy", noise=()):
    layers = [Input((inputs,)), *noise, Dense(8, "relu"), Dense(outputs, "softmax")]
    model = minidl.Sequential(layers, seed=seed)
    model.compile("adam", loss, ["accuracy"])
    return model


def refused(error, message, call, *arguments, **named):
    with pytest.raises(error, match=message):
        call(*arguments, **named)


# ---------------------------------------------------------------- frames, series, lists


def used(x, y, weight):
    """All that a model makes of this data, as bytes and numbers."""
    model = classifier(
        loss="sparse_categorical_crossentropy" if np.ndim(y) == 1 else "categorical_crossentropy"
    )
    options = dict(validation_data=(x, y, weight), sample_weight=weight, epochs=2, verbose=0)
    history = model.fit(x, y, **options).history
    steps = model.train_on_batch(x, y, sample_weight=weight)
    score = model.evaluate(x, y, sample_weight=weight, verbose=0)
    return model.params.tobytes(), model.predict(x).tobytes(), history, steps, score


@pytest.mark.parametrize("one_hot", [False, True])
def test_frames_and_series_train_as_their_arrays(one_hot):
    index = FRAME.index[::-1]  # another order than the frame's: position counts
    y = pd.get_dummies(pd.Series(Y, index)) if one_hot else pd.Series(Y, index).astype("Int64")
    plain = np.eye(3)[Y] if one_hot else Y
    expected = used(X, plain, WEIGHT)
    assert used(FRAME, y, pd.Series(WEIGHT, index)) == expected
    assert used(X.tolist(), plain.tolist(), WEIGHT.tolist()) == expected
    assert (
        used(FRAME.sort_index(), y, pd.Series(WEIGHT, index)) != expected
    )  # control: the order of rows matters


def test_a_frame_of_one_dtype_is_not_copied():
    frame = pd.DataFrame(X)
    assert np.shares_memory(check_array("x", frame), frame.to_numpy())
    assert check_array("x", pd.DataFrame({"a": [True], "b": [False]})).dtype == bool
    assert check_array("x", pd.DataFrame({"a": [1], "b": [2.5]}, dtype="f4")).dtype == np.float32
    assert check_array("x", pd.concat([FRAME, FRAME], axis=1)).shape == (N, 14)  # columns of one name
    for values in (pd.array([1, 2]), pd.Index([1, 2]), pd.Series([1, 2], dtype="UInt8")):
        assert check_array("y", values).tolist() == [1, 2]
        assert check_array("y", values).dtype.kind in "iu"


class Exports:
    """What offers itself as an array and no more, as the frames of other packages do."""

    def __array__(self, dtype=None, copy=None):
        return X


def test_what_has_an_array_is_taken():
    assert np.array_equal(check_array("x", Exports()), X)


NOT_NUMBERS = {
    "words": (
        ["a", "b"],
        "dtype (str|object) in column 'words': make numbers of its words, pandas.get_dummies",
    ),
    "kinds": (pd.Categorical(["a", "b"]), "dtype category in column 'kinds'.*columns=.'kinds'"),
    "mixed": ([1, "b"], "dtype object in column 'mixed'.*of its numbers x.'mixed'..astype"),
    "when": (pd.to_datetime(["2020-01-01"] * 2), "dtype datetime64.* in column 'when': .*dt.dayofweek"),
    "lasts": (pd.to_timedelta([1, 2], "s"), "dtype timedelta64.* in column 'lasts': .*total_seconds"),
    "wave": ([1j, 2], "dtype complex128 in column 'wave': take x.'wave'..abs"),
}


@pytest.mark.parametrize("name", NOT_NUMBERS)
def test_a_column_without_numbers_is_refused_by_its_name(name):
    values, message = NOT_NUMBERS[name]
    frame, model = pd.DataFrame({"fine": [1, 2], name: values}), classifier(2)
    before = model.params.copy()
    refused(TypeError, message, model.fit, frame, [0, 1], verbose=0)
    refused(TypeError, message, model.predict, frame)
    assert np.array_equal(model.params, before)


@pytest.mark.parametrize("dtype", ["float64", "Float64", "Int64", "boolean"])
def test_a_missing_value_is_refused_by_column_and_row(dtype):
    frame = pd.DataFrame({"fine": np.ones(3), "age": pd.array([0, 1, None], dtype=dtype)}, index=[7, 8, 9])
    model = classifier(2)
    refused(
        ValueError, "x must have no missing value, got one in column 'age' at row 2", model.predict, frame
    )
    refused(
        ValueError,
        "y must have no missing value, got one at row 2",
        model.fit,
        X[:3, :2],
        frame["age"],
        verbose=0,
    )
    message = "validation x must have no missing value, got one in column 'age'"
    held_out = frame, [0, 1, 1]
    refused(ValueError, message, model.fit, X[:3, :2], [0, 1, 1], validation_data=held_out, verbose=0)
    frame["age"] = 1.0
    assert model.predict(frame).shape == (3, 3)  # control


def test_masked_arrays_and_ragged_lists_are_refused():
    refused(
        TypeError, "masked array: fill or drop", classifier(2).predict, np.ma.masked_equal([[1.0, 2.0]], 2)
    )
    refused(ValueError, "x cannot be made an array", classifier(2).predict, [[1.0, 2.0], [3.0]])
    refused(TypeError, "y must hold real numbers", classifier(2).fit, [[1.0, 2.0]], ["cat"], verbose=0)
    refused(
        TypeError, r"y must hold real numbers.*pandas.factorize\(y\)", check_array, "y", pd.Series(["a", "b"])
    )


def test_distil_from_and_with_frames():
    def run(x, y, weight):
        teacher, student = classifier(seed=1), classifier(seed=2)
        teacher.fit(x, Y, epochs=3, verbose=0)
        options = dict(validation_data=(x, y, weight), sample_weight=weight, plain_student=True)
        report = distill(teacher, student, x, y, epochs=2, verbose=0, **options)
        by_array = classifier(seed=3)
        logits = teacher.predict_logits(x)
        frame = pd.DataFrame(logits).astype("Float32") if isinstance(x, pd.DataFrame) else logits
        distill(frame, by_array, x, y, test_data=(x, y), test_teacher=frame, epochs=1, verbose=0)
        figures = [(each.errors, each.loss) for each in report.rows]
        return student.params.tobytes(), by_array.params.tobytes(), figures, report.notes

    labels = np.where(np.arange(N) % 4 == 0, -1, Y)
    expected = run(X, labels, WEIGHT)
    assert (
        run(FRAME, pd.Series(labels, dtype="Int64", index=FRAME.index[::-1]), pd.Series(WEIGHT)) == expected
    )


def test_neither_pandas_nor_scipy_is_imported():
    root = Path(minidl.__file__).parent
    for path in set(root.rglob("*.py")) - set(
        (root / "interop" / "sklearn").iterdir()
    ):  # which needs SciPy itself
        found = re.findall(r"^\s*(?:import|from) (?:pandas|scipy)\b", path.read_text(encoding="utf-8"), re.M)
        assert not found, path


# ---------------------------------------------------------------- CSR matrices


class OwnDouble(Layer):
    """A layer of one's own, with which a model runs layer by layer."""

    def forward(self, x, training=False):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


KINDS = {"compiled": None, "noisy": lambda: GaussianNoise(0.1), "layer by layer": OwnDouble}


@pytest.mark.parametrize(
    "kind, dtype", [*((kind, "f8") for kind in KINDS), ("compiled", "i8"), ("compiled", "bool")]
)
def test_sparse_rows_train_as_dense_ones_to_the_bit(kind, dtype, monkeypatch):
    monkeypatch.setattr("minidl.training.compiled.CHUNK_BYTES", 40 * 4 * 64)  # two batches a slice
    matrix = scipy.sparse.csr_matrix((100 * CSR).astype(dtype))

    def run(x, held_out):
        model = classifier(40, noise=[KINDS[kind]()] if KINDS[kind] else [])
        model.fit(x, Y, epochs=2, validation_split=0.2, class_weight="balanced", verbose=0)
        history = model.fit(x, Y, epochs=1, validation_data=(held_out, Y[:9]), verbose=0).history
        steps = model.train_on_batch(held_out, Y[:9])
        outputs = model.predict(x), model.predict(held_out), model.predict_logits(x)
        return (
            model.params.tobytes(),
            history,
            steps,
            [each.tobytes() for each in outputs],
            model.evaluate(x, Y),
        )

    assert run(matrix, matrix[:9]) == run(matrix.toarray(), matrix[:9].toarray())


def test_sparse_rows_are_distilled_as_dense_ones(tmp_path):
    seen = []

    def run(x):
        teacher, student = classifier(40), classifier(40, seed=2)
        teacher.fit(x, Y, epochs=3, verbose=0)

        def ask(rows):
            seen.append(type(rows))
            return teacher.predict_logits(rows)

        labels = np.where(np.arange(N) % 4 == 0, -1, Y)
        options = dict(plain_student=True, validation_split=0.2, verbose=0)
        report = distill(ask, student, x, labels, epochs=2, **options)
        file = tmp_path / "logits.npz"
        save_logits(file, cached_logits(teacher, x), x, teacher)
        kept = load_logits(file, X_DENSE, teacher)  # one fingerprint for both
        taught = classifier(40, seed=3)
        taught.fit(x, Y, target_model=kept, verbose=0)
        figures = [(each.errors, each.loss) for each in report.rows]
        return student.params.tobytes(), taught.params.tobytes(), figures, report.notes

    X_DENSE = CSR.toarray()
    assert run(CSR) == run(X_DENSE)
    assert set(seen) == {np.ndarray}
    with pytest.raises(TypeError, match="transfer goes with a dense x"):
        distill(classifier(40), classifier(40), CSR, Y, transfer=X_DENSE, verbose=0)


def test_a_teacher_may_have_sparse_inputs_of_its_own():
    def run(inputs):
        teacher, student = classifier(40), classifier(seed=2)
        teacher.fit(inputs, Y, epochs=2, verbose=0)
        options = dict(teacher_inputs=inputs, test_data=(X[:20], Y[:20]), test_teacher_inputs=inputs[:20])
        report = distill(teacher, student, X, Y, epochs=2, verbose=0, **options)
        return student.params.tobytes(), report.teacher.loss, report.tuning.chosen

    assert run(CSR) == run(CSR.toarray())


def test_no_more_rows_are_dense_than_a_slice(monkeypatch):
    made, dense = [], SparseRows.__array__
    monkeypatch.setattr("minidl.training.compiled.CHUNK_BYTES", 40 * 4 * 32)
    monkeypatch.setattr("minidl.training.inference.CHUNK_BYTES", 40 * 4 * 20)
    monkeypatch.setattr(
        SparseRows, "__array__", lambda self, *a, **k: made.append(len(self)) or dense(self, *a, **k)
    )
    model = classifier(40)
    model.fit(CSR, Y, verbose=0)
    assert max(made) == 32 and sum(made) == N
    made.clear()
    model.predict(CSR)
    assert max(made) == 20 and sum(made) == N


def test_how_rows_of_a_csr_matrix_are_read():
    rows, x = check_array("x", CSR, may_be_sparse=True), CSR.toarray()
    assert isinstance(rows, SparseRows) and np.shares_memory(rows.stored(), CSR.data)
    order = rng.integers(0, N, 30)
    for chosen in (slice(None), slice(3, 40), slice(5, 5), order, x[:, 0] == 0, 7):
        assert np.array_equal(np.asarray(rows[chosen]), x[chosen])
    assert np.array_equal(np.asarray(rows[order][::-2], np.float32), x[order][::-2].astype("f4"))
    twice = rows[order]
    for entry in (0, len(twice.stored()) - 1):
        assert twice.stored()[entry] == x[order][twice.index_of(entry)]
    # an entry that is stored in parts, in any order
    parts = [1.0, 2, 3, 4, 5], [3, 1, 3, 0, 2], [0, 3, 5]
    matrix = scipy.sparse.csr_array(tuple(map(np.array, parts)), shape=(2, 4))
    read = check_array("x", matrix, may_be_sparse=True)
    assert np.asarray(read).tolist() == matrix.toarray().tolist() == [[0, 2, 0, 4], [4, 0, 5, 0]]
    assert matrix.nnz == 5  # the user's own is as it was
    assert (
        np.asarray(check_array("x", scipy.sparse.csr_array((3, 4)), may_be_sparse=True)).tolist()
        == [[0] * 4] * 3
    )


def test_the_benchmark_compares_both_forms():
    runs = [sparse_benchmark.measure(form, 200, 30) for form in sparse_benchmark.FORMS]
    assert runs[0]["digest"] == runs[1]["digest"] != sparse_benchmark.measure("csr", 201, 30)["digest"]
    assert runs[0]["holds"] < runs[1]["holds"] and all(run["peak"] >= run["grew"] for run in runs)
    result = dict(runs=runs, equal=False, rows=200, columns=30, machine=dict(processor="p", date="d"))
    assert "NOT equal" in sparse_benchmark.markdown(result)


def test_what_is_no_csr_matrix_of_finite_numbers_is_refused():
    model = classifier(40)
    for kind in ("csc", "coo", "lil", "bsr", "dok"):
        refused(
            TypeError,
            rf"a {kind}_array of shape \(90, 40\): write x.tocsr\(\)",
            model.predict,
            CSR.asformat(kind),
        )
    refused(TypeError, "CSR matrix of dtype complex128", model.predict, CSR.astype(complex))
    refused(ValueError, r"x must have shape \(N, 40\), got \(90, 39\)", model.predict, CSR[:, :39])
    refused(ValueError, "must not be empty", model.predict, CSR[:0])
    refused(
        TypeError,
        "sample_weight must be a dense array.*toarray",
        model.fit,
        CSR,
        Y,
        sample_weight=CSR[:, [0]],
    )
    refused(TypeError, "y must be a dense array, got a csr_array", model.fit, CSR, CSR[:, :1])
    bad = CSR.copy()
    bad.data[57] = np.nan
    (where,) = np.argwhere(np.isnan(bad.toarray())).tolist()
    before = model.params.copy()
    for x in (bad, bad[where[0] - 1 :]):
        place = where[0] if x is bad else 1
        refused(
            ValueError,
            rf"x must be finite, got nan at index \({place}, {where[1]}\)",
            model.fit,
            x,
            Y[: x.shape[0]],
        )
    huge = CSR.copy()
    huge.data[0] = 1e300
    refused(ValueError, "x must fit float32, got 1e\\+300 at index", model.predict, huge)
    damaged = CSR.copy()
    damaged.indices[3] = 40
    refused(ValueError, "x is a damaged CSR matrix", model.predict, damaged)
    damaged = CSR.copy()
    damaged.indptr[2] = 10**6
    refused(ValueError, "x is a damaged CSR matrix", model.predict, damaged)
    assert np.array_equal(model.params, before)


# ---------------------------------------------------------------- class_weight


def test_class_weight_is_checked():
    assert check_class_weight({1: 3, np.int64(0): 0.5}, 3) == {0: 0.5, 1: 3.0}
    assert check_class_weight({-1: 3, 7: 0.5}, None) == {-1: 3.0, 7: 0.5}
    found = check_class_weight({0.0: 2, np.float32(1): 3, np.int8(2): 4}, 3)
    assert found == {0: 2.0, 1: 3.0, 2: 4.0} and {type(key) for key in found} == {int}
    refused(ValueError, "class_weight key must be <= 2, got 3", check_class_weight, {3.0: 1.0}, 3)
    refused(TypeError, "class_weight key must be an integer, got 0.5", check_class_weight, {0.5: 1.0}, 3)
    refused(
        TypeError, "class_weight key must be an integer, got nan", check_class_weight, {float("nan"): 1}, 3
    )
    refused(ValueError, r"class_weight\[0\] must be >= 0, got -1", check_class_weight, {0: -1}, 3)
    for wrong in ([1, 2], "Balanced", "auto", 2.0):
        refused(
            TypeError,
            'class_weight must be a dict of class: weight, or "balanced"',
            check_class_weight,
            wrong,
            2,
        )


def test_balanced_is_scikit_learns_formula():
    y = np.array([0, 0, 0, 2, 2, 5])
    assert balanced(y) == {0: 6 / (3 * 3), 2: 6 / (3 * 2), 5: 6 / (3 * 1)}
    try:
        from sklearn.utils.class_weight import compute_class_weight
    except ImportError:
        return  # the formula above is theirs
    expected = compute_class_weight("balanced", classes=np.unique(y), y=y)
    np.testing.assert_allclose(list(balanced(y).values()), expected, rtol=1e-15)


@pytest.mark.parametrize("form", ["labels", "rows", "one output"])
def test_balanced_counts_the_rows_trained_on(form):
    """Not those held out, nor those without a label."""
    labels = np.r_[
        np.zeros(40, int), np.ones(20, int), np.full(12, 2), np.full(18, 1)
    ]  # the last 18 are held out
    outputs = 1 if form == "one output" else 3
    y = {"labels": labels, "rows": np.eye(3)[labels], "one output": labels.astype("f4")}[form]

    def run(class_weight):
        model = minidl.Sequential([Input((7,)), Dense(outputs, None if outputs == 1 else "softmax")], seed=1)
        losses = {"labels": "sparse_categorical_crossentropy", "rows": "categorical_crossentropy"}
        model.compile("adam", losses.get(form, "mse"))
        history = model.fit(X, y, validation_split=0.2, class_weight=class_weight, verbose=0).history
        return model.params.tobytes(), history

    weights = {0: 72 / (3 * 40), 1: 72 / (3 * 20), 2: 72 / (3 * 12)}
    assert run("balanced") == run(weights) == run({float(key): value for key, value in weights.items()})
    assert run("balanced") != run(balanced(labels))  # control: all rows counted


def test_balanced_leaves_the_unlabelled_out():
    labels = np.where(np.arange(N) < 30, -1, np.where(np.arange(N) < 80, 0, np.arange(N) % 2 + 1))
    logits = rng.normal(size=(N, 3)).astype("f4")

    def run(class_weight):
        model = classifier(loss=KnowledgeDistillation())
        model.fit(X, labels, target_model=logits, class_weight=class_weight, verbose=0)
        return model.params.tobytes()

    assert run("balanced") == run({0: 60 / (3 * 50), 1: 60 / (3 * 5), 2: 60 / (3 * 5)}) != run(None)

    def run_one_sigmoid(class_weight):
        model = minidl.Sequential([Input((7,)), Dense(1, "sigmoid")], seed=1)
        model.compile("adam", BinaryKnowledgeDistillation())
        answers = np.minimum(labels, 1)
        model.fit(X, answers, target_model=logits[:, :1], class_weight=class_weight, verbose=0)
        return model.params.tobytes()

    assert run_one_sigmoid("balanced") == run_one_sigmoid({0: 60 / (2 * 50), 1: 60 / (2 * 10)})
    assert run_one_sigmoid("balanced") != run_one_sigmoid({-1: 1, 0: 60 / (3 * 50), 1: 60 / (3 * 10)})
    model = minidl.Sequential([Input((7,)), Dense(1)], seed=1)
    model.compile("adam", "mse")
    message = "class_weight='balanced' needs y of whole numbers, the classes, got 0.5"
    refused(ValueError, message, model.fit, X, np.full(N, 0.5), class_weight="balanced", verbose=0)
