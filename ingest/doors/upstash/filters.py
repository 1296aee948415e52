"""Upstash's filter language: ``population >= 1000000 AND geography.continent = 'Asia'``, as the tree that every door shares.

Rules are those of Upstash's documentation of metadata filtering. Words of the language may be written in any case, and AND binds tighter
than OR. A word of the language is a field's name wherever a name is expected: ``in IN (1)``. Where the documentation is silent:

- A row without the field is in no answer about it, those of ``!=`` and of NOT included; only HAS NOT FIELD finds it. A row whose value
  is of another type is in the answer of ``!=`` and NOT.
- ``1`` and ``0``, written just so, are a number and a boolean: they match both. ``true`` and ``false`` match booleans only.
- In a string its quote is written twice or after a backslash, and a backslash before a quote or a backslash stands for what follows it.
  Other backslashes are themselves. So strings by clients that escape in either way, or not at all, mean what they should.
- A key that has in it what no name may have (a space, a dot, a letter beyond ASCII) cannot be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from math import isfinite
from typing import Final

from lark import Lark, Token, Transformer, UnexpectedInput, v_args

from ingest.grammar import mistake, shown
from upwell.errors import Invalid
from upwell.shard.asked import depth, leaves, paths
from upwell.shard.comparing import Scalar
from upwell.shard.filter import (
    FILTER_DEPTH_MAX,
    Contains,
    Every,
    Filter,
    Glob,
    Not,
    OneOf,
    Present,
    Some,
    Within,
)
from upwell.shard.glob import GLOB_CHARACTERS_MAX

#: Each is read from the metadata of all rows, a microsecond a row and more, if it is not in memory already.
FIELDS_MAX: Final = 64
#: Each is matched with all strings that there are of its field.
GLOBS_MAX: Final = 64

#: Only words that a state of the parser allows are looked for there, so FIELD names are free. HAS is the exception: a term begins
#: with it or with a name, and it is HAS only before what must follow it.
GRAMMAR: Final = r"""
    filter: conjunction (_OR conjunction)*      -> some
    conjunction: term (_AND term)*              -> every
    ?term: _LPAR filter _RPAR
         | NAME _EQUAL _literal                 -> equal
         | NAME _UNEQUAL _literal               -> unequal
         | NAME ORDER NUMBER                    -> ordered
         | NAME _GLOB STRING                    -> glob
         | NAME _NOT _GLOB STRING               -> not_glob
         | NAME _IN _list                       -> equal
         | NAME _NOT _IN _list                  -> unequal
         | NAME _CONTAINS _literal              -> contains
         | NAME _NOT _CONTAINS _literal         -> not_contains
         | _HAS _FIELD NAME                     -> has
         | _HAS _NOT _FIELD NAME                -> has_not
    _list: _LPAR _literal (_COMMA _literal)* _RPAR
    _literal: STRING | NUMBER | BOOLEAN

    _HAS.2: /has(?=\s+(field|not(?!\s+(glob|in|contains)(?![a-z0-9_])))(?![a-z0-9_]))/i
    NAME: /[a-zA-Z_][a-zA-Z_0-9.\[\]#-]*/
    _FIELD: /field(?![a-z0-9_])/i
    _EQUAL: "="
    _UNEQUAL: "!="
    ORDER: /[<>]=?/
    _NOT: /not(?![a-z0-9_])/i
    _GLOB: /glob(?![a-z0-9_])/i
    _IN: /in(?![a-z0-9_])/i
    _CONTAINS: /contains(?![a-z0-9_])/i
    _AND: /and(?![a-z0-9_])/i
    _OR: /or(?![a-z0-9_])/i
    BOOLEAN: /(true|false)(?![a-z0-9_])/i
    NUMBER: /[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?/i
    STRING: /'([^'\\]|\\.|'')*'|"([^"\\]|\\.|"")*"/s
    _LPAR: "("
    _RPAR: ")"
    _COMMA: ","
    %ignore /\s+/
"""

#: How an error calls what was expected, in its order.
WORDS: Final = {
    "NAME": "a field's name",
    "_HAS": "HAS FIELD",
    "_FIELD": "FIELD",
    "_LPAR": "(",
    "_EQUAL": "=",
    "_UNEQUAL": "!=",
    "ORDER": "<, <=, >, >=",
    "_NOT": "NOT",
    "_GLOB": "GLOB",
    "_IN": "IN",
    "_CONTAINS": "CONTAINS",
    "STRING": "a string in quotes",
    "NUMBER": "a number",
    "BOOLEAN": "true or false",
    "_COMMA": ",",
    "_RPAR": ")",
    "_AND": "AND",
    "_OR": "OR",
    "$END": "the end",
}

_NAME: Final = re.compile(
    r"[a-z_][a-z_0-9#-]*(\.[a-z_0-9#-]+|\[(#-)?[0-9]{1,9}\])*", re.IGNORECASE | re.ASCII
)
_ESCAPED: Final = {"'": re.compile(r"\\(['\"\\])|'(')"), '"': re.compile(r"\\(['\"\\])|\"(\")")}


def parse_filter(text: str, bytes_max: int) -> Filter | None:
    """The filter that ``text`` is, or None if there is nothing in it. Raises Invalid, which says what was expected where."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise _invalid("a character of Unicode", error.start, ascii(text[error.start])) from None
    if size > bytes_max:
        raise Invalid(f"Invalid filter: expected at most {bytes_max} bytes, got {size}")
    if not text.strip():
        return None
    try:
        # The parser is made with the transformer, so what it gives is what that makes.
        parsed: object = _parser().parse(text)
    except UnexpectedInput as error:
        raise Invalid(f"Invalid filter: {mistake(_parser(), text, error, WORDS)}") from None
    assert isinstance(parsed, Filter)
    deep = depth(parsed)
    if deep > FILTER_DEPTH_MAX:
        raise Invalid(
            f"Invalid filter: expected AND and OR within one another at most {FILTER_DEPTH_MAX} deep, got {deep}"
        )
    _check_cost(parsed)
    return parsed


def _check_cost(asked: Filter) -> None:
    """Raise Invalid for a filter that would have a worker or a query look at everything far too often."""
    properties = len(set(paths(asked)))
    if properties > FIELDS_MAX:
        raise Invalid(f"Invalid filter: expected at most {FIELDS_MAX} different fields, got {properties}")
    globs = len({one for one in leaves(asked) if isinstance(one, Glob)})
    if globs > GLOBS_MAX:
        raise Invalid(f"Invalid filter: expected at most {GLOBS_MAX} different patterns, got {globs}")


@v_args(inline=True)
class _Tree(Transformer[Token, Filter]):
    """What each rule of the grammar becomes, called while the text is read: no depth of it recurses."""

    def some(self, *parts: Filter) -> Filter:
        return parts[0] if len(parts) == 1 else Some(parts)

    def every(self, *parts: Filter) -> Filter:
        return parts[0] if len(parts) == 1 else Every(parts)

    def equal(self, name: Token, *literals: Token) -> Filter:
        return OneOf(_path(name), _values(literals))

    def unequal(self, name: Token, *literals: Token) -> Filter:
        return _but(OneOf(_path(name), _values(literals)))

    def ordered(self, name: Token, order: Token, literal: Token) -> Filter:
        path, bound, included = _path(name), _number(literal), order.endswith("=")
        if order.startswith("<"):
            return Within(path, high=bound, high_included=included)
        return Within(path, low=bound, low_included=included)

    def glob(self, name: Token, pattern: Token) -> Filter:
        return _glob(name, pattern)

    def not_glob(self, name: Token, pattern: Token) -> Filter:
        return _but(_glob(name, pattern))

    def contains(self, name: Token, literal: Token) -> Filter:
        return Contains(_path(name), _values([literal]))

    def not_contains(self, name: Token, literal: Token) -> Filter:
        return _but(Contains(_path(name), _values([literal])))

    def has(self, name: Token) -> Filter:
        return Present(_path(name))

    def has_not(self, name: Token) -> Filter:
        return Not(Present(_path(name)))


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", start="filter", transformer=_Tree())


def _but(found: OneOf | Contains | Glob) -> Filter:
    """Rows that have the field and are not ``found``."""
    return Every((Present(found.path), Not(found)))


def _path(name: Token) -> str:
    """The path of a name: ``a[0].b[#-1]`` is ``a.[0].b.[#-1]``."""
    if not _NAME.fullmatch(name):
        raise _refused("a field's name such as a.b, a[0] or a[#-1]", name)
    return name.replace("[", ".[")


def _values(literals: Iterable[Token]) -> tuple[Scalar, ...]:
    return tuple(value for literal in literals for value in _meanings(literal))


def _meanings(literal: Token) -> tuple[Scalar, ...]:
    """The values that a literal may stand for."""
    if literal.type == "STRING":
        return (_text(literal),)
    if literal.type == "BOOLEAN":
        return (literal.lower() == "true",)
    number = _number(literal)
    return (number, number == 1) if literal in {"0", "1"} else (number,)


def _text(literal: Token) -> str:
    return _ESCAPED[literal[0]].sub(lambda found: found[1] or found[2], literal[1:-1])


def _number(literal: Token) -> float:
    number = float(literal)
    if not isfinite(number):
        raise _refused("a number that a double can hold", literal)
    return number


def _glob(name: Token, literal: Token) -> Glob:
    pattern = _text(literal)
    if len(pattern) > GLOB_CHARACTERS_MAX:
        raise _refused(f"a pattern of at most {GLOB_CHARACTERS_MAX} characters", literal)
    return Glob(_path(name), pattern)


def _refused(expected: str, token: Token) -> Invalid:
    return _invalid(expected, token.start_pos or 0, shown(str(token)))


def _invalid(expected: str, place: int, got: str) -> Invalid:
    return Invalid(f"Invalid filter: expected {expected} at column {place + 1}, got {got}")
