"""Tuples in memory: a kernel passes on their address, one register, where the tuple itself is a hundred.

Numba copies a tuple with every assignment and call, field by field, and all that text must be optimised. The compiled
loop takes half as long to compile with references.
"""

import hashlib

from numba.core import cgutils, types
from numba.core.datamodel import register_default
from numba.core.datamodel.models import PrimitiveModel
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_getattr_generic

from .jit import JIT_DISABLED


class Reference(types.Type):
    """The Numba type of the address of a NamedTuple; a field that is a NamedTuple is read as a reference, too."""

    def __init__(self, target: types.BaseTuple):
        self.target = target
        digest = hashlib.sha256(str(target).encode()).hexdigest()[:8]  # the name becomes part of symbols
        super().__init__(f"{target.instance_class.__name__}_{digest}")

    @property
    def key(self):
        return self.target


@register_default(Reference)
class _ReferenceModel(PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, manager[kind.target].get_value_type().as_pointer())


@infer_getattr
class _Fields(AttributeTemplate):
    key = Reference

    def generic_resolve(self, kind, name):
        if name not in kind.target.fields:
            return None
        field = kind.target[kind.target.fields.index(name)]
        return Reference(field) if isinstance(field, types.BaseNamedTuple) else field


@lower_getattr_generic(Reference)
def _read_field(context, builder, kind, value, name):
    place = kind.target.fields.index(name)
    field = cgutils.gep_inbounds(builder, value, 0, place)
    if isinstance(kind.target[place], types.BaseNamedTuple):
        return field
    return builder.load(field, typ=context.get_value_type(kind.target[place]))


def _reference(typingctx, target):
    """Store a NamedTuple for as long as the calling kernel runs, and give its address."""

    def codegen(context, builder, signature, values):
        return cgutils.alloca_once_value(builder, values[0])

    return Reference(target)(target), codegen


reference = (lambda target: target) if JIT_DISABLED else intrinsic(_reference)
