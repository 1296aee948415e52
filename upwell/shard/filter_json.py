"""How a filter is written in the log, where a delete by filter travels: as JSON, a list that begins with a word.

A form must never change its meaning.

    ["has", path]                                 Present
    ["in", path, value, …]                        OneOf
    ["contains", path, value, …]                  Contains
    ["within", path, low, high, low_included, high_included]    Within; null: no bound
    ["glob", path, pattern]                       Glob
    ["id", part]                                  OfId; part: "in", "within" or "glob", its path ""
    ["length", path, part]                        Length; part: "in" or "within", its path ""
    ["calc", path, operator, operand, part]       Calculated; part as of Length
    ["compare", path, order, other]               Compared
    ["words", path, analyzer, least, term, …]     HasWords; analyzer: its parameters as a text
    ["phrase", path, analyzer, slop, [position, term], …]       HasPhrase
    ["and", part, …]  ["or", part, …]             Every, Some
    ["not", part]                                 Not
    ["by", [analyzer, …], part]                   part, in which a number stands for one of these analyzers; outermost, if at all

A number without a fraction or an exponent (1) is an integer, exactly that up to 64 bits; beyond, and with one (1.0), it is a double. What
that matters to is told in ``filter.py``: 1 and 1.0 say the same, but an operand 2 calculates with integers and 2.0 with doubles.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

from upwell.errors import Corrupt, Invalid
from upwell.shard.asked import leaves
from upwell.shard.comparing import OPERATORS, ORDERS, Scalar
from upwell.shard.filter import (
    FILTER_DEPTH_MAX,
    Calculated,
    Compared,
    Contains,
    Every,
    Filter,
    Glob,
    HasPhrase,
    HasWords,
    Leaf,
    Length,
    Not,
    OfId,
    OneOf,
    Present,
    Some,
    Within,
)
from upwell.shard.glob import GLOB_CHARACTERS_MAX
from upwell.shard.numbers import INTEGER_MAX, INTEGER_MIN
from upwell.shard.worded import POSITION_MAX
from upwell.text.analyzer import analyzer_of

_Wordless = Present | OneOf | Contains | Glob | Within | OfId | Length | Calculated | Compared


def filter_to_json(asked: Filter) -> list[Any]:
    """The filter's form as JSON."""
    times = Counter(one.analyzer for one in leaves(asked) if isinstance(one, HasWords | HasPhrase))
    # What an analyzer is told may be as long as all the rest, and there may be thousands that ask by it.
    again = [analyzer for analyzer, count in times.items() if count > 1]
    told = _to_json(asked, {analyzer: place for place, analyzer in enumerate(again)})
    return ["by", again, told] if again else told


def _to_json(asked: Filter, known: Mapping[str, int]) -> list[Any]:
    match asked:
        case Every(parts):
            return ["and", *(_to_json(part, known) for part in parts)]
        case Some(parts):
            return ["or", *(_to_json(part, known) for part in parts)]
        case Not(part):
            return ["not", _to_json(part, known)]
        case HasWords(path, analyzer, terms, least):
            return ["words", path, known.get(analyzer, analyzer), least, *terms]
        case HasPhrase(path, analyzer, phrase, slop):
            return ["phrase", path, known.get(analyzer, analyzer), slop, *map(list, phrase)]
        case _:
            return _leaf_to_json(asked)


def _leaf_to_json(asked: _Wordless) -> list[Any]:
    match asked:
        case Present(path):
            return ["has", path]
        case OneOf(path, values):
            return ["in", path, *map(_told, values)]
        case Contains(path, values):
            return ["contains", path, *map(_told, values)]
        case Glob(path, pattern):
            return ["glob", path, pattern]
        case Within(path, low, high, low_included, high_included):
            return ["within", path, _told(low), _told(high), low_included, high_included]
        case OfId(part):
            return ["id", _leaf_to_json(part)]
        case Length(path, part):
            return ["length", path, _leaf_to_json(part)]
        case Calculated(path, operator, operand, part):
            return ["calc", path, operator, _told(operand), _leaf_to_json(part)]
        case Compared(path, order, other):
            return ["compare", path, order, other]


def _told(value: Scalar) -> Scalar:
    """The value as JSON can have it: integers beyond 64 bits are doubles."""
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        return float(value)
    return value


def filter_from_json(data: Any) -> Filter:
    """The filter that was written as ``data``. Raises Corrupt if it is none, or deeper than FILTER_DEPTH_MAX."""
    match data:
        case ["by", [*analyzers], part]:
            return _from_json(part, FILTER_DEPTH_MAX, tuple(map(_analyzer, analyzers)))
    return _from_json(data, FILTER_DEPTH_MAX, ())


def _from_json(data: Any, depth_left: int, known: Sequence[str]) -> Filter:
    if depth_left == 0:
        raise Corrupt("a filter is too deep", max=FILTER_DEPTH_MAX)
    match data:
        case ["and", *parts]:
            return Every(tuple(_from_json(part, depth_left - 1, known) for part in parts))
        case ["or", *parts]:
            return Some(tuple(_from_json(part, depth_left - 1, known) for part in parts))
        case ["not", part]:
            return Not(_from_json(part, depth_left - 1, known))
        case ["id", ["in" | "within" | "glob", "", *_] as part] if depth_left > 1:
            return OfId(_comparison(part))
        case ["length", str(path), ["in" | "within", "", *_] as part] if depth_left > 1:
            return Length(path, _of_number(part))
        case ["calc", str(path), str(operator), operand, ["in" | "within", "", *_] as part] if depth_left > 1:
            number = _scalar(operand)
            if operator not in OPERATORS or not isinstance(number, int | float) or isinstance(number, bool):
                raise _refused(data)
            return Calculated(path, operator, number, _of_number(part))
        case ["compare", str(path), str(order), str(other)] if order in ORDERS:
            return Compared(path, order, other)
        case ["words" | "phrase", str(), told, *_]:
            return _of_words(
                data, known[told] if type(told) is int and told in range(len(known)) else _analyzer(told)
            )
    return _of_value(data)


def _of_value(data: Any) -> Leaf:
    match data:
        case ["has", str(path)]:
            return Present(path)
        case ["contains", str(path), *values]:
            return Contains(path, tuple(_scalar(value) for value in values))
    return _comparison(data)


def _of_words(data: Any, analyzer: str) -> HasWords | HasPhrase:
    match data:
        case ["words", str(path), _, int(least), *terms] if least > 0 and least is not True:
            if all(isinstance(term, str) for term in terms):
                return HasWords(path, analyzer, tuple(terms), least)
        case ["phrase", str(path), _, int(slop), *terms] if slop >= 0 and not isinstance(slop, bool):
            phrase = tuple(_positioned(term) for term in terms)
            return HasPhrase(path, analyzer, phrase, slop)
    raise _refused(data)


def _positioned(data: Any) -> tuple[int, str]:
    match data:
        case [int(position), str(term)] if 0 <= position <= POSITION_MAX and not isinstance(position, bool):
            return position, term
    raise _refused(data)


def _analyzer(params: Any) -> str:
    if not isinstance(params, str):
        raise _refused(params)
    try:
        given = json.loads(params)
        if not isinstance(given, dict):
            raise Corrupt("expected an analyzer of a filter", got=params[:64])
        analyzer_of(given)
    except (ValueError, RecursionError, Invalid) as error:
        raise Corrupt("expected an analyzer of a filter", got=params[:64]) from error
    return params


def _comparison(data: Any) -> OneOf | Within | Glob:
    match data:
        case ["glob", str(path), str(pattern)] if len(pattern) <= GLOB_CHARACTERS_MAX:
            return Glob(path, pattern)
    return _of_number(data)


def _of_number(data: Any) -> OneOf | Within:
    match data:
        case ["in", str(path), *values]:
            return OneOf(path, tuple(_scalar(value) for value in values))
        case ["within", str(path), low, high, bool(low_included), bool(high_included)]:
            low, high = _scalar(low), _scalar(high)
            if isinstance(low, bool) or isinstance(high, bool):
                raise Corrupt("expected bounds of a filter", got=repr([low, high])[:64])
            return Within(path, low, high, low_included, high_included)
    raise _refused(data)


def _refused(data: Any) -> Corrupt:
    return Corrupt("expected a filter", got=repr(data)[:64])


def _scalar(value: Any) -> Scalar:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) and INTEGER_MIN <= value <= INTEGER_MAX:
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            number = inf
        if isfinite(number):
            return number
    raise Corrupt("expected a value that a filter can compare", got=repr(value)[:64])
