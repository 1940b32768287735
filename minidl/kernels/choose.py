"""Tables of functions: a kernel runs one of many by its code, and a new entry needs no branch anywhere.

A table lists its functions once. ``choose`` makes of it what a kernel calls: the code selects the function by one
machine instruction (LLVM's ``switch``), outside all loops.
"""

import enum
import math
from collections.abc import Callable, Mapping

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.targetconfig import ConfigStack
from numba.extending import intrinsic, typeof_impl

from .jit import JIT_DISABLED


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


def choose(functions: Mapping[int, Callable], gives_value: bool = False):
    """A function ``call(code, *arguments)`` for kernels that runs ``functions[code](*arguments)``.

    The functions are plain Python that Numba can compile; all take the same arguments. They are compiled with the
    flags of the kernel that calls. They return nothing, or with ``gives_value`` a float64. An unknown code, which
    Python refuses before any kernel runs, does nothing and gives NaN.
    """
    if JIT_DISABLED:
        return lambda code, *arguments: functions[code](*arguments)

    def call(typingctx, code, *arguments):
        kinds = arguments[0] if arguments and isinstance(arguments[0], tuple) else arguments
        result = types.float64 if gives_value else types.void

        def codegen(context, builder, signature, values):
            code, packed = values
            given = [builder.extract_value(packed, i) for i in range(len(kinds))]
            value_at = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), math.nan))
            after = builder.append_basic_block("chosen")
            switch = builder.switch(code, after)
            # Without flags Numba takes its own defaults, under which a division by zero raises an exception.
            flags = ConfigStack().top().copy()
            for number, function in functions.items():
                block = builder.append_basic_block(function.__name__)
                switch.add_case(ir.Constant(code.type, int(number)), block)
                builder.position_at_end(block)
                compiled = context.compile_subroutine(builder, function, result(*kinds), flags=flags)
                value = context.call_internal(builder, compiled.fndesc, result(*kinds), given)
                if gives_value:
                    builder.store(value, value_at)
                builder.branch(after)
            builder.position_at_end(after)
            return builder.load(value_at) if gives_value else context.get_dummy_value()

        return result(code, types.StarArgTuple(kinds)), codegen

    return intrinsic(call)
