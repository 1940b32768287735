"""scikit-learn's own suite of checks on the four estimators, and how many checks that is."""

import collections
import inspect

import pytest
from extras import needs

needs("sklearn")

from sklearn.neural_network import MLPClassifier as Theirs  # noqa: E402
from sklearn.neural_network import MLPRegressor as TheirRegressor  # noqa: E402
from sklearn.utils.estimator_checks import (  # noqa: E402
    check_dict_unchanged,
    check_methods_subset_invariance,
    estimator_checks_generator,
    parametrize_with_checks,
)

from minidl.interop.sklearn import (  # noqa: E402
    DistilledClassifier,
    DistilledRegressor,
    MLPClassifier,
    MLPRegressor,
)

SETTINGS = dict(hidden_layer_sizes=(8,), max_iter=40, learning_rate_init=0.05, random_state=0)
KINDS = (MLPClassifier, MLPRegressor, DistilledClassifier, DistilledRegressor)
ESTIMATORS = [kind(**SETTINGS) for kind in KINDS]


@pytest.mark.filterwarnings("ignore")  # the checks end before the training has converged
@parametrize_with_checks(ESTIMATORS)
def test_check(estimator, check):
    """None of them is expected to fail: scikit-learn's perceptrons declare no such check either."""
    check(estimator)


def names(estimator):
    return sorted(check.func.__name__ for _, check in estimator_checks_generator(estimator))


@pytest.mark.parametrize("kind, theirs", [*zip(KINDS, (Theirs, TheirRegressor) * 2, strict=True)])
def test_the_number_of_checks_is_scikit_learns(kind, theirs):
    """As many as of its own perceptron, and one more: of class_weight, or of several outputs."""
    ours, wanted = names(kind(**SETTINGS)), names(theirs())
    more = "check_class_weight_classifiers" if theirs is Theirs else "check_regressor_multioutput"
    if "sample_weight" in inspect.signature(theirs.fit).parameters:
        assert ours == sorted([*wanted, more])
    else:  # before scikit-learn 1.7 its own had no weights to check
        assert not collections.Counter([*wanted, more]) - collections.Counter(ours)
    assert len(ours) >= 55


@pytest.mark.filterwarnings("ignore")
def test_a_check_can_fail():
    class Forgetful(MLPRegressor):
        def predict(self, X):
            self.max_iter = 7
            return super().predict(X)[::-1]

    for check in (check_dict_unchanged, check_methods_subset_invariance):
        with pytest.raises(AssertionError):
            check("Forgetful", Forgetful(**SETTINGS))
        check("MLPRegressor", MLPRegressor(**SETTINGS))
