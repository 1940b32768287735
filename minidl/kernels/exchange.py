"""A step's only call of Python: processes that train one model together add up their gradients there."""

import ctypes

from llvmlite import ir
from numba.core import types

from .emit import INT, VOID, intrinsic

FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_int64)
"""Makes of a Python function of a step's number one that kernels can call, by `address_of`."""


def address_of(function) -> int:
    """The address of a ``FUNCTION``, which must be kept as long as kernels may call it."""
    return ctypes.cast(function, ctypes.c_void_p).value


def _call_plain(address, step):
    FUNCTION(address)(step)


@intrinsic(types.void, plain=_call_plain)
def exchange(builder, address, step):
    """Call the function at ``address`` with the number of the step."""
    kind = ir.FunctionType(VOID, [INT])
    builder.call(builder.inttoptr(address, kind.as_pointer()), [step])
