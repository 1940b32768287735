"""One training step in every library: the same net, the same batches, the same Adam.

A trainer is a harness peer that trains a multilayer perceptron on its own copy of the data. ``run(n)`` is n
shuffled epochs, the way a user of that library would write them; ``outputs`` trains over the first batches in
order and returns the parameters, which `reference` knows in float64.

Distilled cases minimise ``hard*CE(y, softmax z) + soft*T^2*KL(softmax v/T || softmax z/T)``. The teacher's
logits v are computed beforehand ("cached"), except by the trainers called online, which run the teacher in
every step.
"""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np

from .harness import OURS, Peer

TEACHER = (784, 1200, 1200, 10)
TEMPERATURE, HARD, SOFT = 4.0, 0.1, 0.9
LEARNING_RATE, BETA_1, BETA_2 = 1e-3, 0.9, 0.999
VERIFIED_STEPS = 3

# ---------------------------------------------------------------- data and reference


def initial_weights(sizes, seed: int = 0) -> list[np.ndarray]:
    """[weight, bias, weight, bias, ...] in float32; biases small but not 0, so that they are checked."""
    rng = np.random.default_rng(seed)
    arrays = []
    for i, o in zip(sizes, sizes[1:], strict=False):
        arrays.append((rng.standard_normal((i, o)) * np.sqrt(2.0 / i)).astype(np.float32))
        arrays.append((rng.standard_normal(o) * 0.05).astype(np.float32))
    return arrays


def forward(arrays: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Logits of a ReLU net, in the dtype of its arrays."""
    for weight, bias in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
        x = np.maximum(x @ weight + bias, 0)
    return x @ arrays[-2] + arrays[-1]


def softmax(z: np.ndarray) -> np.ndarray:
    """Of each row."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of bytes, gzipped or not. Not minidl's reader: no peer's process imports minidl."""
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def mnist(folder: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images in [0, 1] float32 (N, 784) and labels int64; ``part`` is "train" or "t10k"."""

    def find(stem):
        for name in (stem, stem.replace("-idx", ".idx")):
            for suffix in (".gz", ""):
                if (path := Path(folder, name + suffix)).exists():
                    return read_idx(path)
        raise FileNotFoundError(f"no {stem}[.gz] in {folder}")

    images, labels = find(f"{part}-images-idx3-ubyte"), find(f"{part}-labels-idx1-ubyte")
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255), labels.astype(np.int64)


def dataset(case: dict) -> tuple[np.ndarray, np.ndarray]:
    """The case's rows: random pixels and labels, or MNIST."""
    if case.get("data"):
        return mnist(case["data"], "train")
    rng = np.random.default_rng(1)
    rows = case["batch"] * case["steps"]
    return rng.random((rows, case["sizes"][0]), dtype=np.float32), rng.integers(0, case["sizes"][-1], rows)


def reference(case: dict, corrected_epsilon: bool) -> tuple[list[np.ndarray], float]:
    """The parameters after the first VERIFIED_STEPS batches, in float64, each formula as in a textbook; and
    the smallest distance of a ReLU's input from 0 on the way.

    ``corrected_epsilon``: the epsilon of PyTorch and Optax, added to the bias-corrected root; else that of
    Keras, scikit-learn and minidl, added to the root before the correction.
    """
    x, y = dataset(case)
    arrays = [w.astype(np.float64) for w in initial_weights(case["sizes"], case.get("seed", 0))]
    teacher = [w.astype(np.float64) for w in initial_weights(TEACHER, seed=2)]
    first, second = [np.zeros_like(w) for w in arrays], [np.zeros_like(w) for w in arrays]
    size, margin = case["batch"], np.inf
    for step in range(VERIFIED_STEPS):
        rows = slice(step * size, (step + 1) * size)
        layers = [x[rows].astype(np.float64)]
        for weight, bias in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
            z = layers[-1] @ weight + bias
            margin = min(margin, float(np.abs(z).min()))
            layers.append(np.maximum(z, 0))
        logits = layers[-1] @ arrays[-2] + arrays[-1]
        dout = softmax(logits) - np.eye(case["sizes"][-1])[y[rows]]
        if case["distilled"]:
            teacher_logits = forward(teacher, layers[0])
            dout = HARD * dout + SOFT * TEMPERATURE * (
                softmax(logits / TEMPERATURE) - softmax(teacher_logits / TEMPERATURE)
            )
        dout = dout / size
        grads = []
        for layer in reversed(range(len(layers))):
            grads[:0] = [layers[layer].T @ dout, dout.sum(0)]
            dout = (dout @ arrays[2 * layer].T) * (layers[layer] > 0)
        t = step + 1
        for w, g, m, v in zip(arrays, grads, first, second, strict=True):
            m += (1 - BETA_1) * (g - m)
            v += (1 - BETA_2) * (g * g - v)
            if corrected_epsilon:
                w -= LEARNING_RATE * (m / (1 - BETA_1**t)) / (np.sqrt(v / (1 - BETA_2**t)) + case["epsilon"])
            else:
                w -= (
                    LEARNING_RATE
                    * np.sqrt(1 - BETA_2**t)
                    / (1 - BETA_1**t)
                    * m
                    / (np.sqrt(v) + case["epsilon"])
                )
    return arrays, margin


# ---------------------------------------------------------------- the net in each library


def minidl_net(minidl, arrays, seed: int | None = None):
    """A ReLU net that ends in softmax, with these weights."""
    layers = minidl.layers
    *hidden, classes = (w.shape[1] for w in arrays[::2])
    model = minidl.Sequential(
        [
            layers.Input((len(arrays[0]),)),
            *(layers.Dense(n, activation="relu") for n in hidden),
            layers.Dense(classes, activation="softmax"),
        ],
        seed=seed,
    )
    model.set_weights(arrays)
    return model


def torch_net(torch, arrays):
    """The net up to its logits."""
    layers = []
    for weight, bias in zip(arrays[::2], arrays[1::2], strict=True):
        linear = torch.nn.Linear(*weight.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight.T)))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def jax_logits(jax, arrays, x):
    """`forward` in jax.numpy."""
    for weight, bias in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
        x = jax.nn.relu(x @ weight + bias)
    return x @ arrays[-2] + arrays[-1]


def torch_distillation(torch, z, y, v):
    """The distilled loss, on logits, labels and teacher logits."""
    functional, t = torch.nn.functional, TEMPERATURE
    soft = functional.kl_div(
        functional.log_softmax(z / t, 1), functional.softmax(v / t, 1), reduction="batchmean"
    )
    return HARD * functional.cross_entropy(z, y) + SOFT * t * t * soft


def jax_distillation(jax, z, y, v):
    jnp, t = jax.numpy, TEMPERATURE
    hard = -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1).mean()
    log_p = jax.nn.log_softmax(v / t)
    soft = (jnp.exp(log_p) * (log_p - jax.nn.log_softmax(z / t))).sum(1).mean()
    return HARD * hard + SOFT * t * t * soft


# ---------------------------------------------------------------- trainers


class Trainer(Peer):
    """Subclasses give ``build``, ``fit``, ``get``, ``set``; arrays: ``[weight, bias, weight, bias, ...]``."""

    corrected_epsilon = False
    online = False

    def prepare(self, case: dict) -> None:
        self.case, self.sizes, self.batch = case, tuple(case["sizes"]), case["batch"]
        self.epsilon, self.distilled = case["epsilon"], case["distilled"]
        self.seed = case.get("seed", 0)  # of the initial weights and of what shuffles
        self.x, self.y = dataset(case)
        self.teacher = initial_weights(TEACHER, seed=2) if self.distilled else None
        self.teacher_logits = None
        if self.distilled and not self.online:
            self.teacher_logits = forward(self.teacher, self.x)
        self.build(initial_weights(self.sizes, self.seed))

    def outputs(self) -> list[np.ndarray]:
        rows = slice(VERIFIED_STEPS * self.batch)
        self.fit(
            1,
            self.x[rows],
            self.y[rows],
            None if self.teacher_logits is None else self.teacher_logits[rows],
            False,
        )
        return [np.array(array) for array in self.get()]

    def before(self) -> None:
        """With dead units: train a little, then push half of each hidden layer below zero for every input.

        From here the moments of their weights decay, through the denormals, during the timed epoch.
        """
        if self.case.get("dead"):
            self.set(initial_weights(self.sizes, self.seed))
            few = slice(50 * self.batch)
            self.fit(1, self.x[few], self.y[few], None, True)
            arrays = [np.array(array) for array in self.get()]
            for bias in arrays[1:-2:2]:
                bias[: int(len(bias) * self.case["dead"])] = -1e3
            self.set(arrays)

    def run(self, count: int) -> None:
        self.fit(count, self.x, self.y, self.teacher_logits, True)

    def predictions(self, x: np.ndarray) -> np.ndarray:
        """The class of each row."""
        return forward([np.asarray(a) for a in self.get()], x).argmax(1)


class MinidlTrainer(Trainer):
    def load(self) -> None:
        import minidl

        minidl.set_num_threads(self.threads)
        self.minidl = minidl

    def build(self, arrays) -> None:
        self.model = minidl_net(self.minidl, arrays, self.seed)
        optimizer = self.minidl.optimizers.Adam(LEARNING_RATE, epsilon=self.epsilon)
        self.model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy")

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        distil = {}
        if teacher_logits is not None:
            distil = dict(
                target_model=teacher_logits, temperature=TEMPERATURE, hard_weight=HARD, soft_weight=SOFT
            )
        self.model.fit(x, y, batch_size=self.batch, epochs=epochs, verbose=0, shuffle=shuffle, **distil)

    def get(self):
        return self.model.get_weights()

    def set(self, arrays) -> None:
        self.model.set_weights(arrays)

    def predictions(self, x):
        return self.model.predict(x).argmax(1)


class ArraysTrainer(Trainer):
    """Its parameters are NumPy arrays, ``self.arrays``."""

    def get(self):
        return self.arrays

    def set(self, arrays) -> None:
        for mine, given in zip(self.arrays, arrays, strict=True):
            mine[...] = given


class NumpyTrainer(ArraysTrainer):
    """Written by hand with BLAS calls and in-place updates, as a careful NumPy user would."""

    def build(self, arrays) -> None:
        self.arrays = arrays
        self.first, self.second = ([np.zeros_like(a) for a in arrays] for _ in range(2))
        self.iterations = 0
        self.rng = np.random.default_rng(self.seed)

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        for _ in range(epochs):
            order = self.rng.permutation(len(x)) if shuffle else np.arange(len(x))
            for start in range(0, len(x), self.batch):
                rows = order[start : start + self.batch]
                self.step(x[rows], y[rows], None if teacher_logits is None else teacher_logits[rows])

    def step(self, x, y, teacher_logits) -> None:
        layers, last = [x], len(self.arrays) // 2 - 1
        for i in range(last + 1):
            z = layers[-1] @ self.arrays[2 * i]
            z += self.arrays[2 * i + 1]
            if i < last:
                np.maximum(z, 0, out=z)
            layers.append(z)
        z = layers[-1]
        d = softmax(z)
        d[np.arange(len(y)), y] -= 1
        if teacher_logits is not None:
            t = np.float32(TEMPERATURE)
            d *= np.float32(HARD)
            d += np.float32(SOFT) * t * (softmax(z / t) - softmax(teacher_logits / t))
        d /= np.float32(len(y))
        self.iterations += 1
        t = self.iterations
        rate = np.float32(LEARNING_RATE * np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t))
        for i in range(last, -1, -1):
            grads = layers[i].T @ d, d.sum(0)
            if i:
                d = d @ self.arrays[2 * i].T
                d *= layers[i] > 0
            for j, g in enumerate(grads, 2 * i):
                m, v = self.first[j], self.second[j]
                m *= np.float32(BETA_1)
                m += np.float32(1 - BETA_1) * g
                v *= np.float32(BETA_2)
                g *= g
                g *= np.float32(1 - BETA_2)
                v += g
                root = np.sqrt(v)
                root += np.float32(self.epsilon)
                np.divide(m, root, out=root)
                root *= rate
                self.arrays[j] -= root


class SklearnTrainer(Trainer):
    def load(self) -> None:
        import warnings

        from sklearn.neural_network import MLPClassifier

        warnings.simplefilter("ignore")
        self.classifier = MLPClassifier

    def build(self, arrays) -> None:
        self.model = self.classifier(
            self.sizes[1:-1],
            batch_size=self.batch,
            alpha=0.0,
            learning_rate_init=LEARNING_RATE,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=self.epsilon,
            n_iter_no_change=10**9,
            random_state=self.seed,
        )
        self.classes = np.arange(self.sizes[-1])
        # a first call makes the arrays; later ones may then lack classes, as a batch of one does
        self.model.partial_fit(self.x[: self.batch], self.y[: self.batch], classes=self.classes)
        del self.model._optimizer  # its moments and step count are of that first batch
        self.set(arrays)

    def get(self):
        return [a for pair in zip(self.model.coefs_, self.model.intercepts_, strict=True) for a in pair]

    def set(self, arrays) -> None:
        for mine, given in zip(self.get(), arrays, strict=True):
            mine[...] = given

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        self.model.set_params(shuffle=shuffle)
        for _ in range(epochs):
            self.model.partial_fit(x, y)


class TorchTrainer(Trainer):
    """Eager PyTorch; subclasses fuse the optimizer, compile the step, or run the teacher in it."""

    corrected_epsilon = True
    fused: bool | None = None
    compiled = False

    def load(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.torch = torch

    def build(self, arrays) -> None:
        torch = self.torch
        torch.manual_seed(self.seed)
        model = torch_net(torch, arrays)
        self.model, self.teacher_net = (
            model,
            torch_net(torch, self.teacher) if self.online and self.distilled else None,
        )
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=LEARNING_RATE, betas=(BETA_1, BETA_2), eps=self.epsilon, fused=self.fused
        )

        def plain(x, y):
            return torch.nn.functional.cross_entropy(model(x), y)

        def distilled(x, y, v):
            return torch_distillation(torch, model(x), y, v)

        self.loss = distilled if self.distilled else plain
        if self.compiled:
            torch._dynamo.reset()
            self.loss = torch.compile(self.loss)

    def get(self):
        arrays = [p.detach().numpy() for p in self.model.parameters()]
        return [a.T if a.ndim == 2 else a for a in arrays]

    def set(self, arrays) -> None:
        with self.torch.no_grad():
            for mine, given in zip(self.get(), arrays, strict=True):
                mine[...] = given

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        torch = self.torch
        data = [torch.from_numpy(a) for a in (x, y, teacher_logits) if a is not None]
        for _ in range(epochs):
            order = torch.randperm(len(x)) if shuffle else torch.arange(len(x))
            for start in range(0, len(x), self.batch):
                rows = order[start : start + self.batch]
                batch = [a[rows] for a in data]
                if self.teacher_net is not None:
                    with torch.no_grad():
                        batch.append(self.teacher_net(batch[0]))
                self.optimizer.zero_grad()
                self.loss(*batch).backward()
                self.optimizer.step()


class TorchFused(TorchTrainer):
    fused = True


class TorchCompiled(TorchFused):
    compiled = True


class TorchOnline(TorchFused):
    online = True


class JaxTrainer(Trainer):
    """One jitted step a call; ``JaxScan`` runs the whole epoch in lax.scan."""

    corrected_epsilon = True

    def load(self) -> None:
        import jax
        import optax

        self.jax, self.optax = jax, optax

    def build(self, arrays) -> None:
        jax, optax = self.jax, self.optax
        self.params = [jax.numpy.asarray(a) for a in arrays]
        optimizer = optax.adam(LEARNING_RATE, BETA_1, BETA_2, eps=self.epsilon)
        self.state = optimizer.init(self.params)
        self.key, self.rng = jax.random.PRNGKey(self.seed), np.random.default_rng(self.seed)

        def loss(params, x, y, v):
            z = jax_logits(jax, params, x)
            if v is None:
                return optax.softmax_cross_entropy_with_integer_labels(z, y).mean()
            return jax_distillation(jax, z, y, v)

        def step(params, state, x, y, v):
            updates, state = optimizer.update(jax.grad(loss)(params, x, y, v), state)
            return optax.apply_updates(params, updates), state

        self.compile(step)

    def compile(self, step) -> None:
        self.step = self.jax.jit(step, donate_argnums=(0, 1))

    def get(self):
        return [np.asarray(p) for p in self.params]

    def set(self, arrays) -> None:
        self.params = [self.jax.numpy.asarray(a) for a in arrays]

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        for _ in range(epochs):
            order = self.rng.permutation(len(x)) if shuffle else np.arange(len(x))
            for start in range(0, len(x), self.batch):
                rows = order[start : start + self.batch]
                v = None if teacher_logits is None else teacher_logits[rows]
                self.params, self.state = self.step(self.params, self.state, x[rows], y[rows], v)
        self.jax.block_until_ready(self.params)


class JaxScan(JaxTrainer):
    def prepare(self, case) -> None:
        self.on_device = {}
        super().prepare(case)

    def compile(self, step) -> None:
        jax, batch = self.jax, self.batch

        def epoch(params, state, key, x, y, v, shuffle):
            order = jax.random.permutation(key, len(x)) if shuffle else jax.numpy.arange(len(x))
            whole = len(x) // batch * batch

            def body(carry, rows):
                return step(*carry, x[rows], y[rows], None if v is None else v[rows]), None

            carry, _ = jax.lax.scan(body, (params, state), order[:whole].reshape(-1, batch))
            if whole < len(x):
                carry, _ = body(carry, order[whole:])
            return carry

        self.epoch = jax.jit(epoch, static_argnums=6, donate_argnums=(0, 1))

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        if len(x) not in self.on_device:  # JAX copies arrays of NumPy; once is enough
            to_jax = self.jax.numpy.asarray
            self.on_device[len(x)] = (
                to_jax(x),
                to_jax(y),
                None if teacher_logits is None else to_jax(teacher_logits),
            )
        data = self.on_device[len(x)]
        for _ in range(epochs):
            self.key, key = self.jax.random.split(self.key)
            self.params, self.state = self.epoch(self.params, self.state, key, *data, shuffle)
        self.jax.block_until_ready(self.params)


class KerasTrainer(Trainer):
    """``model.fit``; distilled by ``keras.distillation.Distiller``, which runs the teacher in every step."""

    backend = "jax"
    online = True

    def load(self) -> None:
        os.environ["KERAS_BACKEND"] = self.backend
        if self.backend == "torch":
            import torch

            torch.set_num_threads(self.threads)
        import keras

        self.keras = keras

    def _net(self, arrays, last: str):
        layers = self.keras.layers
        *hidden, classes = (w.shape[1] for w in arrays[::2])
        net = self.keras.Sequential(
            [
                layers.Input((arrays[0].shape[0],)),
                *(layers.Dense(n, activation="relu") for n in hidden),
                layers.Dense(classes, activation=last),
            ]
        )
        net.set_weights(arrays)
        return net

    def build(self, arrays) -> None:
        keras = self.keras
        keras.utils.set_random_seed(self.seed)
        self.student = self.model = self._net(arrays, "linear" if self.distilled else "softmax")
        if self.distilled:
            from keras.distillation import Distiller, LogitsDistillation

            # An object: by its default, the name "kl_divergence", Keras 3.15 feeds logits where the loss
            # takes probabilities, and leaves out the square of the temperature.
            kl = keras.losses.KLDivergence()
            self.model = Distiller(
                teacher=self._net(self.teacher, "linear"),
                student=self.student,
                student_loss_weight=HARD,
                distillation_losses=LogitsDistillation(TEMPERATURE, loss=kl),
            )
        self.model.compile(
            optimizer=keras.optimizers.Adam(LEARNING_RATE, BETA_1, BETA_2, epsilon=self.epsilon),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=self.distilled),
        )

    def get(self):
        return self.student.get_weights()

    def set(self, arrays) -> None:
        self.student.set_weights(arrays)

    def fit(self, epochs, x, y, teacher_logits, shuffle) -> None:
        self.model.fit(x, y, batch_size=self.batch, epochs=epochs, shuffle=shuffle, verbose=0)


class KerasTorch(KerasTrainer):
    backend = "torch"


TRAINERS = {
    OURS: MinidlTrainer,
    "numpy": NumpyTrainer,
    "sklearn": SklearnTrainer,
    "torch-eager": TorchTrainer,
    "torch-fused": TorchFused,
    "torch-compile": TorchCompiled,
    "jax-step": JaxTrainer,
    "jax-scan": JaxScan,
    "keras-jax": KerasTrainer,
    "keras-torch": KerasTorch,
    "torch-online": TorchOnline,
    "keras-distiller": KerasTrainer,
}
