"""Does parse_upload() make of any body a changeset, or say which line is wrong, and nothing else ever?"""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.body import Rules, parse_upload
from tests.thorough import examples
from upwell.changeset import DISCARDED_NAMED_MAX, Changeset, Operation
from upwell.errors import Invalid, InvalidLine, Reason, TooLarge

GOOD = b'{"id":"a","values":[1,2,3]}'
BAD = b'{"id":"b","values":[1,2]}'


def parse(body: bytes, content_type: str | None = None, coding: str | None = None, **rules: Any) -> Changeset:
    held_to = Rules(**{"dimensions": 3, "vectors_max": 500, "bytes_max": 1 << 20, **rules})
    return parse_upload(
        body,
        content_type=content_type,
        content_encoding=coding,
        operation=Operation.INSERT,
        rules=held_to,
    )


def test_the_columns() -> None:
    body = b'{"id":1,"values":[1,2,3],"namespace":"n"}\n{"id":"b","values":[4,5,6],"metadata":{"a": [1.50]}}'
    for given_as in (body, bytearray(body), memoryview(body)):
        changeset = parse(given_as)  # type: ignore[arg-type]
        assert changeset.operation is Operation.INSERT
        assert changeset.ids.equals(pa.array(["1", "b"], pa.utf8()))
        assert changeset.namespaces is not None and changeset.namespaces.equals(
            pa.array(["n", None], pa.utf8())
        )
        assert changeset.metadata is not None
        assert changeset.metadata.equals(pa.array([None, b'{"a":[1.5]}'], pa.binary()))
        assert changeset.vectors is not None and changeset.vectors.flags.c_contiguous
        assert changeset.vectors.dtype == np.float32 and changeset.vectors.tolist() == [[1, 2, 3], [4, 5, 6]]
        assert (changeset.received, changeset.discarded, changeset.discarded_count) == (2, (), 0)


def test_columns_that_no_row_has_are_left_out() -> None:
    changeset = parse(b'{"id":"a","values":[1,2,3],"namespace":"","metadata":null}')
    assert changeset.namespaces is None and changeset.metadata is None
    empty = parse(b'{"id":"a","values":[1,2,3],"namespace":null,"metadata":{}}').metadata
    assert empty is not None and empty.to_pylist() == [b"{}"]


def test_an_id_given_twice_stays_twice() -> None:
    assert parse(GOOD + b"\n" + GOOD).ids.to_pylist() == ["a", "a"]


def test_the_first_problem_is_raised_with_its_line_as_sent() -> None:
    with pytest.raises(InvalidLine) as caught:
        parse(b"\r\n" + GOOD + b"\r\n\n  \n" + BAD + b"\nnope\n")
    problem = caught.value.problem
    assert (problem.line, problem.reason, problem.id) == (5, Reason.WRONG_DIMENSIONS, "b")


def test_numbers_that_are_not_finite_are_found_in_their_line() -> None:
    with pytest.raises(InvalidLine, match=r"^line 2: values\[1\]: .*1e\+39, which is outside its range$"):
        parse(GOOD + b'\n{"id":"b","values":[1,1e39,2]}\n' + GOOD)


def test_numbers_whose_squares_overflow_are_fine() -> None:
    vectors = parse(GOOD + b'\n{"id":"b","values":[3e38,-3e38,3e38]}').vectors
    assert vectors is not None and np.isfinite(vectors).all()


def test_discard_leaves_out_names_and_counts() -> None:
    body = b"\n".join([b"", BAD, GOOD, b'{"id":"c","values":[1,2,NaN]}', b"  ", b"nope", GOOD])
    changeset = parse(body, discard=True)
    assert changeset.ids.to_pylist() == ["a", "a"] and changeset.received == 5
    assert [(p.line, p.reason, p.id) for p in changeset.discarded] == [
        (2, Reason.WRONG_DIMENSIONS, "b"),
        (4, Reason.NOT_FINITE, "c"),
        (6, Reason.UNPARSABLE, None),
    ]
    assert changeset.discarded_count == 3


def test_only_so_many_discarded_lines_are_named() -> None:
    changeset = parse(b"\n".join([BAD] * 300), discard=True)
    assert len(changeset) == 0 and changeset.vectors is not None and changeset.vectors.shape == (0, 3)
    assert (changeset.received, changeset.discarded_count) == (300, 300)
    assert [problem.line for problem in changeset.discarded] == list(range(1, DISCARDED_NAMED_MAX + 1))


@pytest.mark.parametrize("joined", [b"\n", b"\n\n", b","])
def test_too_many_vectors_are_counted_and_not_read(joined: bytes) -> None:
    body = joined.join([BAD] * 501)
    with pytest.raises(TooLarge, match=r"^too many vectors in payload; max is 500, got 501$"):
        parse(b"[" + body + b"]" if joined == b"," else body)
    assert len(parse(b"\n\n".join([GOOD] * 500))) == 500


def test_a_bound_on_what_a_body_inflates_to() -> None:
    assert len(parse(gzip.compress(GOOD), coding="gzip", bytes_max=len(GOOD))) == 1
    for body, coding in ((gzip.compress(GOOD), "gzip"), (GOOD, None)):
        with pytest.raises(TooLarge):
            parse(body, coding=coding, bytes_max=len(GOOD) - 1)


keys = st.text("ab[é]$ \\\n", min_size=1, max_size=4).filter(lambda key: not key.startswith("$"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
names = st.text(max_size=12).filter(lambda name: "\0" not in name)
rows = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1, max_size=16) | st.integers(-(10**30), 10**30),
        "values": st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
        ),
    },
    optional={
        "namespace": st.none() | names,
        "metadata": st.none() | st.dictionaries(keys, json_values, max_size=3),
        "unknown": json_values,
    },
)


def facts(changeset: Changeset) -> tuple[object, ...]:
    assert changeset.vectors is not None
    columns = (changeset.ids, changeset.namespaces, changeset.metadata)
    return (
        *(None if column is None else column.to_pylist() for column in columns),
        changeset.vectors.tobytes(),
        changeset.received,
    )


@given(st.lists(rows, min_size=1, max_size=5), st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]))
@settings(deadline=None, max_examples=200)
def test_all_forms_of_the_same_rows_are_the_same(
    sent: list[dict[str, Any]], ascii_only: bool, joined: str
) -> None:
    text = joined.join(json.dumps(row, ensure_ascii=ascii_only) for row in sent)
    lines = text.encode()
    part = b'--=b=\r\nContent-Disposition: form-data; name="vectors"\r\n\r\n%b\r\n--=b=--\r\n' % lines
    expected = facts(parse(lines))
    assert expected[0] == [str(row["id"]) for row in sent]
    assert expected[3] == np.array([row["values"] for row in sent], np.float32).tobytes()
    assert facts(parse(part, 'multipart/form-data; boundary="=b="')) == expected
    assert facts(parse(json.dumps(text).encode())) == expected
    assert facts(parse(json.dumps(sent).encode())) == expected
    assert facts(parse(json.dumps({"vectors": sent}, indent=1, ensure_ascii=False).encode())) == expected
    assert facts(parse(gzip.compress(lines), coding="gzip", discard=True)) == expected


SEEDS = [
    GOOD
    + b"\n"
    + BAD
    + b'\n{"id":"c","values":[1,2,3],"metadata":{"a":[1,{"b":"\\u005b"}]},"namespace":"n"}',
    json.dumps(GOOD.decode() + "\n" + GOOD.decode()).encode(),
    b"[" + GOOD + b", " + GOOD + b"]",
    b'{"vectors":[' + GOOD + b"]}",
    b'--b\r\nContent-Disposition: form-data; name="vectors"; filename="v"\r\nX: y\r\n\r\n'
    + GOOD
    + b"\r\n--b--\r\n",
]
NASTY = [
    b"[" * 3000,
    b'{"a":' * 3000,
    b"9" * 5000,
    b"1e999",
    b"NaN",
    b'"id":"z",',
    b'"\\ud800"',
    b"\xff",
    b"\0",
    b"\n",
]
FORM = "multipart/form-data; boundary=b"


@given(st.data())
@settings(deadline=None, max_examples=examples(600))
def test_whatever_is_sent_gives_a_changeset_or_invalid(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(body)))
        stop = start + data.draw(st.sampled_from([0, 0, 1, 1, 8, 1 << 20]))
        body[start:stop] = data.draw(st.sampled_from([b"", *NASTY]) | st.binary(max_size=4))
    content_type = data.draw(
        st.sampled_from([None, FORM, FORM]) | st.text(max_size=20).map((FORM + ";").__add__)
    )
    with suppress(Invalid):
        parse(bytes(body), content_type, discard=data.draw(st.booleans()))


@given(st.binary(max_size=60), st.text(max_size=30), st.text(max_size=10))
@example(b"", "multipart/form-data; boundary*=x''%ff", "gzip")
@example(b"", "multipart/form-data; filename*0*=u", "")
@settings(deadline=None, max_examples=200)
def test_any_bytes_and_headers_give_a_changeset_or_invalid(
    body: bytes, content_type: str, coding: str
) -> None:
    with suppress(Invalid):
        parse(body, content_type, coding)
    with suppress(Invalid):
        parse(body, "multipart/form-data; " + content_type)
    head = b"--b\r\nContent-Disposition: " + content_type.encode("utf-8", "replace") + b"\r\n\r\n"
    with suppress(Invalid):
        parse(head + body + b"\r\n--b--\r\n", FORM)
