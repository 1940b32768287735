"""What one training step costs: forward, backward, Adam, the batch drawn from shuffled data.

    python -m benchmarks.train_step [--quick]

Widths 16 to 2048 and batches 1 to 1024, plain and distilled, by hand-written NumPy, scikit-learn, PyTorch,
JAX and Keras, and by C on libxsmm. Epochs are timed, not single calls: what a library spends between its steps counts.
"""

from __future__ import annotations

import functools
import sys

import numpy as np

from .harness import OURS, Case, Suite, Target, require_close
from .harness import main as run
from .trainers import TRAINERS, initial_weights, reference
from .xsmm import XsmmTrainer

C = "c-libxsmm"
PEERS = {**TRAINERS, C: XsmmTrainer}
# Adam hardly notices a gradient scaled by a constant, so a factor lost in a loss would verify; with an
# epsilon of the gradient's own size it shows. The time does not depend on it.
EPSILON = 1e-4

PLAIN = (
    OURS,
    "numpy",
    "sklearn",
    "torch-eager",
    "torch-fused",
    "torch-compile",
    "jax-step",
    "jax-scan",
    "keras-jax",
    "keras-torch",
    C,
)
DISTILLED = (OURS, "numpy", "torch-fused", "torch-eager", "jax-scan", "torch-online", "keras-distiller")
DISTILLED_SWEEP = (OURS, "numpy", "torch-fused", "jax-scan")
SWEEP = (*DISTILLED_SWEEP, C)
DEAD_UNITS = (OURS, "torch-fused", "jax-scan", C)
CACHED_TORCH = ("torch-fused", "torch-eager")


def verify(case: Case, peer: type, outputs: list[np.ndarray]) -> None:
    """The steps taken, not the parameters reached: those hardly differ from where they started.

    Where some ReLU's input is so near 0 that float32 may put it on the other side, its unit's gradient may
    differ by that one sample, and the tolerance allows for it.
    """
    start = initial_weights(case.params["sizes"])
    expected, margin = _reference(case.name, peer.corrected_epsilon)
    moved = [np.asarray(o, np.float64) - s for o, s in zip(outputs, start, strict=True)]
    tolerance = 1e-3 if margin > 1e-5 else 3e-2
    require_close(
        moved, [e - s for e, s in zip(expected, start, strict=True)], tolerance, "the first updates"
    )


@functools.lru_cache(maxsize=2)
def _reference(name: str, corrected_epsilon: bool):
    return reference(next(c for c in CASES if c.name == name).params, corrected_epsilon)


def flops(sizes, batch: int) -> float:
    """Multiply-adds of forward, weight gradients and input gradients (none for the data), two each."""
    products = [i * o for i, o in zip(sizes, sizes[1:], strict=False)]
    return 2.0 * batch * (3 * sum(products) - products[0])


def case(
    name: str, sizes, batch: int, group: str, peers=SWEEP, distilled=False, fresh=False, **extra
) -> Case:
    work = flops(sizes, batch)
    steps = (
        int(min(2000, max(24, 4e9 / work, 256 / batch), 16000 / batch))
        if "steps" not in extra
        else extra["steps"]
    )
    steps = max(steps, 8)
    parameters = sum((i + 1) * o for i, o in zip(sizes, sizes[1:], strict=False))
    # Adam reads and writes weights and both moments; nets that fit in the caches need no memory for them
    traffic = 24.0 * parameters if 12 * parameters > 32e6 else 0.0
    params = {
        "sizes": list(sizes),
        "batch": batch,
        "distilled": distilled,
        "epsilon": EPSILON,
        **extra,
        "steps": steps,
    }
    return Case(name, params, peers, work, traffic, units=steps, group=group, fresh=fresh)


SMALL, BIG = (784, 64, 64, 10), (784, 1200, 1200, 10)
HEALTHY, DEAD = "small net healthy, 1500 steps", "small net half dead, 1500 steps"
CASES = [
    case("small net, batch 32", SMALL, 32, "small net (784-64-64-10)", PLAIN, fresh=True),
    case(
        "small net distilled, batch 32",
        SMALL,
        32,
        "small net (784-64-64-10)",
        DISTILLED,
        distilled=True,
        steps=200,
    ),
    case("big net, batch 128", BIG, 128, "big net (784-1200-1200-10)", PLAIN, fresh=True),
    case(
        "big net distilled, batch 128",
        BIG,
        128,
        "big net (784-1200-1200-10)",
        DISTILLED_SWEEP,
        distilled=True,
        steps=24,
    ),
    *(
        case(f"{'-'.join(map(str, sizes))}, batch 16", sizes, 16, "tiny nets, batch 16")
        for sizes in ((4, 16, 3), (20, 32, 10))
    ),
    *(
        case(f"784-{w}-{w}-10, batch 64", (784, w, w, 10), 64, "width, batch 64")
        for w in (16, 64, 256, 1024, 2048)
    ),
    *(
        case(f"784-256-256-10, batch {b}", (784, 256, 256, 10), b, "batch, 784-256-256-10")
        for b in (1, 8, 32, 128, 1024)
    ),
    case(HEALTHY, SMALL, 8, "dead units", DEAD_UNITS, steps=1500),
    case(DEAD, SMALL, 8, "dead units", DEAD_UNITS, steps=1500, dead=0.5),
]

TARGETS = [
    Target(
        "small net, one thread, to JAX in lax.scan on one",
        CASES[0].name,
        ("jax-scan",),
        0.40,
        threads=1,
        against_threads=1,
    ),
    Target(
        "small net, one thread, to the arithmetic limit",
        CASES[0].name,
        ("limit",),
        2.0,
        threads=1,
        against_threads=1,
    ),
    Target(
        "small net, two threads, to JAX at its best", CASES[0].name, ("jax-scan", "jax-step"), 0.28, threads=2
    ),
    Target(
        "small net distilled, to plain, one thread",
        CASES[1].name,
        (OURS,),
        1.10,
        threads=1,
        against_threads=1,
        against_case=CASES[0].name,
    ),
    Target("small net distilled, to PyTorch with cached logits", CASES[1].name, CACHED_TORCH, 0.10),
    Target(
        "big net, two threads, to the best of JAX and PyTorch",
        CASES[2].name,
        ("jax-scan", "jax-step", "torch-eager", "torch-fused", "torch-compile"),
        0.85,
        threads=2,
    ),
    Target(
        "20-32-10, batch 16, one thread, to C on libxsmm",
        "20-32-10, batch 16",
        (C,),
        1.30,
        threads=1,
        against_threads=1,
    ),
    Target("big net, two threads to one", CASES[2].name, (OURS,), 1 / 1.7, threads=2, against_threads=1),
    Target(
        "half the units dead, to healthy, one thread",
        DEAD,
        (OURS,),
        1.15,
        threads=1,
        against_threads=1,
        against_case=HEALTHY,
    ),
]
SUITE = Suite(
    name="train_step",
    title="A training step: forward, backward, Adam",
    unit="step",
    module="benchmarks.train_step",
    peers=PEERS,
    cases=CASES,
    verify=verify,
    quick=("small net, batch 32",),
    targets=TARGETS,
    rounds=5,
    slice_seconds=0.25,
    budget_seconds=2.0,
    notes="ReLU nets on random float32 data, cross-entropy, Adam; an epoch of shuffled batches a call. "
    "Verified: the first three updates against float64. Distilled: temperature 4, weights 0.1 and 0.9; "
    "teacher logits cached, except torch-online and keras-distiller, which run the 784-1200-1200-10 teacher "
    "in every step. torch-eager, -fused, -compile: plain, fused Adam, compiled loss with fused Adam. "
    "jax-step: one jitted step a call; jax-scan: a whole epoch in lax.scan. c-libxsmm: a whole epoch in C, written "
    "for it (train_step_xsmm.c), its matrix products by libxsmm.",
)


def main(arguments: list[str] | None = None) -> int:
    return run(SUITE, arguments)


if __name__ == "__main__":
    sys.exit(main())
