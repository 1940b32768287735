"""What a teacher costs an epoch: none, its logits cached, the cache being filled, or run online.

    python -m benchmarks.logit_cache [--quick]

The teacher is a 784-1200-1200-10. Online, it answers for each batch as the student sees it, as it must where the
student augments its inputs; here the student's augmentation moves no pixel, so that all ways of asking the
teacher must end in the same student, and are not timed unless they do. PyTorch does the same both ways.
"""

from __future__ import annotations

import functools
import sys

import numpy as np

from .harness import OURS, Case, Suite, Target, Wrong, require_close
from .harness import main as run
from .report import best, duration
from .trainers import (
    HARD,
    SOFT,
    TEACHER,
    TEMPERATURE,
    TRAINERS,
    VERIFIED_STEPS,
    MinidlTrainer,
    initial_weights,
    minidl_net,
    reference,
)

SIDE = 28  # pixels, of images with 784
PLAIN, FILLING, ONLINE = f"{OURS}-plain", f"{OURS}-filling", f"{OURS}-online"
TORCH_CACHED, TORCH_ONLINE = "torch-fused", "torch-online"
EPSILON = 1e-4  # Adam's: of the gradient's own size, so that a factor lost in a loss would be seen


class Cached(MinidlTrainer):
    """The teacher's logits are an array."""

    def build(self, arrays) -> None:
        super().build(arrays)
        self.teacher_model = minidl_net(self.minidl, self.teacher)
        self.teacher_logits = self.teacher_model.predict_logits(self.x)

    def outputs(self) -> dict[str, list[np.ndarray]]:
        """The parameters after the first steps, in order, and after one more epoch, shuffled."""
        first = super().outputs()
        self.fit(1, self.x, self.y, self.teacher_logits, True)
        return {"first": first, "epoch": [np.array(array) for array in self.get()]}


class Plain(Cached):
    """Labels alone."""

    def build(self, arrays) -> None:
        MinidlTrainer.build(self, arrays)
        self.teacher_logits = None


class Filling(Cached):
    """The teacher is the model: each call of fit begins with asking it about every sample."""

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        for _ in range(epochs):
            super().fit(1, x, y, self.teacher_model, shuffle)


class Online(Cached):
    """The student augments its inputs, by shifts of 0 pixels: the teacher is asked about every batch."""

    def build(self, arrays) -> None:
        super().build(arrays)
        layers = self.minidl.layers

        def on_images(model, *first):
            dense = [type(layer).from_config(layer.get_config()) for layer in model.layers]
            made = self.minidl.Sequential(
                [layers.Input((SIDE, SIDE)), *first, layers.Flatten(), *dense], seed=model.seed
            )
            made.set_weights(model.get_weights())
            return made

        self.teacher_model = on_images(self.teacher_model)
        optimizer = self.model.optimizer
        self.model = on_images(self.model, layers.RandomTranslation(0.0, 0.0))
        fresh = type(optimizer).from_config(optimizer.get_config())
        self.model.compile(optimizer=fresh, loss="sparse_categorical_crossentropy")
        self.x = self.x.reshape(-1, SIDE, SIDE)

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        super().fit(epochs, x, y, self.teacher_model, shuffle)


PEERS = {
    OURS: Cached,
    PLAIN: Plain,
    FILLING: Filling,
    ONLINE: Online,
    TORCH_CACHED: TRAINERS[TORCH_CACHED],
    TORCH_ONLINE: TRAINERS[TORCH_ONLINE],
}
_students: dict[str, list[np.ndarray]] = {}  # of each case, after an epoch: whoever was verified first


def verify(case: Case, peer: type, outputs) -> None:
    """The first steps against float64; and, of minidl's, that every way of asking gives the same student."""
    ours = isinstance(outputs, dict)
    distilled = peer is not Plain
    start = initial_weights(case.params["sizes"])
    expected, margin = _reference(case.name, peer.corrected_epsilon, distilled)
    tolerance = 1e-3 if margin > 1e-5 else 3e-2  # a ReLU's input near 0 may fall on the other side in float32
    first = outputs["first"] if ours else outputs
    require_close(
        [np.asarray(w, np.float64) - s for w, s in zip(first, start, strict=True)],
        [e - s for e, s in zip(expected, start, strict=True)],
        tolerance,
        "the first updates",
    )
    if ours and distilled:
        student = _students.setdefault(case.name, outputs["epoch"])
        if not all(np.array_equal(a, b) for a, b in zip(student, outputs["epoch"], strict=True)):
            raise Wrong("this way of asking the teacher ends in another student")


@functools.lru_cache(maxsize=4)
def _reference(name: str, corrected_epsilon: bool, distilled: bool):
    params = next(c for c in CASES if c.name == name).params
    return reference({**params, "distilled": distilled}, corrected_epsilon)


def case(*sizes: int, batch: int, steps: int) -> Case:
    params = {"sizes": sizes, "batch": batch, "steps": steps, "distilled": True, "epsilon": EPSILON}
    name = f"{'-'.join(map(str, sizes))}, {batch * steps:,} samples, batch {batch}"
    return Case(name, params, tuple(PEERS), group="an epoch")


CASES = [case(784, 64, 64, 10, batch=32, steps=200), case(784, 256, 256, 10, batch=128, steps=50)]


def sections(results: dict) -> list[str]:
    """Each way at its best thread count, and how many epochs without a teacher it would pay for."""
    lines = ["## What the teacher costs", ""]
    lines += ["| case | no teacher | cached | filling the cache, then cached | online |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for record in results["cases"]:
        plain, cells = best(record, (PLAIN,)), []
        for name in (PLAIN, OURS, FILLING, ONLINE):
            found = best(record, (name,))
            ratio = f" ({found[0] / plain[0]:.2f})" if found and plain and name != PLAIN else ""
            cells.append(duration(found[0]) + ratio if found else "")
        lines.append(f"| {record['name']} | {' | '.join(cells)} |")
    return [*lines, "", "In parentheses the ratio to no teacher. The cache is filled once a training.", ""]


SUITE = Suite(
    name="logit_cache",
    title="An epoch of distillation: no teacher, cached, online",
    unit="training epoch",
    module="benchmarks.logit_cache",
    peers=PEERS,
    cases=CASES,
    verify=verify,
    quick=(CASES[0].name,),
    rounds=5,
    slice_seconds=0.1,
    budget_seconds=1.5,
    sections=sections,
    targets=[
        *(Target(f"{c.name}: cached, to no teacher", c.name, (PLAIN,), 1.10) for c in CASES),
        *(Target(f"{c.name}: cached, to PyTorch cached", c.name, (TORCH_CACHED,), 1.0) for c in CASES),
        *(
            Target(f"{c.name}: online, to PyTorch online", c.name, (TORCH_ONLINE,), 1.0, peer=ONLINE)
            for c in CASES
        ),
    ],
    notes=f"Teacher {'-'.join(map(str, TEACHER))}, temperature {TEMPERATURE:g}, weights {HARD} and {SOFT}, Adam, "
    "random float32 data, shuffled. minidl: logits cached; -plain: no teacher; -filling: the teacher is asked about "
    "every sample at the start of the epoch, as in the first of a training; -online: asked about every batch "
    f"(layer by layer). torch-fused: cached; torch-online. Verified: {VERIFIED_STEPS} steps against float64, and "
    "after an epoch the three distilled students of minidl are equal, bit for bit.",
)


def main(arguments: list[str] | None = None) -> int:
    return run(SUITE, arguments)


if __name__ == "__main__":
    sys.exit(main())
