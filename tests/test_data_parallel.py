"""Ranks that train together end where one process does. Here they are threads; `interop/test_mpi.py` has MPI."""

import re

import numpy as np
import pytest
from fake_ranks import FakeCommunicator, run_ranks
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl import layers
from minidl.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    TerminateOnNaN,
)
from minidl.interop.mpi import Shards
from minidl.layers import Dense
from minidl.models import Sequential, load_model
from minidl.training.ranks import RankError, Ranks, ShardedRanks
from minidl.training.shared import SharedSteps

ROWS, FEATURES, CLASSES = 33, 16, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, FEATURES))
Y = RNG.integers(0, CLASSES, ROWS)
TARGETS = RNG.normal(size=(ROWS, 2))
UNLABELLED = np.where(np.arange(ROWS) % 3, Y, -1)
LOGITS = RNG.normal(size=(ROWS, CLASSES))
NEAR = dict(rtol=1e-10, atol=1e-12)
"""What the order of additions changes in float64."""


@pytest.fixture(autouse=True)
def one_thread():
    """Two fits of one process share its workers, and may not wait for each other."""
    before = minidl.get_num_threads()
    minidl.set_num_threads(1)
    yield
    minidl.set_num_threads(before)


def classifier(*first, dtype="float64", seed=3, optimizer="adam", **compiled):
    stack = [*first, Dense(12, "relu"), Dense(CLASSES, "softmax")]
    model = Sequential(stack, dtype=dtype, seed=seed)
    compiled = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **compiled}
    model.compile(optimizer=optimizer, **compiled)
    return model


def regression():
    model = Sequential([Dense(8, "tanh"), Dense(2)], dtype="float64", seed=5)
    model.compile("sgd", "mse", metrics=["mae", "r2_score"])
    return model


def fit(model, x=X, y=Y, **arguments):
    return model.fit(x, y, **{"batch_size": 8, "epochs": 2, "verbose": 0, **arguments})


def results(size, job):
    """`run_ranks`, where no rank may fail."""
    found = run_ranks(size, job)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found


def errors(size, job):
    found = run_ranks(size, job)
    assert all(isinstance(each, Exception) for each in found), found
    return found


def same(found, expected):
    """The parameters and the history of two fits."""
    np.testing.assert_allclose(found[0], expected[0], **NEAR)
    assert found[1].keys() == expected[1].keys()
    for name in expected[1]:
        np.testing.assert_allclose(found[1][name], expected[1][name], **NEAR, err_msg=name)


def trained(make, **arguments):
    """A function of a communicator: parameters and history after a fit of ``make()``."""

    def job(communicator=None):
        model = make()
        history = fit(model, **arguments, communicator=communicator).history
        return model.params.copy(), history

    return job


# -- equal to one process --------------------------------------------------------------------------


def penalized():
    model = classifier(layers.Dropout(0.2), optimizer=minidl.optimizers.Adam(global_clipnorm=0.5))
    model.layers[1].kernel_regularizer = minidl.regularizers.L1L2(0.01, 0.02)
    model.layers[1].kernel_constraint = minidl.constraints.MaxNorm(1.0)
    return model


def reducing(**arguments):
    return lambda: classifier(
        metrics=[], loss=minidl.losses.SparseCategoricalCrossentropy(**arguments), optimizer="sgd"
    )


def accumulating():
    rule = minidl.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3, use_ema=True)
    return classifier(optimizer=rule)


def one_layer_frozen():
    model = classifier(Dense(16, "relu"))
    model.layers[0].trainable = False
    return model


WEIGHT = np.abs(TARGETS[:, 0])
IMAGES = X.reshape(ROWS, 4, 4)
FITS = {
    "dropout and noise": trained(lambda: classifier(layers.Dropout(0.3), layers.GaussianNoise(0.2))),
    "translation": trained(
        lambda: classifier(layers.RandomTranslation(0.5, 0.5), layers.Flatten()), x=IMAGES
    ),
    "layer normalisation": trained(lambda: classifier(layers.LayerNormalization(), layers.PReLU())),
    "penalties, limits and constraints": trained(penalized),
    "accumulation and averages": trained(accumulating),
    "a frozen layer": trained(one_layer_frozen),
    "weights": trained(classifier, sample_weight=WEIGHT, class_weight={1: 2.0}),
    "numbers": trained(regression, y=TARGETS),
    "validation": trained(classifier, validation_split=0.2, validation_freq=2),
    "validation data": trained(classifier, validation_data=(X[:5], Y[:5])),
    "no shuffling": trained(classifier, shuffle=False),
    "inputs to convert": trained(classifier, x=X.astype(np.float16)),
    "bytes": trained(classifier, x=(X * 20).astype(np.int16)),
    "sum": trained(reducing(reduction="sum")),
    "mean by weights": trained(reducing(reduction="mean_with_sample_weight"), sample_weight=WEIGHT),
    "an ignored class": trained(reducing(ignore_class=1)),
    "metrics that count": trained(lambda: classifier(metrics=["sparse_top_k_categorical_accuracy"])),
    "distillation": trained(classifier, target_model=LOGITS, temperature=3.0),
    "a teacher asked about each batch": trained(
        lambda: classifier(layers.RandomTranslation(0.5, 0.5), layers.GaussianNoise(0.2), layers.Flatten()),
        x=IMAGES,
        y=UNLABELLED,
        sample_weight=WEIGHT,
        target_model=lambda x: x[:, 0] * 2 + x[:, 1],
    ),
    "some labels": trained(classifier, y=UNLABELLED, target_model=LOGITS),
    "a large batch": trained(classifier, batch_size=1000),
    "more ranks than rows": trained(classifier, batch_size=2),
}


@pytest.mark.parametrize("case", FITS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_end_where_one_process_does(case, size):
    job = FITS[case]
    expected = job()
    found = results(size, job)
    for each in found:
        same(each, expected)
        np.testing.assert_array_equal(each[0], found[0][0])


def test_float32_is_equal_to_rounding():
    make = lambda: classifier(layers.Dropout(0.3), dtype="float32")  # noqa: E731
    expected, (found, *_) = trained(make)(), results(2, trained(make))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-5)


def test_metrics_of_several_sums():
    model = lambda: Sequential([Dense(1, "sigmoid")], dtype="float64", seed=1)  # noqa: E731

    def make():
        made = model()
        made.compile("sgd", "binary_crossentropy", metrics=["AUC", "Precision", "F1Score"])
        return made

    job = trained(make, y=(Y > 1).astype(float))
    same(results(3, job)[0], job())


def test_the_check_of_equality_can_fail():
    """Dropout drawn by a rank's own places gives another result."""
    job = FITS["dropout and noise"]

    class Misplaced(Ranks):
        def own_part(self, order, batch_size):
            rows, batches = super().own_part(order, batch_size)
            batches[:, 2] = 0
            return rows, batches

    found = results(2, lambda communicator: job(Misplaced(communicator)))
    with pytest.raises(AssertionError):
        same(found[0], job())


def test_models_of_other_seeds_become_that_of_rank_0():
    def job(communicator=None):
        rank = 0 if communicator is None else communicator.rank
        model = classifier(layers.Dropout(0.3), seed=3 + rank)
        if rank:
            fit(model, epochs=rank)
        history = fit(model, communicator=communicator).history
        return model.params.copy(), history

    for found in results(3, job):
        same(found, job())


def test_one_rank_gives_the_bits_of_no_communicator():
    job = FITS["dropout and noise"]
    np.testing.assert_array_equal(results(1, job)[0][0], job()[0])


def test_distill_and_its_plain_student():
    def job(communicator=None):
        student = Sequential([Dense(CLASSES, "softmax")], dtype="float64", seed=1)
        report = minidl.distill(
            LOGITS, student, X, Y, epochs=3, batch_size=8, verbose=0, temperature=2.0,
            plain_student=True, communicator=communicator,
        )  # fmt: skip
        return np.append(student.params, [report.student.errors, report.plain.errors]), report.history.history

    for found in results(2, job):
        same(found, job())


def test_distill_is_quiet_on_all_ranks_but_the_first_and_fails_on_all(capsys):
    def job(communicator):
        student = Sequential([Dense(CLASSES, "softmax")], seed=1)
        fails = [LambdaCallback(on_epoch_begin=fail)] if communicator.rank == broken else None
        arguments = dict(epochs=1, verbose=2, temperature=2.0, plain_student=True, callbacks=fails)
        minidl.distill(LOGITS, student, X, Y, **arguments, communicator=communicator)

    def fail(*_):
        raise KeyError("mine")

    broken = None
    results(2, job)
    said = capsys.readouterr().out
    assert said.count("plain student (labels alone)") == 1 and said.count("epoch 1/1") == 2
    broken = 1
    first, second = errors(2, job)
    assert isinstance(first, RankError) and isinstance(second, KeyError)


def test_a_search_for_the_temperature_chooses_alike():
    x, y, logits = (np.tile(each, (8,) + (1,) * (each.ndim - 1)) for each in (X, Y, LOGITS))
    job = trained(classifier, x=x, y=y, target_model=logits, temperature="auto", epochs=1)
    expected = job()
    for found in results(2, job):
        same(found, expected)


# -- who takes which rows --------------------------------------------------------------------------


class Silent:
    """A communicator for what needs none."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def sum_in_place(self, array):
        raise AssertionError("nothing is exchanged here")


@given(st.integers(1, 60), st.integers(1, 20), st.integers(2, 6))
def test_each_row_is_taken_once(count, batch_size, size):
    order = np.random.default_rng(count).permutation(count)
    parts = [Ranks(Silent(rank, size)).own_part(order, batch_size) for rank in range(size)]
    check_parts(parts, order, batch_size)
    most = [Ranks(Silent(rank, size)).most_rows(count, batch_size) for rank in range(size)]
    assert all(batches[:, 1].max() <= rows for (_, batches), rows in zip(parts, most, strict=True))


def check_parts(parts, order, batch_size):
    for step in range(-(-len(order) // batch_size)):
        batch = order[step * batch_size : (step + 1) * batch_size]
        joined = []
        for rows, batches in parts:
            start, count, place, whole, epoch, of_epoch = batches[step]
            assert place == len(joined) and whole == len(batch) and (epoch, of_epoch) == (0, step)
            joined += rows[start : start + count].tolist()
        assert joined == batch.tolist()


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(1, 20), st.booleans())
def test_shards_give_each_batch_its_share(counts, batch_size, shuffle):
    total, ranks = sum(counts), [ShardedRanks(Silent(rank, len(counts))) for rank in range(len(counts))]
    for each in ranks:
        each._counts = np.array(counts)
    key = (lambda rank: rank + 7) if shuffle else None
    order = ranks[0].order(key, total, batch_size)
    assert sorted(order) == list(range(total))
    parts, firsts = [], np.cumsum([0, *counts])
    for rank, each in enumerate(ranks):
        np.testing.assert_array_equal(each.order(key, total, batch_size), order)
        rows, batches = each.own_part(order, batch_size)
        parts.append((rows + firsts[rank], batches))
        assert batches[:, 1].max() <= each.most_rows(total, batch_size)
        share = batches[:, 3] * counts[rank] / total
        assert np.abs(batches[:, 1] - share).max() < 1.5 + len(counts) / 2
    check_parts(parts, order, batch_size)


def test_a_rank_reads_no_rows_but_its_own(tmp_path, monkeypatch):
    """Of a memory map in a foreign dtype: after the checks, which look at all of them."""
    np.save(tmp_path / "x.npy", X.astype(np.float16))
    taken, read = {0: [], 1: []}, SharedSteps._data

    def record(self, order, batches):
        data = read(self, order, batches)
        assert data.x.data.nbytes == len(order) * FEATURES * 8  # converted for this slice
        taken[self._ranks.rank] += order.tolist()
        return data

    monkeypatch.setattr(SharedSteps, "_data", record)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    results(2, lambda communicator: fit(classifier(), x=x, epochs=1, communicator=communicator))
    assert sorted(taken[0] + taken[1]) == list(range(ROWS)) and len(taken[0]) == 17


# -- shards ----------------------------------------------------------------------------------------

CUTS = [0, 4, 24, ROWS]
"""Rank r holds the rows CUTS[r] .. CUTS[r + 1]."""


def shard(communicator, array):
    return array[CUTS[communicator.rank] : CUTS[communicator.rank + 1]]


@pytest.mark.parametrize("batch_size", [8, 1000])
@pytest.mark.parametrize("distils", [False, True])
def test_uneven_shards_are_one_process_on_all_samples(batch_size, distils):
    """In the order that the ranks' `ShardedRanks.order` says, batch by batch."""
    arguments = dict(batch_size=batch_size, shuffle=False)
    y = UNLABELLED if distils else Y

    def job(communicator):
        model = classifier(layers.Dropout(0.3))
        x, labels, weight, logits = (shard(communicator, each) for each in (X, y, WEIGHT, LOGITS))
        taught = dict(target_model=logits) if distils else {}
        history = fit(
            model, x, labels, sample_weight=weight, communicator=Shards(communicator), **taught, **arguments
        )
        return model.params.copy(), history.history

    whole = classifier(layers.Dropout(0.3))
    one = ShardedRanks(Silent(0, 3))
    one._counts = np.diff(CUTS)
    order = one.order(None, ROWS, min(batch_size, ROWS))
    taught = dict(target_model=LOGITS[order]) if distils else {}
    history = fit(whole, X[order], y[order], sample_weight=WEIGHT[order], **taught, **arguments)
    for found in results(3, job):
        same(found, (whole.params, history.history))


def test_shards_are_shuffled_anew_each_epoch():
    def job(communicator):
        model = classifier()
        fit(model, *(shard(communicator, each) for each in (X, Y)), communicator=Shards(communicator))
        return model.params.copy()

    first, *others = results(3, job)
    again, *_ = results(3, job)
    np.testing.assert_array_equal(first, again)
    for each in others:
        np.testing.assert_array_equal(each, first)
    ranks = ShardedRanks(Silent(0, 3))
    ranks._counts = np.diff(CUTS)
    assert (ranks.order(lambda rank: rank, ROWS, 8) != ranks.order(lambda rank: rank + 9, ROWS, 8)).any()


def test_shards_begin_an_epoch_anew(tmp_path):
    def job(communicator):
        model, stop = (
            classifier(),
            LambdaCallback(on_train_batch_end=lambda batch, logs: stop_at(model, batch)),
        )
        mine = [shard(communicator, each) for each in (X, Y)]
        fit(model, *mine, callbacks=[stop], communicator=Shards(communicator))
        assert model.unfinished.step == 2
        if communicator.rank == 0:
            with pytest.warns(UserWarning, match="of Shards none do"):
                fit(model, *mine, communicator=Shards(communicator))
        else:
            fit(model, *mine, communicator=Shards(communicator))

    def stop_at(model, batch):
        model.stop_training = batch == 1

    results(3, job)


# -- a run goes on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [2, 5, 7])
@pytest.mark.parametrize("sizes", [(2, 3), (4, 1), (1, 2)])
def test_a_checkpoint_goes_on_with_another_number_of_ranks(tmp_path, stop, sizes):
    """In the middle of an epoch of 5 steps, and at its end."""
    path = tmp_path / "m.npz"
    expected = FITS["dropout and noise"]()

    class Stop(Callback):
        def __init__(self):
            super().__init__()
            self.done = 0

        def on_train_batch_end(self, batch, logs=None):
            self.done += 1
            self.model.stop_training = self.done == stop

    def begin(communicator):
        model = classifier(layers.Dropout(0.3), layers.GaussianNoise(0.2))
        fit(model, callbacks=[Stop()], communicator=communicator)
        if communicator.rank == 0:
            model.save(path)

    def go_on(communicator):
        model = load_model(path)
        history = fit(model, initial_epoch=model.epoch, communicator=communicator).history
        return model.params.copy(), {name: values[-1:] for name, values in history.items()}

    results(sizes[0], begin)
    last = {name: values[-1:] for name, values in expected[1].items()}
    for found in results(sizes[1], go_on):
        same(found, (expected[0], last))


# -- what ranks say, and when they stop ------------------------------------------------------------


def test_only_rank_0_prints_and_writes(tmp_path, capsys):
    class Mine(Callback):
        def __init__(self):
            super().__init__()
            self.logs = []

        def on_epoch_end(self, epoch, logs=None):
            self.logs.append(dict(logs))

    def job(communicator):
        mine = Mine()
        files = [tmp_path / f"{communicator.rank}{end}" for end in (".npz", ".csv")]
        model, made = classifier(), [ModelCheckpoint(files[0], verbose=1), CSVLogger(files[1]), mine]
        fit(model, verbose=2, validation_split=0.2, callbacks=made, communicator=communicator)
        return mine.logs

    logs = results(3, job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.csv", "0.npz"]
    assert len(logs[0]) == 2 and logs[1] == logs[2] == logs[0]
    assert capsys.readouterr().out.count("Epoch 1/2") == 1


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_epoch_end"])
def test_training_stops_on_all_ranks_when_one_wants_it(hook):
    def job(communicator):
        model, calls = classifier(), []

        def stop(number, logs=None):
            calls.append(number)
            model.stop_training = communicator.rank == 1 and len(calls) == 2

        fit(model, epochs=9, callbacks=[LambdaCallback(**{hook: stop})], communicator=communicator)
        return model.optimizer.batches, model.stop_training

    steps = 2 if hook == "on_train_batch_end" else 10
    assert results(3, job) == [(steps, True)] * 3


def test_early_stopping_and_nan_stop_alike():
    def job(communicator):
        found = []
        early = EarlyStopping(monitor="loss", min_delta=10, restore_best_weights=True)
        for optimizer, callback in ("adam", early), (minidl.optimizers.SGD(1e200), TerminateOnNaN()):
            model = classifier(optimizer=optimizer)
            fit(model, epochs=9, callbacks=[callback], communicator=communicator)
            found.append((model.optimizer.batches, model.params.copy()))
        return found

    first, *others = results(2, job)
    assert first[0][0] == 10 and first[1][0] < 9
    for each in others:
        assert [steps for steps, _ in each] == [steps for steps, _ in first]
        np.testing.assert_array_equal(each[0][1], first[0][1])


# -- errors ----------------------------------------------------------------------------------------


def refused(size, job, kind, text):
    """Each rank raises ``kind``, with ``text``, before its parameters change."""
    for each in errors(size, job):
        assert isinstance(each, kind) and re.search(text, str(each)), repr(each)


def own_loss(y_true, y_pred):
    return np.mean((y_true - y_pred) ** 2), 2 * (y_pred - y_true) / y_true.size


class OwnLayer(layers.Layer):
    def forward(self, x, training=False):
        return x

    def backward(self, dout):
        return dout


class OwnConstraint(minidl.constraints.Constraint):
    def __call__(self, w):
        return w


def own_metric(y_true, y_pred):
    return 0.0


WHOLE_BATCHES = {
    "moments": (lambda: classifier(layers.BatchNormalization()), {}, "layer 'batch_normalization.*moments"),
    "own layer": (lambda: classifier(OwnLayer()), {}, "layer 'own_layer.*' is your own and may look"),
    "own constraint": (
        lambda: classifier(Dense(4, kernel_constraint=OwnConstraint())),
        {},
        "a constraint or method of sequential.* is your own",
    ),
    "own metric": (lambda: classifier(metrics=[own_metric]), {}, "metric 'own_metric' is a function"),
    "DIST": (
        lambda: classifier(loss=minidl.losses.DIST()),
        {"target_model": LOGITS},
        "loss dist is computed of a whole batch",
    ),
}


@pytest.mark.parametrize("case", WHOLE_BATCHES)
def test_what_needs_whole_batches_is_refused_by_name(case):
    make, arguments, text = WHOLE_BATCHES[case]
    refused(2, lambda communicator: fit(make(), communicator=communicator, **arguments), ValueError, text)
    fit(make(), **arguments)  # alone it is trained


def test_a_loss_of_ones_own_is_refused():
    def job(communicator):
        model = Sequential([Dense(2)])
        model.compile("sgd", own_loss)
        fit(model, y=TARGETS, communicator=communicator)

    refused(2, job, ValueError, "own_loss is computed of a whole batch")


OF_SHARDS = {
    "validation_split": dict(validation_split=0.5),
    "class_weight='balanced'": dict(class_weight="balanced"),
    "temperature='auto'": dict(target_model=LOGITS, temperature="auto"),
}


@pytest.mark.parametrize("name", OF_SHARDS)
def test_what_looks_at_all_samples_is_refused_with_shards(name):
    def job(communicator):
        fit(classifier(), communicator=Shards(communicator), **OF_SHARDS[name])

    refused(2, job, ValueError, name)


def test_a_reduction_over_the_batch_is_refused_with_shards():
    make = reducing(reduction="mean_with_sample_weight")
    job = lambda communicator: fit(make(), communicator=Shards(communicator))  # noqa: E731
    refused(2, job, ValueError, "reduction='mean_with_sample_weight'")


DIFFERENT = {
    "x": lambda rank: dict(x=X + (np.arange(ROWS)[:, None] == 20) * rank),
    "y": lambda rank: dict(y=(Y + rank) % CLASSES),
    "sample_weight": lambda rank: dict(sample_weight=WEIGHT + rank),
    "the teacher's answers": lambda rank: dict(target_model=LOGITS + rank),
    "validation_data": lambda rank: dict(validation_data=(X[rank:9], Y[rank:9])),
    "epochs": lambda rank: dict(epochs=2 + rank),
    "initial_epoch": lambda rank: dict(initial_epoch=rank),
    "batch_size": lambda rank: dict(batch_size=8 + rank),
    "shuffle": lambda rank: dict(shuffle=rank == 0),
    "validation_freq": lambda rank: dict(validation_freq=1 + rank),
    "the loss": lambda rank: dict(target_model=LOGITS, temperature=2.0 + rank),
    "the model's layers": lambda rank: dict(model=classifier(Dense(9 + rank))),
    "the optimizer": lambda rank: dict(model=classifier(optimizer=minidl.optimizers.SGD(0.1 + rank))),
    "the metrics": lambda rank: dict(model=classifier(metrics=["accuracy", "loss"][: 1 - rank])),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_ranks_that_differ_are_refused_by_name(name):
    def job(communicator):
        arguments = {"model": classifier(), **DIFFERENT[name](communicator.rank // 2)}
        fit(**arguments, communicator=communicator)

    refused(
        3,
        job,
        RankError,
        f"^{re.escape(name)} must be the same on all ranks, got .+ on rank 0 and .+ on rank 2",
    )


def test_a_difference_is_shown_where_it_is():
    def job(communicator):
        hidden = Dense(12, "tanh", bias_initializer="ones" if communicator.rank else "zeros")
        fit(classifier(Dense(9), Dense(9), hidden), communicator=communicator)

    refused(
        2,
        job,
        RankError,
        r"the model's layers .*got \.\.\. .*Zeros.* on rank 0 and \.\.\. .*Ones.* on rank 1",
    )


def test_other_samples_are_told_of_shards():
    def job(communicator):
        fit(classifier(), *(shard(communicator, each) for each in (X, Y)), communicator=communicator)

    refused(
        3, job, RankError, r"x must be .*\(4, 16\).* on rank 0 and .*\(20, 16\).*rank 1.*interop.mpi.Shards"
    )


def test_a_frozen_layer_of_one_rank_is_refused():
    def job(communicator):
        model = classifier()
        model.layers[0].build((FEATURES,))
        model.layers[0].trainable = communicator.rank == 0
        fit(model, communicator=communicator)

    refused(2, job, RankError, "the model's layers")


def test_shards_on_one_rank_only_are_refused():
    def job(communicator):
        fit(classifier(), communicator=Shards(communicator) if communicator.rank else communicator)

    refused(2, job, RankError, "Shards")


@pytest.mark.parametrize("when", ["on_train_begin", "on_epoch_end", "on_train_batch_end", "on_train_end"])
def test_an_error_on_one_rank_ends_all(when):
    def fail(*_):
        raise KeyError("the disk of rank 1")

    def job(communicator):
        made = [LambdaCallback(**{when: fail})] if communicator.rank == 1 else None
        fit(classifier(), callbacks=made, communicator=communicator)

    first, failed, third = errors(3, job)
    assert isinstance(failed, KeyError)
    for each in first, third:
        assert isinstance(
            each, RankError
        ) and "rank 1 of 3 has failed: KeyError: 'the disk of rank 1'" in str(each)


def test_bad_data_of_one_rank_ends_all():
    def job(communicator):
        x = X.copy()
        x[3, 2] = np.nan if communicator.rank else 0
        fit(classifier(), x, communicator=communicator)

    first, second = errors(2, job)
    assert isinstance(first, RankError) and "rank 1 of 2 has failed: ValueError: x must be finite" in str(
        first
    )
    assert isinstance(second, ValueError)


class Breaking(FakeCommunicator):
    """Its third exchange of gradients on rank 1 does not come to be, or comes with another rank's rows."""

    adds = None

    def sum_in_place(self, array):
        if array.dtype == np.float64 and array.size > 50:
            self.count = getattr(self, "count", 0) + 1
            if self.count == 3 and self.rank == 1:
                if self.adds is None:
                    raise OSError("the network is down")
                array[-1] += self.adds
        super().sum_in_place(array)


def test_an_error_inside_a_step_ends_all_ranks(capsys):
    def job(communicator):
        fit(classifier(), communicator=Breaking(communicator.rank, 2, communicator._shared))

    first, second = errors(2, job)
    assert isinstance(second, OSError) and "Barrier" in type(first).__name__
    assert "rank 1 of 2 has failed in the middle of a step" in capsys.readouterr().err


def test_ranks_out_of_step_are_found():
    def job(communicator):
        broken = Breaking(communicator.rank, 2, communicator._shared)
        broken.adds = 1
        fit(classifier(), communicator=broken)

    assert any("out of step" in str(each) for each in errors(2, job))


def test_ranks_that_drift_apart_are_found():
    def job(communicator):
        model = classifier()

        def change(epoch, logs):
            model.params[0] += communicator.rank

        fit(model, callbacks=[LambdaCallback(on_epoch_end=change)], communicator=communicator)

    refused(2, job, RankError, "parameters of rank 1 are no longer those of rank 0")


@pytest.mark.parametrize("communicator", [3, "world", object()])
def test_another_thing_is_no_communicator(communicator):
    with pytest.raises(TypeError, match="communicator must be one of mpi4py"):
        fit(classifier(), communicator=communicator)


def test_an_iterable_of_batches_is_refused():
    def job(communicator):
        classifier().fit([(X[:8], Y[:8])], verbose=0, communicator=communicator)

    refused(2, job, ValueError, "communicator must be left out where x is an iterable of batches")
