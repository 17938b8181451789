"""Vectors of 16 floats, 16 sums and 32 bytes as numba values, since numba's own loops over them stay scalar.

LLVM splits them where the machine's registers are narrower; the sums are of integers, the same on every machine.
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

_INDEX = ir.IntType(32)
_FLOATS = ir.VectorType(ir.FloatType(), FLOATS)
_SUMS = ir.VectorType(_INDEX, FLOATS)
_BYTES = ir.VectorType(ir.IntType(8), BYTES)
_LEVELS = ir.VectorType(ir.IntType(8), FLOATS)
# The operand of one step of a sum: 4 bytes for each of 16 sums.
_FOURS = ir.VectorType(ir.IntType(8), FLOATS * 4)


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
_I32X16 = _VectorType("i32x16", _SUMS, 4)
_U8X32 = _VectorType("u8x32", _BYTES, 1)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, place: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), kind.as_pointer())


def _unaligned(builder: Any, pointer: Any) -> Any:
    value = builder.load(pointer)
    value.align = 1
    return value


def _repeated(builder: Any, value: Any, kind: Any) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(single, undefined, ir.Constant(ir.VectorType(_INDEX, kind.count), [0] * kind.count))


def _loader(kind: _VectorType) -> Callable[..., Any]:
    def load(typing: Any, array: Any, place: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, signature.args[0], args[0], args[1], kind.llvm)
            value = builder.load(pointer)
            value.align = kind.align
            return value

        return kind(array, types.intp), generate

    return load


def _storer(kind: _VectorType) -> Callable[..., Any]:
    def store(typing: Any, array: Any, place: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, signature.args[0], args[0], args[1], kind.llvm)
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
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], _LEVELS)
        # By way of 32 bits, for which every machine has an instruction.
        wide = builder.fptosi(args[2], _SUMS)
        builder.store(builder.trunc(wide, _LEVELS), pointer).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, _F32X16), generate


@intrinsic
def load_from_bytes(typing: Any, array: Any, place: Any) -> Any:
    """Read 16 unsigned bytes as floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], _LEVELS)
        return builder.sitofp(builder.zext(_unaligned(builder, pointer), _SUMS), _FLOATS)

    return _F32X16(array, types.intp), generate


def _codeword_loader(count: int) -> Callable[..., Any]:
    def load(typing: Any, codebook: Any, words: Any, residuals: Any, place: Any) -> Any:
        size = words.dtype.bitwidth // 8

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.VectorType(ir.FloatType(), size)
            parts = []
            for number in range(count // size):
                at = builder.add(args[3], ir.Constant(args[3].type, number))
                byte = builder.load(_pointer(context, builder, signature.args[2], args[2], at, ir.IntType(8)))
                first = builder.mul(builder.zext(byte, args[3].type), ir.Constant(args[3].type, size))
                codeword = builder.load(_pointer(context, builder, signature.args[0], args[0], first, kind))
                codeword.align = 4
                parts.append(codeword)
            while len(parts) > 1:
                parts = [_joined(builder, *parts[i : i + 2]) for i in range(0, len(parts), 2)]
            (found,) = parts
            return found if count == FLOATS else _joined(builder, found, ir.Constant(found.type, [0.0] * count))

        return _F32X16(codebook, words, residuals, types.intp), generate

    return load


def _joined(builder: Any, low: Any, high: Any) -> Any:
    count = 2 * low.type.count
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(_INDEX, count), list(range(count))))


# Each reads so many floats, the rest being 0: the rows of `codebook` (flat) that the bytes from ``residuals[place]``
# name. A row has as many floats as a number of `words` has bytes.
load_sixteen: Any = intrinsic(_codeword_loader(FLOATS))
load_eight: Any = intrinsic(_codeword_loader(FLOATS // 2))


@intrinsic
def at_address(typing: Any, address: Any) -> Any:
    """Give a pointer for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.uintp), generate


@intrinsic
def prefetch(typing: Any, array: Any, place: Any) -> Any:
    """Have the machine fetch an element soon to be read, which need not exist."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(_pointer(context, builder, signature.args[0], args[0], args[1], _INDEX), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, _INDEX, _INDEX, _INDEX])
        # The flags of llvm.prefetch: read access, highest locality, data cache.
        flags = [ir.Constant(_INDEX, flag) for flag in (0, 3, 1)]
        builder.call(_get_function(builder.module, kind, "llvm.prefetch.p0i8"), [pointer, *flags])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def no_products(typing: Any) -> Any:
    """Give 16 sums of 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_SUMS, [0] * FLOATS)

    return _I32X16(), generate


@intrinsic
def add_products(typing: Any, sums: Any, values: Any, place: Any, columns: Any, column: Any) -> Any:
    """Add to each of 16 sums the products of the same 4 unsigned bytes with 4 signed bytes of its own.

    Those are the 4 bytes from ``values[place]`` and the 64 from ``columns[column]`` (both uint8).
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        four = _unaligned(builder, _pointer(context, builder, signature.args[1], args[1], args[2], _INDEX))
        pointer = _pointer(context, builder, signature.args[3], args[3], args[4], _FOURS)
        return _products_added(context, builder, args[0], four, _unaligned(builder, pointer))

    return _I32X16(_I32X16, values, types.intp, columns, types.intp), generate


@intrinsic
def add_word_products(
    typing: Any, sums: Any, words: Any, residuals: Any, place: Any, four: Any, columns: Any, column: Any
) -> Any:
    """Do as `add_products`, for the dimensions from ``4 * four`` of the words that the bytes from `place` name."""
    size = words.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def number(value: int) -> Any:
            return ir.Constant(args[3].type, value)

        def word(byte_place: Any, kind: Any, offset: Any) -> Any:
            byte = builder.load(_pointer(context, builder, signature.args[2], args[2], byte_place, ir.IntType(8)))
            first = context.make_array(signature.args[1])(context, builder, args[1]).data
            at = builder.add(builder.mul(builder.zext(byte, args[3].type), number(size)), offset)
            pointer = builder.gep(builder.bitcast(first, ir.IntType(8).as_pointer()), [at])
            return _unaligned(builder, builder.bitcast(pointer, kind.as_pointer()))

        if size == 8:
            half = builder.shl(builder.and_(args[4], number(1)), number(2))
            value = word(builder.add(args[3], builder.lshr(args[4], number(1))), _INDEX, half)
        else:
            first = builder.add(args[3], builder.mul(args[4], number(4 // size)))
            value = ir.Constant(_INDEX, 0)
            for i in range(4 // size):
                part = word(builder.add(first, number(i)), ir.IntType(8 * size), number(0))
                part = builder.zext(part, _INDEX) if size < 4 else part
                value = builder.or_(value, builder.shl(part, ir.Constant(_INDEX, 8 * size * i)))
        pointer = _pointer(context, builder, signature.args[5], args[5], args[6], _FOURS)
        return _products_added(context, builder, args[0], value, _unaligned(builder, pointer))

    return _I32X16(_I32X16, words, residuals, types.intp, types.intp, columns, types.intp), generate


def _products_added(context: Any, builder: Any, sums: Any, four: Any, signed: Any) -> Any:
    four = _repeated(builder, four, _SUMS)
    if "+avx512vnni" in str(context.codegen().magic_tuple()):
        kind = ir.FunctionType(_SUMS, [_SUMS] * 3)
        fused = _get_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
        return builder.call(fused, [sums, four, builder.bitcast(signed, _SUMS)])
    wide = ir.VectorType(_INDEX, FLOATS * 4)
    products = builder.mul(builder.zext(builder.bitcast(four, _FOURS), wide), builder.sext(signed, wide))
    return builder.add(sums, _pairs_added(builder, _pairs_added(builder, products)))


def _pairs_added(builder: Any, values: Any) -> Any:
    undefined = ir.Constant(values.type, ir.Undefined)
    half = values.type.count // 2
    even, odd = (
        builder.shuffle_vector(
            values, undefined, ir.Constant(ir.VectorType(_INDEX, half), [2 * i + odd for i in range(half)])
        )
        for odd in (0, 1)
    )
    return builder.add(even, odd)


@intrinsic
def as_floats(typing: Any, sums: Any) -> Any:
    """Give 16 sums as floats."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sitofp(args[0], _FLOATS)

    return _F32X16(_I32X16), generate


@intrinsic
def repeat(typing: Any, value: Any) -> Any:
    """Give a vector of 16 times the same float."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _repeated(builder, args[0], _FLOATS)

    return _F32X16(types.float32), generate


@intrinsic
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Give ``a * b + c``, fused where the machine can."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        return builder.call(_get_function(builder.module, kind, "llvm.fmuladd.v16f32"), args)

    return _F32X16(_F32X16, _F32X16, _F32X16), generate


def _pairwise(kind: _VectorType, combine: Callable[[Any, Any, Any], Any]) -> Callable[..., Any]:
    def pairwise(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return combine(builder, args[0], args[1])

        return kind(kind, kind), generate

    return pairwise


# Operations on pairs of lanes: sums of floats and integers, maximum and minimum of floats, maximum of bytes.
add_sums: Any = intrinsic(_pairwise(_I32X16, lambda builder, a, b: builder.add(a, b)))
add: Any = intrinsic(_pairwise(_F32X16, lambda builder, a, b: builder.fadd(a, b)))
larger: Any = intrinsic(_pairwise(_F32X16, lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b)))
smaller: Any = intrinsic(
    _pairwise(_F32X16, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
)
larger_bytes: Any = intrinsic(
    _pairwise(_U8X32, lambda builder, a, b: builder.select(builder.icmp_unsigned(">", a, b), a, b))
)


@intrinsic
def where_less(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Give `yes` where ``a < b``, else `no`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], args[1]), args[2], args[3])

    return _F32X16(_F32X16, _F32X16, _F32X16, _F32X16), generate


@intrinsic
def lowered(typing: Any, a: Any, amount: Any) -> Any:
    """Give each unsigned byte less `amount` (uint8), but not below 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        less = _repeated(builder, args[1], _BYTES)
        bounded = builder.select(builder.icmp_unsigned(">", args[0], less), args[0], less)
        return builder.sub(bounded, less)

    return _U8X32(_U8X32, types.uint8), generate


@intrinsic
def any_code_from(typing: Any, codes: Any, place: Any, least: Any) -> Any:
    """Tell whether any of the 32 codes (uint16) from `place` is `least` or more, which is below 65536."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(16), BYTES)
        found = _unaligned(builder, _pointer(context, builder, signature.args[0], args[0], args[1], kind))
        bar = _repeated(builder, builder.trunc(args[2], kind.element), kind)
        bits = builder.bitcast(builder.icmp_unsigned(">=", found, bar), ir.IntType(BYTES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(BYTES), 0))

    return types.boolean(codes, types.intp, types.intp), generate


@intrinsic
def any_float_larger(typing: Any, a: Any, b: Any) -> Any:
    """Tell whether any float of `a` is larger than that of `b`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(builder.fcmp_ordered(">", *args), ir.IntType(FLOATS))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(FLOATS), 0))

    return types.boolean(_F32X16, _F32X16), generate


@intrinsic
def any_larger(typing: Any, a: Any, b: Any) -> Any:
    """Tell whether any unsigned byte of `a` is larger than that of `b`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(builder.icmp_unsigned(">", *args), ir.IntType(BYTES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(BYTES), 0))

    return types.boolean(_U8X32, _U8X32), generate
