"""Numbers with noise: a teacher that stops early answers for samples that were never measured, and a small net learns.

    python examples/early_stopped_regression.py

The teacher trains on the samples whose target is known, until it has not improved on held-out ones for some epochs, and
goes back to its best epoch. Its answers are the targets of the other samples. The same small net without a
teacher stops early, too. The table has the root of the mean squared error on test data without noise.
"""

from __future__ import annotations

import numpy as np

import minidl
from minidl.callbacks import EarlyStopping
from minidl.layers import Dense, Input


def friedman(count, rng, noise):
    """Friedman 1991: five of ten columns matter. Targets are brought to about mean 0 and deviation 1."""
    x = rng.random((count, 10)).astype("f4")
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return x, (y - 14.4 + rng.normal(scale=noise, size=count)) / 5


def net(*units, seed):
    hidden = [Dense(count, "relu") for count in units]
    model = minidl.Sequential([Input((10,)), *hidden, Dense(1)], seed=seed)
    model.compile(minidl.Adam(0.002), "mse")
    return model


def stop_early(model, x, y, epochs, verbose):
    """Train on three quarters of the samples; the others say when to stop."""
    train, held_out = np.split(np.arange(len(x)), [len(x) * 3 // 4])
    stop = EarlyStopping("val_loss", patience=30, restore_best_weights=True)
    held_out = x[held_out], y[held_out]
    model.fit(x[train], y[train], epochs=epochs, validation_data=held_out, callbacks=[stop], verbose=verbose)
    return model


def main(known=400, unknown=4000, epochs=300, units=((256, 256), (24,)), noise=1.0, verbose=0):
    rng = np.random.default_rng(0)
    x, y = friedman(known, rng, noise)
    others, _ = friedman(unknown, rng, noise)
    x_test, y_test = friedman(4000, rng, noise=0.0)

    teacher = stop_early(net(*units[0], seed=0), x, y, epochs, verbose)
    plain = stop_early(net(*units[1], seed=1), x, y, 10 * epochs, verbose)

    student = net(*units[1], seed=1)
    joined = np.concatenate([x, others])
    targets = np.concatenate([y, teacher.predict(others, verbose=0)[:, 0]])
    loss = minidl.losses.RegressionDistillation(hard_weight=0.1, soft_weight=0.9)
    minidl.distill(teacher, student, joined, targets, epochs=epochs // 3, loss=loss, verbose=verbose)

    results = {}
    for name, model in {"teacher": teacher, "student without": plain, "student": student}.items():
        error = model.predict(x_test, verbose=0)[:, 0] - y_test
        results[name] = float(np.sqrt(np.mean(error**2)))
        print(f"{name:<16} {model.count_params():>7,} weights   RMSE {results[name]:.3f}")
    return results


if __name__ == "__main__":
    main()
