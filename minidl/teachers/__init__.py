"""Teachers: a model, an ensemble, an array of logits or any function, and the cache of their logits.

Training asks a teacher one thing: the logits of these samples. ``as_teacher`` turns whatever the user has into
a ``Teacher`` and refuses what cannot teach.
"""

from .answers import PROBABILITY_FLOOR
from .cache import cached_logits, load_logits, save_logits
from .combined import Ensemble, InputsTeacher
from .conversion import as_teacher, named_teacher, untrained_note
from .kinds import (
    ArrayTeacher,
    CallableTeacher,
    ModelTeacher,
    Teacher,
    fingerprint,
    may_be_probabilities,
)

__all__ = [
    "PROBABILITY_FLOOR", "ArrayTeacher", "CallableTeacher", "Ensemble", "InputsTeacher", "ModelTeacher", "Teacher",
]  # fmt: skip
__all__ += ["as_teacher", "cached_logits", "fingerprint", "load_logits", "save_logits"]
__all__ += ["may_be_probabilities", "named_teacher", "untrained_note"]  # for minidl itself
