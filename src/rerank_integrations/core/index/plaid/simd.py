"""Vectors of 16 floats and of 32 bytes as numba values, since numba's own loops over them stay scalar.

Measured on one core with AVX-512: the exact stage takes 25 ns a token with these and 400 ns as plain loops, the
centroid stage 0.8 ns and 16 ns. LLVM splits them where the machine's registers are narrower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic as _numba_intrinsic
from numba.extending import register_model

FLOATS = 16
BYTES = 32

# numba's own types say that an intrinsic takes its typing context, as its Python function does.
intrinsic: Any = _numba_intrinsic
_get_function: Any = cgutils.get_or_insert_function

_FLOATS = ir.VectorType(ir.FloatType(), FLOATS)
_BYTES = ir.VectorType(ir.IntType(8), BYTES)
_INDEX = ir.IntType(32)


class _VectorType(types.Type):
    def __init__(self, name: str, llvm: Any, align: int) -> None:
        super().__init__(name=name)
        self.llvm = llvm
        self.align = align


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _VectorType) -> None:
        super().__init__(manager, kind, kind.llvm)  # type: ignore[no-untyped-call]


_F32X16 = _VectorType("f32x16", _FLOATS, 4)
_U8X32 = _VectorType("u8x32", _BYTES, 1)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, place: Any, kind: _VectorType) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), kind.llvm.as_pointer())


def _loader(kind: _VectorType) -> Callable[..., Any]:
    def load(typing: Any, array: Any, place: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, signature.args[0], args[0], args[1], kind)
            value = builder.load(pointer)
            value.align = kind.align
            return value

        return kind(array, types.intp), generate

    return load


def _storer(kind: _VectorType) -> Callable[..., Any]:
    def store(typing: Any, array: Any, place: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, signature.args[0], args[0], args[1], kind)
            builder.store(args[2], pointer).align = kind.align
            return context.get_dummy_value()

        return types.void(array, types.intp, kind), generate

    return store


# Each reads or writes the flat array at an element's number; nothing is checked.
load_floats: Any = intrinsic(_loader(_F32X16))
load_bytes: Any = intrinsic(_loader(_U8X32))
store_floats: Any = intrinsic(_storer(_F32X16))
store_bytes: Any = intrinsic(_storer(_U8X32))


@intrinsic
def store_as_bytes(typing: Any, array: Any, place: Any, value: Any) -> Any:
    """Write 16 floats of 0 to 255 as bytes, rounded towards 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(8), FLOATS)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        pointer = builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())
        # By way of 32 bits, for which every machine has an instruction.
        wide = builder.fptosi(args[2], ir.VectorType(_INDEX, FLOATS))
        builder.store(builder.trunc(wide, kind), pointer).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, _F32X16), generate


@intrinsic
def repeat(typing: Any, value: Any) -> Any:
    """Give a vector of 16 times the same float."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        undefined = ir.Constant(_FLOATS, ir.Undefined)
        single = builder.insert_element(undefined, args[0], ir.Constant(_INDEX, 0))
        return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(_INDEX, FLOATS), [0] * FLOATS))

    return _F32X16(types.float32), generate


@intrinsic
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Give ``a * b + c``, fused where the machine can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        return builder.call(_get_function(builder.module, kind, "llvm.fmuladd.v16f32"), args)

    return _F32X16(_F32X16, _F32X16, _F32X16), generate


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """Give ``a + b``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args)

    return _F32X16(_F32X16, _F32X16), generate


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """Give the larger of each pair of floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return _F32X16(_F32X16, _F32X16), generate


@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """Give the smaller of each pair of floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return _F32X16(_F32X16, _F32X16), generate


@intrinsic
def where_less(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Give `yes` where ``a < b``, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return _F32X16(_F32X16, _F32X16, _F32X16, _F32X16), generate


@intrinsic
def larger_bytes(typing: Any, a: Any, b: Any) -> Any:
    """Give the larger of each pair of unsigned bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned(">", *args), *args)

    return _U8X32(_U8X32, _U8X32), generate


@intrinsic
def lowered(typing: Any, a: Any, amount: Any) -> Any:
    """Give each unsigned byte less `amount` (uint8), but not below 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        undefined = ir.Constant(_BYTES, ir.Undefined)
        single = builder.insert_element(undefined, args[1], ir.Constant(_INDEX, 0))
        less = builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(_INDEX, BYTES), [0] * BYTES))
        bounded = builder.select(builder.icmp_unsigned(">", args[0], less), args[0], less)
        return builder.sub(bounded, less)

    return _U8X32(_U8X32, types.uint8), generate


@intrinsic
def any_larger(typing: Any, a: Any, b: Any) -> Any:
    """Tell whether any unsigned byte of `a` is larger than that of `b`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(builder.icmp_unsigned(">", *args), ir.IntType(BYTES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(BYTES), 0))

    return types.boolean(_U8X32, _U8X32), generate
