"""The sections of the loss and of its gradient on the logits, with the formulas of the losses that have a story."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import numpy as np

from .. import losses
from ..activations import ActivationFunction
from ..training.objective import Objective, reduced, score_rows
from .document import Matrix, Section, Sum
from .step import Lesson, Step

_FRESH, _LARGER = 50, 3.0
"""So many untrained nets are asked for their loss."""


def loss_section(lesson: Lesson, step: Step) -> Section:
    if type(lesson.loss) is losses.KnowledgeDistillation and not lesson.loss.standardize:
        section = _of_distillation(lesson, step)
    elif is_plain_crossentropy(lesson.loss):
        section = _of_crossentropy(lesson, step)
    else:
        section = Section("Loss", f"{lesson.loss.name}: {_first_sentence(lesson.loss)}")
        section.add(
            Matrix("per sample", step.trace.row_losses, "what each sample adds, divided by B already")
        )
        section.add(f"loss = their sum = {step.trace.loss:.6f}")
    if step.number == 1:
        section.add(*_untrained(lesson))
    return section


def gradient_section(lesson: Lesson, step: Step) -> Section:
    trace, loss = step.trace, lesson.loss
    if type(loss) is losses.KnowledgeDistillation and not loss.standardize:
        return _gradient_of_distillation(lesson, step)
    on = "logits" if lesson.on_logits or loss.from_logits else "output"
    section = Section(f"Gradient on the {on}")
    if is_plain_crossentropy(loss):
        section.formula = "dlogits = (q - y) / B, each row sums to 0"
    if lesson.on_logits and (is_plain_crossentropy(loss) or loss.kind(False) != loss.kind(True)):
        _through_the_activation(lesson, step, section)
    note = "what comes out of the fused formula: the same" if section.parts else ""
    section.add(Matrix("dlogits" if on == "logits" else "doutput", trace.dlogits, note))
    return section


def is_plain_crossentropy(loss) -> bool:
    plain = losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy
    return type(loss) in plain and not loss.label_smoothing and loss.ignore_class is None and _is_mean(loss)


def _is_mean(loss) -> bool:
    return loss.reduction in ("sum_over_batch_size", "mean")


def _first_sentence(loss) -> str:
    text = inspect.getdoc(type(loss)) or ""
    return " ".join(text.split("\n\n")[0].replace("``", "").split()).split(". ")[0].rstrip(".")


def _of_crossentropy(lesson: Lesson, step: Step) -> Section:
    section = Section("Loss", "cross-entropy: -log q of the right class, mean over the batch")
    log_q = (lesson.targets * losses.log_softmax(step.trace.logits)).sum(axis=1)
    rows = len(log_q)
    shown = [f"{value:.6f}" for value in log_q[:6]] + ["..."] * (rows > 6)
    section.add(Sum(f"loss = -({' + '.join(shown)}) / {rows} = {step.trace.loss:.6f}"))
    return section


def _of_distillation(lesson: Lesson, step: Step) -> Section:
    loss, z, v = lesson.loss, step.trace.logits, lesson.batch.teacher_logits
    t, a, b = loss.temperature, loss.hard_weight, loss.soft_weight
    p_t, log_q_t = losses.softmax(v, t), losses.log_softmax(z, t)
    kl = float((p_t * (losses.log_softmax(v, t) - log_q_t)).sum(axis=1).mean())
    section = Section("Loss", f"{a:g} CE(y, q) + {b:g} T^2 KL(p_T || q_T), with temperature T = {t:g}")
    section.add(
        Matrix("v", v, "the teacher's logits"),
        Matrix("p_T", p_t, "softmax(v / T): the teacher's answer, softened"),
        Matrix("q_T", np.exp(log_q_t), "softmax(logits / T): the student's answer, softened in the same way"),
    )
    hard = 0.0
    if lesson.targets is not None:
        hard = float(-(lesson.targets * losses.log_softmax(z)).sum(axis=1).mean())
    section.add(
        f"CE = {hard:.6f}, KL = sum of p_T log(p_T / q_T), mean over the batch = {kl:.6f}",
        Sum(f"hard term = {a:g} * {hard:.6f} = {a * hard:.6f}"),
        Sum(f"soft term = {b:g} * {t:g}^2 * {kl:.6f} = {b * t * t * kl:.6f}"),
        Sum(f"loss = {a * hard:.6f} + {b * t * t * kl:.6f} = {step.trace.loss:.6f}"),
    )
    if step.number == 1:
        section.add(
            "Why T^2: the gradient of KL on the logits is (q_T - p_T) / T. This 1/T is the chain rule, at any T. "
            "Once the logits are small beside T, q_T - p_T shrinks like 1/T too. T^2 undoes both, so the weights "
            f"{a:g} and {b:g} keep their meaning roughly, but not exactly at every T."
        )
    return section


def _gradient_of_distillation(lesson: Lesson, step: Step) -> Section:
    loss, z, v = lesson.loss, step.trace.logits, lesson.batch.teacher_logits
    t, rows = loss.temperature, len(z)
    section = Section(
        "Gradient on the logits",
        f"dlogits = [{loss.hard_weight:g} (q - y) + {loss.soft_weight:g} T (q_T - p_T)] / B, rows sum to 0. "
        "One T of T^2 is left: the other met the chain rule's 1/T.",
    )
    if lesson.targets is not None:
        section.add(Matrix("hard part", loss.hard_weight * (losses.softmax(z) - lesson.targets) / rows))
    soft = loss.soft_weight * t * (losses.softmax(z, t) - losses.softmax(v, t)) / rows
    section.add(Matrix("soft part", soft), Matrix("dlogits", step.trace.dlogits, "their sum"))
    return section


def _through_the_activation(lesson: Lesson, step: Step, section: Section) -> None:
    """dL/dq, and what the final activation's backward makes of it: the way that the fused formula spares."""
    name = lesson.model.final_activation
    logits = step.trace.logits
    activation = ActivationFunction(name)
    q = activation.forward(logits)
    if is_plain_crossentropy(lesson.loss):
        dq, note = (
            -lesson.targets / (q * len(q)),
            "-y / (q B): the slope of -log q, for the right class alone",
        )
    else:
        objective = Objective(lesson.loss.kind(False), lesson.loss.hyper, False)
        batch = reduced(lesson.loss, objective, lesson.batch)
        dq, note = score_rows(lesson.loss, objective, q, batch, len(q), True)[1], "the loss's slope by q"
    section.add(Matrix("d = dL/dq", dq, note))
    if name == "softmax":
        section.add(
            Matrix("sum(d q)", (dq * q).sum(axis=1, keepdims=True), "of each row"),
            Matrix("d - sum(d q)", dq - (dq * q).sum(axis=1, keepdims=True)),
        )
        formula = "q (d - sum(d q)): back through softmax, whose outputs share one sum"
    else:
        formula = "q (1 - q) d: back through the sigmoid"
    section.add(Matrix("through it", activation.backward(dq, q, logits), formula))
    if is_plain_crossentropy(lesson.loss):
        section.add(
            "Why: d q = -y / B, and its sum over a row is -1/B. So q (d - sum(d q)) = -y/B + q/B = (q - y) / B."
        )


def _untrained(lesson: Lesson) -> list:
    """What a loss of classes is before anything is learned."""
    model, loss = lesson.model, lesson.loss
    outputs = math.prod(model.output_shape)
    if is_plain_crossentropy(loss):
        known, guess = f"ln C = ln {outputs}", float(np.log(outputs))
        why = f"A net that knows nothing gives each of C = {outputs} classes q = 1/C, and its loss is"
    elif type(loss) is losses.BinaryCrossentropy and not loss.label_smoothing and _is_mean(loss):
        known, guess, why = "ln 2", float(np.log(2)), "A net that knows nothing answers 1/2, and its loss is"
    else:
        return []
    fresh, larger = _fresh_losses(lesson, 1.0, _LARGER)
    return [
        f"{why} {known} = {guess:.4f}. Fresh weights give logits that are not all 0, which costs a little: "
        f"{_FRESH} nets like this one with fresh weights have {np.mean(fresh):.3f} on the mean ({min(fresh):.2f} to "
        f"{max(fresh):.2f}). Larger inputs make larger logits and cost more: {np.mean(larger):.3f} with x {_LARGER:g} "
        "times as large."
    ]


def _fresh_losses(lesson: Lesson, *scales: float) -> list[list[float]]:
    """For each scale of the inputs, the losses of nets like this one with weights of their own."""
    model = lesson.model
    batches = [lesson.batch._replace(x=lesson.batch.x * scale) for scale in scales]
    found: list[list[float]] = [[] for _ in scales]
    kept = model.params.copy()
    own = {type(layer).__name__: type(layer) for layer in model.layers}
    for seed in range(_FRESH):
        fresh = type(model).from_config({**model.get_config(), "seed": seed}, own)
        for at, size in model.learning_segments:
            model.params[at : at + size] = fresh.params[at : at + size]
        for losses_of_scale, batch in zip(found, batches, strict=True):
            losses_of_scale.append(replace(lesson, batch=batch).loss_now())
    model.params[...] = kept
    return found
