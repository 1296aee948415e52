"""How the bodies of writes are read: from bytes to a changeset, in whichever process.

upsert       an object or an array of {id, vector?, sparseVector?, metadata?, data?}
upsert-data  an object or an array of {id, data, metadata?}; a worker makes the vectors
update       {id, vector?, sparseVector?, metadata?, data?, metadataUpdateMode?}
delete       {ids} or {prefix} or {filter}, or an array of ids
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ingest.body import Rules, inflate
from ingest.body.inflate import Bytes
from ingest.doors.upstash.errors import DENSE_REQUIRED, IDS_PREFIX_OR_FILTER, NO_MODEL, SPARSE_REQUIRED
from ingest.doors.upstash.fields import Fields, read_id
from ingest.doors.upstash.rows import (
    Target,
    check_kind,
    check_no_others,
    read_data,
    read_dense,
    read_metadata,
    read_sparse,
)
from ingest.doors.upstash.strict import items_of, strict_json
from upwell.changeset import Changeset, Details, KeyScope, Operation, Selection, without_rows
from upwell.errors import Invalid
from upwell.sparse import Sparse

MODES: Final = ("OVERWRITE", "PATCH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """How to read the body of a write. Implements ``ingest.parsing.Reading``."""

    command: str
    namespace: str
    target: Target
    filter_bytes_max: int
    bytes_max: int
    content_encoding: str | None
    accepted_at: datetime

    def changeset(self, body: Bytes) -> Changeset:
        """What the body comes to. Raises InvalidLine, UpstashError, TooLarge or Invalid."""
        return _READERS[self.command](self, bytes(inflate(body, self.content_encoding, self.bytes_max)))

    def details(self, **more: Any) -> Details:
        """What all writes of this door say besides."""
        return Details(scope=KeyScope.NAMESPACE, namespace=self.namespace, **more)

    def namespaces(self, rows: int) -> pa.Array | None:
        """The column of namespaces of so many rows."""
        return None if not self.namespace else pa.array([self.namespace] * rows, pa.utf8())


class _Columns:
    """The columns of an upload, as they fill."""

    def __init__(self, how: Write) -> None:
        self._how = how
        self.ids: list[str] = []
        self.vectors: list[Any] = []
        self.sparse: list[Any] = []
        self.metadata: list[bytes | None] = []
        self.data: list[str | None] = []

    def add(self, fields: Fields) -> None:
        """Another row. Raises Invalid."""
        target = self._how.target
        rules = target.rules
        self.ids.append(_row_id(fields, rules))
        if self._how.command == "upsert-data":
            if fields.has("vector") or fields.has("sparseVector"):
                raise Invalid(
                    "upsert-data makes the vectors from data; expected no vector and no sparseVector"
                )
            if not fields.has("data"):
                raise Invalid("data: expected a string, got nothing")
        else:
            check_kind(target.kind, dense=fields.has("vector"), sparse=fields.has("sparseVector"))
            self.vectors.append(read_dense(fields, target.dimensions))
            self.sparse.append(read_sparse(fields, target.sparse_max))
        self.metadata.append(read_metadata(fields, rules.metadata_bytes_max))
        self.data.append(read_data(fields, rules.data_bytes_max))

    def changeset(self, operation: Operation, **details: Any) -> Changeset:
        """All of it."""
        rows = len(self.ids)
        has_dense = any(one is not None for one in self.vectors)
        has_sparse = any(one is not None for one in self.sparse)
        return Changeset(
            operation=operation,
            ids=pa.array(self.ids, pa.utf8()),
            vectors=np.stack(self.vectors) if has_dense else None,
            sparse=Sparse.of(self.sparse) if has_sparse else None,
            namespaces=self._how.namespaces(rows),
            metadata=_column(self.metadata, pa.binary()),
            data=_column(self.data, pa.utf8()),
            received=rows,
            details=self._how.details(**details),
        )


def _row_id(fields: Fields, rules: Rules) -> str:
    """The id of a row that is written. Raises Invalid."""
    id = read_id(fields.get("id"), "id", rules.id_bytes_max)
    problem = rules.id_problem(id)
    if problem is not None:
        raise Invalid(f"id: {problem}")
    return id


def _column(values: list[Any], kind: pa.DataType) -> pa.Array | None:
    return pa.array(values, kind) if any(value is not None for value in values) else None


def _upsert(how: Write, text: bytes) -> Changeset:
    columns, items = _Columns(how), items_of(text, how.target.rules)
    for place, item in enumerate(items, 1):
        try:
            columns.add(Fields(item))
        except Invalid as error:
            raise items.blamed(error, place, item) from None
    if not columns.ids:
        raise Invalid("expected at least one vector, got an empty array")
    return columns.changeset(Operation.UPSERT, embed=how.command == "upsert-data")


def _upsert_data(how: Write, text: bytes) -> Changeset:
    if not how.target.embeds:
        raise Invalid(NO_MODEL)
    return _upsert(how, text)


def _update(how: Write, text: bytes) -> Changeset:
    target, fields = how.target, Fields(strict_json(text))
    rules = target.rules
    columns = _Columns(how)
    columns.ids.append(_row_id(fields, rules))
    check_no_others(target.kind, dense=fields.has("vector"), sparse=fields.has("sparseVector"))
    vector, sparse = read_dense(fields, target.dimensions), read_sparse(fields, target.sparse_max)
    if target.kind.has_dense and target.kind.has_sparse and (vector is None) != (sparse is None):
        missing = DENSE_REQUIRED if vector is None else SPARSE_REQUIRED
        raise Invalid(f"{missing}: either none or both of vector and sparseVector must be present")
    metadata, data = read_metadata(fields, rules.metadata_bytes_max), read_data(fields, rules.data_bytes_max)
    mode = fields.one_of("metadataUpdateMode", MODES)
    if vector is None and sparse is None and metadata is None and data is None:
        raise Invalid("expected at least one of vector, sparseVector, metadata and data, got none")
    columns.vectors.append(vector)
    columns.sparse.append(sparse)
    columns.metadata.append(metadata)
    columns.data.append(data)
    embed = data is not None and vector is None and sparse is None and target.embeds
    return columns.changeset(Operation.UPDATE, patch=mode == "PATCH", embed=embed)


def _delete(how: Write, text: bytes) -> Changeset:
    given = {} if (given := strict_json(text)) is None else given
    # Nothing but the ids: so the Python client did until 0.7.1, and the JavaScript one until deletes by prefix and filter came.
    fields = Fields({"ids": given} if isinstance(given, list) else given)
    prefix, asked = fields.text("prefix"), fields.text("filter")
    if [fields.has("ids"), bool(prefix), bool(asked)].count(True) != 1:
        raise Invalid(IDS_PREFIX_OR_FILTER)
    if fields.has("ids"):
        ids = fields.ids("ids", how.target.rules.id_bytes_max)
        return Changeset(
            operation=Operation.DELETE,
            ids=pa.array(ids, pa.utf8()),
            namespaces=how.namespaces(len(ids)),
            received=len(ids),
            details=how.details(),
        )
    selection = Selection(namespace=how.namespace, prefix=prefix or None)
    if asked:
        selection = Selection(namespace=how.namespace, filter=_filter(asked, how.filter_bytes_max))
    return without_rows(Operation.DELETE_MATCHING, how.details(selection=selection))


def _filter(text: str, bytes_max: int) -> Any:
    from ingest.doors.upstash.filters import parse_filter  # noqa: PLC0415  a parsing process rarely needs it
    from upwell.shard.filter_json import filter_to_json  # noqa: PLC0415

    asked = parse_filter(text, bytes_max)
    if asked is None:
        # Nothing but blanks: it would let everything through.
        raise Invalid(IDS_PREFIX_OR_FILTER)
    return filter_to_json(asked)


_READERS: dict[str, Callable[[Write, bytes], Changeset]] = {
    "upsert": _upsert,
    "upsert-data": _upsert_data,
    "update": _update,
    "delete": _delete,
}
