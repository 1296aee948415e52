"""A log entry's bytes: one or more whole mutations that were made durable together.

meta      {"token": writer's token, "position": p, "mutations": [{operation, acceptedAt, received, rows, nbytes, discarded,
          discardedCount, payload, by, request, metadataIndex, details}, …]}; ``payload`` names an object of its own for large mutations,
          else it is null. Format 1 has none of nbytes, by, request and metadataIndex, format 2 no details, format 3 no shallow, adds
          or inside in them.
sections  "0", "1", …: the Arrow columns of each mutation without a payload object (changeset.encode_columns)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa

from upwell.changeset import NO_DETAILS, Changeset, Details, Operation, decode_columns, encode_columns
from upwell.errors import Corrupt, LineProblem, Reason
from upwell.format import Box, Kind, pack, unpack
from upwell.log.request import Request
from upwell.properties import MetadataIndex
from upwell.streamed import Part

#: Columns larger than this are written under a name of their own first, so that an append which loses the race for a
#: position sends only a small entry again.
INLINE_BYTES_MAX = 1 << 20
#: What details can have that those of format 3 could not.
NEW_DETAILS = frozenset({"shallow", "adds", "inside"})
#: The one section of a payload object.
PAYLOAD_SECTION = "columns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One mutation as the log keeps it: everything but its columns."""

    operation: Operation
    accepted_at: datetime
    received: int
    #: Rows in the columns: for a delete, ids.
    rows: int
    discarded: tuple[LineProblem, ...] = ()
    discarded_count: int = 0
    #: Of the columns; 0 if an older Upwell wrote the entry.
    nbytes: int = 0
    #: The object that holds the columns, if the entry itself does not.
    payload: str | None = None
    #: Identity of the token that sent it.
    by: str | None = None
    #: The request that it came by, if that may be sent again and must count once.
    request: Request | None = None
    metadata_index: MetadataIndex | None = None
    details: Details = NO_DETAILS

    @property
    def brings_rows(self) -> bool:
        """Are its rows whole ones, of which each may be kept as it is?"""
        return self.operation.brings_rows or self.details.adds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedMutation:
    """A mutation with its columns encoded, ready to be appended. Made in a thread, where encoding may take its time."""

    mutation: Mutation
    columns: pa.Buffer

    @property
    def nbytes(self) -> int:
        return int(self.columns.size)


def prepare(changeset: Changeset, accepted_at: datetime) -> PreparedMutation:
    """Encode a changeset for the log."""
    columns = encode_columns(changeset)
    mutation = Mutation(
        operation=changeset.operation,
        accepted_at=accepted_at,
        received=changeset.received,
        rows=len(changeset),
        discarded=changeset.discarded,
        discarded_count=changeset.discarded_count,
        nbytes=columns.size,
        metadata_index=changeset.metadata_index,
        details=changeset.details,
    )
    return PreparedMutation(mutation=mutation, columns=columns)


def again(mutation: Mutation, columns: pa.Buffer, accepted_at: datetime) -> PreparedMutation:
    """A mutation of the log, to be appended once more as a new one."""
    fresh = replace(
        mutation, accepted_at=accepted_at, nbytes=columns.size, payload=None, by=None, request=None
    )
    return PreparedMutation(mutation=fresh, columns=columns)


def request_of(prepared: PreparedMutation, token_id: str, key: str) -> Request:
    """The request by which a mutation came, if its sender gave it a key. The same mutation gives the same one."""
    mutation = prepared.mutation
    said = orjson.dumps(
        [
            mutation.operation,
            mutation.received,
            mutation.metadata_index and mutation.metadata_index.model_dump(mode="json"),
            mutation.discarded_count,
            [problem_to_json(problem) for problem in mutation.discarded],
            *_said_besides(mutation.details),
        ]
    )
    return Request.of(token_id, key, said, memoryview(prepared.columns))


def _said_besides(details: Details) -> list[Any]:
    """What a mutation's details add to what its request said; nothing if there is nothing special about it, as always in format 2.

    A request that was kept before there was a detail must be the same one afterwards: so NEW_DETAILS that are not told are not there.
    """
    if details == NO_DETAILS:
        return []
    said = details.model_dump(mode="json")
    return [{name: value for name, value in said.items() if value or name not in NEW_DETAILS}]


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoded entry. Columns are read when asked for, so that status can look at a large entry cheaply."""

    position: int
    token: str
    mutations: tuple[Mutation, ...]
    box: Box

    def changeset(self, place: int, read_payload: Callable[[str], memoryview]) -> Changeset:
        """The columns of the mutation at ``place``, verified. ``read_payload`` fetches a payload object. May raise Corrupt."""
        box, section = self.columns_at(place, read_payload)
        with box.understood():
            return changeset_of(self.mutations[place], pa.py_buffer(box.section(section)), self.position)

    def columns_at(self, place: int, read_payload: Callable[[str], memoryview]) -> tuple[Box, str]:
        """The object that holds the columns of the mutation at ``place``, opened, and in which of its sections. May raise Corrupt."""
        payload = self.mutations[place].payload
        if payload is None:
            return self.box, str(place)
        return unpack(read_payload(payload), Kind.PAYLOAD, payload), PAYLOAD_SECTION


def changeset_of(mutation: Mutation, columns: pa.Buffer, position: int) -> Changeset:
    """A mutation's rows, from its columns. Raises Corrupt."""
    changeset = decode_columns(
        columns,
        mutation.operation,
        received=mutation.received,
        discarded=mutation.discarded,
        discarded_count=mutation.discarded_count,
        metadata_index=mutation.metadata_index,
        details=mutation.details,
    )
    if len(changeset) != mutation.rows:
        raise Corrupt("a mutation's columns have other rows than its entry says", position=position)
    return changeset


def encode_payload(columns: pa.Buffer) -> list[Part]:
    """The bytes of a payload object."""
    return pack(Kind.PAYLOAD, {}, [(PAYLOAD_SECTION, [columns])])


def encode_entry(
    position: int, token: str, prepared: Sequence[PreparedMutation], payloads: Sequence[str | None]
) -> list[Part]:
    """The bytes of an entry. ``payloads[i]`` names mutation i's payload object, or is None to hold its columns here."""
    meta = {
        "position": position,
        "token": token,
        "mutations": [
            mutation_to_json(one.mutation, payload) for one, payload in zip(prepared, payloads, strict=True)
        ],
    }
    sections = [
        (str(place), [one.columns])
        for place, (one, payload) in enumerate(zip(prepared, payloads, strict=True))
        if payload is None
    ]
    return pack(Kind.LOG_ENTRY, meta, sections)


def decode_entry(data: memoryview, position: int, key: str = "") -> Entry:
    """Open an entry. Raises Corrupt if it is damaged or lies at another position than it was written for."""
    box = unpack(data, Kind.LOG_ENTRY, key)
    with box.understood():
        return _entry_in(box, position)


def _entry_in(box: Box, position: int) -> Entry:
    if box.meta["position"] != position:
        raise Corrupt("a log entry lies at the wrong position", expected=position, got=box.meta["position"])
    mutations = tuple(mutation_from_json(fields) for fields in box.meta["mutations"])
    return Entry(position, box.meta["token"], mutations, box)


def mutation_to_json(mutation: Mutation, payload: str | None) -> dict[str, Any]:
    """A mutation as an entry's meta data have it."""
    return {
        "operation": mutation.operation,
        "acceptedAt": mutation.accepted_at.isoformat(),
        "received": mutation.received,
        "rows": mutation.rows,
        "discarded": [problem_to_json(problem) for problem in mutation.discarded],
        "discardedCount": mutation.discarded_count,
        "nbytes": mutation.nbytes,
        "payload": payload,
        "by": mutation.by,
        "request": None if mutation.request is None else [mutation.request.name, mutation.request.digest],
        "metadataIndex": None
        if mutation.metadata_index is None
        else mutation.metadata_index.model_dump(mode="json"),
        "details": mutation.details.model_dump(mode="json", exclude_defaults=True),
    }


def mutation_from_json(fields: dict[str, Any]) -> Mutation:
    """The inverse of mutation_to_json."""
    metadata_index, request = fields.get("metadataIndex"), fields.get("request")
    return Mutation(
        operation=Operation(fields["operation"]),
        accepted_at=datetime.fromisoformat(fields["acceptedAt"]),
        received=fields["received"],
        rows=fields["rows"],
        discarded=tuple(problem_from_json(problem) for problem in fields["discarded"]),
        discarded_count=fields["discardedCount"],
        nbytes=fields.get("nbytes", 0),
        payload=fields["payload"],
        by=fields.get("by"),
        request=None if request is None else Request(*request),
        metadata_index=None if metadata_index is None else MetadataIndex.model_validate(metadata_index),
        details=Details.model_validate(fields.get("details", {})),
    )


def problem_to_json(problem: LineProblem) -> dict[str, Any]:
    """A discarded line as the log and the results keep it."""
    return {
        "line": problem.line,
        "reason": problem.reason,
        "field": problem.field,
        "detail": problem.detail,
        "id": problem.id,
    }


def problem_from_json(fields: dict[str, Any]) -> LineProblem:
    """The inverse of problem_to_json."""
    return LineProblem(
        line=fields["line"],
        reason=Reason(fields["reason"]),
        field=fields["field"],
        detail=fields["detail"],
        id=fields["id"],
    )
