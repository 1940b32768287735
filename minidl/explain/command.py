"""``python -m minidl explain``."""

from __future__ import annotations

import argparse

from .. import losses, optimizers
from ..activations import NAMES, ActivationFunction
from ..pages import wrap
from ..validation import check_float, check_int
from . import example
from .explanation import explain

_STEPS_OF_A_PAGE = 10
_DISTILLED = 0.1, 0.9
"""The weights of labels and teacher."""
_FURTHER = "Further: --optimizer adam, --steps 3, --distill, --html page.html; --help has them all."


def add_options(add) -> None:
    """``add``: `argparse.ArgumentParser.add_argument`."""
    add("--loss", default=None, help="by name; categorical_crossentropy if not given")
    add("--activation", default="relu", help=f"of the hidden units: {', '.join(NAMES)}")
    add("--optimizer", default="sgd", help=f"one of {', '.join(optimizers.OPTIMIZERS.names)}")
    add("--learning-rate", type=float, default=0.1, help="of the optimizer")
    add("--steps", type=int, default=None, help=f"so many; 1 if not given, on a page {_STEPS_OF_A_PAGE}")
    add("--distill", action="store_true", help="learn from a teacher, too, and see what temperatures do")
    add("--temperature", type=float, default=None, help="the one of --distill; 4 if not given")
    add("--html", metavar="FILE", default=None, help="write it as a page with sliders instead")


def run(options: argparse.Namespace) -> None:
    """What is wrong with an option is said before anything is computed."""
    loss = _loss_of(options)
    optimizer = optimizers.get(options.optimizer)
    rate = check_float("--learning-rate", options.learning_rate, minimum=0)
    optimizer = type(optimizer).from_config({**optimizer.get_config(), "learning_rate": rate})
    steps = options.steps
    if steps is None:
        steps = 1 if options.html is None else _STEPS_OF_A_PAGE
    steps = check_int("--steps", steps, minimum=1, maximum=100)
    ActivationFunction(options.activation)  # refuses another name
    # a page has its slider over temperatures for any loss of classes
    taught = loss.distills or (options.html is not None and loss.fused_activation == "softmax")
    found = explain(
        example.make_model(loss, options.activation),
        example.X,
        example.targets_for(loss),
        loss=loss,
        optimizer=optimizer,
        teacher_logits=example.TEACHER_LOGITS if taught else None,
        steps=steps,
        html=options.html,
    )
    if options.html is not None:
        print(f"written to {options.html}")
        return
    print(found.text())
    print(wrap(_FURTHER, found.width()))


def _loss_of(options: argparse.Namespace) -> losses.Loss:
    distills = options.distill or options.temperature is not None
    loss = losses.get_to_train(options.loss or ("categorical_crossentropy" if not distills else None))
    if not distills:
        return loss
    if loss is not None and not isinstance(loss, losses.KnowledgeDistillation):
        raise ValueError(f"--distill and --temperature have their own loss: leave out --loss {options.loss}")
    temperature = 4.0 if options.temperature is None else options.temperature
    hard, soft = _DISTILLED
    return losses.KnowledgeDistillation(temperature, hard_weight=hard, soft_weight=soft)
