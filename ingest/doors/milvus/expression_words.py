"""``text_match`` and ``phrase_match``: claims about the words of a field, told apart by its analyzer when the expression is read.

A row whose field is null makes neither hold nor fail. A query without a term, such as one of stop words alone, is in no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ingest.doors.milvus.expression_literals import INT64_MAX, Refused, number_of
from ingest.doors.milvus.expression_operands import column_of
from ingest.doors.milvus.expression_types import Claim, Column, Constant, Operand, type_of
from upwell.schema import FieldType, RowSchema, ScalarField
from upwell.shard.filter import Every, HasPhrase, HasWords, Not, Within
from upwell.text.analyzer import Analyzer, Token, analyzer_of, canonical

#: Of the texts of one expression, which are analyzed while it is read.
TEXTS_CHARACTERS_MAX: Final = 262_144
#: A text that may have the phrase is asked for each of them.
PHRASE_TERMS_MAX: Final = 128
_MINIMUM_MAX: Final = 1_000
_SLOP_MAX: Final = (1 << 32) - 1


class Analyzed:
    """The words that one expression asks for. Raises Refused for more than it may."""

    def __init__(self, schema: RowSchema) -> None:
        self._schema = schema
        self._characters = 0
        #: By a field's name. All claims about a field share one text of its parameters, which may be as long as half an expression.
        self._analyzers: dict[str, tuple[str, Analyzer]] = {}

    def text_match(self, name: str, query: Operand, minimum: str | None) -> Claim:
        """``text_match(name, query, minimum_should_match=minimum)``. As in Milvus a term that is given twice counts twice."""
        field = self._field(name, "text match")
        text = _text(query, "text_match query")
        least = 1 if minimum is None else _minimum(minimum)
        told, analyzer = self._analyzer(field)
        terms = tuple(token.term for token in self._tokens(analyzer, text))
        return _about(HasWords(field.name, told, terms, least))

    def phrase_match(self, name: str, query: Operand, slop: Operand | None) -> Claim:
        """``phrase_match(name, query, slop)``."""
        field = self._field(name, "phrase match")
        text = _text(query, "phrase_match query")
        free = 0 if slop is None else _slop(slop)
        told, analyzer = self._analyzer(field)
        tokens = self._tokens(analyzer, text)
        if len(tokens) > PHRASE_TERMS_MAX:
            raise Refused(f"expected a phrase of at most {PHRASE_TERMS_MAX} terms, got {len(tokens)}")
        phrase = tuple((token.position - tokens[0].position, token.term) for token in tokens)
        return _about(HasPhrase(field.name, told, phrase, free))

    def _field(self, name: str, operation: str) -> ScalarField:
        column = column_of(self._schema, name, ())
        if column.type is not FieldType.VARCHAR:
            raise Refused(f"{operation} operation on non-string is unsupported")
        field = self._schema.field(name)
        if field is None or not field.matches:
            raise Refused(f'field "{name}" does not enable match')
        return field

    def _analyzer(self, field: ScalarField) -> tuple[str, Analyzer]:
        """A field's analyzer, and what it was told."""
        if field.name not in self._analyzers:
            params = field.analyzer or {}
            self._analyzers[field.name] = canonical(params), analyzer_of(params)
        return self._analyzers[field.name]

    def _tokens(self, analyzer: Analyzer, text: str) -> Sequence[Token]:
        self._characters += len(text)
        if self._characters > TEXTS_CHARACTERS_MAX:
            raise Refused(f"expected at most {TEXTS_CHARACTERS_MAX} characters of texts to match")
        return analyzer.tokens(text)


def _text(query: Operand, name: str) -> str:
    if isinstance(query, Constant) and isinstance(query.value, str):
        return query.value
    raise Refused(f"{name} should be a string literal or template variable, got: {_shown(query)}")


def _minimum(digits: str) -> int:
    number = number_of(digits)
    if not isinstance(number, int) or number > INT64_MAX:
        raise Refused(f"invalid minimum_should_match value: {digits[:64]}")
    if number < 1:
        raise Refused(f"minimum_should_match should be >= 1, got {number}")
    if number > _MINIMUM_MAX:
        raise Refused(f"minimum_should_match should be <= {_MINIMUM_MAX}, got {number}")
    return number


def _slop(slop: Operand) -> int:
    value = slop.value if isinstance(slop, Constant) else None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(
            f'"slop" should be a const integer expression with "uint32" value. "slop" expression passed: {_shown(slop)}'
        )
    if value < 0:
        raise Refused(f'"slop" should not be a negative interger. "slop" passed: {value}')
    if value > _SLOP_MAX:
        raise Refused(f'"slop" exceeds the range of "uint32". "slop" expression passed: {value}')
    return value


def _shown(operand: Operand) -> str:
    match operand:
        case Constant(list() as values):
            return type_of(values)
        case Constant(value):
            return str(value)[:64]
        case Column(name):
            return name
    return "an operation"


def _about(found: HasWords | HasPhrase) -> Claim:
    return Claim(found, Every((Within(found.path, low=""), Not(found))))
