"""A grid search of scikit-learn and a sweep of minidl, their fits run by Ray. Needs scikit-learn and ray.

    python examples/ray_search.py

``ray.init()`` starts the workers on this machine, ``ray.init(address="auto")`` joins a cluster. A sweep takes any
executor; Ray has none, so `RayExecutor` makes one.
"""

from __future__ import annotations

from concurrent.futures import Executor

try:
    import joblib
    import ray
    from ray.util.joblib import register_ray
    from sklearn.model_selection import GridSearchCV
except ImportError as error:
    raise ImportError("this example needs ray and scikit-learn: pip install ray scikit-learn") from error

import minidl
from minidl.datasets import mnist
from minidl.interop.sklearn import MLPClassifier
from minidl.layers import Dense, Input


class RayExecutor(Executor):
    def submit(self, function, *arguments, **keywords):
        return ray.remote(function).remote(*arguments, **keywords).future()


def main(digits=2000, epochs=10, workers=2):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    y = y[:digits]
    ray.init(num_cpus=workers, include_dashboard=False)
    register_ray()
    estimator = MLPClassifier(hidden_layer_sizes=(64,), max_iter=epochs, random_state=0)
    search = GridSearchCV(estimator, {"learning_rate_init": [0.001, 0.01]}, cv=3)
    with joblib.parallel_config(backend="ray"):
        search.fit(x, y)
    print(f"{search.best_params_}: {search.score(x_test, y_test):.2%} of the test digits")

    student = minidl.Sequential([Input((784,)), Dense(16, "relu"), Dense(10, "softmax")])
    sweep = minidl.distill_sweep(
        search.best_estimator_.model_, student, x, y, temperatures=(2.0, 4.0), seeds=(0, 1), epochs=epochs,
        validation_data=(x_test, y_test), executor=RayExecutor(),
    )  # fmt: skip
    print(sweep)
    ray.shutdown()
    return search, sweep


if __name__ == "__main__":
    main()
