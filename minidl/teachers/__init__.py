"""Teachers: a model, an ensemble, an array of logits or any function, and the cache of their logits.

Training asks a teacher one thing: the logits of these samples. ``as_teacher`` turns whatever the user has into
a ``Teacher`` and refuses what cannot teach.
"""

from .cache import cached_logits as cached_logits
from .cache import load_logits as load_logits
from .cache import save_logits as save_logits
from .conversion import Ensemble as Ensemble
from .conversion import as_teacher as as_teacher
from .conversion import named_teacher as named_teacher
from .conversion import untrained_note as untrained_note
from .kinds import PROBABILITY_FLOOR as PROBABILITY_FLOOR
from .kinds import ArrayTeacher as ArrayTeacher
from .kinds import CallableTeacher as CallableTeacher
from .kinds import ModelTeacher as ModelTeacher
from .kinds import Teacher as Teacher
from .kinds import fingerprint as fingerprint
