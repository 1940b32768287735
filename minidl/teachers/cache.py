"""The logit cache: a teacher is asked once about each sample; its answers are kept by index, or in a file."""

import copy
import json
import os

import numpy as np

from .. import archive, validation
from ..validation import check_array, check_finite, check_rows, check_targets
from .answers import hint_of_two, refuse_probabilities
from .combined import Ensemble
from .conversion import as_teacher
from .kinds import ArrayTeacher, Teacher, fingerprint

_FORMAT = "minidl logits 1"


def cached_logits(
    teacher: object,
    x: np.ndarray,
    batch_size: int = 1024,
    temperature: float = 1.0,
    dtype: str | np.dtype = "float32",
    classes: int | None = None,
) -> np.ndarray:
    """The teacher's logits ``(N, C)`` for all of ``x``, row i for sample i, computed once.

    Logits kept by index stay with their samples under any shuffling, subset or split. An
    array of logits that has this dtype already is returned as it is, not copied.

    Parameters
    ----------
    teacher : anything ``as_teacher`` takes.
    x : samples ``(N, ...)``, of any real dtype, ``np.memmap`` and CSR matrices included; read one batch at a time.
    batch_size : samples per call of the teacher.
    temperature : where the logits will be used; it matters to an arithmetic ``Ensemble`` alone.
    dtype : of the result.
    classes : how many logits a sample must have, where that is known.

    Raises ValueError if the teacher's rows, classes or values do not fit.
    """
    teacher, dtype = as_teacher(teacher), np.dtype(dtype)
    batch_size = validation.check_int("batch_size", batch_size, minimum=1)
    temperature = validation.check_float("temperature", temperature, above=0)
    x = check_array("x", x, may_be_sparse=True)
    if teacher.samples is not None:
        check_rows("teacher", teacher.samples, len(x))
    if classes is not None and teacher.classes not in (None, classes):
        hint = hint_of_two(teacher.classes, classes)
        raise ValueError(f"teacher must have {classes} classes, got {teacher.classes}{hint}")
    if isinstance(teacher, ArrayTeacher):
        if teacher.array.dtype == dtype:
            return teacher.array
        check_finite("teacher", teacher.array, dtype)  # a finite float64 may be inf in float32
        return teacher.array.astype(dtype)
    out = np.empty((len(x), classes or teacher.classes or 0), dtype)
    for first in range(0, len(x), batch_size):
        rows = slice(first, min(first + batch_size, len(x)))
        batch = np.ascontiguousarray(x[rows])
        if batch.dtype.kind != "f" or batch.dtype.itemsize != dtype.itemsize:
            batch = batch.astype(dtype)
        logits = teacher.logits(batch, rows=rows, temperature=temperature)
        if out.shape[1] == 0:  # a function tells the number of classes by its first answer
            out = np.empty((len(x), logits.shape[1]), dtype)
        if hint := hint_of_two(logits.shape[1], out.shape[1]):
            raise ValueError(f"teacher must return one logit a sample, got {logits.shape[1]}{hint}")
        check_rows("what teacher returned", len(logits), len(batch))
        out[rows] = check_targets(logits, out.shape[1:], dtype, "what teacher returned")
    return out


class _Remembering(Teacher):
    """A teacher that is asked once about each stretch of rows, and gives the same answer again."""

    def __init__(self, teacher: Teacher):
        self._teacher, self._answers = teacher, {}
        self.name, self.classes, self.samples = teacher.name, teacher.classes, teacher.samples
        self.activation = teacher.activation

    def logits(self, x, rows=None, temperature=1.0):
        stretch = rows.start, rows.stop
        if stretch not in self._answers:
            self._answers[stretch] = self._teacher.logits(x, rows=rows, temperature=temperature)
        return self._answers[stretch]

    def members(self):
        return (self._teacher,)


def remembering(teacher: Teacher) -> Teacher:
    """``teacher``, whose model or function is asked once, however often `cached_logits` is called for the same x.

    An ensemble remembers its members' answers, so that it can give its own at another temperature.
    """
    if isinstance(teacher, ArrayTeacher):
        return teacher
    if not teacher.softens:
        return _Remembering(teacher)
    if type(teacher) is not Ensemble:  # of the user's own: only the same temperature has the same answer
        return teacher
    remembers = copy.copy(teacher)
    remembers._members = tuple(map(remembering, teacher.members()))
    return remembers


def save_logits(path: str | os.PathLike, logits: np.ndarray, x: np.ndarray, teacher: object) -> None:
    """Write logits with a fingerprint of the samples and of the teacher they belong to.

    ``teacher`` is the teacher itself. For a function it is a text that names its version, because nothing in a
    function tells whether it would answer the same tomorrow. The file is written under another name and then
    renamed, so it is never incomplete. Read it with ``load_logits``.
    """
    folder = os.path.dirname(archive.check_path(path)) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{path}: there is no folder {folder}")
    x = check_array("x", x, may_be_sparse=True)
    logits = check_array("logits", logits, ndim=2)
    check_rows("logits", len(logits), len(x))
    check_finite("logits", logits)
    refuse_probabilities("logits", logits)
    classes = None if isinstance(teacher, str) else as_teacher(teacher).classes
    if classes not in (None, logits.shape[1]):
        raise ValueError(f"logits must have the teacher's {classes} classes, got {logits.shape[1]}")
    if logits.dtype.kind != "f":
        logits = logits.astype(np.float32)
    header = {"format": _FORMAT, "x": fingerprint(x), "teacher": _teacher_id(teacher)}
    archive.write_members(path, {"header": np.array(json.dumps(header)), "logits": logits})


def load_logits(path: str | os.PathLike, x: np.ndarray, teacher: object) -> np.ndarray:
    """The logits in a file of ``save_logits``, if they belong to these samples and this teacher.

    Raises ValueError if the file is damaged or of another kind, or if the logits are stale: ``x`` was changed,
    reordered or converted since, or the teacher was trained further.
    """
    path = archive.check_path(path)
    damaged = "{}: not a file of save_logits, or damaged ({})"
    with open(path, "rb") as file, archive.naming(path, message=damaged):
        data = archive.read_members(file, ("header", "logits"))
        header, logits = json.loads(str(data["header"])), data["logits"]
        if header.get("format") != _FORMAT or logits.ndim != 2 or logits.dtype.kind != "f":
            raise ValueError(f"its header is {validation.describe(header)}")
    again = "compute them again with cached_logits and save_logits"
    if header.get("x") != fingerprint(check_array("x", x, may_be_sparse=True)):
        raise ValueError(f"{path}: these logits were computed from another x; {again}")
    if header.get("teacher") != _teacher_id(teacher):
        other = "by another teacher, or it was trained since"
        raise ValueError(f"{path}: these logits were computed {other}; {again}")
    check_rows(path, len(logits), len(x))
    return check_targets(logits, logits.shape[1:], logits.dtype, path)


def _teacher_id(teacher: object) -> str:
    """The teacher's fingerprint, or the text that names its version."""
    found = teacher if isinstance(teacher, str) else as_teacher(teacher).fingerprint()
    if not found:
        raise ValueError(
            "teacher is a function, which has no fingerprint: give a text that names its version"
        )
    return found
