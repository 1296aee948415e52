"""One object, verified to its last bit: what reading it would verify, and what no reader looks at."""

from __future__ import annotations

from upwell.format import ALIGNMENT, Box, Kind, unpack

#: The kinds of objects in an index's folder, by the piece of the path that follows the identity.
KINDS = {
    "record": Kind.INDEX_RECORD,
    "log": Kind.LOG_ENTRY,
    "payload": Kind.PAYLOAD,
    "manifest": Kind.MANIFEST,
    "segment": Kind.SEGMENT,
    "deletions": Kind.DELETIONS,
    "part": Kind.PART,
    "request": Kind.REQUEST,
    "webhook": Kind.WEBHOOK,
    "delivery": Kind.WEBHOOK,
    "failed": Kind.FAILED,
    "failures": Kind.FAILURES,
    "namespaces": Kind.NAMESPACES,
    "embedded": Kind.EMBEDDED,
    "notes": Kind.NOTES,
    # Empty: its own name says everything.
    "names": Kind.CATALOG_EVENT,
}
#: What is always zero in a prefix.
_ZERO = slice(32, ALIGNMENT)


def kind_of(key: str) -> Kind:
    """What an object in an index's folder is, by its name. Raises KeyError."""
    return KINDS[key.split("/")[2]]


def verify(data: memoryview, kind: Kind, key: str, *, quick: bool = False) -> Box:
    """The object, once every section of it is verified; with ``quick`` only its header. Raises Corrupt or TooNew."""
    box = unpack(data, kind, key)
    if not quick:
        for name in box.sections:
            box.section(name)
    return box


def strays(box: Box) -> str | None:
    """Bytes that no reader looks at and that are not as they were written; None if there are none."""
    data = box.data
    if any(data[_ZERO]):
        return "bytes of its prefix that should be zero are not"
    ends = sorted((one.offset, one.offset + one.length) for one in box.sections.values())
    at = ALIGNMENT + int.from_bytes(data[12:16], "little")
    for begins, end in [*ends, (len(data), len(data))]:
        if begins - at >= ALIGNMENT or begins < at:
            return "it is longer, or shorter, than its sections"
        if any(data[at:begins]):
            return "bytes between its sections that should be zero are not"
        at = end
    return None
