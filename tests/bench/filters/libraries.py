"""The stores that are libraries: Qdrant Edge, LanceDB, Milvus Lite, zvec. Each with its indexes of properties."""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Sequence
from typing import Any, ClassVar

from tests.bench.filters.base import Build, Effort, FilteredTask
from tests.bench.filters.cases import Condition, Where
from tests.bench.peers import lance, milvus, qdrant, zvec_library
from tests.bench.peers.base import TOP_K, Matrix, Variant


def expression(where: Where, equal: str, conjunction: str) -> str:
    """A filter in the language that LanceDB, Milvus Lite and zvec share but for two words."""
    return f" {conjunction} ".join(_condition(one, equal, conjunction) for one in where)


def _condition(one: Condition, equal: str, conjunction: str) -> str:
    first = _literal(one.values[0])
    match one.operator:
        case "range":
            return f"{one.column} >= {first} {conjunction} {one.column} < {_literal(one.values[1])}"
        case "in":
            values = ", ".join(map(_literal, one.values))
            return f"{one.column} IN ({values})" if equal == "=" else f"{one.column} in [{values}]"
        case "!=":
            return f"{one.column} != {first}"
    return f"{one.column} {equal} {first}"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _with(settings: dict[str, Any], what: str) -> dict[str, Any]:
    return {**settings, "properties": what}


def _qdrant_ways(variant: Variant) -> list[list[Effort]]:
    """Without and with ACORN, for filters that the graph was not built for; candidates by quantized vectors compared exactly."""
    finer = {"rescore": True, "oversampling": 2.0} if "quantization" in variant.settings else {}
    ways: list[list[Effort]] = [
        [{**effort, **finer, "acorn": acorn} for effort in variant.efforts] for acorn in (False, True)
    ]
    if finer:
        ways.append(list(variant.efforts))
    return [*ways, [{"exact": True}]]


class FilteredQdrant(qdrant.QdrantEdge):
    """Payload indexes are made first, so that the graph gets the links that filters need; few rows are compared one by one.

    ``flag`` is 0 or 1: the Python binding asks for 1 where it is told to ask for true, and nothing is found.
    """

    #: Qdrant's default.
    full_scan_kb = 10_000

    BUILDS: ClassVar = {
        name: Build(_with(variant.settings, "payload indexes; flag as 0 or 1"), _qdrant_ways(variant))
        for name, variant in qdrant.VARIANTS.items()
    }

    def __init__(self, task: FilteredTask) -> None:
        super().__init__(task)
        self._properties = task.properties

    def _point(self, row: int) -> Any:
        vector = self._task.vectors[row].tolist()
        properties = self._properties(row)
        return self._edge.Point(id=row, vector=vector, payload=properties | {"flag": int(properties["flag"])})

    def load(self) -> None:
        """Payload indexes before points."""
        kind = self._edge.PayloadSchemaType
        kinds = {"n": kind.Integer, "cat": kind.Keyword, "flag": kind.Integer, "cluster": kind.Keyword}
        for name, one in kinds.items():
            self._shard.update(self._edge.UpdateOperation.create_field_index(name, one))
        super().load()

    def tune(self, effort: Effort) -> None:
        """Settings are the query's."""
        edge, known = self._edge, dict(effort)
        finer = {name: known.pop(name) for name in ("rescore", "oversampling") if name in known}
        self._params = edge.SearchParams(
            hnsw_ef=known.get("hnsw_ef"),
            exact=known.get("exact", False),
            acorn=edge.AcornSearchParams(enable=True) if known.get("acorn") else None,
            quantization=edge.QuantizationSearchParams(**finer) if finer else None,
        )

    def ask(self, query: Matrix, where: Where) -> Sequence[int]:
        """A search request."""
        edge = self._edge
        must = [self._condition(one) for one in where if one.operator != "!="]
        must_not = [self._condition(one) for one in where if one.operator == "!="]
        request = edge.SearchRequest(
            query=edge.Query.Nearest(query.tolist()),
            limit=TOP_K,
            filter=edge.Filter(must=must, must_not=must_not) if where else None,
            params=self._params,
        )
        return [point.id for point in self._shard.search(request)]

    def _condition(self, one: Condition) -> Any:
        edge = self._edge
        match one.operator:
            case "range":
                low, high = map(float, one.values)
                return edge.FieldCondition(key=one.column, range=edge.RangeFloat(gte=low, lt=high))
            case "in":
                return edge.FieldCondition(key=one.column, match=edge.MatchAny(any=list(one.values)))
        value = int(one.values[0]) if one.column == "flag" else one.values[0]
        return edge.FieldCondition(key=one.column, match=edge.MatchValue(value=value))


def _all_lists(efforts: Sequence[Effort], name: str) -> list[Effort]:
    """Filters may take more lists than all vectors do: also half of them, and all."""
    if name not in efforts[0]:
        return list(efforts)
    return [*efforts, *({**efforts[-1], name: lists} for lists in (192, 316))]


def _lance_ways(variant: Variant) -> list[list[dict[str, Any]]]:
    """More lists than asked for are read until there are enough rows; or no vectors' index at all."""
    searched = []
    for effort in _all_lists(variant.efforts, "nprobes"):
        known = dict(effort)
        searched.append({"minimum_nprobes": known.pop("nprobes"), "maximum_nprobes": 0, **known})
    return [searched, [{"bypass_vector_index": True}]]


class FilteredLance(lance.Lance):
    """Scalar indexes as LanceDB advises: a B-tree for many values, bitmaps for few. The filter comes first."""

    BUILDS: ClassVar = {
        name: Build(_with(variant.settings, "BTREE on n, else BITMAP"), _lance_ways(variant))
        for name, variant in lance.VARIANTS.items()
    }

    def __init__(self, task: FilteredTask) -> None:
        super().__init__(task)
        self._columns = task.columns

    def prepare(self) -> None:
        """Also the columns of the properties."""
        super().prepare()
        arrow: Any = importlib.import_module("pyarrow")
        for name, column in self._columns.items():
            self._data = self._data.append_column(name, arrow.array(column.tolist()))

    def load(self) -> None:
        """Also the scalar indexes."""
        super().load()
        for name in self._columns:
            self._table.create_scalar_index(name, index_type="BTREE" if name == "n" else "BITMAP")
        self._table.wait_for_index([f"{name}_idx" for name in self._columns], dt.timedelta(minutes=30))

    def tune(self, effort: Effort) -> None:
        """Settings are the query's."""
        self._effort = dict(effort)

    def ask(self, query: Matrix, where: Where) -> Sequence[int]:
        """A search of the table."""
        asked = self._table.search(query, vector_column_name="embedding").distance_type("cosine")
        # Without the distance it would write a warning about it, every time.
        asked = asked.select(["id", "_distance"]).limit(TOP_K)
        if where:
            asked = asked.where(expression(where, "=", "AND"), prefilter=True)
        for name, value in self._effort.items():
            asked = (
                asked.bypass_vector_index() if name == "bypass_vector_index" else getattr(asked, name)(value)
            )
        ids: list[int] = asked.to_arrow()["id"].to_pylist()
        return ids


class FilteredMilvus(milvus.MilvusLite):
    """With an inverted index of each property."""

    BUILDS: ClassVar = {
        name: Build(_with(variant.settings, "INVERTED"), [_all_lists(variant.efforts, "nprobe")])
        for name, variant in milvus.VARIANTS.items()
    }

    def __init__(self, task: FilteredTask) -> None:
        super().__init__(task)
        self._columns = task.columns
        self._properties = task.properties

    def _add_fields(self, schema: Any, types: Any) -> None:
        for name, kind in {"n": types.INT64, "flag": types.BOOL}.items():
            schema.add_field(name, kind)
        for name in ("cat", "cluster"):
            schema.add_field(name, types.VARCHAR, max_length=16)

    def _item(self, row: int) -> dict[str, Any]:
        return {**super()._item(row), **self._properties(row)}

    def _add_indexes(self, index: Any) -> None:
        for name in self._columns:
            index.add_index(name, index_type="INVERTED")

    def tune(self, effort: Effort) -> None:
        """Settings are the query's."""
        super().tune(dict(effort))

    def ask(self, query: Matrix, where: Where) -> Sequence[int]:
        """A search with a filter."""
        found = self._client.search(
            "items",
            data=[query],
            anns_field="embedding",
            limit=TOP_K,
            search_params=self._params,
            filter=expression(where, "==", "and"),
        )
        return [hit["id"] for hit in found[0]]


def _zvec_ways(name: str, variant: Variant) -> list[list[Effort]]:
    """By the index, or one by one; of plain lists, all of them are the same."""
    searched = _all_lists(variant.efforts, "nprobe")
    return [searched] if name == "ivf" else [searched, [{"is_linear": True}]]


class FilteredZvec(zvec_library.Zvec):
    """With an inverted index of each property."""

    BUILDS: ClassVar = {
        name: Build(_with(variant.settings, "inverted index"), _zvec_ways(name, variant))
        for name, variant in zvec_library.VARIANTS.items()
    }

    def __init__(self, task: FilteredTask) -> None:
        super().__init__(task)
        self._properties = task.properties

    def _fields(self) -> list[Any]:
        zvec = self._zvec
        kinds = {"n": zvec.DataType.INT64, "cat": zvec.DataType.STRING}
        kinds |= {"flag": zvec.DataType.BOOL, "cluster": zvec.DataType.STRING}
        index = zvec.InvertIndexParam(enable_range_optimization=True)
        return [zvec.FieldSchema(name, kind, index_param=index) for name, kind in kinds.items()]

    def _doc(self, row: int) -> Any:
        vectors = {"embedding": self._task.vectors[row]}
        return self._zvec.Doc(id=str(row), vectors=vectors, fields=self._properties(row))

    def tune(self, effort: Effort) -> None:
        """Settings are the query's."""
        super().tune(dict(effort))

    def ask(self, query: Matrix, where: Where) -> Sequence[int]:
        """A query with a filter."""
        asked = self._zvec.Query(field_name="embedding", vector=query, param=self._param)
        wanted = expression(where, "=", "and") if where else None
        found = self._collection.query(asked, topk=TOP_K, filter=wanted, output_fields=[])
        return [int(doc.id) for doc in found]
