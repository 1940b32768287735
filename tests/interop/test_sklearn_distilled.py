"""DistilledClassifier and DistilledRegressor: every kind of teacher, its columns, its clones, and what is refused."""

import pickle

import numpy as np
import pytest
from extras import needs

needs("sklearn", "pandas", "joblib")

import pandas as pd  # noqa: E402
from sklearn.base import BaseEstimator, ClassifierMixin, clone  # noqa: E402
from sklearn.compose import make_column_transformer  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    BaggingClassifier,
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator  # noqa: E402
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.multioutput import MultiOutputClassifier  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: E402

import minidl  # noqa: E402
from minidl.interop.sklearn import (  # noqa: E402
    DistilledClassifier,
    DistilledRegressor,
    MLPClassifier,
    MLPRegressor,
    sklearn_teacher,
)
from minidl.interop.sklearn.teachers import logits_of  # noqa: E402
from minidl.interop.sklearn.votes import least_probability  # noqa: E402
from minidl.layers import Dense, Input  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
rng = np.random.default_rng(2)
X = rng.normal(size=(150, 5))
Y = np.array(["cat", "dog", "emu"])[X[:, :3].argmax(axis=1)]
NUMBERS = X @ rng.normal(size=(5, 2))
SETTINGS = dict(hidden_layer_sizes=(8,), max_iter=60, learning_rate_init=0.03, random_state=0)


class Fixed(ClassifierMixin, BaseEstimator):
    """A teacher that answers what it was made with, and says its classes in that order."""

    def __init__(self, classes=None, probs=None):
        self.classes, self.probs = classes, probs

    def fit(self, X, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    @property
    def classes_(self):
        return np.array(self.classes)

    def predict_proba(self, X):
        return np.tile(self.probs, (np.shape(X)[0], 1))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def soft(teacher, **settings):
    return DistilledClassifier(
        **SETTINGS | {"hard_weight": 0.0, "soft_weight": 1.0, "teacher": teacher} | settings
    )


# ---------------------------------------------------------------- whose answers, in which column


def test_columns_are_those_of_the_teachers_classes():
    """A student of answers alone repeats them, in whatever order the teacher has its classes."""
    probs = {"cat": 0.2, "dog": 0.7, "emu": 0.1}
    for names in (["cat", "dog", "emu"], ["emu", "cat", "dog"], ["dog", "emu", "cat"]):
        student = soft(
            Fixed(names, [probs[name] for name in names]), temperature=1.0, tol=0, max_iter=300
        ).fit(X, Y)
        assert student.classes_.tolist() == ["cat", "dog", "emu"]
        np.testing.assert_allclose(student.predict_proba(X).mean(axis=0), [0.2, 0.7, 0.1], atol=0.01)
    wrong = logits_of(Fixed(["emu", "cat", "dog"], [0.1, 0.2, 0.7]), X, X, np.array(["emu", "cat", "dog"]), 0)
    assert not np.allclose(np.exp(wrong[0]), [0.2, 0.7, 0.1])  # the names decide, not the places


def test_two_classes_in_both_orders():
    y = np.where(X[:, 0] > 0, "yes", "no")
    for names, probs in ((["no", "yes"], [0.3, 0.7]), (["yes", "no"], [0.7, 0.3])):
        student = soft(Fixed(names, probs), temperature=1.0, tol=0, max_iter=300).fit(X, y)
        np.testing.assert_allclose(student.predict_proba(X).mean(axis=0), [0.3, 0.7], atol=0.01)


def test_the_floor_of_probabilities():
    teacher = Fixed(["cat", "dog", "emu"], [0.0, 1.0, 0.0])
    np.testing.assert_allclose(logits_of(teacher, X, X, teacher.classes_, 0)[0], np.log([1e-7, 1.0, 1e-7]))
    teacher = Fixed([0, 1], [0.0, 1.0])
    np.testing.assert_allclose(logits_of(teacher, X, X, teacher.classes_, 0)[0], np.log(1e7), rtol=1e-6)


def test_a_teacher_of_more_classes_gives_them_to_the_student():
    few = Y != "emu"
    student = soft(LogisticRegression().fit(X, Y)).fit(X[few], Y[few])
    assert student.classes_.tolist() == ["cat", "dog", "emu"] and "emu" in student.predict(X)
    with pytest.raises(
        ValueError, match=r"y has the classes \['emu'\], which the teacher LogisticRegression does not know"
    ):
        soft(LogisticRegression().fit(X[few], Y[few])).fit(X, Y)
    with pytest.raises(
        ValueError, match="which the teacher LogisticRegression does not know: it knows \\[0, 1, 2\\]"
    ):
        soft(LogisticRegression().fit(X, X[:, :3].argmax(axis=1))).fit(X, Y)


def test_plain_weights_are_the_plain_estimator():
    """hard_weight 1 and soft_weight 0: what the teacher says changes nothing."""
    for y in (Y, Y == "cat"):
        plain = MLPClassifier(**SETTINGS).fit(X, y, sample_weight=np.arange(1, 151))
        taught = DistilledClassifier(**SETTINGS, teacher=GaussianNB(), hard_weight=1.0, soft_weight=0.0)
        taught.fit(X, y, sample_weight=np.arange(1, 151))
        np.testing.assert_allclose(taught.coefs_[0], plain.coefs_[0], atol=1e-10)
    plain = MLPRegressor(**SETTINGS).fit(X, NUMBERS)
    taught = DistilledRegressor(**SETTINGS, teacher=LinearRegression(), soft_weight=0.0).fit(X, NUMBERS)
    np.testing.assert_allclose(taught.coefs_[0], plain.coefs_[0], atol=1e-10)


# ---------------------------------------------------------------- kinds of teachers


def test_no_teacher_is_a_wider_net():
    student = DistilledClassifier(**SETTINGS, dropout=0.1).fit(X, Y)
    assert type(student.teacher_) is MLPClassifier and student.teacher_.hidden_layer_sizes == (32,)
    assert student.teacher_.dropout == 0.1 and student.score(X, Y) > 0.8
    student = DistilledRegressor(**SETTINGS).fit(X, NUMBERS)
    assert type(student.teacher_) is MLPRegressor and student.score(X, NUMBERS) > 0.9


def test_an_unfitted_teacher_is_fitted_and_itself_left_alone():
    forest = RandomForestClassifier(10, random_state=0)
    student = DistilledClassifier(**SETTINGS, teacher=forest).fit(X, Y)
    assert not hasattr(forest, "classes_") and len(student.teacher_.estimators_) == 10
    assert (student.predict(X) == student.teacher_.predict(X)).mean() > 0.8
    student.set_params(teacher__n_estimators=3).fit(X, Y)
    assert len(student.teacher_.estimators_) == 3


def test_a_fitted_teacher_survives_clone_and_is_not_fitted_again():
    teacher = GaussianNB().fit(X, Y)
    student = DistilledClassifier(**SETTINGS, teacher=teacher)
    copies = [clone(student), clone(clone(student)), clone(make_pipeline(student))[0]]
    for each in copies:
        assert isinstance(each.teacher, FrozenEstimator) and each.teacher.estimator is teacher
        np.testing.assert_array_equal(
            each.fit(X[:60], Y[:60]).teacher_.predict_proba(X), teacher.predict_proba(X)
        )
    assert student.fit(X, Y).teacher_ is teacher
    assert isinstance(clone(DistilledClassifier(teacher=GaussianNB())).teacher, GaussianNB)
    assert cross_val_score(student, X, Y, cv=3).mean() > 0.7


def test_models_and_functions_teach_by_logits():
    model = minidl.Sequential([Input((5,)), Dense(16, "relu"), Dense(3, "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, X[:, :3].argmax(axis=1), epochs=60, verbose=0)
    names = np.array(["cat", "dog", "emu"])
    for teacher in (
        model,
        model.predict_logits,
        sklearn_teacher(LogisticRegression().fit(X, Y)),
        lambda x: x[:, :3] * 9,
    ):
        student = soft(teacher).fit(X, Y)
        assert student.score(X, Y) > 0.75
    assert (soft(model).fit(X, Y).predict(X) == names[model.predict(X).argmax(axis=1)]).mean() > 0.8
    two = X[:, 0] > 0
    of_two, of_one = (
        soft(lambda x: 5 * np.c_[-x[:, 0], x[:, 0]]).fit(X, two),
        soft(lambda x: 10 * x[:, 0]).fit(X, two),
    )
    np.testing.assert_allclose(of_two.coefs_[0], of_one.coefs_[0], atol=1e-6)
    assert of_one.score(X, two) > 0.9


def test_the_teacher_sees_x_as_it_came():
    frame = pd.DataFrame(X, columns=list("abcde")).assign(town=np.where(X[:, 0] > 0, 1, 2))
    teacher = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["town"]), (StandardScaler(), list("abc"))),
        LogisticRegression(),
    )
    student = DistilledClassifier(**SETTINGS, teacher=teacher).fit(frame, Y)
    assert student.feature_names_in_.tolist() == [*"abcde", "town"] and student.score(frame, Y) > 0.8


def test_several_labels():
    labels = (X[:, :3] > 0).astype(int)
    for teacher in (None, RandomForestClassifier(20, random_state=0)):
        student = DistilledClassifier(**SETTINGS, teacher=teacher).fit(X, labels)
        assert student.predict_proba(X).shape == (150, 3) and student.score(X, labels) > 0.8
        again = DistilledClassifier(**SETTINGS, teacher=student.teacher_).fit(X)
        assert again.predict(X).shape == (150, 3) and again.score(X, labels) > 0.7


@pytest.mark.parametrize("with_y", [True, False])
def test_a_teacher_of_other_answers_than_labels_of_yes_and_no_is_refused(with_y):
    """Its columns would be taken for labels, and the student would learn something else without a word."""
    labels = (X[:, :2] > 0).astype(int)
    words = MultiOutputClassifier(LogisticRegression()).fit(X, np.where(labels, "a yes", "no"))
    three = RandomForestClassifier(5, random_state=0).fit(X, labels + (X[:, 2:4] > 0))
    for teacher, message in (
        (words, r"MultiOutputClassifier must answer 0 or 1 .* got the classes \['a yes', 'no'\] of label 0"),
        (three, r"RandomForestClassifier must answer 0 or 1 .* got the classes \[0, 1, 2\] of label 0"),
    ):
        with pytest.raises(ValueError, match=message):
            DistilledClassifier(**SETTINGS, teacher=teacher).fit(X, labels if with_y else None)


def test_a_teacher_of_one_class_does_not_teach_labels():
    labels, one = (X[:, :3] > 0).astype(int), LogisticRegression().fit(X, Y)
    model = minidl.Sequential([Input((5,)), Dense(3, "softmax")], seed=0)
    for teacher in (one, model):
        with pytest.raises(ValueError, match="y has 3 labels of yes and no, and the teacher .* one class"):
            DistilledClassifier(**SETTINGS, teacher=teacher).fit(X, labels)
    sigmoids = minidl.Sequential([Input((5,)), Dense(3, "sigmoid")], seed=0)
    DistilledClassifier(**SETTINGS, teacher=sigmoids).fit(X, labels)


# ---------------------------------------------------------------- without labels


def test_without_y_the_teacher_is_all():
    teacher = LogisticRegression().fit(X[:100], Y[:100])
    student = DistilledClassifier(**SETTINGS, teacher=teacher).fit(X)
    assert student.classes_.tolist() == ["cat", "dog", "emu"] and student.score(X, teacher.predict(X)) > 0.85
    two = DistilledClassifier(**SETTINGS, teacher=LogisticRegression().fit(X, Y == "cat")).fit(X)
    assert two.classes_.tolist() == [False, True] and two.score(X, Y == "cat") > 0.85
    assert DistilledClassifier(**SETTINGS, teacher=lambda x: x[:, :3] * 5).fit(X).classes_.tolist() == [
        0,
        1,
        2,
    ]
    line = LinearRegression().fit(X, NUMBERS)
    assert DistilledRegressor(**SETTINGS, teacher=line).fit(X).score(X, NUMBERS) > 0.9
    for refused, message in (
        (DistilledClassifier(), "requires y to be passed"),
        (
            DistilledClassifier(teacher=GaussianNB()),
            "GaussianNB teacher requires y .* is not fitted. Fit it first",
        ),
        (DistilledClassifier(teacher=teacher, early_stopping=True), "early_stopping=True needs y"),
        (DistilledClassifier(teacher=teacher, soft_weight=0.0), "soft_weight must be > 0 without y"),
        (DistilledClassifier(teacher=teacher, class_weight="balanced"), "class_weight needs y"),
        (DistilledRegressor(teacher=LinearRegression()), "LinearRegression teacher requires y"),
    ):
        with pytest.raises(ValueError, match=message):
            refused.fit(X)


# ---------------------------------------------------------------- numbers


def test_a_regressor_learns_the_weighted_mean_of_label_and_teacher():
    teacher = LinearRegression().fit(X, NUMBERS)
    found = DistilledRegressor(**SETTINGS, teacher=teacher, hard_weight=1.0, soft_weight=3.0).fit(
        X, NUMBERS**2
    )
    mean = 0.25 * NUMBERS**2 + 0.75 * teacher.predict(X)
    wanted = MLPRegressor(**SETTINGS).fit(X, mean)
    np.testing.assert_allclose(found.coefs_[0], wanted.coefs_[0], atol=1e-10)
    same = DistilledRegressor(**SETTINGS, teacher=teacher, hard_weight=0.1, soft_weight=0.3).fit(
        X, NUMBERS**2
    )
    np.testing.assert_allclose(same.coefs_[0], found.coefs_[0], atol=1e-10)
    forest = RandomForestRegressor(10, random_state=0)
    counts = np.floor(np.exp(NUMBERS[:, 0] / 2))
    assert DistilledRegressor("poisson", **SETTINGS, teacher=forest).fit(X, counts).score(X, counts) > 0.5


def test_temperature_auto_chooses_among_candidates_and_labels_alone():
    noisy = np.where(rng.random(150) < 0.4, np.roll(Y, 1), Y)
    found = DistilledClassifier(**SETTINGS, teacher=LogisticRegression().fit(X, Y), temperature="auto").fit(
        X, noisy
    )
    assert (found.temperature_, found.soft_weight_) in ((2.0, 0.5), (4.0, 0.9), (2.0, 0.0))
    useless = Fixed(["cat", "dog", "emu"], [1.0, 0.0, 0.0])
    alone = DistilledClassifier(**SETTINGS, teacher=useless, temperature="auto").fit(X, Y)
    assert (alone.hard_weight_, alone.soft_weight_) == (1.0, 0.0)
    np.testing.assert_allclose(alone.coefs_[0], MLPClassifier(**SETTINGS).fit(X, Y).coefs_[0], atol=1e-10)
    two = DistilledClassifier(**SETTINGS, teacher=GaussianNB(), temperature="auto", early_stopping=True)
    assert two.fit(X, Y == "cat").score(X, Y == "cat") > 0.7
    few = DistilledClassifier(**SETTINGS, teacher=useless, temperature="auto").fit(X[:30], Y[:30])
    assert (few.temperature_, few.hard_weight_, few.soft_weight_) == (2.0, 0.5, 0.5)
    unlabelled = DistilledClassifier(**SETTINGS, teacher=useless, temperature="auto").fit(X)
    assert (unlabelled.temperature_, unlabelled.hard_weight_, unlabelled.soft_weight_) == (2.0, 0.0, 1.0)


# ---------------------------------------------------------------- scikit-learn's tools


def test_partial_fit_with_each_kind_of_teacher():
    fitted = LogisticRegression().fit(X, Y)
    for teacher in (None, GaussianNB(), fitted, lambda x: 5 * x[:, :3]):
        student = DistilledClassifier(**SETTINGS, teacher=teacher)
        for _ in range(30):
            for rows in (slice(0, 70), slice(70, 150)):
                student.partial_fit(X[rows], Y[rows], classes=["cat", "dog", "emu"])
        assert student.score(X, Y) > 0.75
    assert (
        fitted
        is DistilledClassifier(teacher=fitted).partial_fit(X, Y, classes=["cat", "dog", "emu"]).teacher_
    )
    with pytest.raises(
        ValueError, match=r"y has the classes \['fox'\], which the teacher LogisticRegression"
    ):
        DistilledClassifier(teacher=fitted).partial_fit(X, Y, classes=["cat", "dog", "emu", "fox"])
    with pytest.raises(ValueError, match="partial_fit needs a fitted teacher, .* got RandomForestClassifier"):
        DistilledClassifier(teacher=RandomForestClassifier()).partial_fit(X, Y, classes=["cat", "dog", "emu"])


def test_searches_run_over_teachers_and_weights_on_two_processes():
    grid = {"teacher": [GaussianNB(), None], "soft_weight": [0.0, 0.9]}
    search = GridSearchCV(DistilledClassifier(**SETTINGS | {"max_iter": 15}), grid, n_jobs=2, cv=2).fit(X, Y)
    assert search.best_score_ > 0.6
    again = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(again.predict_proba(X), search.predict_proba(X))


@pytest.mark.parametrize("early_stopping", (False, True))
def test_weights_reach_teacher_and_student(early_stopping):
    weight = np.where(Y == "emu", 0.0, 1.0)
    settings = SETTINGS | {"early_stopping": early_stopping}
    student = DistilledClassifier(**settings, teacher=GaussianNB()).fit(X, Y, sample_weight=weight)
    assert "emu" not in student.predict(X)
    assert "emu" in DistilledClassifier(**settings, teacher=GaussianNB()).fit(X, Y).predict(X)


MISTAKES = {
    "array": (np.eye(3), TypeError, "teacher must not be an array of answers"),
    "class": (GaussianNB, TypeError, "teacher must be None, an estimator, .* got"),
    "name": ("forest", TypeError, "got 'forest'"),
    "decides only": (RidgeClassifier(), TypeError, "predict_proba, got RidgeClassifier: .*CalibratedClassifierCV"),
    "probabilities": (lambda x: np.full((len(x), 3), 1 / 3), ValueError, "gives probabilities where logits are wanted"),
    "columns": (lambda x: x[:, :4], ValueError, r"teacher must answer \(150, 3\), .* got \(150, 4\)"),
    "rows": (lambda x: x[:9, :3], ValueError, r"teacher must answer \(150, .* got \(9, 3\)"),
    "a regressor": (LinearRegression().fit(X, NUMBERS), TypeError, "must be a classifier, got the regressor LinearReg"),
    "NaN": (lambda x: x[:, :3] * np.nan, ValueError, "teacher's answers"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_teacher_is_refused(mistake):
    teacher, error, message = MISTAKES[mistake]
    with pytest.raises(error, match=message):
        DistilledClassifier(**SETTINGS, teacher=teacher).fit(X, Y)


def test_a_classifier_does_not_teach_numbers():
    with pytest.raises(TypeError, match="teacher must answer numbers, got the classifier GaussianNB"):
        DistilledRegressor(teacher=GaussianNB().fit(X, Y)).fit(X, NUMBERS)


def test_wrong_numbers_are_refused():
    for settings, message in (
        (dict(temperature=0), "temperature must be > 0, got 0"),
        (dict(temperature="high"), "temperature must be a number > 0 or \"auto\", got 'high'"),
        (dict(class_weight={"cat": -1}), r"class_weight\['cat'\] must be >= 0, got -1"),
        (dict(class_weight={"cat": np.nan}), r"class_weight\['cat'\] must be"),
        (dict(class_weight=dict.fromkeys(["cat", "dog", "emu"], 0)), "class_weight must not be zero for all"),
        (dict(class_weight="even"), 'class_weight must be None, "balanced" or a dict'),
        (dict(hard_weight=-1), "hard_weight must be >= 0"),
        (dict(hard_weight=0, soft_weight=0), "must not both be 0"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            DistilledClassifier(**settings, teacher=GaussianNB()).fit(X, Y)
    with pytest.raises(ValueError, match="sample_weight: the teacher Fixed takes none"):
        unfitted = Fixed(["cat", "dog", "emu"], [0.2, 0.3, 0.5])
        type(unfitted).__sklearn_is_fitted__, kept = (lambda self: False), Fixed.__sklearn_is_fitted__
        try:
            DistilledClassifier(teacher=unfitted).fit(X, Y, sample_weight=np.ones(150))
        finally:
            Fixed.__sklearn_is_fitted__ = kept


def test_sklearn_teacher():
    model = minidl.Sequential([Input((5,)), Dense(8, "relu"), Dense(3, "softmax")], seed=0)
    teacher = LogisticRegression().fit(X, Y)
    with pytest.warns(
        UserWarning, match=r"LogisticRegression are \['cat', 'dog', 'emu'\], and a student has 0, 1"
    ):
        named = sklearn_teacher(teacher)
    report = minidl.distill(named, model, X, np.unique(Y, return_inverse=True)[1], epochs=2, verbose=0)
    assert report is not None
    line = minidl.Sequential([Input((5,)), Dense(2)], seed=0)
    minidl.distill(sklearn_teacher(LinearRegression().fit(X, NUMBERS)), line, X, NUMBERS, epochs=2, verbose=0)
    with pytest.raises(TypeError, match="scikit-learn estimator"):
        minidl.distill(teacher, model, X, Y, epochs=1, verbose=0)
    for bad, error, message in (
        (StandardScaler().fit(X), TypeError, "predict_proba"),
        (LogisticRegression(), ValueError, "LogisticRegression knows nothing yet"),
        (LogisticRegression, TypeError, "must be a fitted scikit-learn estimator"),
    ):
        with pytest.raises(error, match=message):
            sklearn_teacher(bad)


FOREST = RandomForestClassifier(20, random_state=0).fit(X, Y)


@pytest.mark.parametrize(
    ("teacher", "least"),
    [
        (FOREST, 1 / 23),
        (ExtraTreesClassifier(7, random_state=0).fit(X, Y), 1 / 10),
        (BaggingClassifier(n_estimators=9, random_state=0).fit(X, Y), 1 / 12),
        (KNeighborsClassifier(4).fit(X, Y), 1 / 7),
        (FrozenEstimator(FOREST), 1 / 23),
        (make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(X, Y), 1 / 8),
        (GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [6]}, cv=2).fit(X, Y), 1 / 9),
        (LogisticRegression().fit(X, Y), 1e-7),
        (HistGradientBoostingClassifier(max_iter=2).fit(X, Y), 1e-7),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
def test_who_counts_votes_tells_nothing_below_one_of_them(teacher, least):
    assert least_probability(teacher, 3) == pytest.approx(least)
    logits = logits_of(teacher, X, X, np.unique(Y), 0)
    probs = teacher.predict_proba(X)
    assert np.allclose(logits, np.log(np.maximum(probs, least)))
    with pytest.warns(UserWarning, match="cat"):
        named = sklearn_teacher(teacher)
    softened = minidl.softmax(np.asarray(named.logits(X.astype("f")), float))
    assert np.allclose(softened, minidl.softmax(logits), atol=1e-4)


def test_the_least_probability_of_yes_and_no_and_one_of_the_users():
    two = np.where(X[:, 0] > 0, "yes", "no")
    forest = RandomForestClassifier(8, random_state=0).fit(X, two)
    logits = logits_of(forest, X, X, np.unique(two), 0)
    assert abs(logits).max() == pytest.approx(np.log(9))  # a tenth and nine of them
    with pytest.warns(UserWarning, match="cat"):
        named = sklearn_teacher(FOREST, floor=1e-3)
    assert np.ptp(named.logits(X.astype("f")), axis=1).max() == pytest.approx(np.log(1000), rel=1e-3)
    for bad, error in ((0.0, ValueError), (1.0, ValueError), (1 / 3, ValueError), ("1e-3", TypeError)):
        with pytest.raises(error, match="floor must be"):
            sklearn_teacher(FOREST, floor=bad)
    with pytest.raises(ValueError, match="floor is for probabilities, and LinearRegression answers numbers"):
        sklearn_teacher(LinearRegression().fit(X, NUMBERS), floor=0.1)


def test_answers_that_are_no_probabilities_are_refused_and_not_scaled():
    teacher = sklearn_teacher(Fixed([0, 1, 2], [0.5, 0.5, 0.5]))
    with pytest.raises(ValueError, match="sum to 1"):
        teacher.logits(X.astype("f"))
