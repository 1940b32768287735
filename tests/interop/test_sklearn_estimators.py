"""MLPClassifier and MLPRegressor in their users' hands: kinds of data, scikit-learn's tools, mistakes."""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from extras import needs

needs("sklearn", "pandas", "joblib")

import joblib  # noqa: E402
import pandas as pd  # noqa: E402
import scipy.sparse  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

import minidl  # noqa: E402
from minidl.interop.sklearn import MLPClassifier, MLPRegressor  # noqa: E402
from minidl.interop.sklearn.lbfgs import Objective  # noqa: E402
from minidl.layers import BatchNormalization, Dense, Dropout  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
rng = np.random.default_rng(1)
X = rng.normal(size=(120, 5))
Y = X[:, :3].argmax(axis=1)
NUMBERS = X @ rng.normal(size=(5, 2)) * 10
KINDS = dict(hidden_layer_sizes=(16,), max_iter=60, learning_rate_init=0.03, random_state=0)

LABELS = {
    "strings": np.array(["cat", "dog", "emu"]),
    "objects": np.array(["cat", "dog", "emu"], object),
    "unequal lengths": np.array(["a cat", "b", ""]),
    "booleans": np.array([False, True, False]),
    "numbers not in a row": np.array([7, -2, 40]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_type_are_given_back(kind):
    names = LABELS[kind]
    y = names[Y]
    for given in (y, y.tolist()):
        classifier = MLPClassifier(**KINDS).fit(X, given)
        assert classifier.classes_.tolist() == sorted(set(y.tolist()))
        answers = classifier.predict(X)
        assert set(answers.tolist()) <= set(names.tolist())
        assert classifier.score(X, given) == (answers == y).mean() > 0.8
        probs = classifier.predict_proba(X)
        np.testing.assert_allclose(probs.sum(axis=1), 1)
        assert classifier.classes_[probs.argmax(axis=1)].tolist() == answers.tolist()


def test_sparse_input_gives_the_same_net():
    dense = np.where(X > 0, X, 0)
    formats = [scipy.sparse.coo_array(dense).asformat(kind) for kind in ("csr", "csc", "coo")]
    for settings in ({}, {"solver": "lbfgs"}, {"early_stopping": True}):
        found = [MLPClassifier(**KINDS | {"max_iter": 3} | settings).fit(x, Y) for x in (dense, *formats)]
        for other in found[1:]:
            np.testing.assert_array_equal(other.model_.params, found[0].model_.params)
        assert found[1].predict_proba(formats[0]).tobytes() == found[0].predict_proba(dense).tobytes()
    texts, tones = ["good film", "bad film", "very good", "very bad"] * 10, ["praise", "blame"] * 20
    pipeline = make_pipeline(TfidfVectorizer(), MLPClassifier((8,), learning_rate_init=0.02, random_state=0))
    assert pipeline.fit(texts, tones).score(texts, tones) == 1.0


def test_data_frames_and_their_names():
    frame, labels = pd.DataFrame(X, columns=list("abcde")), pd.Series(Y, index=range(7, 127))
    classifier = MLPClassifier(**KINDS).fit(frame, labels)
    assert classifier.feature_names_in_.tolist() == list("abcde") and classifier.n_features_in_ == 5
    np.testing.assert_array_equal(classifier.predict(frame), MLPClassifier(**KINDS).fit(X, Y).predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(frame[list("abced")])
    with pytest.raises(ValueError, match="5 features"):
        classifier.predict(X[:, :4])


def test_several_labels_and_several_numbers():
    labels = (X[:, :3] > 0).astype(int)
    classifier = MLPClassifier(**KINDS).fit(X, labels)
    assert classifier.predict(X).shape == classifier.predict_proba(X).shape == (120, 3)
    assert classifier.score(X, labels) > 0.8
    np.testing.assert_array_equal(
        MLPClassifier(**KINDS).fit(X, scipy.sparse.csr_array(labels)).coefs_[0], classifier.coefs_[0]
    )
    regressor = MLPRegressor(**KINDS | {"max_iter": 400}).fit(X, NUMBERS)
    assert regressor.predict(X).shape == (120, 2) and regressor.score(X, NUMBERS) > 0.9
    assert MLPRegressor(**KINDS).fit(X, NUMBERS[:, :1].ravel()).predict(X).shape == (120,)


def test_classes_of_weight_zero_are_not_learnt():
    names, weight = np.array(["a", "b", "c"])[Y], np.where(Y == 1, 0.0, 1.0)
    by_class = MLPClassifier(**KINDS, class_weight={"a": 1, "b": 0, "c": 1}).fit(X, names)
    by_sample = MLPClassifier(**KINDS).fit(X, names, sample_weight=weight)
    np.testing.assert_array_equal(by_class.coefs_[0], by_sample.coefs_[0])
    assert "b" not in by_class.predict(X) and "b" in MLPClassifier(**KINDS).fit(X, names).predict(X)
    rare = np.r_[np.flatnonzero(Y == 0), np.flatnonzero(Y == 1)[:6]]
    recall = [
        (
            MLPClassifier(**KINDS | {"max_iter": 15}, class_weight=each)
            .fit(X[rare], Y[rare])
            .predict(X[Y == 1])
            == 1
        ).mean()
        for each in (None, "balanced")
    ]
    assert recall[1] > recall[0]


def test_dropout_and_batch_normalization():
    classifier = MLPClassifier(
        (16, 8), dropout=0.1, batch_normalization=True, learning_rate_init=0.02, random_state=0
    ).fit(X, Y)
    kinds = [type(layer) for layer in classifier.model_.layers]
    assert kinds.count(Dropout) == kinds.count(BatchNormalization) == 2 and kinds.count(Dense) == 3
    assert [coef.shape for coef in classifier.coefs_] == [(5, 16), (16, 8), (8, 3)]
    assert classifier.score(X, Y) > 0.8
    again = clone(classifier).fit(X, Y)
    np.testing.assert_array_equal(again.model_.params, classifier.model_.params)
    assert not np.array_equal(
        clone(classifier).set_params(dropout=0.0).fit(X, Y).model_.params, again.model_.params
    )


@pytest.mark.parametrize(
    "copied", (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: _by_joblib(x))
)
def test_a_copy_goes_on_by_itself(copied):
    first = MLPClassifier(**KINDS | {"warm_start": True, "max_iter": 3}).fit(X, Y)
    second = copied(first)
    before = second.predict_proba(X)
    np.testing.assert_array_equal(before, first.predict_proba(X))
    assert all(np.shares_memory(coef, second.model_.params) for coef in second.coefs_)
    first.fit(X, Y)
    np.testing.assert_array_equal(second.predict_proba(X), before)
    np.testing.assert_array_equal(second.fit(X, Y).predict_proba(X), first.predict_proba(X))
    second.partial_fit(X, Y)


def _by_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


def test_the_net_can_be_taken_along(tmp_path):
    classifier = MLPClassifier(**KINDS).fit(X.astype(np.float32), Y)
    classifier.model_.save(tmp_path / "net.npz")
    np.testing.assert_array_equal(
        minidl.load_model(tmp_path / "net.npz").predict(X.astype(np.float32)),
        classifier.predict_proba(X.astype(np.float32)),
    )
    assert classifier.model_.evaluate(X.astype(np.float32), Y, verbose=0) < 0.7


def threads_of(estimator, X, y):
    return minidl.get_num_threads()


def test_searches_share_the_processors():
    """Each of joblib's two processes has its share of them for threads: one of two."""
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**KINDS | {"max_iter": 10}))
    grid = {"mlpclassifier__hidden_layer_sizes": [(4,), (16,)], "mlpclassifier__alpha": [1e-4, 1e-2]}
    search = GridSearchCV(pipeline, grid, n_jobs=2, cv=2).fit(X, Y)
    assert search.best_score_ > 0.5 and search.score(X, Y) > 0.6
    alone = cross_val_score(pipeline, X, Y, cv=2)
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        together = cross_val_score(pipeline, X, Y, cv=2, n_jobs=2)
        threads = cross_val_score(pipeline, X, Y, cv=2, n_jobs=2, scoring=threads_of)
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(threads, 1)


def test_loky_leaves_each_process_its_share_of_the_processors(monkeypatch):
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):  # what the user sets comes first
        monkeypatch.delenv(name, raising=False)
    classifier = MLPClassifier(**KINDS | {"max_iter": 1})
    found = cross_val_score(classifier, X, Y, cv=2, n_jobs=2, scoring=threads_of)
    np.testing.assert_array_equal(found, max(1, joblib.cpu_count() // 2))


def test_lbfgs_ends_where_the_gradient_does():
    classifier = MLPClassifier(
        (6,), "tanh", solver="lbfgs", alpha=1.0, tol=1e-7, max_iter=3000, random_state=0
    )
    classifier.fit(X, Y)
    model, problem = classifier.model_, classifier._problem(X, Y, None, True, False)
    problem.loss.penalize(len(X))
    objective, at_end = Objective(model, problem.loss, problem.samples), model.params.copy()
    value, gradient = objective(at_end)
    assert abs(gradient).max() < 1e-4 and value == pytest.approx(classifier.loss_)
    away = at_end + 0.01 * np.random.default_rng(0).normal(size=at_end.size)
    _, gradient = objective(away)
    assert abs(gradient).max() > 1e-3
    for i in range(0, at_end.size, 5):  # the gradient is the value's
        moved = np.eye(at_end.size)[i] * 1e-6
        slope = (objective(away + moved)[0] - objective(away - moved)[0]) / 2e-6
        assert gradient[i] == pytest.approx(slope, abs=1e-8)


def test_lbfgs_sees_all_rows_however_they_are_cut(monkeypatch):
    whole = MLPClassifier(**KINDS | {"solver": "lbfgs", "max_iter": 5}).fit(X, Y, sample_weight=1 + Y)
    monkeypatch.setattr("minidl.interop.sklearn.lbfgs.CHUNK_BYTES", 1000)
    cut = MLPClassifier(**KINDS | {"solver": "lbfgs", "max_iter": 5}).fit(X, Y, sample_weight=1 + Y)
    np.testing.assert_allclose(cut.coefs_[0], whole.coefs_[0], atol=1e-9)


def test_another_solver_goes_on_with_the_net():
    classifier = MLPClassifier(**KINDS | {"solver": "lbfgs", "max_iter": 5, "warm_start": True}).fit(X, Y)
    before = classifier.loss_
    for settings in (
        dict(solver="adam", max_iter=30),
        dict(early_stopping=True),
        dict(solver="lbfgs", max_iter=5),
    ):
        classifier.set_params(**settings).fit(X, Y)
    assert classifier.loss_ < before and len(classifier.loss_curve_) > 30
    assert not hasattr(classifier.set_params(warm_start=False).fit(X, Y), "loss_curve_")


def test_verbose_says_what_scikit_learn_says(capsys):
    MLPClassifier(**KINDS | {"max_iter": 200, "tol": 0.1, "n_iter_no_change": 2}, verbose=True).fit(X, Y)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("Iteration 1, loss = 1.") and len(shown) > 4
    assert (
        shown[-1]
        == "Training loss did not improve more than tol=0.100000 for 2 consecutive epochs. Stopping."
    )
    MLPClassifier(**KINDS | {"solver": "lbfgs"}, verbose=True).fit(X, Y)
    assert capsys.readouterr().out.startswith("Iteration 1, loss = ")


def test_an_interrupt_keeps_what_was_learnt(monkeypatch):
    from minidl.interop.sklearn import stopping

    classifier, finished = (
        MLPClassifier(**KINDS | {"early_stopping": True}),
        stopping.StoppingRule.on_epoch_end,
    )

    def interrupted(self, epoch, logs=None):
        finished(self, epoch, logs)
        if epoch == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(stopping.StoppingRule, "on_epoch_end", interrupted)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        classifier.fit(X, Y)
    assert classifier.n_iter_ == 5 and len(classifier.predict(X)) == 120
    monkeypatch.undo()
    assert classifier.fit(X, Y).n_iter_ > 5


MISTAKES = {
    "activation": (dict(activation="rleu"), "activation must be one of .* got 'rleu'"),
    "solver": (dict(solver="adamw"), "solver must be one of"),
    "alpha": (dict(alpha=-1), "alpha must be >= 0, got -1"),
    "batch_size": (dict(batch_size=0), "batch_size must be >= 1, got 0"),
    "batch_size by name": (dict(batch_size="all"), "batch_size must be an integer, got 'all'"),
    "learning_rate": (dict(learning_rate=0.1), "learning_rate must be one of"),
    "learning_rate_init": (dict(learning_rate_init=0), "learning_rate_init must be > 0"),
    "max_iter": (dict(max_iter=1.5), "max_iter must be an integer"),
    "momentum": (dict(momentum=1.1), "momentum must be"),
    "hidden_layer_sizes": (dict(hidden_layer_sizes=(5, 0)), r"hidden_layer_sizes\[1\] must be >= 1, got 0"),
    "hidden_layer_sizes in quotes": (dict(hidden_layer_sizes="16"), "hidden_layer_sizes must be .* got '16'"),
    "dropout": (dict(dropout=1.0), "dropout must be"),
    "dropout with lbfgs": (dict(dropout=0.1, solver="lbfgs"), "takes no dropout, got 0.1: use solver='adam'"),
    "n_iter_no_change": (dict(n_iter_no_change=0), "n_iter_no_change must be >= 1"),
    "random_state": (dict(random_state="x"), "'x' cannot be used to seed"),
    "shuffle": (dict(shuffle="yes"), "shuffle must be"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_parameter_is_named_and_nothing_is_changed(mistake):
    settings, message = MISTAKES[mistake]
    classifier = MLPClassifier(**KINDS | {"max_iter": 2}).fit(X, Y)
    before = classifier.model_.params.copy()
    with pytest.raises((ValueError, TypeError), match=message):
        classifier.set_params(**settings).fit(X, Y)
    np.testing.assert_array_equal(classifier.model_.params, before)


def test_wrong_data_is_refused():
    classifier = MLPClassifier(**KINDS | {"max_iter": 2})
    for x, y, message in (
        (X, None, "requires y to be passed"),
        (X[:50], Y, "inconsistent numbers of samples"),
        (X, X[:, 0], "Unknown label type"),
        (X, np.c_[Y, Y], "MultiOutputClassifier"),
        (X, np.where(Y == 0, None, "a"), "y must be all strings or all numbers, got .* NoneType, str"),
        (X, np.where(Y == 0, None, 1.0), "y must be all strings or all numbers, got .* NoneType"),
        (np.where(X > 2, np.nan, X), Y, "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.fit(x, y)
    with pytest.raises(ValueError, match="zero"):
        classifier.fit(X, Y, sample_weight=np.zeros(120))
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier.partial_fit(X, Y)
    classifier.partial_fit(X[Y < 2], Y[Y < 2], classes=[0, 1, 2])
    with pytest.raises(ValueError, match="classes not in"):
        classifier.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="not the same as on last call"):
        classifier.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"hidden_layer_sizes must stay \(16,\) to go on"):
        classifier.set_params(warm_start=True, hidden_layer_sizes=(4,)).fit(X, Y)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(AttributeError, match="partial_fit"):
        MLPClassifier(solver="lbfgs").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="class_weight='balanced' needs all samples"):
        MLPClassifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="loss='poisson' needs y >= 0"):
        MLPRegressor("poisson").fit(X, NUMBERS)
    with pytest.raises(ValueError, match="non-finite parameter weights"), np.errstate(all="ignore"):
        MLPRegressor(solver="sgd", learning_rate_init=1e3, random_state=0).fit(X * 1e6, NUMBERS * 1e6)
    with pytest.warns(UserWarning, match="batch_size 500 is more than the 120 samples"):
        MLPClassifier(**KINDS | {"batch_size": 500, "max_iter": 1}).fit(X, Y)


def test_one_class_alone():
    classifier = MLPClassifier(**KINDS | {"max_iter": 2}).fit(X, np.full(120, "only"))
    assert set(classifier.predict(X)) == {"only"} and classifier.predict_proba(X).shape == (120, 1)


def test_the_old_name_says_what_to_write():
    import minidl.interop.sklearn as bridge

    with pytest.raises(ImportError, match="MinidlClassifier is now MLPClassifier.*epochs is max_iter"):
        from minidl.interop.sklearn import MinidlClassifier  # noqa: F401
    with pytest.raises(AttributeError, match="no_such_name"):
        bridge.no_such_name  # noqa: B018


def test_without_scikit_learn_the_extra_is_named():
    code = "import sys; sys.modules['sklearn'] = None\nimport minidl\nimport minidl.interop.sklearn"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'minidl.interop.sklearn needs sklearn.frozen: pip install "minidl[sklearn]"' in found.stderr
