"""How the bodies of insert and upsert are read: from bytes to a changeset, in whichever process. See also heading.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import orjson
import pyarrow as pa

from ingest.body.decoder import FastDecoder
from ingest.body.documents import Span
from ingest.body.inflate import Bytes
from ingest.doors.milvus.errors import MISSING_REQUIRED, MilvusError, bad_data, not_json
from ingest.doors.milvus.heading import text_of
from ingest.doors.milvus.numbers import RANDOM, KeyedNumbers, Numbers
from ingest.doors.milvus.rows import Rows, Target
from upwell.changeset import Changeset, Details, KeyScope, Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """How to read the body of a write, of which the heading is known. Implements ``ingest.parsing.Reading``."""

    target: Target
    #: Where the rows are in the body, once inflated.
    rows: tuple[Span, ...]
    #: "" for none.
    namespace: str
    #: Who sends the request, and its key, if it may be sent again.
    sender: tuple[str, str] | None
    bytes_max: int
    content_encoding: str | None
    accepted_at: datetime

    def changeset(self, body: Bytes) -> Changeset:
        """What the body comes to. Raises MilvusError, TooLarge or Invalid."""
        if not self.rows:
            raise bad_data(MISSING_REQUIRED)
        text, target = text_of(body, self.content_encoding, self.bytes_max), self.target
        rows = Rows(target, len(self.rows), self._numbers(text))
        decode = FastDecoder(target.schema.vector_field).decode if target.kind.has_dense else orjson.loads
        for place, (start, end) in enumerate(self.rows):
            try:
                rows.add(decode(item := text[start:end]), item)
            except orjson.JSONDecodeError as error:
                raise not_json(f"data[{place}]: {error}") from None
            except MilvusError as error:
                raise self._blamed(error, place) from None
        rows.finish()
        return Changeset(
            operation=Operation.UPDATE if target.partial else Operation.UPSERT,
            ids=pa.array(rows.ids, pa.utf8()),
            vectors=rows.vectors,
            sparse=rows.sparse,
            namespaces=None if not self.namespace else pa.array([self.namespace] * len(rows.ids), pa.utf8()),
            metadata=rows.metadata,
            received=len(rows.ids),
            details=Details(
                scope=KeyScope.INDEX,
                namespace=self.namespace,
                patch=target.partial,
                shallow=target.partial,
                adds=target.partial and rows.are_whole,
            ),
        )

    def _numbers(self, text: bytes) -> Numbers:
        """Where rows without ids get theirs from."""
        if self.sender is None or not self.target.schema.auto_id:
            return RANDOM
        return KeyedNumbers(*self.sender, text)

    def _blamed(self, error: MilvusError, place: int) -> MilvusError:
        """An error of one row, from 0; of several it says which, where Milvus's words do not."""
        if len(self.rows) == 1 or f"row {place} " in error.detail or "row number: " in error.detail:
            return error
        return MilvusError(error.code, f"{error.detail} (row {place})", error.status)
