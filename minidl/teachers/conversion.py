"""``as_teacher``: what the user has, as a ``Teacher``."""

import inspect

import numpy as np

from ..validation import check_bool, check_choice, describe
from .answers import hint_of_two
from .kinds import (
    ArrayTeacher,
    CallableTeacher,
    ModelTeacher,
    Teacher,
    has_initial_weights,
    package_of,
)

_ADVICE = {
    # of things that could teach, but not as they are: what to write
    "torch": "is a PyTorch module: put it in eval mode, module.eval(), and wrap it, "
    "teacher=lambda x: module(torch.from_numpy(x)).detach().numpy(), "
    "or use minidl.interop.torch.torch_teacher(module)",
    "keras": "is a Keras model: wrap it, minidl.interop.keras.keras_teacher(model), with from_probs=True if it ends in "
    "softmax",
    "onnxruntime": "is an ONNX session: wrap it, teacher=lambda x: session.run(None, "
    "{session.get_inputs()[0].name: x})[0], or use minidl.interop.onnx.onnx_teacher(path)",
    "sklearn": "is a scikit-learn estimator: its probabilities can teach, "
    "teacher=minidl.interop.sklearn.sklearn_teacher(estimator)",
}


UNKNOWN = "unknown"
ANY = "any"
"""Of an ensemble's members until a student is known: nothing is refused but what is no array (N, C)."""
_ACTIVATIONS = ("softmax", "sigmoid", None, UNKNOWN, ANY)


def as_teacher(
    teacher: object,
    student: object = None,
    from_probs: bool = False,
    activation: str | None = UNKNOWN,
) -> Teacher:
    """A model, an ``Ensemble``, logits ``(N, C)`` or a function ``x -> logits``, as a ``Teacher``.

    Zeros ``(N, C)`` are the uniform teacher: with ``KnowledgeDistillation(1.0, 1 - s, s)`` it smooths labels by
    ``s``. A ``deepcopy`` of a model may teach the model itself, or a new one of its kind (self-distillation).

    Parameters
    ----------
    student : the model that is to learn; it is refused as its own teacher, also inside an ensemble, as a bound
        method, or as another model on the same parameters, and it must have as many outputs as the teacher classes.
    from_probs : the array, or what the function returns, holds probabilities and not logits. Their logarithm is
        taken (not below 1e-7), and of sigmoids' probabilities p, brought to [1e-7, 1 - 1e-7], the logit
        ``log(p / (1 - p))``. Without it an array all of whose rows lie in [0, 1] and sum to 1 is refused:
        softened once more it would teach next to nothing. So is one of sigmoids whose numbers fill [0, 1].
    activation : what makes answers of the logits: "softmax"; "sigmoid", for one output, ``(N,)`` or ``(N, 1)``,
        and for several; None for a regression, where they are the outputs themselves. By default what the student
        ends in, or else "softmax"; what is a ``Teacher`` already keeps its own.

    Raises TypeError or ValueError, naming what was wrong with ``teacher`` and what to write instead.
    """
    if check_bool("from_probs", from_probs) and (
        isinstance(teacher, Teacher) or hasattr(teacher, "predict_logits")
    ):
        raise ValueError(
            "from_probs=True is for arrays and functions that give probabilities, "
            f"got {describe(teacher)}, which gives logits"
        )
    if activation == UNKNOWN and getattr(student, "final_activation", None) == "sigmoid":
        activation = "sigmoid"
    found = _make_teacher(teacher, from_probs, check_choice("activation", activation, _ACTIVATIONS))
    if activation not in (UNKNOWN, ANY):
        found = found.answering(activation)
    if student is not None:
        _refuse_student(found, student, found.activation if activation == UNKNOWN else activation)
    return found


def _make_teacher(thing, from_probs: bool, activation) -> Teacher:
    given = "softmax" if activation == UNKNOWN else activation
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
        return ArrayTeacher(thing, from_probs, given)
    if callable(thing):
        return CallableTeacher(thing, from_probs, given)
    raise TypeError(
        "teacher must be a model, an Ensemble, an array of logits (N, classes) or a function x -> logits, "
        f"got {describe(thing)}"
    )


def named_teacher(argument: str, teacher: object, **options) -> Teacher:
    """``as_teacher(teacher, ...)``; its errors begin with the name of the argument that held the teacher."""
    try:
        return as_teacher(teacher, **options)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from error


def _refuse_student(teacher: Teacher, student: object, activation: str | None) -> None:
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
    if activation == "softmax" and shape[-1] < 2:
        raise ValueError(f"student must have an output for each class, two or more, got {shape[-1]}")
    if teacher.classes not in (None, shape[-1]):
        answers = "classes" if activation == "softmax" else "outputs"
        hint = hint_of_two(teacher.classes, shape[-1])
        raise ValueError(
            f"teacher must have the student's {shape[-1]} {answers}, got {teacher.classes}{hint}"
        )


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
