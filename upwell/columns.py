"""Columns of equal length as the bytes of one Arrow IPC stream with one batch: of a changeset, and of a segment's rows."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from upwell.errors import Corrupt


def encode_batch(columns: Mapping[str, pa.Array]) -> pa.Buffer:
    """The columns' bytes."""
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def decode_batch(data: pa.Buffer | bytes | memoryview, of: str) -> dict[str, pa.Array]:
    """The columns over ``data``, not copied. Raises Corrupt, which says whose they are (``of``)."""
    try:
        with pa.ipc.open_stream(data) as stream:
            batch = stream.read_next_batch()
    except (pa.ArrowInvalid, OSError, StopIteration) as error:
        raise Corrupt(f"{of}'s columns cannot be read") from error
    return dict(zip(batch.schema.names, batch.columns, strict=True))
