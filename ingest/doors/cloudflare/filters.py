"""Cloudflare's filter language: ``{"genre": "jazz", "year": {"$gte": 1950, "$lt": 1960}}``, as the tree that every door shares.

Rules are those of Cloudflare's documentation of metadata filtering. Where it is silent: a vector without the property is in no answer,
``$ne`` and ``$nin`` included; null is equal to null and to nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from ingest.body.precise import describe
from upwell.errors import Invalid
from upwell.shard.comparing import Scalar
from upwell.shard.filter import Every, Filter, Not, OneOf, Present, Within

KEY_CHARACTERS_MAX: Final = 512
LOWER: Final = ("$gt", "$gte")
UPPER: Final = ("$lt", "$lte")
OPERATORS: Final = ("$eq", "$ne", "$in", "$nin", *UPPER, *LOWER)

_SCALAR: Final = {"type": ["string", "number", "boolean", "null"]}
_SCALARS: Final = {"type": "array", "items": _SCALAR}


def _object(properties: Mapping[str, object]) -> dict[str, object]:
    return {"type": "object", "properties": properties, "additionalProperties": False, "minProperties": 1}


def _bounds(of: str) -> dict[str, object]:
    both = [{"required": list(side)} for side in (LOWER, UPPER)]
    return _object({operator: {"type": of} for operator in (*LOWER, *UPPER)}) | {"not": {"anyOf": both}}


#: The language, for the API description.
FILTER_SCHEMA: Final = {
    "type": "object",
    "description": "Of several keys all count. A key is a property of the metadata, with dots into objects.",
    "minProperties": 1,
    "propertyNames": {"pattern": r'^[^$."|][^."|]*(\.[^$."|][^."|]*)*$', "maxLength": KEY_CHARACTERS_MAX},
    "additionalProperties": {
        "anyOf": [
            _SCALAR,
            _object({"$eq": _SCALAR, "$ne": _SCALAR, "$in": _SCALARS, "$nin": _SCALARS})
            | {"maxProperties": 1},
            _bounds("number"),
            _bounds("string"),
        ]
    },
}


def parse_filter(given: Mapping[str, Any], bytes_max: int) -> Filter:
    """The filter that a decoded JSON object is; its keys all count. Raises Invalid, which names the key."""
    if not given:
        raise Invalid("filter: expected an object that is not empty")
    try:
        size = len(orjson.dumps(given))
    except TypeError:
        raise Invalid("filter: expected an object that is not nested so deeply") from None
    if size >= bytes_max:
        raise Invalid(
            f"filter: the compact JSON representation must have fewer than {bytes_max} bytes, got {size}"
        )
    parts = [part for key, condition in given.items() for part in _conditions(_path(key), condition)]
    return parts[0] if len(parts) == 1 else Every(tuple(parts))


def _path(key: str) -> str:
    if len(key) > KEY_CHARACTERS_MAX:
        raise Invalid(f"filter: a key has {len(key)} characters, at most {KEY_CHARACTERS_MAX} are allowed")
    if key.startswith("$"):
        raise Invalid(f"filter: a key must name a property and must not start with $, got {describe(key)}")
    if '"' in key or "|" in key or not all(key.split(".")):
        raise Invalid(
            f'filter: a key must not be empty, nor have an empty part or " or | in it, got {describe(key)}'
        )
    if any(part.startswith("$") for part in key.split(".")):
        raise Invalid(f"filter: no part of a key starts with $, got {describe(key)}")
    return key


def _conditions(path: str, condition: Any) -> list[Filter]:
    if not isinstance(condition, dict):
        return [OneOf(path, (_scalar(path, "$eq", condition),))]
    if not condition:
        raise Invalid(f"filter.{path}: expected a value or an operator, got an empty object")
    for operator in condition:
        if operator not in OPERATORS:
            raise Invalid(
                f"filter.{path}: unknown operator {describe(operator)}, expected one of {', '.join(OPERATORS)}"
            )
    if len(condition) == 1:
        ((operator, value),) = condition.items()
        return [_condition(path, operator, value)]
    return [_range(path, condition)]


def _condition(path: str, operator: str, value: Any) -> Filter:
    match operator:
        case "$eq":
            return OneOf(path, (_scalar(path, operator, value),))
        case "$ne":
            return Every((Present(path), Not(OneOf(path, (_scalar(path, operator, value),)))))
        case "$in":
            return OneOf(path, _scalars(path, operator, value))
        case "$nin":
            return Every((Present(path), Not(OneOf(path, _scalars(path, operator, value)))))
        case _:
            return _range(path, {operator: value})


def _range(path: str, condition: dict[str, Any]) -> Within:
    """One bound, or one on each side, of one type."""
    lower = [operator for operator in condition if operator in LOWER]
    upper = [operator for operator in condition if operator in UPPER]
    if len(lower) > 1 or len(upper) > 1 or len(lower) + len(upper) != len(condition):
        raise Invalid(
            f"filter.{path}: {' and '.join(condition)} cannot be combined; one of {', '.join(LOWER)} can be with one of {', '.join(UPPER)}"
        )
    low, high = ([_bound(path, one, condition[one]) for one in side] for side in (lower, upper))
    if low and high and isinstance(low[0], str) != isinstance(high[0], str):
        raise Invalid(f"filter.{path}: expected two numbers or two strings as bounds")
    return Within(
        path,
        low=low[0] if low else None,
        high=high[0] if high else None,
        low_included=lower != ["$gt"],
        high_included=upper != ["$lt"],
    )


def _bound(path: str, operator: str, value: Any) -> str | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Invalid(f"filter.{path}.{operator}: expected a string or a number, got {describe(value)}")
    return value if isinstance(value, str) else float(value)


def _scalars(path: str, operator: str, values: Any) -> tuple[Scalar, ...]:
    if not isinstance(values, list):
        raise Invalid(f"filter.{path}.{operator}: expected an array, got {describe(values)}")
    return tuple(_scalar(path, f"{operator}[{place}]", value) for place, value in enumerate(values))


def _scalar(path: str, operator: str, value: Any) -> Scalar:
    if isinstance(value, dict | list):
        raise Invalid(
            f"filter.{path}.{operator}: expected a string, a number, a boolean or null, got {describe(value)}"
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    assert value is None or isinstance(value, str | float | bool)
    return value
