"""PyTorch modules as teachers."""

import numpy as np
import pytest
from extras import needs

needs("torch")

import torch  # noqa: E402
from torch import nn  # noqa: E402

import minidl  # noqa: E402
from minidl.interop.torch import torch_teacher  # noqa: E402
from minidl.layers import Dense, Input  # noqa: E402
from minidl.models import Sequential  # noqa: E402
from minidl.teachers import cached_logits  # noqa: E402

rng = np.random.default_rng(3)
X = rng.normal(size=(90, 6)).astype(np.float32)
Y = rng.integers(0, 3, 90)


def student(units=3, last="softmax"):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(units, activation=last)], seed=1)


def net(units=3, *ending):
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, units), *ending)


class Hidden(nn.Module):
    """A module of the user's own, which does not tell how it ends."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def test_a_module_teaches_and_stays_as_it_was():
    module = net().train()
    before = [p.detach().clone() for p in module.parameters()]
    teacher = torch_teacher(module)
    np.testing.assert_array_equal(cached_logits(teacher, X), cached_logits(teacher, X), "dropout is off")
    minidl.distill(teacher, student(), X, Y, epochs=2, verbose=0)
    assert module.training and all(
        torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)
    )


def test_a_softmax_at_the_end_is_never_taken_for_logits():
    logits = cached_logits(torch_teacher(net()), X)
    for given in (net(3, nn.Softmax(1)), nn.Sequential(net(), nn.Sequential(nn.Softmax(1)))):
        with pytest.raises(
            ValueError, match=r"module \(Sequential\) ends in softmax, so .* say from_probs=True"
        ):
            torch_teacher(given)
        found = cached_logits(torch_teacher(given, from_probs=True), X)
        np.testing.assert_allclose(minidl.softmax(found), minidl.softmax(logits), atol=1e-6)
        assert abs(np.exp(found).sum(axis=1) - 1).max() < 1e-5, "logarithms of probabilities"
    unknown = Hidden(net(3, nn.Softmax(1)))
    with pytest.raises(ValueError, match="looks like probabilities"):
        cached_logits(torch_teacher(unknown), X)
    found = cached_logits(torch_teacher(unknown, from_probs=True), X)
    np.testing.assert_allclose(minidl.softmax(found), minidl.softmax(logits), atol=1e-6)
    with pytest.raises(ValueError, match="from_probs=True wants rows in"):
        cached_logits(torch_teacher(net(), from_probs=True), X)
    np.testing.assert_array_equal(cached_logits(torch_teacher(net(3, nn.LogSoftmax(1))), X).shape, (90, 3))


def test_a_sigmoid_at_the_end():
    logits, pupil = net(1).eval()(torch.from_numpy(X)).detach().numpy(), student(1, "sigmoid")
    teacher = torch_teacher(net(1, nn.Sigmoid()), from_probs=True)
    np.testing.assert_allclose(teacher(X), logits, atol=1e-5)
    with pytest.raises(ValueError, match="ends in sigmoid"):
        torch_teacher(net(1, nn.Sigmoid()))
    minidl.distill(teacher, pupil, X, Y > 1, epochs=2, verbose=0)
    with pytest.raises(ValueError, match="classes"):
        minidl.distill(teacher, student(), X, Y, epochs=1, verbose=0)


def test_a_module_is_put_back_into_the_mode_of_each_part():
    module = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)).train()
    module[1].eval()  # a frozen part, as in fine-tuning
    torch_teacher(module)(X)
    assert [part.training for part in module.modules()] == [True, True, False, True]


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="PyTorch module"):
        minidl.distill(net(), student(), X, Y, epochs=1, verbose=0)
    with pytest.raises(TypeError, match="must be a torch.nn.Module"):
        torch_teacher(student())
    with pytest.raises(TypeError, match="from_probs must be True or False"):
        torch_teacher(net(), from_probs="yes")


def test_inputs_that_do_not_fit_are_refused_with_both_sides():
    with pytest.raises(
        ValueError, match=r"teacher 'Sequential' cannot take x: of shape \(90, 5\): .*90x5 and 6x16"
    ):
        torch_teacher(net())(X[:, :5])
    np.testing.assert_allclose(torch_teacher(net().double())(X), torch_teacher(net())(X), atol=1e-5)
