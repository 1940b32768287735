"""Units: functions that are compiled one by one and called through their addresses.

A kernel runs one of many losses, activations, update rules, ... Linked with all of them it would take half a minute to
compile. So each is compiled by itself, when a model first needs it, and the kernel finds its address, an integer, in
the tables that it reads. A call through an address takes a few nanoseconds, so a unit works on many rows.
"""

import enum
import functools
from collections.abc import Callable, Hashable, Mapping

import numpy as np
from numba.core import types
from numba.extending import intrinsic, typeof_impl

from .jit import JIT_DISABLED, jit


class Code(enum.IntEnum):
    """Base of the enumerations whose members tell a kernel what to do; their order means nothing.

    Numba would treat each enumeration as a type of its own and compile a kernel once more for it. Members of this
    one count as plain integers. Kernels that are called often are handed plain integers all the same (`constants`):
    a member among a call's arguments costs Numba 3 us, and 200 us inside a NamedTuple.
    """

    @classmethod
    def constants(cls) -> dict[str, int]:
        """The members by name, as plain integers."""
        return {name: int(member) for name, member in cls.__members__.items()}


@typeof_impl.register(Code)
def _type_of_code(value, context):
    return types.int64


def array(dtype: types.Type, axes: int = 1) -> types.Array:
    """The type of a C-contiguous array."""
    return types.Array(dtype, axes, "C")


ALL: dict[str, tuple[Callable, Callable, bool]] = {}
"""Each unit by its name: its function, the function that gives the Numba types of its arguments, and whether Python
calls it, too, in a fit or an evaluation."""
_PLAIN: list[Callable] = []
"""Stands for the memory where machine code lies under ``NUMBA_DISABLE_JIT=1``."""


class Units:
    """A table of functions that take the same arguments and return nothing, or a number.

    Python calls ``units[code](*arguments)``. A kernel calls ``call(address, *arguments)``, where ``call`` is
    `caller`, at module level, and the address is ``units.address(code, dtype)``, handed over as data.
    """

    def __init__(
        self,
        name: str,
        functions: Mapping[Hashable, Callable],
        arguments: Callable,
        has_entry: bool = False,
        result=types.void,
    ):
        """``arguments``: the Numba types of the arguments for a float type. ``has_entry``: whether Python calls the
        units so often that each is compiled for both at once. ``result``: the Numba type of what they return."""
        self.caller = _call_plain if JIT_DISABLED else _caller(arguments, result)
        self._arguments, self._addresses, self._functions, self._names = arguments, {}, {}, {}
        self._has_entry = has_entry
        for code, function in functions.items():
            self._names[code] = f"{name}.{getattr(code, 'name', code)}"
            is_compiled = hasattr(function, "py_func")
            self._functions[code] = function if is_compiled else jit(function, name=self._names[code])
            ALL[self._names[code]] = self._functions[code], arguments, has_entry

    def __getitem__(self, code: Hashable) -> Callable:
        return self._functions[code]

    def name(self, code: Hashable) -> str:
        """The key of a unit in `ALL`."""
        return self._names[code]

    def address(self, code: Hashable, dtype: np.dtype) -> int:
        """The address of the machine code of ``self[code]``, which is compiled or loaded if it was not yet."""
        if (code, dtype) not in self._addresses:
            self._addresses[code, dtype] = self._find_address(self[code], dtype)
        return self._addresses[code, dtype]

    def _find_address(self, function: Callable, dtype: np.dtype) -> int:
        if JIT_DISABLED:
            _PLAIN.append(function)
            return len(_PLAIN) - 1
        kinds = self._arguments(types.float32 if dtype.itemsize == 4 else types.float64)
        function.make(kinds, self._has_entry)
        compiled = function.overloads[kinds]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def _call_plain(address, *arguments):
    return _PLAIN[address](*arguments)


def _caller(arguments: Callable, result: types.Type):
    """An intrinsic that calls the function at an address. The types of its arguments must be exactly the function's."""

    @functools.cache  # not at the import of minidl: only compiling needs it
    def known():
        return [arguments(real) for real in (types.float32, types.float64)]

    def call(typingctx, address, *given):
        kinds = given[0] if given and isinstance(given[0], tuple) else given
        exact = next((kinds_of for kinds_of in known() if _fit(kinds, kinds_of)), None)
        if exact is None:
            raise TypeError(f"a unit takes {known()[0]}, got {kinds}")

        def codegen(context, builder, signature, values):
            pointer, packed = values
            unpacked = [builder.extract_value(packed, i) for i in range(len(exact))]
            function_type = context.call_conv.get_function_type(result, exact)
            function = builder.inttoptr(pointer, function_type.as_pointer())
            return context.call_conv.call_function(builder, function, result, exact, unpacked)[1]

        return result(types.int64, types.StarArgTuple(exact)), codegen

    return intrinsic(call)


def _fit(kinds: tuple, exact: tuple) -> bool:
    return len(kinds) == len(exact) and all(
        types.unliteral(a) == b for a, b in zip(kinds, exact, strict=True)
    )
