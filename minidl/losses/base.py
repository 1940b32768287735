"""The base class of all losses: it checks the arguments, calls the kernel, and gives value and gradient together."""

import math
from typing import Any

import numpy as np

from .. import validation
from ..kernels import losses as kernels
from ..kernels import reductions, threads
from ..kernels.losses import Batch
from ..kernels.rows import NO_LABEL
from ..registry import Configurable, Registry, is_minidls, overridden, snake_case
from .softmax import as_real

NO_LABELS = np.empty(0, np.int64)
_NO_WEIGHT = np.empty(0, np.float64)
_DIVISORS = {
    "sum_over_batch_size": reductions.ROWS,
    "mean": reductions.ROWS,
    "mean_with_sample_weight": reductions.WEIGHTS,
    "sum": reductions.ONE,
    "none": reductions.ONE,
    None: reductions.ONE,
}
"""By what each ``reduction`` divides the weighted sum of the rows' losses."""
_FLOPS_OF_A_ROW, _FLOPS_OF_AN_ENTRY = 12_000.0, 150.0
"""What a sample and each of its classes cost, in operations of a matrix product that take as long."""


class Loss(Configurable):
    """Base of the losses. minidl's own have a kernel of their name; a user's own overrides ``value_and_grad``, or is a
    function that `compile` is given (see `function.FunctionLoss`).

    ``reduction``, as in Keras: what becomes of the rows' losses, each multiplied by its ``sample_weight`` if there is
    one. "sum_over_batch_size", also called "mean": their sum divided by B. "mean_with_sample_weight": divided by the
    sum of the weights. "sum": their sum; its gradient is B times the mean's. "none" or None: as they are, (B,), when
    the loss is called; it cannot be trained with. A loss with a ``value_and_grad`` of its own, or with a teacher, is a
    mean. ``name``: the class's name in snake case by default.

    Attributes training reads: ``fused_activation`` ("softmax", "sigmoid" or None: the final activation that
    value and gradient include), ``from_logits``, ``distills`` (needs teacher logits), ``sparse`` (y holds class
    indices; None: class indices or rows of targets), ``needs_labels`` (False: y may be None), ``needs_target`` (a
    row without a label adds nothing at all), ``whole_batch`` (a row's loss depends on the other rows), ``is_of_rows``
    (a row's outputs belong together, so they must be (B, C)).
    """

    fused_activation: str | None = None
    distills = False
    sparse: bool | None = False
    whole_batch = False
    is_of_rows = False
    from_logits = False
    ignore_class: int | None = None
    needs_labels = True
    needs_target = False
    penalty_rows = 0.0
    """0: the regularizers' penalties are added to each batch's loss as they are. Else they are those of a batch whose
    losses are divided by ``penalty_rows``, and a batch of which the divisor is d has penalty_rows / d of them: so they
    are divided as the losses are, scikit-learn's convention."""

    kind_on_logits = kind_on_outputs = -1
    """The kernel's number for logits, and for the model's outputs where these are something else."""
    vector_is_sample = True
    """What two vectors mean to ``__call__``: one sample, as in Keras, or B samples of one output."""
    label_smoothing = 0.0  # of the losses that have no such argument
    target_limits = (0.0, 1.0)  # of the targets, where there is a fused activation
    _is_own = False

    def __init_subclass__(cls, **kwargs) -> None:
        """Find the kernels of a loss of minidl's own by its name: ``HUBER`` of ``Huber``."""
        super().__init_subclass__(**kwargs)
        kernel = snake_case(cls.__name__).upper()
        if is_minidls(cls) and kernel in kernels.Loss.__members__:
            cls.kind_on_logits = getattr(kernels, kernel)
            cls.kind_on_outputs = getattr(kernels, f"{kernel}_ON_PROBS", cls.kind_on_logits)

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None):
        self.name = validation.check_name(name, snake_case(type(self).__name__))
        self.reduction = validation.check_choice("reduction", reduction, tuple(_DIVISORS))
        self._is_own = self._is_own or overridden(self, "value_and_grad") is not None
        if (self._is_own or self.distills) and self.divisor != reductions.ROWS:
            why = "has a value_and_grad of its own" if self._is_own else "learns from a teacher"
            raise ValueError(f"reduction of {self.name}, which {why}, must be 'mean', got {reduction!r}")
        uncalled = overridden(self, "call", "__call__") if not self._is_own else "call" in dir(self)
        if uncalled or not self._is_own and self.kind_on_logits < 0:
            raise TypeError(
                f"{type(self).__name__} must define value_and_grad(logits, y, sample_weight=None)"
            )

    def kind(self, on_logits: bool) -> int:
        """The kernel's number, for logits or for the model's outputs; -1 for a `value_and_grad` of the user's own."""
        if self._is_own:
            return -1
        return self.kind_on_logits if on_logits else self.kind_on_outputs

    @property
    def hyper(self) -> np.ndarray:
        """float64 (8,): the settings that the kernel reads, in its order."""
        hyper = np.zeros(8)
        for place, setting in enumerate(kernels.SETTINGS.get(self.kind_on_logits, ())):
            hyper[place] = getattr(self, setting)
        return hyper

    @property
    def divisor(self) -> int:
        """By what the weighted sum of a batch's losses is divided, of ``minidl.kernels.reductions``."""
        divisor = _DIVISORS[self.reduction]
        if divisor == reductions.ROWS and self.ignore_class is not None:
            return reductions.COUNTED_ROWS
        return divisor

    @property
    def ignored(self) -> int:
        """The class that ``ignore_class`` says; else the mark of a row without a label."""
        return NO_LABEL if self.ignore_class is None else self.ignore_class

    def batch_weights(
        self, labels: np.ndarray, weight: np.ndarray, rows: int, batch_size: int | None = None
    ) -> np.ndarray:
        """The ``weight`` (rows,) or (0,) with which a sum divided by ``rows`` is what ``reduction`` says.

        Of several batches it is the mean of theirs, each weighted by its size, as Keras evaluates.
        """
        if self.divisor == reductions.ROWS:
            return weight
        out, batch_size = np.empty(rows), batch_size or rows
        reductions.multiply_weights(out, self.divisor, self.ignored, labels, weight, NO_LABELS, batch_size)
        return out

    def penalty_factor(self, labels: np.ndarray, weight: np.ndarray, rows: int) -> float:
        """By what the regularizers' penalty is multiplied on a batch of so many rows."""
        of_batch = labels, weight, NO_LABELS, 0, rows
        return reductions.penalty_factor(self.penalty_rows, self.divisor, self.ignored, *of_batch)

    def check_on(self, model, samples) -> None:
        """What is checked before these samples are trained or evaluated on, besides their shapes."""

    def check_trainable(self) -> None:
        """Raises ValueError if the loss is no single number, or 0 whatever the model predicts."""
        self.check_reduced()

    def labels_missing(self) -> str:
        """Why y must not be None, and what to write instead."""
        return f"{self.name} learns from labels; only a distillation loss with hard_weight=0 does without"

    def is_scheduled(self, setting: str) -> bool:
        """Whether ``setting`` changes over the epochs."""
        return False

    def set_epoch(self, epoch: int) -> None:
        """Training calls this before each epoch, counted from 0; scheduled settings follow it."""

    def __call__(self, y_true, y_pred, sample_weight=None) -> Any:
        """The loss as ``reduction`` says: the mean, a float. y_pred (B, C): the model's outputs.

        They are probabilities unless ``from_logits``. y_true and sample_weight: as in `value_and_grad`. Two vectors
        are one sample, as in Keras.
        Raises ValueError for probabilities outside [0, 1].
        """
        y_pred = validation.check_array("y_pred", y_pred)
        if y_true is not None:
            y_true = validation.check_array("y_true", y_true, allow_empty=True)
        are_vectors = y_pred.ndim == 1 and not self.sparse and np.ndim(y_true) == 1 and y_true.size > 0
        if are_vectors and not self.vector_is_sample:
            y_pred = y_pred[:, None]
        elif are_vectors:
            if sample_weight is not None:
                raise ValueError(
                    f"sample_weight needs y_pred of shape (B, C), got {y_pred.shape}: a vector is one sample, "
                    "as in Keras. For B samples of one output write y_pred[:, None]"
                )
            loss = self._mean_loss(y_pred[None], y_true[None], None, sample_weight)
            return loss if isinstance(loss, float) else float(loss[0])
        return self._mean_loss(y_pred, y_true, None, sample_weight)

    def value_and_grad(self, logits, y, sample_weight=None) -> tuple[float, np.ndarray]:
        """(loss, its gradient by the logits): the mean, or what else ``reduction`` says.

        logits (B, C): before any fused activation. y: rows of targets (B, C), or class indices (B,) for a sparse loss.
        sample_weight (B,), >= 0.
        The gradient has the logits' shape. It is float32 if they are, otherwise float64.
        Raises ValueError for shapes that differ, NaN or inf (with the first index) and labels out of range.
        """
        self.check_reduced()
        return self._value_and_grad(self._checked_batch(("logits", "y"), logits, y, None, sample_weight))

    def check_reduced(self) -> None:
        """A ValueError if the loss is no single number."""
        if self.reduction in ("none", None):
            raise ValueError(
                f"reduction of loss {self.name} is {self.reduction!r}, one value a sample: training needs a single "
                "number, as 'sum_over_batch_size' or 'sum' give"
            )

    def _mean_loss(self, pred, y_true, teacher_logits, sample_weight) -> Any:
        if self._is_own:
            if self.fused_activation and not self.from_logits:
                raise TypeError(f"{self.name} has a value_and_grad of its own, which takes logits: call that")
            teacher = (teacher_logits,) if self.distills else ()
            return float(self.value_and_grad(pred, y_true, *teacher, sample_weight=sample_weight)[0])
        batch = self._checked_batch(("y_pred", "y_true"), pred, y_true, teacher_logits, sample_weight)
        if self.reduction in ("none", None):
            return self._row_losses(batch).astype(batch.logits.dtype)
        return kernels.sum_of_rows(self._row_losses(batch))

    def _row_losses(self, batch: Batch) -> np.ndarray:
        """The loss of each row of the model's outputs, which must be probabilities if the loss wants those."""
        if self.kind_on_logits != self.kind_on_outputs and not self.from_logits:
            why = " (probabilities; for logits say from_logits=True)"
            validation.check_range("y_pred", batch.logits, 0.0, 1.0, why=why)
        return self._run_kernel(self.kind(self.from_logits), batch, no_rows(batch.logits))

    def _value_and_grad(self, batch: Batch) -> tuple[float, np.ndarray]:
        dlogits = np.empty_like(batch.logits)
        return kernels.sum_of_rows(self._run_kernel(self.kind_on_logits, batch, dlogits)), dlogits

    def _checked_batch(self, names: tuple[str, str], z, y, teacher_logits, sample_weight) -> Batch:
        """The arguments, checked, as the kernel's arrays. ``names``: the arguments' names of ``z`` and ``y``."""
        z = as_real(names[0], z)
        if z.ndim != 2:
            raise ValueError(f"{names[0]} must have shape (B, C), got {z.shape}")
        teacher = self._checked_teacher(names[0], z, teacher_logits)
        labels, targets = self.check_y(y, z.shape[1:], len(z), z.dtype, names[1], "the logits")
        targets = no_rows(z) if targets is None else np.require(targets, z.dtype, "CAW")
        if self.divisor != reductions.ROWS:
            weight = _NO_WEIGHT
            if sample_weight is not None:
                weight = validation.check_sample_weight(sample_weight, len(z))
            return Batch(z, labels, targets, teacher, self.batch_weights(labels, weight, len(z)) / len(z))
        scale = np.empty(len(z))
        scale.fill(1.0 / len(z))  # twice as fast as np.full
        if sample_weight is not None:
            scale *= validation.check_sample_weight(sample_weight, len(z))
        return Batch(z, labels, targets, teacher, scale)

    def _checked_teacher(self, name: str, z: np.ndarray, teacher_logits) -> np.ndarray:
        return no_rows(z)

    def holds_labels(self, y: np.ndarray, outputs: int) -> bool:
        """Whether ``y`` holds class indices rather than rows of targets."""
        if self.sparse is not None:
            return self.sparse
        return y.ndim == 1 or (outputs > 1 and y.shape[1:] == (1,))

    def check_y(
        self, y, shape: tuple[int, ...], rows: int, dtype, argument: str = "y", of: str = "x"
    ) -> tuple:
        """``(labels, targets)`` of ``y``: int64 (rows,) and None, or (0,) and (rows, outputs).

        ``shape``: of one sample's output. Targets have any real dtype and are not copied. ``y`` None, where the loss
        needs no labels: (0,) and None.
        """
        if y is None:
            if self.needs_labels:
                raise ValueError(f"{argument} must be given, got None: {self.labels_missing()}")
            return NO_LABELS, None
        y, outputs = validation.check_array(argument, y), math.prod(shape)
        validation.check_rows(argument, len(y), rows, of)
        if self.holds_labels(y, outputs):
            ignored = self.ignore_class
            return validation.check_labels(y, outputs, argument, self.distills, ignored), None
        limits = self.target_limits if self.fused_activation else None
        targets = validation.check_targets(y, shape, dtype, argument, limits=limits)
        return NO_LABELS, targets.reshape(len(targets), outputs)

    def _run_kernel(self, kind: int, batch: Batch, dlogits: np.ndarray) -> np.ndarray:
        """Each row's loss; the gradient goes to ``dlogits`` unless that has size 0."""
        row_loss, size = np.empty(len(batch.logits)), batch.logits.size
        work = _FLOPS_OF_A_ROW * len(row_loss) + _FLOPS_OF_AN_ENTRY * size
        n_threads = 1 if self.whole_batch else threads.count_for(work)
        arguments = row_loss, dlogits, batch, self.hyper
        if n_threads == 1:
            kernels.loss_batch(kind, *arguments)
        else:
            loss = kernels.UNITS.address(kind, batch.logits.dtype)
            run = threads.run_measured
            run(kernels.loss_rows_on_threads, loss, *arguments, threads=n_threads, flops=work)
        return row_loss


def no_rows(z: np.ndarray) -> np.ndarray:
    """In place of an array (B, C) that the kernel does not need."""
    return np.empty((0, 0), z.dtype)


LOSSES = Registry("loss", Loss)
