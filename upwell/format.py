"""The one shape that every object in the store has: a checked header, then aligned, checked sections.

    offset  size  field
         0     8  magic             b"UPWELL\\r\\n"  (a text-mode copy would damage it visibly)
         8     2  kind              what the object is, see Kind
        10     2  version           of that kind's format; a newer one than ours is refused
        12     4  header length     bytes
        16     8  header checksum   xxh3_64 of the header's bytes
        24     8  prefix checksum   xxh3_64 of the 24 bytes before; zero in objects of an Upwell that wrote none
        32    32  zero
        64     …  header            JSON: {"meta": …, "sections": [[name, offset, length, xxh3_64], …]}
         …     …  sections          each at a multiple of 64, so that mapped numbers are aligned

All integers are little-endian. A section is verified when it is first asked for, so that opening a large object does
not read all of it.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson
import xxhash

from upwell.errors import Corrupt, TooNew
from upwell.streamed import Part, Streamed, chunks_of, nbytes_of

MAGIC = b"UPWELL\r\n"
ALIGNMENT = 64
_PREFIX = struct.Struct("<8sHHIQ")
_PREFIX_SUM = struct.Struct("<Q")
assert _PREFIX.size + _PREFIX_SUM.size <= ALIGNMENT


class Kind(IntEnum):
    """What an object holds. Numbers are on disk: never reuse one."""

    LOG_ENTRY = 1
    MANIFEST = 2
    SEGMENT = 3
    DELETIONS = 4
    INDEX_RECORD = 5
    CATALOG_EVENT = 6
    TOKEN = 7
    PAYLOAD = 8
    PART = 9
    WEBHOOK = 10
    REQUEST = 11
    FAILED = 12
    FAILURES = 13
    BACKUP = 14
    NAMESPACES = 15
    EMBEDDED = 16
    NOTES = 17


#: The newest version of each kind that this code writes and reads.
VERSION = dict.fromkeys(Kind, 1) | {
    Kind.LOG_ENTRY: 4,
    Kind.SEGMENT: 4,
    Kind.MANIFEST: 5,
    Kind.INDEX_RECORD: 3,
}


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section lies in its object, in bytes, and what its bytes must hash to."""

    offset: int
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Box:
    """An opened object: its meta data, and its sections on demand."""

    data: memoryview
    meta: dict[str, Any]
    sections: dict[str, Section]
    #: Its name in the store, which every complaint about it bears; "" if it has none yet.
    key: str = ""

    def section(self, name: str, *, verify: bool = True) -> memoryview:
        """A section's bytes, without a copy. Raises Corrupt if they are damaged or missing."""
        where = self.sections.get(name)
        if where is None:
            raise Corrupt("an object lacks a section", section=name, **_named(self.key))
        view = self.data[where.offset : where.offset + where.length]
        if len(view) != where.length:
            raise Corrupt(
                "an object is cut short",
                section=name,
                expected=where.length,
                got=len(view),
                **_named(self.key),
            )
        if verify and xxhash.xxh3_64_intdigest(view) != where.checksum:
            raise Corrupt("a section's checksum does not match", section=name, **_named(self.key))
        return view

    def understood(self) -> contextlib.AbstractContextManager[None]:
        """For decoding what it holds: what cannot be understood inside is damage of this object."""
        return blaming(self.key)


@contextlib.contextmanager
def blaming(key: str) -> Iterator[None]:
    """Whatever cannot be understood inside is raised as Corrupt that names the object ``key``.

    Bits that flipped are found by checksums before anything is decoded. What comes here was written as it is: by another version of
    Upwell, by a fault in this one, or by nobody of ours.
    """
    try:
        yield
    except Corrupt as error:
        if not key or "key" in error.facts:
            raise
        raise Corrupt(error.detail, **error.facts, key=key) from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise Corrupt("an object does not hold what it should", reason=reason, **_named(key)) from error


def _named(key: str) -> dict[str, object]:
    return {"key": key} if key else {}


def pack(kind: Kind, meta: dict[str, Any], sections: Sequence[tuple[str, Sequence[Part]]] = ()) -> list[Part]:
    """Lay out an object: the parts to be written one after the other. A section may come in several parts, or in one that is streamed."""
    table: list[tuple[str, int, int]] = []
    body: list[Part] = []
    for name, parts in sections:
        length = nbytes_of(parts)
        table.append((name, length, _checksum(parts)))
        body += [*parts, bytes(-length % ALIGNMENT)]
    header = _header_of(meta, table)
    said = _PREFIX.pack(MAGIC, kind, VERSION[kind], len(header), xxhash.xxh3_64_intdigest(header))
    prefix = (said + _PREFIX_SUM.pack(xxhash.xxh3_64_intdigest(said))).ljust(ALIGNMENT, b"\0")
    return [prefix, header, bytes(-len(header) % ALIGNMENT), *body]


def _checksum(parts: Sequence[Part]) -> int:
    if any(isinstance(part, Streamed) for part in parts):
        (streamed,) = parts
        assert isinstance(streamed, Streamed)
        return streamed.checksum
    digest = xxhash.xxh3_64()
    for part in parts:
        for chunk in chunks_of(part):
            digest.update(chunk)
    return digest.intdigest()


def _header_of(meta: dict[str, Any], table: list[tuple[str, int, int]]) -> bytes:
    """Encode the header. Offsets count from the first section's start, so they do not depend on the header's length."""
    entries, offset = [], 0
    for name, length, checksum in table:
        entries.append((name, offset, length, checksum))
        offset += length + -length % ALIGNMENT
    return orjson.dumps({"meta": meta, "sections": entries})


def unpack(data: memoryview, kind: Kind, key: str = "") -> Box:
    """Open an object of ``kind``, which the store calls ``key``.

    Raises Corrupt for damage or another kind, TooNew for a newer format than this code knows. Both name the object.
    """
    with blaming(key):
        return _opened(data, kind, key)


def _opened(data: memoryview, kind: Kind, key: str) -> Box:
    if len(data) < ALIGNMENT:
        raise Corrupt("an object is too short to be ours", got=len(data))
    magic, found, version, length, checksum = _PREFIX.unpack_from(data)
    (prefix_sum,) = _PREFIX_SUM.unpack_from(data, _PREFIX.size)
    if magic != MAGIC:
        raise Corrupt("an object does not begin as ours do")
    # Before its kind and format are believed: damage there would look like an object of a newer Upwell.
    if prefix_sum not in (0, xxhash.xxh3_64_intdigest(data[: _PREFIX.size])):
        raise Corrupt("an object's prefix is damaged")
    if found != kind:
        raise Corrupt("an object is of another kind", expected=kind.name, got=found)
    if version == 0:
        raise Corrupt("an object has a format that was never written", kind=kind.name)
    if version > VERSION[kind]:
        raise TooNew(
            f"this {kind.name} has format {version} and this Upwell knows formats up to {VERSION[kind]}: upgrade it",
            **_named(key),
        )
    header = data[ALIGNMENT : ALIGNMENT + length]
    if len(header) != length or xxhash.xxh3_64_intdigest(header) != checksum:
        raise Corrupt("an object's header is damaged", kind=kind.name)
    fields = orjson.loads(header)
    start = ALIGNMENT + length + -length % ALIGNMENT
    sections = {
        name: Section(start + offset, size, digest) for name, offset, size, digest in fields["sections"]
    }
    return Box(data, fields["meta"], sections, key)
