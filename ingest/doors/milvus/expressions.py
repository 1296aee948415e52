"""Milvus's boolean expressions: ``color in ["red", "green"] and 1 < rating < 5``, as the tree that every door shares.

Grammar and types are those of Milvus's planparserv2 (``Plan.g4``). What is more lenient: its words may be written in any case, and
``not a == 1`` is ``not (a == 1)``, as its documentation has it.

What it says of rows is what Milvus says from 3.0 on (milvus-io/milvus, issues 50699 and 50976): a claim is true, false or unknown, and only
rows of which it is true are in the answer. Before, an absent member was different from every value.

- It is unknown where its field is null; where a member of a JSON or dynamic field is absent, null, or of a type that its comparison
  cannot have; where an array has no such element; and of ``array_…`` and ``json_contains…`` where there is no array. ``not`` leaves it
  unknown; ``and`` and ``or`` are as ever: false and unknown is false, true or unknown is true.
- Numbers are one type, and exact; integers of 64 bits stay what they are. An integer field has no common values with ``1.5``, and
  a comparison of the two is an error, but for JSON. Strings are ordered by code points.
- ``x in []`` is false of every row. ``exists`` and ``is null`` are never unknown: on a member of JSON they are each other's opposite, and
  JSON's null is null. An empty object exists.
- A string's escapes are resolved before its wildcards are, so that ``\\%`` in a pattern may have one backslash or two.

- ``text_match`` and ``phrase_match`` ask for words of a field with enable_match (``expression_words.py``).

Not here: random_sample, match_…, element_filter, st_… and other functions; arrays within arrays; arithmetic
on the primary key and with two fields; keys of JSON that contain a dot or look like ``[3]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from lark import Lark, Token, UnexpectedInput, v_args
from lark.exceptions import VisitError
from lark.visitors import Transformer_NonRecursive

from ingest.doors.milvus import expression_operands as operands
from ingest.doors.milvus import expression_types as types
from ingest.doors.milvus.errors import MilvusError, invalid
from ingest.doors.milvus.expression_defaults import with_defaults
from ingest.doors.milvus.expression_literals import (
    LIST,
    Refused,
    glob_like,
    items_of,
    pattern_of,
    string_of,
    words,
)
from ingest.doors.milvus.expression_types import Claim, Column, Constant, Operand, Size
from ingest.doors.milvus.expression_words import Analyzed
from ingest.grammar import mistake
from upwell.schema import RowSchema
from upwell.shard.asked import depth, globs, paths, phrases
from upwell.shard.filter import FILTER_DEPTH_MAX, Filter

#: As long as a filter may be unless a server's settings say otherwise.
BYTES_MAX: Final = 65_536
#: Of an expression that an error shows.
SHOWN_CHARACTERS_MAX: Final = 256
#: Each is read from the metadata of all rows, a microsecond a row and more, if it is not in memory already.
FIELDS_MAX: Final = 64
#: Each is matched with all strings that there are of its field.
GLOBS_MAX: Final = 64
#: Each is looked for in all texts that have its words, ten microseconds a text and more.
PHRASES_MAX: Final = 16

#: Each takes the parser a fiftieth of a millisecond. A list of numbers, or of strings without escapes, is one.
WORDS_MAX: Final = 20_000
#: Put into an expression by its templates: each of these may be named any number of times.
VALUES_MAX: Final = 1_000_000

#: Only words that a state of the parser allows are looked for there. Where a value may begin, what a bracket follows is a function.
GRAMMAR: Final = rf"""
    ?start: disjunction
    ?disjunction: conjunction | conjunction (_OR conjunction)+        -> some
    ?conjunction: denial | denial (_AND denial)+                      -> every
    ?denial: equality | _NOT denial                                   -> denied
    ?equality: comparison | equality EQUALITY comparison              -> compared
    ?comparison: term | term ORDER term                               -> compared
         | term ORDER term ORDER term                                 -> between
    ?term: sum
         | sum _IN sum                                                -> among
         | sum _NOT_IN sum                                            -> not_among
         | sum _LIKE STRING                                           -> like
         | sum _LIKE TEMPLATE                                         -> like
         | sum _IS_NULL                                               -> is_null
         | sum _IS_NOT_NULL                                           -> is_not_null
         | _EXISTS field                                              -> exists
         | _EXISTS _LPAR field _RPAR                                  -> exists
    ?sum: product | sum SIGN product                                  -> calculated
    ?product: signed | product TIMES signed                           -> calculated
    ?signed: power | SIGN signed                                      -> signed
    ?power: value | power _POWER exponent                             -> power
    ?exponent: value | SIGN exponent                                  -> signed
    ?value: _LPAR disjunction _RPAR | field
         | NUMBER                                                     -> number
         | STRING                                                     -> string
         | BOOLEAN                                                    -> boolean
         | TEMPLATE                                                   -> template
         | LIST                                                       -> plain_list
         | _LSQB _RSQB                                                -> listed
         | _LSQB disjunction (_COMMA disjunction)* _COMMA? _RSQB      -> listed
         | CONTAINS _LPAR disjunction _COMMA disjunction _RPAR        -> contains
         | _LENGTH _LPAR field _RPAR                                  -> length
         | _TEXT_MATCH _LPAR NAME _COMMA disjunction (_COMMA _MINIMUM _ASSIGN NUMBER)? _RPAR -> text_match
         | _PHRASE_MATCH _LPAR NAME _COMMA disjunction (_COMMA disjunction)? _RPAR -> phrase_match
         | FUNCTION                                                   -> function
    field: NAME step*
    ?step: _LSQB (NUMBER | STRING) _RSQB

    _EXISTS.3: /exists(?!\w)/i
    _NOT.3: /!(?!=)|not(?!\w)/i
    BOOLEAN.3: /(true|false)(?!\w)/i
    CONTAINS.3: /(json|array)_contains(_all|_any)?(?=\s*\()/i
    _LENGTH.3: /array_length(?=\s*\()/i
    _TEXT_MATCH.3: /text_match(?=\s*\()/i
    _PHRASE_MATCH.3: /phrase_match(?=\s*\()/i
    _MINIMUM: /minimum_should_match(?!\w)/i
    _ASSIGN: "="
    FUNCTION.2: /[a-zA-Z_]\w*(?=\s*\()/
    STRING.2: /[rR]?("([^"\\\r\n]|\\[^\r\n])*"|'([^'\\\r\n]|\\[^\r\n])*')/
    NAME: /\$meta(?!\w)|[a-zA-Z_][a-zA-Z_0-9]*/
    LIST.2: /{LIST}/
    NUMBER: /0x([0-9a-f]+(\.[0-9a-f]*)?|\.[0-9a-f]+)p[+-]?[0-9]+|0x[0-9a-f]+|0b[01]+|([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?/i
    TEMPLATE: /\{{\s*[a-zA-Z_][a-zA-Z_0-9]*\s*\}}/
    EQUALITY: /[=!]=/
    ORDER: /[<>]=?/
    SIGN: /[+-]/
    _POWER.2: "**"
    TIMES: /[*\/%]/
    _IN: /in(?!\w)/i
    _NOT_IN: /not\s+in(?!\w)/i
    _LIKE: /like(?!\w)/i
    _IS_NULL: /is\s+null(?!\w)/i
    _IS_NOT_NULL: /is\s+not\s+null(?!\w)/i
    _AND: /&&|and(?!\w)/i
    _OR: /\|\||or(?!\w)/i
    _LPAR: "("
    _RPAR: ")"
    _LSQB: "["
    _RSQB: "]"
    _COMMA: ","
    %ignore /[ \t\r\n]+/
"""

#: How an error calls what was expected, in its order.
WORDS: Final = {
    "NAME": "a field's name",
    "NUMBER": "a number",
    "STRING": "a string in quotes",
    "BOOLEAN": "true or false",
    "TEMPLATE": "a template such as {name}",
    "LIST": "a list",
    "_LSQB": "[",
    "_LPAR": "(",
    "_EXISTS": "exists",
    "_NOT": "not",
    "EQUALITY": "==, !=",
    "ORDER": "<, <=, >, >=",
    "_IN": "in",
    "_NOT_IN": "not in",
    "_LIKE": "like",
    "_IS_NULL": "is null",
    "_IS_NOT_NULL": "is not null",
    "SIGN": "+, -",
    "TIMES": "*, /, %",
    "_POWER": "**",
    "_COMMA": ",",
    "_MINIMUM": "minimum_should_match",
    "_ASSIGN": "=",
    "_RPAR": ")",
    "_RSQB": "]",
    "_AND": "and",
    "_OR": "or",
    "$END": "the end",
}


def parse_expression(
    text: str, schema: RowSchema, params: Mapping[str, Any] | None = None, bytes_max: int = BYTES_MAX
) -> Filter | None:
    """The filter that ``text`` is, or None if there is nothing in it. ``params``: what ``{name}`` stands for, as JSON has it.

    Raises MilvusError, which says what was expected where.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise _invalid(text, f"expected a character of Unicode at column {error.start + 1}") from None
    if size > bytes_max:
        raise _invalid(text, f"expected at most {bytes_max} bytes, got {size}")
    if not text.strip():
        return None
    if words(text) > WORDS_MAX:
        raise _invalid(
            text, f"expected at most {WORDS_MAX} words; many values are better put into a list, or exprParams"
        )
    try:
        parsed = _parser().parse(text)
        asked = operands.predicate(_Meaning(schema, params or {}).transform(parsed))
        return _checked(with_defaults(asked, schema))
    except UnexpectedInput as error:
        raise _invalid(text, str(mistake(_parser(), text, error, WORDS))) from None
    except VisitError as error:
        if isinstance(error.orig_exc, Refused):
            raise _invalid(text, str(error.orig_exc)) from None
        raise
    except Refused as refused:
        raise _invalid(text, str(refused)) from None


@v_args(inline=True)
class _Meaning(Transformer_NonRecursive[Token, Operand]):
    """What each rule of the grammar becomes; no depth of a text recurses."""

    def __init__(self, schema: RowSchema, params: Mapping[str, Any]) -> None:
        super().__init__(visit_tokens=False)
        self._schema = schema
        self._params = params
        self._words = Analyzed(schema)
        self._known: dict[str, Constant] = {}
        self._values = 0

    def some(self, *parts: Operand) -> Operand:
        return operands.joined("or", parts)

    def every(self, *parts: Operand) -> Operand:
        return operands.joined("and", parts)

    def denied(self, part: Operand) -> Operand:
        return operands.denied(part)

    def compared(self, left: Operand, order: Token, right: Operand) -> Operand:
        return operands.compared(left, str(order), right)

    def between(self, low: Operand, first: Token, middle: Operand, *rest: Any) -> Operand:
        second, high = rest
        return operands.between(low, str(first), middle, str(second), high)

    def among(self, column: Operand, listed: Operand) -> Operand:
        return operands.among(column, listed)

    def not_among(self, column: Operand, listed: Operand) -> Operand:
        return operands.denied(operands.among(column, listed))

    def like(self, column: Operand, pattern: Token) -> Operand:
        if not isinstance(column, Column):
            raise Refused("like operation on complicated expr is unsupported")
        if pattern.type == "STRING":
            return types.like(column, glob_like(pattern_of(str(pattern))))
        given = self.template(pattern).value
        if not isinstance(given, str):
            raise Refused(f"the value of like expression template variable {pattern} is not string")
        return types.like(column, glob_like(given))

    def exists(self, column: Column) -> Claim:
        return types.exists(column)

    def is_null(self, column: Operand) -> Claim:
        if not isinstance(column, Column):
            raise Refused("'is null' can only be used on single field")
        return types.is_null(column)

    def is_not_null(self, column: Operand) -> Operand:
        return operands.denied(self.is_null(column))

    def contains(self, function: Token, column: Operand, value: Operand) -> Claim:
        return operands.contains(function.lower(), column, value)

    def text_match(self, name: Token, query: Operand, minimum: Token | None = None) -> Claim:
        return self._words.text_match(str(name), query, minimum)

    def phrase_match(self, name: Token, query: Operand, slop: Operand | None = None) -> Claim:
        return self._words.phrase_match(str(name), query, slop)

    def length(self, column: Column) -> Size:
        return operands.size_of(column)

    def calculated(self, left: Operand, sign: Token, right: Operand) -> Operand:
        return operands.calculated(left, str(sign), right)

    def power(self, base: Operand, exponent: Operand) -> Operand:
        return operands.raised(base, exponent)

    def signed(self, sign: Token, operand: Operand) -> Operand:
        return operands.signed(str(sign), operand)

    def number(self, token: Token) -> Constant:
        return operands.number(str(token))

    def string(self, token: Token) -> Constant:
        return Constant(string_of(str(token)))

    def boolean(self, token: Token) -> Constant:
        return Constant(token.lower() == "true")

    def template(self, token: Token) -> Constant:
        name = str(token)[1:-1].strip()
        if name not in self._known:
            self._known[name] = operands.template(self._params, name)
        found = self._known[name]
        self._values += len(found.value) if isinstance(found.value, list) else 1
        if self._values > VALUES_MAX:
            raise Refused(f"expected templates that put at most {VALUES_MAX} values into it")
        return found

    def plain_list(self, token: Token) -> Constant:
        return Constant(list(items_of(token)))

    def listed(self, *items: Operand) -> Constant:
        values = []
        for item in items:
            if not isinstance(item, Constant):
                raise Refused("array element type must be generic value")
            values.append(item.value)
        return Constant(values)

    def field(self, name: Token, *steps: Token) -> Column:
        return operands.column_of(self._schema, str(name), [str(step) for step in steps])


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", lexer_callbacks={"FUNCTION": _refuse_function})


def _refuse_function(token: Token) -> Token:
    raise Refused(f"{token} is not supported here")


def _checked(asked: Filter) -> Filter:
    """The filter, unless it would have a worker or a query look at everything far too often. Raises Refused."""
    deep = depth(asked)
    if deep > FILTER_DEPTH_MAX:
        raise Refused(
            f"expected 'and' and 'or' within one another at most {FILTER_DEPTH_MAX} deep, got {deep}"
        )
    properties = len(set(paths(asked)))
    if properties > FIELDS_MAX:
        raise Refused(f"expected at most {FIELDS_MAX} different fields, got {properties}")
    patterns = len(set(globs(asked)))
    if patterns > GLOBS_MAX:
        raise Refused(f"expected at most {GLOBS_MAX} different patterns, got {patterns}")
    sayings = len(set(phrases(asked)))
    if sayings > PHRASES_MAX:
        raise Refused(f"expected at most {PHRASES_MAX} different phrases, got {sayings}")
    return asked


def _invalid(text: str, detail: str) -> MilvusError:
    shown = text if len(text) <= SHOWN_CHARACTERS_MAX else text[: SHOWN_CHARACTERS_MAX - 1] + "…"
    return invalid(f"failed to create query plan: cannot parse expression: {shown}, error: {detail}")
