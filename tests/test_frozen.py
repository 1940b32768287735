"""Frozen layers, and other settings that change on a layer that is built: both ways of running follow at once."""

import numpy as np
import pytest
from own_layers import Scale

import minidl
from minidl.callbacks import Callback
from minidl.constraints import MaxNorm
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    RandomTranslation,
    Softmax,
)
from minidl.models import Sequential, load_model
from minidl.optimizers import SGD, Adam, AdamW, RMSprop
from minidl.regularizers import L2

SPARSE = "sparse_categorical_crossentropy"
RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(50, 12)).astype("f4"), RNG.integers(0, 4, 50)
OPTIMIZERS = {
    "sgd": lambda: SGD(0.1, weight_decay=0.1),
    "momentum": lambda: SGD(0.1, momentum=0.9),
    "adamw": lambda: AdamW(0.01, weight_decay=0.1),
    "clipnorm": lambda: Adam(0.01, clipnorm=0.05, weight_decay=0.1),
    "global_clipnorm": lambda: RMSprop(0.01, global_clipnorm=0.05),
    "clipvalue": lambda: SGD(0.1, clipvalue=0.001),
}
FROZEN = ([0], [1], [2], [0, 1], [0, 2], [1, 2])


class Penalized(Scale):
    """A user's layer, so that the model runs layer by layer."""

    def build(self, input_shape):
        self.add_weight("gain", input_shape, initializer="ones", regularizer=L2(0.1))


def dense(frozen=(), activation="softmax", **settings):
    sizes, activations = (20, 9, 4), ("relu", "tanh", activation)
    return [
        Dense(size, name, input_dim=12 if place == 0 else None, trainable=place not in frozen, **settings)
        for place, (size, name) in enumerate(zip(sizes, activations, strict=True))
    ]


def train(layers, optimizer="adamw", layerwise=False, x=X, **fit):
    model = Sequential(layers, seed=5)
    model.compile(OPTIMIZERS[optimizer](), SPARSE)
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    history = model.fit(x, Y, **{"batch_size": 16, "epochs": 2, "verbose": 0} | fit)
    return model, history.history["loss"]


def copies(model, frozen):
    return [weight.copy() for index in frozen for weight in model.layers[index].weights]


# -- frozen layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("frozen", FROZEN, ids=str)
@pytest.mark.parametrize(
    "rules", [{}, {"kernel_regularizer": "l2", "kernel_constraint": MaxNorm(0.5)}], ids=["", "rules"]
)
def test_both_ways_train_what_is_not_frozen_to_the_same_bits(optimizer, frozen, rules):
    fresh = copies(Sequential(dense(**rules), seed=5), frozen)
    for activation in ("softmax", "relu"):  # fused with the loss, in a copy of the layer, or not
        if activation == "relu":
            layers, other = (
                [*dense(frozen, "relu", **rules), Softmax()],
                [*dense(frozen, "relu", **rules), Softmax()],
            )
        else:
            layers, other = dense(frozen, **rules), dense(frozen, **rules)
        (compiled, loss), (layerwise, again) = (
            train(layers, optimizer),
            train(other, optimizer, layerwise=True),
        )
        assert np.array_equal(compiled.params, layerwise.params)
        np.testing.assert_allclose(loss, again, rtol=1e-12)
        for before, after in zip(fresh, copies(compiled, frozen), strict=True):
            assert np.array_equal(before, after)
        for index in {0, 1, 2} - set(frozen):
            assert not np.array_equal(
                compiled.layers[index].weight, Sequential(dense(), seed=5).layers[index].weight
            )
        for slot in compiled.optimizer.slots:
            for index in frozen if slot.size else ():
                offset, size = (
                    compiled.layers[index].parameters[0].offset,
                    compiled.layers[index].count_params(),
                )
                assert not slot[offset : offset + size].any()


def test_bits_of_frozen_models_do_not_depend_on_threads():
    before, found = minidl.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            minidl.set_num_threads(number)
            found.append(
                np.concatenate([train(dense([1]), name)[0].params for name in ("adamw", "clipnorm")])
            )
    finally:
        minidl.set_num_threads(before)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize("optimizer", ["adamw", "global_clipnorm", "clipnorm"])
def test_what_stands_on_a_frozen_layer_trains_as_on_its_outputs(optimizer):
    rules = {"kernel_regularizer": L2(0.1), "kernel_constraint": MaxNorm(0.9)}
    whole, loss = train(dense([0], **rules), optimizer, epochs=3, shuffle=False)
    bottom = Sequential(dense(**rules)[:1], seed=5)
    bottom.layers[0].set_weights(whole.layers[0].get_weights())
    top = Sequential([Dense(9, "tanh", input_dim=20, **rules), Dense(4, "softmax", **rules)])
    top.set_weights(Sequential(dense(**rules), seed=5).get_weights()[2:])
    top.compile(OPTIMIZERS[optimizer](), SPARSE)
    history = top.fit(bottom.predict(X), Y, batch_size=16, epochs=3, verbose=0, shuffle=False)
    # the loss too: a frozen layer adds no penalty, and no share to the norm of the gradient
    np.testing.assert_allclose(loss, history.history["loss"], rtol=1e-6)
    np.testing.assert_allclose(whole.params[-top.params.size :], top.params, rtol=2e-5, atol=1e-6)
    assert whole.evaluate(X, Y, verbose=0) == pytest.approx(top.evaluate(bottom.predict(X), Y, verbose=0))
    other, other_loss = train(dense(**rules), optimizer, epochs=3, shuffle=False)
    assert other_loss[0] > 1.05 * loss[0]


def test_trainable_is_a_setting_at_any_time():
    model, _ = train(dense())
    kept, slots = model.params.copy(), [slot.copy() for slot in model.optimizer.slots]
    bottom = model.layers[0].count_params()
    model.layers[0].trainable = False
    assert not model.layers[0].trainable and model.trainable
    model.fit(X, Y, verbose=0)
    model.train_on_batch(X, Y)
    assert np.array_equal(model.params[:bottom], kept[:bottom])
    assert not np.array_equal(model.params[bottom:], kept[bottom:])
    for before, after in zip(slots, model.optimizer.slots, strict=True):
        assert np.array_equal(before[:bottom], after[:bottom])
    model.layers[0].trainable = True
    model.fit(X, Y, verbose=0)
    assert not np.array_equal(model.params[:bottom], kept[:bottom])
    with pytest.raises(TypeError, match="trainable must be True or False, got 0"):
        model.layers[0].trainable = 0
    with pytest.raises(TypeError, match="trainable must be True or False, got 'no'"):
        Dense(3, trainable="no")
    assert model.layers[0].trainable


def test_a_model_without_trainable_layers_learns_nothing_and_says_so():
    model = Sequential(dense(), seed=5)
    model.compile("adam", SPARSE)
    model.trainable = False
    assert not model.trainable and not any(layer.trainable for layer in model.layers)
    kept = model.params.copy()
    for call in (lambda: model.fit(X, Y, verbose=0), lambda: model.train_on_batch(X, Y)):
        with pytest.warns(UserWarning, match="learns nothing: no layer with parameters is trainable"):
            call()
    assert np.array_equal(model.params, kept)
    model.trainable = True
    model.fit(X, Y, verbose=0)
    assert not np.array_equal(model.params, kept)


def test_a_frozen_model_is_described_saved_and_copied(tmp_path, capsys):
    model, _ = train(dense([0]))
    model.summary()
    out = capsys.readouterr().out
    assert (
        "Total params: 489 " in out
        and "Trainable params: 229 " in out
        and "Non-trainable params: 260 " in out
    )
    assert model.count_params() == 489
    assert [view.shape for view in model.non_trainable_weights] == [(12, 20), (20,)]
    assert len(model.trainable_weights) == 4 and len(model.weights) == 6
    model.save(tmp_path / "m.npz")
    copied = [
        load_model(tmp_path / "m.npz"),
        Sequential.from_config(model.get_config()),
        minidl.clone_model(model),
    ]
    assert [layer.get_config().get("trainable") for layer in model.layers] == [False, None, None]
    for each in copied:
        assert [layer.trainable for layer in each.layers] == [False, True, True]
    model.fit(X, Y, epochs=3, initial_epoch=2, verbose=0)
    copied[0].fit(X, Y, epochs=3, initial_epoch=2, verbose=0)
    assert np.array_equal(model.params, copied[0].params)


def test_a_users_frozen_layer_does_not_move_though_its_backward_writes_a_gradient():
    for frozen in (False, True):
        model = Sequential(
            [Dense(6, input_dim=12), Penalized(trainable=not frozen), Dense(4, "softmax")], seed=1
        )
        model.compile(SGD(0.1, weight_decay=0.1, global_clipnorm=1e-3), SPARSE)
        model.fit(X, Y, verbose=0)
        assert (model.layers[1].gain == 1).all() == frozen
        assert model.grads[model.layers[1].parameters[0].offset :][:6].any() != frozen
        assert minidl.check_gradients(model, X[:4], Y[:4]) < 1e-6


def test_a_gradient_that_a_users_backward_leaves_alone_is_zero_in_each_step():
    class Forgets(Penalized):
        def backward(self, dout):
            return dout * self.gain

    model = Sequential([Dense(6, input_dim=12), Forgets(), Dense(4, "softmax")], seed=1)
    model.compile(SGD(1e-9), SPARSE)
    offset = model.layers[1].parameters[0].offset
    for _ in range(3):
        model.train_on_batch(X, Y)
        np.testing.assert_allclose(
            model.grads[offset : offset + 6], 0.2, rtol=1e-5
        )  # of the penalty 0.1 gain^2
    model.backward(np.ones_like(model.forward(X)))
    assert np.array_equal(model.layers[1].dgain, np.zeros(6)), "by hand too, without the penalty"
    assert model.layers[0].dweight.any()


def test_no_weight_gradient_is_computed_for_a_frozen_layer_nor_any_below_the_lowest_that_learns(monkeypatch):
    made = []
    monkeypatch.setattr(
        "minidl.layers.dense.dense_backward", lambda dx, dw, db, *_: made.append((dw.size, db.size))
    )
    train(dense([0, 1]), layerwise=True, epochs=1, batch_size=50)
    assert made == [(36, 4)]
    made.clear()
    train(dense([1]), layerwise=True, epochs=1, batch_size=50)
    assert made == [(36, 4), (0, 0), (240, 20)]


# -- other settings ----------------------------------------------------------------------------------------


class Change(Callback):
    """Sets attributes of layers at the beginning of an epoch."""

    def __init__(self, **changes):
        super().__init__()
        self.changes = changes

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            for place, (name, value) in self.changes.items():
                setattr(self.model.layers[int(place[1:])], name, value)


def mixed():
    return [
        GaussianNoise(0.0, input_shape=(12,)),
        Dense(20, "relu", kernel_regularizer="l1"),
        Dropout(0.0),
        Dense(4, "softmax"),
    ]


CHANGES = {
    "trainable": {"_1": ("trainable", False)},
    "last trainable": {"_3": ("trainable", False)},
    "rate": {"_2": ("rate", 0.5)},
    "stddev": {"_0": ("stddev", 0.3)},
    "no penalty": {"_1": ("kernel_regularizer", None)},
    "penalty": {"_3": ("kernel_regularizer", L2(0.3))},
    "bias": {"_1": ("bias_regularizer", "l2")},
    "constraint": {"_1": ("kernel_constraint", MaxNorm(0.5))},
    "bias constraint": {"_1": ("bias_constraint", MaxNorm(0.01))},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_changed_in_training_works_from_the_next_step_on(change):
    compiled, loss = train(mixed(), epochs=3, callbacks=[Change(**CHANGES[change])])
    layerwise, again = train(mixed(), layerwise=True, epochs=3, callbacks=[Change(**CHANGES[change])])
    unchanged, other = train(mixed(), epochs=3)
    assert np.array_equal(compiled.params, layerwise.params) and not np.array_equal(
        compiled.params, unchanged.params
    )
    np.testing.assert_allclose(loss, again, rtol=1e-12)
    assert loss[0] == other[0] and loss[2] != other[2]


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_changed_between_fits_is_as_one_of_the_constructor(change):
    ((place, (name, value)),) = CHANGES[change].items()
    changed = Sequential(mixed(), seed=5)
    setattr(changed.layers[int(place[1:])], name, value)
    made = mixed()
    index = int(place[1:])
    config = {**made[index].get_config(), name: value}
    made[index] = type(made[index])(**config)
    config = made[index].get_config()
    assert changed.layers[index].get_config() == {**config, "name": changed.layers[index].name}
    found = []
    for model in (changed, Sequential(made, seed=5)):
        model.compile("adam", SPARSE)
        model.fit(X, Y, verbose=0)
        found.append(model.params)
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("layer", "name", "value", "error", "message"),
    [
        (Dropout(0.5), "rate", 1.5, ValueError, "rate must be < 1, got 1.5"),
        (Dropout(0.5), "rate", "0.5", TypeError, "rate must be a number, got '0.5'"),
        (Dropout(0.5), "seed", -1, ValueError, "seed must be >= 0, got -1"),
        (GaussianNoise(0.5), "stddev", -1, ValueError, "stddev must be >= 0"),
        (Dense(3), "kernel_regularizer", "l3", ValueError, "unknown regularizer 'l3'"),
        (Dense(3), "kernel_constraint", 3, TypeError, "constraint must be"),
        (
            Dense(3),
            "kernel_initializer",
            "ones",
            AttributeError,
            "kernel_initializer is .* cannot become 'ones'",
        ),
        (Dense(3), "name", "other", AttributeError, "cannot become 'other'"),
        (Softmax(), "activation", "relu", AttributeError, "activation is 'softmax'.* cannot become 'relu'"),
        (Softmax(), "axis", 1, AttributeError, "axis .* cannot become 1"),
        (
            Dense(3),
            "trainabel",
            False,
            AttributeError,
            "Dense has no setting 'trainabel': did you mean 'trainable'",
        ),
        (Dense(3), "kernel_regulariser", "l2", AttributeError, "did you mean 'kernel_regularizer'"),
        (Dropout(0.5), "p", 0.1, AttributeError, "Dropout has no setting 'p'"),
        (Dense(3), "input_dim", 3, AttributeError, "input_dim is .* cannot become 3"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_setting_that_cannot_be_is_refused_and_changes_nothing(layer, name, value, error, message):
    model = Sequential([Dense(12, input_dim=12), layer])
    before = layer.get_config()
    with pytest.raises(error, match=message):
        setattr(layer, name, value)
    assert layer.get_config() == before and model.layers[1] is layer


def test_settings_before_a_layer_is_built():
    layer = Dense(3)
    layer.units, layer.activation, layer.kernel_initializer = 5, "tanh", "ones"
    layer.build((2,))
    assert layer.output_shape == (5,) and layer.parameters[0].initializer((1,)) == 1
    assert layer.get_config()["activation"] == "tanh" and layer._activation.name == "tanh"
    with pytest.raises(ValueError, match="units must be >= 1, got 0"):
        Dense(3).units = 0
    with pytest.raises(AttributeError, match="activation is 'softmax' and cannot become 'relu'"):
        Softmax().activation = "relu"
    activation = Activation("relu")
    activation.activation = "elu"
    activation.build((2,))
    assert activation.ops()[0].activation == Activation("elu")._activation.code


def test_a_users_layer_keeps_its_attributes_to_itself():
    class Own(Dense):
        def __init__(self, units, gain=1.0, **options):
            super().__init__(units, **options)
            self.gain = gain
            self.units = units + 1  # checked as the constructor checks it

        def forward(self, x, training=False):
            self.seen = len(x)
            return self.gain * super().forward(x, training)

    model = Sequential([Own(3, input_dim=12)])
    model.layers[0].gain, model.layers[0].trainable = 2.0, False
    assert model.output_shape == (4,) and model.forward(X).shape == (50, 4) and model.layers[0].seen == 50
    assert model.non_trainable_weights and not model.trainable_weights


# -- seeds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made", [lambda seed: Dropout(0.5, seed), lambda seed: GaussianNoise(0.5, seed=seed)]
)
def test_a_random_layers_own_seed_takes_the_place_of_the_models(made):
    def trained(seed, model_seed, layerwise=False):
        model = Sequential([Dense(9, input_dim=12), made(seed), Dense(4, "softmax")], seed=model_seed)
        model.params[...] = np.linspace(-1, 1, model.params.size)
        model.compile("sgd", SPARSE)
        if layerwise:
            model.ops = lambda training=False, logits=False: None
        model.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
        return model.params.tolist()

    assert trained(3, 0) == trained(3, 1) == trained(3, 0, layerwise=True)
    assert trained(3, 0) != trained(4, 0) != trained(None, 0) != trained(None, 1)
    assert trained(None, 3) == trained(3, 0)


def test_the_seed_of_a_translation():
    images = RNG.normal(size=(8, 6, 5)).astype("f4")
    found = []
    for seed, model_seed in ((1, 0), (1, 5), (2, 0)):
        model = Sequential(
            [RandomTranslation(0.5, 0.5, seed=seed, input_shape=(6, 5)), Flatten()], seed=model_seed
        )
        found.append(model.forward(images, training=True))
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
