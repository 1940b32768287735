"""``temperature="auto"``: temperature and weights are chosen on held-out training samples.

30 % of the labelled samples are held out. Each candidate trains a copy of the student on the others, for as many
steps as the student will take itself, and is judged on what was held out. The student then learns from all samples by
the choice, as if its numbers had been given: with three candidates that costs at most four trainings in all, and the
teacher is asked once. Nothing of the student changes before, its draws neither.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from typing import Any, NamedTuple

import numpy as np

from ..callbacks import History, LambdaCallback, LineProgress, say, titled
from ..kernels.random import SHUFFLE, key_of, permutation
from ..losses import Loss, softmax
from ..teachers import Teacher, as_teacher
from ..teachers.cache import remembering
from .fit import fit
from .options import FitOptions
from .preparation import TrainingData, ask_teacher, is_of_labels_alone, prepare
from .samples import Samples
from .tally import Tally
from .tasks import TASKS, Task, choose_task

CANDIDATES = ((2.0, 0.5, 0.5), (4.0, 0.1, 0.9), (2.0, 1.0, 0.0))
"""Temperature, hard_weight and soft_weight of each. The first is the safe one, the default of the loss; the last are
labels alone. A regression has no temperature."""
_SETTINGS = "temperature", "hard_weight", "soft_weight"
_SHARE = 0.3
_FEWEST = 20  # to hold out: fewer say nothing
_MOST_BYTES = 1 << 30
"""The search copies its samples, of a larger data set no more than this."""
_OF_TUNING = 2**62  # in the place of an epoch: the draw of the samples to hold out


class Trial(NamedTuple):
    """A candidate, and how it did on the held-out samples."""

    setting: str
    score: float  # the mean squared distance of the answers from the labels; of probabilities that is Brier's score
    errors: int | None  # of classes and of answers yes or no


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What ``temperature="auto"`` tried, what it cost and what it chose."""

    loss: Loss
    trials: tuple[Trial, ...] = ()
    held_out: int = 0
    steps: int = 0  # of all trials together
    student_steps: int = 0  # of the training that follows
    reason: str = ""  # why nothing was tried

    @property
    def alone(self) -> bool:
        """Whether the student was trained on labels alone."""
        return is_of_labels_alone(self.loss)

    @property
    def chosen(self) -> str:
        """The setting that the student learns by, as `describe_setting` has it."""
        return describe_setting(self.loss)

    def lines(self) -> list[str]:
        """The search in a few sentences."""
        if not self.trials:
            return [f'temperature="auto" tried nothing, because {self.reason}: {self.chosen}']
        tried = [
            f"{trial.setting}: "
            + f"{trial.errors} errors, " * (trial.errors is not None)
            + f"score {trial.score:.4f}"
            for trial in self.trials
        ]
        found = [
            f'temperature="auto" tried, on {self.held_out} held-out training samples: {"; ".join(tried)}',
            f"chosen: {self.chosen}; the search took {self.steps / self.student_steps:.1f} times the student's "
            f"{self.student_steps:,} steps",
        ]
        if self.alone:
            found.append("labels alone were best: this student did not learn from the teacher")
        return found

    def to_dict(self) -> dict:
        """All of it as a dictionary that ``json.dumps`` takes."""
        told = {name: getattr(self, name) for name in ("held_out", "steps", "student_steps", "reason")}
        return {"chosen": self.chosen, "trials": [trial._asdict() for trial in self.trials], **told}


def describe_setting(loss: Any) -> str:
    """What tells one candidate from another: "temperature 2, weights 0.5 and 0.5"."""
    if is_of_labels_alone(loss):
        return "labels alone"
    temperature = f"temperature {loss.temperature:g}, " if "temperature" in loss.get_config() else ""
    return f"{temperature}weights {loss.hard_weight:g} and {loss.soft_weight:g}"


def short_setting(loss: Any) -> str:
    """The same in a few letters, of any distillation loss; None is labels alone: "T 2, 0.5/0.5"."""
    if loss is None or is_of_labels_alone(loss):
        return "labels alone"
    settings = {name: value for name, value in loss.get_config().items() if name != "name"}
    plain = any(type(loss) is task.loss for task in TASKS.values())
    parts = [] if plain else [type(loss).__name__]
    if (temperature := settings.pop("temperature", None)) is not None:
        parts.append(f"T {_short(temperature)}")
    if {"hard_weight", "soft_weight"} <= settings.keys():
        parts.append("/".join(_short(settings.pop(name)) for name in ("hard_weight", "soft_weight")))
    defaults = inspect.signature(type(loss).__init__).parameters
    for name, value in settings.items():
        if name not in defaults or value != defaults[name].default:
            parts.append(name if value is True else f"{name} {_short(value)}")
    return ", ".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, dict):  # the config of a schedule
        return f"{value['class_name']}({', '.join(map(_short, value['config'].values()))})"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return f"{value:g}" if type(value) in (int, float) else str(value)


def student_title(loss: Any) -> str:
    """What a student's progress says of it."""
    alone = loss is None or is_of_labels_alone(loss)
    return "student (labels alone)" if alone else f"student (distilled, {short_setting(loss)})"


def candidates_of(task: Task) -> list[Loss]:
    """The losses to try."""
    names = ("hard_weight", "soft_weight") if task.name == "regression" else _SETTINGS
    given = (dict(zip(_SETTINGS, numbers, strict=True)) for numbers in CANDIDATES)
    return [task.loss(**{name: each[name] for name in names}) for each in given]


def tuned_fit(model, options: FitOptions) -> History:
    """Choose temperature and weights, then train ``model`` on all samples as ``fit`` does with these numbers.

    A model that is compiled with the task's distillation loss is then compiled with the chosen one.
    """
    for name in ("hard_weight", "soft_weight"):
        if (value := getattr(options, name)) is not None:
            raise ValueError(
                f'temperature="auto" chooses the weights too, got {name}={value}: give temperature as a number'
            )
    if options.target_model is None:
        raise ValueError('temperature="auto" belongs to distillation: it needs target_model')
    task = choose_task(model, options.y)
    teacher = as_teacher(options.target_model, model, activation=task.loss.fused_activation)
    if model.augmenting_layer() is None:
        teacher = remembering(teacher)
    options = dataclasses.replace(options, target_model=teacher, temperature=None)
    data = prepare(model, options, task.loss_for(options.y, {}))
    tuning = _Search(model, options, data, teacher).run(task)
    if options.verbose:
        say("".join(f"{line}\n" for line in tuning.lines()))
    samples, online_teacher = ask_teacher(model, tuning.loss, data.samples, teacher)
    if type(model.loss) is type(tuning.loss):
        model.loss = tuning.loss
    data = data._replace(loss=tuning.loss, samples=samples, online_teacher=online_teacher)
    shown = titled(options.callbacks, options.verbose, student_title(tuning.loss))
    history = fit(model, dataclasses.replace(options, callbacks=shown), data)
    history.tuning = tuning
    return history


class _Search:
    """The trials of one ``tuned_fit``."""

    def __init__(self, model, options: FitOptions, data: TrainingData, teacher: Teacher):
        self._model, self._options, self._data, self._teacher = model, options, data, teacher
        self._epochs = max(options.epochs - options.initial_epoch, 0)

    def run(self, task: Task) -> Tuning:
        """Try the candidates, or say why not."""
        data, losses = self._data, candidates_of(task)
        safe = losses[0]
        classes = _classes(data.samples, task)[: data.count]
        if not (classes >= 0).any():
            return Tuning(task.loss_for(None, {}), reason="no sample has a label to be judged by")
        if self._epochs == 0:
            return Tuning(safe, reason="there are no epochs to train")
        rows, held = self._choose_rows(classes)
        if len(held) < _FEWEST:
            count = int((classes >= 0).sum())
            return Tuning(safe, reason=f"{count} samples with a label are too few to hold some out")
        learnt, judged = data.samples.take(rows), data.samples.take(held)
        trials, scores, steps = [], [], 0
        progress = LineProgress(self._options.verbose)
        for number, loss in enumerate(losses, 1):
            title = f"tuning {number} of {len(losses)}: {short_setting(loss)}"
            trial, taken = self._train_copy(loss, rows, learnt, progress, title)
            score, errors = _judge(trial, judged, task)
            trials.append(Trial(describe_setting(loss), float(score.mean()), errors))
            progress.end(f"{title} - score {score.mean():.4f}")
            scores.append(score)
            steps += taken
        of_student = self._epochs * _steps(data.count, self._options.batch_size)
        return Tuning(losses[choose(scores)], tuple(trials), len(held), steps, of_student)

    def _choose_rows(self, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows to learn from and those to judge by: the same share of each class."""
        samples, count = self._data.samples, self._data.count
        order = np.arange(count)
        permutation(order, key_of(self._model.seed, SHUFFLE, _OF_TUNING, 0))
        order = order[: max(1, _MOST_BYTES * count // max(samples.x.nbytes, 1))]
        of_class = [order[classes[order] == each] for each in np.unique(classes[classes >= 0])]
        held = np.sort(np.concatenate([rows[: round(_SHARE * len(rows))] for rows in of_class]))
        return np.setdiff1d(order, held), held

    def _train_copy(
        self, loss: Loss, rows: np.ndarray, learnt: Samples, progress: LineProgress, title: str
    ) -> tuple[Any, int]:
        """A copy of the student, trained by ``loss`` on ``learnt``, the samples of ``rows``; and its steps."""
        options, data = self._options, self._data
        samples, online_teacher = ask_teacher(self._model, loss, data.samples, self._teacher)
        if samples.teacher_logits is not None:
            learnt = learnt._replace(teacher_logits=samples.teacher_logits[rows])
        own, taken = (_steps(count, options.batch_size) for count in (data.count, len(rows)))
        epochs = self._epochs * own // taken if len(rows) > data.count // 2 else self._epochs
        trial = copy.deepcopy(self._model)
        trial.leave_epoch()
        last = options.initial_epoch + epochs
        told = LambdaCallback(
            on_epoch_begin=lambda epoch, logs: progress.show(f"{title}  epoch {epoch + 1}/{last}")
        )
        options = dataclasses.replace(
            options, epochs=last, verbose=0, callbacks=told if options.verbose else None, target_model=None
        )
        fit(
            trial,
            options,
            TrainingData(loss, learnt, len(rows), None, Tally(trial, [], True), online_teacher),
        )
        return trial, epochs * taken


def _steps(samples: int, batch_size: int) -> int:
    """Of an epoch."""
    return -(-samples // min(batch_size, samples))


def _classes(samples: Samples, task: Task) -> np.ndarray:
    """The class of each sample, -1 where it has no label. All numbers are one class, and so are several answers."""
    if task.name == "classification" and samples.targets is not None:
        return samples.targets.argmax(axis=1)
    if samples.targets is None:
        return samples.labels if samples.labels.size else np.full(len(samples.x), -1)
    known = samples.labels >= 0 if samples.labels.size else np.ones(len(samples.x), bool)
    is_one_answer = task.name == "binary" and samples.targets.shape[1] == 1
    return np.where(known, samples.targets[:, 0] > 0.5 if is_one_answer else 0, -1)


def _judge(model, samples: Samples, task: Task) -> tuple[np.ndarray, int | None]:
    """Each sample's squared distance of the answer from the label, weighted as in training; how many are wrong."""
    answers = task.answers(model, samples.x).astype(np.float64)
    if task.name == "classification":
        answers = softmax(answers)
    elif task.name == "binary":
        answers = 0.5 * (1 + np.tanh(answers / 2))  # the sigmoid, which cannot overflow so
    wanted = samples.targets
    if wanted is None:
        wanted = np.eye(answers.shape[1])[samples.labels]
    score = np.where(np.isfinite(answers), (answers - wanted) ** 2, np.inf).sum(axis=1)
    if samples.weight.size and samples.weight.any():
        score = score * (samples.weight / samples.weight.mean())
    if task.name == "regression":
        return score, None
    if task.name == "binary":
        return score, int(((answers > 0.5) != (wanted > 0.5)).sum())
    return score, int((answers.argmax(axis=1) != wanted.argmax(axis=1)).sum())


def choose(scores: list[np.ndarray]) -> int:
    """The candidate with the best mean score, if it beats the safe one by a standard error of the difference."""
    best = int(np.argmin([score.mean() for score in scores]))
    if best == 0 or not np.isfinite(scores[0]).all():
        return best
    gain = scores[0] - scores[best]
    return best if gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain)) else 0
