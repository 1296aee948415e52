"""The bodies of searches, as clients send them. What their parameters mean is told in ``search_params.py``."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field
from pydantic.alias_generators import to_camel

from ingest.doors.milvus.context import Body, ListOf
from ingest.doors.milvus.errors import invalid
from ingest.doors.milvus.reads import LIMIT_DEFAULT, OfRows

#: Of a body. As Python objects its numbers take four times as much.
SEARCH_BYTES_MAX: Final = 32 << 20


class SearchV1(OfRows):
    """The body of v1's ``search``."""

    vector: list[Any]
    filter: str = ""
    limit: int = LIMIT_DEFAULT
    offset: int = 0
    output_fields: ListOf[str] = Field(default=[])
    params: dict[str, Any] = Field(default={})


class Grouped(OfRows):
    """How what is found may be grouped."""

    grouping_field: str = ""
    group_size: int = 0
    strict_group_size: bool = False
    limit: int = LIMIT_DEFAULT
    offset: int = 0
    output_fields: ListOf[str] = Field(default=[])
    #: What is not done here, and would otherwise be answered as if it were.
    function_score: Any = None
    function_chains: Any = None
    search_aggregation: Any = None
    order_by_fields: Any = None

    def check(self) -> None:
        """Raise MilvusError if it asks for what is not done here."""
        for name in ("function_score", "function_chains", "search_aggregation", "order_by_fields"):
            given = getattr(self, name)
            if isinstance(given, dict) and "functions" in given:
                given = given["functions"]
            if given:
                raise invalid(f"{to_camel(name)} is not supported")


class SearchV2(Grouped):
    """The body of v2's ``search``."""

    data: list[Any] = Field(default=[])
    ids: list[Any] = Field(default=[])
    anns_field: str = ""
    filter: str = ""
    search_params: dict[str, Any] = Field(default={})
    expr_params: dict[str, Any] = Field(default={})


class SubSearch(Body):
    """One of the searches of ``hybrid_search``. What Milvus calls ``params`` here are a search's parameters."""

    data: list[Any] = Field(default=[])
    anns_field: str = ""
    filter: str = ""
    #: 0: as many as the whole is to find.
    limit: int = 0
    metric_type: str = ""
    params: dict[str, Any] = Field(default={})
    search_params: dict[str, Any] = Field(default={})
    expr_params: dict[str, Any] = Field(default={})


class Rerank(Body):
    """How searches are made one."""

    strategy: str = ""
    params: dict[str, Any] = Field(default={})


class HybridSearch(Grouped):
    """The body of ``hybrid_search``, and of ``advanced_search``, as it was called before."""

    search: ListOf[SubSearch] = Field(default=[])
    rerank: Rerank = Rerank()
