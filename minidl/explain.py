"""One training step of a tiny net with every number shown: ``python -m minidl explain``."""

from __future__ import annotations

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


def explain(temperature: float | None = None, learning_rate: float = 0.1) -> str:
    """The text: forward, loss, backward, update, and a numerical check of every gradient.

    With a ``temperature`` the step is one of distillation from a teacher (hard weight 0.1, soft weight 0.9),
    else of learning from labels.
    """
    model = Sequential([Input((2,)), Dense(3, "relu"), Dense(3, "softmax")], dtype="float64", seed=0)
    model.set_weights(WEIGHTS)
    hidden, output = model.layers
    lines = _Lines()
    lines.head("The net", "2 inputs -> 3 hidden units, ReLU -> 3 classes, softmax. A batch of B = 2 samples.")
    lines.matrix("x", X, "(B, 2)")
    lines.matrix("y", Y, "one-hot labels (B, 3)")
    lines.matrix("weight_1", hidden.weight, "(in, out)")
    lines.matrix("bias_1", hidden.bias)
    lines.matrix("weight_2", output.weight)
    lines.matrix("bias_2", output.bias)

    logits = model.forward(X, training=True, logits=True)
    h = hidden.forward(X)
    before = X @ hidden.weight + hidden.bias
    lines.head("1. Forward", "a = x weight_1 + bias_1;  h = max(a, 0);  logits = h weight_2 + bias_2")
    lines.matrix("a", before)
    lines.sum("a[0,0]", X[0], hidden.weight[:, 0], hidden.bias[0], before[0, 0])
    lines.matrix("h", h, "negative ones became 0")
    lines.matrix("logits", logits)
    lines.sum("logits[0,0]", h[0], output.weight[:, 0], output.bias[0], logits[0, 0])
    q = softmax(logits)
    lines.matrix("q", q, "softmax: exp(logit) / sum of exp(logits), each row sums to 1")

    loss = CategoricalCrossentropy(from_logits=True)
    teacher: tuple = ()
    if temperature is None:
        value, dlogits = loss.value_and_grad(logits, Y)
        lines.head("2. Loss", "cross-entropy: -log q of the right class, mean over the batch")
        chosen = [float((Y[i] * log_softmax(logits)[i]).sum()) for i in range(2)]
        lines.line(f"loss = -({chosen[0]:.6f} + {chosen[1]:.6f}) / 2 = {value:.6f}")
        lines.head("3. Gradient on the logits", "dlogits = (q - y) / B, each row sums to 0")
    else:
        loss = KnowledgeDistillation(temperature=temperature, hard_weight=0.1, soft_weight=0.9)
        teacher = (TEACHER_LOGITS,)
        value, dlogits = loss.value_and_grad(logits, Y, *teacher)
        p_t, q_t = softmax(TEACHER_LOGITS, temperature), softmax(logits, temperature)
        hard = -(Y * log_softmax(logits)).sum(axis=1).mean()
        kl = (p_t * np.log(p_t / q_t)).sum(axis=1).mean()
        t = f"{temperature:g}"
        lines.head("2. Loss", f"0.1 CE(y, q) + 0.9 T^2 KL(p_T || q_T), with temperature T = {t}")
        lines.matrix("v", TEACHER_LOGITS, "the teacher's logits")
        lines.matrix("p_T", p_t, "softmax(v / T): what the teacher says, softened")
        lines.matrix("q_T", q_t, "softmax(logits / T): what the student says, softened alike")
        lines.line(f"CE = {hard:.6f}, KL = sum of p_T log(p_T / q_T), mean over the batch = {kl:.6f}")
        lines.line(f"loss = 0.1 * {hard:.6f} + 0.9 * {t}^2 * {kl:.6f} = {value:.6f}")
        lines.line(
            "T^2, because gradients through logits / T shrink by T^2: so the weights mean the same at any T"
        )
        lines.head(
            "3. Gradient on the logits", "dlogits = [0.1 (q - y) + 0.9 T (q_T - p_T)] / B, rows sum to 0"
        )
    lines.matrix("dlogits", dlogits)

    dx = model.backward(dlogits, logits=True)
    dh = dlogits @ output.weight.T
    lines.head("4. Backward", "dweight = input^T dout;  dbias = column sums of dout;  dinput = dout weight^T")
    lines.matrix("dweight_2", output.dweight, "h^T dlogits")
    lines.sum("dweight_2[0,0]", h[:, 0], dlogits[:, 0], None, output.dweight[0, 0])
    lines.matrix("dbias_2", output.dbias)
    lines.matrix("dh", dh, "dlogits weight_2^T")
    lines.matrix(
        "da", np.where(before > 0, dh, 0.0), "dh where a > 0, else 0: ReLU lets the gradient through or not"
    )
    lines.matrix("dweight_1", hidden.dweight, "x^T da")
    lines.matrix("dbias_1", hidden.dbias)
    lines.matrix("dx", dx, "da weight_1^T: what a layer below would be given")

    def loss_at() -> float:
        return loss.value_and_grad(model.forward(X, logits=True), Y, *teacher)[0]

    lines.head(
        "5. Is that right?", "each parameter moved by +-1e-6: (loss(+) - loss(-)) / 2e-6 beside its gradient"
    )
    numeric = np.empty_like(model.params)
    for i in range(model.params.size):
        kept = model.params[i]
        model.params[i] = kept + 1e-6
        up = loss_at()
        model.params[i] = kept - 1e-6
        numeric[i] = (up - loss_at()) / 2e-6
        model.params[i] = kept
    lines.matrix("gradients", model.grads[None], "dweight_1, dbias_1, dweight_2, dbias_2 in one flat vector")
    lines.matrix("measured", numeric[None])
    lines.line(f"largest difference: {np.abs(numeric - model.grads).max():.1e}")

    old = model.params.copy()
    SGD(learning_rate).step(model.params, model.grads)
    lines.head("6. Update", f"gradient descent: params -= {learning_rate:g} * grads")
    lines.line(
        f"weight_1[0,0] = {old[0]:.6f} - {learning_rate:g} * {model.grads[0]:.6f} = {model.params[0]:.6f}"
    )
    lines.matrix("weight_1", hidden.weight)
    lines.matrix("bias_1", hidden.bias)
    lines.matrix("weight_2", output.weight)
    lines.matrix("bias_2", output.bias)
    lines.line(f"the loss was {value:.6f}, and is now {loss_at():.6f}")
    return lines.text()


class _Lines:
    def __init__(self):
        self._lines: list[str] = []

    def head(self, title: str, formula: str) -> None:
        self._lines += ["", title, "-" * len(title), formula]

    def line(self, text: str) -> None:
        self._lines.append(text)

    def matrix(self, name: str, values: np.ndarray, note: str = "") -> None:
        rows = np.array2string(
            np.atleast_2d(values), precision=4, floatmode="fixed", sign=" ", max_line_width=96
        )
        title = f"{name} ="
        body = rows.replace("\n", "\n" + " " * 14)
        self._lines.append(f"{title:>13} {body}" + (f"   {note}" if note else ""))

    def sum(self, name: str, a: np.ndarray, b: np.ndarray, start: float | None, result: float) -> None:
        terms = [f"{u:.4g}*{v:.4g}" for u, v in zip(a, b, strict=True)] + (
            [f"{start:.4g}"] if start is not None else []
        )
        self._lines.append(f"{'':>14}{name} = {' + '.join(terms)} = {result:.4f}")

    def text(self) -> str:
        return "\n".join(self._lines).lstrip("\n") + "\n"
