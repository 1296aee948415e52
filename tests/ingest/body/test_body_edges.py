"""What attacks on bodies found, one test each: marks in the middle, mistakes far down a document, paths and blanks without end."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ingest.body import Rules, fast, parse_upload
from ingest.body.precise import decode
from upwell.changeset import Changeset, Operation
from upwell.errors import Invalid, InvalidLine, LineProblem, Reason, TooLarge

GOOD = b'{"id":"a","values":[1,2]}'
BOM = b"\xef\xbb\xbf"


RULES = Rules(dimensions=2, vectors_max=50, bytes_max=1 << 25)


def parse(body: bytes, *, discard: bool = False) -> Changeset:
    rules = replace(RULES, discard=discard)
    return parse_upload(
        body, content_type=None, content_encoding=None, operation=Operation.UPSERT, rules=rules
    )


def problem_of(body: bytes) -> LineProblem:
    with pytest.raises(InvalidLine) as caught:
        parse(body)
    return caught.value.problem


@pytest.mark.parametrize("quick", [True, False])
def test_files_that_were_joined_have_byte_order_marks_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    if not quick:
        monkeypatch.setattr(fast, "simdjson", None)
    assert len(parse(BOM + GOOD + b"\n" + BOM + GOOD + b"\r\n" + BOM + GOOD)) == 3
    assert problem_of(GOOD + b"\n" + BOM + BOM + GOOD).line == 2
    assert problem_of(GOOD + b"\n" + BOM).line == 2


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        (b'\n[\n{"id":"a",\n"values":[1,2]},\n{"id":"b"\n', 6, "delimiter at column 1"),
        (b'{"vectors":[\n{"id":"a","values":[1,2]},\n{"id":oops}]}', 3, "Expecting value at column 7"),
        (b'[\r\n{"id":"a",\r\n  "\xff":1}]', 3, "got byte 0xff at 3"),
        (b'[{"id":\n"\xff"}]', 2, "got byte 0xff at 1"),
        (b"[\n" + GOOD + b"]]", 2, "Extra data"),
    ],
)
def test_a_mistake_in_a_document_is_named_by_the_line_it_is_on(body: bytes, line: int, says: str) -> None:
    problem = problem_of(body)
    assert (problem.line, problem.reason) == (line, Reason.UNPARSABLE)
    assert says in problem.detail


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        *(b"[,]", b"[%b,]", b"[,%b]", b"[%b %b]", b"[%b:%b]", b"[%b,%b}", b"[%b]]", b"[%b],", b"[%b"),
        *(b'["]', b'["\\"]', b"[" + BOM + b"%b]", b"[%b,\x0b%b]"),
        *(b'{"vectors":[%b}', b'{"vectors":[%b,]}', b'{"vectors":[%b]}]', b'{\n"vectors":[%b]'),
        *(b'{\n"vectors":[%b],}', b'{\n"vectors":[%b] "a":1}', b'{\n"vectors" [%b]}', b"{\nvectors:[%b]}"),
        b'{\n"vectors":[%b],"a":nope}',
    ],
)
def test_a_document_with_anything_out_of_place_is_refused_whole(body: bytes, discard: bool) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra|double quotes"):
        json.loads(body.replace(b"%b", GOOD).decode("utf-8-sig"))
    with pytest.raises(InvalidLine) as caught:
        parse(body.replace(b"%b", GOOD), discard=discard)
    assert caught.value.problem.reason is Reason.UNPARSABLE


def test_what_is_read_as_a_document_and_what_is_not() -> None:
    for body, count in [(b"[%b]", 1), (b" [ %b , %b ] ", 2), (b'{"a":[{}],"vectors":[%b,%b],"b":"]}"}', 2)]:
        assert len(parse(body.replace(b"%b", GOOD))) == count
    for vectors, says in [(b"1", "expected an array"), (b'[],"vectors":[]', "expected once, got twice")]:
        with pytest.raises(Invalid, match=f"^vectors: {says}$"):
            parse(b'{"vectors":%b}' % vectors)
    # An unknown key of a line, and a line that is wrong, as all its like.
    assert len(parse(b'{"id":"a","vectors":1,"values":[1,2]}\n' + GOOD)) == 2
    discarded = parse(b'{"vectors":1}\n{"vectors":[]}\n' + GOOD, discard=True).discarded
    assert [(one.line, one.reason) for one in discarded] == [(1, Reason.ID_MISSING), (2, Reason.ID_MISSING)]


def test_a_vector_is_refused_unread_if_it_is_larger_than_any_can_be() -> None:
    """Decoded, these megabytes of brackets are gigabytes of objects."""
    brackets = b"[],[[],[]]," * 200_000
    for body in (
        b'{"id":"a","values":[%b1]}' % brackets,
        b'{"values":[1,2],"metadata":{"a":[%b1]}}' % brackets,
    ):
        problem = problem_of(GOOD + b"\n" + body)
        assert (problem.line, problem.reason) == (2, Reason.UNPARSABLE)
        assert problem.detail == f"expected at most {RULES.line_bytes_max} bytes, got {len(body)}"
        for document in (b"[%b,\n%b]", b'{"vectors":[%b,\n%b]}', b'{"vectors":[%b],\n"a":%b}'):
            problem = problem_of(document % (GOOD, body))
            assert (problem.line, problem.reason) == (2, Reason.UNPARSABLE)
            assert f"expected a vector of at most {RULES.line_bytes_max} bytes" in problem.detail
    with pytest.raises(TooLarge, match=r"^too many vectors in payload; max is 50, got more than 500$"):
        parse(b"[" + brackets + b"1]")
    with pytest.raises(TooLarge, match=r"^too many vectors in payload; max is 50, got more than 500$"):
        parse(b"1\n" * 1_000_000)
    assert len(parse(b'{"id":"a","values":[1,2],"unknown":"%b"}' % (b"x" * 1_000_000))) == 1


def test_blank_lines_are_counted_however_many() -> None:
    problem = problem_of(b"\n" * 10_000_000 + GOOD + b"\r\n \t" * 1_000_000 + b"\nnope")
    assert problem.line == 11_000_002


def test_an_integer_of_too_many_digits_is_refused_without_advice_for_programmers() -> None:
    with pytest.raises(InvalidLine) as caught:
        decode(json.dumps({"id": "a"}).encode()[:-1] + b',"b":' + b"9" * 5_000 + b"}", 3)
    assert str(caught.value) == "line 3: expected JSON: an integer has more than 4300 digits"
