"""Any expression of Milvus's language, on any rows, says what a plain evaluator of the language says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
from hypothesis import given, note, settings
from hypothesis import strategies as st

from ingest.doors.milvus.expressions import parse_expression
from tests import plain_expressions as plain
from tests.plain_expressions import Place, Row, nullable
from upwell.schema import FieldType, IdType, RowSchema
from upwell.shard.filter import MetadataColumns, matching
from upwell.shard.filter_json import filter_from_json, filter_to_json

INTEGERS = st.sampled_from([-3, -1, 0, 1, 2, 3, 7, (1 << 53) + 1, (1 << 63) - 1, -(1 << 63)])
FLOATS = st.sampled_from([-1.5, 0.0, 0.5, 1.0, 2.5, 7.0])
TEXTS = st.sampled_from(
    ["", "a", "ab", "abc", "b", "a%b", "a_b", "é", "x\\y", 'q"q', "*", "[a]", "line\nline"]
)
BOOLEANS = st.booleans()
ANYTHING = st.one_of(INTEGERS, FLOATS, TEXTS, BOOLEANS)
ORDERS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


FIELDS = (
    nullable("flag", FieldType.BOOL),
    nullable("n", FieldType.INT64),
    nullable("m", FieldType.INT32),
    nullable("f", FieldType.DOUBLE),
    nullable("s", FieldType.VARCHAR),
    nullable("t", FieldType.VARCHAR),
    nullable("J", FieldType.JSON),
    nullable("numbers", FieldType.ARRAY, FieldType.INT64),
    nullable("words", FieldType.ARRAY, FieldType.VARCHAR),
)
SCHEMAS = {
    IdType.INT64: RowSchema(ids=IdType.INT64, fields=FIELDS),
    IdType.TEXT: RowSchema(ids=IdType.TEXT, id_field="key", fields=FIELDS),
}

ELEMENTS = st.lists(ANYTHING | st.none(), max_size=3)
MEMBER = st.one_of(
    ANYTHING, st.none(), ELEMENTS, st.dictionaries(st.sampled_from("ab"), ANYTHING | ELEMENTS, max_size=2)
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "flag": BOOLEANS,
        "n": INTEGERS,
        "m": st.integers(-3, 3),
        "f": FLOATS,
        "s": TEXTS,
        "t": TEXTS,
        "J": MEMBER.filter(lambda value: value is not None),
        "numbers": st.lists(INTEGERS, max_size=3),
        "words": st.lists(TEXTS, max_size=3),
        "d": MEMBER,
        "e": MEMBER,
    },
)


@dataclass(frozen=True)
class Said:
    """A claim as the language writes it, and what it says of a row."""

    text: str
    of: Callable[[Row], bool | None]


@dataclass(frozen=True)
class Named:
    """Something that can be asked for, and what it may be compared with. ``kind``: any, or the type of a declared field."""

    text: str
    place: Place
    literals: st.SearchStrategy[Any]
    kind: str


def id_named(ids: IdType) -> Named:
    if ids is IdType.INT64:
        return Named("id", Place(None), INTEGERS, "integer")
    return Named("key", Place(None), TEXTS, "text")


SCALARS = [
    Named("flag", Place("flag"), BOOLEANS, "boolean"),
    Named("n", Place("n"), INTEGERS, "integer"),
    Named("m", Place("m"), INTEGERS, "integer"),
    Named("f", Place("f"), INTEGERS | FLOATS, "float"),
    Named("s", Place("s"), TEXTS, "text"),
    Named("numbers[0]", Place("numbers", (0,)), INTEGERS, "integer"),
    Named("words[1]", Place("words", (1,)), TEXTS, "text"),
]
MEMBERS = [
    Named("d", Place("d"), ANYTHING, "any"),
    Named('$meta["e"]', Place("e"), ANYTHING, "any"),
    Named("$meta['d'][\"a\"]", Place("d", ("a",)), ANYTHING, "any"),
    Named("d[1]", Place("d", (1,)), ANYTHING, "any"),
    Named('J["a"]', Place("J", ("a",)), ANYTHING, "any"),
    Named('J["b"][0]', Place("J", ("b", 0)), ANYTHING, "any"),
]
ARRAYS = [
    Named("numbers", Place("numbers"), INTEGERS, "array"),
    Named("words", Place("words"), TEXTS, "array"),
    *MEMBERS[:3],
]


def written(value: Any) -> str:
    """A literal as the language has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return repr(value)


def is_ordered(value: Any) -> bool:
    return not isinstance(value, bool)


TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


@st.composite
def comparison(draw: st.DrawFn, ids: IdType) -> Said:
    named = draw(st.sampled_from([id_named(ids), *SCALARS, *MEMBERS]))
    order, literal = draw(ORDERS), draw(named.literals)
    if not is_ordered(literal):
        order = draw(st.sampled_from(["==", "!="]))
    text = f"{named.text} {order} {written(literal)}"
    if draw(st.booleans()):
        text = f"{written(literal)} {TURNED[order]} {named.text}"
    return Said(text, lambda row: plain.compared(named.place.of(row), order, literal))


@st.composite
def between(draw: st.DrawFn, ids: IdType) -> Said:
    named = draw(st.sampled_from([id_named(ids), *SCALARS[1:], *MEMBERS]))
    low, high = draw(named.literals.filter(is_ordered)), draw(named.literals.filter(is_ordered))
    if not plain.comparable(low, high) or low == high:
        return draw(comparison(ids))
    low, high = min(low, high), max(low, high)
    first, second = draw(st.sampled_from(["<", "<="])), draw(st.sampled_from(["<", "<="]))
    text = f"{written(low)} {first} {named.text} {second} {written(high)}"
    if draw(st.booleans()):
        text = f"{written(high)} {TURNED[second]} {named.text} {TURNED[first]} {written(low)}"

    def of(row: Row) -> bool | None:
        value = named.place.of(row)
        return plain.every([plain.compared(value, TURNED[first], low), plain.compared(value, second, high)])

    return Said(text, of)


@st.composite
def membership(draw: st.DrawFn, ids: IdType) -> Said:
    named = draw(st.sampled_from([id_named(ids), *SCALARS, *MEMBERS]))
    literals = draw(st.lists(named.literals, max_size=3))
    negated = draw(st.booleans())

    def of(row: Row) -> bool | None:
        answer = plain.among(named.place.of(row), literals)
        return plain.denied(answer) if negated else answer

    return Said(
        f"{named.text} {draw(st.sampled_from(['not in', 'NOT IN'])) if negated else 'in'} {written(literals)}",
        of,
    )


@st.composite
def likeness(draw: st.DrawFn, ids: IdType) -> Said:
    texts = [named for named in [id_named(ids), *SCALARS, *MEMBERS] if named.kind in ("text", "any")]
    named = draw(st.sampled_from(texts))
    pattern = draw(st.lists(st.sampled_from(["any", "one", *'ab%_*[]\\"é?^-']), max_size=5))
    spelled = "".join(
        {"any": "%", "one": "_", "%": "\\%", "_": "\\_", "\\": "\\\\"}.get(part, part) for part in pattern
    )
    return Said(
        f"{named.text} like {written(spelled)}", lambda row: plain.liked(named.place.of(row), pattern)
    )


@st.composite
def containing(draw: st.DrawFn, ids: IdType) -> Said:
    named = draw(st.sampled_from(ARRAYS))
    literals = draw(st.lists(named.literals, max_size=3))
    match draw(st.sampled_from(["", "_all", "_any", "length", "same"])):
        case "":
            literal = draw(named.literals)
            text = f"array_contains({named.text}, {written(literal)})"
            return Said(text, lambda row: plain.contains(named.place.of(row), [literal], every=True))
        case "length":
            order, size = draw(ORDERS), draw(st.integers(0, 3))
            text = f"array_length({named.text}) {order} {size}"
            return Said(text, lambda row: plain.compared(plain.length(named.place.of(row)), order, size))
        case "same":
            literals = literals or [draw(named.literals)]
            text = f"{named.text} == {written(literals)}"
            return Said(text, lambda row: plain.same_array(named.place.of(row), literals))
        case kind:
            text = f"JSON_CONTAINS{kind.upper()}({named.text}, {written(literals)})"
            return Said(text, lambda row: plain.contains(named.place.of(row), literals, every=kind == "_all"))


@st.composite
def arithmetic(draw: st.DrawFn, ids: IdType) -> Said:
    named = draw(
        st.sampled_from([one for one in [*SCALARS, *MEMBERS] if one.kind in ("integer", "float", "any")])
    )
    sign, order = draw(st.sampled_from("+-*/%")), draw(ORDERS)
    operand: int | float = draw(st.integers(1, 3))
    if named.kind == "float":
        sign, operand = draw(st.sampled_from("+-*/")), float(operand)
    elif named.kind == "any" and sign != "%":
        operand = draw(st.sampled_from([1, 2, 0.5]))
    literal = draw(INTEGERS if named.kind == "integer" else INTEGERS | FLOATS)
    text = f"{named.text} {sign} {written(operand)} {order} {written(literal)}"
    return Said(
        text, lambda row: plain.compared(plain.calculated(named.place.of(row), sign, operand), order, literal)
    )


@st.composite
def two_columns(draw: st.DrawFn, ids: IdType) -> Said:
    kinds = {"integer": "number", "float": "number", "text": "text"}
    left = draw(st.sampled_from([one for one in SCALARS if one.kind in kinds]))
    right = draw(st.sampled_from([one for one in SCALARS if kinds.get(one.kind) == kinds[left.kind]]))
    order = draw(ORDERS)
    return Said(
        f"{left.text} {order} {right.text}",
        lambda row: plain.compared(left.place.of(row), order, right.place.of(row)),
    )


@st.composite
def presence(draw: st.DrawFn, ids: IdType) -> Said:
    named = draw(st.sampled_from([id_named(ids), *SCALARS[:5], *MEMBERS]))
    form = draw(
        st.sampled_from(["{} is null", "{} IS NOT NULL", *(["exists {}"] if named.kind == "any" else [])])
    )
    wanted = form != "{} is null"
    return Said(form.format(named.text), lambda row: plain.there(named.place.of(row)) is wanted)


def joined(parts: list[Said], word: str) -> Said:
    both = plain.every if "a" in word or "&" in word else plain.some
    return Said(
        f" {word} ".join(f"({one.text})" for one in parts), lambda row: both([one.of(row) for one in parts])
    )


def expressions(ids: IdType) -> st.SearchStrategy[Said]:
    leaves = st.one_of(
        [
            make(ids)
            for make in (
                comparison,
                between,
                membership,
                likeness,
                containing,
                arithmetic,
                two_columns,
                presence,
            )
        ]
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(
                joined, st.lists(inner, min_size=2, max_size=3), st.sampled_from(["and", "&&", "or", "||"])
            ),
            st.builds(
                lambda one, word: Said(f"{word} ({one.text})", lambda row: plain.denied(one.of(row))),
                inner,
                st.sampled_from(["not", "!"]),
            ),
        ),
        max_leaves=5,
    )


def rows(ids: IdType) -> st.SearchStrategy[list[Row]]:
    one: st.SearchStrategy[int | str] = INTEGERS if ids is IdType.INT64 else TEXTS.filter(bool)
    return st.lists(st.builds(Row, one, METADATA), min_size=1, max_size=8, unique_by=lambda row: row.id)


ASKED = st.sampled_from(list(IdType)).flatmap(
    lambda ids: st.tuples(st.just(ids), expressions(ids), rows(ids))
)


@settings(max_examples=120, deadline=None)
@given(asked=ASKED)
def test_every_expression_says_what_the_language_says(asked: tuple[IdType, Said, list[Row]]) -> None:
    ids, said, given_rows = asked
    note(said.text)
    tree = parse_expression(said.text, SCHEMAS[ids])
    assert tree is not None
    columns = MetadataColumns(
        pa.array([orjson.dumps(row.fields) for row in given_rows], pa.binary()),
        len(given_rows),
        pa.array([str(row.id) for row in given_rows]),
    )
    expected = [said.of(row) is True for row in given_rows]
    assert matching(tree, len(given_rows), columns).tolist() == expected
    travelled = filter_from_json(orjson.loads(orjson.dumps(filter_to_json(tree))))
    assert matching(travelled, len(given_rows), columns).tolist() == expected
