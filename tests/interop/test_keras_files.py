"""``.keras`` files, read without Keras."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from extras import needs

needs("h5py")

import h5py  # noqa: E402

from minidl.interop.keras import from_keras  # noqa: E402
from minidl.models import load_model  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("keras_3.*.keras"))
FILE = FILES[-1]


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_files_of_keras_give_the_numbers_of_keras(path):
    golden = json.loads(path.with_suffix(".json").read_text())
    x, y = np.array(golden["x"], "f4"), np.array(golden["y"])
    model = from_keras(path)
    assert [type(layer).__name__ for layer in model.layers] == [
        "Normalization", "Dense", "BatchNormalization", "Dense", "Softmax",
    ]  # fmt: skip
    assert model.layers[1].name == "mine" and model.layers[3].kernel_regularizer.l2 == 0.01
    assert abs(model.predict(x) - y).max() < 1e-6
    model.layers[1].weight[0, 0] += 1e-4
    assert abs(model.predict(x) - y).max() > 1e-6, "the comparison sees small changes"


def test_keras_is_not_imported():
    code = (
        "import sys; sys.modules['keras'] = None; from minidl.interop.keras import from_keras; "
        f"print(from_keras({str(FILE)!r}).count_params())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "42"


def parts():
    with zipfile.ZipFile(FILE) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def with_config(path, change):
    """The file with its config changed: ``change(layers by name)``."""
    members = parts()
    node = json.loads(members["config.json"])
    outer = node["config"]["layers"]
    inner = next(child["config"]["layers"] for child in outer if child["class_name"] == "Sequential")
    change({child["config"]["name"]: child for child in (*outer, *inner)}, node)
    return written(path, {**members, "config.json": json.dumps(node)})


def with_weights(path, change):
    members = parts()
    data = io.BytesIO(members["model.weights.h5"])
    with h5py.File(data, "r+") as weights:
        change(weights)
    return written(path, {**members, "model.weights.h5": data.getvalue()})


def refuse(path, *messages):
    with pytest.raises(ValueError) as error:
        from_keras(path)
    for message in (f"cannot read {path}", *messages):
        assert message in str(error.value)


def setting(layer, key, value):
    return lambda layers, node: layers[layer]["config"].update({key: value})


def own(name, **fields):
    return {"module": "somebody", "class_name": name, "config": {}, "registered_name": f"my>{name}", **fields}


CONFIGS = {
    "another class": (
        lambda layers, node: layers["mine"].update(class_name="Conv1D"),
        "layer 'mine' (Conv1D) has no counterpart in minidl",
    ),
    "own class": (
        lambda layers, node: layers["mine"].update(module=None, registered_name="my>Dense"),
        "layer 'mine' (Dense) is a class of your own",
    ),
    "own activation": (
        setting("mine", "activation", own("function", config="my>gelu")),
        "layer 'mine' (Dense) has the activation 'my>gelu', which minidl has not",
    ),
    "another activation": (
        setting("mine", "activation", "mish"),
        "layer 'mine' (Dense): unknown activation 'mish'",
    ),
    "own regularizer": (
        setting("mine", "kernel_regularizer", own("L2")),
        "kernel_regularizer 'L2' of layer 'mine' (Dense) has no counterpart in minidl",
    ),
    "constraint of other axes": (
        setting("mine", "kernel_constraint", own("MaxNorm", config={"axis": 1}, registered_name=None)),
        "kernel_constraint 'MaxNorm' of layer 'mine' (Dense) has no counterpart in minidl: axis must be",
    ),
    "low rank": (
        setting("mine", "lora_rank", 4),
        "layer 'mine' (Dense) has lora_rank=4, which minidl has not",
    ),
    "half precision": (
        setting("mine", "dtype", {"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}),
        "layer 'mine' (Dense) computes in 'mixed_float16'",
    ),
    "another dtype": (setting("mine", "dtype", "float64"), "all layers must compute in one dtype, got"),
    "more units": (
        setting("mine", "units", 5),
        "layer 'mine' (Dense) has arrays of shapes",
        "(3, 4)",
        "(3, 5)",
    ),
    "huge": (setting("mine", "units", 10**12), "layer 'mine' (Dense) has arrays of shapes"),
    "no bias": (setting("mine", "use_bias", False), "layer 'mine' (Dense) has 2 arrays, and minidl's has 1"),
    "another name": (setting("mine", "name", "other"), "which are those of 'mine'"),
    "another axis": (setting("batch_normalization", "axis", 2), "(BatchNormalization): axis of layer"),
    "in training": (
        lambda layers, node: layers["softmax"]["inbound_nodes"][0].update(kwargs={"training": True}),
        "layer 'softmax' is called with training=True",
    ),
    "used twice": (
        lambda layers, node: layers["softmax"]["inbound_nodes"].append({"args": [], "kwargs": {}}),
        "layer 'softmax' is used 2 times",
    ),
    "two inputs": (
        lambda layers, node: layers["softmax"]["inbound_nodes"][0]["args"].append({}),
        "layer 'softmax' takes more than one input",
    ),
    "two outputs": (
        lambda layers, node: node["config"].update(output_layers=[["softmax", 0, 0], ["mine", 0, 0]]),
        "output_layers are ['softmax', 'mine']",
    ),
    "a circle": (
        lambda layers, node: layers["normalization"]["inbound_nodes"][0]["args"][0]["config"].update(
            keras_history=["softmax", 0, 0]
        ),
        "layer 'softmax' is not in the model or used twice",
    ),
    "any shape": (
        lambda layers, node: next(child for child in layers.values() if child["class_name"] == "InputLayer")[
            "config"
        ].update(batch_shape=[None, None]),
        "must have a shape that is known, got [None, None]",
    ),
    "another model": (lambda layers, node: node.update(class_name="MyModel"), "got 'MyModel'"),
    "nothing": (lambda layers, node: node.clear(), "model must be a Sequential or a functional chain"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_what_minidl_has_not_is_refused_by_name(name, tmp_path):
    change, *messages = CONFIGS[name]
    refuse(with_config(tmp_path / "m.keras", change), *messages)


def test_an_initializer_that_minidl_has_not_is_told(tmp_path):
    path = with_config(tmp_path / "m.keras", setting("mine", "kernel_initializer", own("Mine")))
    with pytest.warns(UserWarning, match="kernel_initializer 'Mine' of layer 'mine' .* is left out"):
        model = from_keras(path)
    assert np.array_equal(model.params, from_keras(FILE).params)


def first_layer(weights):
    return weights["layers/sequential/layers/dense/vars"]


def linked(weights):
    del first_layer(weights)["0"]
    first_layer(weights)["0"] = h5py.ExternalLink("other.h5", "/secret")


def unstored(weights):
    del first_layer(weights)["0"]
    first_layer(weights).create_dataset("0", shape=(3, 4), dtype="f4", chunks=(1, 1))


def virtual(weights):
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[...] = h5py.VirtualSource("other.h5", "secret", (3, 4))
    del first_layer(weights)["0"]
    first_layer(weights).create_virtual_dataset("0", layout)


def of_integers(weights):
    del first_layer(weights)["0"]
    first_layer(weights)["0"] = np.ones((3, 4), "i4")


def without_one(weights):
    del first_layer(weights)["1"]


def without_all(weights):
    del weights["layers/sequential/layers/dense"]


WEIGHTS = {
    linked: "layer 'mine' (Dense) has ['0', '1'], where arrays by number are wanted",
    unstored: "layer 'mine' (Dense): array 0 of shape (3, 4) is larger than what is stored of it",
    virtual: "which Keras never writes",
    of_integers: "layer 'mine' (Dense) has an array of int32, and the layer computes in float32",
    without_one: "layer 'mine' (Dense) has 1 arrays, and minidl's has 2, ['weight', 'bias']",
    without_all: "layer 'mine' (Dense) has 0 arrays, and minidl's has 2",
}


@pytest.mark.parametrize("change", WEIGHTS)
def test_weights_that_do_not_fit_are_refused(change, tmp_path):
    refuse(with_weights(tmp_path / "m.keras", change), WEIGHTS[change])


def test_files_of_other_kinds_are_refused(tmp_path):
    path, members = tmp_path / "m.keras", parts()
    data = FILE.read_bytes()
    for bad in (b"", data[:100], data[:-100], b"\xff" * 1000):
        path.write_bytes(bad)
        refuse(path)
    older = {**members, "metadata.json": b'{"keras_version": "2.15.0"}'}
    refuse(written(path, older), "it is of Keras '2.15.0', and Keras 3 is known")
    sharded = {name: data for name, data in members.items() if name != "model.weights.h5"}
    refuse(written(path, sharded), "it holds no model.weights.h5")
    refuse(written(path, members, zipfile.ZIP_DEFLATED), "its weights are compressed")
    refuse(written(path, {**members, "config.json": b"{"}))
    for name in ("m.h5", "m.weights.h5"):
        with h5py.File(tmp_path / name, "w"):
            pass
        refuse(tmp_path / name, "it is an HDF5 file", "keras.models.load_model(path).save('model.keras')")
    with pytest.raises(FileNotFoundError):
        from_keras(tmp_path / "absent.keras")
    assert written(path, members) and from_keras(path).count_params() == 42


def test_load_model_says_who_reads_it():
    with pytest.raises(ValueError, match=r"minidl.interop.keras.from_keras\(path\)"):
        load_model(FILE)
