"""An ONNX file teaches a minidl student. Needs onnx and onnxruntime: pip install "minidl[onnx]".

    python examples/onnx_teacher.py [teacher.onnx]

The file may come from any library; one that ends in Softmax is refused by name, for a teacher gives logits. Without a
file, a minidl teacher is trained and exported. A slow teacher is best asked once: its logits are saved with a
fingerprint of the data and, for a function, the name given here. They are refused for other data and other names.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

try:
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
except ImportError as error:
    raise ImportError('this example needs onnx and onnxruntime: pip install "minidl[onnx]"') from error

import minidl
from minidl.datasets import mnist
from minidl.interop.onnx import export, onnx_teacher
from minidl.layers import Dense, Input
from minidl.models import Sequential
from minidl.teachers import cached_logits


def export_a_teacher(path, x, y, epochs):
    model = Sequential(
        [Input((784,)), Dense(256, activation="relu"), Dense(10, activation="softmax")], seed=1
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, verbose=0)
    export(model, path, logits=True)


def main(path=None, digits=6000, epochs=20, verbose=0):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    y = y[:digits]
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "teacher.onnx"
            export_a_teacher(path, x, y, epochs)
        teacher = onnx_teacher(path)
        kept, version = Path(folder) / "logits.npz", Path(path).name
        minidl.save_logits(kept, cached_logits(teacher, x), x, version)
        logits = minidl.load_logits(kept, x, version)

        student = Sequential(
            [Input((784,)), Dense(32, activation="relu"), Dense(10, activation="softmax")], seed=0
        )
        report = minidl.distill(
            logits,
            student,
            x,
            y,
            epochs=epochs,
            test_data=(x_test, y_test),
            test_teacher=teacher,
            verbose=verbose,
        )
    print(report)
    return report


if __name__ == "__main__":
    main(*sys.argv[1:2])
