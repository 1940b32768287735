"""`Sequential.trace`: each layer's numbers on one batch are those of a training step, and the model stays as it is."""

import numpy as np
import pytest
from own_layers import Scale

import minidl

X, Y = np.array([[1.0, 2.0], [0.5, -1.0], [2.0, 3.0]]), np.eye(3)


def make(*layers, loss="categorical_crossentropy", **options) -> minidl.Sequential:
    net = minidl.Sequential([minidl.Input((2,)), *layers], seed=1, **options)
    net.compile("sgd", loss)
    return net


def deep() -> minidl.Sequential:
    layers = minidl.Dense(4, "relu"), minidl.BatchNormalization(), minidl.Dropout(0.5), Scale()
    return make(*layers, minidl.Dense(3, "softmax"))


def test_a_training_step():
    net = deep()
    net.train_on_batch(X, Y)
    net.set_step(net.draw_epoch, net.optimizer.batches)
    found = net.trace(X, Y, training=True)
    assert [layer.name for layer in found.layers] == [layer.name for layer in net.layers]
    for before, after in zip(found.layers[:-1], found.layers[1:], strict=True):
        np.testing.assert_array_equal(before.output, after.input)
        np.testing.assert_array_equal(before.doutput, after.dinput)
    np.testing.assert_array_equal(found.layers[-1].output, found.logits)
    np.testing.assert_array_equal(found.layers[-1].doutput, found.dlogits)
    weights = [view.copy() for view in net.weights]
    traced = [view for layer in found.layers for view in layer.weights.values()]
    assert all(map(np.array_equal, weights, traced)) and len(weights) == len(traced)
    assert net.train_on_batch(X, Y) == found.loss == found.row_losses.sum()
    for layer, trace in zip(net.layers, found.layers, strict=True):
        for name, gradient in trace.gradients.items():
            np.testing.assert_array_equal(gradient, getattr(layer, f"d{name}"))


def test_the_model_stays_as_it_is():
    net = deep()
    net.train_on_batch(X, Y)
    state = net.params.copy(), net.grads.copy(), net.optimizer.batches
    out = net.forward(X, training=True)
    twin = deep()
    twin.train_on_batch(X, Y)
    twin.forward(X, training=True)
    net.trace(X[:1], Y[:1], training=True)
    np.testing.assert_array_equal(net.backward(out), twin.backward(out))  # of its own last forward
    net.grads[...] = state[1]
    np.testing.assert_array_equal(net.trace(X, Y).output, net.predict(X))
    assert net.optimizer.batches == state[2]
    np.testing.assert_array_equal(net.grads, state[1])
    twin.predict(X)
    np.testing.assert_array_equal(net.params, twin.params)


def test_copies():
    net = make(minidl.Dense(3, "softmax"))
    found = net.trace(X, Y)
    before = net.params.copy()
    for array in (*found.layers[0].weights.values(), found.output, found.logits, found.layers[0].input):
        array[...] = 7
    np.testing.assert_array_equal(net.params, before)
    assert X[0, 0] == 1


def test_the_output_where_the_loss_is_not_fused():
    net = make(minidl.Dense(3, "tanh"), loss="mse")
    found = net.trace(X, Y)
    np.testing.assert_array_equal(found.layers[0].output, net.predict(X))
    np.testing.assert_allclose(found.dlogits, 2 * (found.output - Y) / 9, rtol=1e-5)


def test_a_softmax_layer_of_its_own_is_left_to_the_loss():
    net = make(minidl.Dense(3), minidl.Softmax())
    found = net.trace(X, Y)
    assert len(found.layers) == 1
    np.testing.assert_allclose(found.dlogits, (found.output - Y) / 3, atol=1e-7)


def test_a_teacher_and_another_loss():
    net, teacher = make(minidl.Dense(3, "softmax")), np.arange(9.0).reshape(3, 3)
    found = net.trace(X, None, minidl.KnowledgeDistillation(4.0, 0.0, 1.0), teacher_logits=teacher)
    q, p = minidl.softmax(found.logits, 4.0), minidl.softmax(teacher, 4.0)
    np.testing.assert_allclose(found.dlogits, 4 * (q - p) / 3, atol=1e-6)


def test_sample_weights():
    net = make(minidl.Dense(3, "softmax"))
    alone = net.trace(X[:1], Y[:1])
    found = net.trace(X, Y, sample_weight=[1.0, 0.0, 0.0])
    np.testing.assert_allclose(found.dlogits[:1] * 3, alone.dlogits, rtol=1e-6)
    assert not found.dlogits[1:].any()


def test_a_model_that_is_not_built_yet():
    net = minidl.Sequential([minidl.Dense(3, "softmax")])
    assert len(net.trace(X, Y, "categorical_crossentropy").layers) == 1 and net.built


def test_refusals():
    net = make(minidl.Dense(3, "softmax"))
    with pytest.raises(ValueError, match="loss must be given"):
        minidl.Sequential([minidl.Input((2,)), minidl.Dense(3)]).trace(X, Y)
    with pytest.raises(ValueError, match="did you mean 'mse'"):
        net.trace(X, Y, "mss")
    with pytest.raises(ValueError, match="teacher_logits are for a distilling loss"):
        net.trace(X, Y, teacher_logits=np.arange(9.0).reshape(3, 3))
    with pytest.raises(ValueError, match="x must"):
        net.trace(X[:, :1], Y)
    with pytest.raises(ValueError, match="y must"):
        net.trace(X, Y[:2])
    with pytest.raises((TypeError, ValueError), match="training must be"):
        net.trace(X, Y, training="yes")

    class Own(minidl.Sequential):
        def forward(self, x, training=False, logits=False):
            return super().forward(x, training, logits)

    own = Own([minidl.Input((2,)), minidl.Dense(3, "softmax")])
    with pytest.raises(ValueError, match="a forward of its own"):
        own.trace(X, Y, "categorical_crossentropy")
