"""What every teacher offers, and the fingerprint that tells whether stored logits still belong to their data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


class Teacher:
    """Anything that gives logits.

    Attributes
    ----------
    name : str, for messages.
    classes : the number of logits per sample, or None while it is not known.
    samples : None, or the number of samples of the one data set this teacher knows (an array of logits).
    softens : True if the logits depend on the temperature at which they will be used.
    """

    name = "teacher"
    classes: int | None = None
    samples: int | None = None
    softens = False

    def logits(
        self, x: np.ndarray, rows: np.ndarray | slice | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """The logits ``(B, C)`` of a batch ``x`` ``(B, ...)``, in inference mode.

        ``rows`` are the indices of the batch in the data set, for a teacher that knows its samples by index.
        The student will be trained to match ``softmax(logits / temperature)``.
        """
        raise NotImplementedError

    def members(self) -> tuple[Teacher, ...]:
        """The teachers this one consists of."""
        return ()

    def models(self) -> Iterable[object]:
        """The objects that may be models and that this teacher runs, as far as that can be seen."""
        own = [self.model] if hasattr(self, "model") else []
        return own + [model for member in self.members() for model in member.models()]

    def is_untrained(self) -> bool:
        """Whether this teacher is known to have its initial weights still."""
        return any(member.is_untrained() for member in self.members())

    def fingerprint(self) -> str:
        """A text that changes when the teacher would give other logits; "" if that cannot be known."""
        return ""

    def __call__(self, x: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        return self.logits(x, temperature=temperature)


def fingerprint(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and values, read in blocks of about 4 MB."""
    array = np.asarray(array)
    little_endian = array.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{little_endian.str}{array.shape}".encode())
    step = max(1, (1 << 22) // max(1, array[:1].nbytes))
    for first in range(0, len(array), step):
        digest.update(np.ascontiguousarray(array[first : first + step], dtype=little_endian).data)
    return digest.hexdigest()
