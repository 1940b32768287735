"""``as_teacher``: what the user has, as a ``Teacher``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..validation import check_bool, describe
from .base import Teacher
from .kinds import ArrayTeacher, CallableTeacher, ModelTeacher
from .refusals import package_of, refuse_student


def _is_list_of_models(thing: object) -> bool:
    return isinstance(thing, (list, tuple)) and any(
        callable(item) or hasattr(item, "layers") for item in thing
    )


_KINDS: tuple[tuple[Callable[[Any], bool], Any], ...] = (
    # (how it is recognized, what makes a Teacher of it or the message that refuses it); the first match counts
    (
        lambda thing: isinstance(thing, type),
        "must be a model that was trained, got the class {thing.__name__}",
    ),
    (lambda thing: isinstance(thing, Teacher), lambda teacher, from_probs: teacher),
    (lambda thing: hasattr(thing, "predict_logits"), lambda model, from_probs: ModelTeacher(model)),
    (
        lambda thing: package_of(thing) == "torch" and hasattr(thing, "parameters"),
        "is a PyTorch module: put it in eval mode, module.eval(), and wrap it, "
        "teacher=lambda x: module(torch.from_numpy(x)).detach().numpy(), "
        "or use minidl.interop.torch.torch_teacher(module)",
    ),
    (
        lambda thing: hasattr(thing, "predict_proba"),
        "is a scikit-learn estimator: its probabilities can teach, "
        "teacher=minidl.teachers.as_teacher(estimator.predict_proba, from_probs=True)",
    ),
    (
        lambda thing: package_of(thing) == "keras",
        "is a Keras model: wrap it, teacher=lambda x: model.predict(x, verbose=0) if it gives logits; if it ends "
        "in softmax, minidl.teachers.as_teacher(lambda x: model.predict(x, verbose=0), from_probs=True)",
    ),
    (
        lambda thing: package_of(thing) == "onnxruntime",
        "is an ONNX session: wrap it, teacher=lambda x: session.run(None, {{session.get_inputs()[0].name: x}})[0], "
        "or use minidl.interop.onnx.onnx_teacher(path)",
    ),
    (_is_list_of_models, "is a list of models: say how to average them, teacher=Ensemble([...])"),
    (lambda thing: isinstance(thing, (list, tuple)) or hasattr(thing, "__array__"), ArrayTeacher),
    (callable, CallableTeacher),
    (
        lambda thing: True,
        "must be a model, an Ensemble, an array of logits (N, classes) or a function x -> logits, "
        "got {description}",
    ),
)


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
    from_probs : the array, or what the function returns, holds probabilities and not logits.
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
    make = next(make for recognizes, make in _KINDS if recognizes(teacher))
    if isinstance(make, str):
        raise TypeError("teacher " + make.format(thing=teacher, description=describe(teacher)))
    found = make(teacher, from_probs)
    if student is not None:
        refuse_student(found, student)
    return found


def named_teacher(argument: str, teacher: object) -> Teacher:
    """``as_teacher(teacher)``; its errors begin with the name of the argument that held the teacher."""
    try:
        return as_teacher(teacher)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument}: {error}") from error
