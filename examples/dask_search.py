"""A grid search of scikit-learn and a sweep of minidl, their fits run by Dask. Needs scikit-learn, dask[distributed].

    python examples/dask_search.py

`LocalCluster` starts the workers on this machine; ``Client("scheduler:8786")`` in its place finds those of a cluster.
"""

from __future__ import annotations

try:
    import joblib
    from dask.distributed import Client, LocalCluster
    from sklearn.model_selection import GridSearchCV
except ImportError as error:
    raise ImportError(
        'this example needs dask and scikit-learn: pip install scikit-learn "dask[distributed]"'
    ) from error

import minidl
from minidl.datasets import mnist
from minidl.interop.sklearn import MLPClassifier
from minidl.layers import Dense, Input


def main(digits=2000, epochs=10, cluster=None):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    y = y[:digits]
    with Client(cluster or LocalCluster(n_workers=2, threads_per_worker=1)) as client:
        estimator = MLPClassifier(hidden_layer_sizes=(64,), max_iter=epochs, random_state=0)
        search = GridSearchCV(estimator, {"learning_rate_init": [0.001, 0.01]}, cv=3)
        with joblib.parallel_config(backend="dask"):
            search.fit(x, y)
        print(f"{search.best_params_}: {search.score(x_test, y_test):.2%} of the test digits")

        student = minidl.Sequential([Input((784,)), Dense(16, "relu"), Dense(10, "softmax")])
        sweep = minidl.distill_sweep(
            search.best_estimator_.model_, student, x, y, temperatures=(2.0, 4.0), seeds=(0, 1), epochs=epochs,
            validation_data=(x_test, y_test), executor=client,
        )  # fmt: skip
        print(sweep)
    return search, sweep


if __name__ == "__main__":
    main()
