"""Processes that train one model together, each on its part of every batch: what they tell each other.

Each runs the same script. `Ranks` has the same samples in all of them, `ShardedRanks` other samples in each. Both add
to the fit loop what it asks of `Alone`: nothing of MPI is known here. A communicator is one of mpi4py, or has ``rank``,
``size``, ``sum_in_place(array)`` and ``broadcast(array)`` (from rank 0), and may have ``abort()``.

A rank that fails says so where the others wait for it next, so that all of them end with an error. That is in
``_agree``: every other exchange follows one, and nothing can fail between the two but the exchange itself. Handlers of
signals, which may raise, wait till then.
"""

import functools
import json
import os
import platform
import sys
import traceback
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..kernels.cpu_count import usable_processors
from ..kernels.program import PLACE, ROWS, START, STEP, WHOLE
from ..kernels.random import permutation
from ..notices import quiet
from ..validation import describe, shorten
from .alike import parts_of
from .interrupts import uninterrupted
from .tally import Unfinished

Function = TypeVar("Function", bound=Callable)
_TEXT_BYTES = 400
"""Of what a rank tells the others in words: of an error, or of how its data differ."""
_SHOWN = 100
"""Characters of a part that differs."""


class RankError(RuntimeError):
    """Another rank has failed, or the ranks differ: all of them know it."""


class Alone:
    """A process that trains by itself."""

    rank, size = 0, 1
    has_shards = False

    def run(self, work: Callable, *arguments):
        """``work(*arguments)``; an error of one rank ends it on all."""
        return work(*arguments)

    def least(self, number: int) -> int:
        """The least of all ranks' numbers."""
        return number

    def stops(self, model) -> bool:
        """Whether training stops on all ranks, because one of them wants it to."""
        return model.stop_training

    def end_epoch(self, model) -> None:
        """A RankError unless all ranks have the same parameters."""

    def joined(self, rows: np.ndarray) -> np.ndarray:
        """An array with a number for each sample of this rank, as one with a number for each sample of the order."""
        return rows

    def order(self, key: Callable[[int], int] | None, count: int, batch_size: int) -> np.ndarray:
        """The order of an epoch's samples. ``key`` of a rank keys its draws; None: no shuffling."""
        return _permuted(count, key and key(0))


def _permuted(count: int, key: int | None) -> np.ndarray:
    order = np.arange(count)
    if key is not None:
        permutation(order, np.uint64(key))
    return order


class Ranks(Alone):
    """All ranks have all samples. Of each batch a rank takes as many consecutive rows as the others, or one more."""

    def __init__(self, communicator: Any):
        self._communicator = communicator
        self.rank, self.size = int(communicator.rank), int(communicator.size)
        self.sum: Callable[[np.ndarray], None] = communicator.sum_in_place
        self._told: BaseException | None = None
        """The error of this rank that the others know of, or cannot be told of any more."""

    # -- errors, and what all agree on ---------------------------------------------------------------

    def run(self, work, *arguments):
        token = quiet.set(self.rank > 0 or quiet.get())  # only rank 0 prints
        try:
            found = work(*arguments)
            self._agree()
            return found
        except RankError:
            raise
        except BaseException as error:
            if error is not self._told:
                self._told = error
                self._agree(failed=error)
            raise
        finally:
            quiet.reset(token)

    def _gather(self, *numbers: int) -> np.ndarray:
        """int64 (size, n): the numbers of each rank."""
        table = np.zeros((self.size, len(numbers)), np.int64)
        table[self.rank] = numbers
        self.sum(table)
        return table

    def _texts(self, text: str) -> list[str]:
        """The text of each rank, cut to `_TEXT_BYTES`."""
        table = np.zeros((self.size, _TEXT_BYTES), np.uint8)
        data = np.frombuffer(text.encode("utf-8", "replace")[:_TEXT_BYTES], np.uint8)
        table[self.rank, : len(data)] = data
        self.sum(table)
        return [bytes(row).rstrip(b"\0").decode("utf-8", "ignore") for row in table]

    @uninterrupted
    def _agree(self, number: int = 0, failed: BaseException | None = None) -> np.ndarray:
        """Every rank's ``number``. If one has ``failed``, the others raise a RankError that says how."""
        table = self._gather(failed is not None, number)
        if table[:, 0].any():
            texts = self._texts("" if failed is None else f"{type(failed).__name__}: {failed}")
            if failed is None:
                told = (
                    f"rank {at} of {self.size} has failed: {text}" for at, text in enumerate(texts) if text
                )
                raise RankError("; ".join(told))
        return table[:, 1]

    def agree(self) -> None:
        """Wait for all ranks; a RankError if one has failed instead of coming here."""
        self._agree()

    def least(self, number):
        return int(self._agree(number).min())

    def stops(self, model):
        return bool(self._agree(bool(model.stop_training)).any())

    def end_epoch(self, model):
        digests = self._agree(zlib.crc32(model.params))
        if (digests != digests[0]).any():
            other = int(np.argmax(digests != digests[0]))
            raise RankError(
                f"the parameters of rank {other} are no longer those of rank 0: a callback of one rank has changed "
                "parameters, learning rate or settings, or processors of two kinds round differently"
            )

    def abort(self, error: BaseException) -> None:
        """End all ranks after an error in the middle of a step, where the others cannot be told of it."""
        self._told = error
        text = "".join(traceback.format_exception(error))
        sys.stderr.write(f"rank {self.rank} of {self.size} has failed in the middle of a step:\n{text}")
        sys.stderr.flush()
        if callable(abort := getattr(self._communicator, "abort", None)):
            abort()

    # -- how a fit begins ----------------------------------------------------------------------------

    @uninterrupted
    def begin(self, model, options, data):
        """Refuse ranks that differ, and give all of them the model of rank 0. Returns ``data`` with the count of all.

        Ranks on the same processors share them: ``threads`` is how many this one may use.
        """
        parts = parts_of(model, options, data, self.has_shards)
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        homes = self._agree(zlib.crc32(repr((platform.node(), cpus)).encode()))
        self.threads = max(1, usable_processors() // int((homes == homes[self.rank]).sum()))
        digests = self._gather(self.has_shards, *(part.digest for part in parts))
        differs = (digests != digests[0]).any(axis=0)
        if differs[0]:
            raise RankError("communicator must be Shards(...) on all ranks or on none, got both")
        if differs.any():
            self._refuse_difference(parts[int(np.argmax(differs)) - 1], digests[:, np.argmax(differs)])
        self._counts = self._gather(data.count)[:, 0]
        model.turns.take(self._broadcast_model, model)
        return data._replace(count=self._total(data.count))

    def _refuse_difference(self, part, digests: np.ndarray) -> None:
        """A RankError that shows a part on rank 0 and on the first rank where it is another, from where they differ."""
        other, at = int(np.argmax(digests != digests[0])), 0
        while (texts := self._texts(part.text[at : at + _SHOWN]))[0] == texts[other] != "":
            at += _SHOWN
        first, second = ("... " * (at > 0) + texts[rank] for rank in (0, other))
        raise RankError(
            f"{part.name} must be the same on all ranks, got {first} on rank 0 and {second} on rank {other}"
            f"{part.advice}"
        )

    def _total(self, count: int) -> int:
        return count

    def _broadcast_model(self, model) -> None:
        """Parameters, the optimizer's state, the source of all draws, and the place in the epoch."""
        optimizer, left = model.optimizer, model.unfinished
        for array in (model.params, *optimizer.slots):
            if array.size:
                self._communicator.broadcast(array)
        state = model.seed, model.epoch, model.draw_epoch, optimizer.batches, left and left._asdict()
        text = np.frombuffer(json.dumps(state).encode(), np.uint8).copy()
        size = np.array([len(text)])
        self._communicator.broadcast(size)
        text = np.resize(text, size[0])
        self._communicator.broadcast(text)
        model.seed, model.epoch, model.draw_epoch, optimizer.batches, left = json.loads(bytes(text))
        model.unfinished = left and Unfinished(**left)

    # -- whose rows are whose ------------------------------------------------------------------------

    def most_rows(self, count: int, batch_size: int) -> int:
        """The most rows that this rank takes of a batch, 1 at least."""
        return max(1, batch_size * (self.rank + 1) // self.size - batch_size * self.rank // self.size)

    def own_part(self, order: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Of consecutive batches: this rank's rows, one after the other, and `program.Data`'s table ``batches``."""
        before, mine, rows = self._masks(order, batch_size)
        firsts = np.arange(0, len(order), batch_size)
        batches = np.zeros((len(firsts), 6), np.int64)
        batches[:, ROWS], batches[:, PLACE] = np.add.reduceat(mine, firsts), np.add.reduceat(before, firsts)
        batches[:, START] = np.cumsum(batches[:, ROWS]) - batches[:, ROWS]
        batches[:, WHOLE] = np.minimum(batch_size, len(order) - firsts)
        batches[:, STEP] = np.arange(len(firsts))
        return rows, batches

    def _masks(self, order, batch_size):
        """int64: 1 at rows of lower ranks, 1 at this rank's; and these rows by their number among its samples."""
        place = np.arange(len(order)) % batch_size
        first, last = (batch_size * rank // self.size for rank in (self.rank, self.rank + 1))
        before, mine = place < first, (place >= first) & (place < last)
        return before.astype(np.int64), mine.astype(np.int64), order[mine]


class ShardedRanks(Ranks):
    """Each rank has samples of its own, as many as it likes.

    Numbered one rank after the other, they are one set. Each epoch takes them in an order in which every batch has
    each rank's share, rounded, in the order of the ranks. So a step is that of one process on this set.
    """

    has_shards = True
    _pattern: tuple[tuple, np.ndarray] = (), np.empty(0, np.int64)

    def _total(self, count):
        return int(self._counts.sum())

    @uninterrupted
    def joined(self, rows):
        sizes = self._agree(len(rows))
        first = sizes[: self.rank].sum()
        whole = np.zeros(sizes.sum(), np.int64)
        whole[first : first + len(rows)] = rows
        self.sum(whole)
        return whole.astype(rows.dtype)

    def _owners(self, batch_size: int) -> np.ndarray:
        """The rank of each place of an epoch's order: the shares of each batch follow one another."""
        key = batch_size, tuple(self._counts)
        if self._pattern[0] != key:
            when = np.concatenate([(np.arange(count) + 0.5) / count for count in self._counts])
            owner = np.repeat(np.arange(self.size), self._counts)[np.argsort(when, kind="stable")]
            owner = owner[np.lexsort((owner, np.arange(len(owner)) // batch_size))]
            self._pattern = key, owner
        return self._pattern[1]

    def order(self, key, count, batch_size):
        owners, order = self._owners(batch_size), np.empty(count, np.int64)
        first = 0
        for rank, own in enumerate(self._counts.tolist()):
            order[owners == rank] = first + _permuted(own, key and key(rank))
            first += own
        return order

    def most_rows(self, count, batch_size):
        batches = np.flatnonzero(self._owners(batch_size) == self.rank) // batch_size
        return int(np.bincount(batches, minlength=1).max())

    def _masks(self, order, batch_size):
        first = self._counts[: self.rank].sum()
        before, mine = order < first, (order >= first) & (order < first + self._counts[self.rank])
        return before.astype(np.int64), mine.astype(np.int64), order[mine] - first


class _OfMpi:
    """mpi4py's communicator, as `Ranks` wants one."""

    def __init__(self, communicator: Any):
        self._communicator = communicator
        self.rank, self.size = communicator.Get_rank(), communicator.Get_size()

    def sum_in_place(self, array: np.ndarray) -> None:
        self._communicator.Allreduce(None, array)  # None: in place; the operation is a sum by default

    def broadcast(self, array: np.ndarray) -> None:
        self._communicator.Bcast(array)

    def abort(self) -> None:
        self._communicator.Abort(1)


_METHODS = {"rank", "size", "sum_in_place", "broadcast"}
_METHODS_OF_MPI = {"Get_rank", "Get_size", "Allreduce", "Bcast", "Abort"}


def as_ranks(communicator: Any) -> Alone:
    """What `fit` is given as its ``communicator``, or None, in the form that the loop works with."""
    if communicator is None:
        return Alone()
    if isinstance(communicator, Alone):
        return communicator
    has_shards, given = getattr(communicator, "has_shards", False), communicator
    if has_shards:
        given = communicator.communicator
    if all(hasattr(given, name) for name in _METHODS_OF_MPI):
        given = _OfMpi(given)
    if not all(hasattr(given, name) for name in _METHODS):
        raise TypeError(
            "communicator must be one of mpi4py, as MPI.COMM_WORLD, or minidl.interop.mpi.Shards of one, or have "
            f"{', '.join(sorted(_METHODS))}, got {shorten(describe(communicator))}"
        )
    if given.size == 1:
        return Alone()
    return ShardedRanks(given) if has_shards else Ranks(given)


def together(function: Function) -> Function:
    """``function``, which takes a ``communicator`` as `fit` does, as something that all ranks do: see `Ranks.run`."""

    @functools.wraps(function)
    def on_all_ranks(*arguments, **keywords):
        if keywords.get("communicator") is None:
            return function(*arguments, **keywords)
        keywords["communicator"] = ranks = as_ranks(keywords["communicator"])
        return ranks.run(functools.partial(function, *arguments, **keywords))

    return on_all_ranks  # type: ignore[return-value]
