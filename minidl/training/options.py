"""The arguments of `Sequential.fit`: spelled and checked here, once, and handed on as one object."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..callbacks import check_verbose
from ..validation import check_bool, check_float, check_int, describe
from .ranks import as_ranks
from .streams import check_fit_data, is_stream

P = ParamSpec("P")
Options = TypeVar("Options")
Result = TypeVar("Result")
AUTO = "auto"
"""The temperature that stands for a search for temperature and weights: `training.tuning`."""


@dataclass(frozen=True)
class FitOptions:
    """Train, and return the ``History``.

    Parameters
    ----------
    x : (N, *input_shape), any real dtype; may be a memory map. Rows are converted batch by batch, those of a CSR matrix
        of SciPy made dense. Row i of x, y and weights belong together, whatever the index of a data frame says.
        Or an iterable of batches (x, y) or (x, y, sample_weight): a generator, a list, a loader, a Keras Sequence. Then
        y, sample_weight, batch_size and validation_split are left out, and the order is the iterable's: ``shuffle``
        does nothing. Batches are read ahead, for about 0.1 s. Such an epoch cannot be gone on with in its middle: it
        begins anew, with other draws.
    y : class indices or rows of targets, as the loss wants them. With a teacher -1 marks a sample without
        a label, which metrics and validation leave out; None: no labels, where ``hard_weight`` is 0.
    batch_size : samples a step. The last batch may be smaller.
    epochs, initial_epoch : the epochs initial_epoch .. epochs-1 are run. A model that was interrupted, or saved,
        in the middle of an epoch goes on at that epoch's next step with ``initial_epoch=model.epoch``. It uses
        the same batches, draws and running sums, and so ends with the bits and the history of a run without a
        break. That takes the same batch_size, shuffle and number of samples; otherwise a warning says that the
        epoch begins anew. ``compile`` with another optimizer and ``set_weights`` forget the place.
    verbose : 0 nothing, 1 a progress bar, 2 a line an epoch, "auto" 1 on a terminal and 2 elsewhere.
    callbacks : ``minidl.callbacks``.
    validation_split : this share of the samples, the last ones, is kept for validation.
    validation_data : (x, y) or (x, y, sample_weight) instead; or an iterable of such batches, joined for a validation.
    steps_per_epoch, validation_steps : how many batches an epoch, or a validation, takes of an iterable; by default
        all. A generator goes on where it was, and warns when it ends early.
    shuffle : a new order each epoch, also from one fit to the next.
    class_weight : {class: weight}, or "balanced": n_samples / (n_classes * count of the class) over the labelled
        samples trained on, as in scikit-learn; sample_weight : (N,). The weighted losses' sum is divided by B.
    validation_freq : validate after every so many epochs. ``validation_batch_size``: how callbacks count its batches.
    target_model : a teacher (``minidl.teachers``): the loss is then ``KnowledgeDistillation`` with
        ``temperature`` (2.0), ``hard_weight`` (0.5) and ``soft_weight`` (0.5); of a model that ends in sigmoids
        ``BinaryKnowledgeDistillation`` with the same, of one that learns numbers ``RegressionDistillation`` with
        ``hard_weight`` and ``soft_weight`` (0.5 each). ``docs/methods.md`` has the table. A teacher with inputs of its
        own is an ``InputsTeacher``. ``temperature="auto"`` chooses the numbers on held-out samples
        (``minidl.training.tuning``); the ``tuning`` of the history says what was tried.

    communicator : ``mpi4py.MPI.COMM_WORLD``, where ``mpiexec`` runs the script in several processes: each takes its
        part of every batch, ``batch_size`` counts the rows of all, and the result is that of one process up to
        rounding. All are given the same samples, or a ``minidl.interop.mpi.Shards``: ``docs/machines.md``.

    While it runs, callbacks, handlers of signals and other threads may save, copy and ask the model: they see one and
    the same step. What a handler does waits for the end of a slice of steps, about 0.1 s.

    Raises ValueError or TypeError for arguments that do not fit; the parameters are then as they were. Raises
    RuntimeError if a callback compiles the model or changes its layers, which has to wait until fit is over.
    """

    x: Any
    y: Any = None
    batch_size: int | None = 32
    epochs: int = 1
    verbose: int | str = "auto"
    callbacks: Any = None
    validation_split: float = 0.0
    validation_data: Any = None
    shuffle: bool = True
    class_weight: Any = None
    sample_weight: Any = None
    initial_epoch: int = 0
    steps_per_epoch: int | None = None
    validation_steps: int | None = None
    validation_batch_size: int | None = None
    validation_freq: int = 1
    _: KW_ONLY
    target_model: Any = None
    temperature: float | str | None = None
    hard_weight: float | None = None
    soft_weight: float | None = None
    communicator: Any = None

    def __post_init__(self):
        if self.validation_batch_size is not None:
            check_int("validation_batch_size", self.validation_batch_size, minimum=1)
        batch_size = 32 if self.batch_size is None else self.batch_size
        checked = {
            "batch_size": check_int("batch_size", batch_size, minimum=1),
            "epochs": check_int("epochs", self.epochs, minimum=0),
            "initial_epoch": check_int("initial_epoch", self.initial_epoch, minimum=0),
            "validation_freq": check_int("validation_freq", self.validation_freq, minimum=1),
            "validation_split": check_float("validation_split", self.validation_split, minimum=0, below=1),
            "shuffle": check_bool("shuffle", self.shuffle),
            "verbose": check_verbose(self.verbose),
            "communicator": as_ranks(self.communicator),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the dataclass is frozen
        data = self.validation_data
        check_fit_data(self)
        self._check_ranks()
        is_tuple = isinstance(data, (tuple, list)) and len(data) in (2, 3)
        if data is not None and not is_tuple and not is_stream(data):
            raise ValueError(f"validation_data must be (x, y) or (x, y, sample_weight), got {describe(data)}")

    def _check_ranks(self) -> None:
        """Refuse what several ranks cannot do, whatever the model."""
        if self.communicator.size > 1:
            for name in ("x", "validation_data"):
                if is_stream(getattr(self, name)):
                    raise ValueError(
                        f"communicator must be left out where {name} is an iterable of batches: its batches cannot be "
                        "divided among the ranks beforehand. Join them to arrays"
                    )
            if self.communicator.has_shards and self.temperature == AUTO:
                raise ValueError(
                    "temperature='auto' looks at the samples of all ranks, but with Shards each has its own"
                )


def takes(
    options: Callable[P, Options],
) -> Callable[[Callable[[Any, Options], Result]], Callable[Concatenate[Any, P], Result]]:
    """Makes a method of one ``options`` object a method of the arguments that make such an object."""

    def decorate(method: Callable[[Any, Options], Result]) -> Callable[Concatenate[Any, P], Result]:
        @functools.wraps(method)
        def with_arguments(self, *args: P.args, **kwargs: P.kwargs) -> Result:
            return method(self, options(*args, **kwargs))

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        signature = inspect.signature(options)
        signature = signature.replace(parameters=[own, *signature.parameters.values()])
        with_arguments.__signature__ = signature  # type: ignore[attr-defined]
        with_arguments.__doc__ = options.__doc__
        # an argument too many or too few is told of the method
        options.__init__.__qualname__ = method.__qualname__  # type: ignore[misc]
        return with_arguments

    return decorate
