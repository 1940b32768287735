"""An absent package is named with the command that installs it. It is hidden here, whether it is installed or not."""

import importlib
import re
import sys

import numpy as np
import pytest

from minidl.layers import Dense, Input
from minidl.models import Sequential


def student():
    return Sequential([Input((6,)), Dense(3)], seed=1)


HIDDEN = [
    ("torch", "minidl[torch]", "torch.to_torch", student),
    ("torch", "minidl[torch]", "torch.from_torch", lambda: None),
    ("torch", "minidl[torch]", "torch.torch_teacher", lambda: None),
    ("keras", "minidl[keras]", "keras.to_keras", student),
    ("keras", "minidl[keras]", "keras.from_keras", lambda: None),
    ("keras", "minidl[keras]", "keras.keras_teacher", lambda: None),
    ("h5py", "minidl[h5py]", "keras.from_keras", lambda: "model.keras"),
    (
        "safetensors",
        "minidl[safetensors]",
        "safetensors.save_safetensors",
        lambda: (student(), "w.safetensors"),
    ),
    (
        "safetensors",
        "minidl[safetensors]",
        "safetensors.load_safetensors",
        lambda: (student(), "w.safetensors"),
    ),
    ("safetensors", "minidl[safetensors]", "torch.from_state_dict", lambda: ("w.safetensors", "relu")),
    ("torch", "minidl[torch]", "torch.from_state_dict", lambda: ("w.pt", "relu")),
]


@pytest.mark.parametrize("package, extra, function, make", HIDDEN)
def test_an_absent_package_is_named_with_the_command_that_installs_it(
    package, extra, function, make, monkeypatch
):
    for name in (package, f"{package}.numpy"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    module, _, name = function.rpartition(".")
    given = make()
    with pytest.raises(
        ImportError, match=re.escape(f"needs {package}") + ".*" + re.escape(f'pip install "{extra}"')
    ):
        getattr(importlib.import_module(f"minidl.interop.{module}"), name)(
            *given if type(given) is tuple else [given]
        )


def test_a_state_dict_of_arrays_needs_no_package(monkeypatch):
    for name in ("torch", "safetensors"):
        monkeypatch.setitem(sys.modules, name, None)
    arrays = {
        "0.weight": np.ones((3, 6), "f4"),
        "0.bias": np.zeros(3, "f4"),
        "2.weight": np.ones((2, 3), "f4"),
    }
    model = importlib.import_module("minidl.interop.torch").from_state_dict(arrays, "relu")
    np.testing.assert_allclose(model.predict(np.ones((1, 6), "f4")), [[18, 18]])
