"""What can teach: a model, an ensemble, an array of logits, any function; and the logit cache.

Training asks a teacher one thing: the logits of these rows. ``as_teacher`` turns whatever the
user has into a ``Teacher``; everything that could go wrong with it is refused here.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .validation import (
    check_array,
    check_bool,
    check_choice,
    check_finite,
    check_float,
    check_int,
    check_logits,
    check_rows,
    describe,
)

# Probabilities below this are raised to it before their logarithm is taken, as in Keras.
PROBABILITY_FLOOR = 1e-7


class Teacher:
    """Anything that gives logits.

    ``classes`` is the number of logits a sample, or None while it is not known. ``samples`` is
    None, or the number of samples of the one data set the teacher knows (an array of logits).
    ``softens`` is True if the logits depend on the temperature they will be used at.
    """

    name = "teacher"
    classes: int | None = None
    samples: int | None = None
    softens = False

    def logits(
        self, x: np.ndarray, rows: np.ndarray | slice | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """The logits ``(B, C)`` of a batch ``x`` ``(B, ...)``, in inference mode.

        ``rows`` are the indices of the batch in the data set, for a teacher that knows its
        samples by index. ``softmax(logits / temperature)`` is what the student is to match.
        """
        raise NotImplementedError

    def members(self) -> tuple[Teacher, ...]:
        """The teachers this one is made of."""
        return ()

    def is_untrained(self) -> bool:
        """Whether this is known to hold initial weights still."""
        return any(member.is_untrained() for member in self.members())

    def fingerprint(self) -> str:
        """A text that changes when the teacher would give other logits; "" if that cannot be known."""
        return ""

    def __call__(self, x: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        return self.logits(x, temperature=temperature)


class ModelTeacher(Teacher):
    """A ``Sequential``: its logits before a final softmax or sigmoid, dropout and noise off."""

    def __init__(self, model):
        if getattr(model, "built", True) is False:
            raise ValueError(
                f"teacher {model.name!r} has no weights yet: train it before it teaches, "
                "teacher.fit(x, y, ...), or load it"
            )
        self.model = model
        self.name = getattr(model, "name", None) or "teacher"
        shape = getattr(model, "output_shape", None)
        self.classes = int(shape[-1]) if shape else None
        self._checked = False

    def logits(self, x, rows=None, temperature=1.0):
        try:
            logits = self.model.predict_logits(x)
        except (ValueError, TypeError) as error:
            raise type(error)(f"teacher {self.name!r} cannot take x: {error}") from error
        if not self._checked and len(logits) > 1:
            if _looks_like_probs(logits):
                raise ValueError(
                    f"teacher {self.name!r} gives probabilities where logits are wanted: let softmax be its last "
                    "layer, and there once"
                )
            self._checked = True
        return logits

    def is_untrained(self):
        model = self.model
        if getattr(model, "epoch", 0) or getattr(getattr(model, "optimizer", None), "iterations", 0):
            return False
        for layer in getattr(model, "layers", ()):
            for parameter in getattr(layer, "parameters", ()):  # biases begin at 0: the quick way to tell
                if type(parameter.initializer).__name__ == "Zeros" and getattr(layer, parameter.name).any():
                    return False
        try:
            fresh = type(model).from_config(model.get_config())
            fresh.build(model.input_shape)
        except Exception:  # a user's own layers: not known
            return False
        return bool(model.params.size) and np.array_equal(fresh.params, model.params)

    def fingerprint(self):
        layers = getattr(self.model, "layers", [])
        config = [(type(layer).__name__, {**layer.get_config(), "name": ""}) for layer in layers]
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=repr).encode())
        digest.update(np.ascontiguousarray(self.model.params).tobytes())
        return digest.hexdigest()


class ArrayTeacher(Teacher):
    """Logits ``(N, C)``, row i for sample i of the training data; an ``np.memmap`` stays on disk."""

    name = "logits"

    def __init__(self, logits, from_probs: bool = False):
        array = check_array("teacher", logits)
        if array.ndim != 2 or array.shape[1] < 2:
            raise ValueError(f"teacher must have shape (N, classes), classes >= 2, got {array.shape}")
        check_finite("teacher", array)
        if from_probs:
            array = _log_probs(array)
        elif _looks_like_probs(array):
            raise ValueError(_PROBS.format("teacher"))
        self.array = array
        self.samples, self.classes = array.shape

    def logits(self, x, rows=None, temperature=1.0):
        if rows is None:
            if len(x) != self.samples:
                raise ValueError(
                    f"teacher is an array with logits of {self.samples} samples and knows no others, "
                    f"got x of {len(x)}; to ask about new samples give the model itself"
                )
            return self.array
        return self.array[rows]

    def fingerprint(self):
        return fingerprint(self.array)


class CallableTeacher(Teacher):
    """A function ``x -> logits``, given C-contiguous float batches ``(B, ...)``."""

    def __init__(self, function: Callable, from_probs: bool = False):
        _refuse_dropout(function)
        self.function = function
        self.name = getattr(function, "__name__", type(function).__name__)
        self.from_probs = from_probs
        self._checked = False

    def logits(self, x, rows=None, temperature=1.0):
        if x.dtype.kind != "f":
            x = x.astype(np.float32)
        try:
            got = self.function(np.ascontiguousarray(x))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"teacher {self.name!r} cannot take x: {error}") from error
        try:
            array = None if got is None else np.asarray(got)
        except (RuntimeError, TypeError, ValueError) as error:
            raise TypeError(
                f"teacher must return a NumPy array, got {type(got).__name__} ({error}); for PyTorch: "
                "lambda x: module(torch.from_numpy(x)).detach().numpy()"
            ) from error
        array = check_array("what teacher returned", array)
        if array.ndim != 2 or len(array) != len(x) or array.shape[1] < 2:
            raise ValueError(f"teacher must return logits of shape ({len(x)}, classes), got {array.shape}")
        check_finite("what teacher returned", array)
        if self.from_probs:
            return _log_probs(array)
        # Once, and on more than one row: two logits can add up to 1 by chance.
        if not self._checked and len(array) > 1:
            if _looks_like_probs(array):
                raise ValueError(_PROBS.format("what teacher returned"))
            self._checked = True
        return array


class Ensemble(Teacher):
    """Several teachers as one, by the mean of what they say.

    ``mean="arithmetic"`` averages the softened probabilities, ``p = sum_m w_m softmax(v_m / T)``.
    No logits give that at every T, so the ensemble's logits are made for the temperature asked:
    ``v = T log p``, by log-sum-exp, hence ``softmax(v / T) = p`` exactly. Distilling from it is
    distilling from all members at once: ``sum_m w_m KL(p_m || q) = KL(p || q) + constant``.

    ``mean="geometric"`` averages the logits, ``v = sum_m w_m v_m``: the normalised geometric mean
    of the members' probabilities at the same T.

    Parameters
    ----------
    members : models, arrays of logits, functions, ensembles; one or more.
    weights : one number > 0 a member, scaled to sum to 1; equal by default.

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
        for what in ("classes", "samples"):
            known = {getattr(member, what) for member in self._members} - {None}
            if len(known) > 1:
                raise ValueError(f"members must have the same number of {what}, got {sorted(known)}")
            setattr(self, what, known.pop() if known else None)
        self.softens = mean == "arithmetic" and len(members) > 1 or any(m.softens for m in self._members)

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
                scaled = scaled - scaled.max(axis=1, keepdims=True)
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


def as_teacher(teacher: object, student: object = None, from_probs: bool = False) -> Teacher:
    """A model, an ``Ensemble``, logits ``(N, C)`` or a function ``x -> logits``, as a ``Teacher``.

    Zeros ``(N, C)`` are the uniform teacher: with ``KnowledgeDistillation(1.0, 1 - s, s)`` it smooths labels by
    ``s``. A ``deepcopy`` of a model may teach the model itself, or a new one of its kind (self-distillation).

    Parameters
    ----------
    teacher : what is to teach.
    student : the model that is to learn; it is refused as its own teacher, also inside an
        ensemble, as a bound method, or as another model on the same parameters, and it must
        have as many outputs as the teacher has classes.
    from_probs : the array, or what the function returns, is probabilities and not logits.
        Their logarithm is taken (not below 1e-7). Without it an array all of whose rows lie in
        [0, 1] and sum to 1 is refused: softened once more it would teach next to nothing.

    Raises
    ------
    TypeError, ValueError
        naming what was wrong with ``teacher`` and what to write instead.
    """
    if check_bool("from_probs", from_probs) and (
        isinstance(teacher, Teacher) or hasattr(teacher, "predict_logits")
    ):
        raise ValueError(
            "from_probs=True is for arrays and functions that give probabilities, "
            f"got {describe(teacher)}, which gives logits"
        )
    if isinstance(teacher, type):
        raise TypeError(f"teacher must be a model that was trained, got the class {teacher.__name__}")
    if isinstance(teacher, Teacher):
        found = teacher
    elif hasattr(teacher, "predict_logits"):
        found = ModelTeacher(teacher)
    elif _module(teacher).startswith("torch") and hasattr(teacher, "parameters"):
        raise TypeError(
            "teacher is a PyTorch module: put it in eval mode, module.eval(), and wrap it, "
            "teacher=lambda x: module(torch.from_numpy(x)).detach().numpy(), "
            "or use minidl.interop.torch.torch_teacher(module)"
        )
    elif hasattr(teacher, "predict_proba"):
        raise TypeError(
            "teacher is a scikit-learn estimator: its probabilities can teach, "
            "teacher=minidl.teachers.as_teacher(estimator.predict_proba, from_probs=True)"
        )
    elif _module(teacher).startswith("keras"):
        raise TypeError(
            "teacher is a Keras model: wrap it, teacher=lambda x: model.predict(x, verbose=0) if it gives "
            "logits; if it ends in softmax, minidl.teachers.as_teacher(lambda x: model.predict(x, verbose=0), "
            "from_probs=True)"
        )
    elif _module(teacher).startswith("onnxruntime"):
        raise TypeError(
            "teacher is an ONNX session: wrap it, teacher=lambda x: session.run(None, "
            "{session.get_inputs()[0].name: x})[0], or use minidl.interop.onnx.onnx_teacher(path)"
        )
    elif isinstance(teacher, (list, tuple)) or hasattr(teacher, "__array__"):
        if isinstance(teacher, (list, tuple)) and any(callable(t) or hasattr(t, "layers") for t in teacher):
            raise TypeError("teacher is a list of models: say how to average them, teacher=Ensemble([...])")
        found = ArrayTeacher(teacher, from_probs)
    elif callable(teacher):
        found = CallableTeacher(teacher, from_probs)
    else:
        raise TypeError(
            "teacher must be a model, an Ensemble, an array of logits (N, classes) or a function "
            f"x -> logits, got {describe(teacher)}"
        )
    if student is not None:
        _refuse_student(found, student)
        shape = getattr(student, "output_shape", None)
        if shape and shape[-1] < 2:
            raise ValueError(f"student must have an output for each class, two or more, got {shape[-1]}")
        if shape and found.classes is not None and found.classes != shape[-1]:
            raise ValueError(f"teacher must have the student's {shape[-1]} classes, got {found.classes}")
    return found


def named_teacher(name: str, teacher: object) -> Teacher:
    """``as_teacher(teacher)``; its errors begin with the argument it was given as."""
    try:
        return as_teacher(teacher)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error


def cached_logits(
    teacher: object,
    x: np.ndarray,
    batch_size: int = 1024,
    temperature: float = 1.0,
    dtype: str | np.dtype = "float32",
    classes: int | None = None,
) -> np.ndarray:
    """The teacher's logits ``(N, C)`` for all of ``x``, row i for sample i, computed once.

    Being kept by index they stay with their samples under any shuffling, subset or split. An
    array of logits in this dtype already is returned as it is, not copied.

    Parameters
    ----------
    teacher : anything ``as_teacher`` takes.
    x : samples ``(N, ...)``, of any real dtype, ``np.memmap`` included; read a batch at a time.
    temperature : what the logits will be used at; it matters to an arithmetic ``Ensemble`` alone.
    classes : how many logits a sample must have, where that is known.

    Raises
    ------
    ValueError
        the teacher's rows, classes or values do not fit.
    """
    teacher = as_teacher(teacher)
    batch_size = check_int("batch_size", batch_size, minimum=1)
    temperature = check_float("temperature", temperature, above=0)
    x = check_array("x", x)
    if teacher.samples is not None:
        check_rows("teacher", teacher.samples, len(x))
    if classes is not None and teacher.classes not in (None, classes):
        raise ValueError(f"teacher must have {classes} classes, got {teacher.classes}")
    if isinstance(teacher, ArrayTeacher):
        if teacher.array.dtype == dtype:
            return teacher.array
        check_finite("teacher", teacher.array, dtype)  # what float64 holds may be inf in float32
        return teacher.array.astype(dtype)
    out = None
    for first in range(0, len(x), batch_size):
        rows = slice(first, min(first + batch_size, len(x)))
        batch = np.ascontiguousarray(x[rows])
        if batch.dtype.kind != "f" or batch.dtype.itemsize != np.dtype(dtype).itemsize:
            batch = batch.astype(dtype)
        logits = teacher.logits(batch, rows, temperature)
        if out is None:
            out = np.empty((len(x), classes or teacher.classes or logits.shape[1]), dtype)
        out[rows] = check_logits(logits, len(batch), out.shape[1], dtype, "what teacher returned")
    return out


# ---------------------------------------------------------------- logits on disk


def fingerprint(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and values, a block at a time."""
    array = np.asarray(array)
    little = array.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{little.str}{array.shape}".encode())
    step = max(1, (1 << 22) // max(1, array[:1].nbytes))
    for first in range(0, len(array), step):
        digest.update(np.ascontiguousarray(array[first : first + step], dtype=little).data)
    return digest.hexdigest()


def save_logits(path: str | os.PathLike, logits: np.ndarray, x: np.ndarray, teacher: object) -> None:
    """Write logits with a fingerprint of the samples and of the teacher they belong to.

    ``teacher`` is the teacher itself, or a text that names its version if it is a function
    (what a function would answer cannot be told from looking at it). The file is written beside
    ``path`` and renamed: it is never half there. Read it with ``load_logits``.
    """
    path = _check_path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    x = check_array("x", x)
    logits = check_array("logits", logits, ndim=2)
    check_rows("logits", len(logits), len(x))
    check_finite("logits", logits)
    if _looks_like_probs(logits):
        raise ValueError(_PROBS.format("logits"))
    classes = None if isinstance(teacher, str) else as_teacher(teacher).classes
    if classes not in (None, logits.shape[1]):
        raise ValueError(f"logits must have the teacher's {classes} classes, got {logits.shape[1]}")
    if logits.dtype.kind != "f":
        logits = logits.astype(np.float32)
    header = {"format": "minidl logits 1", "x": fingerprint(x), "teacher": _teacher_id(teacher)}
    handle, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, header=np.array(json.dumps(header)), logits=logits)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def load_logits(path: str | os.PathLike, x: np.ndarray, teacher: object) -> np.ndarray:
    """The logits in a file of ``save_logits``, if they are of these samples and this teacher.

    Raises
    ------
    ValueError
        the file is damaged or of another kind, or the logits are stale: ``x`` was changed,
        reordered or converted since, or the teacher was trained on.
    """
    path = _check_path(path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            header, logits = json.loads(str(data["header"])), data["logits"]
        if header.get("format") != "minidl logits 1" or logits.ndim != 2 or logits.dtype.kind != "f":
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


# ---------------------------------------------------------------- what is refused

_PROBS = (
    "{} looks like probabilities: every row lies in [0, 1] and sums to 1. Logits are wanted (before the "
    "softmax); if probabilities are all there is, write teacher=minidl.teachers.as_teacher(p, from_probs=True)"
)


def _looks_like_probs(array: np.ndarray) -> bool:
    for first in range(0, len(array), 4096):
        block = np.asarray(array[first : first + 4096], dtype=np.float64)
        if block.min() < 0 or block.max() > 1 or np.abs(block.sum(axis=1) - 1).max() > 1e-3:
            return False
    return True


def _log_probs(array: np.ndarray) -> np.ndarray:
    if not _looks_like_probs(array):
        raise ValueError("from_probs=True wants rows in [0, 1] that sum to 1, and these are not")
    dtype = np.float64 if array.dtype == np.float64 else np.float32
    return np.log(np.maximum(array, PROBABILITY_FLOOR), dtype=dtype)


def say_if_untrained(teacher: Teacher, student: object, resumed: bool = False) -> str:
    """What is to be said of a teacher with its initial weights; "" of any other.

    If the student was trained already, and not by a teacher (``was_taught``, or ``resumed``), they are swapped,
    which is refused.
    """
    if not teacher.is_untrained():
        return ""
    said = f"the teacher {teacher.name!r} still has its initial weights and knows nothing to teach"
    if resumed or getattr(student, "was_taught", False):
        return said
    nobody_knows = all(member.is_untrained() for member in teacher.members() or (teacher,))
    if nobody_knows and not ModelTeacher(student).is_untrained():
        raise ValueError(
            f"teacher and student look swapped: {said}, while the student was trained already. "
            "The order is distill(teacher, student, x, y), or student.fit(x, y, target_model=teacher)"
        )
    return said


untrained_note = say_if_untrained


def _refuse_student(teacher: Teacher, student: object) -> None:
    for member in teacher.members():
        _refuse_student(member, student)
    models = [getattr(teacher, "model", None)]
    if isinstance(teacher, CallableTeacher):
        models = _used_by(teacher.function)[0].values()
    for model in models:
        if model is student:
            raise ValueError(
                "teacher must not be the student itself: teach a copy, or a model of an earlier generation"
            )
        params, own = getattr(model, "params", None), getattr(student, "params", None)
        arrays = isinstance(params, np.ndarray) and isinstance(own, np.ndarray)
        if arrays and np.may_share_memory(params, own):
            raise ValueError(
                "teacher must not share its parameters with the student: they would change as it learns"
            )


def _used_by(function: Callable) -> tuple[dict[str, object], set[str]]:
    """The things a function names, or the object it is or is bound to; and the other names in it."""
    used = {"module": getattr(function, "__self__", function)}
    try:
        names = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):  # no function but an object that can be called; a variable not yet set
        return used, set()
    return {**used, **names.globals, **names.nonlocals}, {*names.unbound, *names.builtins}


def _refuse_dropout(function: Callable) -> None:
    """Refuse a function that calls a PyTorch module whose dropout or batch norm is in training mode."""
    used, others = _used_by(function)
    if {"eval", "train"} & others:  # it sets the mode itself
        return
    for name, thing in used.items():
        if _module(thing) != "torch" or not hasattr(thing, "modules"):
            continue
        for part in thing.modules():
            kind = type(part).__name__
            if part.training and ("Dropout" in kind or "BatchNorm" in kind):
                raise ValueError(
                    f"teacher calls the PyTorch module {name!r}, whose {kind} is in training mode: "
                    f"write {name}.eval() first"
                )


def _module(thing: object) -> str:
    """The package a thing's class, or an ancestor of it, comes from: torch, keras, ..."""
    for kind in type(thing).__mro__:
        package = kind.__module__.split(".")[0]
        if package in ("torch", "keras", "onnxruntime"):
            return package
    return ""


def _check_path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the name of a file, got {describe(path)}")
    return Path(path)


def _teacher_id(teacher: object) -> str:
    found = teacher if isinstance(teacher, str) else as_teacher(teacher).fingerprint()
    if not found:
        raise ValueError(
            "teacher is a function, which has no fingerprint: give a text that names its version"
        )
    return found
