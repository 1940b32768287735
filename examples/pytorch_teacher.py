"""A PyTorch module teaches a minidl student. Needs torch.

    python examples/pytorch_teacher.py

`torch_teacher` runs the module in eval mode (dropout off) and without gradients, and puts it back into the mode
it was in. The module must give logits, not what follows its softmax; one that ends in softmax is refused, unless
``from_probs=True`` says what it gives. `to_torch` takes the student back to PyTorch.
"""

from __future__ import annotations

import numpy as np

try:
    import torch
except ImportError as error:
    raise ImportError("this example needs torch: pip install torch") from error

import minidl
from minidl.datasets import mnist
from minidl.interop.torch import to_torch, torch_teacher
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

    student = Sequential(
        [Input((784,)), Dense(32, activation="relu"), Dense(10, activation="softmax")], seed=0
    )
    report = minidl.distill(
        torch_teacher(module), student, x, y, epochs=epochs, test_data=(x_test, y_test), verbose=verbose
    )
    print(report)
    answers = to_torch(student)(torch.from_numpy(x_test)).detach().numpy()
    apart = abs(answers - student.predict(x_test)).max()
    print(f"as a PyTorch module, the student gives the same probabilities to {apart:.0e}")
    return report


if __name__ == "__main__":
    main()
