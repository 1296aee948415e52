"""Is each form of a body recognised by its bytes, whatever the content type says?"""

from __future__ import annotations

import json

import pytest

from ingest.body import Rules, parse_upload
from upwell.changeset import Changeset, Operation
from upwell.errors import Invalid, InvalidLine, Reason

ROWS = [{"id": "a", "values": [1, 2]}, {"id": "b", "values": [3, 4], "metadata": {"vectors": [1]}}]
LINES = "\n".join(map(json.dumps, ROWS))


def parse(body: bytes, content_type: str | None = None, *, discard: bool = False) -> Changeset:
    rules = Rules(dimensions=2, vectors_max=50, bytes_max=1 << 20, discard=discard)
    return parse_upload(
        body, content_type=content_type, content_encoding=None, operation=Operation.UPSERT, rules=rules
    )


def form(*parts: tuple[str, bytes], boundary: str = "b") -> bytes:
    said = "".join
    pieces = [
        said([f"--{boundary}\r\nContent-Disposition: form-data; ", head, "\r\n\r\n"]).encode()
        + body
        + b"\r\n"
        for head, body in parts
    ]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


DOCUMENTS = [
    ("lines", LINES),
    ("lines, CRLF, blank ones and a BOM", "\ufeff\r\n" + LINES.replace("\n", "\r\n \r\n") + "\r\n\r\n"),
    ("many blank lines first", "\n" * 5000 + LINES),
    ("lines, an unknown key vectors", LINES.replace('{"id"', '{"vectors": [], "id"')),
    ("a string", json.dumps(LINES)),
    ("a string with a BOM in it", json.dumps("\ufeff" + LINES, ensure_ascii=False)),
    ("an array", json.dumps(ROWS)),
    ("an array over many lines", json.dumps(ROWS, indent=2)),
    ("an array after blank space", " \n" * 3000 + json.dumps(ROWS)),
    ("vectors", json.dumps({"vectors": ROWS})),
    ("vectors over many lines", json.dumps({"vectors": ROWS}, indent=2)),
    ("vectors after something long", json.dumps({"note": "n" * 9000, "vectors": ROWS})),
    ("vectors after something, over many lines", '{"n": 1,\n"vectors":' + json.dumps(ROWS) + "}"),
]
documents = pytest.mark.parametrize(
    "text", [text for _, text in DOCUMENTS], ids=[name for name, _ in DOCUMENTS]
)


@documents
@pytest.mark.parametrize(
    "content_type",
    [None, "", "application/x-ndjson", "application/json; charset=utf-8;", ";;", "nonsense; x=\udcff", "é/Ж"],
)
def test_the_bytes_decide(text: str, content_type: str | None) -> None:
    changeset = parse(text.encode(), content_type)
    assert changeset.ids.to_pylist() == ["a", "b"]
    assert changeset.vectors is not None and changeset.vectors.tolist() == [[1, 2], [3, 4]]
    assert changeset.metadata is not None and changeset.metadata.to_pylist() == [None, b'{"vectors":[1]}']
    assert changeset.received == 2


@documents
def test_a_part_may_hold_any_form(text: str) -> None:
    body = form(('name="anything"', text.encode()))
    assert len(parse(body, "Multipart/Form-Data; charset=utf-8; boundary=b;")) == 2


def one(id: str) -> bytes:
    return json.dumps({"id": id, "values": [1, 2]}).encode()


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([('name="x"; filename="x.ndjson"', one("x")), ('name="vectors"', one("v"))], "v"),
        ([('name="note"', b"hello"), ('name="f"; filename="f.ndjson"', one("f"))], "f"),
        ([('name="f"; filename="f"\r\nContent-Type: application/x-ndjson', one("f"))], "f"),
        ([('name="first"', one("1")), ('name="second"', one("2"))], "1"),
        ([("name=vectors", one("v"))], "v"),
    ],
)
def test_which_part_counts(parts: list[tuple[str, bytes]], expected: str) -> None:
    for boundary in ("b", "----formdata-undici-0123456789"):
        changeset = parse(form(*parts, boundary=boundary), f'multipart/form-data; boundary="{boundary}"')
        assert changeset.ids.to_pylist() == [expected]


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (LINES.encode(), "multipart/form-data", "expected a boundary"),
        (LINES.encode(), "multipart/form-data; boundary=b", "malformed"),
        (b"", "multipart/form-data; boundary=b", "ends before"),
        (form(('name="v"', one("a")))[:-9], "multipart/form-data; boundary=b", "ends before"),
        (form(('name="v"', one("a"))), "multipart/form-data; boundary=" + "x" * 999, "malformed"),
        (form(*[('name="v"', b"")] * 101), "multipart/form-data; boundary=b", "more than the 100 parts"),
        (form(('name="v"', b" \n")), "multipart/form-data; boundary=b", "contains no vectors"),
    ],
)
def test_a_broken_form_is_explained(body: bytes, content_type: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse(body, content_type)


@pytest.mark.parametrize(
    "body", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf", b"[]", b'{"vectors":[]}', b'""', b'"\\n"']
)
@pytest.mark.parametrize("discard", [False, True])
def test_a_body_without_vectors_is_refused(body: bytes, discard: bool) -> None:
    with pytest.raises(Invalid, match="contains no vectors"):
        parse(body, discard=discard)


@pytest.mark.parametrize("discard", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        json.dumps(ROWS)[:-1],
        json.dumps({"vectors": ROWS})[:-1],
        json.dumps({"vectors": ROWS}, indent=1)[:-1],
        json.dumps(ROWS) + "]",
        "[" * 50_000,
        '{"vectors":' + "[" * 50_000,
    ],
)
def test_a_document_that_is_not_json_is_refused_even_when_discarding(body: str, discard: bool) -> None:
    with pytest.raises(InvalidLine) as caught:
        parse(body.encode(), discard=discard)
    assert caught.value.problem.reason is Reason.UNPARSABLE


def test_vectors_must_be_an_array() -> None:
    with pytest.raises(Invalid, match=r"^vectors: expected an array$"):
        parse(b'{"vectors":{}}')


def test_in_an_array_the_line_is_the_place() -> None:
    body = json.dumps([*ROWS, 7], indent=1).encode()
    with pytest.raises(InvalidLine, match="line 3: expected an object, got the number 7"):
        parse(body)
    with pytest.raises(InvalidLine, match=r"line 1: values\[1\]: expected a finite number, got NaN"):
        parse(b'{"vectors":[{"id":"a","values":[1,NaN]}]}')
