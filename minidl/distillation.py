"""Distillation: a teacher's softened answers as targets for a student.

``distill`` trains one student and reports how it compares with its teacher and, on request, with the same
student trained on labels alone. Its relatives: ``born_again`` (each generation teaches the next),
``mutual_learning`` (students that teach each other), ``distill_sweep`` (many settings, several seeds each).

A chain through a teacher assistant is two calls: ``distill(teacher, assistant, ...)``, ``distill(assistant,
student, ...)``.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from . import losses, optimizers
from .callbacks import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
    check_verbose,
)
from .losses import DIST, DecoupledKD, KnowledgeDistillation, LogitMatching, NormalizedKD
from .models import Sequential
from .report import DistillationReport, as_labels, describe_loss, measure
from .runtime import compile_before_fit
from .teachers import Ensemble, Teacher, as_teacher, cached_logits, named_teacher, untrained_note
from .training import augmenting_layer
from .validation import (
    check_array,
    check_finite,
    check_float,
    check_inputs,
    check_int,
    check_rows,
    describe,
)

__all__ = [
    "BornAgain",
    "DecoupledKD",
    "DIST",
    "DistillationReport",
    "KnowledgeDistillation",
    "LogitMatching",
    "NormalizedKD",
    "born_again",
    "distill",
    "mutual_learning",
]


def distill(
    teacher: object,
    student: Sequential,
    x: np.ndarray,
    y: np.ndarray | None = None,
    loss: object = None,
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: object = None,
    validation_data: tuple | None = None,
    validation_split: float = 0.0,
    test_data: tuple | None = None,
    transfer: np.ndarray | None = None,
    plain_student: bool = False,
    test_teacher: np.ndarray | None = None,
    from_probs: bool = False,
    **fit_arguments,
) -> DistillationReport:
    """Train ``student`` to give the teacher's answers, and report how it does.

    Parameters
    ----------
    teacher : a model, an ``Ensemble``, logits ``(N, C)`` row-aligned with ``x`` (an ``np.memmap`` too), or a
        function ``x -> logits``. It is run in inference mode and not changed. A model stopped early by
        ``EarlyStopping(restore_best_weights=True)`` teaches as it then is; a ``deepcopy`` of the student may
        teach it (self-distillation); zeros are the uniform teacher, which smooths labels.
    student : a ``Sequential`` that ends in ``Dense(C)`` or in softmax.
    x : samples ``(N, ...)``.
    y : labels ``(N,)`` with -1 where there is none, or one-hot rows ``(N, C)``; or None: no labels at all.
    loss : a distillation loss, by default ``KnowledgeDistillation(temperature=4.0)``, and if ``y`` is None
        ``KnowledgeDistillation(temperature=4.0, hard_weight=0.0, soft_weight=1.0)``.
    optimizer : by default the one the student was compiled with, or Adam.
    validation_data, validation_split : as in ``fit``; followed during training.
    test_data : ``(x, y)`` for the report. By default the validation data; without any the figures are taken
        on ``x`` itself, and the report says so.
    transfer : more samples, without labels: the teacher labels them. If it is an array of logits, its
        rows go on with theirs.
    plain_student : also train a copy of the student, from the same initial weights, on the labels alone.
    test_teacher : the teacher's logits on the test data, for a teacher that is an array.
    from_probs : the teacher is an array of probabilities, or a function that returns them.
    fit_arguments : ``callbacks``, ``verbose``, ``shuffle``, ``sample_weight``, ``class_weight`` and so on.

    Returns
    -------
    DistillationReport
        ``print`` it. The student is trained and compiled with ``loss``; ``evaluate`` needs labels only.

    Raises
    ------
    ValueError, TypeError
        before anything is trained: arguments that do not fit, a teacher that is the student, teacher and
        student swapped, probabilities where logits are meant, no labels where ``hard_weight`` wants them.
    """
    if not isinstance(student, Sequential):
        raise TypeError(f"student must be a Sequential, got {describe(student)}")
    if "target_model" in fit_arguments:
        raise TypeError("target_model is what distill calls teacher: pass it as the first argument")
    for name in ("temperature", "hard_weight", "soft_weight"):
        if name in fit_arguments:
            raise TypeError(
                f"{name} belongs to the loss: loss=KnowledgeDistillation({name}={fit_arguments[name]})"
            )
    if "alpha" in fit_arguments:
        raise TypeError(
            "alpha means the labels' weight in some libraries and the teacher's in others: write "
            "loss=KnowledgeDistillation(hard_weight=..., soft_weight=...)"
        )
    aloud = check_verbose(fit_arguments.get("verbose", "auto")) != 0
    loss = distillation_loss(loss, y)
    x = check_array("x", x)
    student._build_for(x)
    check_inputs(x, student.input_shape, student.dtype)
    teacher = as_teacher(teacher, student, from_probs)
    student.check_y(y, len(x), loss)
    if test_teacher is not None and teacher.samples is None:
        raise ValueError(
            "test_teacher is for a teacher that is an array of logits for x; this one answers for test_data itself"
        )
    if transfer is not None and validation_split:
        raise ValueError(
            "validation_split keeps the last samples, and those of transfer come last: give "
            "validation_data=(x[n:], y[n:]) and train on x[:n], y[:n] instead"
        )
    if transfer is not None:
        transfer = check_array("transfer", transfer)
        if transfer.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"transfer must have samples of shape {x.shape[1:]} as x has, got {transfer.shape[1:]}"
            )
        check_finite("transfer", transfer, student.dtype)
    x, y, weight = _with_transfer(x, y, transfer, fit_arguments.pop("sample_weight", None), teacher)
    compile_before_fit(student.dtype.name, aloud)
    untrained = untrained_note(teacher, student, resumed=bool(fit_arguments.get("initial_epoch")))
    _check_not_swapped(teacher, student, x, y)
    if plain_student and (y is None or not (as_labels(y) >= 0).any()):
        raise ValueError("plain_student=True needs labels, got y without any")

    callbacks = fit_arguments.get("callbacks")
    report = DistillationReport(student=None, loss=describe_loss(loss))
    if untrained:
        report.notes.append(untrained)
    split = (
        0.0
        if validation_data is not None
        else check_float("validation_split", validation_split, minimum=0, below=1)
    )
    seen, held_out = _split(len(x), split)
    x_test, y_test, rows = _test_samples(
        report, student, x, y, held_out, validation_data, test_data, callbacks
    )
    if rows is None:
        _check_unseen(report, x[seen], x_test)
    if y_test is not None and (labelled := int((as_labels(y_test) >= 0).sum())) < len(x_test):
        report.notes.append(f"loss, errors, accuracy and calibration are of the {labelled} that have labels")
    teacher_logits = _teacher_on(teacher, x_test, rows, test_teacher, report)

    optimizer = student.optimizer or "adam" if optimizer is None else optimizer
    plain = copy.deepcopy(student) if plain_student else None
    plain_optimizer, plain_callbacks = fresh_optimizer(optimizer), _for_another_run(callbacks)
    training = dict(batch_size=batch_size, epochs=epochs, validation_split=split, **fit_arguments)

    began = time.perf_counter()
    compiled = student.optimizer, student.loss, student.metrics
    try:
        student.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
        report.history = student.fit(
            x, y, target_model=teacher, sample_weight=weight, validation_data=validation_data, **training
        )
    except (TypeError, ValueError):
        student.optimizer, student.loss, student.metrics = compiled
        raise
    report.seconds = time.perf_counter() - began
    if plain is not None:
        training["callbacks"] = plain_callbacks
        report.plain_history = train_on_labels(
            plain, plain_optimizer, x, y, weight, validation_data, training
        )

    if teacher_logits is not None:
        asked = None if teacher.samples is not None else getattr(teacher, "model", teacher)
        report.teacher = measure("teacher", teacher_logits, y_test, None, asked, x_test)
    if plain is not None:
        logits = plain.predict_logits(x_test)
        report.plain = measure("plain student", logits, y_test, teacher_logits, plain, x_test)
    logits = student.predict_logits(x_test)
    report.student = measure("student", logits, y_test, teacher_logits, student, x_test)
    _say_what_looks_wrong(report, student.output_shape[-1])
    return report


# ---------------------------------------------------------------- what distill refuses and prepares


def distillation_loss(loss: object, y: object):
    if loss is None:
        return KnowledgeDistillation() if y is not None else KnowledgeDistillation(4.0, 0.0, 1.0)
    loss = losses.get(loss)
    if not loss.distills:
        raise ValueError(f"loss must be a distillation loss such as KnowledgeDistillation(), got {loss!r}")
    loss.check_trainable()
    if y is None and loss.needs_labels:
        raise ValueError(f"y must be given, got None: {loss.labels_missing()}")
    return loss


def _with_transfer(x, y, transfer, weight, teacher: Teacher):
    """``x, y, sample_weight`` with the unlabelled samples of ``transfer`` behind them."""
    if transfer is None:
        if teacher.samples is not None:
            check_rows("teacher", teacher.samples, len(x))
        return x, y, weight
    if teacher.samples not in (None, len(x) + len(transfer)):
        raise ValueError(
            f"teacher must have a row for each of the {len(x)} samples of x and of the {len(transfer)} of "
            f"transfer, got {teacher.samples}"
        )
    if y is not None:
        y = check_array("y", y)
        labels = as_labels(y)
        if y.ndim == 2 and y.shape[1] > 1 and not np.array_equal(y, np.eye(y.shape[1])[labels]):
            raise ValueError("y must be class indices or one-hot rows when transfer is given, got soft rows")
        y = np.concatenate([labels, np.full(len(transfer), -1)])
    if weight is not None:
        check_rows("sample_weight", len(weight), len(x))
        weight = np.concatenate([weight, np.ones(len(transfer))])
    return np.concatenate([x, transfer]), y, weight


def _check_not_swapped(teacher: Teacher, student: Sequential, x: np.ndarray, y: object) -> None:
    """Refuse a student that already knows what its teacher has never learnt."""
    if y is None:
        return
    rows = np.flatnonzero(as_labels(y) >= 0)[:1000]
    if not len(rows):
        return
    labels = as_labels(np.asarray(y)[rows])
    known = float((student.predict_logits(x[rows]).argmax(axis=1) == labels).mean())
    if known < 0.5:
        return
    logits = np.asarray(teacher.logits(np.ascontiguousarray(x[rows], dtype=student.dtype), rows))
    taught = float((logits.argmax(axis=1) == labels).mean())
    if taught < known - 0.3 and taught < 2 / logits.shape[1]:
        raise ValueError(
            f"teacher and student look swapped: of {len(rows)} samples the teacher has {taught:.0%} right, "
            f"the student already {known:.0%}. The order is distill(teacher, student, x, y)"
        )


def fresh_optimizer(optimizer: object) -> object:
    """The same kind of optimizer, without state."""
    if isinstance(optimizer, (str, dict, type)):
        return optimizer
    optimizer = optimizers.get(optimizer)
    return type(optimizer).from_config(optimizer.get_config())


def _for_another_run(callbacks: object) -> list:
    """Copies of the callbacks that steer training, without those that write files or are the user's."""
    if callbacks is None:
        return []
    listed = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    steering = (EarlyStopping, LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN)
    return [copy.deepcopy(callback) for callback in listed if type(callback) in steering]


def train_on_labels(model, optimizer, x, y, weight, validation_data, training):
    """Fit ``model`` to the samples that have labels, validated on the same rows as its distilled twin."""
    labels = as_labels(y)
    soft = np.ndim(y) == 2 and np.shape(y)[1] > 1
    known = labels >= 0
    if not known.all():
        training = dict(training)
        seen, held_out = _split(len(x), training.pop("validation_split", 0.0))
        if held_out is not None:
            kept = np.arange(len(x))[held_out][known[held_out]]
            validation_data = (x[kept], labels[kept])
        rows = np.flatnonzero(known[seen])
        if not len(rows):
            raise ValueError(
                f"y must hold labels to learn from without a teacher, got -1 for all {len(known[seen])}"
            )
        x, y, weight = x[rows], labels[rows], None if weight is None else np.asarray(weight)[rows]
    kind = losses.CategoricalCrossentropy if soft else losses.SparseCategoricalCrossentropy
    model.compile(
        optimizer=optimizer, loss=kind(from_logits=model.final_activation != "softmax"), metrics=["accuracy"]
    )
    if validation_data is not None and np.ndim(validation_data[1]) != np.ndim(y):
        x_val, y_val, *rest = validation_data
        y_val = as_labels(y_val) if not soft else np.eye(np.shape(y)[1])[as_labels(y_val)]
        validation_data = (x_val, y_val, *rest)
    return model.fit(x, y, sample_weight=weight, validation_data=validation_data, **training)


# ---------------------------------------------------------------- what the report is measured on


def _split(count: int, validation_split: float) -> tuple[slice, slice | None]:
    """The rows fit trains on and those it holds out: the last ones, as in Keras."""
    if not validation_split:
        return slice(0, count), None
    kept = math.floor(count * (1 - validation_split))
    return slice(0, kept), slice(kept, count)


def _test_samples(report, student, x, y, held_out, validation_data, test_data, callbacks):
    """``x, y`` to measure on, and their rows in the training arrays if they are part of them."""
    chosen = test_data if test_data is not None else validation_data
    if chosen is not None:
        name = "test_data" if test_data is not None else "validation_data"
        if not isinstance(chosen, (tuple, list)) or len(chosen) not in (2, 3):
            raise ValueError(f"{name} must be (x, y), got {describe(chosen)}")
        x_test, y_test = check_inputs(chosen[0], student.input_shape, student.dtype, f"{name} x"), chosen[1]
        if y_test is not None:
            student.check_y(y_test, len(x_test), KnowledgeDistillation(), f"{name} y")
        rows = None
    elif held_out is not None:
        x_test, y_test, rows = x[held_out], None if y is None else np.asarray(y)[held_out], held_out
        name = "validation_split"
    else:
        report.unseen = False
        report.notes.append(
            f"measured on the {len(x)} training samples themselves: give validation_data or test_data "
            "to learn how the student does on others"
        )
        return x, y, slice(0, len(x))
    report.notes.append(f"measured on the {len(x_test)} samples of {name}")
    if chooser := _chooses_epoch(callbacks):
        chosen_on = x[held_out] if validation_data is None and held_out is not None else None
        if validation_data is not None:
            chosen_on = np.asarray(validation_data[0])
        if test_data is None or (chosen_on is not None and _count_shared(chosen_on, x_test)):
            report.unseen = False
            report.notes.append(
                f"{chooser} chose the epoch on these samples, so the figures flatter the student: "
                f"give {'test_data' if test_data is None else 'other test_data'}"
            )
    return x_test, y_test, rows


def _chooses_epoch(callbacks) -> str:
    """The callback that picks weights by the validation data, if there is one."""
    listed = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    for callback in listed:
        watched = str(getattr(callback, "monitor", "")).startswith("val_")
        keeps = not isinstance(callback, ModelCheckpoint) or getattr(callback, "save_best_only", False)
        if watched and keeps:
            return type(callback).__name__
    return ""


def _count_shared(x, x_test) -> int:
    """How many test samples are among those of ``x``, value for value."""
    if x.shape[1:] != x_test.shape[1:] or x.dtype != x_test.dtype or x.nbytes + x_test.nbytes > 1 << 30:
        return 0
    known = {hash(np.ascontiguousarray(row).tobytes()) for row in x}
    return sum(hash(np.ascontiguousarray(row).tobytes()) in known for row in x_test)


def _check_unseen(report, x, x_test) -> None:
    if shared := _count_shared(x, x_test):
        report.unseen = False
        report.notes.append(f"{shared} of the {len(x_test)} samples measured on are training samples too")


def _teacher_on(teacher: Teacher, x_test, rows, test_teacher, report) -> np.ndarray | None:
    if test_teacher is not None:
        found = named_teacher("test_teacher", test_teacher)
        if found.samples is not None:
            check_rows("test_teacher", found.samples, len(x_test), "the test data")
        return cached_logits(found, x_test, classes=teacher.classes)
    if rows is not None:
        return np.asarray(teacher.logits(x_test, rows)) if teacher.samples else cached_logits(teacher, x_test)
    if teacher.samples is not None:
        report.notes.append(
            "the teacher is an array of logits for x and has none for these samples: give test_teacher"
        )
        return None
    return cached_logits(teacher, x_test)


def _say_what_looks_wrong(report: DistillationReport, classes: int) -> None:
    taught = report.teacher
    if taught is not None and taught.accuracy is not None and taught.accuracy < 1.5 / classes:
        report.notes.append(
            f"the teacher has only {taught.accuracy:.1%} right, hardly more than by chance: does it get its inputs as "
            "it was trained on them (scaled, flattened), and are its classes in the order of y?"
        )
    if any(math.isnan(value) for value in (report.student.loss, report.student.teacher_kl) if value is not None):
        report.notes.append(
            "the student's answers are not finite: its training diverged, which a smaller learning rate or clipping "
            "prevents"
        )
    if report.plain is not None and report.plain.errors is not None and report.student.errors is not None:
        gain = report.plain.errors - report.student.errors
        if gain <= 0:
            report.notes.append(
                f"distillation did not help here: {-gain} errors more than the plain student. A single run "
                "says little: distill_sweep repeats it over seeds"
            )


# ---------------------------------------------------------------- relatives


@dataclass
class BornAgain:
    """``models`` from the first generation to the last, the ``reports`` of all but the first."""

    models: list
    reports: list[DistillationReport] = field(default_factory=list)

    @property
    def ensemble(self) -> Ensemble:
        """All generations together, which is usually better than any of them."""
        return Ensemble(self.models)


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
    hard_weight=0.5, soft_weight=0.5)``; ``arguments`` go to ``distill``, ``from_probs`` and ``test_teacher`` only
    with the ``teacher`` they are about.
    """
    generations = check_int("generations", generations, minimum=1)
    if isinstance(build_student, Sequential) or not callable(build_student):
        raise TypeError(
            f"build_student must be a function that makes a new model, got {describe(build_student)}"
        )
    of_the_first = {name: arguments.pop(name) for name in ("from_probs", "test_teacher") if name in arguments}
    if of_the_first and teacher is None:
        raise ValueError(f"{' and '.join(of_the_first)} need a teacher, got None")
    if y is None and teacher is None:
        raise ValueError(
            "y must be given, got None: the first generation learns from labels, or from teacher="
        )
    loss = KnowledgeDistillation(temperature=1.0, hard_weight=0.5, soft_weight=0.5) if loss is None else loss
    result = BornAgain([])
    for _ in range(generations):
        model = build_student()
        if not isinstance(model, Sequential):
            raise TypeError(f"build_student must return a Sequential, got {describe(model)}")
        if any(model is earlier for earlier in result.models):
            raise ValueError("build_student must return a new model each time, got the same one again")
        model._build_for(x)
        if teacher is None:
            training = {
                name: value
                for name, value in {"epochs": 20, **arguments}.items()
                if name not in ("validation_data", "test_data", "transfer", "plain_student")
            }
            weight = training.pop("sample_weight", None)
            validation = arguments.get("validation_data")
            train_on_labels(model, fresh_optimizer(optimizer), x, y, weight, validation, training)
        else:
            options = {**arguments, **of_the_first, "optimizer": fresh_optimizer(optimizer)}
            result.reports.append(distill(teacher, model, x, y, loss, **options))
            of_the_first = {}
        result.models.append(model)
        teacher = model
    return result


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
    by teaching. In the first epoch, when nobody knows anything yet, all learn from labels alone, so
    ``hard_weight`` must be > 0. A model that augments its inputs is taught by copies of the others that see
    what it sees. ``fit_arguments`` go to each ``fit``, of one epoch, so callbacks that compare epochs are refused.

    Returns each model's ``History``, its epochs joined.
    """
    models = list(models) if isinstance(models, (list, tuple)) else [models]
    if len(models) < 2 or not all(isinstance(model, Sequential) for model in models):
        raise ValueError(f"models must be two or more Sequential models, got {describe(models)}")
    if len({id(model) for model in models}) < len(models):
        raise ValueError("models must be different models, got one of them twice")
    epochs = check_int("epochs", epochs, minimum=1)
    temperature = check_float("temperature", temperature, above=0)
    hard_weight = check_float("hard_weight", hard_weight, above=0)
    if y is None:
        raise ValueError("y must be given, got None: models that know nothing yet begin with labels")
    if not (as_labels(check_array("y", y)) >= 0).any():
        raise ValueError("y must hold labels, got none >= 0: models that know nothing yet begin with labels")
    aloud = check_verbose(fit_arguments.get("verbose", "auto")) != 0
    callbacks = fit_arguments.get("callbacks") or ()
    for callback in callbacks if isinstance(callbacks, (list, tuple)) else (callbacks,):
        if isinstance(callback, (EarlyStopping, ReduceLROnPlateau)):
            raise ValueError(
                f"callbacks must not compare epochs, got {type(callback).__name__}: each fit is of one epoch here"
            )
    x = check_array("x", x)
    for model in models:
        model._build_for(x)
        for other in models:
            if other is not model:
                other._build_for(x)
                as_teacher(other, student=model)
        loss = KnowledgeDistillation(temperature, hard_weight, soft_weight)
        model.compile(optimizer=fresh_optimizer(optimizer), loss=loss, metrics=["accuracy"])
    compile_before_fit(models[0].dtype.name, aloud)
    histories = [None] * len(models)
    for epoch in range(epochs):
        online = [augmenting_layer(model) is not None for model in models]
        answers = [model.predict_logits(x) for model in models]
        copies = [copy.deepcopy(model) if any(online) else None for model in models]
        for k, model in enumerate(models):
            others = [j for j in range(len(models)) if j != k]
            if online[k]:
                peers = Ensemble([copies[j] for j in others])
            else:
                peers = Ensemble([answers[j] for j in others]).logits(x, temperature=temperature)
            history = model.fit(
                x,
                y,
                epochs=epoch + 1,
                initial_epoch=epoch,
                target_model=peers,
                temperature=temperature,
                hard_weight=hard_weight,
                soft_weight=soft_weight if epoch else 0.0,
                **fit_arguments,
            )
            if histories[k] is None:
                histories[k] = history
            else:
                histories[k].epoch += history.epoch
                for name, values in history.history.items():
                    histories[k].history.setdefault(name, []).extend(values)
    for model, history in zip(models, histories, strict=True):
        model.history = history
    return histories
