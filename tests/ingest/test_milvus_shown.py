"""Rows as the Milvus door shows them: exact digits, and what is shown of a row when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pytest

from ingest.doors.milvus.errors import MilvusError
from ingest.doors.milvus.output_fields import is_count, shown_of
from ingest.doors.milvus.shown_rows import Style, distance_of, hit_of, row_of, sparse_text
from ingest.large import encode
from upwell.kinds import IndexKind
from upwell.query.search import Match
from upwell.schema import OPEN_SCHEMA, FieldType, IdType, RowSchema, ScalarField
from upwell.shard.metric import Metric

BIG = 2**53 + 1
TYPED = RowSchema(
    id_field="key",
    ids=IdType.INT64,
    vector_field="v",
    sparse_field="s",
    fields=(
        ScalarField(name="n", type=FieldType.INT64),
        ScalarField(name="f", type=FieldType.FLOAT),
        ScalarField(name="d", type=FieldType.DOUBLE),
        ScalarField(name="j", type=FieldType.JSON),
        ScalarField(name="a", type=FieldType.ARRAY, element=FieldType.INT64),
        ScalarField(name="g", type=FieldType.ARRAY, element=FieldType.FLOAT),
        ScalarField(name="t", type=FieldType.VARCHAR, nullable=True),
    ),
)
FULL: dict[str, Any] = {
    "n": BIG,
    "f": 0.1,
    "d": 0.1,
    "j": {"x": [1, None]},
    "a": [BIG],
    "g": [0.1, 1e9],
    "more": BIG,
    "other": {"y": 1},
}
INT64 = Style(IdType.INT64)


@dataclass(frozen=True)
class PlainFound:
    """A row that is in no segment."""

    id: str
    metadata: bytes | None = None
    values: Any = None
    sparse: Any = None


def show(names: list[str], style: Style = INT64, schema: RowSchema = TYPED, **row: Any) -> str:
    """The text of a row that is shown."""
    found: Any = PlainFound(
        str(BIG),
        orjson.dumps(row.get("metadata", FULL)),
        np.array([0.1, 1e-7], np.float32),
        (np.array([7, 1], np.int32), np.array([0.5, 0.1], np.float32)),
    )
    return encode(row_of(found, shown_of(schema, IndexKind.HYBRID, names), style)).decode()


def test_everything_has_the_digits_of_its_type() -> None:
    assert show(["*"]) == (
        f'{{"key":{BIG},"n":{BIG},"f":0.1,"d":0.1,"j":{{"x":[1,null]}},"a":[{BIG}],"g":[0.1,1000000000.0],"t":null,'
        f'"more":{BIG},"other":{{"y":1}},"v":[0.1,1e-7],"s":{{"1":0.1,"7":0.5}}}}'
    )


def test_a_float_that_was_written_with_more_digits_is_shown_as_the_float32_it_is() -> None:
    shown = orjson.loads(show(["f", "d"], metadata={"f": 0.1234567891, "d": 0.1234567891}))
    assert (shown["f"], shown["d"]) == (0.12345679, 0.1234567891)


def test_integers_of_64_bits_become_texts_where_they_are_declared_and_nowhere_else() -> None:
    shown = orjson.loads(show(["*"], Style(IdType.INT64, int64_as_text=True)))
    assert (shown["key"], shown["n"], shown["a"]) == (str(BIG), str(BIG), [str(BIG)])
    assert (shown["more"], shown["other"]) == (BIG, {"y": 1})


def test_json_may_be_text() -> None:
    assert orjson.loads(show(["j"], Style(IdType.INT64, json_as_text=True)))["j"] == '{"x":[1,null]}'


def test_a_value_that_is_not_of_its_type_stays_what_it_is() -> None:
    wrong = {"n": "x", "f": "y", "a": 3, "g": ["z", None]}
    shown = orjson.loads(show(["n", "f", "a", "g"], Style(IdType.INT64, int64_as_text=True), metadata=wrong))
    assert {name: shown[name] for name in wrong} == wrong


def test_text_ids_stay_texts() -> None:
    shown = orjson.loads(show([], Style(IdType.TEXT), OPEN_SCHEMA))
    assert shown == {"id": str(BIG)}


@pytest.mark.parametrize(
    ("names", "has"),
    [
        ([], {"key"}),
        (["key"], {"key"}),
        ([" n ", "v"], {"key", "n", "v"}),
        (["s", "t"], {"key", "s", "t"}),
        (["more"], {"key", "more"}),
        (["nobody"], {"key"}),
        (['$meta["other"]', "$meta['more']"], {"key", "other", "more"}),
        (["$meta"], {"key", "more", "other"}),
    ],
)
def test_only_what_was_asked_for_is_shown(names: list[str], has: set[str]) -> None:
    assert orjson.loads(show(names)).keys() == has


@pytest.mark.parametrize("name", ['j["x"]', "a[0]", "count(n)", "", "$other"])
def test_parts_of_fields_cannot_be_shown(name: str) -> None:
    with pytest.raises(MilvusError, match="parse output field name failed") as refused:
        shown_of(TYPED, IndexKind.DENSE, [name])
    assert refused.value.code == 65535


@pytest.mark.parametrize("name", ["nobody", "$meta", "s"])
def test_without_dynamic_fields_there_are_only_the_declared_ones(name: str) -> None:
    closed = TYPED.model_copy(update={"dynamic": False})
    with pytest.raises(MilvusError, match="not exist"):
        shown_of(closed, IndexKind.DENSE, [name])
    assert orjson.loads(show(["*"], schema=closed)).keys() == FULL.keys() - {"more", "other"} | {
        "key",
        "t",
        "v",
        "s",
    }


def test_no_member_of_the_metadata_takes_the_place_of_a_field() -> None:
    odd = {"id": "mine", "vector": "mine", "x": 1}
    shown = orjson.loads(show(["*"], Style(IdType.TEXT), OPEN_SCHEMA, metadata=odd))
    assert shown["id"] == str(BIG) and shown["vector"] == [0.1, 1e-7] and shown["x"] == 1


def test_what_v1_calls_id_is_the_id_whatever_else_is_called_so() -> None:
    odd = TYPED.model_copy(update={"fields": (ScalarField(name="id", type=FieldType.VARCHAR),)})
    for schema, names in ((odd, ["*"]), (odd, ["id", "key"]), (TYPED, ["id"]), (TYPED, ["*"])):
        shown = shown_of(schema, IndexKind.SPARSE, names, "id")
        found: Any = PlainFound("7", b'{"id":"other","key":"other"}')
        row = row_of(found, shown, INT64)
        assert row["id"] == 7 and "key" not in row


@pytest.mark.parametrize(
    ("metric", "closeness", "distance"),
    [
        (Metric.EUCLIDEAN, -2.0, "2.0"),
        (Metric.EUCLIDEAN, -0.0, "0.0"),
        (Metric.EUCLIDEAN, 0.0, "0.0"),
        (Metric.EUCLIDEAN, -1e300, "3.4028235e+38"),
        (Metric.COSINE, 0.1, "0.1"),
        (Metric.DOT_PRODUCT, -0.0, "0.0"),
        (Metric.DOT_PRODUCT, -1e300, "-3.4028235e+38"),
    ],
)
def test_a_distance_is_a_float32(metric: Metric, closeness: float, distance: str) -> None:
    found: Any = PlainFound("1")
    shown = shown_of(OPEN_SCHEMA, IndexKind.DENSE, [])
    row = hit_of(Match(found, closeness), shown, Style(IdType.INT64), distance_of(metric))
    assert encode(row) == f'{{"id":1,"distance":{distance}}}'.encode()


def test_a_sparse_vector_is_a_map() -> None:
    def shown(pairs: list[tuple[int, float]]) -> bytes:
        return sparse_text(
            np.array([one for one, _ in pairs], np.int32), np.array([one for _, one in pairs], np.float32)
        )

    assert shown([]) == b"{}"
    assert shown([(9, 0.1), (2, 1e-7)]) == b'{"2":1e-7,"9":0.1}'
    assert shown([(3, 0.5), (3, 0.25)]) == b'{"3":0.75}'
    assert shown([(-1, 1.0)]) == b'{"4294967295":1.0}', "indices are unsigned"


@pytest.mark.parametrize(
    ("names", "is_one"),
    [(["count(*)"], True), ([" COUNT(*)"], True), (["count(*)", "id"], False), ([], False)],
)
def test_what_asks_for_a_count(names: list[str], is_one: bool) -> None:
    assert is_count(names) is is_one
