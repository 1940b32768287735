"""Weight penalties, added to the loss and to the gradient (sample weights do not scale them), as in Keras."""

import numpy as np

from .kernels import restraints as kernel
from .registry import Configurable, Registry
from .registry import serialize as serialize
from .validation import check_float


class Regularizer(Configurable):
    """``l1*sum(|w|) + l2*sum(w*w)``: every penalty here is a pair of these coefficients.

    Called with an array of weights it gives the penalty as a float.
    """

    l1 = 0.0
    l2 = 0.0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if (
            cls.__call__ is not Regularizer.__call__
        ):  # training reads l1 and l2 only, so a formula here would never be used
            raise TypeError(f"a regularizer is its l1 and l2: {cls.__name__} must not define __call__")

    def __call__(self, weight) -> float:
        flat = np.ravel(np.asarray(weight, dtype=np.float64))
        segment = np.array([[0, flat.size]])
        no_grads = flat[:0]
        return float(kernel.add_regularizer(no_grads, flat, segment, np.array([[self.l1, self.l2]]), 1.0))


REGULARIZERS = Registry("regularizer", Regularizer)


@REGULARIZERS.register()
class L1L2(Regularizer):
    """``l1 * sum(|w|) + l2 * sum(w*w)``."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0):
        self.l1 = check_float("l1", 0.0 if l1 is None else l1, minimum=0)
        self.l2 = check_float("l2", 0.0 if l2 is None else l2, minimum=0)


@REGULARIZERS.register()
class L1(L1L2):
    """``l1 * sum(|w|)``; its gradient at 0 is 0."""

    def __init__(self, l1: float = 0.01):
        super().__init__(l1=l1)


@REGULARIZERS.register()
class L2(L1L2):
    """``l2 * sum(w*w)``: gradient ``2*l2*w``, with no half in front."""

    def __init__(self, l2: float = 0.01):
        super().__init__(l2=l2)


l1, l2, l1_l2 = L1, L2, L1L2


def get(identifier) -> Regularizer | None:
    """A regularizer from its name (``"l2"``: coefficient 0.01), a config, a class, itself, or None."""
    if identifier is L1L2 or (isinstance(identifier, str) and identifier in ("l1l2", "L1L2")):
        raise ValueError(
            f"regularizer {identifier!r} says no coefficients, and in Keras 3 both are then 0, no penalty at all: "
            "write L1L2(l1=0.01, l2=0.01)"
        )
    if isinstance(identifier, str) and identifier == "l1_l2":
        return L1L2(0.01, 0.01)  # so in TensorFlow's Keras; the class's own, 0, would do nothing
    return REGULARIZERS.get(identifier)


deserialize = get
