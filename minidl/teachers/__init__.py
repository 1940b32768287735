"""Teachers: a model, an ensemble, an array of logits or any function, and the cache of their logits.

Training asks a teacher one thing: the logits of these samples. ``as_teacher`` turns whatever the user has into
a ``Teacher`` and refuses what cannot teach.
"""

from .base import Teacher, fingerprint
from .cache import cached_logits, load_logits, save_logits
from .conversion import as_teacher, named_teacher
from .ensemble import Ensemble
from .kinds import ArrayTeacher, CallableTeacher, ModelTeacher
from .refusals import PROBABILITY_FLOOR, untrained_note

__all__ = [
    "ArrayTeacher",
    "CallableTeacher",
    "Ensemble",
    "ModelTeacher",
    "PROBABILITY_FLOOR",
    "Teacher",
    "as_teacher",
    "cached_logits",
    "fingerprint",
    "load_logits",
    "named_teacher",
    "save_logits",
    "untrained_note",
]
