"""A PyTorch module teaches a minidl student. Needs torch.

    python examples/pytorch_teacher.py

A teacher may be any function ``x -> logits`` of NumPy arrays. Three things matter: the module is in eval mode
(dropout off), no gradients are kept, and it gives logits, not what follows its softmax. `torch_teacher` of
`minidl.interop.torch` does the first two; here they are written out.
"""

from __future__ import annotations

import numpy as np

try:
    import torch
except ImportError as error:
    raise ImportError("this example needs torch: pip install torch") from error

import minidl
from minidl.datasets import mnist
from minidl.layers import Dense, Input
from minidl.models import Sequential


def train(module, x, y, epochs):
    """A plain PyTorch training loop."""
    optimizer = torch.optim.Adam(module.parameters())
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))),
        batch_size=64,
        shuffle=True,
    )
    module.train()
    for _ in range(epochs):
        for batch, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(batch), labels).backward()
            optimizer.step()


def main(digits=6000, epochs=20, verbose=0):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    y = y[:digits]

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(256, 10)
    )
    train(module, x, y, epochs)

    module.eval()

    @torch.no_grad()
    def teacher(batch):
        return module(torch.from_numpy(batch)).numpy()

    student = Sequential(
        [Input((784,)), Dense(32, activation="relu"), Dense(10, activation="softmax")], seed=0
    )
    report = minidl.distill(
        teacher, student, x, y, epochs=epochs, test_data=(x_test, y_test), verbose=verbose
    )
    print(report)
    return report


if __name__ == "__main__":
    main()
