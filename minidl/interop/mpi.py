"""More than one machine: training with mpi4py's communicators. Needs ``minidl[mpi]``: mpi4py, and mpich.

``fit(..., communicator=MPI.COMM_WORLD)`` takes a communicator as it is; `Shards` says that each rank has samples of its
own. What the ranks do with it stands in ``minidl/training/ranks.py``.
"""

from typing import Any

from . import import_extra


class Shards:
    """For ``fit(..., communicator=Shards())``: the ranks hold different samples, as many as each likes.

    An epoch takes all samples of all ranks. Each batch has each rank's share of them, rounded, so that its loss and
    gradient are means over ``batch_size`` samples, as in one process that holds all.

    Parameters
    ----------
    communicator : of mpi4py; None: ``MPI.COMM_WORLD``.
    """

    has_shards = True

    def __init__(self, communicator: Any = None):
        if communicator is None:
            communicator = import_extra("mpi4py.MPI", "mpi", "mpi").COMM_WORLD
        self.communicator = communicator
