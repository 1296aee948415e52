"""What an upload's body should give, said by a slow parser of its own: Python's json and the rules, nothing of ingest/body.

The rules (ingest/body/rules.py, and what Cloudflare is known to do): a row has an id that is not empty (or an integer), as many
finite float32 numbers as the index has dimensions, a namespace or none, an object of metadata or none; metadata's keys are not
empty, hold neither . nor ", and do not begin with $; what is given twice counts as given last. A byte order mark before a text
or a line is passed over. Rows come as NDJSON, as a JSON string that holds it, as an array, or as ``{"vectors": […]}``.

Where the rules leave a reader free (how deep it reads; what a text means that is broken and may be NDJSON or a document), all that
it may do is listed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ingest.body.rules import Rules
from upwell.errors import Reason

#: From here to there some readers still read and others do not.
DEPTHS_UNSURE: Final = range(200, 1_100)
BLANK: Final = b" \t\r\n\v\f"
BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """A line that may be accepted. ``metadata`` is how its decoded value prints, "None" for none."""

    id: str
    values: bytes
    namespace: str | None
    metadata: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """A line that may not, and every reason there is for it."""

    reasons: frozenset[Reason]


@dataclass(frozen=True, slots=True)
class Unsure:
    """A line that may be accepted, or refused for one of these reasons."""

    reasons: frozenset[Reason]


Line = Row | Wrong | Unsure


@dataclass(frozen=True, slots=True)
class Refused:
    """The body as a whole is refused. Of a document: the line from which on it is broken, and what may be found wrong before."""

    says: str
    line: int = 1
    before: dict[int, Line] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Read:
    """What each line that is not blank is, by its number; in documents by its place."""

    lines: dict[int, Line] = field(default_factory=dict)


class _NotANumber:
    """NaN, Infinity or -Infinity."""

    def __init__(self, name: str) -> None:
        self.name = name


class _TooDeep(Exception):
    """Nested more deeply than Python's reader goes."""


def _decode(text: bytes) -> Any:
    """JSON. Raises ValueError, or _TooDeep where another reader may go further."""
    try:
        return json.loads(text.decode(), parse_constant=_NotANumber)
    except RecursionError:
        if _depth_of_text(text) in DEPTHS_UNSURE:
            raise _TooDeep from None
        raise ValueError from None


def _broken(text: bytes, error: Exception, rules: Rules) -> Refused:
    """A document that is not JSON: refused, or already for a vector before the mistake."""
    line = 1
    if isinstance(error, json.JSONDecodeError):
        line = error.lineno
    elif isinstance(error, UnicodeDecodeError):
        text = text[: error.start]
        try:
            json.loads(text.decode(), parse_constant=_NotANumber)
        except (ValueError, RecursionError) as earlier:
            line = getattr(earlier, "lineno", 1)
    before: dict[int, Line] = {}
    opens = re.search(rb'^\s*(\{\s*(?s:.*?)"vectors"\s*:\s*)?\[', text)
    if opens is not None:
        decoder, rest = (
            json.JSONDecoder(parse_constant=_NotANumber),
            text[opens.end() :].decode(errors="replace"),
        )
        at = 0
        with contextlib.suppress(ValueError, RecursionError):
            while True:
                value, at = decoder.raw_decode(rest, len(rest) - len(rest[at:].lstrip(" \t\r\n")))
                before[len(before) + 1] = read_value(value, rules)
                at = rest.index(",", at) + 1
    return Refused("expected ", line, before)


def _depth_of_text(text: bytes) -> int:
    bytes_ = np.frombuffer(text, np.uint8)
    steps = np.isin(bytes_, list(b"[{")).astype(np.int64) - np.isin(bytes_, list(b"]}"))
    return int(steps.cumsum().max())


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return deepest


def read_line(text: bytes, rules: Rules) -> Line:
    """One line of NDJSON."""
    try:
        return read_value(_decode(text.removeprefix(BOM)), rules)
    except _TooDeep:
        return Unsure(frozenset({Reason.UNPARSABLE}))
    except ValueError:
        return Wrong(frozenset({Reason.UNPARSABLE}))


def read_value(value: Any, rules: Rules) -> Line:
    """One vector, decoded."""
    if not isinstance(value, dict):
        return Wrong(frozenset({Reason.NOT_AN_OBJECT}))
    reasons: set[Reason] = set()
    id = value.get("id")
    if type(id) is int:
        id = str(id)
    reasons |= (
        _name_faults(id, rules.id_bytes_max, Reason.ID_MISSING, Reason.ID_TOO_LONG)
        if id
        else {Reason.ID_MISSING}
    )
    namespace = value.get("namespace")
    if namespace is not None:
        invalid, long = Reason.NAMESPACE_INVALID, Reason.NAMESPACE_TOO_LONG
        reasons |= _name_faults(namespace, rules.namespace_bytes_max, invalid, long)
        if isinstance(namespace, str) and "\0" in namespace:
            reasons.add(invalid)
    values = value.get("values")
    reasons |= _values_faults(values, rules.dimensions)
    metadata = value.get("metadata")
    metadata_faults, perhaps = _metadata_faults(metadata, rules.metadata_bytes_max)
    reasons |= metadata_faults
    if reasons:
        return Wrong(frozenset(reasons | perhaps))
    if perhaps:
        return Unsure(frozenset(perhaps))
    floats = np.array([float(number) for number in values or ()], np.float64).astype(np.float32)
    return Row(str(id), floats.tobytes(), namespace or None, repr(metadata))


def _name_faults(name: Any, bytes_max: int, invalid: Reason, long: Reason) -> set[Reason]:
    if not isinstance(name, str):
        return {invalid}
    faults = set() if _is_utf8(name) else {invalid}
    return faults | ({long} if len(name.encode("utf-8", "replace")) > bytes_max else set())


def _is_utf8(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _values_faults(values: Any, dimensions: int) -> set[Reason]:
    if not isinstance(values, list) or not values:
        return {Reason.VALUES_INVALID}
    faults = set() if len(values) == dimensions else {Reason.WRONG_DIMENSIONS}
    for number in values:
        if isinstance(number, _NotANumber):
            faults.add(Reason.NOT_FINITE)
        elif type(number) not in (int, float):
            faults.add(Reason.VALUES_INVALID)
        else:
            faults |= set() if _is_float32(number) else {Reason.NOT_FINITE}
    return faults


def _is_float32(number: float) -> bool:
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float32(np.float64(float(number)))))
    except OverflowError:
        return False


def _metadata_faults(metadata: Any, bytes_max: int) -> tuple[set[Reason], set[Reason]]:
    """What is wrong; and what a reader may find wrong."""
    if metadata is None:
        return set(), set()
    if not isinstance(metadata, dict):
        return {Reason.METADATA_INVALID}, set()
    faults: set[Reason] = set()
    floats, pending = 0, [metadata]
    while pending:
        value = pending.pop()
        floats += isinstance(value, float)
        if isinstance(value, dict):
            for key in value:
                faults |= set() if _is_utf8(key) else {Reason.METADATA_INVALID}
                if not key or key.startswith("$") or "." in key or '"' in key:
                    faults.add(Reason.METADATA_KEY)
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif not _is_json(value):
            faults.add(Reason.METADATA_INVALID)
    if _depth(metadata) >= DEPTHS_UNSURE.start:
        return faults, {Reason.METADATA_INVALID, Reason.METADATA_TOO_LARGE}
    # Encoders spell floats differently: 1e22 or 1e+22.
    size, spelling = _compact_size(metadata), 3 * floats
    if size > bytes_max + spelling:
        faults.add(Reason.METADATA_TOO_LARGE)
    return faults, {Reason.METADATA_TOO_LARGE} if size > bytes_max - spelling else set()


def _compact_size(metadata: Any) -> int:
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"), default=lambda odd: odd.name)
    return len(text.encode("utf-8", "surrogatepass"))


def _is_json(value: Any) -> bool:
    if isinstance(value, float):
        return bool(np.isfinite(value))
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 64
    return _is_utf8(value) if isinstance(value, str) else value is None


def read_text(text: bytes, rules: Rules) -> list[Refused | Read]:
    """A body that is no form, decoded: all that may be made of it."""
    text = text.removeprefix(BOM)
    stripped = text.strip(BLANK)
    if not stripped:
        return [Refused("no vectors")]
    if stripped.startswith(b'"'):
        return [_read_string(text, rules)]
    if stripped.startswith(b"["):
        try:
            return [_read_items(_decode(text), rules)]
        except _TooDeep:
            return [Refused("expected "), Read({1: Unsure(frozenset())})]
        except ValueError as error:
            return [_broken(text, error, rules)]
    if stripped.startswith(b"{"):
        return _read_object(text, stripped, rules)
    return [_read_lines(text, rules)]


def _read_string(text: bytes, rules: Rules) -> Refused | Read:
    try:
        inner = json.loads(text.decode())
        return _read_lines(inner.encode().removeprefix(BOM), rules)
    except (ValueError, AttributeError):
        return _read_lines(text, rules)


def _read_lines(text: bytes, rules: Rules) -> Refused | Read:
    numbered = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip(BLANK)]
    if not numbered:
        return Refused("no vectors")
    if len(numbered) > rules.vectors_max:
        return _too_many(len(numbered), rules)
    return Read({number: read_line(line, rules) for number, line in numbered})


def _too_many(count: int, rules: Rules) -> Refused:
    got = str(count) if count <= 10 * rules.vectors_max else f"more than {10 * rules.vectors_max}"
    return Refused(f"too many vectors in payload; max is {rules.vectors_max}, got {got}")


def _read_items(items: list[Any], rules: Rules) -> Refused | Read:
    if not items:
        return Refused("no vectors")
    if len(items) > rules.vectors_max:
        return _too_many(len(items), rules)
    return Read({place: read_value(item, rules) for place, item in enumerate(items, 1)})


def _read_object(text: bytes, stripped: bytes, rules: Rules) -> list[Refused | Read]:
    """``{"vectors": …}``, or one vector, or lines; a broken one may be taken for any of them."""
    as_lines = _read_lines(text, rules)
    try:
        document = _decode(text)
    except (_TooDeep, ValueError) as error:
        return [as_lines] if _is_whole(stripped) else [as_lines, _broken(text, error, rules)]
    if "vectors" not in document or "id" in document:
        return [_read_items([document], rules), as_lines]
    vectors = document["vectors"]
    twice = [Refused("vectors: expected once")] if stripped.count(b'ectors"') > 1 else []
    as_document = (
        _read_items(vectors, rules) if isinstance(vectors, list) else Refused("vectors: expected an array")
    )
    # A key that is escaped, or stands on a later line, need not be seen.
    seen = b'"vectors"' in stripped.split(b"\n")[0] or not stripped.split(b"\n")[0].rstrip(BLANK).endswith(
        b"}"
    )
    return [as_document, *twice] if seen else [as_document, as_lines, *twice]


def _is_whole(stripped: bytes) -> bool:
    try:
        _decode(stripped.split(b"\n")[0])
    except (_TooDeep, ValueError):
        return False
    return True


def read_damaged_form(body: bytes, boundary: bytes, rules: Rules) -> Iterator[Refused | Read]:
    """A form that may be broken: refused, or any text between what may end headers and what may be a boundary."""
    yield Refused("")
    begins = [found.end() for found in re.finditer(rb"\r\n\r\n", body)]
    ends = [found.start() for found in re.finditer(rb"\r\n--" + re.escape(boundary), body)]
    for begin in begins:
        for end in ends:
            if begin - 2 <= end:
                yield from read_text(body[begin:end], rules)
