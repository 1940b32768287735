"""Classes by name, and the configs that follow from their constructors."""

from __future__ import annotations

import inspect
import json
import pickle

import numpy as np
import pytest

from minidl import (
    Sequential,
    constraints,
    initializers,
    layers,
    load_model,
    metrics,
    optimizers,
    regularizers,
)
from minidl.constraints import CONSTRAINTS
from minidl.initializers import INITIALIZERS
from minidl.layers import LAYERS, Dense, Layer
from minidl.losses.base import LOSSES
from minidl.metrics import METRICS
from minidl.optimizers.base import OPTIMIZERS
from minidl.optimizers.schedules import SCHEDULES
from minidl.registry import Configurable, Registry, constructor_arguments, serialize, snake_case
from minidl.regularizers import REGULARIZERS

REGISTRIES = {
    "initializers": INITIALIZERS,
    "regularizers": REGULARIZERS,
    "constraints": CONSTRAINTS,
    "metrics": METRICS,
    "layers": LAYERS,
}
MODULES = {
    "initializers": initializers,
    "regularizers": regularizers,
    "constraints": constraints,
    "metrics": metrics,
    "layers": layers,
}
REQUIRED = {
    "Dense": [3],
    "Activation": ["relu"],
    "Dropout": [0.3],
    "Rescaling": [2.0],
    "GaussianNoise": [0.1],
}
REQUIRED["RandomTranslation"] = [0.1, (-0.2, 0.3)]
CLASSES = [(place, name) for place, registry in REGISTRIES.items() for name in registry.classes]


class Tool(Configurable):
    def __init__(self, name=None, *, size=1):
        self.name, self.size = name, size


class Saw(Tool):
    not_in_config = frozenset({"colour"})

    def __init__(self, teeth, part=None, colour="red", **options):
        super().__init__(**options)
        self.teeth, self.part = teeth, part


class Fretsaw(Saw):
    """It takes what `Saw` takes."""


def test_arguments_follow_the_bases_where_the_signature_says_so():
    assert list(constructor_arguments(Saw)) == ["name", "size", "teeth", "part", "colour"]
    assert constructor_arguments(Fretsaw) == constructor_arguments(Saw)
    assert constructor_arguments(Saw)["size"] is Tool and constructor_arguments(Saw)["teeth"] is Saw

    class Closed(Saw):
        def __init__(self, teeth):
            super().__init__(teeth, size=9)

    assert list(constructor_arguments(Closed)) == ["teeth"]
    assert Closed(3).get_config() == {"teeth": 3}


def test_a_config_follows_from_the_constructor():
    made = Fretsaw(3, part=Tool(size=2), size=4)
    part = {"class_name": "Tool", "config": {"name": None, "size": 2}}
    assert serialize(made) == {
        "class_name": "Fretsaw",
        "config": {"name": None, "size": 4, "teeth": 3, "part": part},
    }
    assert repr(Saw(1)) == "Saw(name=None, size=1, teeth=1, part=None)"
    assert serialize(None) is None


def test_an_argument_that_would_be_lost_is_named():
    class Loses(Saw):
        def __init__(self, depth, **options):
            super().__init__(2, **options)
            self.how_deep = depth

    with pytest.raises(
        TypeError, match="Loses cannot be saved: its constructor takes 'depth'.*self.depth = depth"
    ):
        serialize(Loses(1))
    with pytest.raises(TypeError, match="Loses cannot be saved"):
        serialize(Saw(1, part=Loses(1)))
    for made in (Loses(1), Saw(1, part=Loses(1))):  # a message can show it, and a copy be tried, all the same
        assert "depth" not in repr(made) and made.get_config()["teeth"]

    class Default(Saw):  # an attribute of the class is not what the object was made with
        depth, not_in_config = 1, Saw.not_in_config | {"teeth"}  # which it fixes

        def __init__(self, depth=2, **options):
            super().__init__(2, **options)
            self.how_deep = depth

    with pytest.raises(TypeError, match="Default cannot be saved: its constructor takes 'depth'"):
        serialize(Default(3))

    class Property(Default):
        depth = property(lambda self: self.how_deep)

    assert serialize(Property(3))["config"]["depth"] == 3

    class Keeps(Loses):
        def get_config(self):
            return {**super().get_config(), "depth": self.how_deep}

    assert serialize(Keeps(7))["config"]["depth"] == 7


def test_a_registry_knows_what_joined_and_nothing_else():
    tools = Registry("tool", Tool)
    tools.register("handsaw")(Saw)
    assert list(tools.names) == ["Saw", "saw", "handsaw"] and list(tools.classes) == ["Saw"]
    assert tools.deserialize(serialize(Saw(2))).teeth == 2
    with pytest.raises(ValueError, match="unknown tool 'Fretsaw': did you mean"):
        tools.deserialize(serialize(Fretsaw(2)))
    own = Fretsaw(2)
    assert tools.get(own) is own and tools.get(None) is None
    with pytest.raises(ValueError, match="tool 'saw' is Saw already"):
        tools.register("saw")(Tool)
    with pytest.raises(ValueError, match="tool as a dict must have 'class_name'"):
        tools.get({"config": {}})
    with pytest.raises(TypeError, match="tool must be a name, a config or Tool, got 3"):
        tools.get(3)


@pytest.mark.parametrize("place, name", CLASSES)
def test_every_class_is_found_by_its_names_and_rebuilt_from_its_config(place, name):
    registry, module = REGISTRIES[place], MODULES[place]
    cls = registry.classes[name]
    assert getattr(module, name) is cls and issubclass(cls, registry.base)
    made = cls(*REQUIRED.get(name, []))
    config = json.loads(json.dumps(serialize(made)))
    again = registry.deserialize(config)
    assert type(again) is cls and serialize(again) == serialize(made)
    if place in ("initializers", "regularizers", "constraints", "metrics"):
        assert type(module.get(snake_case(name))) is cls
        assert name == "L1L2" or type(module.get(name)) is cls
    if place not in ("layers", "metrics"):  # as in Keras: regularizers.l2 is L2
        assert getattr(module, snake_case(name)) is cls
    with pytest.raises(TypeError, match="'no_such_argument'|takes no arguments"):
        cls(*REQUIRED.get(name, []), no_such_argument=1)


def test_a_users_class_does_not_join(tmp_path):
    class Softplus2(Dense):
        pass

    class Halves(initializers.Initializer):
        def draw(self, shape, rng):
            return np.full(shape, 0.5)

    assert "Softplus2" not in LAYERS.names and "Halves" not in INITIALIZERS.names
    model = Sequential([Softplus2(2, kernel_initializer=Halves(), input_dim=2)])
    model.save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="Softplus2"):
        load_model(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="unknown initializer 'Halves'"):
        load_model(tmp_path / "m.npz", custom_objects={"Softplus2": Softplus2})
    loaded = load_model(tmp_path / "m.npz", custom_objects={"Softplus2": Softplus2, "Halves": Halves})
    assert (loaded.layers[0].weight == 0.5).all()


class Scaled(Layer):
    def __init__(self, factor=2.0, **options):
        super().__init__(**options)
        self.factor = factor

    def forward(self, x, training=False):
        return x * self.factor

    def backward(self, dout):
        return dout * self.factor


class Forgets(Scaled):
    def __init__(self, power, **options):
        super().__init__(2.0**power, **options)


def test_a_layer_of_ones_own_keeps_its_arguments_or_is_not_saved(tmp_path):
    path = tmp_path / "m.npz"
    Sequential([Scaled(3.0, input_shape=(2,), name="triple")]).save(path)
    layer = load_model(path, custom_objects={"Scaled": Scaled}).layers[0]
    assert (layer.factor, layer.name, layer.input_shape) == (3.0, "triple", (2,))
    kept = path.read_bytes()
    with pytest.raises(TypeError, match="Forgets cannot be saved: its constructor takes 'power'"):
        Sequential([Forgets(3, input_shape=(2,))]).save(path)
    assert path.read_bytes() == kept


def test_functions_of_metrics_show_what_they_take():
    for name in METRICS.classes:
        function = getattr(metrics, snake_case(name), None)
        if function is not None:
            assert function.__name__ == snake_case(name) and name in function.__doc__
            assert list(inspect.signature(function).parameters)[:2] == ["y_true", "y_pred"]
    assert str(inspect.signature(metrics.top_k_categorical_accuracy)) == "(y_true, y_pred, k: int = 5)"
    for arguments in ({}, {"y_pred": [[0.0]], "name": "x"}):
        with pytest.raises(TypeError, match=r"top_k_categorical_accuracy\(\) (missing|got an unexpected)"):
            metrics.top_k_categorical_accuracy([0], **arguments)
    function = metrics.categorical_accuracy
    assert pickle.loads(pickle.dumps(function)) is function


def test_signatures_show_what_the_bases_take():
    def arguments(cls):
        return list(inspect.signature(cls).parameters)

    assert arguments(optimizers.Adam)[-3:] == ["clipvalue", "global_clipnorm", "name"]
    common = ["name", "input_shape", "input_dim", "trainable"]
    assert arguments(layers.Dropout) == ["rate", "seed", *common]
    assert arguments(initializers.Zeros) == []

    class Own(Layer):
        def __init__(self, gain, **options):
            super().__init__(**options)

    class Alone(Layer):
        def __init__(self, gain):
            super().__init__()

    assert arguments(Own) == ["gain", *common] and arguments(Alone) == ["gain"]


def test_arguments_of_the_bases_may_be_given_by_position():
    assert optimizers.SGD(0.01, 0.9, True, 1e-4).weight_decay == 1e-4
    assert optimizers.AdamW(0.1, 0.004, 0.9, 0.999, 1e-7, False, 1.0).clipnorm == 1.0
    assert layers.Dropout(0.5, None, "drop", (4,)).input_shape == (4,)
    with pytest.raises(TypeError, match="positional"):
        layers.Dropout(0.5, None, "drop", (4,), None, True, "one too many")


def test_an_unknown_keyword_is_told_of_the_class_that_was_called():
    with pytest.raises(
        TypeError, match=r"Dropout\(\) got an unexpected keyword argument 'rat': did you mean 'rate'"
    ):
        layers.Dropout(rat=0.5)

    class Own(Layer):  # a class of the user's may take what it likes
        def __init__(self, **options):
            self.gain = options.pop("gain")
            super().__init__(**options)

    assert Own(gain=2.0).gain == 2.0


SETTABLE = [
    *(registry for registry in REGISTRIES.values() if registry is not LAYERS),
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
]
NEEDED = {
    "CosineDecay": [0.1, 10],
    "ExponentialDecay": [0.1, 10, 0.5],
    "PiecewiseConstantDecay": [[1], [0.1, 0.2]],
    "PolynomialDecay": [0.1, 10],
    "InverseTimeDecay": [0.1, 10, 0.5],
    "CosineDecayRestarts": [0.1, 10],
    **REQUIRED,
}


@pytest.mark.parametrize("cls", [cls for registry in SETTABLE for cls in registry.classes.values()])
def test_a_misspelt_setting_of_a_built_object_is_refused(cls):
    name, made = cls.__name__, cls(*NEEDED.get(cls.__name__, []))
    before = repr(made)
    for setting in constructor_arguments(type(made)):
        value = vars(made).get(setting)
        if not isinstance(getattr(type(made), setting, None), property):
            setattr(made, setting, value)  # a setting may be set, here to what it is
        with pytest.raises(
            AttributeError, match=f"{name} has no setting '{setting}s': did you mean '{setting}'"
        ):
            setattr(made, f"{setting}s", value)
    with pytest.raises(AttributeError, match=f"{name} has no setting 'get_config'"):
        made.get_config = dict  # nor is a method replaced on one object
    made._note = 1
    assert repr(made) == before and pickle.loads(pickle.dumps(made))._note == 1
    with pytest.raises(AttributeError, match="no setting 'note'"):
        pickle.loads(pickle.dumps(made)).note = 1


def test_a_setting_that_is_changed_goes_through_the_constructors_checks():
    norm, penalty = constraints.MaxNorm(2.0), regularizers.L1(0.1)
    norm.max_value = 3
    assert norm.max_value == 3.0 and isinstance(norm.max_value, float)
    with pytest.raises(ValueError, match="max_value must be > 0, got -1"):
        norm.max_value = -1
    with pytest.raises(AttributeError, match="L1 has no setting 'l2'"):
        penalty.l2 = 0.1  # L1 fixes it, so a saved one would lose it
    top = metrics.TopKCategoricalAccuracy(3)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        top.k = 0
    assert top.k == 3 and norm.max_value == 3.0


def test_a_class_of_ones_own_sets_what_it_likes_while_it_is_made():
    class Counting(metrics.Accuracy):
        limit = 3

        def __init__(self):
            self.calls = 0
            super().__init__()

        def reset_state(self):
            self.calls += 1
            self.limit = 4
            super().reset_state()

    counting = Counting()
    counting.reset_state()
    assert (counting.calls, counting.limit) == (2, 4)
    with pytest.raises(AttributeError, match="Counting has no setting 'call'.*in its __init__"):
        counting.call = 1
