"""The whole method on one page of plain NumPy: read this first, run it with ``python -m minidl.tiny``.

A large net (the teacher) learns digits from labels. A small net (the student) learns them twice: from labels
alone, and from labels together with the teacher's answers. The second is distillation. Nothing else of minidl
is used here: the engine computes the same numbers, only faster, and ``tests/test_tiny.py`` holds it to that.

Shapes: B rows in a batch, I inputs and O outputs of a layer, C classes. ``dname`` is the gradient of the loss
with respect to ``name`` and has its shape. Each backward stands under its forward.
"""

import os
import subprocess
import sys

import numpy as np

BATCH_SIZE = 32
TEMPERATURE, HARD_WEIGHT, SOFT_WEIGHT = 4.0, 0.1, 0.9

# ---- layers. A net is a list of arrays, [weight, bias, weight, bias, ...], with ReLU between its dense layers.


def make_params(sizes, rng, dtype=np.float32):
    params = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        limit = (6 / (inputs + outputs)) ** 0.5  # Glorot 2010: signals keep their size from layer to layer
        params.append(rng.uniform(-limit, limit, (inputs, outputs)).astype(dtype))  # weight (I, O)
        params.append(np.zeros(outputs, dtype))  # bias (O,)
    return params


def dense_forward(x, weight, bias):
    return x @ weight + bias  # (B, I) @ (I, O) + (O,) = (B, O)


def dense_backward(dout, x, weight):
    dx = dout @ weight.T  # (B, O) @ (O, I) = (B, I): back through every weight that the input met
    dweight = x.T @ dout  # (I, B) @ (B, O) = (I, O): summed over the rows of the batch
    dbias = dout.sum(axis=0)  # (O,)
    return dx, dweight, dbias


def relu_forward(x):
    return np.maximum(x, 0)


def relu_backward(dout, out):
    return dout * (out > 0)  # the slope is 1 where the unit is on, 0 where it is off


def forward(params, x):
    """The logits (B, C), and the input of every dense layer, which ``backward`` needs again."""
    inputs = []
    for weight, bias in zip(params[0::2], params[1::2], strict=True):
        inputs.append(x)
        logits = dense_forward(x, weight, bias)
        x = relu_forward(logits)  # the next layer's input; the last layer's logits stay as they are
    return logits, inputs


def backward(params, inputs, dlogits):
    """The gradient of every parameter, in the order of ``params``: the same walk from the end."""
    grads, dout = [], dlogits
    for x, weight in zip(reversed(inputs), params[-2::-2], strict=True):
        dx, dweight, dbias = dense_backward(dout, x, weight)
        grads = [dweight, dbias, *grads]
        dout = relu_backward(dx, x)  # x is the output of the ReLU below (in the first layer this is not used)
    return grads


# ---- losses: the mean over the batch, and its gradient with respect to the logits.


def log_softmax(logits):
    """log q, where q_i = exp(z_i) / sum_j exp(z_j) for each row z of ``logits`` (B, C)."""
    logits = logits - logits.max(axis=1, keepdims=True)  # q stays the same, and exp cannot overflow
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def crossentropy(logits, y):
    """-sum_i y_i log q_i, where ``y`` (B, C) is 1 for the right class and 0 elsewhere. Gradient: (q - y) / B.

    Why so simple: softmax passes the loss's slope d_i = -y_i / q_i back as q * (d - sum(d * q)) = -y + q * sum(y).
    """
    log_q = log_softmax(logits)
    return -(y * log_q).sum(axis=1).mean(), (np.exp(log_q) - y) / len(y)


def distillation_loss(logits, y, teacher_logits, T=TEMPERATURE):
    """HARD_WEIGHT * CE(y, q at T = 1) + SOFT_WEIGHT * T^2 * KL(p || q), p and q being softmax(logits / T) of
    teacher and student (Hinton 2015). At T > 1 small probabilities count: how much this 7 looks like a 1.

    Why T^2: the slope of KL with respect to the logits is (q - p) / T. This 1/T is the chain rule through
    logits / T, exactly. A second 1/T hides in q - p, but only where logits are small beside T: there q - p is
    nearly the difference of the centred logits / (C * T). T^2 undoes both, so that the term does not fade.
    """
    hard_loss, hard_dlogits = crossentropy(logits, y)
    log_p, log_q = log_softmax(teacher_logits / T), log_softmax(logits / T)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean()  # the sum over classes, the mean over rows
    kl_dlogits = (np.exp(log_q) - np.exp(log_p)) / T / len(y)
    loss = HARD_WEIGHT * hard_loss + SOFT_WEIGHT * T**2 * kl
    return loss, HARD_WEIGHT * hard_dlogits + SOFT_WEIGHT * T**2 * kl_dlogits


# ---- optimizers: each returns a function that takes one step, changing ``params`` in place.


def sgd(params, learning_rate=0.01):
    def update(grads):
        for param, grad in zip(params, grads, strict=True):
            param -= learning_rate * grad  # downhill

    return update


def adam(params, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Steps of about ``learning_rate``, whatever the gradient's size (Kingma & Ba 2015, as in Keras)."""
    step = 0
    means = [(np.zeros_like(param), np.zeros_like(param)) for param in params]  # m of grad, v of grad^2

    def update(grads):
        nonlocal step
        step += 1
        # m and v start at 0, so at first they are too small by the factors 1 - beta^step: divide by these.
        rate = learning_rate * (1 - beta_2**step) ** 0.5 / (1 - beta_1**step)
        for param, grad, (m, v) in zip(params, grads, means, strict=True):
            m += (1 - beta_1) * (grad - m)
            v += (1 - beta_2) * (grad * grad - v)
            param -= rate * m / (np.sqrt(v) + epsilon)

    return update


# ---- training: data -> layers -> loss -> backward -> update.


def loss_and_grads(params, x, y, *teacher_logits):
    logits, inputs = forward(params, x)
    loss_function = distillation_loss if teacher_logits else crossentropy
    loss, dlogits = loss_function(logits, y, *teacher_logits)
    return loss, backward(params, inputs, dlogits)


def train(params, update, epochs, rng, *data):
    """Changes ``params``, returns each step's loss; ``data``: x, y and, to distil, the teacher's logits for x."""
    losses, count = [], len(data[0])
    for _ in range(epochs):
        for rows in np.split(rng.permutation(count), range(BATCH_SIZE, count, BATCH_SIZE)):
            loss, grads = loss_and_grads(params, *(array[rows] for array in data))
            update(grads)
            losses.append(loss)
    return losses


def check_gradients(nudge=1e-6):
    """The largest difference between a gradient and (loss at w + nudge - loss at w - nudge) / (2 nudge)."""
    rng = np.random.default_rng(0)
    params = make_params([5, 7, 3], rng, np.float64)  # float64: rounding in float32 would hide an error
    data = rng.normal(size=(4, 5)), np.eye(3)[[0, 1, 2, 2]], rng.normal(size=(4, 3))
    worst = 0.0
    for param, grad in zip(params, loss_and_grads(params, *data)[1], strict=True):
        for index in np.ndindex(param.shape):
            param[index] += nudge
            above, _ = loss_and_grads(params, *data)
            param[index] -= 2 * nudge
            below, _ = loss_and_grads(params, *data)
            param[index] += nudge
            worst = max(worst, abs((above - below) / (2 * nudge) - grad[index]))
    return worst


def main():
    print(f"Gradients: the formulas differ from central differences by {check_gradients():.0e} at most.")
    digits = np.load(os.path.join(os.path.dirname(__file__), "datasets", "mnist_subset.npz"))
    x, x_test = (digits[key].reshape(-1, 784).astype(np.float32) / 255 for key in ("x_train", "x_test"))
    y, y_test = (np.eye(10, dtype=np.float32)[digits[key]] for key in ("y_train", "y_test"))

    def learn(who, sizes, seed, epochs, *data):
        rng = np.random.default_rng(seed)
        params = make_params(sizes, rng)
        train(params, adam(params), epochs, rng, *data)
        errors = (forward(params, x_test)[0].argmax(axis=1) != y_test.argmax(axis=1)).sum()
        print(f"{who:<18} {'-'.join(map(str, sizes)):<16} {errors} errors on {len(y_test):,} test digits")
        return params, errors

    shifts = (0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)  # by a pixel: digits that only the teacher learns from
    shifted = [np.roll(x.reshape(-1, 28, 28), shift, axis=(1, 2)).reshape(-1, 784) for shift in shifts]
    teacher, _ = learn("teacher", [784, 256, 256, 10], 0, 3, np.concatenate(shifted), np.tile(y, (5, 1)))
    teacher_logits, _ = forward(teacher, x)
    small, seeds = [784, 64, 64, 10], (1, 2, 3)  # a seed's two students begin with the same weights
    alone = [learn("student, alone", small, seed, 10, x, y)[1] for seed in seeds]
    taught = [learn("student, distilled", small, seed, 10, x, y, teacher_logits)[1] for seed in seeds]
    print(f"Mean errors: {np.mean(alone):.1f} alone, {np.mean(taught):.1f} from a teacher that saw shifts.")


if __name__ == "__main__":
    if "OMP_NUM_THREADS" in os.environ:
        main()
    else:  # begin again with one thread for NumPy's products: two are slower here, on a busy machine ten times
        subprocess.run([sys.executable, __file__], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
