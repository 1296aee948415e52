"""The object format: every bit that counts is watched over, and numbers on disk stay what they are."""

from __future__ import annotations

import pytest

from upwell.errors import Corrupt
from upwell.format import VERSION, Kind, pack, unpack
from upwell.streamed import joined


def test_of_a_packed_objects_bits_none_that_counts_can_flip_unseen() -> None:
    """Every single bit, the format's number among them: a 1 that became a 0 is no older format."""
    whole = joined(pack(Kind.LOG_ENTRY, {"a": [1]}, [("x", [b"abc"]), ("y", [b"z"])]))
    box = unpack(memoryview(whole), Kind.LOG_ENTRY)
    counts = [*range(32), *range(64, 64 + int.from_bytes(whole[12:16], "little"))]
    for section in box.sections.values():
        counts += range(section.offset, section.offset + section.length)
    unseen = [(place, bit) for place in counts for bit in range(8) if reads(whole, place, bit)]
    assert unseen == []


def reads(whole: bytes, place: int, bit: int) -> bool:
    damaged = bytearray(whole)
    damaged[place] ^= 1 << bit
    try:
        box = unpack(memoryview(bytes(damaged)), Kind.LOG_ENTRY)
        for name in box.sections:
            box.section(name)
    except Corrupt:
        return False
    return True


@pytest.mark.parametrize("kind", Kind)
def test_numbers_on_disk_stay_what_they_are(kind: Kind) -> None:
    """A renumbered kind, or a format that rose without a golden store of it, shows here."""
    assert (int(kind), VERSION[kind]) == {
        "LOG_ENTRY": (1, 4), "MANIFEST": (2, 5), "SEGMENT": (3, 4), "DELETIONS": (4, 1),
        "INDEX_RECORD": (5, 3), "CATALOG_EVENT": (6, 1), "TOKEN": (7, 1), "PAYLOAD": (8, 1), "PART": (9, 1),
        "WEBHOOK": (10, 1), "REQUEST": (11, 1), "FAILED": (12, 1), "FAILURES": (13, 1),
        "BACKUP": (14, 1), "NAMESPACES": (15, 1), "EMBEDDED": (16, 1), "NOTES": (17, 1),
    }[kind.name]  # fmt: skip
