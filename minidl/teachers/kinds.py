"""``Teacher``, what every teacher offers; its three kinds, a model, an array of logits and a function.

Each kind refuses what would teach next to nothing: probabilities in place of logits, a module with dropout left on.
"""

import copy
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..losses.softmax import looks_like_probabilities
from ..sparse import SparseRows
from ..validation import blocks, check_array, check_finite
from .answers import OF_ONE, as_answers, logits_of


class Teacher:
    """Anything that gives logits."""

    name = "teacher"  # for messages
    classes: int | None = None  # logits per sample, where that is known
    samples: int | None = None  # how many, if it knows those of one data set alone (an array of logits)
    softens = False  # whether the logits depend on the temperature at which they will be used
    activation: str | None = "softmax"
    """What makes answers of the logits: softmax; sigmoid; or None, for they are the outputs of a regression."""
    _gives_logits = False  # whether answers were seen that are no probabilities

    def logits(
        self, x: np.ndarray, rows: np.ndarray | slice | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """The logits ``(B, C)`` of a batch ``x`` ``(B, ...)``, in inference mode.

        ``rows`` are the indices of the batch in the data set, for a teacher that knows its samples by index.
        The student will be trained to match ``softmax(logits / temperature)``.
        """
        raise NotImplementedError

    def answering(self, activation: str | None) -> "Teacher":
        """This teacher, for a student whose loss makes answers of logits by ``activation``."""
        return self

    def members(self) -> tuple["Teacher", ...]:
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


class ModelTeacher(Teacher):
    """A ``Sequential``: its logits before a final softmax or sigmoid, with dropout and noise off."""

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
        if getattr(model, "final_activation", None) == "sigmoid":
            self.activation = "sigmoid"

    def answering(self, activation):
        final = getattr(self.model, "final_activation", None)
        if final in ("softmax", "sigmoid") and activation not in (final, "softmax"):
            learns = "outputs, for a regression" if activation is None else "logits of sigmoids"
            instead = "one that ends without it"
            if activation is None:
                instead = (
                    "lambda x: teacher.predict(x, verbose=0) if its probabilities are what is to be learnt"
                )
            raise ValueError(
                f"teacher {self.name!r} ends in {final}, and the student learns {learns}: give {instead}"
            )
        found = copy.copy(self)
        found.activation = activation
        return found

    def logits(self, x, rows=None, temperature=1.0):
        try:
            logits = self.model.predict_logits(x)
        except (ValueError, TypeError) as error:
            raise type(error)(f"teacher {self.name!r} cannot take x: {error}") from error
        if not self._gives_logits and len(logits) > 1:  # one row may sum to 1 by chance
            if self.activation == "softmax" and looks_like_probabilities(logits):
                raise ValueError(
                    f"teacher {self.name!r} gives probabilities where logits are wanted: let softmax be its last "
                    "layer, and there once"
                )
            self._gives_logits = True
        return logits

    def is_untrained(self):
        return has_initial_weights(self.model)

    def fingerprint(self):
        layers = getattr(self.model, "layers", [])
        config = [(type(layer).__name__, {**layer.get_config(), "name": ""}) for layer in layers]
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=repr).encode())
        digest.update(np.ascontiguousarray(self.model.params).tobytes())
        return digest.hexdigest()


class ArrayTeacher(Teacher):
    """Logits ``(N, C)``, row i for sample i of the training data; an ``np.memmap`` stays on disk.

    Of one output they may be ``(N,)``.
    """

    name = "logits"

    def __init__(self, logits, from_probs: bool = False, activation: str | None = "softmax"):
        array = as_answers(check_array("teacher", logits), activation)
        if array is None:
            raise ValueError(
                f"teacher must have shape (N, classes), classes >= 2, got {np.shape(logits)}{OF_ONE}"
            )
        check_finite("teacher", array)
        self.activation, self._given = activation, (logits, from_probs)
        self.array = logits_of("teacher", array, from_probs, activation)
        self.samples, self.classes = array.shape

    def answering(self, activation):
        return self if activation == self.activation else ArrayTeacher(*self._given, activation)

    def logits(self, x, rows=None, temperature=1.0):
        if rows is None and len(x) != self.samples:
            raise ValueError(
                f"teacher is an array with logits of {self.samples} samples and knows no others, "
                f"got x of {len(x)}; to ask about new samples give the model itself"
            )
        return self.array if rows is None else self.array[rows]

    def fingerprint(self):
        return fingerprint(self.array)


class CallableTeacher(Teacher):
    """A function ``x -> logits``. It is given C-contiguous float batches ``(B, ...)``.

    Of one output it may return ``(B,)``.
    """

    def __init__(self, function: Callable, from_probs: bool = False, activation: str | None = "softmax"):
        _refuse_active_dropout(function)
        self.function, self.activation = function, activation
        self.name = getattr(function, "__name__", type(function).__name__)
        self.from_probs = from_probs

    def answering(self, activation):
        if activation == self.activation:
            return self
        return CallableTeacher(self.function, self.from_probs, activation)

    def logits(self, x, rows=None, temperature=1.0):
        dtype = x.dtype if x.dtype.kind == "f" else np.float32
        x = np.array(x, dtype, order="C")  # a copy, as the function may write to it
        try:
            returned = self.function(x)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"teacher {self.name!r} cannot take x: {error}") from error
        try:
            array = None if returned is None else np.asarray(returned)
        except (RuntimeError, TypeError, ValueError) as error:
            raise TypeError(
                f"teacher must return a NumPy array, got {type(returned).__name__} ({error}); for PyTorch: "
                "lambda x: module(torch.from_numpy(x)).detach().numpy()"
            ) from error
        given = check_array("what teacher returned", array)
        array = as_answers(given, self.activation)
        if array is None or len(array) != len(x):
            raise ValueError(f"teacher must return logits of shape ({len(x)}, classes), got {given.shape}")
        check_finite("what teacher returned", array)
        seen = self._gives_logits or len(array) < 2  # one row may sum to 1 by chance
        if self.from_probs or not seen:
            array = logits_of("what teacher returned", array, self.from_probs, self.activation)
            self._gives_logits = True
        return array

    def models(self):
        return _variables_of(self.function)[0].values()


def fingerprint(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and values, read block by block."""
    array = array if isinstance(array, SparseRows) else np.asarray(array)
    little_endian = array.dtype.newbyteorder("<")
    digest = hashlib.sha256(f"{little_endian.str}{array.shape}".encode())
    for _, block in blocks(array):
        digest.update(np.ascontiguousarray(block, dtype=little_endian).data)
    return digest.hexdigest()


def may_be_probabilities(thing: object, activation: str | None) -> bool:
    """Whether a teacher could be said to give probabilities: a function, or an array of them."""
    if isinstance(thing, Teacher) or hasattr(thing, "predict_logits"):
        return False
    if callable(thing):
        return True
    array = check_array("teacher", thing)
    if activation == "softmax":
        return array.ndim == 2 and looks_like_probabilities(array)
    return bool(array.min() >= 0 and array.max() <= 1)


def package_of(thing: object) -> str:
    """torch, keras or onnxruntime, if it defines the class of ``thing`` or else an ancestor of it; else ""."""
    for kind in type(thing).__mro__:  # Keras layers may be torch modules
        if (package := kind.__module__.split(".")[0]) in ("torch", "keras", "onnxruntime"):
            return package
    return ""


def _variables_of(function: Callable) -> tuple[dict[str, object], set[str]]:
    """What a function's global and enclosing variables hold, with the object it is or is bound to; its other names."""
    found = {"module": getattr(function, "__self__", function)}
    try:
        names = inspect.getclosurevars(inspect.unwrap(function))
    except (TypeError, ValueError):  # it is no function, or has a variable that is not yet set
        return found, set()
    return {**found, **names.globals, **names.nonlocals}, {*names.unbound, *names.builtins}


def _refuse_active_dropout(function: Callable) -> None:
    """Refuse a function that calls a PyTorch module whose dropout or batch norm is in training mode."""
    objects, names = _variables_of(function)
    if {"eval", "train"} & names:
        return  # the function sets the mode itself
    for name, thing in objects.items():
        if package_of(thing) != "torch" or not hasattr(thing, "modules"):
            continue
        for part in thing.modules():
            kind = type(part).__name__
            if part.training and ("Dropout" in kind or "BatchNorm" in kind):
                raise ValueError(
                    f"teacher calls the PyTorch module {name!r}, whose {kind} is in training mode: "
                    f"write {name}.eval() first"
                )


def has_initial_weights(model: Any) -> bool:
    """Whether ``model`` is known to have its initial weights still."""
    if getattr(model, "epoch", 0) or getattr(getattr(model, "optimizer", None), "iterations", 0):
        return False
    try:
        fresh = type(model).from_config(model.get_config())
        fresh.build((None, *model.input_shape))
    except Exception:  # a user's own layer may not be rebuilt from its config; then nothing is known
        return False
    return bool(model.params.size) and np.array_equal(fresh.params, model.params)
