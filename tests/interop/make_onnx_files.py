"""Makes the files of tests/interop/onnx_files, small nets as the exporters of other libraries write them.

python tests/interop/make_onnx_files.py torch       # needs torch and onnxscript
python tests/interop/make_onnx_files.py keras       # needs keras on torch, and onnxscript
python tests/interop/make_onnx_files.py sklearn     # needs scikit-learn and skl2onnx
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "onnx_files"


def torch_files() -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    normalised = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.LeakyReLU(0.1), nn.Dropout(0.3), nn.Linear(8, 4)]
    normalised += [nn.LayerNorm(4), nn.SiLU(), nn.Linear(4, 3), nn.Softmax(-1)]
    curves = [nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 8), nn.ELU(0.7), nn.Linear(8, 8), nn.Softplus()]
    curves += [
        nn.Linear(8, 8),
        nn.PReLU(8),
        nn.Linear(8, 8),
        nn.PReLU(),
        nn.Linear(8, 8, bias=False),
        nn.ReLU6(),
    ]
    curves += [nn.Linear(8, 4), nn.GELU("tanh"), nn.Sigmoid(), nn.Tanh()]
    image = [nn.Flatten(), nn.Linear(12, 5), nn.ReLU()]
    residual = nn.Linear(6, 6)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = residual

        def forward(self, x):
            return x + torch.relu(self.inner(x))

    nets = {
        "normalised": nn.Sequential(*normalised),
        "curves": nn.Sequential(*curves),
        "image": nn.Sequential(*image),
    }
    nets |= {
        "residual": Residual(),
        "convolution": nn.Sequential(nn.Conv1d(3, 2, 2), nn.Flatten(), nn.Linear(6, 2)),
    }
    for name, net in nets.items():
        net.eval()
        x = torch.randn(2, 3, 4) if name in ("image", "convolution") else torch.randn(2, 6)
        for dynamo, opset in ((False, 17), (True, 20)) if name != "normalised" else ((False, 13), (True, 20)):
            path = FOLDER / f"torch_{name}_{opset}.onnx"
            free = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamo else {}
            torch.onnx.export(
                net, (x,), path, opset_version=opset, dynamo=dynamo, external_data=False, **free
            )


def keras_files() -> None:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    nets = {
        "normalised": [layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dense(3, "softmax")],
        "image": [layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3, "leaky_relu")],
    }
    for name, parts in nets.items():
        shape = (3, 2) if name == "image" else (6,)
        model = keras.Sequential([layers.Input(shape), *parts])
        model(np.zeros((2, *shape), "float32"))
        model.export(FOLDER / f"keras_{name}.onnx", format="onnx", verbose=False)


def sklearn_files() -> None:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    x = np.random.default_rng(0).normal(size=(200, 5)).astype("float32")
    y = x[:, :3].argmax(axis=1)
    estimators = {
        "classifier": (make_pipeline(StandardScaler(), MLPClassifier((8, 4), max_iter=300)), y),
        "regressor": (
            make_pipeline(MinMaxScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=300)),
            x[:, 0],
        ),
        "logistic": (LogisticRegression(), y),
    }
    for name, (estimator, target) in estimators.items():
        estimator.fit(x, target)
        options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
        proto = to_onnx(estimator, x[:1], options=options, target_opset=17)
        (FOLDER / f"sklearn_{name}.onnx").write_bytes(proto.SerializeToString())


def strip(path: Path) -> None:
    """Take out what exporters note of the machine: paths of sources, traces."""
    import onnx

    proto = onnx.load(path)
    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        for field in ("doc_string", "metadata_props"):
            part.ClearField(field)
    onnx.save(proto, path)


if __name__ == "__main__":
    {"torch": torch_files, "keras": keras_files, "sklearn": sklearn_files}[sys.argv[1]]()
    for path in FOLDER.glob("*.onnx"):
        strip(path)
