"""What this door remembers of a collection beside the rows and what its index's record says: see ``upwell/catalog/notes.py``.

None of it changes what the engine does. Milvus's clients make indexes, load collections and declare partitions before they use them, and
expect to find all that again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from upwell.engine import Index
from upwell.query.sparse import Bm25
from upwell.schema import INT64_SCHEMA, RowSchema, ScalarField
from upwell.shard.metric import Metric

METRICS: Final = {"COSINE": Metric.COSINE, "L2": Metric.EUCLIDEAN, "IP": Metric.DOT_PRODUCT}
METRIC_NAMES: Final = {metric: name for name, metric in METRICS.items()}
#: Of sparse vectors that are sent, and of those that a function makes of texts.
SPARSE_METRIC: Final = "IP"
BM25_METRIC: Final = "BM25"
AUTOINDEX: Final = "AUTOINDEX"
#: The partition of rows that are in none.
DEFAULT_PARTITION: Final = "_default"


class _Kept(BaseModel):
    # A newer Upwell may remember more.
    model_config = ConfigDict(frozen=True, extra="ignore")


class IndexFact(_Kept):
    """An index on a field, as it was asked for."""

    name: str
    field: str
    type: str = AUTOINDEX
    #: "" on a field that is no vector.
    metric: str = ""
    params: dict[str, str] = {}
    #: What was said of it later.
    altered: dict[str, str] = {}


class Facts(_Kept):
    """What is remembered. Immutable: it is changed by ``change_facts``."""

    #: Was this ever written? A collection whose creation was cut short is made again by whoever creates it once more.
    made: bool = False
    loaded: bool = False
    #: On vectors and other fields, in the order of their making.
    indexes: tuple[IndexFact, ...] = ()
    #: Those that were declared, whether they have rows or not.
    partitions: tuple[str, ...] = ()
    #: Those that are not loaded although their collection is.
    released: tuple[str, ...] = ()
    properties: dict[str, str] = {}
    #: As it was asked for; how many shards its index has is for the server to say.
    shards: int = 1
    #: Likewise, of a collection with a partition key; 0: nobody asked.
    key_partitions: int = 0
    clustering_key: str | None = None
    #: What fields were declared with, by field.
    params: dict[str, dict[str, str]] = {}
    #: Fields that were added later.
    added: tuple[ScalarField, ...] = ()

    def on_field(self, field: str) -> IndexFact | None:
        """The index on a field."""
        return next((one for one in self.indexes if one.field == field), None)

    def index(self, name: str) -> IndexFact | None:
        """The index of a name."""
        return next((one for one in self.indexes if one.name == name), None)


def facts_of(index: Index) -> Facts:
    """What is remembered now: one look. Blocks."""
    return facts_in(index, index.notes.read())


def change_facts(index: Index, make: Callable[[Facts], Facts]) -> Facts:
    """Let it become what ``make`` makes of it; returns that once it is durable. ``make`` may raise, and may be called again.

    Raises Gone for an index in whose place another was made meanwhile. Blocks.
    """

    def changed(notes: dict[str, Any]) -> dict[str, Any]:
        return notes | make(facts_in(index, notes)).model_dump(mode="json")

    became = facts_in(index, index.notes.change(changed))
    index.hold()
    return became


def made_elsewhere(index: Index) -> bool:
    """Was it made at a door where nothing is to be done before an index is used?"""
    return index.record.row_schema in (None, INT64_SCHEMA)


def facts_in(index: Index, notes: dict[str, Any]) -> Facts:
    """What notes of an index remember."""
    if notes:
        return Facts.model_validate(notes)
    if not made_elsewhere(index):
        return Facts()
    return Facts(
        made=True,
        loaded=True,
        indexes=tuple(
            IndexFact(name=field, field=field, metric=metric)
            for field, metric in vector_metrics(index).items()
        ),
        shards=index.record.shards,
    )


def vector_metrics(index: Index) -> dict[str, str]:
    """The fields that are vectors, and Milvus's name of what each is compared by."""
    record, schema = index.record, index.record.effective_schema
    dense = {schema.vector_field: METRIC_NAMES[record.metric]} if record.kind.has_dense else {}
    sparse = SPARSE_METRIC if schema.full_text is None else BM25_METRIC
    return dense | ({schema.sparse_field: sparse} if record.kind.has_sparse else {})


def bm25_of(schema: RowSchema, facts: Facts) -> Bm25 | None:
    """How the sparse vectors of a collection are compared if a function makes them of texts; None if they are sent."""
    if schema.full_text is None:
        return None
    index = facts.on_field(schema.sparse_field)
    told = {} if index is None else index.params
    return Bm25(**{name: float(told[f"bm25_{name}"]) for name in ("k1", "b") if f"bm25_{name}" in told})


def schema_with(schema: RowSchema, facts: Facts) -> RowSchema:
    """A schema with what was added to it and changed of it since."""
    fields = tuple(_changed(one, facts.params.get(one.name, {})) for one in (*schema.fields, *facts.added))
    id_bytes_max = schema.id_bytes_max
    if id_bytes_max is not None:
        id_bytes_max = _number(facts.params.get(schema.id_field, {}), "max_length", id_bytes_max)
    if fields == schema.fields and id_bytes_max == schema.id_bytes_max:
        return schema
    order = (*schema.order, *(one.name for one in facts.added)) if schema.order else ()
    return schema.model_copy(update={"fields": fields, "order": order, "id_bytes_max": id_bytes_max})


def _changed(field: ScalarField, params: dict[str, str]) -> ScalarField:
    """A field with the sizes that its parameters say."""
    sizes = {}
    if field.bytes_max is not None:
        sizes["bytes_max"] = _number(params, "max_length", field.bytes_max)
    if field.capacity is not None:
        sizes["capacity"] = _number(params, "max_capacity", field.capacity)
    return field.model_copy(update=sizes) if sizes else field


def _number(params: dict[str, str], name: str, otherwise: int) -> int:
    given = params.get(name, "")
    return int(given) if given.isascii() and given.isdigit() else otherwise
