"""What an operation makes of its operands in a Milvus expression: constants are calculated at once, and the rest becomes claims."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ingest.doors.milvus import expression_types as types
from ingest.doors.milvus.expression_literals import Refused, Value, finite, number_of, string_of
from ingest.doors.milvus.expression_types import Claim, Column, Constant, Operand, Size, Sum
from ingest.doors.milvus.names import META
from upwell.properties import STEP
from upwell.schema import FieldType, IdType, RowSchema
from upwell.shard.filter import Every, Filter, Some

_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ARITHMETIC: Final = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "modulo"}


def column_of(schema: RowSchema, name: str, steps: Sequence[str]) -> Column:
    """The field ``name``, or what the literals in brackets after it lead to. Raises Refused if there is none."""
    if name == schema.id_field:
        if steps:
            raise Refused(f"{_id_type(schema)} data type not supported accessed with []")
        return Column(name, "", _id_type(schema), is_id=True)
    declared = schema.field(name)
    if declared is None:
        return _dynamic(schema, name, steps)
    if not steps:
        return Column(name, name, declared.type, declared.element)
    if declared.type is FieldType.JSON:
        return Column(name, ".".join([name, *map(_step, steps)]), FieldType.JSON, nested=True)
    if declared.type is not FieldType.ARRAY:
        raise Refused(f"{declared.type} data type not supported accessed with []")
    if len(steps) > 1 or not steps[0].isdecimal():
        raise Refused("can only access array field with integer index")
    assert declared.element is not None
    return Column(name, f"{name}.{_step(steps[0])}", declared.element)


def _id_type(schema: RowSchema) -> FieldType:
    return FieldType.INT64 if schema.ids is IdType.INT64 else FieldType.VARCHAR


def _dynamic(schema: RowSchema, name: str, steps: Sequence[str]) -> Column:
    """A member of the dynamic field, by its bare name or within ``$meta``."""
    # Without an order the name of a vector that the collection lacks is like any other, but for the usual one.
    vectors = {schema.vector_field, schema.sparse_field}
    if name in (vectors & set(schema.order) if schema.order else {schema.vector_field}):
        raise Refused(f"filtering by the vector field {name} is not supported")
    if not schema.dynamic:
        raise Refused(f"field {name} not exist")
    parts = [_step(step) for step in steps]
    if name != META:
        parts.insert(0, name)
    elif not parts:
        raise Refused("can not comparisons json fields directly: name a member, such as $meta['a']")
    return Column(name, ".".join(parts), FieldType.JSON, nested=True)


def _step(literal: str) -> str:
    """The part of a path that a literal in brackets is."""
    if literal[0] not in "'\"rR":
        if not literal.isdecimal() or (literal[0] == "0" and literal != "0"):
            raise Refused(f"expected a decimal index in brackets, got {literal}")
        step = f"[{literal}]"
        if not STEP.fullmatch(step):
            raise Refused(f"no array is so long that it has an element {literal}")
        return step
    key = string_of(literal)
    if not key:
        raise Refused("invalid identifier: a key must not be empty")
    if "." in key or STEP.fullmatch(key):
        raise Refused(
            f"the key {key!r} cannot be asked for here: it contains a dot, or looks like an array's index"
        )
    return key


def template(params: Mapping[str, Any], name: str) -> Constant:
    """What ``{name}`` stands for."""
    if name not in params:
        raise Refused(f"the value of expression template variable name {{{name}}} is not found")
    return Constant(_value(params[name], name), folded=True)


def _value(given: Any, name: str, *, within: bool = False) -> Value:
    match given:
        case bool() | int() | float():
            if isinstance(given, float):
                finite(given)
            return types.demand(given)
        case str():
            try:
                given.encode()
            except UnicodeEncodeError:
                raise Refused(
                    f"the value of expression template variable {{{name}}} is no text of Unicode"
                ) from None
            return given
        case list() if not within:
            return [_value(one, name, within=True) for one in given]
    raise Refused(
        f"the value of expression template variable {{{name}}} must be a number, a string, a boolean or a list of these"
    )


def compared(left: Operand, order: str, right: Operand) -> Operand:
    """``left order right``."""
    match left, right:
        case Constant(), Constant():
            return _compared_constants(left.value, order, right.value)
        case Constant(), _:
            return compared(right, types.TURNED[order], left)
        case Column(), Constant():
            return types.compare(left, order, right.value)
        case Size(), Constant():
            return types.compare_size(left, order, right.value)
        case Sum(), Constant():
            return types.compare_sum(left, order, right.value)
        case Column(), Column():
            return types.compare_columns(left, order, right)
        case _:
            raise Refused("only a field and a constant, or two fields, can be compared")


def _compared_constants(left: Value, order: str, right: Value) -> Constant:
    numbers = _is_number(left) and _is_number(right)
    texts = isinstance(left, str) and isinstance(right, str)
    flags = isinstance(left, bool) and isinstance(right, bool) and order in ("==", "!=")
    if not (numbers or texts or flags):
        raise Refused(
            "comparison operations cannot be applied to two incompatible operands: "
            f"{types.type_of(left)} {order} {types.type_of(right)}"
        )
    return Constant(_ORDERS[order](left, right), folded=True)


def between(low: Operand, first: str, middle: Operand, second: str, high: Operand) -> Operand:
    """``low first middle second high``."""
    if first[0] != second[0]:
        raise Refused(f"a range is between two < or two >, got {first} and {second}")
    if not isinstance(middle, Column):
        raise Refused("range operations are only supported on single fields now")
    if not isinstance(low, Constant):
        raise Refused("lowerbound cannot be a non-const expression")
    if not isinstance(high, Constant):
        raise Refused("upperbound cannot be a non-const expression")
    if first[0] == ">":
        low, first, second, high = high, second, first, low
    return types.between(
        middle, low.value, high.value, low_included=first.endswith("="), high_included=second.endswith("=")
    )


def among(column: Operand, listed: Operand) -> Claim:
    """``column in listed``."""
    if isinstance(column, Constant):
        raise Refused("'term' can only be used on non-const expression")
    if not isinstance(column, Column):
        raise Refused("'term' can only be used on single field")
    if not isinstance(listed, Constant):
        raise Refused("the list after 'in' cannot be a non-const expression")
    if not isinstance(listed.value, list):
        raise Refused(f"the right-hand side of 'in' must be a list, but got: {types.type_of(listed.value)}")
    return types.one_of(column, listed.value)


def contains(function: str, column: Operand, value: Operand) -> Claim:
    """``array_contains(column, value)`` and its sisters."""
    if not isinstance(column, Column):
        raise Refused(f"{function} is only supported on json or array fields")
    if not isinstance(value, Constant):
        raise Refused(f"{function} is only supported with explicitly specified elements")
    if function.endswith("_contains"):
        return types.contains(column, [value.value])
    if not isinstance(value.value, list):
        raise Refused(f"{function} operation element must be an array")
    return types.contains(column, value.value, every=function.endswith("_all"))


def size_of(column: Column) -> Size:
    """``array_length(column)``."""
    if column.type not in (FieldType.ARRAY, FieldType.JSON):
        raise Refused(
            f"array_length operation are only supported on json or array fields now, got: {column.name}"
        )
    return Size(column)


def calculated(left: Operand, sign: str, right: Operand) -> Operand:
    """``left sign right``."""
    if isinstance(left, Constant) and isinstance(right, Constant):
        return _folded(left.value, sign, right.value)
    if isinstance(left, Constant) and isinstance(right, Column):
        if sign not in ("+", "*"):
            raise Refused(
                f"'{_ARITHMETIC[sign]}' of a constant and a field is not supported: the field must come first"
            )
        left, right = right, left
    match left, right:
        case Column(), Constant():
            return _with_column(left, sign, right.value)
        case Column(), Column():
            raise Refused("not supported to do arithmetic operations between multiple fields")
    raise Refused("complicated arithmetic operations are not supported")


def _with_column(column: Column, sign: str, operand: Value) -> Sum:
    if column.is_id:
        raise Refused("arithmetic on the primary key is not supported here")
    if column.type is FieldType.ARRAY:
        raise Refused("can not comparisons array fields directly")
    if not (column.type.is_number or column.type is FieldType.JSON) or not _is_number(operand):
        raise Refused(
            f"'{_ARITHMETIC[sign]}' cannot perform arithmetic between {column.type} field and {types.type_of(operand)}"
        )
    assert isinstance(operand, int | float)
    types.demand(operand)
    if sign == "%" and (isinstance(operand, float) or column.type in (FieldType.FLOAT, FieldType.DOUBLE)):
        raise Refused("modulo can only apply on integer types")
    if sign in "/%" and operand == 0:
        raise Refused("division or modulus by zero")
    if column.type in (FieldType.FLOAT, FieldType.DOUBLE):
        # A 3 in the metadata may be meant as 3.0, which is not divided as integers are.
        operand = float(operand)
    return Sum(column, sign, operand)


def _folded(left: Value, sign: str, right: Value) -> Constant:
    """What arithmetic makes of two constants. Integers are divided as C divides them."""
    if not _is_number(left) or not _is_number(right):
        raise Refused(
            f"'{_ARITHMETIC[sign]}' cannot be applied to {types.type_of(left)} and {types.type_of(right)}"
        )
    assert isinstance(left, int | float)
    assert isinstance(right, int | float)
    types.demand(left)
    types.demand(right)
    whole = isinstance(left, int) and isinstance(right, int)
    if sign == "%" and not whole:
        raise Refused("modulo can only apply on integer")
    if sign in "/%" and right == 0:
        raise Refused("cannot divide by zero")
    try:
        return Constant(types.demand(_calculated(left, sign, right, whole=whole)), folded=True)
    except OverflowError:
        raise Refused("a number is beyond what a double can hold") from None


def _calculated(left: Any, sign: str, right: Any, *, whole: bool) -> int | float:
    result: int | float
    match sign:
        case "+":
            result = left + right
        case "-":
            result = left - right
        case "*":
            result = left * right
        case "/" if not whole:
            result = left / right
        case _:
            quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
            result = quotient if sign == "/" else left - quotient * right
    return result


def raised(base: Operand, exponent: Operand) -> Constant:
    """``base ** exponent``: a double, whatever the two are."""
    if not isinstance(base, Constant) or not isinstance(exponent, Constant):
        raise Refused("power can only apply on constants")
    if not _is_number(base.value) or not _is_number(exponent.value):
        raise Refused("power can only apply on numbers")
    assert isinstance(base.value, int | float)
    assert isinstance(exponent.value, int | float)
    try:
        return Constant(finite(math.pow(base.value, exponent.value)), folded=True)
    except (ValueError, OverflowError):
        raise Refused("a power is no number that a double can hold") from None


def signed(sign: str, operand: Operand) -> Operand:
    """``-operand``, ``+operand``."""
    if sign == "+" and isinstance(operand, Column | Constant) and not _is_flag(operand):
        return operand
    if isinstance(operand, Constant) and _is_number(operand.value):
        assert isinstance(operand.value, int | float)
        return Constant(types.demand(-operand.value), folded=True)
    raise Refused(f"unexpected op: {sign}")


def number(token: str) -> Constant:
    """A number that is written in an expression."""
    return Constant(number_of(token))


def claim_of(operand: Operand, word: str) -> Claim:
    """An operand of ``and``, ``or`` and ``not``."""
    match operand:
        case Claim():
            return operand
        case Constant(bool(value)):
            return Claim(types.ALWAYS, types.NEVER) if value else Claim(types.NEVER, types.ALWAYS)
    raise Refused(f"'{word}' can only be used between boolean expressions")


def joined(word: str, operands: Sequence[Operand]) -> Operand:
    """Operands with ``and`` between them, or ``or``."""
    flags = [one.value for one in operands if isinstance(one, Constant) and isinstance(one.value, bool)]
    if len(flags) == len(operands):
        return Constant(all(flags) if word == "and" else any(flags), folded=True)
    claims = [claim_of(one, word) for one in operands]
    holds, fails = tuple(one.holds for one in claims), tuple(one.fails for one in claims)
    return Claim(Every(holds), Some(fails)) if word == "and" else Claim(Some(holds), Every(fails))


def denied(operand: Operand) -> Operand:
    """``not operand``."""
    match operand:
        case Claim(holds, fails):
            return Claim(fails, holds)
        case Constant(bool(value)):
            return Constant(not value, folded=True)
    raise Refused("not op can only be applied on boolean expression")


def predicate(operand: Operand) -> Filter:
    """The filter that a whole expression is. A bare constant is none, lest a slip of the pen means every row."""
    match operand:
        case Claim(holds):
            return holds
        case Constant(bool(value), folded=True):
            return types.ALWAYS if value else types.NEVER
        case Constant(value):
            kind = types.type_of(value)
        case Column():
            kind = operand.shown_type
        case _:
            kind = "a number"
    raise Refused(f"predicate is not a boolean expression, data type: {kind}")


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_flag(operand: Column | Constant) -> bool:
    return isinstance(operand, Constant) and not _is_number(operand.value)
