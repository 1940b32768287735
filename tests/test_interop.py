"""Bridges to other libraries: each is used if it is installed, else its error must name the extra."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest

import minidl.interop.onnx as bridge_onnx
from minidl.distillation import distill
from minidl.interop import check_same
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    LeakyReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)
from minidl.models import Sequential
from minidl.teachers import cached_logits

rng = np.random.default_rng(3)
X = rng.normal(size=(90, 6)).astype(np.float32)
Y = rng.integers(0, 3, 90)
ACTIVATIONS = (
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "gelu",
    "silu",
    "softplus",
    "elu",
    "softmax",
    "linear",
)


def has(*names) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def absent(extra):
    return pytest.raises(ImportError, match=rf"minidl\[{extra}\]")


def student(seed=1):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(3, activation="softmax")], seed=seed)


class Shifted(Dense):
    """A Dense of the user's own: its forward is another."""

    def forward(self, x, training=False):
        return super().forward(x, training) + 1


def test_a_layer_with_another_forward_is_not_exported_as_its_base_class():
    if not has("onnx"):
        with absent("onnx"):
            bridge_onnx.to_onnx(student())
        return
    with pytest.raises(ValueError, match=r"'shifted\w*' \(Shifted\) is your own"):
        bridge_onnx.to_onnx(Sequential([Input((6,)), Shifted(3)]))
    with pytest.raises(ValueError, match="give the first layer an input_shape"):
        bridge_onnx.to_onnx(Sequential([Dense(3)]))


def test_a_conversion_with_other_numbers_is_refused():
    model = student()
    check_same(model, lambda x: model.predict(x, verbose=0))
    check_same(model, model.predict_logits, logits=True)
    for wrong in (
        model.predict_logits,
        lambda x: model.predict(x, verbose=0)[:, :2],
        lambda x: model.predict(x, verbose=0) + 0.01,
        lambda x: np.nan * x[:, :3],
    ):
        with pytest.raises(ValueError, match="different numbers"):
            check_same(model, wrong)


# ---------------------------------------------------------------- onnx


def onnx_models():
    yield student()
    for activation in ACTIVATIONS:
        yield Sequential(
            [Input((6,)), Dense(5, activation=activation), Dropout(0.3), Dense(3, use_bias=False)]
        )
    yield Sequential([Input((6,)), GaussianNoise(0.1), Dense(5), LeakyReLU(), Dense(3), ReLU(), Softmax()])
    image = [Input((3, 2)), Rescaling(0.5, 1.0), RandomTranslation(0.3, 0.3), Flatten(), Dense(3)]
    yield Sequential([*image, Activation("sigmoid")], dtype="float64")
    for activation in set(ACTIVATIONS) - {"gelu"}:
        layers = [Input((6,)), Dense(5), Activation(activation), LeakyReLU(0.4), Dense(3)]
        yield Sequential(layers, dtype="float64")


@pytest.mark.parametrize("logits", [False, True])
def test_onnx(tmp_path, logits):
    if not has("onnx", "onnxruntime"):
        with absent("onnx"):
            bridge_onnx.to_onnx(student())
        return
    for number, model in enumerate(onnx_models()):
        path = tmp_path / f"{number}.onnx"
        bridge_onnx.to_onnx(model, path, logits=logits)
        x = X.reshape(90, *model.input_shape).astype(model.dtype)
        expected = model.predict_logits(x) if logits else model.predict(x)
        for rows in (1, 90):
            got = bridge_onnx.onnx_teacher(path, threads=1)(x[:rows])
            single = model.dtype == np.float32
            assert got.dtype == model.dtype
            np.testing.assert_allclose(
                got, expected[:rows], rtol=1e-4 if single else 1e-12, atol=1e-5 if single else 1e-13
            )
    with pytest.raises(ValueError, match="'mine' .*gelu in float64"):
        layers = [Input((6,)), Dense(3, activation="gelu", name="mine")]
        bridge_onnx.to_onnx(Sequential(layers, dtype="float64"))
    assert len(list(tmp_path.iterdir())) == number + 1


def test_an_onnx_file_teaches(tmp_path):
    if not has("onnx", "onnxruntime"):
        with absent("onnx"):
            bridge_onnx.onnx_teacher("x")
        return
    teacher = student(5)
    bridge_onnx.to_onnx(teacher, tmp_path / "t.onnx", logits=True)
    logits = cached_logits(bridge_onnx.onnx_teacher(tmp_path / "t.onnx", threads=1), X)
    np.testing.assert_allclose(logits, teacher.predict_logits(X), atol=1e-5)
    bridge_onnx.to_onnx(teacher, tmp_path / "p.onnx")
    with pytest.raises(ValueError, match="looks like probabilities"):
        cached_logits(bridge_onnx.onnx_teacher(tmp_path / "p.onnx", threads=1), X)


# ---------------------------------------------------------------- scikit-learn


def test_sklearn():
    if not has("sklearn"):
        with absent("sklearn"):
            importlib.import_module("minidl.interop.sklearn")
        return
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from minidl.interop.sklearn import MinidlClassifier, sklearn_teacher

    y = np.array(["a", "b", "c"])[X[:, :3].argmax(axis=1)]
    classifier = MinidlClassifier(hidden_layer_sizes=(16,), epochs=30, learning_rate=0.01, random_state=0)
    assert cross_val_score(make_pipeline(StandardScaler(), classifier), X, y, cv=3).mean() > 0.75
    teacher = LogisticRegression().fit(X, y)
    labels = np.searchsorted(teacher.classes_, y)
    distilled = MinidlClassifier((16,), epochs=60, learning_rate=0.01, teacher=teacher, random_state=0).fit(
        X, y
    )
    assert set(distilled.predict(X)) <= {"a", "b", "c"}
    np.testing.assert_allclose(distilled.predict_proba(X).sum(axis=1), 1)
    assert (distilled.predict(X) == teacher.predict(X)).mean() > 0.8
    model = student()
    distill(sklearn_teacher(teacher), model, X, labels, epochs=2, verbose=0)
    with pytest.raises(TypeError, match="scikit-learn estimator"):
        distill(teacher, model, X, labels, epochs=1, verbose=0)
    with pytest.raises(TypeError, match="predict_proba"):
        sklearn_teacher(StandardScaler())


LABELS = {
    "strings": np.array(["cat", "dog", "emu"]),
    "objects": np.array(["cat", "dog", "emu"], object),
    "unequal lengths": np.array(["a cat", "b", ""]),
    "booleans": np.array([False, True, False]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_sklearn_takes_labels_of_any_type_and_gives_them_back(kind):
    if not has("sklearn"):
        with absent("sklearn"):
            importlib.import_module("minidl.interop.sklearn")
        return
    from minidl.interop.sklearn import MinidlClassifier

    names = LABELS[kind]
    y = names[X[:, :3].argmax(axis=1)]
    classifier = MinidlClassifier((16,), epochs=40, learning_rate=0.01, random_state=0)
    for given in (y, y.tolist()):
        classifier.fit(X, given)
        assert classifier.classes_.tolist() == sorted(set(y.tolist()))
        answers = classifier.predict(X)
        assert set(answers.tolist()) <= set(names.tolist())
        assert classifier.score(X, given) == (answers == y).mean() > 0.8
        order = classifier.classes_[classifier.predict_proba(X).argmax(axis=1)]
        assert order.tolist() == answers.tolist()


def test_sklearn_takes_sparse_matrices():
    if not has("sklearn"):
        with absent("sklearn"):
            importlib.import_module("minidl.interop.sklearn")
        return
    import scipy.sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    from minidl.interop.sklearn import MinidlClassifier

    dense = np.where(X > 0, X, 0)
    found = []
    for x in (dense, *(scipy.sparse.coo_array(dense).asformat(kind) for kind in ("csr", "coo"))):
        classifier = MinidlClassifier((4,), epochs=2, random_state=0).fit(x, Y)
        found.append(classifier.predict_proba(x).tobytes())
    assert found[0] == found[1] == found[2]
    texts = ["good film", "bad film", "very good", "very bad"] * 10
    tones = ["praise", "blame"] * 20
    pipeline = make_pipeline(TfidfVectorizer(), MinidlClassifier((8,), learning_rate=0.02, random_state=0))
    assert pipeline.fit(texts, tones).score(texts, tones) == 1.0


def test_sklearn_estimator_checks():
    if not has("sklearn"):
        with absent("sklearn"):
            importlib.import_module("minidl.interop.sklearn")
        return
    from sklearn.utils.estimator_checks import check_estimator

    from minidl.interop.sklearn import MinidlClassifier

    estimator = MinidlClassifier(hidden_layer_sizes=(16,), epochs=60, learning_rate=0.02, random_state=0)
    # A sample of weight 2 is not two samples where batches are drawn at random.
    name, reason = "check_sample_weight_equivalence_on", "trained on random batches"
    by_design = {f"{name}_dense_data": reason, f"{name}_sparse_data": reason}
    results = check_estimator(estimator, expected_failed_checks=by_design, on_fail=None, on_skip=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
