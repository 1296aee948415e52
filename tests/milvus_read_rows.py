"""Rows read as the Milvus door reads them, without a front end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from ingest.body import Rules
from ingest.doors.milvus.errors import missing
from ingest.doors.milvus.rows import Target
from ingest.doors.milvus.write_bodies import Find, Write
from upwell.changeset import Changeset
from upwell.kinds import IndexKind
from upwell.schema import FieldType, IdType, RowSchema, ScalarField

RULES = Rules(dimensions=0, vectors_max=100, bytes_max=1 << 20, metadata_bytes_max=2_000)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
Row = dict[str, Any]

SCHEMA = RowSchema(ids=IdType.INT64, dynamic=True)
#: A field of every type.
FULL = RowSchema(
    ids=IdType.INT64,
    dynamic=False,
    fields=(
        ScalarField(name="b", type=FieldType.BOOL, nullable=True),
        ScalarField(name="i8", type=FieldType.INT8, nullable=True),
        ScalarField(name="i16", type=FieldType.INT16, nullable=True),
        ScalarField(name="i32", type=FieldType.INT32, nullable=True),
        ScalarField(name="i64", type=FieldType.INT64, nullable=True),
        ScalarField(name="f", type=FieldType.FLOAT, nullable=True),
        ScalarField(name="d", type=FieldType.DOUBLE, nullable=True),
        ScalarField(name="s", type=FieldType.VARCHAR, bytes_max=10, nullable=True),
        ScalarField(name="j", type=FieldType.JSON, nullable=True),
        *(
            ScalarField(
                name=f"a{element}",
                type=FieldType.ARRAY,
                element=element,
                capacity=3,
                bytes_max=4 if element is FieldType.VARCHAR else None,
                nullable=True,
            )
            for element in FieldType
            if element not in (FieldType.JSON, FieldType.ARRAY)
        ),
    ),
)


def read_body(
    body: bytes,
    schema: RowSchema = SCHEMA,
    kind: IndexKind = IndexKind.DENSE,
    *,
    inserts: bool = False,
    partial: bool = False,
    sender: tuple[str, str] | None = None,
) -> Changeset:
    """What the rows of a body come to; dense vectors have two dimensions."""
    heading = Find(content_encoding=None, rules=RULES)(body)
    if heading.rows is None:
        raise missing("data")
    how = Write(
        target=Target(
            schema=schema,
            kind=kind,
            dimensions=2 if kind.has_dense else 0,
            id_bytes_max=schema.id_bytes_max or 64,
            metadata_bytes_max=RULES.metadata_bytes_max,
            inserts=inserts,
            partial=partial,
        ),
        rows=heading.rows,
        namespace="",
        inside=False,
        sender=sender,
        bytes_max=RULES.bytes_max,
        content_encoding=None,
        accepted_at=NOW,
    )
    return how.changeset(body)


def read_rows(
    rows: Any, schema: RowSchema = SCHEMA, kind: IndexKind = IndexKind.DENSE, **how: Any
) -> Changeset:
    """The same of rows."""
    return read_body(orjson.dumps({"collectionName": "c", "data": rows}), schema, kind, **how)


def metadata_of(changeset: Changeset) -> list[Row]:
    """Each row's fields but for the id and vectors."""
    if changeset.metadata is None:
        return [{}] * len(changeset)
    return [orjson.loads(one or b"{}") for one in changeset.metadata.to_pylist()]
