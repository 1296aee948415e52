"""Full-text search at the Milvus door: vectors made of texts when rows are written, and texts compared by BM25 when they are searched for."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from ingest.doors.milvus import rows as reading_rows
from ingest.doors.milvus.facts import IndexFact, change_facts
from tests.milvus_house import MilvusHouse, Row, milvus_house
from tests.milvus_read_rows import metadata_of, read_rows
from tests.milvus_rows import ids, made
from tests.plain_full_text import bm25_scores, ranked
from upwell.clock import SystemClock
from upwell.errors import UpwellError
from upwell.kinds import IndexKind
from upwell.schema import FieldType, FullText, IdType, RowSchema, ScalarField
from upwell.text.analyzer import Analyzer, analyzer_of
from upwell.text.counts import dimension_of, term_counts

TEXT = ScalarField(name="text", type=FieldType.VARCHAR, bytes_max=65_535, analyzer={})
SCHEMA = RowSchema(ids=IdType.INT64, fields=(TEXT,), full_text=FullText(name="bm25", field="text"))
FOX: list[Row] = [
    {"id": 1, "text": "the quick brown fox"},
    {"id": 2, "text": "the lazy dog"},
    {"id": 3, "text": "the fox and the dog and the fox"},
    {"id": 4, "text": "..."},
]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[MilvusHouse]:
    async with milvus_house(tmp_path, milvus_analysis_s_max=60) as house:
        yield house


async def filled(house: MilvusHouse, rows: list[Row] | None = None, **how: Any) -> None:
    """A collection "c" with these rows."""
    made(house, **{"schema": SCHEMA, "kind": IndexKind.SPARSE, **how})
    await house.data("entities/insert", {"collectionName": "c", "data": FOX if rows is None else rows})


async def hits(house: MilvusHouse, *texts: str, **asked: Any) -> list[Row]:
    """What is found by texts, when all that was written is visible."""
    body = {"collectionName": "c", "data": list(texts), "consistencyLevel": "Strong", **asked}
    found: list[Row] = await house.data("entities/search", body)
    return found


def check_scores(found: list[Row], scores: dict[Any, float]) -> None:
    """Are these the rows, best first, with these scores?"""
    assert {row["id"]: row["distance"] for row in found} == pytest.approx(scores, rel=1e-5)
    distances = [row["distance"] for row in found]
    assert distances == sorted(distances, reverse=True)


def of_fox(query: str, **how: float) -> dict[Any, float]:
    return bm25_scores(query, {row["id"]: row["text"].strip(".") for row in FOX}, **how)


async def test_rare_words_and_short_texts_come_first(house: MilvusHouse) -> None:
    await filled(house)
    for query in ("fox", "FOX dog", "the", "quick lazy", "fox fox dog", "cat the"):
        found = await hits(house, query, outputFields=["text"])
        check_scores(found, of_fox(query))
        assert all(row.keys() == {"id", "text", "distance"} for row in found)
    assert ids(await hits(house, "the lazy fox"))[0] == 2


async def test_texts_without_terms(house: MilvusHouse) -> None:
    await filled(house)
    assert await hits(house, "") == await hits(house, "?!") == await hits(house, "cat") == []
    answer = await house.call(2, "entities/search", {"collectionName": "c", "data": ["", "dog", "..."]})
    assert (answer["topks"], ids(answer["data"])) == ([0, 2, 0], [2, 3])
    count = {"collectionName": "c", "filter": "", "outputFields": ["count(*)"], "consistencyLevel": "Strong"}
    assert await house.data("entities/query", count) == [{"count(*)": 4}]
    got = {"collectionName": "c", "id": 4}
    assert await house.data("entities/get", got) == [{"id": 4, "text": "..."}]
    await house.data("entities/delete", {"collectionName": "c", "filter": "id == 4"})
    assert await house.data("entities/query", count) == [{"count(*)": 3}]
    # One row fewer, so words are a little less rare, and lengths nearer to the mean.
    check_scores(await hits(house, "fox"), bm25_scores("fox", {row["id"]: row["text"] for row in FOX[:3]}))


async def test_whatever_is_written_scores_are_those_of_what_there_is(house: MilvusHouse) -> None:
    """Goal: no count of terms survives its row, and none is missing. Method: random writes, and after each some a search."""
    chance, texts = Random(5), dict[int, str]()
    made(house, SCHEMA, kind=IndexKind.SPARSE)

    def text() -> str:
        return " ".join(
            chance.choices(["ab", "cd", "ef", "gh", "ij", "kl", "mn"], k=chance.choice([0, 1, 2, 5, 12]))
        )

    for step in range(60):
        some = {chance.randrange(30): text() for _ in range(chance.randrange(1, 8))}
        rows = [{"id": id, "text": words} for id, words in some.items()]
        match chance.randrange(4):
            case 0:
                gone = list(some)
                await house.data("entities/delete", {"collectionName": "c", "filter": f"id in {gone}"})
                texts = {id: words for id, words in texts.items() if id not in some}
            case 1:
                some = {id: words for id, words in some.items() if id in texts} or {1: "ab"}
                changed = [{"id": id, "text": words, "n": step} for id, words in some.items()]
                await house.data(
                    "entities/upsert", {"collectionName": "c", "data": changed, "partialUpdate": True}
                )
                texts |= some
            case _:
                await house.data("entities/upsert", {"collectionName": "c", "data": rows})
                texts |= some
        if step % 3 == 0:
            query = text()
            check_scores(await hits(house, query), bm25_scores(query, texts))
    assert len(texts) > 10


async def test_a_partial_update_changes_the_vector_with_the_text_alone(house: MilvusHouse) -> None:
    await filled(house)
    partial = {"collectionName": "c", "partialUpdate": True}
    before = await hits(house, "fox")
    await house.data("entities/upsert", {**partial, "data": [{"id": 1, "n": 7}]})
    assert await hits(house, "fox") == before
    await house.data(
        "entities/upsert", {**partial, "data": [{"id": 1, "text": "a cat"}, {"id": 9, "text": "my cat"}]}
    )
    assert ids(await hits(house, "fox")) == [3] and sorted(ids(await hits(house, "cat"))) == [1, 9]
    (row,) = await house.data("entities/get", {"collectionName": "c", "id": 1})
    assert row == {"id": 1, "text": "a cat", "n": 7}
    code, says = await house.error("entities/upsert", {**partial, "data": [{"id": 10, "n": 7}]})
    assert code == 1100 and "fieldSchema(text) has no corresponding fieldData" in says
    code, says = await house.error("entities/upsert", {**partial, "data": [{"id": 1, "text": None}]})
    assert code == 1804 and "row 0 does not has field text" in says


@pytest.mark.parametrize("command", ["search", "hybrid_search", "insert"])
async def test_what_texts_cost_is_bounded(
    house: MilvusHouse, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Goal: texts whose analysis takes long end a request, and not each other's turn. Method: time passes with texts alone."""
    await filled(house)
    await house.settle()
    analyzed, real = list[str](), Analyzer.terms

    def slow(analyzer: Analyzer, text: str) -> list[str]:
        analyzed.append(text)
        return real(analyzer, text)

    began = time.monotonic()
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: began + 40 * len(analyzed))
    monkeypatch.setattr(Analyzer, "terms", slow)
    texts = ["the fox", "a dog", "a cat", "none", "too many"]
    bodies: dict[str, dict[str, Any]] = {
        "search": {"data": texts},
        "hybrid_search": {"search": [{"data": [text]} for text in texts], "limit": 1},
        "insert": {"data": [{"id": 10 + n, "text": text} for n, text in enumerate(texts)]},
    }
    code, says = await house.error(f"entities/{command}", {"collectionName": "c", **bodies[command]})
    assert code == 1100 and "more than 60 s" in says and analyzed == texts[:2]


def error_of(rows: Any, **how: Any) -> tuple[int, str]:
    with pytest.raises(UpwellError) as caught:
        read_rows(rows, SCHEMA, IndexKind.SPARSE, **how)
    return getattr(caught.value, "code", 0), caught.value.detail


@pytest.mark.parametrize("how", [{}, {"inserts": True}, {"partial": True}])
def test_rows_bring_texts_and_no_vectors(how: dict[str, bool]) -> None:
    says = "Attempt to insert an unexpected function output field `sparse` to collection: invalid parameter"
    for given in ({"1": 0.5}, {}, [1.0], 7, "text"):
        assert error_of({"id": 1, "text": "a", "sparse": given}, **how) == (1100, says)
    for nothing in (None, ""):
        changeset = read_rows({"id": 1, "text": "a b a", "sparse": nothing}, SCHEMA, IndexKind.SPARSE, **how)
        assert metadata_of(changeset) == [{"text": "a b a"}]
        assert changeset.sparse is not None
        indices, values = changeset.sparse.row(0)
        assert dict(zip(indices.tolist(), values.tolist(), strict=True)) == {
            dimension_of("a"): 2,
            dimension_of("b"): 1,
        }
    if "partial" not in how:
        assert error_of({"id": 1}, **how) == (
            1804,
            "fail to deal the insert data, error: row 0 does not has field text: invalid parameter",
        )
    assert error_of([{"id": 1, "text": "a"}, {"id": 2}], **how)[0] == 1804


def test_texts_that_are_defaults_or_null() -> None:
    def lengths(rows: list[Row], partial: bool = False, **more: Any) -> list[int]:
        schema = SCHEMA.model_copy(update={"fields": (TEXT.model_copy(update=more),)})
        changeset = read_rows(rows, schema, IndexKind.SPARSE, partial=partial)
        assert changeset.sparse is not None
        return [len(changeset.sparse.row(place)[0]) for place in range(len(rows))]

    rows: list[Row] = [{"id": 1}, {"id": 2, "text": "a"}, {"id": 3, "text": None}]
    assert lengths(rows, default="nothing said") == [2, 1, 2]
    assert lengths(rows, nullable=True) == [0, 1, 0]
    assert lengths(rows[1:], nullable=True, partial=True) == [1, 0]


def test_texts_are_analyzed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"word{n} word{n % 3}" * (n % 4) for n in range(50)]
    monkeypatch.setattr(reading_rows, "TEXTS_AT_ONCE", 40)
    changeset = read_rows([{"id": n, "text": text} for n, text in enumerate(texts)], SCHEMA, IndexKind.SPARSE)
    plain, kept = term_counts(analyzer_of({}), texts), changeset.sparse
    assert kept is not None and len(kept) == 50
    for part in ("indptr", "indices", "values"):
        assert np.array_equal(getattr(kept, part), getattr(plain, part))


async def test_a_text_with_very_many_words(house: MilvusHouse) -> None:
    words = [f"{n:x}z" for n in range(14_000)]
    long = " ".join(words)[:65_535]
    assert len(long) == 65_535
    await filled(house, [{"id": 1, "text": long}, {"id": 2, "text": f"{words[0]} {words[7]}"}])
    assert ids(await hits(house, words[7])) == [2, 1] and ids(await hits(house, words[9_000])) == [1]
    assert ids(await hits(house, long)) == [1, 2]
    code, says = await house.error("entities/search", {"collectionName": "c", "data": ["ok", "é" * 32_768]})
    assert code == 1100 and "data[1]: expected a text of at most 65535 bytes, got 65536" in says


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ({"data": [[0.1, 0.2]]}, 1100, "please provide varchar/text for BM25 Function based search, got FloatVector"),
        ({"data": ["fox", {"1": 0.5}]}, 1100, "BM25 Function based search, got SparseFloatVector"),
        ({"data": [7]}, 1100, "BM25 Function based search, got the number 7"),
        ({"data": [None]}, 1100, "BM25 Function based search, got null"),
        ({"data": ["fox"], "searchParams": {"metricType": "IP"}}, 1100, "metric type not match"),
        ({"data": ["fox"], "searchParams": {"params": {"metric_type": "L2"}}}, 1100, "metric type not match"),
        ({"data": ["fox"], "searchParams": {"radius": 2, "range_filter": 1}}, 65535, "range_filter must more than radius"),
        ({"data": ["fox"], "annsField": "text"}, 1801, "cannot find a vector field named: text"),
        ({"ids": [1]}, 65535, "not allowed to retrieve raw data of field sparse"),
        ({"data": []}, 1802, "must be provided"),
        ({"data": "fox"}, 1801, "data"),
    ],
)  # fmt: skip
async def test_searches_that_are_refused(house: MilvusHouse, asked: Row, code: int, says: str) -> None:
    await filled(house)
    told = await house.error("entities/search", {"collectionName": "c", **asked})
    assert told[0] == code and says in told[1], told


async def test_texts_are_for_fields_made_of_texts(house: MilvusHouse) -> None:
    made(house, RowSchema(ids=IdType.INT64), kind=IndexKind.HYBRID)
    for field, kind in (("vector", "FloatVector"), ("sparse", "SparseFloatVector")):
        code, says = await house.error(
            "entities/search", {"collectionName": "c", "data": ["fox"], "annsField": field}
        )
        assert code == 1801 and f"[expected={kind}]" in says
    code, says = await house.error(
        "entities/search",
        {
            "collectionName": "c",
            "data": [{"1": 1}],
            "annsField": "sparse",
            "searchParams": {"metricType": "BM25"},
        },
    )
    assert code == 1100 and "metric type not match: invalid parameter[expected=IP][actual=BM25]" in says


async def test_v1_writes_texts_and_searches_by_dense_vectors_only(house: MilvusHouse) -> None:
    made(house, SCHEMA, kind=IndexKind.SPARSE)
    await house.data("insert", {"collectionName": "c", "data": FOX}, version=1)
    assert ids(await hits(house, "lazy")) == [2]
    code, says = await house.error("search", {"collectionName": "c", "vector": [0.5]}, version=1)
    assert code == 65535 and "v1 searches by dense vectors" in says


async def test_filters_bounds_offsets_and_several_texts(house: MilvusHouse) -> None:
    await filled(house)
    best, next_best, last = ranked(of_fox("the fox"))
    the_fox = of_fox("the fox")
    # A filter leaves rows out, and changes no score.
    found = await hits(house, "the fox", filter="id != 1")
    check_scores(found, {id: score for id, score in the_fox.items() if id != 1})
    assert ids(await hits(house, "the fox", limit=1, offset=1)) == [next_best]
    asked = {
        "searchParams": {"metricType": "BM25", "drop_ratio_search": 0.2, "params": {"radius": the_fox[last]}}
    }
    check_scores(await hits(house, "the fox", **asked), {id: the_fox[id] for id in (best, next_best)})
    asked = {"searchParams": {"radius": 0.0, "range_filter": (the_fox[best] + the_fox[next_best]) / 2}}
    assert ids(await hits(house, "the fox", **asked)) == [next_best, last]
    grouped = await hits(house, "fox dog", groupingField="text", limit=2)
    assert len(grouped) == 2
    body = {"collectionName": "c", "data": ["lazy", "quick", "dog"], "limit": 1, "annsField": "sparse"}
    answer = await house.call(2, "entities/search", body)
    assert answer["topks"] == [1, 1, 1] and ids(answer["data"])[:2] == [2, 1]


async def test_rarity_is_that_in_the_partitions_asked(house: MilvusHouse) -> None:
    made(house, SCHEMA, kind=IndexKind.SPARSE)
    for name in ("p", "q"):
        await house.data("partitions/create", {"collectionName": "c", "partitionName": name})
    p, q = {1: "a b", 2: "a c c"}, {3: "b", 4: "b a", 5: "d d d d d d"}
    for name, texts in (("p", p), ("q", q)):
        rows = [{"id": id, "text": text} for id, text in texts.items()]
        await house.data("entities/insert", {"collectionName": "c", "partitionName": name, "data": rows})
    for names, texts in ((["p"], p), (["q"], q), (["p", "q"], p | q), ([], p | q)):
        check_scores(await hits(house, "a b", partitionNames=names), bm25_scores("a b", texts))


async def test_an_index_says_how_counts_are_weighed(house: MilvusHouse) -> None:
    await filled(house)
    fact = IndexFact(name="s", field="sparse", metric="BM25", params={"bm25_k1": "2", "bm25_b": "0"})
    index = house.engine.find("default", "c")
    change_facts(index, lambda facts: facts.model_copy(update={"indexes": (fact,)}))
    check_scores(await hits(house, "the fox"), of_fox("the fox", k1=2, b=0))


async def test_texts_and_questions_are_analyzed_as_their_field_says(house: MilvusHouse) -> None:
    english = SCHEMA.model_copy(
        update={"fields": (TEXT.model_copy(update={"analyzer": {"type": "english"}}),)}
    )
    await filled(
        house, [{"id": 1, "text": "The foxes were running"}, {"id": 2, "text": "the fix"}], schema=english
    )
    assert ids(await hits(house, "a fox runs")) == [1] and await hits(house, "the") == []


async def test_dense_vectors_and_texts_together(house: MilvusHouse) -> None:
    rows = [row | {"vector": [1.0, n / 2]} for n, row in enumerate(FOX)]
    await filled(house, rows, kind=IndexKind.HYBRID)
    near = await hits(house, [1.0, 0.0], annsField="vector", limit=4)  # type: ignore[arg-type]
    # The row without terms is there for whoever searches otherwise.
    assert ids(near) == [1, 2, 3, 4]
    scores, cosines = of_fox("the dog"), {row["id"]: row["distance"] for row in near}
    parts = [
        {"data": [[1.0, 0.0]], "annsField": "vector", "limit": 4},
        {"data": ["the dog"], "annsField": "sparse", "limit": 4, "metricType": "BM25", "params": {"drop_ratio_search": 0}},
    ]  # fmt: skip
    asked = {"collectionName": "c", "search": parts, "limit": 4, "consistencyLevel": "Strong"}
    rank = {"strategy": "rrf", "params": {"k": 60}}
    fused = await house.data("entities/hybrid_search", {**asked, "rerank": rank})
    expected = {id: 1 / (61 + place) for place, id in enumerate(cosines)}
    for place, id in enumerate(ranked(scores)):
        expected[id] += 1 / (61 + place)
    check_scores(fused, expected)
    for normalised in (True, False):
        params = {"weights": [0.3, 0.7], "norm_score": normalised}
        weighted = await house.data(
            "entities/hybrid_search", {**asked, "rerank": {"strategy": "weighted", "params": params}}
        )
        expected = {
            id: 0.3 * ((1 + cosine) / 2 if normalised else cosine)
            + 0.7 * (2 * math.atan(scores.get(id, 0)) / math.pi if normalised else scores.get(id, 0))
            for id, cosine in cosines.items()
        }
        check_scores(weighted, expected)
    by_id = {"collectionName": "c", "ids": [1], "annsField": "vector", "consistencyLevel": "Strong"}
    assert ids(await house.data("entities/search", by_id))[0] == 1
    code, says = await house.error("entities/search", {"collectionName": "c", "data": ["dog"]})
    assert code == 1801 and "multiple vector fields" in says


async def test_vectors_made_of_texts_are_not_shown(house: MilvusHouse) -> None:
    await filled(house)
    (found,) = await hits(house, "lazy", outputFields=["*"])
    assert found.keys() == {"id", "text", "distance"}
    rows = await house.data(
        "entities/query", {"collectionName": "c", "filter": "id > 0", "outputFields": ["*"]}
    )
    assert rows == FOX
    asked = {"collectionName": "c", "id": [1], "outputFields": ["sparse"]}
    assert "not allowed to retrieve raw data of field sparse" in (await house.error("entities/get", asked))[1]
