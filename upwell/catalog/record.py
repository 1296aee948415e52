"""An index's record: everything about it that never changes, under an identity made at its creation.

The record lies at ``index/{id}/record`` beside the index's log, manifests and segments. Names point to identities and
never the other way round, so a late worker or an old receipt of a deleted index can touch nothing of its successor.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from upwell.changeset import KeyScope
from upwell.errors import Corrupt, NotFound
from upwell.format import Kind, pack
from upwell.kinds import IndexKind
from upwell.schema import OPEN_SCHEMA, RowSchema
from upwell.shard.metric import Metric
from upwell.store import Store, create_own, read_object


class IndexRecord(BaseModel):
    """An index, as it was created."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    account: str
    name: str
    description: str | None = None
    kind: IndexKind = IndexKind.DENSE
    #: 0 in a sparse index.
    dimensions: Annotated[int, Field(ge=0)]
    #: Of dense vectors; sparse ones compare by their inner product.
    metric: Metric
    shards: Annotated[int, Field(ge=1)]
    #: OPEN: the manifest tells once it is decided.
    key_scope: KeyScope = KeyScope.INDEX
    #: The models that make vectors of text, dense and sparse, by the names that their index was given; None: it takes none.
    embedding_model: str | None = None
    sparse_embedding_model: str | None = None
    #: None: it was made at a door that has none. See OPEN_SCHEMA.
    row_schema: RowSchema | None = None
    #: The identities of those whose place it took, which were never written to; the oldest first.
    replaces: tuple[str, ...] = ()
    created_at: datetime
    #: Hex of the key that signs this index's receipts. Not a password: it only tells our ids from others.
    secret: str

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if (self.dimensions > 0) != self.kind.has_dense:
            raise ValueError("an index has dimensions if it has dense vectors, and none if it has not")
        return self

    @property
    def embeds(self) -> bool:
        """Can it make all the vectors of a row from text?"""
        dense = self.embedding_model is not None or not self.kind.has_dense
        return dense and (self.sparse_embedding_model is not None or not self.kind.has_sparse)

    @property
    def effective_schema(self) -> RowSchema:
        """What its rows are to a door that has schemas, whichever door it was made at."""
        return self.row_schema or OPEN_SCHEMA

    @property
    def folder(self) -> str:
        """Where everything of this index lies."""
        return index_folder(self.id)

    @property
    def receipt_key(self) -> bytes:
        """The key that mints and checks mutationIds."""
        return bytes.fromhex(self.secret)


def index_folder(index_id: str) -> str:
    """Where everything of the index with this identity lies."""
    return f"index/{index_id}"


def write_record(store: Store, record: IndexRecord) -> None:
    """Keep a new index's record. Raises AlreadyExists if the identity is taken, which is a bug."""
    create_own(store, f"{record.folder}/record", *pack(Kind.INDEX_RECORD, record.model_dump(mode="json")))


def read_record(store: Store, index_id: str) -> IndexRecord:
    """The record of an identity. Raises NotFound or Corrupt."""
    try:
        box = read_object(store, f"{index_folder(index_id)}/record", Kind.INDEX_RECORD)
    except NotFound:
        raise NotFound("there is no such index", id=index_id) from None
    with box.understood():
        record = IndexRecord.model_validate(box.meta)
        if record.id != index_id:
            raise Corrupt("an index's record is that of another one", got=record.id)
    return record
