"""Units: what a kernel calls through an address is what Python calls by name, and no call with other types compiles."""

import gc
import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from minidl.kernels import activations, simd, units, updates
from minidl.kernels.jit import JIT_DISABLED, Kernel, can_python_call, jit

RELU = activations.CODES["relu"]
call = activations.call_forward


@jit
def forward(address, out, x, slope):
    call(address, out, x, slope)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("code", activations.CODES.values(), ids=activations.CODES.keys())
def test_a_kernel_gets_through_the_address_what_python_gets(code, dtype):
    x = np.linspace(-3, 3, 35).reshape(5, 7).astype(dtype)
    by_address, by_name = np.zeros_like(x), np.zeros_like(x)
    forward(activations.FORWARD.address(code, x.dtype), by_address, x, 0.3)
    activations.activation_forward(by_name, x, code, 0.3)
    assert by_address.tobytes() == by_name.tobytes()
    assert by_name.any()


def test_each_dtype_and_code_has_its_own_code():
    addresses = {
        units_.address(code, np.dtype(dtype))
        for units_ in (activations.FORWARD, activations.BACKWARD)
        for code in (RELU, activations.CODES["tanh"])
        for dtype in (np.float32, np.float64)
    }
    assert len(addresses) == 8


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
@pytest.mark.parametrize(
    "out, x",
    [
        (np.zeros((2, 3)), np.zeros((2, 3), np.float32)),  # of two dtypes
        (np.zeros(3), np.zeros(3)),  # vectors
        (np.zeros((2, 3)), np.zeros((3, 2)).T),  # strided: a unit would read past it
        (np.zeros((2, 3), np.int64), np.zeros((2, 3), np.int64)),
    ],
)
def test_a_call_with_other_types_is_refused(out, x):
    address = activations.FORWARD.address(RELU, np.dtype(np.float64))
    with pytest.raises((TypeError, numba.TypingError), match=r"a unit takes .* got"):
        forward(address, out, x, 0.0)


def test_an_unknown_code_is_refused():
    with pytest.raises(KeyError):
        updates.UPDATES.address(99, np.dtype(np.float32))


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_no_two_functions_share_a_name_on_disk():
    functions: dict[str, set] = {}
    for each in gc.get_objects():
        if issubclass(type(each), Kernel) and hasattr(each._cache, "_name"):
            of_name = functions.setdefault(each._cache._name, set())
            of_name.add((each.py_func.__code__, str(each.py_func.__closure__)))
    assert len(functions) > len(units.ALL) > 50
    assert [name for name, found in functions.items() if len(found) > 1] == []


MAKE = """
import sys
import numpy as np
from numba.core import types
from minidl.kernels import updates
rules = [updates.Rule[name] for name in sys.argv[1:]]
for rule in rules:
    updates.UPDATES[rule].compile(updates._loop_arguments(types.float64))
print(len({updates.UPDATES.address(rule, np.dtype("f8")) for rule in rules}))
"""


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_functions_from_one_line_that_several_processes_compiled_are_told_apart(tmp_path):
    """Each is the first that its process compiles: what Numba counts to make symbols is the same."""
    rules = ["SGD", "MOMENTUM", "NESTEROV"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for names in [[rule] for rule in rules] + [rules]:
        command = [sys.executable, "-c", MAKE, *names]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert int(found.stdout) == len(names)


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_a_kernel_gets_an_entry_for_python_when_python_calls_it():
    """Until then it has none. The code that other kernels have the address of stays in memory."""

    @jit
    def inner(x):
        return x + 1.0

    @jit
    def outer(x):
        return inner(x) * 2.0

    assert outer(1.0) == 4.0
    (inside,) = inner.overloads.values()
    assert not can_python_call(inside) and can_python_call(*outer.overloads.values())
    assert inner(1.0) == 2.0 == inner(1.0) and outer(2.0) == 6.0
    assert can_python_call(*inner.overloads.values()) and inner._addressed == [inside]


@pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
def test_a_copy_converts_nothing():
    @jit
    def copy(out, x):
        simd.copy(out, x)

    given, out = np.array([1.5, np.nan, -0.0]), np.zeros(3)
    copy(out, given)
    assert out.tobytes() == given.tobytes()
    with pytest.raises(numba.TypingError):
        copy(np.zeros(3, np.float32), given)
