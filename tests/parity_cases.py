"""What is compared with Keras 3 and PyTorch, written once for both sides.

``train(lib, case)`` is one listing that runs with ``lib`` being keras or minidl. ``benchmarks/parity.py``
runs it with both and keeps Keras's numbers in ``golden/parity.npz``; ``test_parity.py`` runs it with
minidl alone against those numbers.
"""

from __future__ import annotations

import numpy as np

EPOCHS, BATCH_SIZE, DIGITS, TEST_DIGITS = 3, 64, 2000, 500
LOSS_TOLERANCE = 1e-4  # relative, of each epoch's loss
GRADIENT_TOLERANCE = 1e-5  # of the largest entry

_MOMENTUM = ("SGD", {"learning_rate": 0.05, "momentum": 0.9})
_ADAM = ("Adam", {"learning_rate": 0.002})
_ADAMW = ("AdamW", {"learning_rate": 0.002, "weight_decay": 0.02})
_RMSPROP = ("RMSprop", {"learning_rate": 0.001})
_OPTIMIZERS = {"momentum": _MOMENTUM, "adam": _ADAM, "adamw": _ADAMW, "rmsprop": _RMSPROP}


# Hidden units are tanh where nothing else is said. Two right computations of a ReLU net can part for good:
# one rounding puts a unit on the other side of its kink for one sample, and Adam takes a first gradient of
# any size for a full step. Seen here with Adam and sample weights in float32, 5e-4 of the loss; in float64
# the same case agrees with Keras to 2e-8. The absolute error is all kink: its gradient is compared, and
# its training with plain NumPy.


def _with(optimizer, **more):
    return optimizer[0], {**optimizer[1], **more}


def _cases() -> dict[str, dict]:
    cases = {}
    for name, optimizer in _OPTIMIZERS.items():
        cases[name] = {"optimizer": optimizer, "hidden": "relu"}
        cases[f"{name}, sample weights"] = {"optimizer": optimizer, "sample_weight": True}
        cases[f"{name}, L2"] = {"optimizer": optimizer, "regularizer": ("L2", {"l2": 1e-3})}
        cases[f"{name}, clipnorm"] = {"optimizer": _with(optimizer, clipnorm=0.1)}
        cases[f"{name}, everything"] = {
            "optimizer": (optimizer[0], {"weight_decay": 0.01, **optimizer[1], "global_clipnorm": 0.5}),
            "sample_weight": True,
            "regularizer": ("L1L2", {"l1": 1e-4, "l2": 1e-4}),
            "constraint": ("MaxNorm", {"max_value": 1.0}),
        }
    cases["clipvalue"] = {"optimizer": _with(_MOMENTUM, clipvalue=0.005)}
    cases["global_clipnorm"] = {"optimizer": _with(_MOMENTUM, global_clipnorm=0.2)}
    cases["SGD"] = {"optimizer": ("SGD", {"learning_rate": 0.2})}
    cases["nesterov"] = {"optimizer": _with(_MOMENTUM, nesterov=True)}
    cases["amsgrad"] = {"optimizer": _with(_ADAM, amsgrad=True)}
    cases["rmsprop, momentum"] = {"optimizer": _with(_RMSPROP, momentum=0.5)}
    cases["rmsprop, centered"] = {"optimizer": _with(_RMSPROP, centered=True, epsilon=1e-5)}
    for name, rate in {"Nadam": 0.002, "Adamax": 0.005, "Adagrad": 0.05, "Lion": 0.0005}.items():
        cases[name.lower()] = {"optimizer": (name, {"learning_rate": rate})}
    average = {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7}
    cases["average"] = {"optimizer": _with(_ADAM, **average)}
    cases["accumulated"] = {"optimizer": _with(_MOMENTUM, gradient_accumulation_steps=3, clipnorm=0.1)}
    cases["average, accumulated, everything"] = {
        "optimizer": _with(_ADAMW, **average, gradient_accumulation_steps=4),
        "regularizer": ("L2", {"l2": 1e-3}),
        "constraint": ("MaxNorm", {"max_value": 1.0}),
    }
    for name, settings in {
        "NonNeg": {},
        "UnitNorm": {},
        "MinMaxNorm": {"min_value": 0.5, "rate": 0.5},
    }.items():
        cases[name] = {"optimizer": _ADAM, "constraint": (name, settings)}
    schedules = {
        "cosine": ("CosineDecay", {"initial_learning_rate": 0.2, "decay_steps": 90, "alpha": 0.1}),
        "warmup": (
            "CosineDecay",
            {"initial_learning_rate": 0.01, "decay_steps": 60, "warmup_target": 0.2, "warmup_steps": 20},
        ),
        "exponential": (
            "ExponentialDecay",
            {"initial_learning_rate": 0.2, "decay_steps": 20, "decay_rate": 0.5},
        ),
        "piecewise": ("PiecewiseConstantDecay", {"boundaries": [30, 60], "values": [0.2, 0.05, 0.01]}),
    }
    for name, schedule in schedules.items():
        cases[f"schedule, {name}"] = {"optimizer": ("SGD", {}), "schedule": schedule}
    cases["class weights"] = {"optimizer": _ADAM, "class_weight": {0: 2.0, 3: 0.25, 7: 0.5}}
    cases["sparse labels"] = {"optimizer": _ADAM, "loss": "sparse_categorical_crossentropy"}
    for hidden in ("leaky_relu", "sigmoid", "gelu", "silu", "softplus", "elu"):
        cases[f"hidden {hidden}"] = {"optimizer": _ADAM, "hidden": hidden}
    cases["binary crossentropy"] = {"optimizer": _ADAM, "loss": "binary_crossentropy", "head": "sigmoid"}
    for loss in ("mean_squared_error", "huber"):
        cases[loss] = {"optimizer": _ADAM, "loss": loss, "head": "linear"}
    cases["squared error under sigmoid"] = {"optimizer": _ADAM, "loss": "mse", "head": "sigmoid"}
    cases["squared error under softmax"] = {"optimizer": _ADAM, "loss": "mse", "head": "softmax"}
    cases["kl_divergence"] = {"optimizer": _ADAM, "loss": "kl_divergence", "smooth_targets": True}
    return cases


CASES = _cases()


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images (N, 784) float32 in [0, 1], with their labels."""
    from minidl.datasets import mnist

    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = x[:DIGITS].reshape(-1, 784), x_test[:TEST_DIGITS].reshape(-1, 784)
    scale = np.float32(1 / 255)
    return x * scale, y[:DIGITS].astype(np.int64), x_test * scale, y_test[:TEST_DIGITS].astype(np.int64)


def initial_weights(sizes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    """Glorot-uniform weights and small biases. RandomState: its numbers are frozen for all NumPy versions."""
    random, weights = np.random.RandomState(seed), []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        limit = np.sqrt(6 / (fan_in + fan_out))
        weights.append(random.uniform(-limit, limit, (fan_in, fan_out)).astype(np.float32))
        weights.append(random.uniform(-0.1, 0.1, fan_out).astype(np.float32))
    return weights


def sample_weights(count: int) -> np.ndarray:
    """0, 0.5, 1, 1.5, 0, ...: some samples without weight."""
    return (np.arange(count) % 4 / 2).astype(np.float32)


def optimizer_of(lib, case):
    name, settings = case["optimizer"]
    settings = dict(settings)
    if "schedule" in case:
        schedule, arguments = case["schedule"]
        settings["learning_rate"] = getattr(lib.optimizers.schedules, schedule)(**arguments)
    return getattr(lib.optimizers, name)(**settings)


def train(lib, case) -> dict[str, np.ndarray]:
    """Three epochs of ``case`` with keras or minidl: what is compared."""
    x, y, x_test, y_test = digits()
    options = {}
    if "regularizer" in case:
        name, settings = case["regularizer"]
        options["kernel_regularizer"] = getattr(lib.regularizers, name)(**settings)
    if "constraint" in case:
        name, settings = case["constraint"]
        options["kernel_constraint"] = getattr(lib.constraints, name)(**settings)
    model = lib.models.Sequential()
    model.add(lib.layers.Input((784,)))
    model.add(lib.layers.Dense(24, activation=case.get("hidden", "tanh"), **options))
    model.add(lib.layers.Dense(16, activation=case.get("hidden", "tanh")))
    model.add(lib.layers.Dense(10, activation=case.get("head", "softmax")))
    model.set_weights(initial_weights((784, 24, 16, 10)))
    loss = case.get("loss", "categorical_crossentropy")
    model.compile(optimizer=optimizer_of(lib, case), loss=loss, metrics=["accuracy"])
    if not loss.startswith("sparse"):
        y, y_test = np.eye(10, dtype=np.float32)[y], np.eye(10, dtype=np.float32)[y_test]
    if case.get("smooth_targets"):
        y, y_test = 0.9 * y + np.float32(0.01), 0.9 * y_test + np.float32(0.01)
    history = model.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        sample_weight=sample_weights(len(x)) if case.get("sample_weight") else None,
        class_weight=case.get("class_weight"),
    ).history
    test_loss, test_accuracy = model.evaluate(x_test, y_test, verbose=0)
    return {
        "loss": np.array(history["loss"], np.float64),
        "accuracy": np.array(history["accuracy"], np.float64),
        "test": np.array([test_loss, test_accuracy], np.float64),
        "head": np.asarray(model.get_weights()[-2], np.float32),
    }


def disagreement(found: dict, expected: dict) -> dict[str, float]:
    """Largest relative difference of the losses, accuracies in samples, head weights by the largest entry."""
    losses = np.append(found["loss"], found["test"][0]), np.append(expected["loss"], expected["test"][0])
    return {
        "loss": float(np.max(np.abs(losses[0] - losses[1]) / np.abs(losses[1]))),
        "accuracy": float(np.max(np.abs(found["accuracy"] - expected["accuracy"])) * DIGITS),
        "head": float(np.max(np.abs(found["head"] - expected["head"])) / np.max(np.abs(expected["head"]))),
    }


# ---- layers between the dense ones, against Keras

BETWEEN = {
    "batch normalization": ("BatchNormalization", {"momentum": 0.9}),
    "layer normalization": ("LayerNormalization", {}),
    "prelu": ("PReLU", {"alpha_initializer": "ones"}),
}


def with_layers_between(lib, name: str, **changed) -> dict[str, np.ndarray]:
    """An epoch of Adam on a net with the layer after each hidden Dense: losses, predictions, moving averages."""
    x, y, x_test, _ = digits()
    kind, settings = BETWEEN[name]
    model = lib.models.Sequential()
    model.add(lib.layers.Input((784,)))
    for units in (24, 16):
        # without a bias, of which batch normalisation leaves a gradient of rounding errors alone
        model.add(lib.layers.Dense(units, use_bias=False))
        model.add(getattr(lib.layers, kind)(**settings | changed))
        model.add(lib.layers.Activation("tanh"))
    model.add(lib.layers.Dense(10, activation="softmax"))
    weights = initial_weights((784, 24, 16, 10))
    for layer, given in zip(model.layers[::3], ([weights[0]], [weights[2]], weights[4:]), strict=True):
        layer.set_weights(given)
    model.compile(optimizer=lib.optimizers.Adam(0.002), loss="categorical_crossentropy")
    y = np.eye(10, dtype=np.float32)[y]
    history = model.fit(x, y, batch_size=BATCH_SIZE, epochs=1, shuffle=False, verbose=0).history
    layers = [model.layers[1], model.layers[4]]
    return {
        "loss": np.array(history["loss"], np.float64),
        "predictions": np.asarray(model.predict(x_test[:30], verbose=0), np.float32),
        "weights": np.concatenate([np.asarray(w) for layer in layers for w in layer.get_weights()]),
    }


def between_disagreement(found: dict, expected: dict) -> float:
    """The largest difference, by the largest entry of each array."""
    return max(
        float(np.max(np.abs(found[key] - expected[key])) / np.max(np.abs(expected[key]))) for key in expected
    )


# ---- losses and their gradients, against PyTorch's autograd

LOSSES = {
    "categorical_crossentropy": ("CategoricalCrossentropy", {"from_logits": True}),
    "categorical_crossentropy, smoothed": (
        "CategoricalCrossentropy",
        {"from_logits": True, "label_smoothing": 0.1},
    ),
    "sparse_categorical_crossentropy": ("SparseCategoricalCrossentropy", {"from_logits": True}),
    "binary_crossentropy": ("BinaryCrossentropy", {"from_logits": True}),
    "mean_squared_error": ("MeanSquaredError", {}),
    "half_mean_squared_error": ("HalfMeanSquaredError", {}),
    "mean_absolute_error": ("MeanAbsoluteError", {}),
    "huber": ("Huber", {"delta": 0.7}),
    "distillation": (
        "KnowledgeDistillation",
        {"temperature": 4.0, "hard_weight": 0.1, "soft_weight": 0.9},
    ),
    "distillation, T 1": (
        "KnowledgeDistillation",
        {"temperature": 1.0, "hard_weight": 0.5, "soft_weight": 0.5},
    ),
    "distillation, T 2.5": (
        "KnowledgeDistillation",
        {"temperature": 2.5, "hard_weight": 1.0, "soft_weight": 2.0},
    ),
    "distillation, T 20": (
        "KnowledgeDistillation",
        {"temperature": 20.0, "hard_weight": 0.1, "soft_weight": 0.9},
    ),
    "distillation, soft only": (
        "KnowledgeDistillation",
        {"temperature": 4.0, "hard_weight": 0.0, "soft_weight": 1.0},
    ),
    "distillation, standardized": (
        "KnowledgeDistillation",
        {"temperature": 2.0, "hard_weight": 0.1, "soft_weight": 9.0, "standardize": True},
    ),
    "distillation, standardized, T 4": (
        "KnowledgeDistillation",
        {"temperature": 4.0, "hard_weight": 0.0, "soft_weight": 1.0, "standardize": True},
    ),
    "decoupled": ("DecoupledKD", {}),
    "decoupled, T 2": (
        "DecoupledKD",
        {"temperature": 2.0, "target_weight": 0.7, "nontarget_weight": 2.0, "hard_weight": 0.3},
    ),
    "normalized": ("NormalizedKD", {}),
    "normalized, T 3": (
        "NormalizedKD",
        {"temperature": 3.0, "gamma": 0.8, "target_weight": 0.6, "hard_weight": 0.0},
    ),
    "dist": ("DIST", {}),
    "dist, T 4": ("DIST", {"temperature": 4.0, "beta": 2.0, "gamma": 0.5, "hard_weight": 0.3}),
    "logit matching": ("LogitMatching", {}),
    "logit matching, labels": ("LogitMatching", {"hard_weight": 0.4, "soft_weight": 0.6}),
}


def loss_inputs() -> dict[str, np.ndarray]:
    """Logits of a student and of a teacher (24, 10), labels, and weights of which some are 0."""
    random = np.random.RandomState(2)
    return {
        "logits": (3 * random.randn(24, 10)).astype(np.float32),
        "teacher_logits": (4 * random.randn(24, 10)).astype(np.float32),
        "labels": random.randint(0, 10, 24),
        "weight": sample_weights(24),
    }


def value_and_gradient(name: str, weighted: bool, dtype) -> tuple[float, np.ndarray]:
    """minidl's side of a loss case."""
    from minidl import losses

    class_name, settings = LOSSES[name]
    loss, given = getattr(losses, class_name)(**settings), loss_inputs()
    logits, labels = given["logits"].astype(dtype), given["labels"]
    y = labels if class_name.startswith("Sparse") else np.eye(10, dtype=dtype)[labels]
    weight = given["weight"] if weighted else None
    if loss.distills:
        return loss.value_and_grad(logits, y, given["teacher_logits"].astype(dtype), sample_weight=weight)
    return loss.value_and_grad(logits, y, sample_weight=weight)


# ---- distillation from fit, against PyTorch

DISTILLATION = {"temperature": 4.0, "hard_weight": 0.3, "soft_weight": 0.7}
DISTILLATION_SGD = {"learning_rate": 0.02, "momentum": 0.9}
KEPT = 2000  # of the first gradient, the last so many entries: keeps the golden file small
TEACHER_SIZES, STUDENT_SIZES = (784, 32, 10), (784, 24, 16, 10)


def teacher_weights() -> list[np.ndarray]:
    return [3 * weight for weight in initial_weights(TEACHER_SIZES, seed=1)]


def mlp(lib, sizes, weights):
    model = lib.models.Sequential()
    model.add(lib.layers.Input(sizes[:1]))
    for units in sizes[1:-1]:
        model.add(lib.layers.Dense(units, activation="relu"))
    model.add(lib.layers.Dense(sizes[-1], activation="softmax"))
    model.set_weights(weights)
    return model


def distilled() -> dict[str, np.ndarray]:
    """minidl's side: the first batch's gradient, then three epochs taught by a teacher."""
    import minidl.models
    from minidl.losses import KnowledgeDistillation

    lib, (x, y, _, _) = minidl, digits()
    y = np.eye(10, dtype=np.float32)[y]
    teacher = mlp(lib, TEACHER_SIZES, teacher_weights())
    student = mlp(lib, STUDENT_SIZES, initial_weights(STUDENT_SIZES))
    batch = slice(0, BATCH_SIZE)
    logits = student.forward(x[batch], logits=True)
    loss = KnowledgeDistillation(**DISTILLATION)
    _, dlogits = loss.value_and_grad(logits, y[batch], teacher.predict_logits(x[batch]))
    student.backward(dlogits, logits=True)
    gradient = student.grads.copy()
    student.compile(optimizer=lib.optimizers.SGD(**DISTILLATION_SGD), loss="categorical_crossentropy")
    history = student.fit(
        x,
        y,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        target_model=teacher,
        **DISTILLATION,
    ).history
    return {
        "gradient": gradient[-KEPT:],
        "loss": np.array(history["loss"], np.float64),
        "head": np.asarray(student.get_weights()[-2], np.float32),
    }


def gradient_disagreement(found, expected) -> float:
    """Of (value, gradient): the value's relative difference or the gradient's by its largest entry."""
    value = abs(found[0] - expected[0]) / abs(expected[0])
    return float(max(value, np.max(np.abs(found[1] - expected[1])) / np.max(np.abs(expected[1]))))


def distilled_disagreement(found: dict, expected: dict) -> dict[str, float]:
    largest = np.max(np.abs(expected["gradient"]))
    return {
        "gradient": float(np.max(np.abs(found["gradient"] - expected["gradient"])) / largest),
        "loss": float(np.max(np.abs(found["loss"] / expected["loss"] - 1))),
    }
