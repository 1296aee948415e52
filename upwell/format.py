"""The one shape that every object in the store has: a checked header, then aligned, checked sections.

    offset  size  field
         0     8  magic             b"UPWELL\\r\\n"  (a text-mode copy would damage it visibly)
         8     2  kind              what the object is, see Kind
        10     2  version           of that kind's format; a newer one than ours is refused
        12     4  header length     bytes
        16     8  header checksum   xxh3_64 of the header's bytes
        24    40  zero
        64     …  header            JSON: {"meta": …, "sections": [[name, offset, length, xxh3_64], …]}
         …     …  sections          each at a multiple of 64, so that mapped numbers are aligned

All integers are little-endian. A section is verified when it is first asked for, so that opening a large object does
not read all of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson
import xxhash

from upwell.errors import Corrupt
from upwell.streamed import Part, Streamed, chunks_of, nbytes_of

MAGIC = b"UPWELL\r\n"
ALIGNMENT = 64
_PREFIX = struct.Struct("<8sHHIQ40x")
assert _PREFIX.size == ALIGNMENT


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


#: The newest version of each kind that this code writes and reads.
VERSION = dict.fromkeys(Kind, 1) | {Kind.LOG_ENTRY: 2, Kind.SEGMENT: 3, Kind.MANIFEST: 3}


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

    def section(self, name: str, *, verify: bool = True) -> memoryview:
        """A section's bytes, without a copy. Raises Corrupt if they are damaged or missing."""
        where = self.sections.get(name)
        if where is None:
            raise Corrupt("an object lacks a section", section=name)
        view = self.data[where.offset : where.offset + where.length]
        if len(view) != where.length:
            raise Corrupt("an object is cut short", section=name, expected=where.length, got=len(view))
        if verify and xxhash.xxh3_64_intdigest(view) != where.checksum:
            raise Corrupt("a section's checksum does not match", section=name)
        return view


def pack(kind: Kind, meta: dict[str, Any], sections: Sequence[tuple[str, Sequence[Part]]] = ()) -> list[Part]:
    """Lay out an object: the parts to be written one after the other. A section may come in several parts, or in one that is streamed."""
    table: list[tuple[str, int, int]] = []
    body: list[Part] = []
    for name, parts in sections:
        length = nbytes_of(parts)
        table.append((name, length, _checksum(parts)))
        body += [*parts, bytes(-length % ALIGNMENT)]
    header = _header_of(meta, table)
    prefix = _PREFIX.pack(MAGIC, kind, VERSION[kind], len(header), xxhash.xxh3_64_intdigest(header))
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


def unpack(data: memoryview, kind: Kind) -> Box:
    """Open an object of ``kind``. Raises Corrupt for damage, another kind, or a newer format than this code knows."""
    if len(data) < _PREFIX.size:
        raise Corrupt("an object is too short to be ours", got=len(data))
    magic, found, version, length, checksum = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise Corrupt("an object does not begin as ours do")
    if found != kind:
        raise Corrupt("an object is of another kind", expected=kind.name, got=found)
    if version == 0:
        raise Corrupt("an object has a format that was never written", kind=kind.name)
    if version > VERSION[kind]:
        raise Corrupt(
            f"this {kind.name} has format {version} and this Upwell knows formats up to {VERSION[kind]}: upgrade it"
        )
    header = data[_PREFIX.size : _PREFIX.size + length]
    if len(header) != length or xxhash.xxh3_64_intdigest(header) != checksum:
        raise Corrupt("an object's header is damaged", kind=kind.name)
    fields = orjson.loads(header)
    start = _PREFIX.size + length + -length % ALIGNMENT
    sections = {
        name: Section(start + offset, size, digest) for name, offset, size, digest in fields["sections"]
    }
    return Box(data, fields["meta"], sections)
