"""Teachers made of others: ``Ensemble``, several as one, and ``InputsTeacher``, one that sees inputs of its own."""

import copy
import hashlib
import json
from collections.abc import Sequence
from functools import reduce

import numpy as np

from ..losses.softmax import log_softmax, sigmoid, softmax
from ..validation import check_array, check_choice, check_float, describe
from .conversion import ANY, as_teacher, named_teacher
from .kinds import Teacher, fingerprint


class Ensemble(Teacher):
    """Several teachers as one, by the mean of their answers.

    ``mean="arithmetic"`` averages the softened probabilities, ``p = sum_m w_m softmax(v_m / T)``. No logits give that
    at every T, so the ensemble's logits are made for the temperature asked: ``v = T log p``, by log-sum-exp, hence
    ``softmax(v / T) = p`` exactly. Distilling from it is distilling from all members at once:
    ``sum_m w_m KL(p_m || q) = KL(p || q) + constant``. ``mean="geometric"`` averages the logits,
    ``v = sum_m w_m v_m``: the normalised geometric mean of the members' probabilities at the same T.

    For a student that ends in sigmoids the same holds with sigmoid in place of softmax, output by output; for a
    regression either mean is that of the members' outputs. Which of these is meant follows from the student; called
    by itself, an ensemble averages softmax, but sigmoids if a member ends in one, and outputs of width 1 as they are.

    Parameters
    ----------
    members : models, arrays of logits, functions, ensembles; one or more.
    weights : one number > 0 per member, scaled to sum to 1; equal by default.

    Called like a function, ``ensemble(x, temperature=1.0)`` gives its logits; ``predict(x)`` the
    averaged probabilities.
    """

    name = "ensemble"

    def __init__(self, members: Sequence, mean: str = "arithmetic", weights: Sequence[float] | None = None):
        if isinstance(members, (np.ndarray, str)) or not isinstance(members, Sequence) or len(members) == 0:
            raise ValueError(f"members must be a list of one or more teachers, got {describe(members)}")
        self.mean = check_choice("mean", mean, ("arithmetic", "geometric"))
        self._members = tuple(
            named_teacher(f"members[{i}]", member, activation=ANY) for i, member in enumerate(members)
        )
        weights = [1.0] * len(members) if weights is None else weights
        if not np.iterable(weights) or len(weights) != len(members):
            raise ValueError(
                f"weights must have one number a member: {len(members)}, got {describe(weights)}"
            )
        self.weights = np.array([check_float(f"weights[{i}]", w, above=0) for i, w in enumerate(weights)])
        self.weights /= self.weights.sum()
        self.classes, self.samples = self._common("classes"), self._common("samples")
        if any(member.activation == "sigmoid" for member in self._members):
            self.activation = "sigmoid"
        elif self.classes == 1:
            self.activation = None

    def _common(self, attribute: str) -> int | None:
        """The number all members agree on, or None if no member knows it."""
        known = {getattr(member, attribute) for member in self._members} - {None}
        if len(known) > 1:
            raise ValueError(f"members must have the same number of {attribute}, got {sorted(known)}")
        return known.pop() if known else None

    @property
    def softens(self):
        own = self.activation is not None and self.mean == "arithmetic" and len(self._members) > 1
        return own or any(member.softens for member in self._members)

    def answering(self, activation) -> "Ensemble":
        found = copy.copy(self)
        found.activation = activation
        found._members = tuple(member.answering(activation) for member in self._members)
        return found

    def members(self):
        return self._members

    def logits(self, x, rows=None, temperature=1.0):
        answers = [
            np.asarray(member.logits(x, rows=rows, temperature=temperature), np.float64)
            for member in self._members
        ]
        first = answers[0].shape
        for v in answers:
            if v.shape != first:
                raise ValueError(f"members must give logits of one shape, got {first} and {v.shape}")
        is_of_numbers = self.activation is None or (self.activation == "softmax" and first[1] == 1)
        if self.mean == "geometric" or is_of_numbers:
            return reduce(np.add, map(np.multiply, self.weights, answers))
        if self.activation == "sigmoid":
            yes, no = (
                self._log_mean([-np.logaddexp(0.0, sign * v / temperature) for v in answers])
                for sign in (-1, 1)
            )
            return temperature * (yes - no)
        return temperature * self._log_mean([log_softmax(v, temperature) for v in answers])

    def _log_mean(self, log_p: list[np.ndarray]) -> np.ndarray:
        """The logarithm of the members' mean probability."""
        return reduce(np.logaddexp, map(np.add, np.log(self.weights), log_p))

    def predict(self, x: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """The averaged probabilities ``(B, C)``, each member's softened by ``temperature`` first; or mean outputs."""
        logits = self.logits(x, temperature=temperature)
        if self.activation == "sigmoid":
            return sigmoid(logits / temperature)
        return logits if self.activation is None else softmax(logits, temperature)

    def fingerprint(self):
        parts = [member.fingerprint() for member in self._members]
        if not all(parts):
            return ""
        known = [self.mean, self.weights.tolist(), parts]
        if self.activation != "softmax":
            known.append(self.activation)
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


class InputsTeacher(Teacher):
    """A teacher that is asked about ``inputs`` ``(N, ...)``, row i for sample i, in place of what the student sees.

    So a teacher may know other features, or images of a higher resolution. Like an array of logits it knows the
    samples of one data set alone, by their place: ``fit(x, y, target_model=InputsTeacher(teacher, inputs))``.
    `distill` makes one of its ``teacher_inputs``.
    """

    def __init__(self, teacher: object, inputs: np.ndarray):
        self.teacher = as_teacher(teacher)
        if self.teacher.samples is not None:
            raise ValueError(
                "teacher_inputs are for a teacher that is asked, got an array, whose rows are its answers already"
            )
        self.inputs = check_array("teacher_inputs", inputs, may_be_sparse=True)
        self.samples, self.classes, self.name = len(self.inputs), self.teacher.classes, self.teacher.name
        self.activation, self.softens = self.teacher.activation, self.teacher.softens

    def answering(self, activation):
        return InputsTeacher(self.teacher.answering(activation), self.inputs)

    def members(self):
        return (self.teacher,)

    def logits(self, x, rows=None, temperature=1.0):
        if rows is None and len(x) != self.samples:
            raise ValueError(
                f"teacher has inputs of its own for {self.samples} samples and knows no others, got x of {len(x)}"
            )
        inputs = np.ascontiguousarray(self.inputs if rows is None else self.inputs[rows])
        try:
            return self.teacher.logits(inputs, temperature=temperature)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error} (it was asked about teacher_inputs)") from error

    def fingerprint(self):
        own = self.teacher.fingerprint()
        return own and hashlib.sha256(json.dumps([own, fingerprint(self.inputs)]).encode()).hexdigest()
