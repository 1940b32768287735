"""What all four estimators share: scikit-learn's parameters, its training loop on minidl's kernels, its attributes."""

import operator
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ...models import Sequential
from ...optimizers import SGD, Adam, Optimizer
from ...training.fit import fit
from ...training.options import FitOptions
from ...training.preparation import TrainingData
from ...training.samples import Samples
from ...training.tally import Tally
from ...validation import check_inputs, warn
from . import lbfgs, network
from .objectives import ByWeight
from .parameters import check_parameters
from .stopping import Orders, StoppingRule

X_OPTIONS: dict[str, Any] = dict(accept_sparse="csr", dtype=[np.float64, np.float32], order="C")
"""What ``X`` is made: float32 stays, all else becomes float64, and sparse matrices of other formats CSR."""
_OF_A_NET = (
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "best_loss_",
    "loss_",
    "_best_params",
)
_OUTSIDE = {"softmax": "softmax", "logistic": "sigmoid", "identity": None, "exp": None}
"""By ``out_activation_``, what the model ends in."""
_COMPILED = {
    "softmax": "sparse_categorical_crossentropy",
    "logistic": "binary_crossentropy",
    "identity": "half_mean_squared_error",
    "exp": None,
}
"""The loss that ``model_`` is compiled with, for those who go on with it."""


class Problem(NamedTuple):
    """What a fit learns from, checked."""

    samples: Samples
    loss: ByWeight
    outputs: int
    out_activation: str  # scikit-learn's name


@dataclass(eq=False, repr=False)  # of its constructor scikit-learn reads the signature
class Perceptron(BaseEstimator):
    """Base of the estimators; ``MLPClassifier`` explains the parameters and the attributes."""

    hidden_layer_sizes: int | Sequence[int] = (100,)
    activation: Literal["identity", "logistic", "tanh", "relu"] = "relu"
    _: KW_ONLY
    solver: Literal["lbfgs", "sgd", "adam"] = "adam"
    alpha: float = 0.0001
    batch_size: int | Literal["auto"] = "auto"
    learning_rate: Literal["constant", "invscaling", "adaptive"] = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: int | np.random.RandomState | None = None
    tol: float = 1e-4
    verbose: bool | int = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: int | float = 10
    max_fun: int = 15000
    dropout: float = 0.0
    batch_normalization: bool = False

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __setstate__(self, state):
        super().__setstate__(state)
        if hasattr(self, "model_"):
            self._link_weights()  # a copy of them is no view of the copied model's

    # -- training ------------------------------------------------------------------------------------

    def _problem(self, X, y, sample_weight, is_first: bool, incremental: bool) -> Problem:
        """Check the data and set what is known of it: ``n_features_in_``, ``classes_``."""
        raise NotImplementedError

    def _fit(self, X, y, sample_weight=None, incremental: bool = False):
        check_parameters(self)
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        is_first = not hasattr(self, "model_") or not (self.warm_start or incremental)
        if not is_first:
            network.check_sizes(self)
        self._train(self._problem(X, y, sample_weight, is_first, incremental), is_first, incremental)
        return self

    def _train(self, problem: Problem, is_first: bool = True, incremental: bool = False) -> None:
        rng = check_random_state(self.random_state)
        if is_first:
            self._begin(problem, rng)
        model = self._linked_model()
        if self.solver == "lbfgs":
            self._minimize(model, problem)
        else:
            self._descend(model, problem, rng, incremental)
        if not np.isfinite(model.params).all():
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )

    def _begin(self, problem: Problem, rng: np.random.RandomState) -> None:
        """A new net with scikit-learn's initial weights, and nothing learnt yet."""
        x, hidden = problem.samples.x, network.hidden_sizes(self.hidden_layer_sizes)
        sizes = [x.shape[1], *hidden, problem.outputs]
        dtype = "float64" if self.solver == "lbfgs" else x.dtype.name  # its line search needs the digits
        self.model_ = network.build(self, sizes, _OUTSIDE[problem.out_activation], dtype, rng)
        for name in _OF_A_NET:
            vars(self).pop(name, None)
        self.n_iter_ = self.t_ = self._no_improvement_count = 0
        self.n_layers_, self.n_outputs_ = len(sizes), problem.outputs
        self.out_activation_ = problem.out_activation
        self._link_weights()

    def _minimize(self, model: Sequential, problem: Problem) -> None:
        samples, rows = problem.samples, len(problem.samples.x)
        self._set_penalty(model, problem.loss, rows)
        result = lbfgs.minimize(self, model, problem.loss, samples)
        self.n_iter_, self.loss_ = min(result.nit, self.max_iter), float(result.fun)
        if self.out_activation_ == "identity":  # see `StoppingRule._loss`
            factor = problem.loss.penalty_factor(samples.labels, samples.weight, rows)
            errors = self.loss_ - model.penalty() * factor
            self.loss_ -= errors * (1 - 1 / self.n_outputs_)
        if result.status != 0:
            warn(
                f"lbfgs has not converged after {result.nit} iterations (status {result.status}: {result.message}): "
                f"raise max_iter, {self.max_iter}, or max_fun, {self.max_fun}, or scale X",
                ConvergenceWarning,
            )

    def _descend(self, model: Sequential, problem: Problem, rng, incremental: bool) -> None:
        samples, held_out = problem.samples, None
        if self.early_stopping:
            samples, held_out = self._hold_out(problem, rng)
        count, batch_size = len(samples.x), self._batch_size(len(samples.x))
        self._set_penalty(model, problem.loss, batch_size)
        if not incremental or model.optimizer is None:
            model.compile(self._optimizer(), _COMPILED[problem.out_activation])
        model.prepare_optimizer()
        self._begin_record()
        rule = StoppingRule(self, count, held_out, incremental)
        orders = Orders(model, count, rng if self.shuffle else None)
        epochs = 1 if incremental else self.max_iter
        y = samples.labels if samples.targets is None else samples.targets
        options = FitOptions(samples.x, y, batch_size, epochs, verbose=0, callbacks=[rule])
        tally = Tally(model, rule.metrics(samples), samples.targets is None, problem.loss.distills)
        data = TrainingData(problem.loss, samples, count, None, tally, None)
        self.n_iter_ = 0
        try:
            model.turns.train("fit", fit, model, options, data, orders)
        except KeyboardInterrupt:
            model.leave_epoch()
            warnings.warn("Training interrupted by user.", stacklevel=4)
        if self.early_stopping and hasattr(self, "_best_params"):
            model.params[...] = self._best_params

    def _begin_record(self) -> None:
        """The attributes that `StoppingRule` goes on with, where this net has none of them yet."""
        found: dict[str, Any] = {
            "best_loss_": np.inf,
            "validation_scores_": None,
            "best_validation_score_": None,
        }
        if self.early_stopping:
            found = {"best_loss_": None, "validation_scores_": [], "best_validation_score_": -np.inf}
        for name, value in {"loss_curve_": [], **found}.items():
            if getattr(self, name, None) is None:
                setattr(self, name, value)

    def _hold_out(self, problem: Problem, rng) -> tuple[Samples, Samples]:
        """The samples to learn from and those to judge by, drawn as scikit-learn draws them."""
        samples = problem.samples
        is_binary = problem.out_activation == "logistic" and problem.outputs == 1
        stratify = samples.targets[:, 0] if is_binary and samples.targets is not None else None
        rows = np.arange(len(samples.x))
        seen, held_out = train_test_split(
            rows, test_size=self.validation_fraction, random_state=rng, stratify=stratify
        )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return samples.take(seen), samples.take(held_out)

    def _batch_size(self, count: int) -> int:
        if self.batch_size == "auto":
            return min(200, count)
        if self.batch_size > count:
            warn(
                f"batch_size {self.batch_size} is more than the {count} samples: each step takes all of them"
            )
        return min(self.batch_size, count)

    def _optimizer(self) -> Optimizer:
        if self.solver == "sgd":
            return SGD(self.learning_rate_init, self.momentum, self.nesterovs_momentum)
        return Adam(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)

    def _set_penalty(self, model: Sequential, loss: ByWeight, rows: int) -> None:
        """alpha / 2 of the squared weights are added to the sum of the rows' losses, which is then divided."""
        network.set_penalty(model, self.alpha / (2 * rows))
        loss.penalize(rows)

    # -- the net -------------------------------------------------------------------------------------

    def _link_weights(self) -> None:
        self.coefs_, self.intercepts_ = network.arrays(self.model_)

    def _linked_model(self) -> Sequential:
        """``model_``, with the arrays that the user has put into ``coefs_`` and ``intercepts_``."""
        for given, views in zip((self.coefs_, self.intercepts_), network.arrays(self.model_), strict=True):
            if len(given) != len(views) or any(map(operator.is_not, given, views)):
                network.set_arrays(self.model_, self.coefs_, self.intercepts_)
                self._link_weights()
        return self.model_

    def _outputs(self, X, logits: bool = False) -> np.ndarray:
        """What the net answers to ``X`` (N, outputs), of the dtype of its weights."""
        check_is_fitted(self)
        model = self._linked_model()
        X = validate_data(self, X, **X_OPTIONS, reset=False)
        return model.predict_logits(X) if logits else model.predict(X)


def checked_x(X, dtype) -> Any:
    """As the kernels read it: rows of a sparse matrix become dense a slice at a time."""
    return X if isinstance(X, np.ndarray) else check_inputs(X, (X.shape[1],), np.dtype(dtype))
