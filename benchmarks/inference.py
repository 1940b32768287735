"""Predicting with a trained net: probabilities for 1 to 10,000 rows.

python -m benchmarks.inference [--quick]
"""

from __future__ import annotations

import sys

import numpy as np

from .harness import OURS, Case, Peer, Suite, Target, require_close
from .harness import main as run
from .trainers import forward, initial_weights, jax_logits, minidl_net, softmax, torch_net


def rows(case: dict) -> np.ndarray:
    return np.random.default_rng(case["batch"]).random((case["batch"], case["sizes"][0]), dtype=np.float32)


def verify(case: Case, peer: type, probs: np.ndarray) -> None:
    arrays = [a.astype(np.float64) for a in initial_weights(case.params["sizes"])]
    require_close(
        [probs], [softmax(forward(arrays, rows(case.params).astype(np.float64)))], 1e-5, "the probabilities"
    )


class Predictor(Peer):
    """``build`` makes the net, ``predict`` returns the probabilities of ``self.x``."""

    def prepare(self, case: dict) -> None:
        self.sizes, self.x = tuple(case["sizes"]), rows(case)
        self.arrays = initial_weights(self.sizes)
        self.build()

    def outputs(self) -> np.ndarray:
        return np.asarray(self.predict())

    def run(self, count: int) -> None:
        for _ in range(count):
            self.predict()


class Minidl(Predictor):
    def load(self) -> None:
        import minidl

        minidl.set_num_threads(self.threads)
        self.minidl = minidl

    def build(self) -> None:
        self.model = minidl_net(self.minidl, self.arrays)

    def predict(self):
        return self.model.predict(self.x)


class Numpy(Predictor):
    def build(self) -> None: ...

    def predict(self):
        return softmax(forward(self.arrays, self.x))


class Onnx(Predictor):
    def load(self) -> None:
        import onnx
        import onnxruntime

        self.onnx, self.runtime = onnx, onnxruntime

    def build(self) -> None:
        helper, to_onnx = self.onnx.helper, self.onnx.numpy_helper.from_array
        nodes, constants, current = [], [], "x"
        count = len(self.arrays) // 2
        for i in range(count):
            constants += [
                to_onnx(self.arrays[2 * i], f"weight{i}"),
                to_onnx(self.arrays[2 * i + 1], f"bias{i}"),
            ]
            nodes.append(helper.make_node("Gemm", [current, f"weight{i}", f"bias{i}"], [f"logits{i}"]))
            nodes.append(
                helper.make_node("Relu" if i < count - 1 else "Softmax", [f"logits{i}"], [f"out{i}"])
            )
            current = f"out{i}"
        real = self.onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "net",
            [helper.make_tensor_value_info("x", real, ["N", self.sizes[0]])],
            [helper.make_tensor_value_info(current, real, ["N", self.sizes[-1]])],
            constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        self.session = self.runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def predict(self):
        return self.session.run(None, {"x": self.x})[0]


class Torch(Predictor):
    def load(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.torch = torch

    def build(self) -> None:
        torch = self.torch
        self.model = torch.nn.Sequential(torch_net(torch, self.arrays), torch.nn.Softmax(1)).eval()
        self.tensor = torch.from_numpy(self.x)

    def predict(self):
        with self.torch.inference_mode():
            return self.model(self.tensor)


class Jax(Predictor):
    def load(self) -> None:
        import jax

        self.jax = jax

    def build(self) -> None:
        jax = self.jax
        arrays = [jax.numpy.asarray(a) for a in self.arrays]

        self.net = jax.jit(lambda x: jax.nn.softmax(jax_logits(jax, arrays, x)))

    def predict(self):
        return self.jax.block_until_ready(self.net(self.x))


PEERS = {OURS: Minidl, "onnxruntime": Onnx, "torch": Torch, "jax": Jax, "numpy": Numpy}


def _case(label: str, sizes: tuple[int, ...], batch: int) -> Case:
    work = 2.0 * batch * sum(i * o for i, o in zip(sizes, sizes[1:], strict=False))
    return Case(
        f"{label}, batch {batch}", {"sizes": list(sizes), "batch": batch}, tuple(PEERS), work, group=label
    )


CASES = [_case("small net (784-64-64-10)", (784, 64, 64, 10), b) for b in (1, 32, 1000, 10000)]
CASES += [_case("big net (784-1200-1200-10)", (784, 1200, 1200, 10), b) for b in (1, 32, 1000, 10000)]
SUITE = Suite(
    name="inference",
    title="Predicting, float32",
    unit="call",
    module="benchmarks.inference",
    peers=PEERS,
    cases=CASES,
    verify=verify,
    quick=tuple(c.name for c in CASES[:3]),
    slice_seconds=0.1,
    budget_seconds=3.0,
    targets=[
        Target(f"{CASES[i].name}, to ONNX Runtime", CASES[i].name, ("onnxruntime",), bound)
        for i, bound in enumerate((0.6, 0.9, 0.9))
    ],
    notes="From a NumPy array to softmax probabilities, weights at hand. Verified against float64.",
)


def main(arguments: list[str] | None = None) -> int:
    return run(SUITE, arguments)


if __name__ == "__main__":
    sys.exit(main())
