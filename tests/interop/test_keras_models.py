"""Models converted to Keras and from it, and Keras models as teachers."""

import os

import numpy as np
import pytest
from extras import needs

os.environ.setdefault("KERAS_BACKEND", "torch")
needs("keras", "torch", "h5py")

import keras  # noqa: E402
from keras import layers as kl  # noqa: E402
from nets import check_equal, random_net, samples  # noqa: E402

import minidl  # noqa: E402
from minidl.constraints import Constraint  # noqa: E402
from minidl.initializers import Initializer  # noqa: E402
from minidl.interop.keras import from_keras, keras_teacher, to_keras  # noqa: E402
from minidl.layers import Dense, Input, Normalization, RandomTranslation, ReLU  # noqa: E402
from minidl.models import Sequential  # noqa: E402
from minidl.regularizers import Regularizer  # noqa: E402
from minidl.teachers import cached_logits  # noqa: E402


def run(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def settings(model):
    """All that the layers are made of."""
    configs = [(type(layer).__name__, layer.get_config()) for layer in model.layers]
    for _, config in configs:
        for key, value in config.items():
            if key.endswith("_regularizer") and value:  # one class in Keras stands for three
                config[key] = {"l1": value["config"].get("l1", 0.0), "l2": value["config"].get("l2", 0.0)}
            elif isinstance(value, float):
                config[key] = round(value, 9)
    return configs


@pytest.mark.parametrize("part", range(5))
def test_random_nets_both_ways(part, tmp_path):
    for seed in range(20 * part, 20 * part + 20):
        model = random_net(seed, everywhere=False)
        x = samples(model)
        theirs = to_keras(model)
        check_equal(model.predict(x), run(theirs, x), "float32")
        ways = [theirs]
        if seed % 5 == 0:
            theirs.save(tmp_path / "m.keras")
            ways += [tmp_path / "m.keras", keras.models.load_model(tmp_path / "m.keras")]
        for way in ways:
            back = from_keras(way)
            assert np.array_equal(back.params, model.params) and back.name == model.name
            assert settings(back) == settings(model)
            check_equal(back.predict(x), run(theirs, x), "float32")


def test_the_comparison_sees_small_changes():
    model = Sequential([Input((6,)), Dense(5, "tanh"), Dense(3)], seed=1)
    theirs = to_keras(model)
    theirs.layers[0].set_weights([1.0001 * array for array in theirs.layers[0].get_weights()])
    with pytest.raises(AssertionError):
        check_equal(model.predict(samples(model)), run(theirs, samples(model)), "float32")


def functional():
    x = inputs = keras.Input((4,))
    x = kl.Dense(5, activation="relu6", name="first")(x)
    x = keras.Sequential([kl.Dense(6, activation=kl.LeakyReLU(0.1)), kl.BatchNormalization()])(x)
    inner = keras.Input((6,))
    x = keras.Model(inner, kl.Dense(3, activation="gelu")(kl.Identity()(inner)))(x)
    return keras.Model(inputs, kl.Softmax()(x))


def sequential():
    parts = [
        kl.Normalization(),
        kl.Dense(
            3, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm", trainable=False
        ),
        kl.PReLU(),
        kl.LayerNormalization(axis=[-1]),
        kl.Dropout(0.2, seed=3),
        kl.Rescaling(keras.ops.ones(3), [1.0, 2.0, 3.0]),
        kl.BatchNormalization(axis=1, center=False),
        kl.ReLU(1, 0.25, 0.5),
        kl.Dense(2, kernel_initializer="orthogonal", activation="swish"),
    ]
    model = keras.Sequential([keras.Input((4,)), *parts])
    parts[0].adapt(np.random.default_rng(0).normal(3, 2, (50, 4)))
    return model


def images():
    return keras.Sequential([keras.Input((2, 3)), kl.Rescaling(0.5), kl.Flatten(), kl.Dense(2)])


def called():
    model = keras.Sequential([kl.Dense(3, activation="tanh"), kl.Dense(2)])
    model(np.ones((2, 4), "f4"))
    return model


def frozen():
    model = keras.Sequential([keras.Input((4,)), kl.BatchNormalization(), kl.Dense(2)])
    model.trainable = False
    return model


@pytest.mark.parametrize("make", [functional, sequential, images, called, frozen])
def test_models_of_keras(make, tmp_path):
    rng, theirs = np.random.default_rng(1), make()
    flat = [
        part for layer in theirs.layers for part in (layer.layers if hasattr(layer, "layers") else [layer])
    ]
    for layer in flat:
        if not isinstance(layer, kl.Normalization):
            layer.set_weights([rng.uniform(0.1, 0.5, array.shape) for array in layer.get_weights()])
    theirs.save(tmp_path / "m.keras")
    for model in (from_keras(theirs), from_keras(tmp_path / "m.keras")):
        x = samples(model)
        check_equal(model.predict(x), run(theirs, x), "float32")
        check_equal(model.predict(x), run(to_keras(model), x), "float32")
        assert model.optimizer is None
    assert all(layer.trainable for layer in model.layers) == (make not in (sequential, frozen))
    assert make is not frozen or not any(layer.trainable for layer in model.layers)


def test_an_activation_that_becomes_a_layer_is_named_after_its_own():
    model = from_keras(one(kl.Dense(3, "relu6", name="a"), kl.Dense(3, kl.LeakyReLU(0.1), name="b")))
    assert [layer.name for layer in model.layers] == ["a", "a_activation", "b", "b_activation"]


def test_rules_are_carried():
    model = from_keras(sequential())
    first, last = (layer for layer in model.layers if isinstance(layer, Dense))
    assert (
        first.kernel_regularizer.l2 == 0.01 and first.kernel_constraint.max_value == 2 and not first.trainable
    )
    assert type(last.kernel_initializer).__name__ == "Orthogonal" and last.activation == "silu"
    assert model.layers[4].seed == 3
    back = to_keras(model)
    assert back.layers[1].kernel_regularizer.l2 == pytest.approx(0.01)
    assert back.layers[1].kernel_constraint.max_value == 2 and not back.layers[1].trainable


def test_both_train_alike():
    model = Sequential([Input((6,)), Dense(8, "gelu_tanh"), Dense(3, "softmax")], seed=1)
    theirs, before = to_keras(model), model.params.copy()
    x, y = np.random.default_rng(0).normal(size=(16, 6)).astype("f4"), np.arange(16) % 3
    for each in (model, theirs):
        each.compile("adam", "sparse_categorical_crossentropy")
        each.fit(x, y, batch_size=16, epochs=5, shuffle=False, verbose=0)
    trained = from_keras(theirs).params
    np.testing.assert_allclose(trained, model.params, atol=1e-5)
    assert abs(trained - before).max() > 1e-3


class Own(kl.Dense):
    pass


class OwnModel(keras.Sequential):
    pass


def two_paths():
    inputs = keras.Input((4,))
    return keras.Model(
        inputs, kl.Add()([kl.Dense(3, name="left")(inputs), kl.Dense(3, name="right")(inputs)])
    )


def one(*parts, shape=(4,)):
    return keras.Sequential([keras.Input(shape), *parts])


def repeated():
    inputs, layer = keras.Input((4,)), kl.Dense(4, name="again")
    return keras.Model(inputs, layer(layer(inputs)))


def dropping():
    inputs = keras.Input((4,))
    return keras.Model(inputs, kl.Dropout(0.1, name="always")(inputs, training=True))


REFUSED = [
    (lambda: one(kl.Conv1D(3, 1, name="mine"), shape=(4, 3)), r"layer 'mine' \(Conv1D\) has no counterpart"),
    (
        lambda: one(keras.Sequential([kl.Reshape((2, 2), name="deep")])),
        r"layer 'deep' \(Reshape\) has no counterpart",
    ),
    (lambda: one(Own(3, name="mine")), r"layer 'mine' \(Own\) is a class of your own"),
    (
        lambda: one(kl.Dense(3, activation=lambda x: x, name="mine")),
        "layer 'mine' has the activation .*lambda",
    ),
    (
        lambda: one(kl.Dense(3, activation="mish", name="mine")),
        r"layer 'mine' \(Dense\): unknown activation 'mish'",
    ),
    (
        lambda: one(kl.Dense(3, activation=kl.PReLU(), name="mine")),
        "has the activation .*which minidl has not",
    ),
    (lambda: one(kl.Dropout(0.1, noise_shape=(None, 1), name="mine")), "has noise_shape="),
    (lambda: one(kl.PReLU(shared_axes=[1], name="mine"), shape=(2, 3)), "shared_axes must be None"),
    (lambda: one(kl.Softmax(axis=1, name="mine"), shape=(2, 3)), "axis must be -1"),
    (lambda: one(kl.LayerNormalization(axis=1, name="mine"), shape=(2, 3)), "axis of layer mine must be -1"),
    (lambda: one(kl.LayerNormalization(rms_scaling=True, name="mine")), "rms_scaling must be False"),
    (
        lambda: one(kl.RandomTranslation(0.1, 0.1, name="mine"), shape=(2, 3, 1)),
        "'mine' .RandomTranslation. has no",
    ),
    (
        lambda: one(kl.Dense(3, kernel_regularizer="orthogonal_regularizer")),
        "'OrthogonalRegularizer' of layer",
    ),
    (
        lambda: one(kl.Dense(3, dtype="mixed_bfloat16", name="mine")),
        r"'mine' \(Dense\) computes in 'mixed_bfloat16'",
    ),
    (lambda: one(kl.Dense(3), kl.Dense(3, dtype="float64")), "all layers must compute in one dtype, got"),
    (lambda: one(kl.Dense(3), shape=(None, 4)), r"must have a shape that is known, got \(?\[?None, None, 4"),
    (lambda: one(kl.Dense(3, name="mine"), shape=(2, 4)), "put a Flatten layer before it"),
    (lambda: keras.Sequential([kl.Dense(3)]), "is not built: give it an Input"),
    (lambda: OwnModel([keras.Input((4,)), kl.Dense(3)]), "OwnModel. is neither a keras.Sequential nor"),
    (two_paths, r"layer 'left' is on no path|\(Add\) has no counterpart|takes more than one input"),
    (
        lambda: one(
            keras.Sequential([kl.Dense(3, name="mine")]), keras.Sequential([kl.Dense(3, name="mine")])
        ),
        r"layer 'mine' \(Dense\) has the name of another layer",
    ),
    (repeated, "layer 'again' is used 2 times: a minidl model is one path"),
    (dropping, "layer 'always' is called with training=True"),
]


@pytest.mark.parametrize("make, message", REFUSED)
def test_what_keras_has_and_minidl_has_not_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        from_keras(make())


def test_a_layer_with_another_call_is_seen():
    model = one(kl.Dense(3))
    ours = model.layers[0].call
    model.layers[0].call = lambda x, **options: ours(x) + 1
    with pytest.raises(ValueError, match="different numbers"):
        from_keras(model)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="must be a keras.Model or the path of a .keras file, got"):
        from_keras(kl.Dense(3))
    with pytest.raises(TypeError, match="model must be a minidl.Sequential, got"):
        to_keras(one(kl.Dense(3)))
    with pytest.raises(TypeError, match="model must be a keras.Model, got"):
        keras_teacher(kl.Dense(3))


class OwnDense(Dense):
    pass


class OwnInitializer(Initializer):
    def draw(self, shape, rng):
        return np.ones(shape)


class OwnRegularizer(Regularizer):
    l2 = 0.5


class OwnConstraint(Constraint):
    def __call__(self, weight):
        return weight


@pytest.mark.parametrize(
    "layer, message",
    [
        (OwnDense(3, name="mine"), r"'mine' \(OwnDense\) is your own"),
        (
            Dense(3, kernel_constraint=OwnConstraint(), name="mine"),
            "kernel_constraint of layer 'mine' .OwnConstraint.",
        ),
        (
            RandomTranslation(0.1, 0.1, name="mine", input_shape=(3, 3)),
            "'mine' .RandomTranslation. has no counterpart",
        ),
        (Normalization(name="mine"), "'mine' has no mean and variance yet"),
    ],
)
def test_what_minidl_has_and_keras_has_not_is_refused(layer, message):
    shape = (3, 3) if isinstance(layer, RandomTranslation) else (4,)
    with pytest.raises(ValueError, match=message):
        to_keras(Sequential([Input(shape), layer]))


class OwnReLU(ReLU):
    pass


def test_own_classes_of_other_layers_and_rules():
    with pytest.raises(ValueError, match=r"'mine' \(OwnReLU\) is your own"):
        to_keras(Sequential([Input((4,)), OwnReLU(6.0, name="mine")]))
    with pytest.raises(ValueError, match="give the first layer an input_shape"):
        to_keras(Sequential([Dense(3)]))
    layer = Dense(3, kernel_initializer=OwnInitializer(), kernel_regularizer=OwnRegularizer(), name="mine")
    with pytest.warns(
        UserWarning, match="kernel_initializer of layer 'mine' .OwnInitializer. has no counterpart"
    ):
        theirs = to_keras(Sequential([Input((4,)), layer]))
    assert theirs.layers[0].kernel_regularizer.l2 == 0.5


# ---------------------------------------------------------------- teachers

X = np.random.default_rng(3).normal(size=(90, 6)).astype(np.float32)
Y = np.random.default_rng(4).integers(0, 3, 90)


def student(units=3, last="softmax"):
    return Sequential([Input((6,)), Dense(8, activation="relu"), Dense(units, activation=last)], seed=1)


def teaching(*ending, units=3):
    keras.utils.set_random_seed(1)
    return one(kl.Dense(8, activation="relu"), kl.Dropout(0.5), kl.Dense(units), *ending, shape=(6,))


class Subclassed(keras.Model):
    """A model that does not tell how it ends."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, x):
        return self.model(x)


def test_a_softmax_at_the_end_is_never_taken_for_logits():
    logits = cached_logits(keras_teacher(teaching()), X)
    inputs = keras.Input((6,))
    nested = keras.Model(inputs, keras.Sequential([kl.Softmax()])(teaching()(inputs)))
    whole = keras.Model(inputs, teaching(kl.Activation("softmax"))(inputs))
    for given in (teaching(kl.Softmax()), teaching(kl.Activation("softmax")), nested, whole):
        with pytest.raises(ValueError, match="model '.*' ends in softmax, so .* say from_probs=True"):
            keras_teacher(given)
        found = cached_logits(keras_teacher(given, from_probs=True), X)
        np.testing.assert_allclose(minidl.softmax(found), minidl.softmax(logits), atol=1e-6)
        assert abs(np.exp(found).sum(axis=1) - 1).max() < 1e-5, "logarithms of probabilities"
    unknown = Subclassed(teaching(kl.Softmax()))
    with pytest.raises(ValueError, match="looks like probabilities"):
        cached_logits(keras_teacher(unknown), X)
    found = cached_logits(keras_teacher(unknown, from_probs=True), X)
    np.testing.assert_allclose(minidl.softmax(found), minidl.softmax(logits), atol=1e-6)


def test_it_teaches_and_stays_as_it_was():
    model = teaching(kl.Softmax())
    before = model.get_weights()
    teacher = keras_teacher(model, from_probs=True)
    np.testing.assert_array_equal(teacher(X), teacher(X), "dropout is off")
    minidl.distill(teacher, student(), X, Y, epochs=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    one_output = keras_teacher(teaching(kl.Activation("sigmoid"), units=1), from_probs=True)
    np.testing.assert_allclose(one_output(X), run(teaching(units=1), X), atol=1e-5)
    minidl.distill(one_output, student(1, "sigmoid"), X, Y > 1, epochs=2, verbose=0)
    inputs = keras.Input((6,))
    two = keras.Model(inputs, [kl.Dense(3)(inputs), kl.Dense(3)(inputs)])
    with pytest.raises(TypeError, match="must have one output, got"):
        keras_teacher(two)(X)
