"""Logits on disk, with the fingerprints of the samples and the teacher they belong to."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np

from ..archive import replacing
from ..validation import check_array, check_finite, check_logits, check_rows, describe
from .base import fingerprint
from .conversion import as_teacher
from .probabilities import refuse_probabilities

_FORMAT = "minidl logits 1"


def save_logits(path: str | os.PathLike, logits: np.ndarray, x: np.ndarray, teacher: object) -> None:
    """Write logits with a fingerprint of the samples and of the teacher they belong to.

    ``teacher`` is the teacher itself. For a function it is a text that names its version, because nothing in a
    function tells whether it would answer the same tomorrow. The file is written under another name and then
    renamed, so it is never incomplete. Read it with ``load_logits``.
    """
    path = _check_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    x = check_array("x", x)
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
    with replacing(path) as file:
        np.savez(file, header=np.array(json.dumps(header)), logits=logits)


def load_logits(path: str | os.PathLike, x: np.ndarray, teacher: object) -> np.ndarray:
    """The logits in a file of ``save_logits``, if they belong to these samples and this teacher.

    Raises
    ------
    ValueError
        the file is damaged or of another kind, or the logits are stale: ``x`` was changed,
        reordered or converted since, or the teacher was trained further.
    """
    path = _check_path(path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            header, logits = json.loads(str(data["header"])), data["logits"]
        if header.get("format") != _FORMAT or logits.ndim != 2 or logits.dtype.kind != "f":
            raise ValueError(f"its header is {header}")
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, EOFError, OSError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of save_logits, or damaged ({error})") from error
    again = "compute them again with cached_logits and save_logits"
    if header.get("x") != fingerprint(check_array("x", x)):
        raise ValueError(f"{path}: these logits were computed from another x; {again}")
    if header.get("teacher") != _teacher_id(teacher):
        raise ValueError(
            f"{path}: these logits were computed by another teacher, or it was trained since; {again}"
        )
    return check_logits(logits, len(x), logits.shape[1], logits.dtype, str(path))


def _check_path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the name of a file, got {describe(path)}")
    return Path(path)


def _teacher_id(teacher: object) -> str:
    """The teacher's fingerprint, or the text that names its version."""
    found = teacher if isinstance(teacher, str) else as_teacher(teacher).fingerprint()
    if not found:
        raise ValueError(
            "teacher is a function, which has no fingerprint: give a text that names its version"
        )
    return found
