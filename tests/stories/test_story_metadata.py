"""Metadata over HTTP: filters, metadata indexes and how far they reach, what comes back of it, presets, and ids page by page."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import Index, Service, running

NAMES = itertools.count()
JAZZ: list[dict[str, Any]] = [
    {
        "id": "a",
        "values": [1, 0],
        "metadata": {"genre": "jazz", "year": 1959, "live": False, "who": {"n": 1}},
    },
    {"id": "b", "values": [1, 0.1], "metadata": {"genre": "jazz", "year": 1970, "live": True}},
    {"id": "c", "values": [1, 0.2], "metadata": {"genre": "rock", "year": 1970.5, "note": None}},
    {
        "id": "d",
        "values": [1, 0.3],
        "namespace": "n",
        "metadata": {"genre": "rock " + "é" * 40, "year": "1970"},
    },
    {"id": "e", "values": [1, 0.4]},
]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture(scope="module")
def as_cloudflare() -> Iterator[Service]:
    with running(
        UPWELL_METADATA_BACKFILL="false",
        UPWELL_METADATA_INDEXES_MAX="2",
        UPWELL_TOP_K_MAX="7",
        UPWELL_TOP_K_FULL_MAX="3",
        UPWELL_LIST_PAGE_MAX="4",
        UPWELL_GET_IDS_MAX="2",
        UPWELL_DELETE_IDS_MAX="3",
        UPWELL_ID_BYTES_MAX="8",
        UPWELL_NAMESPACE_BYTES_MAX="4",
        UPWELL_METADATA_BYTES_MAX="64",
        UPWELL_FILTER_BYTES_MAX="40",
        UPWELL_VECTORS_MAX="6",
        UPWELL_INDEXES_MAX="2",
        UPWELL_GRACE_S="4",
        UPWELL_DIMENSIONS_MAX="5376",
    ) as service:
        yield service


@pytest.fixture
def index(service: Service) -> Index:
    index = service.apis[0].index(f"metadata-{next(NAMES)}")
    assert index.create(2).status == 200
    return index


def ids(index: Index, **how: Any) -> list[str]:
    return [match["id"] for match in index.query([1, 0], topK=20, **how)]


def create_index(index: Index, name: str, kind: str) -> str:
    answer = index.post("metadata_index/create", {"propertyName": name, "indexType": kind})
    return str(answer.result["mutationId"])


def test_filters_choose_and_tell_when_they_had_to_read_everything(index: Index) -> None:
    index.visible(index.upsert(JAZZ))
    assert ids(index) == ["a", "b", "c", "d", "e"]
    assert ids(index, filter={"genre": "jazz"}) == ["a", "b"]
    assert ids(index, filter={"genre": {"$ne": "jazz"}}) == ["c", "d"]
    assert ids(index, filter={"year": {"$gte": 1959, "$lt": 1970.5}}) == ["a", "b"]
    assert ids(index, filter={"genre": {"$gte": "jb", "$lt": "roc~"}}) == ["c", "d"]
    assert ids(index, filter={"live": False}) == ["a"]
    assert ids(index, filter={"note": None}) == ["c"]
    assert ids(index, filter={"note": {"$ne": None}}) == []
    assert ids(index, filter={"who.n": {"$in": [1, 2]}}) == ["a"]
    assert ids(index, filter={"year": {"$nin": [1959, "1970"]}}) == ["b", "c"]
    assert ids(index, filter={"genre": "jazz", "live": True}) == ["b"]
    assert ids(index, filter={"year": {"$gt": 0}}, namespace="n") == []
    assert ids(index, filter={"genre": {"$gt": "a"}}, namespace="n") == ["d"]
    answer = index.post("query", {"vector": [1, 0], "filter": {"genre": "jazz", "year": 1959}})
    assert [said["code"] for said in answer.json["messages"]] == [50010, 50010]
    assert 'no metadata index on "genre"' in answer.json["messages"][0]["message"]
    index.visible(create_index(index, "genre", "string"))
    answer = index.post("query", {"vector": [1, 0], "filter": {"genre": "jazz"}})
    assert answer.json["messages"] == [] and answer.result["count"] == 2


def test_metadata_indexes_are_mutations_like_any_other(index: Index) -> None:
    assert index.get("/metadata_index/list").result == {"metadataIndexes": []}
    index.visible(index.upsert(JAZZ))
    first = create_index(index, "year", "number")
    status = index.visible(first)
    assert status["operation"] == "create-metadata-index" and status["counts"]["received"] == 0
    index.visible(create_index(index, "who.n", "number"))
    assert index.get("/metadata_index/list").result == {
        "metadataIndexes": [
            {"propertyName": "year", "indexType": "number"},
            {"propertyName": "who.n", "indexType": "number"},
        ]
    }
    # Rows written before are covered, and "1970" is no number.
    assert ids(index, filter={"year": {"$ne": 1959}}) == ["b", "c"]
    again = create_index(index, "year", "number")
    assert index.visible(again) and again != first
    code, number, says = index.post(
        "metadata_index/create", {"propertyName": "year", "indexType": "string"}
    ).error
    assert (code, number) == (400, 50400) and 'on "year" of type number; delete it first' in says
    gone = index.post("metadata_index/delete", {"property": "year"}).result["mutationId"]
    assert index.visible(gone)["operation"] == "delete-metadata-index"
    index.visible(index.post("metadata_index/delete", {"propertyName": "never"}).result["mutationId"])
    assert index.get("/metadata_index/list").result["metadataIndexes"][0]["propertyName"] == "who.n"
    made = [create_index(index, f"p{number}", "boolean") for number in range(9)]
    index.visible(made[-1])
    says = index.post("metadata_index/create", {"propertyName": "eleven", "indexType": "string"}).error[2]
    assert "too many metadata indexes; max is 10" in says
    assert index.get("/info").result["vectorCount"] == 5


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"indexType": "string"}, "propertyName"),
        ({"propertyName": "a", "indexType": "text"}, "indexType"),
        ({"propertyName": "", "indexType": "string"}, "propertyName"),
        ({"propertyName": "a..b", "indexType": "string"}, "propertyName"),
        ({"propertyName": "$a", "indexType": "string"}, "propertyName"),
        ({"propertyName": 'a"', "indexType": "string"}, "propertyName"),
        ({"propertyName": 5, "indexType": "string"}, "propertyName"),
        ({"propertyName": "x" * 513, "indexType": "string"}, "propertyName"),
    ],
)
def test_a_wrong_metadata_index_is_refused(index: Index, body: dict[str, Any], says: str) -> None:
    status, code, message = index.post("metadata_index/create", body).error
    assert (status, code) == (400, 40026) and says in message
    assert index.get("/mutations").result == []


def test_indexed_metadata_is_what_indexes_cover_with_long_strings_cut(index: Index) -> None:
    index.visible(index.upsert(JAZZ))
    wanted = (("genre", "string"), ("who.n", "number"), ("live", "string"), ("note", "number"))
    index.visible([create_index(index, name, kind) for name, kind in wanted][-1])
    matches = index.query([1, 0], topK=100, returnMetadata="indexed")
    assert [match.get("metadata") for match in matches] == [
        {"genre": "jazz", "who": {"n": 1}},
        {"genre": "jazz"},
        {"genre": "rock", "note": None},
        {"genre": "rock " + "é" * 29},
        None,
    ]
    everything = index.query([1, 0], topK=50, returnMetadata=True, returnValues=True)
    assert [match.get("metadata") for match in everything] == [one.get("metadata") for one in JAZZ]
    assert everything[3]["values"] == pytest.approx([1, 0.3])
    assert all("metadata" not in match for match in index.query([1, 0], returnMetadata=False))


def test_a_selective_filter_returns_all_that_there_are(index: Index) -> None:
    rows = [
        {"id": f"v{n}", "values": [1, n / 4_000], "metadata": {"n": n, "rare": n % 401 == 0}}
        for n in range(4_000)
    ]
    index.visible(index.upsert(rows))
    expected = [f"v{n}" for n in range(0, 4_000, 401)]
    assert ids(index, filter={"rare": True}) == expected
    index.visible(create_index(index, "rare", "boolean"))
    index.visible(index.upsert([{"id": "late", "values": [1, 2], "metadata": {"rare": True}}]))
    assert ids(index, filter={"rare": True}) == [*expected, "late"]
    assert ids(index, filter={"n": {"$gte": 3_990}}) == [f"v{n}" for n in range(3_990, 4_000)]


def test_without_back_filling_an_index_covers_what_is_written_later(as_cloudflare: Service) -> None:
    index = as_cloudflare.apis[0].index("later")
    assert index.create(2).status == 200
    old = {"id": "old", "values": [1, 0], "metadata": {"k": "x"}}
    index.visible(index.upsert([old]))
    assert ids_up_to(index, 7, filter={"k": "x"}) == ["old"]
    index.visible(create_index(index, "k", "string"))
    assert ids_up_to(index, 7, filter={"k": "x"}) == []
    assert index.query([1, 0], returnMetadata="indexed")[0]["metadata"] == {}
    index.visible(index.upsert([{"id": "new", "values": [1, 0.1], "metadata": {"k": "x"}}]))
    assert ids_up_to(index, 7, filter={"k": "x"}) == ["new"]
    index.visible(index.upsert([old]))
    assert ids_up_to(index, 7, filter={"k": "x"}) == ["old", "new"]
    # The second of these is one too many, and the door may not have seen the first yet.
    index.post("metadata_index/create", {"propertyName": "p1", "indexType": "string"})
    last = index.post("metadata_index/create", {"propertyName": "p2", "indexType": "string"})
    if last.status == 200:
        status = index.status(last.result["mutationId"], wait_s=30)
        assert status["state"] == "failed" and "max is 2" in status["error"]
    else:
        assert "max is 2" in last.error[2]


def ids_up_to(index: Index, top_k: int, **how: Any) -> list[str]:
    return [match["id"] for match in index.query([1, 0], topK=top_k, **how)]


def test_limits_are_settings(as_cloudflare: Service) -> None:
    api = as_cloudflare.apis[0]
    assert api.index("first", account="limits").create(5_376).status == 200
    assert api.index("second", account="limits").create(2).status == 200
    third = api.index("third", account="limits").create(2)
    assert "too many indexes in the account; max is 2" in third.error[2]
    assert api.index("third", account="other").create(2).status == 200
    small = api.index("third", account="other")
    assert small.post("query", {"vector": [1, 2], "topK": 8}).error[1] == 40025
    assert (
        "max top K is 3" in small.post("query", {"vector": [1, 2], "topK": 4, "returnValues": True}).error[2]
    )
    assert (
        "fewer than 40 bytes" in small.post("query", {"vector": [1, 2], "filter": {"a": "x" * 32}}).error[2]
    )
    assert "max is 4 bytes" in small.post("query", {"vector": [1, 2], "namespace": "x" * 5}).error[2]
    assert "max is 8 bytes" in small.post("query", {"vectorId": "x" * 9}).error[2]
    assert small.post("get_by_ids", {"ids": ["a", "b", "c"]}).error[1:] == (
        40007,
        "too many ids in payload; max id count is 2, got 3",
    )
    assert "max id count is 3, got 4" in small.post("delete_by_ids", {"ids": ["a"] * 4}).error[2]
    for wrong, code in (
        ('{"id":"123456789","values":[1,2]}', 40008),
        ('{"id":"1","values":[1,2],"namespace":"12345"}', 40009),
        ('{"id":"1","values":[1,2],"metadata":{"k":"%s"}}' % ("x" * 64), 40016),
    ):
        assert small.post("upsert", wrong).error[1] == code
    assert "from 1 to 4" in small.get("/list?count=5").error[2]
    small.visible(small.upsert([{"id": f"v{n}", "values": [1, n]} for n in range(6)]))
    assert (
        "too many vectors in the index; max is 6, it has 6"
        in small.post("upsert", '{"id":"w","values":[1,2]}').error[2]
    )
    assert small.get("/list").result["count"] == 4


def test_listing_goes_page_by_page_and_its_cursor_expires(service: Service, as_cloudflare: Service) -> None:
    index = service.apis[0].index(f"listing-{next(NAMES)}")
    index.create(2)
    names = {f"v{n}" for n in range(250)}
    index.visible(index.upsert([{"id": name, "values": [1, 2]} for name in names]))
    first = index.get("/list").result
    assert first["count"] == 100 and first["totalCount"] == 250 and first["isTruncated"] is True
    assert first["cursorExpirationTimestamp"].endswith("+00:00")
    index.visible(index.delete(sorted(names)))
    page, listed = first, [one["id"] for one in first["vectors"]]
    while page["nextCursor"]:
        page = index.get(f"/list?count=70&cursor={page['nextCursor']}").result
        listed += [one["id"] for one in page["vectors"]]
    assert page["isTruncated"] is False and page["cursorExpirationTimestamp"] is None
    assert len(listed) == 250 and set(listed) == names
    assert index.get("/list").result["vectors"] == []
    other = as_cloudflare.apis[0].index("paged", account="pages")
    other.create(2)
    other.visible(other.upsert([{"id": f"v{n}", "values": [1, 2]} for n in range(6)]))
    mine = other.get("/list?count=2").result["nextCursor"]
    for wrong in (mine[:-1], first["nextCursor"], "nonsense", mine + "A", "%00"):
        assert other.get(f"/list?cursor={wrong}").error == (
            400,
            40052,
            "List vectors cursor appears to be corrupted",
        )
    for wrong in ("0", "-1", "x", "", "1.5", "99999999999999999999"):
        assert index.get(f"/list?count={wrong}").error[:2] == (400, 50400)
    # Half of the grace period of four seconds.
    time.sleep(2.1)
    assert "cursor has expired" in other.get(f"/list?cursor={mine}").error[2]


@pytest.mark.parametrize(
    ("preset", "dimensions"),
    [("@cf/baai/bge-small-en-v1.5", 384), ("openai/text-embedding-ada-002", 1536)],
)
def test_presets_stand_for_dimensions_and_metric(service: Service, preset: str, dimensions: int) -> None:
    api = service.apis[0]
    path = "/client/v4/accounts/presets/vectorize/v2/indexes"
    made = api.call("POST", path, {"name": f"p{dimensions}", "config": {"preset": preset}}).result
    assert made["config"] == {"dimensions": dimensions, "metric": "cosine"}
    for wrong in ("nobody/nothing", 5, None):
        status, code, says = api.call("POST", path, {"name": "wrong", "config": {"preset": wrong}}).error
        assert (status, code) == (400, 40026) and "unknown preset, expected one of @cf/baai" in says
