"""Many distillations at once: every setting from several seeds, each run in a process with one thread."""

import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .callbacks import LineProgress, check_verbose
from .distillation.checks import build_for, check_answers, check_pair, check_some_labels, distillation_loss
from .distillation.distill import compile_kernels
from .distillation.plain import fresh_optimizer, train_on_labels
from .figures import TASK_FIGURES, area_under_curve, as_labels, has_label, has_labels
from .models import Sequential
from .report import count_of, describe_loss, mean_and_std, measure
from .runtime import set_num_threads
from .tables import format_table, html_lines, html_table
from .teachers import Teacher, as_teacher, cached_logits, untrained_note
from .training.tasks import TASKS, Task, choose_task, task_of
from .training.tuning import short_setting
from .validation import check_array, check_int, check_rows, describe


@dataclass
class Sweep:
    """The runs of ``distill_sweep``: ``rows`` holds one dict per setting, ``runs`` one per run."""

    rows: list[dict]
    runs: list[dict]
    notes: list[str] = field(default_factory=list)
    task: str = "classification"  # or "binary", or "regression"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        measured = TASK_FIGURES[self.task].swept

        def cells(row):
            means = (
                f"{row[key + '_mean']:{form}} +- {row[key + '_std']:{form}}" for key, form in measured.items()
            )
            return [row["setting"], str(row["runs"]), *means]

        return ["student", "runs", *measured], list(map(cells, self.rows))

    def table(self, markdown: bool = False) -> str:
        """Mean +- standard deviation (ddof 1) over the seeds, a row per setting."""
        return format_table(*self._table(), markdown)

    def __str__(self) -> str:
        return "\n".join([self.table(), "", *self.notes])

    def _repr_html_(self) -> str:
        return html_table(*self._table()) + html_lines(self.notes)

    def to_markdown(self) -> str:
        return "\n".join([self.table(markdown=True), "", *(f"- {note}" for note in self.notes), ""])

    def to_dict(self) -> dict:
        return asdict(self)

    @property
    def best(self) -> dict:
        """The row with the fewest errors on average; of sigmoids the largest AUC, of a regression the least RMSE."""
        return TASK_FIGURES[self.task].better(self.rows, key=lambda row: row[f"{self.judge}_mean"])

    @property
    def judge(self) -> str:
        """The figure by which settings are compared: "errors", "auc" or "rmse"."""
        return TASK_FIGURES[self.task].judge


def distill_sweep(
    teacher: object,
    student: Sequential,
    x: np.ndarray,
    y: np.ndarray | None = None,
    temperatures: Sequence[float] | None = None,
    weights: Sequence[tuple[float, float]] | None = None,
    loss_list: Sequence[object] = (),
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: object = "adam",
    validation_data: tuple | None = None,
    plain_student: bool = True,
    processes: int | None = None,
    verbose: int | str = "auto",
    teacher_inputs: tuple | None = None,
    executor: Any = None,
) -> Sweep:
    """Distil the student under many settings, each from several seeds; mean and standard deviation of each.

    Parameters
    ----------
    student : gives the architecture; every run begins with a new model of it, and it is not changed itself.
    temperatures, weights : every pair of a temperature and a ``(hard_weight, soft_weight)`` is one
        ``KnowledgeDistillation``, or the loss of the student's task, which `distill` tells. By default 1, 2, 4, 8 and
        (0.1, 0.9). A regression has no temperature, and by default the weights (0.9, 0.1), (0.5, 0.5), (0.1, 0.9).
    loss_list : further distillation losses to try.
    seeds : one run each; they decide initial weights and shuffling.
    validation_data : ``(x, y)`` the errors are counted on, of sigmoids the AUC, of a regression the RMSE. The best
        setting is chosen by them: judge it on other data afterwards. Required.
    plain_student : also train on labels alone, for as many steps, as a setting of its own.
    processes : runs at a time, each on one thread; by default one per processor. 1 runs them here, one after
        another. A script that uses more must do so under ``if __name__ == "__main__":``.
    verbose : 0 says nothing; by default each run says a line when it is done.
    teacher_inputs : what the teacher is asked about in place of ``x`` and of the x of ``validation_data``: a pair of
        arrays, row i for sample i.
    executor : in place of ``processes``, what gives each run to a process, here or on another machine: an ``Executor``
        of ``concurrent.futures``, or a ``dask.distributed.Client``. A run is sent with its arrays. Other processes than
        this one then use one thread.

    Returns a ``Sweep``: ``print`` it, or read ``rows`` (a dict per setting, with ``errors_mean``, ``errors_std``
    and so on), ``runs`` and ``best``; ``minidl.plotting.sweep`` draws it.

    Raises ValueError or TypeError before anything is trained for arguments that do not fit, for a teacher that
    only knows the logits of ``x``, and for a student that augments its inputs, which has to be taught online.
    """
    x = build_for(student, x)
    task = choose_task(student, y)
    temperatures, weights = _default_lists(task, temperatures, weights)
    _check_lists(temperatures, weights, loss_list, seeds)
    seeds = [check_int(f"seeds[{i}]", seed, minimum=0) for i, seed in enumerate(seeds)]
    if not seeds:
        raise ValueError("seeds must hold one seed or more, got none")
    verbose = check_verbose(verbose)
    if executor is not None:
        executor = _check_executor(executor, processes)
    processes = check_int("processes", os.cpu_count() if processes is None else processes, minimum=1)
    teacher = as_teacher(teacher, student, activation=task.loss.fused_activation)
    x_val, y_val = check_pair(student, "validation_data", validation_data, task.loss(), lengths=(2,))
    y_val = _check_judged(task, y_val)
    plain_student = plain_student and y is not None
    y = check_answers(student, y, len(x), task.loss())
    if plain_student:
        check_some_labels(y, task)
    note = untrained_note(teacher, Sequential.from_config(student.get_config()))
    _refuse_online(teacher, student)
    asked = _check_teacher_inputs(teacher_inputs, len(x), len(x_val)) or (x, x_val)
    softened: list[tuple] = [()] if task.name == "regression" else [(t,) for t in temperatures]
    candidates = [task.loss(*t, *pair) for t, pair in itertools.product(softened, weights)]
    is_here = processes == 1 and executor is None
    candidates = _check_losses([*candidates, *loss_list], y, is_here, task)
    settings = ([None] if plain_student else []) + candidates
    if not is_here:  # once, and not in each process
        compile_kernels([(student, loss, optimizer, y) for loss in settings], verbose != 0, task)

    arrays = {"x": x, "x_val": x_val, "y_val": y_val} | ({} if y is None else {"y": y})
    arguments = dict(epochs=epochs, batch_size=batch_size, verbose=0)
    configs = [{**student.get_config(), "seed": seed} for seed in seeds]
    with tempfile.TemporaryDirectory(prefix="minidl_sweep_") as folder:
        logits_files = _write_arrays(folder, arrays, teacher, asked, settings, student.dtype)
        runs = [
            _Run(folder, config, setting, file, fresh_optimizer(optimizer), arguments, task.name)
            for setting, file in zip(settings, logits_files, strict=True)
            for config in configs
        ]
        figures = []
        names = {describe_loss(setting): short_setting(setting) for setting in settings}
        awaited = [f"{short_setting(run.loss)}, seed {run.config['seed']}" for run in runs]
        progress = LineProgress(verbose)
        progress.show(f"run 1/{len(runs)}: {awaited[0]}")
        for number, each in enumerate(_run_all(runs, min(processes, len(runs)), executor), 1):
            figures.append(each)
            what = f"{names[each['setting']]}, seed {each['seed']}: {_shown(each, task)}"
            progress.end(f"run {number}/{len(runs)}: {what}")
            if number < len(runs):
                progress.show(f"run {number + 1}/{len(runs)}: {awaited[number]}")
    labelled = count_of(int(has_label(y_val, task.name).sum()), "labelled sample")
    judged = f"{TASK_FIGURES[task.name].judge_title} among the {labelled} of validation_data; "
    judged += "the best setting is to be judged on others"
    notes = [judged, note] if note else [judged]
    return Sweep([_statistics(setting, figures, task) for setting in settings], figures, notes, task.name)


def _shown(run: dict, task: Task) -> str:
    """The figure of a run that settings are compared by."""
    figures = TASK_FIGURES[task.name]
    value = run[figures.judge]
    if figures.judge == "errors":
        return count_of(value, "error")
    return f"{figures.judge_title} {value:{figures.swept[figures.judge]}}"


def _default_lists(task: Task, temperatures: Any, weights: Any) -> tuple:
    """Temperatures and pairs of weights, by default those of the task."""
    if task.name == "regression":
        if temperatures is not None:
            raise ValueError(
                f"temperatures must be None: a regression has none, got {describe(temperatures)}"
            )
        return (), ((0.9, 0.1), (0.5, 0.5), (0.1, 0.9)) if weights is None else weights
    if temperatures is None:
        temperatures = (1.0, 2.0, 4.0, 8.0)
    return temperatures, ((0.1, 0.9),) if weights is None else weights


def _check_teacher_inputs(given: Any, rows: int, validation_rows: int) -> tuple | None:
    if given is None:
        return None
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ValueError(
            f"teacher_inputs must be a pair, for x and for the x of validation_data, got {describe(given)}"
        )
    found = tuple(check_array(f"teacher_inputs[{i}]", inputs) for i, inputs in enumerate(given))
    check_rows("teacher_inputs[0]", len(found[0]), rows)
    check_rows("teacher_inputs[1]", len(found[1]), validation_rows, "validation_data")
    return found


def _check_judged(task: Task, y_val: np.ndarray | None) -> np.ndarray:
    """The labels of the validation data, from which a figure to compare by can be had."""
    if y_val is None:
        raise ValueError("validation_data must be (x, y), got y=None: errors are counted by labels")
    if not has_labels(y_val, task.name):
        raise ValueError("validation_data y must hold labels to count errors by, got none >= 0")
    if task.name == "binary" and area_under_curve(y_val > 0.5, np.zeros(y_val.shape)) is None:
        raise ValueError(
            "validation_data y must hold both 0 and 1 to compare settings by AUC, got one of them alone"
        )
    return as_labels(y_val) if task.name == "classification" else y_val


def _check_lists(temperatures: Any, weights: Any, loss_list: Any, seeds: Any) -> None:
    lists: dict = {"temperatures": temperatures, "weights": weights, "loss_list": loss_list, "seeds": seeds}
    for name, value in lists.items():
        if not np.iterable(value) or isinstance(value, str):
            raise TypeError(f"{name} must be a list, got {describe(value)}")
    for pair in weights:
        if not hasattr(pair, "__len__") or len(pair) != 2:
            raise ValueError(f"weights must hold pairs (hard_weight, soft_weight), got {describe(pair)}")


def _refuse_online(teacher: Teacher, student: Sequential) -> None:
    """Every run reads the teacher's logits from a file, so no run may need the teacher itself."""
    if teacher.samples is not None:
        raise ValueError(
            "teacher must be able to answer for validation_data too, got an array of logits for x"
        )
    if (layer := student.augmenting_layer()) is not None:
        raise ValueError(
            f"student's layer {layer.name!r} augments its inputs, so each run would need the teacher itself: leave "
            "that layer out, or call distill for each setting"
        )


def _check_losses(candidates: list, y: np.ndarray | None, is_here: bool, task: Task) -> list:
    """The losses to try, each once."""
    candidates = [distillation_loss(loss, y) for loss in candidates]
    for loss in candidates:
        if task_of(loss) is not task:
            raise ValueError(f"loss_list must hold losses for the student's task, {task.name}, got {loss!r}")
    settings = [value for loss in candidates for value in loss.get_config().values()]
    if not is_here and any(callable(value) for value in settings):
        raise ValueError(
            "a schedule must be a minidl.losses.Ramp, which other processes can be sent, or processes must be 1 and "
            "executor None"
        )
    if not candidates:
        raise ValueError("temperatures and weights, or loss_list, must name one setting or more, got none")
    return list({describe_loss(loss): loss for loss in candidates}.values())


class _Run(NamedTuple):
    """One training, as it is sent to the process that does it. The arrays are files in ``folder``."""

    folder: str | dict[str, np.ndarray]  # or the arrays themselves
    config: dict  # of the student, with the seed of this run
    loss: object  # a distillation loss; None: labels alone
    teacher_logits: str  # name of their file
    optimizer: object
    fit_arguments: dict
    task: str


def _write_arrays(
    folder: str, arrays: dict, teacher: Teacher, asked: tuple, settings: list, dtype: np.dtype
) -> list[str]:
    """Write the arrays and the teacher's logits; returns the name of the logits that each setting learns from.

    ``asked``: what the teacher is asked about, for the training and the validation samples.
    """
    arrays = {**arrays, "teacher_val": cached_logits(teacher, asked[1])}
    names = []
    for setting in settings:
        temperature = float(getattr(setting, "temperature", 1.0)) if teacher.softens else 1.0
        names.append(f"teacher_{temperature!r}")
        if setting is not None and names[-1] not in arrays:
            arrays[names[-1]] = cached_logits(teacher, asked[0], temperature=temperature, dtype=dtype)
    for name, array in arrays.items():
        np.save(Path(folder) / f"{name}.npy", array)
    return names


def _check_executor(executor: Any, processes: int | None) -> Any:
    """An executor with ``submit``, or a TypeError or ValueError."""
    if processes is not None:
        raise ValueError(
            f"processes must be left out beside executor, which has its own: got processes={processes!r}"
        )
    if hasattr(executor, "get_executor"):  # a Client of dask.distributed
        executor = executor.get_executor()
    if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
        raise TypeError(
            "executor must be an Executor of concurrent.futures, a Client of dask.distributed, or None, got "
            f"{describe(executor)}"
        )
    return executor


def _run_all(runs: list[_Run], processes: int, executor: Any) -> Iterator[dict]:
    if executor is not None:  # its processes may be on machines that do not have the folder
        jobs = [executor.submit(_run_sent, run, os.getpid()) for run in _with_arrays(runs)]
        try:
            yield from (job.result() for job in jobs)
        finally:
            for job in jobs:
                job.cancel()
        return
    if processes == 1:
        yield from map(_run, runs)
        return
    # Not fork: a forked child would inherit locks held by threads it does not have.
    options: dict = dict(initializer=set_num_threads, initargs=(1,))
    try:
        with futures.ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), **options) as pool:
            yield from pool.map(_run, runs)
    except futures.BrokenExecutor as error:
        raise RuntimeError(
            "a process of the sweep ended early. A script must call distill_sweep under "
            'if __name__ == "__main__":, and from standard input only processes=1 works'
        ) from error


def _with_arrays(runs: list[_Run]) -> list[_Run]:
    """The runs, each with the arrays that it needs in place of their folder."""
    arrays = {path.stem: np.load(path) for path in Path(runs[0].folder).glob("*.npy")}
    for_all = {
        name: array for name, array in arrays.items() if name in ("x", "y", "x_val", "y_val", "teacher_val")
    }
    return [
        run._replace(folder=for_all | {run.teacher_logits: arrays.get(run.teacher_logits)}) for run in runs
    ]


def _run_sent(run: _Run, sender: int) -> dict:
    """`_run`, on one thread unless it is in the process that called `distill_sweep`."""
    if os.getpid() != sender:
        set_num_threads(1)
    return _run(run)


def _run(run: _Run) -> dict:
    """Train and measure one student, in whatever process this is called."""
    folder = run.folder

    def load(name):
        if isinstance(folder, dict):
            return folder.get(name)
        path = Path(folder) / f"{name}.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    data = dict(x=load("x"), y=load("y"))
    model = Sequential.from_config(run.config)
    task = next(task for task in TASKS.values() if task.name == run.task)
    if run.loss is None:
        train_on_labels(model, run.optimizer, {**data, **run.fit_arguments}, task, as_many_steps=True)
    else:
        model.compile(optimizer=run.optimizer, loss=run.loss, metrics=task.metrics(model))
        model.fit(**data, target_model=load(run.teacher_logits), **run.fit_arguments)
    answers = task.answers(model, load("x_val"))
    figures = measure("student", answers, load("y_val"), load("teacher_val"), task=task.name)
    described = {"setting": describe_loss(run.loss), "seed": run.config["seed"]}
    return described | {name: getattr(figures, name) for name in TASK_FIGURES[task.name].swept}


def _statistics(loss: Any, runs: list[dict], task: Task) -> dict:
    """Mean and standard deviation of the runs with this loss."""
    name, method = describe_loss(loss), None if loss is None else type(loss).__name__
    runs = [run for run in runs if run["setting"] == name]
    row: dict = {"setting": name, "method": method, "runs": len(runs)}
    settings = {} if loss is None else loss.get_config()
    for key in ("temperature", "hard_weight", "soft_weight"):  # None too where a schedule changes it
        row[key] = settings.get(key) if isinstance(settings.get(key), float) else None
    return row | mean_and_std(runs, TASK_FIGURES[task.name].swept)
