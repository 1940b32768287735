"""``distill``: check, train, measure, report."""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from .. import callbacks, metrics, optimizers
from ..losses.distillation import Schedule
from ..models import Sequential
from ..report import DistillationReport, describe_loss
from ..teachers import untrained_note
from ..training import AUTO
from ..training.compiled import names_to_train
from ..training.ranks import together
from ..training.samples import loss_without_teacher
from ..training.tasks import TASKS, Task
from ..training.tuning import student_title
from ..warmup import compile_before_fit
from .checks import Job, check_job, check_not_swapped, check_settings, check_some_labels
from .plain import fresh_optimizer, notes_on_plain, train_on_labels
from .report_data import TeacherAtTest, choose_report_data

_STEERING = {callbacks.EarlyStopping, callbacks.TerminateOnNaN}
_STEERING |= {callbacks.LearningRateScheduler, callbacks.ReduceLROnPlateau}
_SET_BY_COMPILE = ["optimizer", "loss", "metrics", "unfinished", "draw_epoch", "best_logs"]
_SET_BY_COMPILE += ["_weights_given_at"]


@together
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
    temperature: Schedule | str = AUTO,
    hard_weight: Schedule | None = None,
    soft_weight: Schedule | None = None,
    teacher_inputs: np.ndarray | None = None,
    test_teacher_inputs: np.ndarray | None = None,
    **fit_arguments,
) -> DistillationReport:
    """Train ``student`` to give the teacher's answers, and report how well it does.

    Parameters
    ----------
    teacher : a model, an ``Ensemble``, logits ``(N, C)`` row-aligned with ``x`` (an ``np.memmap`` too), or a
        function ``x -> logits``. It is run in inference mode and not changed. A model that
        ``EarlyStopping(restore_best_weights=True)`` stopped teaches with the weights it has now; a ``deepcopy``
        of the student may teach it (self-distillation); zeros are the uniform teacher, which smooths labels.
    student : a ``Sequential``. Its ending, its loss if it is compiled with one, and ``y`` say what it learns; the
        table is in ``docs/methods.md``. Softmax or ``Dense(C)``: one class of many. Sigmoid: the answers yes or no of
        one output or several. No activation, with a loss such as "mse" or a ``y`` of numbers: a regression.
    x : samples ``(N, ...)``, also as a data frame or a CSR matrix, of which a teacher sees 1,024 rows at a time.
    y : labels ``(N,)`` with -1 where there is none, or one-hot rows ``(N, C)``; or None: no labels at all. Of
        sigmoids 0 or 1, ``(N,)`` or ``(N, C)``, and rows of -1 for samples without a label; of a regression
        numbers, ``(N,)`` or ``(N, C)``.
    temperature, hard_weight, soft_weight : of the task's loss, ``KnowledgeDistillation``, for sigmoids
        ``BinaryKnowledgeDistillation``, for a regression, which has no temperature, ``RegressionDistillation``; numbers
        or schedules. By default they are chosen on held-out training samples, labels alone among the candidates; that
        costs at most as much as three further trainings (``minidl.training.tuning``).
    loss : a distillation loss in their place; it counts before all else.
    optimizer : by default the one the student was compiled with, or Adam.
    validation_data, validation_split : as in ``fit``; evaluated during training.
    test_data : ``(x, y)`` for the report. By default the validation data; without any the figures are taken
        on ``x`` itself, and the report says so.
    transfer : more samples, without labels: the teacher labels them. If the teacher is an array of logits, its
        rows for these samples come last.
    plain_student : also train a copy of the student, from the same initial weights, on the labels alone, for as many
        steps: where some samples have no label, those that have one come more often.
    test_teacher : the teacher's logits on the test data, for a teacher that is an array.
    from_probs : the teacher is an array of probabilities, or a function that returns them; so may ``test_teacher`` be.
    teacher_inputs : what the teacher is asked about in place of ``x``, row i for sample i (those of ``transfer``
        last): other features, or the same images at a higher resolution.
    test_teacher_inputs : the same for the data of the report, if that is ``test_data`` or ``validation_data``.
    fit_arguments : ``callbacks``, ``verbose``, ``shuffle``, ``sample_weight``, ``communicator`` and so on.

    Returns a ``DistillationReport``: ``print`` it. The student is trained and compiled with ``loss``; ``evaluate``
    needs labels only.

    Raises ValueError or TypeError before anything is trained: for arguments that do not fit, a teacher that is
    the student, teacher and student swapped, probabilities where logits are meant, no labels where
    ``hard_weight`` wants them.
    """
    # check: whatever is refused is refused here
    fit_arguments |= dict(x=x, y=y, batch_size=batch_size, epochs=epochs)
    fit_arguments |= dict(validation_data=validation_data, validation_split=validation_split)
    verbose = callbacks.check_verbose(fit_arguments.get("verbose", "auto"))
    given = dict(temperature=temperature, hard_weight=hard_weight, soft_weight=soft_weight)
    settings = check_settings(loss, given)
    is_auto = loss is None and not settings
    job = check_job(teacher, student, loss, fit_arguments, transfer, from_probs, teacher_inputs, settings)
    optimizer = optimizers.get(student.optimizer or "adam" if optimizer is None else optimizer)
    y, validates = job.fit_arguments["y"], validation_data is not None or validation_split > 0
    used = [job.loss, None] if plain_student or validates else [job.loss]
    compile_kernels([(student, each, optimizer, y) for each in used], verbose != 0, job.task)
    note = untrained_note(job.teacher, student, resumed=bool(fit_arguments.get("initial_epoch")))
    check_not_swapped(job)
    if plain_student:
        check_some_labels(y, job.task)
    data = choose_report_data(job, test_data, TeacherAtTest(test_teacher, from_probs, test_teacher_inputs))

    # train
    if plain_student:  # copies, so that the student's training changes none of it
        plain, plain_optimizer = copy.deepcopy(student), fresh_optimizer(optimizer)
        # not the callbacks that write files, nor the user's own
        steering = [copy.deepcopy(each) for each in job.fit_arguments["callbacks"] if type(each) in _STEERING]
    started = time.perf_counter()
    history = _train(job, optimizer, is_auto)
    seconds = time.perf_counter() - started

    # measure and report
    report = DistillationReport(
        data.measure("student", student),
        data.measure_teacher(job.teacher),
        loss=describe_loss(student.loss),
        unseen=data.unseen,
        notes=[note, *data.notes] if note else data.notes,
        seconds=seconds,
        history=history,
        tuning=history.tuning,
    )
    if plain_student:
        shown = callbacks.titled(steering, verbose, "plain student (labels alone)")
        arguments = {**job.fit_arguments, "callbacks": shown}
        report.plain_history = train_on_labels(
            plain, plain_optimizer, arguments, job.task, as_many_steps=True
        )
        report.plain = data.measure("plain student", plain)
        report.notes += notes_on_plain(job)
    report.notes += report.concerns()
    return report


def compile_kernels(fits: Iterable[tuple], aloud: bool, task: Task = TASKS["softmax"]) -> float:
    """Compile at once what several fits with the task's metric need; returns the seconds.

    Each is a model, a loss (None: that on labels alone), an optimizer and the labels.
    """
    names = defaultdict(set)
    for model, loss, optimizer, y in fits:
        alone = loss_without_teacher(model, task.loss(), y)
        found = [metrics.get(name) for name in task.metrics(model)]
        kinds = [each.kind_for(alone.sparse, math.prod(model.output_shape)) for each in found]
        found = names_to_train(model, loss or alone, optimizers.get(optimizer), kinds)
        names[model.dtype.name].update(found)
    return sum(compile_before_fit(dtype, aloud, each) for dtype, each in names.items())


def _train(job: Job, optimizer: optimizers.Optimizer, is_auto: bool) -> callbacks.History:
    """Compile the student with the loss and fit it.

    If that is refused, or interrupted before the first step, it is compiled as it was before.
    """
    student, done = job.student, optimizer.batches
    compiled = {name: getattr(student, name) for name in _SET_BY_COMPILE}
    try:
        student.compile(optimizer=optimizer, loss=job.loss, metrics=job.task.metrics(student))
        arguments = dict(job.fit_arguments)
        if not is_auto:  # which says what it chose
            shown = callbacks.titled(
                arguments["callbacks"], arguments.get("verbose", "auto"), student_title(job.loss)
            )
            arguments["callbacks"] = shown
        return student.fit(target_model=job.teacher, temperature=AUTO if is_auto else None, **arguments)
    except BaseException as error:
        untrained = optimizer.batches == done
        if untrained or isinstance(error, (TypeError, ValueError)):
            for name in _SET_BY_COMPILE if untrained else _SET_BY_COMPILE[:3]:
                setattr(student, name, compiled[name])
        raise
