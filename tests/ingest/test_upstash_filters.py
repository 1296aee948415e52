"""Upstash's filter language: its documentation's examples, any filter against a plain evaluator, and what is refused, in which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.doors.upstash.filters import GRAMMAR, WORDS, parse_filter
from tests.plain_filters import NOTHING, globbed, is_number, named, same
from upwell.errors import Invalid
from upwell.shard.asked import depth
from upwell.shard.filter import (
    FILTER_DEPTH_MAX,
    Every,
    MetadataColumns,
)
from upwell.shard.filter import matching as matching_rows
from upwell.shard.filter_json import filter_from_json, filter_to_json

BYTES_MAX = 100_000

CITY = {
    "city": "Istanbul",
    "country": "Turkey",
    "is_capital": False,
    "population": 15_460_000,
    "geography": {"continent": "Asia", "coordinates": {"latitude": 41.0082, "longitude": 28.9784}},
    "economy": {"currency": "TRY", "major_industries": ["Tourism", "Textiles", "Finance"]},
}


def found(text: str, rows: list[Any]) -> list[bool]:
    """Which rows a filter lets through, when it has travelled in a log besides."""
    asked = parse_filter(text, BYTES_MAX)
    assert asked is not None
    travelled = filter_from_json(orjson.loads(orjson.dumps(filter_to_json(asked))))
    metadata = pa.array([None if row is None else orjson.dumps(row) for row in rows], pa.binary())
    columns = MetadataColumns(metadata, len(rows))
    mask: list[bool] = matching_rows(asked, len(rows), columns).tolist()
    assert mask == matching_rows(travelled, len(rows), columns).tolist()
    return mask


@pytest.mark.parametrize(
    "text",
    [
        "population >= 1000000 AND geography.continent = 'Asia'",
        'population >= 1000000 AND geography.continent = "Asia"',
        "country = 'Turkey' AND population = 15460000 AND is_capital = false",
        "country != 'Germany' AND population != 12500000 AND is_capital != true",
        "population < 20000000 OR geography.coordinates.longitude < 30.0",
        "population <= 15460000 AND geography.coordinates.longitude <= 30.0",
        "population > 10000000 AND geography.coordinates.latitude > 39.5",
        "population >= 15460000 AND geography.coordinates.latitude >= 39.5",
        "city GLOB '?[sz]*[^m-z]'",
        "city NOT GLOB 'A*'",
        "country IN ('Germany', 'Turkey', 'France')",
        "economy.currency NOT IN ('USD', 'EUR')",
        "economy.major_industries CONTAINS 'Tourism'",
        "economy.major_industries NOT CONTAINS 'Steel Production'",
        "country = 'Turkey' AND (population > 100000000 OR is_capital = false)",
        "country = 'Turkey' AND population > 100000000 OR is_capital = false",
        "economy.currency != 'USD' AND geography.coordinates.latitude >= 35.0",
        "economy.major_industries[0] = 'Tourism'",
        "economy.major_industries[#-1] = 'Finance'",
        "HAS FIELD economy.currency AND HAS NOT FIELD economy.exports",
        "HAS FIELD geography AND HAS FIELD economy.major_industries[2]",
        "is_capital = 0 AND is_capital != 1",
        "is_capital = False AND is_capital IN (FALSE)",
        # What Mastra sends for "any" and "none".
        "(HAS FIELD empty OR HAS NOT FIELD empty)",
    ],
)
def test_the_examples_of_the_documentation(text: str) -> None:
    """Each lets through the city that the documentation tells of, and is written in whatever case."""
    assert found(text, [CITY]) == [True]
    words = r"\b(AND|OR|NOT|GLOB|IN|CONTAINS|HAS|FIELD|true|false)\b"
    assert found(re.sub(words, lambda word: word[0].swapcase(), text), [CITY]) == [True]


@pytest.mark.parametrize(
    "text",
    [
        "city GLOB 'i*'",
        "city = 'istanbul'",
        "city NOT GLOB 'Is*'",
        "country NOT IN ('Turkey')",
        "economy.major_industries CONTAINS 'tourism'",
        "city CONTAINS 'Istanbul'",
        "economy.major_industries = 'Tourism'",
        "economy.major_industries NOT CONTAINS 'Finance'",
        "economy.major_industries[3] != 'Tourism'",
        "economy.major_industries[#-4] != 'Tourism'",
        "population < 15460000",
        "city < 5 OR city >= 5",
        "(HAS FIELD empty AND HAS NOT FIELD empty)",
    ],
)
def test_what_does_not_let_the_city_through(text: str) -> None:
    assert found(text, [CITY]) == [False]


@pytest.mark.parametrize(
    "text",
    [
        "a != 1",
        "a NOT IN (1)",
        "a NOT GLOB 'x'",
        "a NOT CONTAINS 1",
        "a = 1",
        "a < 1",
        "a GLOB '*'",
        "HAS FIELD a",
    ],
)
def test_a_row_without_the_field_is_in_no_answer(text: str) -> None:
    assert found(text, [None, {}, {"b": 1}]) == [False] * 3
    assert found("HAS NOT FIELD a", [None, {}, {"b": 1}, {"a": None}]) == [True] * 3 + [False]


def test_numbers_and_booleans() -> None:
    rows = [{"a": one} for one in (1, True, 1.0, 0, False, "1", [1], [True], [0])]
    assert found("a = 1", rows) == [True, True, True] + [False] * 6
    assert found("a = true", rows) == [False, True] + [False] * 7
    assert found("a = 1.0", rows) == [True, False, True] + [False] * 6
    assert found("a IN (0, 'x')", rows) == [False] * 3 + [True, True] + [False] * 4
    assert found("a CONTAINS 1", rows) == [False] * 6 + [True, True, False]
    for number in ("-2.5", "-25e-1", "-.25E1", "-2.50"):
        assert found(f"a={number}", [{"a": -2.5}, {"a": 2.5}]) == [True, False]
    assert found("a = +3. and a>=3", [{"a": 3}]) == [True]


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("''", ""),
        ("'it''s'", "it's"),
        (r"'it\'s'", "it's"),
        (r'"it\'s"', "it's"),
        ('"it\'s"', "it's"),
        ("\"it''s\"", "it''s"),
        ('"say ""hi"""', 'say "hi"'),
        (r'"say \"hi\""', 'say "hi"'),
        (r"'C:\temp'", r"C:\temp"),
        (r"'C:\\temp'", r"C:\temp"),
        (r"'C:\\'", "C:\\"),
        ("'a\nb AND c = 1'", "a\nb AND c = 1"),
        ("'é😀'", "é😀"),
        ("''''", "'"),
    ],
)
def test_how_a_string_may_be_written(literal: str, value: str) -> None:
    assert found(f"a = {literal}", [{"a": value}, {"a": value + "."}]) == [True, False]


def test_words_of_the_language_are_names_too() -> None:
    words = (
        "and",
        "or",
        "not",
        "in",
        "glob",
        "contains",
        "has",
        "field",
        "true",
        "false",
        "HAS",
        "In",
        "_",
        "a-b",
        "a#",
    )
    for name in words:
        for text in (
            f"{name} = 1",
            f"HAS FIELD {name}",
            f"{name} in (1) and {name} not in (2) OR {name} CONTAINS 3",
            f"({name} NOT GLOB 'x')",
            f"x.{name} != 2",
        ):
            assert found(text, [{name: 1, "x": {name: 1}}, {}]) == [True, False], text


def test_nothing_is_asked() -> None:
    for text in ("", " ", "\n\t "):
        assert parse_filter(text, BYTES_MAX) is None


# Any filter, against the plain evaluator.


@dataclass(frozen=True)
class Asked:
    """A filter as text, and what it means."""

    text: str
    holds: Callable[[Any], bool]


def in_any_case(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from([text, text.lower(), text.capitalize(), text.swapcase()])


def quoted(text: str, quote: str, doubling: bool) -> str:
    escaped = text.replace("\\", "\\\\")
    return quote + escaped.replace(quote, quote * 2 if doubling else "\\" + quote) + quote


TEXTS = st.sampled_from(["", "x", "xy", "é", "it's", '"', "\\", "a'\\", "1", "true", "😀"]) | st.text(
    "x'\"\\*?[]^-", max_size=4
)
STRINGS = st.builds(
    lambda text, quote, doubling: (quoted(text, quote, doubling), [text]),
    TEXTS,
    st.sampled_from("'\""),
    st.booleans(),
)
NUMBERS = st.sampled_from(["-1", "2.5", "+3", "1e3", "-0.5E-2", "9007199254740993", "10", "00", "1."]).map(
    lambda text: (text, [float(text)])
)
BITS = st.sampled_from([("0", [0.0, False]), ("1", [1.0, True])])
BOOLEANS = st.booleans().flatmap(lambda bit: in_any_case(str(bit)).map(lambda text: (text, [bit])))
LITERALS = STRINGS | NUMBERS | BITS | BOOLEANS
NAMES = st.sampled_from(
    ["a", "b", "in", "a.b", "a.in", "a[0]", "a[#-1]", "b[1].a", "a.b[0][#-2]", "a[7]", "has"]
)
SPACES = st.sampled_from([" ", "  ", "\n", "\t "])


def no(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Its contrary, of rows that have the field."""
    return lambda value: value is not NOTHING and not holds(value)


@st.composite
def terms(draw: st.DrawFn) -> Asked:
    name, space = draw(NAMES), draw(SPACES)

    def word(text: str) -> str:
        return space.join(draw(in_any_case(one)) for one in text.split())

    negated = draw(st.booleans())
    holds: Callable[[Any], bool]
    kind = draw(st.sampled_from(["has", "equal", "order", "glob", "in", "contains"]))
    if kind == "has":
        text = f"{word('has not field' if negated else 'has field')}{space}{name}"
        return Asked(text, lambda row: (named(row, name) is NOTHING) is negated)
    negation = word("not") + space if negated else ""
    if kind == "order":
        operator, (literal, (bound,)) = draw(st.sampled_from(["<", "<=", ">", ">="])), draw(NUMBERS)
        tests = {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}
        return Asked(
            f"{name}{space}{operator}{literal}",
            lambda row: is_number(value := named(row, name)) and bool(tests[operator](float(value), bound)),
        )
    if kind == "equal":
        literal, values = draw(LITERALS)
        text = f"{name}{'!=' if negated else '='}{space}{literal}"
        holds = lambda value: any(same(value, one) for one in values)  # noqa: E731
    elif kind == "in":
        several = draw(st.lists(LITERALS, min_size=1, max_size=4))
        text = f"{name}{space}{negation}{word('in')}({f'{space},'.join(one for one, _ in several)})"
        holds = lambda value: any(same(value, one) for _, values in several for one in values)  # noqa: E731
    elif kind == "contains":
        literal, values = draw(LITERALS)
        text = f"{name}{space}{negation}{word('contains')}{space}{literal}"
        holds = lambda value: (  # noqa: E731
            isinstance(value, list) and any(same(element, one) for element in value for one in values)
        )
    else:
        literal, (pattern,) = draw(STRINGS)
        text = f"{name}{space}{negation}{word('glob')}{literal}"
        holds = lambda value: isinstance(value, str) and globbed(pattern, value)  # noqa: E731
    wanted = no(holds) if negated else holds
    return Asked(text, lambda row: wanted(named(row, name)))


@st.composite
def joined(draw: st.DrawFn, inner: st.SearchStrategy[Asked]) -> Asked:
    """Sums of products, without parentheses where they need none."""
    sums = draw(st.lists(st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=3))
    conjunction, disjunction = draw(in_any_case("and")), draw(in_any_case("or"))
    text = f" {disjunction} ".join(f"\n{conjunction} ".join(one.text for one in parts) for parts in sums)
    text = f"({draw(SPACES)}{text} )"
    return Asked(text, lambda row: any(all(one.holds(row) for one in parts) for parts in sums))


FILTERS = st.recursive(terms(), joined, max_leaves=6)
SCALARS = TEXTS | st.sampled_from([0, 1, -1, 2.5, 3, 1000, 2**53 + 1, 10, True, False, None, "1.0"])
KEYS = st.sampled_from(["a", "b", "in", "has", "[0]"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.none() | st.dictionaries(KEYS, VALUES, max_size=4)


@settings(max_examples=400, deadline=None)
@given(asked=FILTERS, rows=st.lists(ROWS, min_size=1, max_size=6))
def test_a_filter_says_what_a_plain_evaluator_says(asked: Asked, rows: list[Any]) -> None:
    assert found(asked.text, rows) == [asked.holds(row) for row in rows]


# What is refused.

LITERAL = "a string in quotes, a number or true or false"
OPERATOR = "=, !=, <, <=, >, >=, NOT, GLOB, IN or CONTAINS"
TERM = r"a field's name, HAS FIELD or ("
REFUSED = [
    ("a = ", f"expected {LITERAL} at column 5, got the end"),
    ("a = null", f"expected {LITERAL} at column 5, got 'null'"),
    ("a == 1", f"expected {LITERAL} at column 4, got '='"),
    ("a IN ()", f"expected {LITERAL} at column 7, got ')'"),
    ("a IN (1,)", f"expected {LITERAL} at column 9, got ')'"),
    ("a IN (1 2)", "expected , or ) at column 9, got '2'"),
    ("a < 'foo'", "expected a number at column 5, got \"'foo'\""),
    ("a >= true", "expected a number at column 6, got 'true'"),
    ("a GLOB 1", "expected a string in quotes at column 8, got '1'"),
    ("a ! 3", f"expected {OPERATOR} at column 3, got '!'"),
    ("a LIKE 'x'", f"expected {OPERATOR} at column 3, got 'LIKE'"),
    ("NOT (a = 1)", f"expected {OPERATOR} at column 5, got '('"),
    ("a NOT 3", "expected GLOB, IN or CONTAINS at column 7, got '3'"),
    ("HAS NOT x", "expected FIELD at column 9, got 'x'"),
    ("has field", "expected a field's name at column 10, got the end"),
    ("(a = 1", "expected ), AND or OR at column 7, got the end"),
    ("a = 1)", "expected AND, OR or the end at column 6, got ')'"),
    ("a = 1 && b = 2", "expected AND, OR or the end at column 7, got '&&'"),
    ("a = 1 AND ", f"expected {TERM} at column 11, got the end"),
    ("'a' = 1", f"expected {TERM} at column 1, got \"'a'\""),
    ("é = 1", f"expected {TERM} at column 1, got 'é'"),
    ("a = 'b c", "expected a string that ends with ' at column 5, got \"'b c\""),
    (r"a = 'b\'", r'''expected a string that ends with ' at column 5, got "'b\\'"'''),
    ("a = 1e999", "expected a number that a double can hold at column 5, got '1e999'"),
    ("b=1 OR a[x] = 1", "expected a field's name such as a.b, a[0] or a[#-1] at column 8, got 'a[x]'"),
    ("a = 1\nAND\nb", f"expected {OPERATOR} at column 12, got the end"),
    ("a = " + "b" * 65, f"expected {LITERAL} at column 5, got '{'b' * 63}…'"),
    ("a = \ud800", r"expected a character of Unicode at column 5, got '\ud800'"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=lambda value: ascii(value)[:24])
def test_a_wrong_filter_is_told_what_was_expected_where(text: str, says: str) -> None:
    with pytest.raises(Invalid) as error:
        parse_filter(text, BYTES_MAX)
    assert error.value.detail == f"Invalid filter: {says}"


@pytest.mark.parametrize(
    "name", ["a.", "a..b", "a[", "a[]", "a[#]", "a[-1]", "a[0", "a]", "a[0]b", "a.[0]", "a[1234567890]"]
)
def test_names_that_lead_nowhere(name: str) -> None:
    for text in (
        f"{name} = 1",
        f"has field {name}",
        f"{name} not contains 'x'",
        f"{name} glob 'x'",
        f"{name} < 1",
    ):
        with pytest.raises(
            Invalid, match=r"expected a field's name such as a\.b, a\[0\] or a\[#-1\] at column"
        ):
            parse_filter(text, BYTES_MAX)


def test_every_word_of_the_grammar_has_a_name_in_errors() -> None:
    terminals = set(re.findall(r"^ +([A-Z_]+)(?:\.\d)?:", GRAMMAR, re.MULTILINE))
    assert terminals | {"$END"} == set(WORDS)


PIECES = st.sampled_from(
    [
        *"()'\"\\,.<>=!-+#[]*?\n\0é ",
        *("and ", "OR ", "not ", "in", "glob ", "contains ", "has ", "field ", "true"),
        *("a", "b[0]", "a = 1", "'x'", "1", "1e5", "!=", "a in (1, 2)", "(a = 1)"),
    ]
)


def told(text: str) -> str | None:
    """What an error says of a text; None if it is a filter. Anything else that is raised is a defect."""
    try:
        parse_filter(text, BYTES_MAX)
    except Invalid as error:
        return error.detail
    return None


@settings(max_examples=500, deadline=None)
@given(text=st.lists(PIECES, max_size=14).map("".join) | st.text(st.characters(), max_size=20))
def test_any_text_is_a_filter_or_invalid(text: str) -> None:
    says = told(text)
    if says is None:
        assert (parse_filter(text, BYTES_MAX) is None) is (not text.strip())
    else:
        place = re.fullmatch(r"(?s)Invalid filter: expected .+ at column ([0-9]+), got .+", says)
        assert place and 1 <= int(place[1]) <= len(text) + 1
        assert len(says) < 400


@settings(max_examples=150, deadline=None)
@given(asked=FILTERS, place=st.integers(0, 200), piece=PIECES, instead=st.booleans())
def test_a_filter_with_a_slip_is_a_filter_or_invalid(
    asked: Asked, place: int, piece: str, instead: bool
) -> None:
    text = asked.text[:place] + piece + asked.text[place + instead :]
    if told(text) is None:
        found(text, [CITY])


# Sizes.


def test_a_filter_has_so_many_bytes_at_most() -> None:
    text = "a = 'é'"
    assert parse_filter(text, 8) is not None
    with pytest.raises(Invalid, match="Invalid filter: expected at most 7 bytes, got 8"):
        parse_filter(text, 7)


def test_parentheses_and_terms_may_be_as_many_as_there_is_room_for() -> None:
    deep = 10_000
    assert found("(" * deep + "a = 1" + ")" * deep, [{"a": 1}, {}]) == [True, False]
    chain = parse_filter(" and ".join(["a = 2"] * deep), BYTES_MAX)
    assert isinstance(chain, Every) and len(chain.parts) == deep
    for text in ("(" * deep, ")" * deep, "a = 1 AND (" * 5_000, "a in (" * deep, "'" * 9_999, "[" * deep):
        with pytest.raises(Invalid):
            parse_filter(text, BYTES_MAX)


def test_filters_within_filters_are_only_so_deep() -> None:
    def nested(times: int) -> str:
        return "a=2 or (b=2 and (" * times + "a=2 or a=1" + "))" * times

    most = (FILTER_DEPTH_MAX - 2) // 2
    asked = parse_filter(nested(most), BYTES_MAX)
    assert asked is not None and depth(asked) == FILTER_DEPTH_MAX
    assert found(nested(most), [{"a": 1, "b": 2}, {"a": 1, "b": 3}]) == [True, False]
    for times in (most + 1, 4_000):
        with pytest.raises(Invalid, match=f"within one another at most {FILTER_DEPTH_MAX} deep, got"):
            parse_filter(nested(times), BYTES_MAX)


def test_a_pattern_has_so_many_characters_at_most() -> None:
    assert found(f"a glob '{'a*' * 512}'", [{"a": "a" * 600}, {"a": "a" * 511}]) == [True, False]
    with pytest.raises(Invalid, match="expected a pattern of at most 1024 characters at column 8, got "):
        parse_filter(f"a glob '{'a*' * 512}b'", BYTES_MAX)
    slow = f"a glob '{'a*' * 511}b'"
    assert found(slow, [{"a": "a" * 20_000}, {"a": "a" * 20_000 + "b"}]) == [False, True]
