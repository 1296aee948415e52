"""Requests and results of the Cloudflare door, as pydantic models.

Requests are lenient where Cloudflare's own clients are careless (a boolean ``returnMetadata``, a null namespace) and exact
where a mistake would go unnoticed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel

from ingest.body.precise import FLOAT32_END
from ingest.doors.cloudflare.errors import invalid_config
from ingest.doors.cloudflare.filters import FILTER_SCHEMA
from upwell.catalog.record import IndexRecord
from upwell.changeset import KeyScope
from upwell.embed.configuration import NAME_LENGTH_MAX
from upwell.kinds import IndexKind
from upwell.properties import PropertyType
from upwell.schema import IdType
from upwell.shard.metric import Metric
from upwell.status import MutationStatus as MutationStatus  # noqa: PLC0414  results of this door too
from upwell.status import Shown
from upwell.status import mutation_status as mutation_status  # noqa: PLC0414
from upwell.status import timestamp as timestamp  # noqa: PLC0414

INDEX_NAME_PATTERN = r"^[a-z]+[a-z0-9_-]*[a-z0-9]+$"
INDEX_NAME_BYTES_MAX = 64
NAMESPACE_BYTES_MAX = 64
TOP_K_DEFAULT = 5
TOP_K_MAX = 100
#: With values or all metadata, answers are larger, and fewer may be asked for.
TOP_K_MAX_FULL = 50


class Request(BaseModel):
    """Keys a client adds that we do not know are ignored, as Cloudflare does."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Result(Shown):
    """What goes into an envelope's ``result``."""


#: Embedding models by which an index may be described, and their dimensions. Which metric Cloudflare takes for each is not
#: documented; all of these are trained for, and documented with, the cosine.
PRESETS = {
    "@cf/baai/bge-small-en-v1.5": 384,
    "@cf/baai/bge-base-en-v1.5": 768,
    "@cf/baai/bge-large-en-v1.5": 1024,
    "openai/text-embedding-ada-002": 1536,
    "cohere/embed-multilingual-v2.0": 768,
}


class IndexConfig(Request):
    """Dimensions and metric."""

    #: Their range is a setting's, and told in Cloudflare's words.
    dimensions: Annotated[int, Field(strict=True, json_schema_extra={"minimum": 1})]
    metric: Metric


class ModelConfig(Request):
    """A metric; the dimensions may be left out, and are an embedding model's."""

    dimensions: Annotated[int, Field(strict=True, json_schema_extra={"minimum": 1})] | None = None
    metric: Metric


class PresetConfig(Request):
    """The name of an embedding model stands for both."""

    preset: Annotated[str, Field(json_schema_extra={"enum": list(PRESETS)})]


def _resolved(config: object) -> object:
    """A config with its preset resolved, if it has one."""
    if not isinstance(config, dict) or "preset" not in config:
        return config
    if "dimensions" in config or "metric" in config:
        raise ValueError("expected a preset, or dimensions and metric, and not both")
    dimensions = PRESETS.get(config["preset"]) if isinstance(config["preset"], str) else None
    if dimensions is None:
        raise ValueError(f"unknown preset, expected one of {', '.join(PRESETS)}")
    return {"dimensions": dimensions, "metric": Metric.COSINE}


def _nothing(because: str) -> BeforeValidator:
    """For what one kind of index has not."""

    def check(given: object) -> None:
        if given not in (None, {}):
            raise ValueError(because)

    return BeforeValidator(check, json_schema_input_type=None)


#: Of an embedding model.
ModelName = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH_MAX)]


class CreateIndexBody(Request):
    """What every kind of index is made of. Cloudflare has name, config and description; the rest is Upwell's own."""

    name: Annotated[str, Field(pattern=INDEX_NAME_PATTERN, max_length=INDEX_NAME_BYTES_MAX)]
    config: Any
    description: str | None = Field(None, max_length=1024)
    shards: Annotated[int, Field(ge=1, le=64, strict=True)] | None = None
    kind: IndexKind = IndexKind.DENSE
    ids_unique_in: Literal["index", "namespace"] | None = Field(
        None,
        description="Left out: a namespace if there are sparse vectors, else what the first write that names a namespace has it.",
    )
    ids: IdType | None = Field(
        None,
        description="What ids are: texts, if left out, or integers of 64 bits, which are sent and shown as their digits here.",
    )
    embedding_model: ModelName | None = Field(None, description="Makes dense vectors of text.")
    sparse_embedding_model: ModelName | None = Field(
        None,
        description="Makes sparse vectors of text. Left out of a hybrid index with an embedding model: BM25.",
    )

    @property
    def dimensions(self) -> int | None:
        """0 of a sparse index; None: those of its embedding model."""
        return 0

    @property
    def metric(self) -> Metric:
        """Sparse vectors compare by their inner product."""
        return Metric.DOT_PRODUCT


#: Only an index that has sparse vectors can have a model for them.
_SPARSE_IF_HYBRID: dict[str, JsonValue] = {
    "anyOf": [
        {"required": ["kind"], "properties": {"kind": {"const": "hybrid"}}},
        {"properties": {"sparseEmbeddingModel": {"type": "null"}}},
    ]
}


def _known_kind(kind: object) -> object:
    if kind not in list(IndexKind):
        raise ValueError(f"expected one of {', '.join(IndexKind)}")
    return kind


_DenseKind = Annotated[Literal[IndexKind.DENSE, IndexKind.HYBRID], BeforeValidator(_known_kind)]


class _CreateWithDense(CreateIndexBody):
    """What indexes with dense vectors have in common, whoever says how many dimensions these have."""

    model_config = ConfigDict(json_schema_extra=_SPARSE_IF_HYBRID)

    config: IndexConfig | ModelConfig
    kind: _DenseKind = IndexKind.DENSE

    @model_validator(mode="before")
    @classmethod
    def _has_config(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("config") is None:
            raise invalid_config("Config must be provided")
        return given

    @property
    def dimensions(self) -> int | None:
        return self.config.dimensions

    @property
    def metric(self) -> Metric:
        return self.config.metric


class CreateIndex(_CreateWithDense):
    """Body of create, of an index with dense vectors."""

    config: Annotated[
        IndexConfig, BeforeValidator(_resolved, json_schema_input_type=IndexConfig | PresetConfig)
    ]
    embedding_model: Annotated[None, WithJsonSchema({"type": "null"})] = None


class CreateEmbeddingIndex(_CreateWithDense):
    """The same, with an embedding model, which has dimensions of its own."""

    config: Annotated[
        ModelConfig, BeforeValidator(_resolved, json_schema_input_type=ModelConfig | PresetConfig)
    ]
    embedding_model: ModelName


class CreateSparseIndex(CreateIndexBody):
    """The same, with sparse vectors only."""

    config: Annotated[None, _nothing("a sparse index has neither dimensions nor a metric")] = None
    kind: Literal[IndexKind.SPARSE]
    embedding_model: Annotated[None, _nothing("a sparse index has no dense vectors")] = None


def create_index_body(given: object) -> type[CreateIndexBody]:
    """Which of them a body means to be."""
    if not isinstance(given, dict):
        return CreateIndex
    if given.get("kind") == IndexKind.SPARSE:
        return CreateSparseIndex
    return CreateIndex if given.get("embeddingModel") is None else CreateEmbeddingIndex


def _lenient_return_metadata(value: object) -> object:
    if isinstance(value, bool):
        return "all" if value else "none"
    return "none" if value is None else value


#: That a number is not too large for a float32 is seen later, for all at once.
_Number = Annotated[
    float,
    Field(strict=True, json_schema_extra={"exclusiveMinimum": -FLOAT32_END, "exclusiveMaximum": FLOAT32_END}),
]


def _asks_by(key: str) -> dict[str, Any]:
    """For the API description: this key has a value, and so the other has none."""
    properties = {name: {"type": "null"} for name in ("vector", "vectorId") if name != key}
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}} | properties}


class Query(Request):
    """Body of query: exactly one of ``vector`` and ``vectorId``. ``after`` is Upwell's own."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_asks_by("vector"), _asks_by("vectorId")]})

    #: At the first that is no number the rest is not looked at: a list of all mistakes may be a thousand times the body.
    vector: Annotated[list[_Number], Field(fail_fast=True)] | None = None
    vector_id: str | None = None
    #: Whether it is too large depends on what else is asked for, and is told in Cloudflare's words.
    top_k: Annotated[int, Field(ge=1, strict=True, json_schema_extra={"maximum": TOP_K_MAX})] = TOP_K_DEFAULT
    return_values: Annotated[bool, Field(strict=True)] = False
    return_metadata: Annotated[
        Literal["none", "indexed", "all"],
        BeforeValidator(
            _lenient_return_metadata, json_schema_input_type=Literal["none", "indexed", "all"] | bool | None
        ),
    ] = "none"
    namespace: str | None = None
    filter: Annotated[dict[str, Any], WithJsonSchema(FILTER_SCHEMA)] | None = None
    #: A mutationId that this query must reflect.
    after: str | None = None

    @model_validator(mode="after")
    def _one_question(self) -> Query:
        if (self.vector is None) == (self.vector_id is None):
            raise ValueError("expected exactly one of vector and vectorId")
        return self


PROPERTY_CHARACTERS_MAX = 512
#: Keys joined by dots, none of them empty, with " or | in it, or beginning with $: what a filter can ask for.
PROPERTY_PATTERN = r'^[^$."|][^."|]*(\.[^$."|][^."|]*)*$'

PropertyName = Annotated[
    str,
    Field(
        max_length=PROPERTY_CHARACTERS_MAX,
        pattern=PROPERTY_PATTERN,
        # langchain-cloudflare 0.4.3 says property where it deletes.
        validation_alias=AliasChoices("propertyName", "property"),
    ),
]


class CreateMetadataIndex(Request):
    """Body of metadata_index/create."""

    property_name: PropertyName
    index_type: PropertyType


class DeleteMetadataIndex(Request):
    """Body of metadata_index/delete."""

    property_name: PropertyName


def index_result(record: IndexRecord) -> dict[str, Any]:
    """The index object of create, list and get: what Cloudflare's has, and in what the index differs from one of theirs."""
    created = timestamp(record.created_at)
    result: dict[str, Any] = {
        "name": record.name,
        "config": {"dimensions": record.dimensions, "metric": record.metric},
        "created_on": created,
        "modified_on": created,
    }
    if record.description is not None:
        result["description"] = record.description
    return result | own_result(record, record.key_scope)


def own_result(record: IndexRecord, scope: KeyScope) -> dict[str, Any]:
    """What is said of an index where it differs from Cloudflare's, which are dense, with ids that are unique in all of them."""
    result: dict[str, Any] = {}
    if record.kind is not IndexKind.DENSE:
        result["kind"] = record.kind
    if scope is KeyScope.NAMESPACE:
        result["idsUniqueIn"] = scope
    if record.row_schema is not None and record.row_schema.ids is not IdType.TEXT:
        result["ids"] = record.row_schema.ids
    if record.embedding_model is not None:
        result["embeddingModel"] = record.embedding_model
    if record.sparse_embedding_model is not None:
        result["sparseEmbeddingModel"] = record.sparse_embedding_model
    return result
