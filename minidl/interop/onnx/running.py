"""ONNX files that onnxruntime runs: one input, one output, batches of any size."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from ...teachers import Teacher, as_teacher
from ...teachers.conversion import UNKNOWN
from ...validation import check_bool
from .. import import_extra
from .graphs import Graph, chosen_output

_OF_PROBABILITIES = {"Softmax": "softmax", "Sigmoid": "sigmoid"}
_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


class Runner:
    """A session of onnxruntime as a function ``x -> output`` of batches of any size.

    ``source`` is a path or a file's bytes, ``name`` what errors call it. A file with a fixed batch size is run in
    pieces of it. ``output`` names one of several outputs. ``threads`` 0: as many as there are cores.
    """

    def __init__(self, source: str | bytes, name: str, output: str | None = None, threads: int = 0):
        runtime, self._name = import_extra("onnxruntime", "onnx", "onnx"), name
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised, not printed
        try:
            self._session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of onnxruntime's own types, without a base of theirs
            raise ValueError(f"{name}: onnxruntime {runtime.__version__} does not run it: {error}") from error
        inputs, outputs = self._session.get_inputs(), [each.name for each in self._session.get_outputs()]
        if len(inputs) != 1:
            raise ValueError(f"{name}: must have one input, got {[each.name for each in inputs]}")
        if inputs[0].type not in _DTYPES:
            raise ValueError(
                f"{name}: input {inputs[0].name!r} must be of float or double, got {inputs[0].type}"
            )
        self._output = chosen_output(name, outputs, output)
        self._input, self._dtype = inputs[0].name, _DTYPES[inputs[0].type]
        batch = inputs[0].shape[0] if inputs[0].shape else None
        self._rows = batch if isinstance(batch, int) else None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, dtype=self._dtype)
        if self._rows is None or len(x) == self._rows:
            return self._run(x)
        pieces = []
        for start in range(0, len(x), self._rows):
            piece = x[start : start + self._rows]
            filled = np.concatenate([piece, np.zeros((self._rows - len(piece), *x.shape[1:]), x.dtype)])
            pieces.append(self._run(filled)[: len(piece)])
        return np.concatenate(pieces)

    def _run(self, x: np.ndarray) -> np.ndarray:
        try:
            return self._session.run([self._output], {self._input: x})[0]
        except Exception as error:
            raise ValueError(f"{self._name}: cannot take x of shape {x.shape}: {error}") from error


def onnx_teacher(
    path: str | os.PathLike | bytes, threads: int = 0, from_probs: bool = False, output: str | None = None
) -> Callable[[np.ndarray], np.ndarray] | Teacher:
    """An ONNX file (or its bytes) with one input, as a teacher: ``x -> logits``.

    A file that ends in Softmax or Sigmoid gives probabilities, and is refused by the name of that node unless
    ``from_probs`` is True: the logarithms of what it gives then teach, raised to 1e-7 first as by
    `minidl.teachers.as_teacher`. Logits are better, for they have no floor. ``output`` names one of several outputs;
    ``threads`` is the number that onnxruntime takes, 0 for all cores.
    """
    check_bool("from_probs", from_probs)
    graph = Graph(path, output)
    run = Runner(graph.source, graph.name, graph.output, threads)
    last = graph.last_node()
    activation = _OF_PROBABILITIES.get(last.op_type if last is not None else "", UNKNOWN)
    if activation != UNKNOWN and not from_probs:
        raise ValueError(
            f"{graph.name}: ends in {graph.describe(last)}, so it gives probabilities, and logits are wanted: export "
            "it without that node, or say onnx_teacher(path, from_probs=True)"
        )
    return as_teacher(run, from_probs=True, activation=activation) if from_probs else run
