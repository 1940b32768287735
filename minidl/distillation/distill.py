"""``distill``: check, train, measure, report."""

from __future__ import annotations

import time

import numpy as np

from ..callbacks import History, check_verbose
from ..models import Sequential
from ..teachers import untrained_note
from ..warmup import compile_before_fit
from .checks import Job, check_job, check_not_swapped
from .plain import PlainStudent, check_some_labels
from .report import DistillationReport
from .report_data import choose_report_data
from .text import describe_loss


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
    """Train ``student`` to give the teacher's answers, and report how well it does.

    Parameters
    ----------
    teacher : a model, an ``Ensemble``, logits ``(N, C)`` row-aligned with ``x`` (an ``np.memmap`` too), or a
        function ``x -> logits``. It is run in inference mode and not changed. A model that
        ``EarlyStopping(restore_best_weights=True)`` stopped teaches with the weights it has now; a ``deepcopy``
        of the student may teach it (self-distillation); zeros are the uniform teacher, which smooths labels.
    student : a ``Sequential`` that ends in ``Dense(C)`` or in softmax.
    x : samples ``(N, ...)``.
    y : labels ``(N,)`` with -1 where there is none, or one-hot rows ``(N, C)``; or None: no labels at all.
    loss : a distillation loss, by default ``KnowledgeDistillation(temperature=4.0)``, and if ``y`` is None
        ``KnowledgeDistillation(temperature=4.0, hard_weight=0.0, soft_weight=1.0)``.
    optimizer : by default the one the student was compiled with, or Adam.
    validation_data, validation_split : as in ``fit``; evaluated during training.
    test_data : ``(x, y)`` for the report. By default the validation data; without any the figures are taken
        on ``x`` itself, and the report says so.
    transfer : more samples, without labels: the teacher labels them. If the teacher is an array of logits, its
        rows for these samples come last.
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
    # check: whatever is refused is refused here
    fit_arguments |= dict(x=x, y=y, batch_size=batch_size, epochs=epochs)
    fit_arguments |= dict(validation_data=validation_data, validation_split=validation_split)
    verbose = check_verbose(fit_arguments.get("verbose", "auto"))
    job = check_job(teacher, student, loss, fit_arguments, transfer, from_probs)
    compile_before_fit(student.dtype.name, aloud=verbose != 0)
    note = untrained_note(job.teacher, student, resumed=bool(fit_arguments.get("initial_epoch")))
    check_not_swapped(job)
    if plain_student:
        check_some_labels(job.fit_arguments["y"])
    data = choose_report_data(job, test_data, test_teacher)

    # train
    optimizer = student.optimizer or "adam" if optimizer is None else optimizer
    plain = PlainStudent(student, optimizer, job.fit_arguments) if plain_student else None
    started = time.perf_counter()
    history = _train(job, optimizer)
    seconds = time.perf_counter() - started
    plain_history = plain.train() if plain else None

    # measure and report
    report = DistillationReport(
        teacher=data.measure_teacher(job),
        plain=data.measure_student("plain student", plain.model) if plain else None,
        student=data.measure_student("student", student),
        loss=describe_loss(job.loss),
        unseen=data.unseen,
        notes=[note, *data.notes] if note else data.notes,
        seconds=seconds,
        history=history,
        plain_history=plain_history,
    )
    report.notes += report.concerns()
    return report


def _train(job: Job, optimizer: object) -> History:
    """Compile the student with the loss and fit it; if that is refused, it is compiled as it was before."""
    student = job.student
    compiled = student.optimizer, student.loss, student.metrics
    try:
        student.compile(optimizer=optimizer, loss=job.loss, metrics=["accuracy"])
        return student.fit(target_model=job.teacher, **job.fit_arguments)
    except (TypeError, ValueError):
        student.optimizer, student.loss, student.metrics = compiled
        raise
