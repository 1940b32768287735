"""``as_teacher``: what the user has, as a ``Teacher``; and ``Ensemble``, several teachers as one."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from functools import reduce

import numpy as np

from ..losses.softmax import log_softmax, softmax
from ..validation import check_bool, check_choice, check_float, describe
from .kinds import ArrayTeacher, CallableTeacher, ModelTeacher, Teacher, has_initial_weights, package_of

_ADVICE = {
    # of things that could teach, but not as they are: what to write
    "torch": "is a PyTorch module: put it in eval mode, module.eval(), and wrap it, "
    "teacher=lambda x: module(torch.from_numpy(x)).detach().numpy(), "
    "or use minidl.interop.torch.torch_teacher(module)",
    "keras": "is a Keras model: wrap it, teacher=lambda x: model.predict(x, verbose=0) if it gives logits; if it ends "
    "in softmax, minidl.teachers.as_teacher(lambda x: model.predict(x, verbose=0), from_probs=True)",
    "onnxruntime": "is an ONNX session: wrap it, teacher=lambda x: session.run(None, "
    "{session.get_inputs()[0].name: x})[0], or use minidl.interop.onnx.onnx_teacher(path)",
    "sklearn": "is a scikit-learn estimator: its probabilities can teach, "
    "teacher=minidl.teachers.as_teacher(estimator.predict_proba, from_probs=True)",
}


def as_teacher(teacher: object, student: object = None, from_probs: bool = False) -> Teacher:
    """A model, an ``Ensemble``, logits ``(N, C)`` or a function ``x -> logits``, as a ``Teacher``.

    Zeros ``(N, C)`` are the uniform teacher: with ``KnowledgeDistillation(1.0, 1 - s, s)`` it smooths labels by
    ``s``. A ``deepcopy`` of a model may teach the model itself, or a new one of its kind (self-distillation).

    Parameters
    ----------
    student : the model that is to learn; it is refused as its own teacher, also inside an ensemble, as a bound
        method, or as another model on the same parameters, and it must have as many outputs as the teacher classes.
    from_probs : the array, or what the function returns, holds probabilities and not logits. Their logarithm is
        taken (not below 1e-7). Without it an array all of whose rows lie in [0, 1] and sum to 1 is refused:
        softened once more it would teach next to nothing.

    Raises TypeError or ValueError, naming what was wrong with ``teacher`` and what to write instead.
    """
    if check_bool("from_probs", from_probs) and (
        isinstance(teacher, Teacher) or hasattr(teacher, "predict_logits")
    ):
        raise ValueError(
            "from_probs=True is for arrays and functions that give probabilities, "
            f"got {describe(teacher)}, which gives logits"
        )
    found = _make_teacher(teacher, from_probs)
    if student is not None:
        _refuse_student(found, student)
    return found


def _make_teacher(thing, from_probs: bool) -> Teacher:
    if isinstance(thing, type):
        raise TypeError(f"teacher must be a model that was trained, got the class {thing.__name__}")
    if isinstance(thing, Teacher):
        try:
            inspect.signature(thing.logits).bind(None, rows=None, temperature=1.0)
        except TypeError as error:
            what = f"logits of {type(thing).__name__} must take (x, rows=None, temperature=1.0)"
            raise TypeError(f"{what}: {error}") from None
        return thing
    if hasattr(thing, "predict_logits"):
        return ModelTeacher(thing)
    package = package_of(thing)
    if package == "torch" and not hasattr(thing, "parameters"):  # a tensor
        package = ""
    if hasattr(thing, "predict_proba"):
        package = package or "sklearn"
    if package:
        raise TypeError(f"teacher {_ADVICE[package]}")
    if isinstance(thing, (list, tuple)) and any(callable(item) or hasattr(item, "layers") for item in thing):
        raise TypeError("teacher is a list of models: say how to average them, teacher=Ensemble([...])")
    if isinstance(thing, (list, tuple)) or hasattr(thing, "__array__"):
        return ArrayTeacher(thing, from_probs)
    if callable(thing):
        return CallableTeacher(thing, from_probs)
    raise TypeError(
        "teacher must be a model, an Ensemble, an array of logits (N, classes) or a function x -> logits, "
        f"got {describe(thing)}"
    )


def named_teacher(argument: str, teacher: object) -> Teacher:
    """``as_teacher(teacher)``; its errors begin with the name of the argument that held the teacher."""
    try:
        return as_teacher(teacher)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from error


def _refuse_student(teacher: Teacher, student: object) -> None:
    """Refuse a teacher that is the student, runs it, or shares its parameters; and other numbers of classes."""
    for model in teacher.models():
        if model is student:
            raise ValueError(
                "teacher must not be the student itself: teach a copy, or a model of an earlier generation"
            )
        params = getattr(model, "params", None), getattr(student, "params", None)
        if all(isinstance(array, np.ndarray) for array in params) and np.may_share_memory(*params):
            raise ValueError(
                "teacher must not share its parameters with the student: they would change as it learns"
            )
    shape = getattr(student, "output_shape", None)
    if not shape:
        return
    if shape[-1] < 2:
        raise ValueError(f"student must have an output for each class, two or more, got {shape[-1]}")
    if teacher.classes not in (None, shape[-1]):
        raise ValueError(f"teacher must have the student's {shape[-1]} classes, got {teacher.classes}")


def untrained_note(teacher: Teacher, student: object, resumed: bool = False) -> str:
    """A warning about a teacher with its initial weights; "" for any other teacher.

    If the student was trained already, teacher and student were probably swapped, which is a ValueError. A
    student that a teacher trained (``was_taught``, or ``resumed``) is not taken for a swapped one.
    """
    if not teacher.is_untrained():
        return ""
    note = f"the teacher {teacher.name!r} still has its initial weights and knows nothing to teach"
    if resumed or getattr(student, "was_taught", False):
        return note
    all_untrained = all(member.is_untrained() for member in teacher.members() or (teacher,))
    if all_untrained and not has_initial_weights(student):
        raise ValueError(
            f"teacher and student look swapped: {note}, while the student was trained already. "
            "The order is distill(teacher, student, x, y), or student.fit(x, y, target_model=teacher)"
        )
    return note


class Ensemble(Teacher):
    """Several teachers as one, by the mean of their answers.

    ``mean="arithmetic"`` averages the softened probabilities, ``p = sum_m w_m softmax(v_m / T)``. No logits give that
    at every T, so the ensemble's logits are made for the temperature asked: ``v = T log p``, by log-sum-exp, hence
    ``softmax(v / T) = p`` exactly. Distilling from it is distilling from all members at once:
    ``sum_m w_m KL(p_m || q) = KL(p || q) + constant``. ``mean="geometric"`` averages the logits,
    ``v = sum_m w_m v_m``: the normalised geometric mean of the members' probabilities at the same T.

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
        weights = [1.0] * len(members) if weights is None else weights
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
        answers = [
            np.asarray(member.logits(x, rows=rows, temperature=temperature), np.float64)
            for member in self._members
        ]
        first = answers[0].shape
        for v in answers:
            if v.shape != first:
                raise ValueError(f"members must give logits of one shape, got {first} and {v.shape}")
        if self.mean == "geometric":
            return reduce(np.add, map(np.multiply, self.weights, answers))
        log_p = [log_softmax(v, temperature) for v in answers]
        return temperature * reduce(np.logaddexp, map(np.add, np.log(self.weights), log_p))

    def predict(self, x: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """The averaged probabilities ``(B, C)``, each member's softened by ``temperature`` first."""
        return softmax(self.logits(x, temperature=temperature), temperature)

    def fingerprint(self):
        parts = [member.fingerprint() for member in self._members]
        if not all(parts):
            return ""
        return hashlib.sha256(json.dumps([self.mean, self.weights.tolist(), parts]).encode()).hexdigest()
