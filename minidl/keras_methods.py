"""Methods and arguments of Keras's models that say in other words what minidl's have: one line each, or a refusal."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from .archive import json_number
from .layers.chain import Symbol
from .layers.stack import Stack
from .training import trace
from .training.streams import Stream, is_stream, refuse_with_stream, windows
from .validation import check_bool, check_int, describe, known_names


class KerasMethods(Stack):
    """What a `Sequential` has besides, by its own ``evaluate``, ``predict`` and ``get_config``."""

    metrics: list
    optimizer: Any
    name: str

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict: bool = False):
        """``evaluate`` on one batch, without progress."""
        return self.evaluate(x, y, None, 0, sample_weight, return_dict)

    def predict_on_batch(self, x) -> np.ndarray:
        """``predict`` on one batch."""
        return self.predict(x)

    def trace(
        self, x, y=None, loss=None, teacher_logits=None, sample_weight=None, training: bool = False
    ) -> trace.Trace:
        """Each layer's input, output and gradients on one batch; the model stays as it is.

        The result has ``layers``, a `LayerTrace` each: ``name``, ``input``, ``output``, ``doutput``, ``dinput``, and by
        the parameters' names ``weights`` and ``gradients``. It has ``output``, ``logits``, ``dlogits``, ``loss`` and
        ``row_losses`` besides. All are copies. Where the loss is fused with the final softmax or sigmoid, the last
        layer's output is the logits.

        loss: a name or a loss; by default the one of ``compile``. teacher_logits (B, C): for a distilling loss.
        training: whether dropout, noise and batch statistics are on.
        Raises ValueError for arguments that do not fit, and for a class with a forward or backward of its own.
        """
        self.build_for(x)
        return self.turns.read(trace.trace, self, x, y, loss, teacher_logits, sample_weight, training)

    def predict_stream(self, x, batch_size: int | None, steps: int | None) -> np.ndarray:
        """``predict`` on an iterable of batches, one window after the other."""
        if not is_stream(x):
            raise ValueError(f"steps counts the batches of an iterable, but x is {describe(x)}")
        refuse_with_stream(batch_size=batch_size)
        stream = Stream("x", x, steps, "steps")
        stream.first()
        return np.concatenate([self.predict(window.x) for window in windows(stream)])

    @property
    def metrics_names(self) -> list[str]:
        """The names of what ``evaluate`` returns: "loss", then each metric's. Empty before ``compile``."""
        return [] if self.optimizer is None else ["loss", *(metric.name for metric in self.metrics)]

    def to_json(self, **kwargs) -> str:
        """The architecture as JSON text, for ``model_from_json``; ``kwargs`` go to ``json.dumps``."""
        config = {"class_name": type(self).__name__, "config": self.get_config()}
        return json.dumps(config, **{"default": json_number, **kwargs})

    @property
    def inputs(self) -> list[Symbol]:
        """A list of one `Symbol`: the input's shape (None, ...) and dtype. It has no numbers."""
        self.require_built("inputs")
        return [Symbol(self._input or self._layers[0], self.input_shape, self.dtype)]

    @property
    def outputs(self) -> list[Symbol]:
        """As ``inputs``, of the last layer's output."""
        self.require_built("outputs")
        return [Symbol(self._layers[-1], self.output_shape, self.dtype)]

    @property
    def input(self) -> Symbol:
        """The one of ``inputs``."""
        return self.inputs[0]

    @property
    def output(self) -> Symbol:
        """The one of ``outputs``."""
        return self.outputs[0]


class CompileOptions(TypedDict, total=False):
    """Arguments of Keras's ``compile`` besides those that `Sequential.compile` heeds."""

    loss_weights: Any
    weighted_metrics: Any
    run_eagerly: bool
    steps_per_execution: int
    jit_compile: bool | str | None
    auto_scale_loss: bool


def _refuse_unless(harmless: tuple, instead: str):
    """A check that takes the values which change nothing alone, and says what to write for others."""

    def check(name: str, value: object) -> None:
        if value not in harmless:
            raise ValueError(f"{name} must be left out, got {describe(value)}: {instead}")

    return check


_COMPILE_CHECKS = {
    "loss_weights": _refuse_unless(
        (None, 1, [1]),
        "a model has one loss; weights of samples and classes are fit's sample_weight and class_weight",
    ),
    "weighted_metrics": _refuse_unless(
        (None, [], ()), "no metric counts sample weights here; all go into metrics"
    ),
    "run_eagerly": check_bool,
    "steps_per_execution": functools.partial(check_int, minimum=1),
    "jit_compile": lambda name, value: value in ("auto", None) or check_bool(name, value),
    "auto_scale_loss": check_bool,
}


def check_compile_options(options: Mapping[str, Any]) -> None:
    """Check those that mean nothing here; refuse those that would change results."""
    for name, value in options.items():
        if name not in _COMPILE_CHECKS:
            known = known_names(name, ("optimizer", "loss", "metrics", *_COMPILE_CHECKS))
            raise TypeError(f"compile() got an unexpected keyword argument {name!r}: {known}")
        _COMPILE_CHECKS[name](name, value)
