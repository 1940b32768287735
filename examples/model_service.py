"""One model, eight threads: a service that answers over HTTP. Needs fastapi, and httpx for the trial run below.

    python examples/model_service.py                                             # tries it, without a network
    uvicorn --app-dir examples --factory model_service:make_app                  # serves student.npz, with uvicorn

`predict` may be called from several threads at once: they share one model and no lock is needed. A request brings a
batch of rows, which costs little more than one row. What minidl refuses is an answer 422 with its message.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

try:
    import anyio.to_thread
    from fastapi import Body, FastAPI, HTTPException
except ImportError as error:
    raise ImportError("this example needs fastapi: pip install fastapi httpx") from error

import minidl
from minidl.datasets import mnist
from minidl.layers import Dense, Input

THREADS = 8


def make_app(path="student.npz"):
    """A FastAPI application that predicts with the model saved at ``path``."""
    model = minidl.load_model(path)

    @asynccontextmanager
    async def lifespan(app):
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    def predict(rows: list[list[float]] = Body()):  # noqa: B008
        """Of each row the class and its probability. No coroutine, so FastAPI runs it in one of the threads."""
        try:
            probs = model.predict(np.array(rows, model.dtype), verbose=0)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return {"classes": probs.argmax(axis=1).tolist(), "probabilities": probs.max(axis=1).tolist()}

    return app


def main(digits=2000, epochs=10, requests=64, rows=16):
    from fastapi.testclient import TestClient

    (x, y), (x_test, _) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    model = minidl.Sequential([Input((784,)), Dense(64, "relu"), Dense(10, "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y[:digits], epochs=epochs, verbose=0)

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "student.npz")
        app = make_app(Path(folder) / "student.npz")
    batches = [x_test[first : first + rows] for first in np.arange(requests) * rows % (len(x_test) - rows)]
    with TestClient(app) as client, ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda batch: client.post("/predict", json=batch.tolist()), batches))
        refused = client.post("/predict", json=[[0.0, 1.0]])

    right = 0
    for answer, batch in zip(answers, batches, strict=True):
        probs = model.predict(batch, verbose=0)
        right += answer.json() == {
            "classes": probs.argmax(1).tolist(),
            "probabilities": probs.max(1).tolist(),
        }
    print(
        f"{requests} requests of {rows} rows from {THREADS} threads: {right} answered as the model alone does"
    )
    print(f"a row of 2 numbers: {refused.status_code}, {refused.json()['detail']}")
    return right, refused


if __name__ == "__main__":
    main()
