"""What each rank of `test_mpi` runs: ``mpiexec -n 2 python mpi_job.py JOB FOLDER``. Rank 0 writes JOB.npz there."""

import os
import signal
import sys
from pathlib import Path

import numpy as np

import minidl
from minidl.callbacks import Callback, ModelCheckpoint
from minidl.interop.mpi import Shards
from minidl.kernels import threads
from minidl.kernels.thread_choice import ThreadChoice
from minidl.layers import Dense, Dropout, Input
from minidl.training import ranks

ROWS, EPOCHS = 45, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 10))
Y = RNG.integers(0, 4, ROWS)
LOGITS = RNG.normal(size=(ROWS, 4))
CUTS = {1: [0, ROWS], 2: [0, 7, ROWS], 4: [0, 7, 8, 30, ROWS]}


def new_model():
    stack = [Input((10,)), Dense(16, "relu"), Dropout(0.2), Dense(4, "softmax")]
    model = minidl.Sequential(stack, seed=7, dtype="float64")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def fit(model, x=X, y=Y, **arguments):
    arguments = {"epochs": EPOCHS, "batch_size": 8, "verbose": 2, **arguments}
    history = model.fit(x, y, **arguments).history
    return np.concatenate([model.params, *(history[name] for name in sorted(history))])


def train(communicator):
    return fit(new_model(), validation_split=0.1, communicator=communicator)


def distil(communicator):
    model = new_model()
    report = minidl.distill(
        LOGITS,
        model,
        X,
        Y,
        epochs=2,
        temperature=3.0,
        plain_student=True,
        verbose=0,
        communicator=communicator,
    )
    return np.append(model.params, [report.student.errors, report.plain.errors])


def shards(communicator):
    """One batch of all samples an epoch, so that their order changes nothing."""
    rank, size = (0, 1) if communicator is None else (communicator.rank, communicator.size)
    mine = slice(*CUTS[size][rank : rank + 2])
    model = new_model()
    model.layers[1].rate = 0.0  # its draws depend on the order
    given = None if communicator is None else Shards(communicator)
    return fit(model, X[mine], Y[mine], batch_size=ROWS, shuffle=False, communicator=given)


def threaded(communicator):
    """On several threads a rank, whatever the machine has."""
    ranks.usable_processors = lambda: 6
    threads.SHORT_FLOPS = 0.0
    ThreadChoice.next = lambda self, most: (used.append(most), (most, 1.0))[1]
    used, before = [], minidl.get_num_threads()
    minidl.set_num_threads(3)
    model = minidl.Sequential([Input((10,)), Dense(96, "relu"), Dropout(0.2), Dense(4, "softmax")], seed=2)
    model.compile("adam", "sparse_categorical_crossentropy")
    found = fit(model, batch_size=20, communicator=communicator, verbose=0)
    assert communicator is None or set(used) == {max(1, 6 // communicator.size)}, used
    minidl.set_num_threads(before)
    return found


class InStep(Callback):
    """Does something on rank 1 after so many steps."""

    def __init__(self, communicator, steps, do):
        super().__init__()
        self.left, self.do = steps if communicator.rank == 1 else -1, do

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.do()


def killed(communicator):
    callbacks = [
        ModelCheckpoint(Path(sys.argv[2]) / "m.npz", save_freq=1),
        InStep(communicator, 8, lambda: os.kill(os.getpid(), signal.SIGKILL)),
    ]
    return fit(new_model(), callbacks=callbacks, communicator=communicator)


def resumed(communicator):
    model = minidl.load_model(Path(sys.argv[2]) / "m.npz")
    fit(model, initial_epoch=model.epoch, communicator=communicator)
    return model.params


def failing(communicator):
    def fail():
        raise KeyError("on purpose")

    return fit(new_model(), callbacks=[InStep(communicator, 2, fail)], communicator=communicator)


def endless(communicator):
    return fit(new_model(), epochs=10**6, verbose=2, communicator=communicator)


JOBS = {job.__name__: job for job in (train, distil, shards, threaded, killed, resumed, failing, endless)}

if __name__ == "__main__":
    from mpi4py import MPI

    for name in sys.argv[1].split(","):
        found = JOBS[name](MPI.COMM_WORLD)
        if MPI.COMM_WORLD.rank == 0:
            np.save(Path(sys.argv[2]) / f"{name}.npy", found)
