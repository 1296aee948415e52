"""An operator makes indexes that are not like Cloudflare's, and looks at them with Cloudflare's door: what it cannot write it can show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pytest

from tests.making import Client, drain
from tests.service import TOKEN, Answer, Api, Index, Service, running
from upwell.changeset import Changeset, Details, KeyScope, Operation, Rename, Selection, without_rows
from upwell.engine import Engine, open_engine
from upwell.settings import Settings
from upwell.shard.filter import OneOf
from upwell.shard.filter_json import filter_to_json
from upwell.sparse import Sparse

CONFIG = {"dimensions": 2, "metric": "cosine"}
NOT_HERE = "there are only dense vectors at this door: write and query it at Upstash's, /upstash/default/"
INVALID = "vectorize.index.invalid_config - "
UNPARSABLE = "Failed to parse the request body as JSON: "


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    models = json.dumps({"BAAI/bge-m3": {"url": "http://127.0.0.1:9", "model": "m", "dimensions": 2_000}})
    with running(workers=0, UPWELL_EMBEDDING_MODELS=models) as service:
        yield service


@pytest.fixture(scope="module")
def engine(service: Service) -> Engine:
    """Another front end and a worker, on the same store."""
    return open_engine(Settings.model_validate({"data": service.data}))


def create(service: Service, **body: Any) -> Answer:
    return service.apis[0].call("POST", Index(service.apis[0], "x").path().rsplit("/", 1)[0], body)


@pytest.mark.parametrize(
    ("body", "differs"),
    [
        ({"config": CONFIG}, {}),
        ({"config": CONFIG, "kind": "dense", "idsUniqueIn": "index", "embeddingModel": None}, {}),
        ({"config": CONFIG, "idsUniqueIn": "namespace", "ids": "text"}, {"idsUniqueIn": "namespace"}),
        ({"config": CONFIG, "ids": "int64"}, {"ids": "int64"}),
        ({"config": CONFIG, "kind": "hybrid"}, {"kind": "hybrid", "idsUniqueIn": "namespace"}),
        ({"config": CONFIG, "kind": "hybrid", "idsUniqueIn": "index"}, {"kind": "hybrid"}),
        ({"kind": "sparse", "idsUniqueIn": "index"}, {"kind": "sparse"}),
        (
            {"kind": "sparse", "config": {}, "sparseEmbeddingModel": "bm25"},
            {"kind": "sparse", "idsUniqueIn": "namespace", "sparseEmbeddingModel": "BM25"},
        ),
        (
            {"config": {"metric": "euclidean"}, "embeddingModel": "wordllama"},
            {"embeddingModel": "WORDLLAMA"},
        ),
        (
            {
                "config": {"dimensions": 256, "metric": "cosine"},
                "kind": "hybrid",
                "embeddingModel": "WordLlama",
                "sparseEmbeddingModel": "BM25",
            },
            {
                "kind": "hybrid",
                "idsUniqueIn": "namespace",
                "embeddingModel": "WORDLLAMA",
                "sparseEmbeddingModel": "BM25",
            },
        ),
    ],
)
def test_an_index_says_in_what_it_is_not_like_cloudflares(
    service: Service, body: dict[str, Any], differs: dict[str, str]
) -> None:
    made = create(service, name="shown", **body).result
    index = service.apis[0].index("shown")
    plain = {"name", "config", "created_on", "modified_on"}
    assert {key: value for key, value in made.items() if key not in plain} == differs
    assert index.get("").result == made
    info = index.get("/info").result
    dimensions = made["config"]["dimensions"]
    assert info["dimensions"] == dimensions == {"sparse": 0}.get(body.get("kind", ""), dimensions)
    assert {key: info[key] for key in info if key in differs or key == "kind"} == differs
    if "embeddingModel" in differs:
        assert dimensions == 256
    assert service.apis[0].call("DELETE", index.path()).status == 200


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        # As ever, of what Cloudflare has.
        ({}, 50400, INVALID + "Config must be provided"),
        ({"config": {"metric": "cosine"}}, 40026, "config.dimensions: expected a value, got nothing"),
        ({"config": {"dimensions": 2}}, 40026, "config.metric: expected a value, got nothing"),
        (
            {"config": {"dimensions": 0, "metric": "cosine"}},
            50400,
            "Dimensions must be in range: [1, 1536], got 0",
        ),
        # Of what is ours.
        ({"config": CONFIG, "kind": "thick"}, 40026, "kind: expected one of dense, sparse, hybrid"),
        ({"config": CONFIG, "kind": None}, 40026, "kind: expected one of dense, sparse, hybrid"),
        ({"kind": "hybrid"}, 50400, INVALID + "Config must be provided"),
        ({"config": CONFIG, "idsUniqueIn": "open"}, 40026, "idsUniqueIn: "),
        ({"config": CONFIG, "ids": "int32"}, 40026, "ids: "),
        ({"config": CONFIG, "kind": "sparse"}, 40026, "config: a sparse index has neither dimensions"),
        ({"config": {"dimensions": 0}, "kind": "sparse"}, 40026, "config: a sparse index has neither"),
        (
            {"kind": "sparse", "embeddingModel": "wordllama"},
            40026,
            "embeddingModel: a sparse index has no dense",
        ),
        ({"config": CONFIG, "embeddingModel": 7}, 40026, "embeddingModel: "),
        ({"config": CONFIG, "embeddingModel": ""}, 40026, "embeddingModel: "),
        ({"embeddingModel": "wordllama"}, 50400, INVALID + "Config must be provided"),
        (
            {"config": {"dimensions": 256}, "embeddingModel": "wordllama"},
            40026,
            "config.metric: expected a value",
        ),
        (
            {"config": CONFIG, "embeddingModel": "nobody"},
            50400,
            "embeddingModel: there is no embedding model 'nobody' here; known are BGE_M3, WORDLLAMA",
        ),
        (
            {"config": CONFIG, "embeddingModel": "wordllama"},
            50400,
            "embeddingModel: WORDLLAMA has 256 dimensions, got 2",
        ),
        (
            {"config": {"preset": "@cf/baai/bge-base-en-v1.5"}, "embeddingModel": "wordllama"},
            50400,
            "embeddingModel: WORDLLAMA has 256 dimensions, got 768",
        ),
        (
            {"config": {"metric": "cosine"}, "embeddingModel": "bge-m3"},
            50400,
            "Dimensions must be in range: [1, 1536], got 2000",
        ),
        (
            {"config": CONFIG, "sparseEmbeddingModel": "bm25"},
            50400,
            "sparseEmbeddingModel: a dense index has no sparse vectors",
        ),
        (
            {"kind": "sparse", "sparseEmbeddingModel": "nobody"},
            50400,
            "sparseEmbeddingModel: there is no sparse embedding model 'nobody' here; known are BM25",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(
    service: Service, body: dict[str, Any], code: int, says: str
) -> None:
    status, said, message = create(service, name="refused", **body).error
    assert (status, said) == (400, code)
    assert message.startswith(UNPARSABLE if code == 40026 else INVALID) and says in message, message
    assert service.apis[0].index("refused").get("").status == 404


@pytest.mark.parametrize("kind", ["sparse", "hybrid"])
def test_this_door_neither_writes_nor_queries_what_it_has_no_words_for(service: Service, kind: str) -> None:
    assert (
        create(service, name=kind, kind=kind, **({"config": CONFIG} if kind == "hybrid" else {})).status
        == 200
    )
    index, log = service.apis[0].index(kind), list(service.data.glob("store/index/*/log/*"))
    line, question = '{"id":"a","values":[1,2]}', {"vector": [1, 2]}
    binding = f"/bindings/vectorize/default/{kind}"
    refusals = [
        index.post("upsert", line),
        index.post("insert", line),
        index.post("upsert?dry-run=true", line),
        index.post("query", question),
        index.post("query", {"vectorId": "a"}),
    ]
    for answer in refusals:
        status, code, message = answer.error
        assert (status, code) == (400, 50400)
        assert message == f"this is a {kind} index, and {NOT_HERE}{kind}"
    for operation, body in (("upsert", line), ("insert", line), ("query", question)):
        answer = service.apis[0].call("POST", f"{binding}/{operation}", body)
        assert answer.status == 400 and NOT_HERE in answer.json["error"]
    assert list(service.data.glob("store/index/*/log/*")) == log


def got(api: Api, path: str) -> tuple[dict[str, str], list[Any]]:
    """A stream of NDJSON: its headers, and its lines."""
    asked = Request(api.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
    with urlopen(asked, timeout=60) as answer:
        return dict(answer.headers), [json.loads(line) for line in answer.read().splitlines()]


def in_order(lines: list[Any]) -> list[Any]:
    return sorted(lines, key=lambda line: (line.get("namespace", ""), line["id"]))


ROWS = [
    {"id": "a", "values": [0.1, 1e-30], "sparseVector": {"indices": [7, 3, 7], "values": [1.5, 0.1, -2]}, "data": "Ä"},
    {"id": "b", "values": [3, 4], "sparseVector": {"indices": [], "values": []}, "metadata": {"n": 1}},
]  # fmt: skip


def upsert_of(namespace: str | None, *, hybrid: bool) -> Changeset:
    return Changeset(
        operation=Operation.UPSERT,
        ids=pa.array([str(row["id"]) for row in ROWS]),
        vectors=np.array([row["values"] for row in ROWS], np.float32),
        sparse=Sparse.of([([7, 3, 7], [1.5, 0.1, -2]), ([], [])]) if hybrid else None,
        namespaces=None if namespace is None else pa.array([namespace] * 2),
        metadata=pa.array([None, b'{"n":1}'], pa.binary()),
        data=pa.array(["Ä", None]),
        received=2,
        details=Details(scope=KeyScope.NAMESPACE, namespace=namespace or ""),
    )


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_what_other_doors_wrote_is_fetched_listed_exported_and_deleted_here(
    service: Service, engine: Engine, kind: str
) -> None:
    api, name = service.apis[0], f"from-elsewhere-{kind}"
    assert create(service, name=name, kind=kind, config=CONFIG).status == 200
    index, inside = api.index(name), engine.find("default", name)
    keys = {"id", "values", "metadata", "data"} | ({"sparseVector"} if kind == "hybrid" else set())
    rows = [{key: row[key] for key in row if key in keys} for row in ROWS]
    client = Client(inside)
    client.append(upsert_of(None, hybrid=kind == "hybrid"), upsert_of("old", hybrid=kind == "hybrid"))
    rename = Rename(namespace="old", new_namespace="new")
    told = without_rows(Operation.RENAME_NAMESPACE, Details(scope=KeyScope.NAMESPACE, rename=rename))
    (renamed,) = client.append(told)
    drain(engine, inside)
    status = index.status(renamed)
    assert (status["operation"], status["state"]) == ("rename-namespace", "visible")
    headers, lines = got(api, index.path("/export"))
    assert headers["X-Upwell-Vectors"] == "4"
    expected = [*rows, *(row | {"namespace": "new"} for row in rows)]
    assert in_order(lines) == expected
    assert in_order(got(api, index.path("/export?namespace=new"))[1]) == expected[2:]
    assert got(api, index.path("/export?namespace=old"))[1] == []
    # Ids are unique in a namespace here, and this door names none: so it means those that are in none.
    assert index.post("get_by_ids", {"ids": ["b", "a"]}).result == rows[::-1]
    if kind == "dense":
        near = index.post("query", {"vectorId": "b", "namespace": "new", "topK": 1}).result["matches"]
        assert [(one["id"], one["namespace"]) for one in near] == [("b", "new")]
        index_of_none = index.post("query", {"vectorId": "b", "namespace": "nobody"}).error
        assert "there is no vector" in index_of_none[2]
    assert [one["id"] for one in index.get("/list").result["vectors"]].count("a") == 2
    deleted = index.delete(["a"])
    drain(engine, inside)
    assert index.status(deleted)["counts"]["deleted"] == 1
    assert {line.get("namespace") for line in got(api, index.path("/export"))[1] if line["id"] == "a"} == {
        "new"
    }
    assert index.get("/info").result["idsUniqueIn"] == "namespace"


def test_a_sparse_index_has_nothing_that_is_compared_one_by_one(service: Service, engine: Engine) -> None:
    api, name = service.apis[0], "nothing-unindexed"
    assert create(service, name=name, kind="sparse").status == 200
    inside = engine.find("default", name)
    rows = Changeset(
        operation=Operation.UPSERT,
        ids=pa.array(["a", "b"]),
        sparse=Sparse.of([([7], [1.5]), ([3], [1])]),
        received=2,
        details=Details(scope=KeyScope.NAMESPACE),
    )
    Client(inside).append(rows)
    drain(engine, inside)
    info = api.index(name).get("/info").result
    assert (info["vectorCount"], info["compaction"]["unindexed"]) == (2, 0)


def test_a_changeset_shows_what_its_operation_is_told(service: Service, engine: Engine) -> None:
    api = service.apis[0]
    assert create(service, name="told", kind="hybrid", config=CONFIG).status == 200
    index, client = api.index("told"), Client(engine.find("default", "told"))

    def details(**said: Any) -> Details:
        return Details(scope=KeyScope.NAMESPACE, **said)

    update = Changeset(
        operation=Operation.UPDATE,
        ids=pa.array(["a"]),
        metadata=pa.array([b'{"n":null}']),
        data=pa.array(["new"]),
        namespaces=pa.array(["x"]),
        received=1,
        details=details(patch=True, namespace="x"),
    )
    asked = filter_to_json(OneOf("n", (1.0,)))
    selected = details(selection=Selection(namespace="x", prefix="a", filter=asked))
    sent: list[tuple[Changeset, list[Any]]] = [
        (
            update,
            [
                {"metadataUpdateMode": "PATCH"},
                {"id": "a", "namespace": "x", "metadata": {"n": None}, "data": "new"},
            ],
        ),
        (upsert_of(None, hybrid=True), ROWS),
        (
            without_rows(Operation.DELETE_MATCHING, selected),
            [{"namespace": "x", "prefix": "a", "filter": ["in", "n", 1.0]}],
        ),
        (without_rows(Operation.RESET, details(selection=Selection())), [{}]),
        (
            without_rows(Operation.DELETE_NAMESPACE, details(selection=Selection(namespace="x"))),
            [{"namespace": "x"}],
        ),
        (
            without_rows(
                Operation.RENAME_NAMESPACE,
                details(rename=Rename(namespace="x", new_namespace="y", delete_existing=True)),
            ),
            [{"namespace": "x", "newNamespace": "y", "deleteExisting": True}],
        ),
    ]
    mutations = client.append(*(changeset for changeset, _ in sent))
    for mutation, (changeset, lines) in zip(mutations, sent, strict=True):
        headers, shown = got(api, index.path(f"/mutations/{mutation}/changeset"))
        assert shown == lines
        assert headers["X-Upwell-Operation"] == changeset.operation
        assert headers["X-Upwell-Rows"] == str(len(changeset))
    drain(engine, client.index)
    status = [index.status(mutation) for mutation in mutations]
    assert [one["operation"] for one in status] == [str(changeset.operation) for changeset, _ in sent]
    assert status[0]["counts"]["updated"] == 0 and status[3]["counts"]["deleted"] == 2
    assert (status[-1]["state"], status[-1]["error"]) == ("failed", "Namespace x does not exist")
