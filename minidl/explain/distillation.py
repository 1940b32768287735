"""What a temperature does: the teacher's softened answers, the norm of the soft term's gradient, and why T squared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import losses
from ..validation import check_rows, check_targets
from .document import Matrix, Section, Table, number
from .step import Lesson

TEMPERATURES = 1.0, 2.0, 4.0, 20.0
_LIMITS = 1.0, 4.0, 20.0, 100.0, 1000.0
_ROWS, _CLASSES = 200, 10


class Softened(NamedTuple):
    """Teacher and student at one temperature."""

    temperature: float
    teacher: np.ndarray  # p_T (B, C)
    student: np.ndarray  # q_T (B, C)
    kl: float
    norm: float
    """Of the gradient of T^2 KL on the student's logits."""

    @property
    def norm_without(self) -> float:
        """Of the gradient of KL."""
        return self.norm / self.temperature**2


class Study(NamedTuple):
    """A student's logits, a teacher's, and the labels as rows, (B, C) each."""

    student: np.ndarray
    teacher: np.ndarray
    targets: np.ndarray | None

    def at(self, temperature: float) -> Softened:
        """From the engine's loss with the soft term alone."""
        loss = losses.KnowledgeDistillation(temperature, hard_weight=0.0, soft_weight=1.0)
        value, dlogits = loss.value_and_grad(self.student, None, self.teacher)
        return Softened(
            temperature,
            losses.softmax(self.teacher, temperature),
            losses.softmax(self.student, temperature),
            value / temperature**2,
            float(np.linalg.norm(dlogits)),
        )


def make_study(lesson: Lesson, teacher_logits) -> Study | None:
    """None where answers have no temperature: a regression, or questions of yes and no, with a teacher of their own.

    Raises ValueError for a teacher that nothing is made of.
    """
    if lesson.loss.fused_activation != "softmax":
        if lesson.loss.distills:
            return None
        raise ValueError(
            f"teacher_logits are for a loss of classes or one that distils, and loss {lesson.loss.name} is neither"
        )
    checked = losses.check_logits("teacher_logits", np.asarray(teacher_logits))
    teacher = np.asarray(
        check_targets(checked, lesson.model.output_shape, argument="teacher_logits"), np.float64
    )
    check_rows("teacher_logits", len(teacher), len(lesson.batch.x))
    student = lesson.model.forward(lesson.batch.x, logits=True)
    return Study(np.array(student, np.float64), teacher, lesson.targets)


def study_sections(study: Study) -> list[Section]:
    return [_softened(study), _dark_knowledge(study), _why_t_squared(study), _the_limit(study)]


def norms_table(study: Study, temperatures=TEMPERATURES) -> Table:
    """The norm of the gradient at each temperature, without and with T squared, and its part of that at the first."""
    found = [study.at(t) for t in temperatures]
    base = found[0].norm
    rows = [
        [
            f"{at.temperature:g}",
            number(at.norm_without),
            f"{at.norm_without / base:.3g}",
            number(at.norm),
            f"{at.norm / base:.3g}",
        ]
        for at in found
    ]
    return Table(["T", "norm without T^2", "relative", "norm with T^2", "relative"], rows)


def _softened(study: Study) -> Section:
    section = Section(
        "Temperature: the teacher's answer, softened", "p_T = softmax(v / T), v the teacher's logits"
    )
    section.add(Matrix("v", study.teacher, "the teacher's logits"))
    for t in TEMPERATURES:
        section.add(Matrix(f"p_T, T = {t:g}", study.at(t).teacher))
    section.add(
        "The norm of the soft term's gradient on the student's logits, for this teacher and this student; "
        "relative is to the norm at T = 1:"
    )
    section.add(norms_table(study))
    return section


def _dark_knowledge(study: Study) -> Section:
    section = Section(
        "Dark knowledge: what the teacher says and the label does not",
        "how likely the wrong classes are beside each other",
    )
    rows = []
    for row, v in enumerate(study.teacher[:3]):
        right = int((v if study.targets is None else study.targets[row]).argmax())
        others = [place for place in np.argsort(-v) if place != right]
        if len(others) > 1:
            rows.append(_told(study, row, right, others[0], others[-1]))
    if rows:
        section.add(*rows)
        section.add(
            "The order of the classes is the same at every T. But at T = 1 the small probabilities hardly count in "
            "KL; a higher T raises them until they do. The ratio of two classes is exp((v_i - v_j) / T)."
        )
    else:
        section.add("With two classes there is one wrong class, so the teacher only says how sure it is.")
    return section


def _told(study: Study, row: int, right: int, near: int, far: int) -> str:
    said = []
    for t in (1.0, 4.0):
        p = losses.softmax(study.teacher[row : row + 1], t)[0]
        bits = float(-(p * np.log2(np.maximum(p, 1e-300))).sum())
        said.append(
            f"at T = {t:g}: {p[right]:.3f} for it, {p[near]:.3f} for class {near} and {p[far]:.3f} for class {far}, "
            f"so class {near} is {number(p[near] / p[far])} times as likely as class {far} ({bits:.2f} bits of "
            "uncertainty)"
        )
    return f"Sample {row}: the label says class {right}, and nothing of the others. The teacher says {'; '.join(said)}."


def _cases() -> dict[str, Study]:
    """Made-up logits of 10 classes, from a fixed seed."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, _CLASSES, _ROWS)
    right = np.eye(_CLASSES)[labels]
    confident = 5.0 * rng.normal(size=right.shape) + 15.0 * right
    untrained = 0.3 * rng.normal(size=right.shape)
    begun = 0.2 * confident + 1.0 * rng.normal(size=right.shape)
    small = 0.1 * rng.normal(size=(2, *right.shape))
    return {
        "A confident teacher, an untrained student": Study(untrained, confident, right),
        "The same teacher, a student that has begun to learn": Study(begun, confident, right),
        "Small logits on both sides, of deviation 0.1": Study(*small, right),
    }


def _why_t_squared(study: Study) -> Section:
    section = Section("Why T squared, exactly", "dKL/dlogits = (q_T - p_T) / (T B)")
    section.add(
        "One 1/T is the chain rule: KL sees logits / T. It is exact, at any T and for any logits. The second 1/T hides "
        "in q_T - p_T, and appears only once the logits are small beside T: then softmax is nearly linear, and "
        "q_T - p_T is nearly the difference of the centred logits / (C T). So T^2 undoes both for small logits, where "
        "the norm then is the same at every T. Of a teacher that is sure at T = 1, with a lead L, C classes and a "
        "student of equal logits, the norm with T^2 tends to about L / C of that at T = 1: of 10 classes a lead of "
        "12 ends above 1, one of 6 below. At T = 4 it is 2.6 for a lead of 12, 1.06 for 6, and 0.61 for 3. For the "
        "confident teacher here the norm with T^2 first grows with T, and the norm without does not fall to "
        "1/16 at T = 4, nor to "
        "1/400 at T = 20.",
        f"Norms of the soft term's gradient for {_ROWS} made-up samples of {_CLASSES} classes:",
    )
    for name, case in _cases().items():
        section.add(f"{name}:", norms_table(case))
    return section


def _the_limit(study: Study) -> Section:
    section = Section(
        "The limit of high temperatures: matching logits",
        "T (q_T - p_T) / B -> (z~ - v~) / (C B) as T grows, z~ and v~ being the logits with their row's mean taken off",
    )
    matched = losses.LogitMatching(hard_weight=0.0, soft_weight=0.5)
    value, limit = matched.value_and_grad(study.student, None, study.teacher)
    rows = []
    for t in _LIMITS:
        loss = losses.KnowledgeDistillation(t, hard_weight=0.0, soft_weight=1.0)
        soft, dlogits = loss.value_and_grad(study.student, None, study.teacher)
        apart = np.linalg.norm(dlogits - limit) / max(np.linalg.norm(limit), 1e-300)
        rows.append([f"{t:g}", number(soft), number(float(np.linalg.norm(dlogits))), f"{apart:.2%}"])
    rows.append(["logit matching", number(value), number(float(np.linalg.norm(limit))), ""])
    section.add(
        Table(["T", "T^2 KL", "norm of gradient", "apart"], rows),
        "Logit matching is half the mean squared difference of the centred logits. It counts each class alike, also "
        "the very unlikely ones, of which a teacher knows little; a lower T leaves these out.",
    )
    return section
