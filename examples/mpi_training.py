"""Four processes, on one machine or several, train one model. Needs mpi4py and mpich: pip install mpi4py mpich

    mpiexec -n 4 python -m mpi4py examples/mpi_training.py
    python examples/mpi_training.py                          # the same result from one process

Each process runs this script and takes its part of every batch; one sum of gradients a step makes their models one.
"""

from __future__ import annotations

try:
    from mpi4py import MPI
except ImportError as error:
    raise ImportError("this example needs mpi4py: pip install mpi4py mpich") from error

import minidl
from minidl.datasets import mnist
from minidl.layers import Dense, Dropout, Input


def main(digits=6000, epochs=5, verbose="auto"):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    model = minidl.Sequential([Input((784,)), Dense(256, "relu"), Dropout(0.2), Dense(10, "softmax")], seed=0)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    saved = minidl.callbacks.ModelCheckpoint("mpi_training.npz")  # by the first process alone
    arguments = dict(batch_size=128, epochs=epochs, verbose=verbose, callbacks=[saved])
    model.fit(x, y[:digits], **arguments, communicator=MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print(
            f"{MPI.COMM_WORLD.size} processes: {model.evaluate(x_test, y_test, verbose=0)[1]:.2%} of the test digits"
        )


if __name__ == "__main__":
    main()
