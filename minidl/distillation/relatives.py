"""Relatives of distillation: born-again networks, and models that teach each other."""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..callbacks import CallbackList, EarlyStopping, History, ReduceLROnPlateau, check_verbose, titled
from ..figures import has_labels
from ..losses import DistillationLoss
from ..models import Sequential
from ..report import DistillationReport
from ..teachers import Ensemble, as_teacher
from ..training.tasks import Task, choose_task, task_of
from ..validation import check_float, check_int, describe
from .checks import build_for, check_answers, check_fit_arguments, distillation_loss
from .distill import compile_kernels, distill
from .plain import fresh_optimizer, train_on_labels

_OF_DISTILL_ALONE = ("test_data", "transfer", "plain_student")
_ABOUT_TEACHER = ("from_probs", "test_teacher", "teacher_inputs", "test_teacher_inputs")


@dataclass
class BornAgain:
    """``models`` from the first generation to the last, the ``reports`` of all but the first."""

    models: list
    reports: list[DistillationReport] = field(default_factory=list)
    activation: str | None = "softmax"  # what makes answers of their logits: see `minidl.teachers.as_teacher`

    @property
    def ensemble(self) -> Ensemble:
        """All generations together, which is usually better than any of them."""
        return Ensemble(self.models).answering(self.activation)


def born_again(
    build_student: Callable[[], Sequential],
    x: np.ndarray,
    y: np.ndarray,
    generations: int = 3,
    teacher: object = None,
    loss: object = None,
    optimizer: object = "adam",
    **arguments,
) -> BornAgain:
    """Born-again networks (Furlanello et al., ICML 2018): each generation learns from the one before it.

    The first generation learns from ``teacher``, or, if that is None, from the labels alone;
    ``build_student()`` makes each new model. ``loss`` is by default ``KnowledgeDistillation(temperature=1.0,
    hard_weight=0.5, soft_weight=0.5)``, or that of the models' task with these settings; ``arguments`` go to
    ``distill``, but ``from_probs``, ``test_teacher``, ``teacher_inputs`` and ``test_teacher_inputs`` only together
    with the ``teacher`` they describe.
    """
    generations = check_int("generations", generations, minimum=1)
    if isinstance(build_student, Sequential) or not callable(build_student):
        raise TypeError(
            f"build_student must be a function that makes a new model, got {describe(build_student)}"
        )
    teacher_arguments = {name: arguments.pop(name) for name in _ABOUT_TEACHER if name in arguments}
    if teacher_arguments and teacher is None:
        raise ValueError(f"{' and '.join(teacher_arguments)} need a teacher, got None")
    if y is None and teacher is None:
        raise ValueError(
            "y must be given, got None: the first generation learns from labels, or from teacher="
        )
    for_labels = {name: value for name, value in arguments.items() if name not in _OF_DISTILL_ALONE}
    check_fit_arguments("born_again", for_labels)
    verbose = check_verbose(arguments.get("verbose", "auto"))
    if loss is not None:
        loss = distillation_loss(loss, y)
    result = BornAgain([])
    for generation in range(1, generations + 1):
        model = build_student()
        if not isinstance(model, Sequential):
            raise TypeError(f"build_student must return a Sequential, got {describe(model)}")
        if any(model is earlier for earlier in result.models):
            raise ValueError("build_student must return a new model each time, got the same one again")
        x = build_for(model, x)
        if loss is None:
            loss = distillation_loss(_loss_of_generations(model, y), y)
        result.activation = loss.fused_activation
        shown = titled(arguments.get("callbacks"), verbose, f"generation {generation} of {generations}")
        if teacher is None:
            y, task = check_answers(model, y, len(x), loss), task_of(loss)
            used = [(model, each, optimizer, y) for each in (None, loss)[:generations]]
            compile_kernels(used, verbose != 0, task)
            options = {"epochs": 20, **for_labels, "x": x, "y": y, "callbacks": shown}
            train_on_labels(model, fresh_optimizer(optimizer), options, task)
        else:
            told = dict(optimizer=fresh_optimizer(optimizer), callbacks=shown)
            options = arguments | teacher_arguments | told
            result.reports.append(distill(teacher, model, x, y, loss, **options))
            teacher_arguments = {}
        result.models.append(model)
        teacher = model
    return result


def _loss_of_generations(model: Sequential, y: object) -> DistillationLoss:
    task = choose_task(model, y)
    temperature = {} if task.name == "regression" else {"temperature": 1.0}
    return task.loss(**temperature, hard_weight=0.5, soft_weight=0.5)


def mutual_learning(
    models: Sequence[Sequential],
    x: np.ndarray,
    y: np.ndarray,
    epochs: int = 20,
    temperature: float = 1.0,
    hard_weight: float = 1.0,
    soft_weight: float = 1.0,
    optimizer: object = "adam",
    **fit_arguments,
) -> list:
    """Deep mutual learning (Zhang et al., CVPR 2018): models that teach each other while they learn.

    Model k minimizes ``hard_weight * CE + soft_weight * T^2 * mean over the others of KL(p_j || q_k)``,
    which is, up to a constant, the KL from the mean of the others' probabilities. The others' answers are a
    snapshot from the start of each epoch, so the order of the models does not matter, and no model is changed
    by teaching. In the first epoch the models know nothing yet and all learn from labels alone, so
    ``hard_weight`` must be > 0. A model that augments its inputs is taught by copies of the others that see the
    augmented inputs. ``fit_arguments`` go to each ``fit``, of one epoch, so callbacks that compare epochs are refused.

    Returns each model's ``History`` of all epochs.
    """
    models = _check_models(models)
    epochs = check_int("epochs", epochs, minimum=1)
    settings: dict = dict(
        temperature=check_float("temperature", temperature, above=0),
        hard_weight=check_float("hard_weight", hard_weight, above=0),
        soft_weight=soft_weight,
    )
    if y is None:
        raise ValueError("y must be given, got None: models that know nothing yet begin with labels")
    check_fit_arguments("mutual_learning", fit_arguments)
    verbose = check_verbose(fit_arguments.get("verbose", "auto"))
    callbacks = _check_callbacks(fit_arguments.pop("callbacks", None))
    for model in models:
        x = build_for(model, x)
    task = _task_of_peers(models[0], y)
    y = check_answers(models[0], y, len(x), task.loss())
    if not has_labels(y, task.name):
        raise ValueError("y must hold labels, got none >= 0: models that know nothing yet begin with labels")
    for model, other in itertools.permutations(models, 2):
        as_teacher(other, model, activation=task.loss.fused_activation)
    for model in models:
        made, loss = fresh_optimizer(optimizer), task.loss(**settings)
        model.compile(optimizer=made, loss=loss, metrics=task.metrics(model))
    compile_kernels([(model, model.loss, model.optimizer, y) for model in models], verbose != 0, task)
    histories = [History() for _ in models]  # one serves all the fits of a model
    for epoch in range(epochs):
        arguments = settings | dict(initial_epoch=epoch, epochs=epoch + 1)
        if epoch == 0:
            arguments["soft_weight"] = 0.0
        for k, teacher in enumerate(_peers(models, x, temperature, task.loss.fused_activation)):
            shown = titled(callbacks, verbose, f"model {k + 1} of {len(models)}")
            arguments |= dict(target_model=teacher, callbacks=[*shown, histories[k]])
            models[k].fit(x, y, **arguments, **fit_arguments)
    for history in histories:
        history.epoch = list(range(len(history.history["loss"])))
    return histories


def _task_of_peers(model: Sequential, y: object) -> Task:
    task = choose_task(model, y)
    if task.name == "regression":
        raise ValueError(
            "models must answer with classes or with yes and no, got a regression: numbers have no temperature, and "
            "their mean is an Ensemble"
        )
    return task


def _peers(models: list[Sequential], x: np.ndarray, temperature: float, activation: str | None) -> Iterator:
    """A teacher for each model in turn: the others, as they were before the first of them was trained."""
    logits = [model.predict_logits(x) for model in models]
    augments = [model.augmenting_layer() is not None for model in models]
    copies = [copy.deepcopy(model) if any(augments) else None for model in models]
    for k, sees_other_inputs in enumerate(augments):
        others = [j for j in range(len(models)) if j != k]
        peers = Ensemble([copies[j] if sees_other_inputs else logits[j] for j in others])
        peers = peers.answering(activation)
        yield peers if sees_other_inputs else peers.logits(x, temperature=temperature)


def _check_models(models: object) -> list[Sequential]:
    listed: list = list(models) if isinstance(models, (list, tuple)) else [models]
    if len(listed) < 2 or not all(isinstance(model, Sequential) for model in listed):
        raise ValueError(f"models must be two or more Sequential models, got {describe(listed)}")
    if len({id(model) for model in listed}) < len(listed):
        raise ValueError("models must be different models, got one of them twice")
    return listed


def _check_callbacks(given: object) -> list:
    callbacks = CallbackList(given).callbacks
    for callback in callbacks:
        if isinstance(callback, (EarlyStopping, ReduceLROnPlateau)):
            raise ValueError(
                f"callbacks must not compare epochs, got {type(callback).__name__}: each fit is of one epoch here"
            )
    return callbacks
