"""The distillation loss alone, value and gradient, from (32, 10) to (64, 32000).

python -m benchmarks.distillation_loss [--quick]
"""

from __future__ import annotations

import functools
import sys

import numpy as np

from .harness import OURS, Case, Peer, Suite, Target, require_close
from .harness import main as run
from .trainers import HARD, SOFT, TEMPERATURE, jax_distillation, torch_distillation


def inputs(case: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits and teacher logits (B, C) float32, labels (B,) int64."""
    rng = np.random.default_rng(case["rows"] + case["classes"])
    shape = case["rows"], case["classes"]
    logits, teacher_logits = (3 * rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    return logits, rng.integers(0, case["classes"], case["rows"]), teacher_logits


def softmax(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(softmax, log-softmax) of rows, in the dtype of z."""
    z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    total = e.sum(axis=1, keepdims=True)
    return e / total, z - np.log(total)


def value_and_gradient(logits, y, teacher_logits):
    """``hard*CE + soft*T^2*KL`` and its gradient on the logits, means over the batch."""
    real = logits.dtype.type
    t, rows = real(TEMPERATURE), np.arange(len(y))
    q1, log_q1 = softmax(logits)
    q, log_q = softmax(logits / t)
    p, log_p = softmax(teacher_logits / t)
    value = -HARD * log_q1[rows, y].mean() + SOFT * TEMPERATURE**2 * (p * (log_p - log_q)).sum(axis=1).mean()
    q1[rows, y] -= 1
    return value, (real(HARD) * q1 + real(SOFT) * t * (q - p)) / real(len(y))


def verify(case: Case, peer: type, outputs) -> None:
    logits, y, teacher_logits = inputs(case.params)
    value, gradient = value_and_gradient(logits.astype(np.float64), y, teacher_logits.astype(np.float64))
    require_close([outputs[0]], [value], 1e-5, "the values")
    require_close([outputs[1]], [gradient], 1e-5, "the gradients")


class Loss(Peer):
    def prepare(self, case: dict) -> None:
        self.arrays = inputs(case)
        self.build()

    def build(self) -> None: ...

    def outputs(self):
        value, gradient = self.once()
        return float(value), np.asarray(gradient)

    def run(self, count: int) -> None:
        for _ in range(count):
            self.once()


class Minidl(Loss):
    def load(self) -> None:
        import minidl

        minidl.set_num_threads(self.threads)
        self.loss = minidl.losses.KnowledgeDistillation(
            temperature=TEMPERATURE, hard_weight=HARD, soft_weight=SOFT
        )

    def once(self):
        return self.loss.value_and_grad(*self.arrays)


class Numpy(Loss):
    def once(self):
        return value_and_gradient(*self.arrays)


class Torch(Loss):
    compiled = False

    def load(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.torch = torch

    def build(self) -> None:
        torch = self.torch
        self.logits, self.y, self.teacher_logits = (torch.from_numpy(a) for a in self.arrays)
        self.logits.requires_grad_()
        self.loss = functools.partial(torch_distillation, torch)
        if self.compiled:
            torch._dynamo.reset()
            self.loss = torch.compile(self.loss)

    def once(self):
        self.logits.grad = None
        value = self.loss(self.logits, self.y, self.teacher_logits)
        value.backward()
        return value, self.logits.grad


class TorchCompiled(Torch):
    compiled = True


class Jax(Loss):
    def load(self) -> None:
        import jax

        self.jax = jax

    def build(self) -> None:
        jax = self.jax
        self.on_device = [jax.numpy.asarray(a) for a in self.arrays]
        self.function = jax.jit(jax.value_and_grad(functools.partial(jax_distillation, jax)))

    def once(self):
        return self.jax.block_until_ready(self.function(*self.on_device))


PEERS = {OURS: Minidl, "numpy": Numpy, "torch-eager": Torch, "torch-compile": TorchCompiled, "jax": Jax}
SHAPES = ((32, 10), (128, 10), (1024, 10), (256, 1000), (64, 32000))


def _case(rows: int, classes: int) -> Case:
    # logits and teacher logits read, gradient written; no need of memory while they fit in the caches
    traffic = 12.0 * rows * classes
    return Case(
        f"({rows}, {classes})",
        {"rows": rows, "classes": classes},
        tuple(PEERS),
        bytes=traffic if traffic > 32e6 else 0.0,
        group="value and gradient",
    )


SUITE = Suite(
    name="distillation_loss",
    title="Distillation loss, value and gradient, float32",
    unit="call",
    module="benchmarks.distillation_loss",
    peers=PEERS,
    cases=[_case(*shape) for shape in SHAPES],
    verify=verify,
    quick=("(128, 10)", "(256, 1000)"),
    slice_seconds=0.1,
    budget_seconds=3.0,
    targets=[
        *(
            Target(f"{name}, to PyTorch eager", name, ("torch-eager",), bound)
            for name, bound in (("(128, 10)", 0.08), ("(256, 1000)", 0.15), ("(64, 32000)", 0.15))
        ),
        *(Target(f"({r}, {c}), to JAX", f"({r}, {c})", ("jax",), 1.0) for r, c in SHAPES),
    ],
    notes="(rows, classes); temperature 4, weights 0.1 and 0.9, teacher logits given. Verified: value and "
    "gradient against float64.",
)


def main(arguments: list[str] | None = None) -> int:
    return run(SUITE, arguments)


if __name__ == "__main__":
    sys.exit(main())
