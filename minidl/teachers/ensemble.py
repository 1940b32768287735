"""Several teachers as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from ..validation import check_choice, check_float, describe
from .base import Teacher
from .conversion import named_teacher


class Ensemble(Teacher):
    """Several teachers as one, by the mean of their answers.

    ``mean="arithmetic"`` averages the softened probabilities, ``p = sum_m w_m softmax(v_m / T)``.
    No logits give that at every T, so the ensemble's logits are made for the temperature asked:
    ``v = T log p``, by log-sum-exp, hence ``softmax(v / T) = p`` exactly. Distilling from it is
    distilling from all members at once: ``sum_m w_m KL(p_m || q) = KL(p || q) + constant``.

    ``mean="geometric"`` averages the logits, ``v = sum_m w_m v_m``: the normalised geometric mean
    of the members' probabilities at the same T.

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
        self._members = tuple(named_teacher(f"members[{i}]", member) for i, member in enumerate(members))
        if weights is None:
            weights = [1.0] * len(members)
        if not np.iterable(weights) or len(weights) != len(members):
            raise ValueError(
                f"weights must have one number a member: {len(members)}, got {describe(weights)}"
            )
        self.weights = np.array([check_float(f"weights[{i}]", w, above=0) for i, w in enumerate(weights)])
        self.weights /= self.weights.sum()
        self.classes, self.samples = self._common("classes"), self._common("samples")
        self.softens = mean == "arithmetic" and len(members) > 1 or any(m.softens for m in self._members)

    def _common(self, attribute: str) -> int | None:
        """The number all members agree on, or None if no member knows it."""
        known = {getattr(member, attribute) for member in self._members} - {None}
        if len(known) > 1:
            raise ValueError(f"members must have the same number of {attribute}, got {sorted(known)}")
        return known.pop() if known else None

    def members(self):
        return self._members

    def logits(self, x, rows=None, temperature=1.0):
        total = None
        for member, weight in zip(self._members, self.weights, strict=True):
            v = np.asarray(member.logits(x, rows, temperature), dtype=np.float64)
            if total is not None and v.shape != total.shape:
                raise ValueError(f"members must give logits of one shape, got {total.shape} and {v.shape}")
            if self.mean == "geometric":
                total = weight * v if total is None else total + weight * v
            else:
                scaled = v / temperature
                scaled = scaled - scaled.max(axis=1, keepdims=True)  # exp cannot overflow
                log_p = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)) + np.log(weight)
                total = log_p if total is None else np.logaddexp(total, log_p)
        return total if self.mean == "geometric" else temperature * total

    def predict(self, x: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """The averaged probabilities ``(B, C)``, each member's softened by ``temperature`` first."""
        scaled = self.logits(x, temperature=temperature) / temperature
        exps = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return exps / exps.sum(axis=1, keepdims=True)

    def fingerprint(self):
        parts = [member.fingerprint() for member in self._members]
        if not all(parts):
            return ""
        text = json.dumps([self.mean, self.weights.tolist(), parts])
        return hashlib.sha256(text.encode()).hexdigest()
