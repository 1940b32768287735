"""What Keras's models have in other words: batches, JSON, ``[x]``, ``compile``'s arguments, chains, files."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
import zipfile

import numpy as np
import pytest

from minidl import Input, Model, Sequential, load_model
from minidl.layers import Activation, Dense, Dropout, Flatten, Layer, Rescaling
from minidl.models import model_from_json

X = np.random.default_rng(0).normal(size=(40, 6)).astype("f4")
Y = np.arange(40) % 3


def layers():
    return [Dense(5, "relu"), Dropout(0.2), Dense(3, "softmax")]


def trained(x=X, **settings):
    model = Sequential([Input((6,)), *layers()], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"], **settings)
    model.fit(x, Y, epochs=2, verbose=0)
    return model


def chain(start=None, name=None):
    start = start or Input((6,))
    place = start
    for layer in layers():
        place = layer(place)
    return Model(start, place, name=name, seed=1)


# -- methods --------------------------------------------------------------------------------------------


def test_methods_on_a_batch_are_evaluate_and_predict():
    model = trained()
    assert model.test_on_batch(X, Y) == model.evaluate(X, Y, verbose=0)
    assert model.test_on_batch(X, Y, np.ones(40), return_dict=True) == model.evaluate(
        X, Y, return_dict=True, verbose=0
    )
    assert np.array_equal(model.predict_on_batch(X), model.predict(X))
    assert list(model.test_on_batch(X, Y, return_dict=True)) == model.metrics_names == ["loss", "accuracy"]
    assert Sequential(layers()).metrics_names == []
    before = model.params.copy()
    model.test_on_batch(X[:3], Y[:3])
    assert np.array_equal(model.params, before)


def test_json_gives_the_architecture_again():
    model = Sequential([Input((6,)), Rescaling(np.arange(1.0, 7)), *layers()], name="pupil", seed=3)
    again = model_from_json(model.to_json(indent=2))
    assert again.get_config() == model.get_config() and again.optimizer is None
    assert np.array_equal(again.params, model.params)  # of the same seed

    class Twice(Layer):
        def forward(self, x, training=False):
            return 2 * x

        def backward(self, dout):
            return 2 * dout

    own = Sequential([Input((6,)), Twice()])
    assert type(model_from_json(own.to_json(), {"Twice": Twice}).layers[0]) is Twice
    with pytest.raises(ValueError, match="layer class Twice is not minidl's"):
        model_from_json(own.to_json())
    for text, error in (("{", ValueError), ("[]", ValueError), ('{"config": 3}', ValueError), (3, TypeError)):
        with pytest.raises(error, match="json_string"):
            model_from_json(text)


def test_inputs_and_outputs_have_shapes_and_no_numbers():
    model = trained()
    assert [place.shape for place in (model.inputs[0], model.outputs[0], model.input, model.output)] == [
        (None, 6), (None, 3), (None, 6), (None, 3),
    ]  # fmt: skip
    assert model.output.dtype == "float32" and model.output.ndim == 2
    with pytest.raises(ValueError, match="has no numbers: it is a place in a chain"):
        model.predict(model.input)
    with pytest.raises(ValueError, match="inputs needs a built model"):
        _ = Sequential(layers()).inputs


# -- [x] ------------------------------------------------------------------------------------------------


def test_a_list_of_one_array_is_that_array():
    model, listed = trained(), trained([X])
    assert np.array_equal(listed.params, model.params)
    assert model.evaluate([X], Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    for found in (model.predict([X]), model.predict((X,)), model.predict(X.tolist()), model.predict(list(X))):
        assert np.array_equal(found, model.predict(X))
    assert model.fit(X, Y, validation_data=([X], Y), verbose=0).history["val_loss"]
    assert model.train_on_batch([X], Y)
    unbuilt = Sequential(layers(), seed=1)
    assert unbuilt.predict([X]).shape == (40, 3)
    one = Sequential([Flatten(input_shape=(2, 3)), Dense(2)])
    assert one.predict([np.ones((2, 3))]).shape == (1, 2)  # a list of samples stays data
    assert one.predict([np.ones((4, 2, 3))]).shape == (4, 2)


def test_several_inputs_are_refused():
    model = trained()
    with pytest.raises(ValueError, match="x must be one array, got a list of 2: a model has one input"):
        model.predict([X, X])
    with pytest.raises(ValueError, match="x must be one array, got a list of 3"):
        model.fit([X, X, X[:2]], Y, verbose=0)


# -- compile --------------------------------------------------------------------------------------------


def test_arguments_that_mean_nothing_here_change_nothing():
    settings = dict(jit_compile=True, run_eagerly=True, steps_per_execution=7, auto_scale_loss=False)
    settings |= dict(loss_weights=None, weighted_metrics=[])
    assert np.array_equal(trained(**settings).params, trained().params)
    assert not np.array_equal(trained(X + 1, **settings).params, trained().params)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"loss_weights": [0.5]}, ValueError, r"loss_weights must be left out, got \[0.5\] .*sample_weight"),
        ({"weighted_metrics": ["accuracy"]}, ValueError, "weighted_metrics must be left out"),
        ({"run_eagerly": "no"}, TypeError, "run_eagerly must be True or False"),
        ({"steps_per_execution": 0}, ValueError, "steps_per_execution must be >= 1"),
        ({"jit_compile": "always"}, TypeError, "jit_compile must be True or False"),
        ({"auto_scale_loss": 1}, TypeError, "auto_scale_loss must be True or False"),
        ({"jit_compil": True}, TypeError, r"compile\(\) got an unexpected.*did you mean 'jit_compile'"),
    ],
)
def test_bad_arguments_of_compile(settings, error, message):
    model = trained()
    before = model.optimizer, model.loss, model.metrics
    with pytest.raises(error, match=message):
        model.compile("sgd", "mse", **settings)
    assert (model.optimizer, model.loss, model.metrics) == before


# -- a functional chain ---------------------------------------------------------------------------------


def test_a_chain_is_the_sequential_of_its_layers(tmp_path):
    model, expected = chain(), trained()
    assert isinstance(model, Model) and isinstance(model, Sequential) and isinstance(expected, Model)
    assert not isinstance(Dense(3), Model)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(X, Y, epochs=2, verbose=0)
    assert np.array_equal(model.params, expected.params)
    model.save(tmp_path / "chain.npz")
    for again in (
        load_model(tmp_path / "chain.npz"),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
    ):
        assert np.array_equal(again.predict(X), model.predict(X))
    assert model.name.startswith("functional") and chain(name="pupil").name == "pupil"
    assert chain(Input((6,), dtype="float64")).dtype == "float64"


def test_two_models_may_begin_at_one_input():
    start = Input(shape=(6,))
    teacher, student = Model([start], [Dense(3)(Dense(9, "tanh")(start))]), Model(start, Dense(3)(start))
    assert teacher.output_shape == student.output_shape == (3,)
    assert Dense(3)(start).shape == (None, 3)


def test_a_layer_on_arrays_computes():
    model = trained()
    assert np.array_equal(model.layers[0](X), model.layers[0].forward(X))
    with pytest.raises(RuntimeError, match="is not built"):
        Dense(3)(X)


def used_twice():
    start, layer = Input((6,)), Dense(6, name="shared")
    return layer(layer(start))


@pytest.mark.parametrize(
    "make, error, message",
    [
        (used_twice, ValueError, "layer 'shared' is used twice: a model is one path"),
        (lambda: Dense(2, name="merge")([Input((3,)), Input((3,))]), ValueError, "'merge' was called on 2 inputs"),
        (lambda: Dense(2)(Dense(3, name="below")), TypeError, "layer 'below' was not called"),
        (lambda: Dense(3, name="a")(Input((3,))) + 1, TypeError, "output of layer 'a' is an operand of '[+]'"),
        (lambda: Model([Input(3, name="p"), Input(3, name="q")], None), ValueError, "inputs must be one, got 2, .'p'"),
        (lambda: Model(Input(3), Dense(2, name="d")(Input(3))), ValueError, "outputs must come from inputs.*layer 'd'"),
        (lambda: Model(Dense(2, name="d")(Input(3)), None), TypeError, "outputs must be an Input, or what a layer"),
        (lambda: Model(X, X), TypeError, "inputs must be an Input"),
        (lambda: Flatten()(Input(3)) @ X, TypeError, "operand of '@'"),
        (lambda: Dense(2)(Input((3, 4))), ValueError, "put a Flatten layer before it"),
        (lambda: type("Own", (Model,), {}), TypeError, "class Own must derive from minidl.Sequential"),
    ],
)  # fmt: skip
def test_what_is_no_chain_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_branches_are_refused_by_name_and_leave_their_layers_free():
    start = Input((3,))
    middle = Dense(4, name="middle")(start)
    ends = [Dense(2, name="left")(middle), Activation("relu", name="right")(middle)]
    with pytest.raises(ValueError, match="outputs must be one, got 2, .'left', 'right'"):
        Model(start, ends)
    with pytest.raises(ValueError, match="inputs must be an Input, got the output of layer 'middle'"):
        Model(middle, ends[0])
    Model(start, ends[0])
    with pytest.raises(ValueError, match="layer 'middle' already belongs to a model"):
        Model(start, ends[1])


# -- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".h5", ".keras", ".weights.h5"])
def test_a_foreign_ending_is_kept_with_a_warning_and_loads(tmp_path, ending):
    model, path = trained(), tmp_path / f"model{ending}"
    with pytest.warns(UserWarning, match=r"minidl's own format, \.npz"):
        model.save(path)
    assert np.array_equal(load_model(path).params, model.params)
    with pytest.warns(UserWarning, match="own format"):
        model.save_weights(path)
    other = Sequential([Input((6,)), *layers()], seed=2)
    other.load_weights(path)
    assert np.array_equal(other.params, model.params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.save(tmp_path / "model.npz")
        model.save(tmp_path / "model")


def test_a_file_of_keras_is_refused_as_what_it_is(tmp_path):
    (tmp_path / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with zipfile.ZipFile(tmp_path / "new.keras", "w") as file:
        for member in ("metadata.json", "config.json", "model.weights.h5"):
            file.writestr(member, json.dumps({}))
    model = trained()
    for name in ("old.h5", "new.keras"):
        for use in (load_model, model.load_weights):
            with pytest.raises(ValueError, match=f"{name}: it is a file of Keras, not of minidl.*from_keras"):
                use(tmp_path / name)
    (tmp_path / "other.h5").write_bytes(b"something else")
    with pytest.raises(ValueError, match="other.h5: it is not a minidl file"):
        load_model(tmp_path / "other.h5")
