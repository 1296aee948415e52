"""Is every mistake in a line named: its field, its reason, what was expected and what was there?"""

from __future__ import annotations

import json

import pytest

from ingest.body import Rules
from ingest.body.precise import decode, describe, is_metadata_key, read_line
from upwell.errors import InvalidLine, LineProblem, Reason

RULES = Rules(dimensions=2, vectors_max=10, bytes_max=1 << 20)


def line(values: str = "[1,2]", id: str = '"x"', **more: str) -> bytes:
    fields = {"id": id, "values": values, **more}
    return ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}").encode()


def problem_of(text: bytes, rules: Rules = RULES) -> LineProblem:
    with pytest.raises(InvalidLine) as caught:
        read_line(text, 7, rules)
    assert caught.value.problem.line == 7
    return caught.value.problem


WRONG_VALUES = [
    ("null", "values", "got null"),
    ('"1,2"', "values", 'got the string "1,2"'),
    ('{"0":1}', "values", "got an object"),
    ("[]", "values", "got an empty array"),
    ("[1,null]", "values[1]", "got null"),
    ("[1,true]", "values[1]", "got true"),
    ('["1",2]', "values[0]", 'expected a number, got the string "1"'),
    ("[[1],[2]]", "values[0]", "expected a number, got an array"),
    ("[1,[2]]", "values[1]", "got an array"),
    ("[[],1,[2]]", "values[0]", "got an array"),
    ("[1,{}]", "values[1]", "got an object"),
]


@pytest.mark.parametrize(("values", "field", "says"), WRONG_VALUES)
def test_values_that_are_no_numbers(values: str, field: str, says: str) -> None:
    problem = problem_of(line(values))
    assert (problem.reason, problem.field, problem.id) == (Reason.VALUES_INVALID, field, "x")
    assert says in problem.detail


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ("[NaN,1]", "values[0]", "expected a finite number, got NaN"),
        ("[1,-Infinity]", "values[1]", "expected a finite number, got -Infinity"),
        ("[1,1e39]", "values[1]", "got the number 1e+39, which is outside its range"),
        ("[1e400,1]", "values[0]", "beyond the range of doubles"),
        ("[1," + "9" * 200 + "]", "values[1]", "outside its range"),
        ("[3.4028235e38,NaN]", "values[1]", "NaN"),
        ("[3.40282357e38,1]", "values[0]", "outside its range"),
    ],
)
def test_values_that_float32_does_not_have(values: str, field: str, says: str) -> None:
    problem = problem_of(line(values))
    assert (problem.reason, problem.field) == (Reason.NOT_FINITE, field)
    assert says in problem.detail


def test_what_rounds_to_the_largest_float32_is_accepted() -> None:
    assert read_line(line("[3.4028235e38,-3.4028235677973362e38]"), 1, RULES).values.tolist() == [
        3.4028234663852886e38,
        -3.4028234663852886e38,
    ]


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_other_dimensions(count: int) -> None:
    problem = problem_of(line(json.dumps([1] * count)))
    assert (problem.reason, problem.field) == (Reason.WRONG_DIMENSIONS, "values")
    assert problem.detail == f"expected 2 dimensions, and got {count} dimensions"


@pytest.mark.parametrize(
    ("id", "reason", "says"),
    [
        ("null", Reason.ID_MISSING, "expected a string, got null"),
        ("false", Reason.ID_MISSING, "got false"),
        ("1.5", Reason.ID_MISSING, "got the number 1.5"),
        ("NaN", Reason.ID_MISSING, "got NaN"),
        ('""', Reason.ID_MISSING, "not empty"),
        ("[1]", Reason.ID_MISSING, "got an array"),
        ('"\\ud800"', Reason.ID_MISSING, "lone surrogate"),
        ('"' + "x" * 65 + '"', Reason.ID_TOO_LONG, "max is 64 bytes, got 65 bytes"),
        ('"' + "é" * 33 + '"', Reason.ID_TOO_LONG, "got 66 bytes"),
        ("9" * 65, Reason.ID_TOO_LONG, "got 65 bytes"),
    ],
)
def test_ids(id: str, reason: Reason, says: str) -> None:
    problem = problem_of(line(id=id))
    assert (problem.reason, problem.field, problem.id) == (reason, "id", None)
    assert says in problem.detail


def test_what_is_missing_is_named_with_a_hint() -> None:
    assert problem_of(b'{"values":[1,2]}').reason is Reason.ID_MISSING
    problem = problem_of(b'{"id":"x","vector":[1,2]}')
    assert (problem.reason, problem.field) == (Reason.VALUES_INVALID, "values")
    assert "did you mean values" in problem.detail
    assert "did you mean" not in problem_of(b'{"id":"x"}').detail


@pytest.mark.parametrize(
    ("namespace", "reason", "says"),
    [
        ("7", Reason.NAMESPACE_INVALID, "expected a string or null, got the number 7"),
        ("NaN", Reason.NAMESPACE_INVALID, "got NaN"),
        ('"\\udfff"', Reason.NAMESPACE_INVALID, "lone surrogate"),
        ('"a\\u0000b"', Reason.NAMESPACE_INVALID, "NUL"),
        ('"' + "é" * 33 + '"', Reason.NAMESPACE_TOO_LONG, "max is 64 bytes, got 66 bytes"),
    ],
)
def test_namespaces(namespace: str, reason: Reason, says: str) -> None:
    problem = problem_of(line(namespace=namespace))
    assert (problem.reason, problem.field) == (reason, "namespace")
    assert says in problem.detail


@pytest.mark.parametrize(
    ("metadata", "reason", "field", "says"),
    [
        ("[1]", Reason.METADATA_INVALID, "metadata", "expected an object or null, got an array"),
        ("NaN", Reason.METADATA_INVALID, "metadata", "got NaN"),
        ('{"a":{"b":[1,NaN]}}', Reason.METADATA_INVALID, "metadata.a.b[1]", "a finite number, got NaN"),
        ('{"a":1e999}', Reason.METADATA_INVALID, "metadata.a", "outside the range of doubles"),
        ('{"a":[18446744073709551616]}', Reason.METADATA_INVALID, "metadata.a[0]", "at most 64 bits"),
        ('{"a":"\\ud800"}', Reason.METADATA_INVALID, "metadata.a", "lone surrogate"),
        ('{"\\ud800":1}', Reason.METADATA_INVALID, "metadata", "lone surrogate"),
        ('{"a":' + "[" * 300 + "]" * 300 + "}", Reason.METADATA_INVALID, "metadata", "nested so deeply"),
        ('{"":1}', Reason.METADATA_KEY, "metadata", "must not be empty"),
        ('{"a.b":1,"$c":1}', Reason.METADATA_KEY, "metadata", 'got the string "a.b"'),
        ('{"a":[{"$b":1}],"":1}', Reason.METADATA_KEY, "metadata.a[0]", 'got the string "$b"'),
        ('{"a":{"x\\"y":1}}', Reason.METADATA_KEY, "metadata.a", "must not be empty"),
        (
            '{"a":"' + "y" * 10_233 + '"}',
            Reason.METADATA_TOO_LARGE,
            "metadata",
            "10240 bytes, got 10241 bytes",
        ),
    ],
)
def test_metadata(metadata: str, reason: Reason, field: str, says: str) -> None:
    problem = problem_of(line(metadata=metadata))
    assert (problem.reason, problem.field, problem.id) == (reason, field, "x")
    assert says in problem.detail
    assert str(problem).encode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"nope", "expected JSON: Expecting value at column 1"),
        (b'{"id":"x"', "expected JSON"),
        (b'{"id":"x"} {"id":"y"}', "Extra data at column 12"),
        (b'{"id":"\xff"}', "expected UTF-8, got byte 0xff at 7"),
        (b"[" * 100_000, "nested"),
        (b'{"a":' * 100_000, "nested"),
        (b'{"id":' + b"9" * 5000 + b"}", "expected JSON"),
    ],
)
def test_what_is_not_json(text: bytes, says: str) -> None:
    problem = problem_of(text)
    assert (problem.reason, problem.field) == (Reason.UNPARSABLE, "")
    assert says in problem.detail


@pytest.mark.parametrize(
    ("text", "got"), [(b"[]", "an array"), (b"null", "null"), (b'"x"', 'the string "x"')]
)
def test_what_is_not_an_object(text: bytes, got: str) -> None:
    assert problem_of(text) == LineProblem(
        line=7, reason=Reason.NOT_AN_OBJECT, field="", detail=f"expected an object, got {got}"
    )


@pytest.mark.parametrize(
    ("text", "namespace", "metadata"),
    [
        (line(), None, None),
        (line(namespace="null", metadata="null"), None, None),
        (line(namespace='""', metadata="{}"), None, b"{}"),
        (
            line(namespace='"n"', metadata='{ "a" : 1, "a" : [2.50, {"é":null}] }'),
            "n",
            '{"a":[2.5,{"é":null}]}'.encode(),
        ),
        (line(metadata='{"a":"' + "y" * 10_232 + '"}'), None, b'{"a":"' + b"y" * 10_232 + b'"}'),
        (line(unknown="[[1],[2]]", vector="3"), None, None),
    ],
)
def test_what_is_accepted(text: bytes, namespace: str | None, metadata: bytes | None) -> None:
    row = read_line(text, 1, RULES)
    assert (row.id, row.values.tolist(), row.namespace, row.metadata) == ("x", [1, 2], namespace, metadata)


@pytest.mark.parametrize(
    ("id", "expected"), [("7", "7"), ("-1", "-1"), ("9" * 30, "9" * 30), ('"\\u0000"', "\0")]
)
def test_ids_that_are_accepted(id: str, expected: str) -> None:
    assert read_line(line(id=id), 1, RULES).id == expected


def test_of_a_key_given_twice_the_last_counts() -> None:
    row = read_line(b'{"id":"a","values":[9],"id":"b","values":[1,2]}', 1, RULES)
    assert (row.id, row.values.tolist()) == ("b", [1, 2])


def test_values_are_quoted_briefly() -> None:
    for value in ("s" * 999, 10**9000, "\ud800" * 999, decode(b"-Infinity", 1), [1] * 999):
        assert len(describe(value).encode()) < 100


def test_metadata_keys() -> None:
    assert all(map(is_metadata_key, ("a", "a$", "é", " ", "a b")))
    assert not any(map(is_metadata_key, ("", ".", "a.b", 'a"', "$", "$a")))
