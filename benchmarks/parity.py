"""Does minidl compute what Keras 3 and PyTorch compute?

    python -m benchmarks.parity            compare; exit code 1 where a tolerance is exceeded
    python -m benchmarks.parity --write    and keep their numbers in tests/golden/parity.npz and metrics.json

Keras trains every case of ``tests/parity_cases.py``: three epochs on 2,000 digits, the same initial
weights, the same order; the losses must agree within 1e-4 relative. PyTorch's autograd, in float64,
differentiates the losses, distillation included; values and gradients must agree within 1e-5, and so must the
metrics of ``tests/metric_cases.py`` with Keras's. The written files let ``tests/test_parity.py`` and
``tests/test_metric_parity.py`` repeat the comparison where neither is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "parity.npz"
GOLDEN_METRICS = GOLDEN.with_name("metrics.json")
sys.path.insert(0, str(ROOT / "tests"))

import metric_cases  # noqa: E402
import parity_cases as cases  # noqa: E402


def load_keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    return keras


def load_minidl():
    import minidl
    import minidl.constraints
    import minidl.layers
    import minidl.losses
    import minidl.models
    import minidl.optimizers
    import minidl.regularizers

    return minidl


# ---- PyTorch's side, written from the formulas


def torch_loss(torch, name: str, logits, labels, teacher_logits, weight):
    """A case of ``cases.LOSSES``: the sum of weighted per-sample losses divided by the batch size.

    DIST correlates over the whole batch, and so is no sum of that kind; the other distillation losses are.
    """
    nn = torch.nn.functional
    class_name, settings = cases.LOSSES[name]
    y = nn.one_hot(labels, 10).to(logits.dtype)
    if class_name in ("CategoricalCrossentropy", "SparseCategoricalCrossentropy"):
        smoothing = settings.get("label_smoothing", 0.0)
        rows = nn.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    elif class_name == "BinaryCrossentropy":
        rows = nn.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(1)
    elif class_name == "MeanSquaredError":
        rows = nn.mse_loss(logits, y, reduction="none").mean(1)
    elif class_name == "MeanAbsoluteError":
        rows = nn.l1_loss(logits, y, reduction="none").mean(1)
    elif class_name == "HalfMeanSquaredError":
        rows = nn.mse_loss(logits, y, reduction="none").sum(1) / 2
    elif class_name == "Huber":
        rows = nn.huber_loss(logits, y, reduction="none", delta=settings["delta"]).mean(1)
    elif class_name == "DIST":
        return torch_dist(torch, logits, y, teacher_logits, weight, **settings)
    else:
        of_samples = {
            "KnowledgeDistillation": torch_distillation,
            "DecoupledKD": torch_decoupled,
            "NormalizedKD": torch_normalized,
            "LogitMatching": torch_logit_matching,
        }[class_name]
        rows = of_samples(torch, logits, y, teacher_logits, **settings)
    return (rows * weight).sum() / len(logits)


def torch_hard(torch, logits, y):
    """Cross-entropy of each sample with rows y."""
    return -(y * torch.nn.functional.log_softmax(logits, 1)).sum(1)


def torch_distillation(
    torch, logits, y, teacher_logits, temperature=4.0, hard_weight=0.1, soft_weight=0.9, standardize=False
):
    """Hinton's loss of each sample; with ``standardize`` of logits as in Sun et al. (CVPR 2024)."""
    nn = torch.nn.functional
    hard = torch_hard(torch, logits, y)
    if standardize:
        logits, teacher_logits = (
            (z - z.mean(1, keepdim=True)) / (z.std(1, correction=1, keepdim=True) + 1e-7)
            for z in (logits, teacher_logits)
        )
    student = nn.log_softmax(logits / temperature, 1)
    teacher = nn.log_softmax(teacher_logits / temperature, 1)
    soft = nn.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return hard_weight * hard + soft_weight * temperature**2 * soft


def torch_others(z, y):
    """(B, C - 1): each row without its labelled class."""
    return z[y == 0].reshape(len(z), -1)


def torch_decoupled(
    torch,
    logits,
    y,
    teacher_logits,
    temperature=4.0,
    target_weight=1.0,
    nontarget_weight=8.0,
    hard_weight=1.0,
):
    """Zhao et al. (CVPR 2022), equation 7: the binary KL of the target, and the KL among the others."""
    nn = torch.nn.functional
    q_t, p_t = ((y * nn.softmax(z / temperature, 1)).sum(1) for z in (logits, teacher_logits))
    student, teacher = (torch.stack([t, 1 - t], 1) for t in (q_t, p_t))
    target = nn.kl_div(student.log(), teacher, reduction="none").sum(1)
    student, teacher = (nn.log_softmax(torch_others(z, y) / temperature, 1) for z in (logits, teacher_logits))
    others = nn.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    soft = temperature**2 * (target_weight * target + nontarget_weight * others)
    return hard_weight * torch_hard(torch, logits, y) + soft


def torch_normalized(
    torch, logits, y, teacher_logits, temperature=1.0, gamma=1.5, target_weight=1.0, hard_weight=1.0
):
    """Yang et al. (ICCV 2023), equation 9: the soft target at T = 1, and the others normalised."""
    nn = torch.nn.functional
    hard = torch_hard(torch, logits, y)
    target = (y * nn.softmax(teacher_logits, 1)).sum(1) * hard
    student, teacher = (torch_others(z, y) / temperature for z in (logits, teacher_logits))
    others = -(nn.softmax(teacher, 1) * nn.log_softmax(student, 1)).sum(1)
    return hard_weight * hard + target_weight * target + gamma * temperature**2 * others


def torch_logit_matching(torch, logits, y, teacher_logits, hard_weight=0.0, soft_weight=1.0):
    """Ba and Caruana (2014), on centred logits."""
    student, teacher = (z - z.mean(1, keepdim=True) for z in (logits, teacher_logits))
    soft = torch.nn.functional.mse_loss(student, teacher, reduction="none").mean(1)
    return hard_weight * torch_hard(torch, logits, y) + soft_weight * soft


def torch_pearson(torch, a, b, weight):
    """Pearson's correlation of the rows of a with those of b, their entries weighted."""
    weight = weight * (weight.numel() / weight.sum())
    a, b = (z - (weight * z).mean(1, keepdim=True) for z in (a, b))
    norms = [(weight * z * z).sum(1).sqrt() for z in (a, b)]
    return (weight * a * b).sum(1) / (norms[0] * norms[1] + 1e-8)


def torch_dist(
    torch, logits, y, teacher_logits, weight, temperature=1.0, beta=1.0, gamma=1.0, hard_weight=1.0
):
    """Huang et al. (NeurIPS 2022), equations 8 to 10; a sample of weight 2 counts as two."""
    q, p = (torch.softmax(z / temperature, 1) for z in (logits, teacher_logits))
    along_classes = 1 - torch_pearson(torch, q, p, torch.ones_like(q[0]))
    along_samples = 1 - torch_pearson(torch, q.T, p.T, weight).mean()
    rows = hard_weight * torch_hard(torch, logits, y) + beta * temperature**2 * along_classes
    return (weight * rows).sum() / len(q) + gamma * temperature**2 * along_samples * weight.mean()


def torch_value_and_gradient(name: str, weighted: bool) -> tuple[float, np.ndarray]:
    import torch

    given = cases.loss_inputs()
    logits = torch.tensor(given["logits"], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(given["labels"], dtype=torch.int64)
    teacher = torch.tensor(given["teacher_logits"], dtype=torch.float64)
    weight = torch.tensor(given["weight"] if weighted else np.ones(len(labels)), dtype=torch.float64)
    value = torch_loss(torch, name, logits, labels, teacher, weight)
    value.backward()
    return float(value.detach()), logits.grad.numpy()


def torch_distilled() -> dict[str, np.ndarray]:
    """A student taught by a teacher, with torch.optim.SGD: the twin of ``cases.distilled``."""
    import torch

    def run(parameters, x):
        for index in range(0, len(parameters), 2):
            x = x @ parameters[index] + parameters[index + 1]
            x = torch.relu(x) if index < len(parameters) - 2 else x
        return x

    x, y, _, _ = (torch.tensor(part) for part in cases.digits())
    y = torch.nn.functional.one_hot(y, 10).to(torch.float32)
    teacher_logits = run([torch.tensor(weight) for weight in cases.teacher_weights()], x)
    parameters = [
        torch.nn.Parameter(torch.tensor(weight)) for weight in cases.initial_weights(cases.STUDENT_SIZES)
    ]
    settings = cases.DISTILLATION_SGD
    optimizer = torch.optim.SGD(parameters, lr=settings["learning_rate"], momentum=settings["momentum"])
    gradient, losses = None, []
    for _ in range(cases.EPOCHS):
        total = 0.0
        for first in range(0, len(x), cases.BATCH_SIZE):
            rows = slice(first, first + cases.BATCH_SIZE)
            loss = torch_distillation(
                torch, run(parameters, x[rows]), y[rows], teacher_logits[rows], **cases.DISTILLATION
            )
            optimizer.zero_grad()
            loss.mean().backward()
            if gradient is None:
                gradient = torch.cat([parameter.grad.ravel() for parameter in parameters]).numpy().copy()
            optimizer.step()
            total += float(loss.detach().sum())
        losses.append(total / len(x))
    return {
        "gradient": gradient[-cases.KEPT :],
        "loss": np.array(losses),
        "head": parameters[-2].detach().numpy(),
    }


# ---- the comparison


class Report:
    """Prints one line a comparison and remembers whether all were within their tolerances."""

    def __init__(self):
        self.failed: list[str] = []

    def line(self, name: str, difference: float, tolerance: float, more: str = "") -> None:
        good = difference <= tolerance
        if not good:
            self.failed.append(name)
        print(
            f"{'ok ' if good else 'BAD'}  {name:40s} {difference:9.1e}  (limit {tolerance:.0e}) {more}",
            flush=True,
        )


def compare_training(report: Report, kept: dict) -> None:
    keras, minidl = load_keras(), load_minidl()
    backend = keras.backend.backend()
    print(f"\nTraining, relative difference of the losses to Keras {keras.__version__} on {backend}")
    for name, case in cases.CASES.items():
        expected = cases.train(keras, case)
        kept.update({f"train/{name}/{key}": value for key, value in expected.items()})
        difference = cases.disagreement(cases.train(minidl, case), expected)
        more = f"accuracy {difference['accuracy']:.0f} samples, last weights {difference['head']:.1e}"
        report.line(name, difference["loss"], cases.LOSS_TOLERANCE, more)


def compare_losses(report: Report, kept: dict) -> None:
    import torch

    print(f"\nLosses, difference of value and gradient to PyTorch {torch.__version__}'s autograd")
    for name in cases.LOSSES:
        for weighted in (False, True):
            value, gradient = torch_value_and_gradient(name, weighted)
            label = f"{name}, weighted" if weighted else name
            kept[f"loss/{label}/value"], kept[f"loss/{label}/gradient"] = np.array(value), gradient
            for dtype in (np.float32, np.float64):
                found = cases.value_and_gradient(name, weighted, dtype)
                difference = cases.gradient_disagreement(found, (value, gradient))
                report.line(f"{label}, {np.dtype(dtype)}", difference, cases.GRADIENT_TOLERANCE)


def compare_distillation(report: Report, kept: dict) -> None:
    print("\nA distilled student, difference to PyTorch")
    expected, found = torch_distilled(), cases.distilled()
    kept.update({f"distilled/{key}": value for key, value in expected.items()})
    difference = cases.distilled_disagreement(found, expected)
    report.line("gradient of the first batch", difference["gradient"], cases.GRADIENT_TOLERANCE)
    report.line("losses of three epochs", difference["loss"], cases.LOSS_TOLERANCE)


def compare_metrics(report: Report) -> dict[str, dict]:
    """Returns Keras's numbers, rounded, by the name of the case and of the log."""
    print("\nMetrics, difference to Keras")
    keras, minidl = load_keras(), load_minidl()
    kept: dict[str, dict] = {"results": {}}
    for name in metric_cases.CASES:
        expected, found = (metric_cases.results(lib, name) for lib in (keras, minidl))
        report.line(name, metric_cases.disagreement(found, expected), metric_cases.TOLERANCE)
        kept["results"][name] = _rounded(expected)
    for name in metric_cases.OF_FITS:
        expected, found = (metric_cases.logs_of_fit(lib, name) for lib in (keras, minidl))
        largest = max(metric_cases.disagreement(found[log], expected[log]) for log in expected)
        report.line(f"logs of a fit, {name}", largest, metric_cases.TOLERANCE)
        kept[name] = {log: _rounded(values) for log, values in expected.items()}
    return kept


def write_metrics(kept: dict[str, dict]) -> None:
    """A line for each case: what changes is seen in git."""
    parts = [f"{json.dumps(part)}: {json.dumps(values)}" for part, values in kept.items()]
    text = ",\n".join(parts).replace("], ", "],\n")
    GOLDEN_METRICS.write_text("{\n" + text + "\n}\n", encoding="utf-8")


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.8g}") for value in values]


def versions() -> dict[str, str]:
    import torch

    keras = load_keras()
    return {
        "keras": keras.__version__,
        "keras backend": keras.backend.backend(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "made by": "python -m benchmarks.parity --write",
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"keep the peers' numbers in {GOLDEN.name}")
    options = parser.parse_args(arguments)
    try:
        load_keras()
        import torch  # noqa: F401
    except ImportError as error:
        print(f'parity needs Keras 3 and PyTorch ({error}): pip install -e ".[bench]"', file=sys.stderr)
        return 2
    report, kept = Report(), {}
    compare_losses(report, kept)
    compare_distillation(report, kept)
    metrics = compare_metrics(report)
    compare_training(report, kept)
    if report.failed:
        print(f"\nNot in agreement: {'; '.join(report.failed)}", file=sys.stderr)
        return 1
    print("\nAll in agreement.")
    if options.write:
        kept["versions"] = np.array(json.dumps(versions()))
        GOLDEN.parent.mkdir(exist_ok=True)
        temporary = GOLDEN.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, **kept)
        os.replace(temporary, GOLDEN)
        write_metrics(metrics)
        print(f"wrote {GOLDEN} ({GOLDEN.stat().st_size / 1024:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
