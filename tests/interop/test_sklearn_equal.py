"""With one random_state scikit-learn's perceptrons and minidl's are the same net, epoch for epoch, to rounding."""

import inspect

import numpy as np
import pytest
from extras import needs

needs("sklearn")

from sklearn import neural_network as theirs  # noqa: E402

from minidl.interop import sklearn as ours  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
rng = np.random.default_rng(0)
X = rng.normal(size=(90, 4))
CLASSES = (X[:, :3] + rng.normal(scale=0.5, size=(90, 3))).argmax(axis=1)
NUMBERS = X @ rng.normal(size=(4, 2)) + np.sin(3 * X[:, :2])
WEIGHT = rng.uniform(0.1, 3, 90)

TARGETS = {
    "three classes": ("MLPClassifier", CLASSES),
    "two classes": ("MLPClassifier", np.where(CLASSES > 0, 5, -1)),
    "three labels": ("MLPClassifier", np.eye(3, dtype=int)[CLASSES] | (X[:, :3] > 1)),
    "numbers": ("MLPRegressor", NUMBERS[:, 0]),
    "two numbers": ("MLPRegressor", NUMBERS),
}
BASE = dict(hidden_layer_sizes=(9, 5), random_state=3, max_iter=25, batch_size=32, alpha=0.1)
SETTINGS = {
    "adam": dict(learning_rate_init=0.01),
    "adam, its own numbers": dict(beta_1=0.5, beta_2=0.9, epsilon=1e-3, learning_rate_init=0.02, activation="tanh"),
    "one batch": dict(batch_size="auto", alpha=0, activation="identity"),
    "in order": dict(shuffle=False, activation="logistic"),
    "momentum": dict(solver="sgd", learning_rate_init=0.05, activation="tanh"),
    "plain momentum": dict(solver="sgd", nesterovs_momentum=False, momentum=0.5),
    "no momentum": dict(solver="sgd", momentum=0, learning_rate_init=0.1),
    "invscaling": dict(solver="sgd", learning_rate="invscaling", power_t=0.3, learning_rate_init=0.2),
    "adaptive": dict(solver="sgd", learning_rate="adaptive", tol=0.05, n_iter_no_change=2, max_iter=60),
    "stops": dict(tol=0.02, n_iter_no_change=3, learning_rate_init=0.02, max_iter=200),
    "early stopping": dict(early_stopping=True, n_iter_no_change=4, learning_rate_init=0.03, max_iter=200),
}  # fmt: skip


def both(name, y, weight=None, x=X, **settings):
    """The two estimators, fitted."""
    found = []
    for library in (theirs, ours):
        estimator = getattr(library, name)(**BASE | settings)
        found.append(estimator.fit(x, y, **({} if weight is None else {"sample_weight": weight})))
    return found


def assert_same(a, b, tolerance=1e-11):
    assert (a.n_iter_, a.t_, a.n_layers_, a.n_outputs_) == (b.n_iter_, b.t_, b.n_layers_, b.n_outputs_)
    assert a.out_activation_ == b.out_activation_
    for name in ("coefs_", "intercepts_"):
        for one, other in zip(getattr(a, name), getattr(b, name), strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape
            np.testing.assert_allclose(other, one, rtol=0, atol=tolerance)
    for name in ("loss_curve_", "loss_", "best_loss_", "validation_scores_", "best_validation_score_"):
        one, other = getattr(a, name, None), getattr(b, name, None)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(other, one, rtol=0, atol=tolerance)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_every_epoch_is_scikit_learns(target, settings):
    name, y = TARGETS[target]
    a, b = both(name, y, **SETTINGS[settings])
    assert_same(a, b)
    assert a.score(X, y) == pytest.approx(b.score(X, y), abs=1e-9)
    if name == "MLPRegressor":
        np.testing.assert_allclose(b.predict(X), a.predict(X), atol=1e-10)
    else:
        np.testing.assert_array_equal(b.predict(X), a.predict(X))
        np.testing.assert_allclose(b.predict_proba(X), a.predict_proba(X), atol=1e-10)
        np.testing.assert_allclose(b.predict_log_proba(X), a.predict_log_proba(X), atol=1e-8)
        np.testing.assert_array_equal(b.classes_, a.classes_)


def test_the_comparison_sees_a_difference():
    a, b = both("MLPClassifier", CLASSES)
    c = ours.MLPClassifier(**BASE | {"alpha": 0.101}).fit(X, CLASSES)
    with pytest.raises(AssertionError):
        assert_same(a, c)
    b.loss_curve_[3] += 1e-9
    with pytest.raises(AssertionError):
        assert_same(a, b)


@pytest.mark.parametrize("target", ("three classes", "two classes", "three labels", "numbers"))
@pytest.mark.parametrize("settings", ("adam", "momentum"))
def test_weighted_samples(target, settings):
    """The penalty is divided by the sum of the batch's weights, as the losses are."""
    if "sample_weight" not in inspect.signature(theirs.MLPClassifier.fit).parameters:
        pytest.skip("scikit-learn takes weights from 1.7 on")
    assert_same(*both(*TARGETS[target], WEIGHT, **SETTINGS[settings]))


def test_counts():
    """The Poisson loss, which scikit-learn has from 1.7 on."""
    if "loss" not in inspect.signature(theirs.MLPRegressor).parameters:
        pytest.skip("of scikit-learn 1.7")
    y = np.floor(np.abs(NUMBERS))
    assert_same(*both("MLPRegressor", y, loss="poisson"))
    a, b = both("MLPRegressor", y[:, 0], WEIGHT, loss="poisson")
    assert_same(a, b)
    np.testing.assert_allclose(b.predict(X), a.predict(X), rtol=1e-10)


@pytest.mark.parametrize("target", ("three classes", "two classes", "three labels", "numbers"))
def test_lbfgs_ends_where_scikit_learn_does(target):
    name, y = TARGETS[target]
    a, b = both(
        name, y, solver="lbfgs", max_iter=500, tol=1e-6, activation="tanh", alpha=1.0, hidden_layer_sizes=(5,)
    )
    assert b.loss_ == pytest.approx(a.loss_, rel=1e-4)
    short = both(name, y, solver="lbfgs", max_iter=3)  # rounding has not grown yet
    assert_same(*short, tolerance=1e-9)


def test_float32_stays_float32():
    a, b = both("MLPClassifier", CLASSES, x=X.astype(np.float32))
    assert b.coefs_[0].dtype == a.coefs_[0].dtype == np.float32
    assert b.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert_same(a, b, tolerance=2e-5)


def test_random_state_of_every_kind():
    for make in (lambda: 5, lambda: np.random.RandomState(5)):
        a, b = (
            kind(**BASE | {"random_state": make()}).fit(X, CLASSES)
            for kind in (theirs.MLPClassifier, ours.MLPClassifier)
        )
        assert_same(a, b)
    found = []
    for kind in (theirs.MLPClassifier, ours.MLPClassifier):
        np.random.seed(1)
        found.append(kind(**BASE | {"random_state": None}).fit(X, CLASSES))
    assert_same(*found)
    state = np.random.RandomState(5)
    first, second = (ours.MLPClassifier(**BASE | {"random_state": state}).fit(X, CLASSES) for _ in range(2))
    assert not np.array_equal(first.coefs_[0], second.coefs_[0])


def test_slices_that_leave_steps_undone_change_nothing(monkeypatch):
    monkeypatch.setattr("minidl.training.compiled.CALL_SECONDS", 0.0)  # each call ends after one step
    for y in (CLASSES, np.eye(3, dtype=int)[CLASSES]):
        assert_same(*both("MLPClassifier", y))


@pytest.mark.parametrize("solver", ("adam", "sgd"))
def test_partial_fit_and_warm_start_go_on(solver):
    a, b = (kind(**BASE | {"solver": solver}) for kind in (theirs.MLPClassifier, ours.MLPClassifier))
    for rows in (slice(0, 50), slice(50, 90), slice(20, 60)):
        for each in (a, b):
            each.partial_fit(X[rows], CLASSES[rows], classes=[0, 1, 2])
        assert_same(a, b)
    for each in (a, b):
        each.set_params(warm_start=True, max_iter=4, alpha=0.01, learning_rate_init=0.02)
        for _ in range(2):
            each.fit(X, CLASSES)
    assert_same(a, b)
    assert len(b.loss_curve_) == 3 + 8 and b.n_iter_ == 4


def test_early_stopping_goes_on_from_the_best_score_so_far():
    """A later fit that finds nothing better ends with the best weights. scikit-learn has overwritten them by then."""
    settings = dict(warm_start=True, early_stopping=True, max_iter=40, learning_rate_init=0.05)
    a, b = both("MLPClassifier", CLASSES, **settings)
    assert_same(a, b)
    best = b.model_.params.copy()
    b.set_params(learning_rate_init=1e-7, max_iter=3).fit(X, CLASSES)
    np.testing.assert_array_equal(b.model_.params, best)
    assert len(b.validation_scores_) > len(a.validation_scores_)
    assert b.best_validation_score_ == a.best_validation_score_ == max(b.validation_scores_)


def test_initial_weights_can_be_given():
    """As in scikit-learn, an array put into coefs_ is the net's from then on."""
    found = []
    for kind in (theirs.MLPRegressor, ours.MLPRegressor):
        net = kind(**BASE | {"warm_start": True, "max_iter": 1, "shuffle": False}).fit(X, NUMBERS)
        net.coefs_[0][...] = 0.1
        net.intercepts_[1] = np.linspace(-1, 1, 5)
        net.coefs_ = [coef * 0.5 for coef in net.coefs_]
        found.append((net.predict(X), net.set_params(max_iter=5).fit(X, NUMBERS)))
    np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-12)
    assert_same(found[0][1], found[1][1])
    net = found[1][1]
    net.coefs_[0] = np.zeros((4, 8))
    with pytest.raises(ValueError, match=r"coefs_ must have shapes \[\(4, 9\), \(9, 5\), \(5, 2\)\]"):
        net.predict(X)


@pytest.mark.parametrize("name", ("MLPClassifier", "MLPRegressor"))
def test_parameters_are_scikit_learns_with_three_more(name):
    own, wanted = (inspect.signature(getattr(library, name)).parameters for library in (ours, theirs))
    extra = [each for each in own if each not in wanted]
    if "loss" not in wanted and name == "MLPRegressor":  # before 1.7
        extra.remove("loss")
    more = ["class_weight"] if name == "MLPClassifier" else []
    assert sorted(extra) == ["batch_normalization", *more, "dropout"]
    assert [each for each in own if each in wanted] == list(wanted)
    for each, parameter in wanted.items():
        assert (own[each].default, own[each].kind) == (parameter.default, parameter.kind), each
