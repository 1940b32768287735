"""One training step of a tiny net with every number shown: ``python -m minidl explain``."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from .layers import Dense, Input
from .losses import CategoricalCrossentropy, KnowledgeDistillation, log_softmax, softmax
from .models import Sequential
from .optimizers import SGD

X = np.array([[1.0, 2.0], [0.5, -1.0]])
Y = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
TEACHER_LOGITS = np.array([[1.0, 3.0, 2.0], [2.0, 0.0, -1.0]])
WEIGHTS = (
    np.array([[0.5, -0.3, 0.8], [0.2, 0.6, -0.4]]),
    np.array([0.1, 0.0, -0.2]),
    np.array([[0.3, -0.5, 0.2], [-0.4, 0.7, 0.1], [0.6, 0.2, -0.3]]),
    np.array([0.0, 0.1, -0.1]),
)


class _Text:
    """The lines of the text: titles with formulas, matrices, sums of products."""

    def __init__(self):
        self.lines: list[str] = []

    def head(self, title: str, formula: str) -> None:
        self.lines += ["", title, "-" * len(title), formula]

    def matrix(self, name: str, values: np.ndarray, note: str = "") -> None:
        options: dict = dict(precision=4, floatmode="fixed", sign=" ", max_line_width=110, prefix=" " * 14)
        shown = np.array2string(np.atleast_2d(values), **options)
        self.lines.append(f"{name + ' =':>13} {shown}" + (f"   {note}" if note else ""))

    def parameters(self, model: Sequential, note: str = "") -> None:
        for number, layer in enumerate(model.layers, 1):
            self.matrix(f"weight_{number}", layer.weight, note if number == 1 else "")
            self.matrix(f"bias_{number}", layer.bias)

    def sum(self, name: str, a: np.ndarray, b: np.ndarray, start: Sequence[float], result: float) -> None:
        terms = [f"{u:.4g}*{v:.4g}" for u, v in zip(a, b, strict=True)] + [f"{v:.4g}" for v in start]
        self.lines.append(f"{'':>14}{name} = {' + '.join(terms)} = {result:.4f}")


def explain(temperature: float | None = None, learning_rate: float = 0.1) -> str:
    """The text: forward, loss, backward, update, and a numerical check of every gradient.

    With a ``temperature`` the step is one of distillation from a teacher (hard weight 0.1, soft weight 0.9),
    else of learning from labels.
    """
    model = Sequential([Input((2,)), Dense(3, "relu"), Dense(3, "softmax")], dtype="float64", seed=0)
    model.set_weights(WEIGHTS)
    if temperature is None:
        value_and_grad = partial(CategoricalCrossentropy(from_logits=True).value_and_grad, y=Y)
    else:
        loss = KnowledgeDistillation(temperature, hard_weight=0.1, soft_weight=0.9)
        value_and_grad = partial(loss.value_and_grad, y=Y, teacher_logits=TEACHER_LOGITS)

    def loss_now() -> float:
        return value_and_grad(model.forward(X, logits=True))[0]

    text = _Text()
    text.head("The net", "2 inputs -> 3 hidden units, ReLU -> 3 classes, softmax. A batch of B = 2 samples.")
    text.matrix("x", X, "(B, 2)")
    text.matrix("y", Y, "one-hot labels (B, 3)")
    text.parameters(model, "(in, out)")
    hidden, output = model.layers
    a = X @ hidden.weight + hidden.bias
    h, logits = hidden.forward(X), model.forward(X, training=True, logits=True)
    text.head("1. Forward", "a = x weight_1 + bias_1;  h = max(a, 0);  logits = h weight_2 + bias_2")
    text.matrix("a", a)
    text.sum("a[0,0]", X[0], hidden.weight[:, 0], hidden.bias[:1], a[0, 0])
    text.matrix("h", h, "negative ones became 0")
    text.matrix("logits", logits)
    text.sum("logits[0,0]", h[0], output.weight[:, 0], output.bias[:1], logits[0, 0])
    text.matrix("q", softmax(logits), "softmax: exp(logit) / sum of exp(logits), each row sums to 1")
    value, dlogits = value_and_grad(logits)
    if temperature is None:
        text.head("2. Loss", "cross-entropy: -log q of the right class, mean over the batch")
        log_q = (Y * log_softmax(logits)).sum(axis=1)
        text.lines.append(f"loss = -({log_q[0]:.6f} + {log_q[1]:.6f}) / 2 = {value:.6f}")
        text.head("3. Gradient on the logits", "dlogits = (q - y) / B, each row sums to 0")
    else:
        _show_distillation_loss(text, logits, temperature, value)
    text.matrix("dlogits", dlogits)
    _show_backward(text, model, h, a, dlogits)
    _show_gradient_check(text, model, loss_now)

    old, grad, rate = model.params[0], model.grads[0], f"{learning_rate:g}"
    SGD(learning_rate).step(model.params, model.grads)
    text.head("6. Update", f"gradient descent: params -= {rate} * grads")
    text.lines.append(f"weight_1[0,0] = {old:.6f} - {rate} * {grad:.6f} = {model.params[0]:.6f}")
    text.parameters(model)
    text.lines.append(f"the loss was {value:.6f}, and is now {loss_now():.6f}")
    return "\n".join(text.lines).lstrip("\n") + "\n"


def _show_distillation_loss(text: _Text, logits: np.ndarray, temperature: float, value: float) -> None:
    p_t, q_t = softmax(TEACHER_LOGITS, temperature), softmax(logits, temperature)
    hard = -(Y * log_softmax(logits)).sum(axis=1).mean()
    kl = (p_t * np.log(p_t / q_t)).sum(axis=1).mean()
    text.head("2. Loss", f"0.1 CE(y, q) + 0.9 T^2 KL(p_T || q_T), with temperature T = {temperature:g}")
    text.matrix("v", TEACHER_LOGITS, "the teacher's logits")
    text.matrix("p_T", p_t, "softmax(v / T): the teacher's answer, softened")
    text.matrix("q_T", q_t, "softmax(logits / T): the student's answer, softened in the same way")
    text.lines += [
        f"CE = {hard:.6f}, KL = sum of p_T log(p_T / q_T), mean over the batch = {kl:.6f}",
        f"loss = 0.1 * {hard:.6f} + 0.9 * {temperature:g}^2 * {kl:.6f} = {value:.6f}",
        "Why T^2: the gradient of KL on the logits is (q_T - p_T) / T. This 1/T is the chain rule, at any T.",
        "Once the logits are small beside T, q_T - p_T shrinks like 1/T too. T^2 undoes both, so the weights",
        "0.1 and 0.9 keep their meaning roughly, but not exactly at every T.",
    ]
    text.head("3. Gradient on the logits", "dlogits = [0.1 (q - y) + 0.9 T (q_T - p_T)] / B, rows sum to 0")


def _show_backward(text: _Text, model: Sequential, h: np.ndarray, a: np.ndarray, dlogits: np.ndarray) -> None:
    hidden, output = model.layers
    dx = model.backward(dlogits, logits=True)
    dh = dlogits @ output.weight.T
    text.head("4. Backward", "dweight = input^T dout;  dbias = column sums of dout;  dinput = dout weight^T")
    text.matrix("dweight_2", output.dweight, "h^T dlogits")
    text.sum("dweight_2[0,0]", h[:, 0], dlogits[:, 0], (), output.dweight[0, 0])
    text.matrix("dbias_2", output.dbias)
    text.matrix("dh", dh, "dlogits weight_2^T")
    da = np.where(a > 0, dh, 0.0)
    text.matrix("da", da, "dh where a > 0, else 0: the derivative of ReLU is 1 or 0")
    text.matrix("dweight_1", hidden.dweight, "x^T da")
    text.matrix("dbias_1", hidden.dbias)
    text.matrix("dx", dx, "da weight_1^T: the gradient a layer below would receive")


def _show_gradient_check(text: _Text, model: Sequential, loss_now: Callable[[], float]) -> None:
    numeric = np.empty_like(model.params)
    for i, kept in enumerate(model.params.tolist()):
        model.params[i] = kept + 1e-6
        up = loss_now()
        model.params[i] = kept - 1e-6
        numeric[i] = (up - loss_now()) / 2e-6
        model.params[i] = kept
    formula = "each parameter moved by +-1e-6: (loss(+) - loss(-)) / 2e-6 beside its gradient"
    text.head("5. Is that right?", formula)
    text.matrix("gradients", model.grads[None], "dweight_1, dbias_1, dweight_2, dbias_2 in one flat vector")
    text.matrix("measured", numeric[None])
    text.lines.append(f"largest difference: {np.abs(numeric - model.grads).max():.1e}")
