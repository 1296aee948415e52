"""Does parse_upload() give for any body what the slow parser says, by its fast path and without it, and nothing else ever?"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.body import Rules, fast, parse_ids, parse_upload
from ingest.body import ids as ids_module
from ingest.body.simd import simdjson
from tests import bodies, slow_body
from tests.bodies import Sent
from tests.slow_body import Read, Refused, Row, Unsure, Wrong
from tests.thorough import examples
from upwell.changeset import Changeset, Operation
from upwell.errors import Invalid, InvalidLine, LineProblem, Reason

RULES = Rules(dimensions=bodies.DIMENSIONS, vectors_max=40, bytes_max=1 << 22, metadata_bytes_max=200)
DISCARD = Rules(
    dimensions=bodies.DIMENSIONS, vectors_max=40, bytes_max=1 << 22, metadata_bytes_max=200, discard=True
)


def fuzzed(all_of_them: int) -> settings:
    """Settings of a property that is tried on so many bodies in `make test-all`."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(deadline=None, max_examples=examples(all_of_them), suppress_health_check=slow)


def parse(sent: Sent, rules: Rules) -> Changeset | Invalid:
    """What becomes of a body; whatever is raised but Invalid fails the test."""
    try:
        changeset = parse_upload(
            sent.body,
            content_type=sent.content_type,
            content_encoding=sent.content_encoding,
            operation=Operation.UPSERT,
            rules=rules,
        )
    except Invalid as error:
        return error
    return sound(changeset, rules)


def sound(changeset: Changeset, rules: Rules) -> Changeset:
    """A changeset, after its invariants were checked."""
    rows = len(changeset)
    assert changeset.vectors is not None
    assert changeset.vectors.shape == (rows, rules.dimensions)
    assert changeset.vectors.dtype == np.float32 and changeset.vectors.flags.c_contiguous
    assert np.isfinite(changeset.vectors).all()
    for column in (changeset.ids, changeset.namespaces, changeset.metadata):
        if column is not None:
            column.validate(full=True)
            assert len(column) == rows
    assert changeset.ids.null_count == 0
    assert changeset.received == rows + changeset.discarded_count
    assert len(changeset.discarded) == changeset.discarded_count
    numbers = [problem.line for problem in changeset.discarded]
    assert numbers == sorted(set(numbers))
    return changeset


def stored(metadata: bytes | None) -> str:
    """Metadata as the slow parser prints it."""
    assert metadata is None or len(metadata) <= RULES.metadata_bytes_max
    return repr(None if metadata is None else json.loads(metadata))


def rows_of(changeset: Changeset) -> list[Row]:
    """The rows accepted."""
    nothing = [None] * len(changeset)
    assert changeset.vectors is not None
    namespaces = nothing if changeset.namespaces is None else changeset.namespaces.to_pylist()
    metadata = nothing if changeset.metadata is None else changeset.metadata.to_pylist()
    columns = zip(changeset.ids.to_pylist(), changeset.vectors, namespaces, metadata, strict=True)
    return [Row(id, values.tobytes(), name, stored(data)) for id, values, name, data in columns]


def is_true(problem: LineProblem, line: slow_body.Line | None) -> bool:
    """Is there really such a mistake in this line?"""
    return isinstance(line, Wrong | Unsure) and problem.reason in line.reasons


def is_first(problem: LineProblem, lines: dict[int, slow_body.Line], *, discard: bool) -> bool:
    """Is it true, and the first line for which a body is to be refused?"""
    before = [line for number, line in lines.items() if number < problem.line]
    first = not any(isinstance(line, Wrong) for line in before)
    return not discard and first and is_true(problem, lines.get(problem.line))


def agrees(got: Changeset | Invalid, meant: Refused | Read, *, discard: bool) -> bool:
    """Is that what the slow parser says?"""
    if isinstance(meant, Refused):
        if not isinstance(got, InvalidLine):
            return isinstance(got, Invalid) and meant.says in str(got)
        unparsable = got.problem.reason is Reason.UNPARSABLE and meant.line <= got.problem.line
        return (unparsable and meant.says in str(got)) or is_first(got.problem, meant.before, discard=discard)
    lines = meant.lines
    if isinstance(got, InvalidLine):
        return is_first(got.problem, lines, discard=discard)
    if isinstance(got, Invalid) or got.received != len(lines):
        return False
    problems = {problem.line: problem for problem in got.discarded}
    accepted = iter(rows_of(got))
    for number, line in lines.items():
        if number in problems:
            if not is_true(problems.pop(number), line):
                return False
        elif isinstance(line, Unsure):
            next(accepted)
        elif line != next(accepted, None):
            return False
    return not problems and (discard or not got.discarded_count)


def check(sent: Sent, meanings: Callable[[], Iterable[Refused | Read]]) -> None:
    """Both ways of treating bad lines, against all that the slow parser would let pass."""
    for rules in (RULES, DISCARD):
        got = parse(sent, rules)
        said = got if isinstance(got, Invalid) else (rows_of(got), got.discarded)
        # What an answer or the log is to hold must be fit for it.
        assert orjson.dumps(str(said))
        agreed = any(agrees(got, meant, discard=rules.discard) for meant in meanings())
        assert agreed, (said, list(meanings()))


@given(bodies.whole)
@fuzzed(500)
def test_a_body_is_what_the_slow_parser_says(drawn: tuple[Sent, bytes]) -> None:
    sent, text = drawn
    check(sent, lambda: slow_body.read_text(text, RULES))


@given(bodies.encoded())
@fuzzed(150)
def test_an_encoded_body_is_what_it_was_before(drawn: tuple[Sent, bytes]) -> None:
    sent, text = drawn
    check(sent, lambda: slow_body.read_text(text, RULES))


def meanings_of(sent: Sent) -> Iterable[Refused | Read]:
    """All that a damaged body may be read as."""
    kind, _, rest = (sent.content_type or "").partition("boundary=")
    if "multipart" not in kind.lower():
        return slow_body.read_text(sent.body, RULES)
    return slow_body.read_damaged_form(sent.body, rest.split('"')[1].encode(), RULES)


@given(bodies.damaged())
@fuzzed(500)
def test_a_damaged_body_is_what_the_slow_parser_says(sent: Sent) -> None:
    check(sent, lambda: meanings_of(sent))


def everything(sent: Sent, rules: Rules) -> tuple[object, ...]:
    """All that can be told of a body's parsing, to the byte."""
    got = parse(sent, rules)
    if isinstance(got, Invalid):
        return type(got), str(got), getattr(got, "problem", None)
    columns = (got.ids, got.namespaces, got.metadata)
    assert got.vectors is not None
    return (
        *(None if column is None else column.to_pylist() for column in columns),
        got.vectors.tobytes(),
        got.received,
        got.discarded,
    )


@pytest.mark.skipif(simdjson is None, reason="this Python has no wheel of it")
@given(bodies.whole.map(lambda drawn: drawn[0]) | bodies.damaged(), st.sampled_from([RULES, DISCARD]))
@fuzzed(500)
def test_without_simdjson_all_is_the_same(sent: Sent, rules: Rules) -> None:
    quickly = everything(sent, rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "simdjson", None)
        assert everything(sent, rules) == quickly


def slow_ids(text: bytes) -> list[str] | None:
    """The ids in a body, by Python's json and the rules; None if it is to be refused."""
    try:
        document = json.loads(text.removeprefix(bodies.BOM).decode(), parse_constant=_refuse)
        given: Any = document["ids"] if isinstance(document, dict) else None
        ids = [str(id) if type(id) is int and -(2**63) <= id < 2**64 else id for id in given]
        json.dumps(document, ensure_ascii=False).encode()
        sizes = [len(id.encode()) for id in ids]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return ids if isinstance(given, list) and ids and all(0 < size <= 64 for size in sizes) else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def ids_in(body: bytes) -> list[str] | None:
    """What parse_ids() makes of a body."""
    try:
        return parse_ids(body)
    except Invalid:
        return None


NAMES = [*bodies.GOOD_IDS, *bodies.STRINGS[:20], *bodies.WRONG_IDS, *bodies.BROKEN_STRINGS]
AROUND = [b'{"ids":%b}'] * 6 + [
    b' {"a":[{}],"ids":%b}\n',
    bodies.BOM + b'{"ids":%b}',
    b"%b",
    b'{"ids":%b}}',
    b'{"id":%b}',
]


@given(
    st.lists(
        st.one_of(*map(st.sampled_from, (bodies.GOOD_IDS, NAMES, bodies.TREES, bodies.DEEP))), max_size=4
    ),
    st.sampled_from(AROUND),
)
@fuzzed(300)
def test_ids_are_what_they_are_by_the_rules(ids: list[bytes], around: bytes) -> None:
    body = around.replace(b"%b", bodies.array(ids))
    assert ids_in(body) == slow_ids(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "simdjson", None)
        assert ids_in(body) == slow_ids(body)


def decoded(body: bytes, coding: str) -> bytes | None:
    """What the libraries make of an encoded body at once; None for damage. Bytes after it are for none of them."""
    try:
        if coding == "gzip":
            return gzip.decompress(body)
        if coding == "zstd":
            frame = zstandard.ZstdDecompressor().decompressobj()
            text = frame.decompress(body)
            return text if frame.eof and not frame.unused_data else None
        return zlib.decompress(body)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return None


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda text: gzip.compress(text[:99], mtime=0) + gzip.compress(text[99:], mtime=0),
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}


@given(bodies.lines(), st.sampled_from(list(CODINGS)), st.data())
@fuzzed(300)
def test_a_damaged_encoding_is_noticed(text: bytes, coding: str, data: st.DataObject) -> None:
    body = bytearray(CODINGS[coding](text))
    start = data.draw(st.integers(0, len(body)))
    stop = data.draw(st.sampled_from([start, start + 1, start + 3, len(body)]))
    body[start:stop] = data.draw(st.binary(max_size=4))
    sent = Sent(bytes(body), None, coding)
    got = parse(sent, RULES)
    inflated = decoded(sent.body, coding)
    if inflated is None:
        assert isinstance(got, Invalid) and not isinstance(got, InvalidLine), got
    elif not isinstance(got, Invalid) or isinstance(got, InvalidLine):
        assert any(agrees(got, meant, discard=False) for meant in slow_body.read_text(inflated, RULES))


@pytest.mark.parametrize(
    "levels", [bodies.nested(b"[", b"", b"]", 100_000), b"[" * 100_000, b'{"a":' * 100_000]
)
@pytest.mark.parametrize(
    "body",
    [
        b"%b",
        b'{"id":%b,"values":[1,2,3]}',
        b'{"id":"a","values":%b}',
        b'{"id":"a","values":[1,2,%b]}',
        b'{"id":"a","values":[1,2,3],"metadata":%b}',
        b'{"id":"a","values":[1,2,3],"metadata":{"a":%b}}',
        b'{"id":"a","values":[1,2,3],"unknown":%b}',
        b'[{"id":"a","values":[1,2,3],"unknown":%b}]',
        b'{"vectors":%b}',
        b'{"vectors":[{"id":"a","values":%b}]}',
        b'{"note":%b,"vectors":[]}',
    ],
)
def test_nesting_without_end_is_unparsable(body: bytes, levels: bytes) -> None:
    got = parse(Sent(body.replace(b"%b", levels)), DISCARD)
    if isinstance(got, Changeset):
        (problem,) = got.discarded
    else:
        assert isinstance(got, InvalidLine)
        problem = got.problem
    assert (problem.line, problem.reason) == (1, Reason.UNPARSABLE)
