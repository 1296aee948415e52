"""Upstash's protocol as clients speak it that cannot run here: PHP's and Go's, and curl as its documentation writes it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clients.upstash import SETTLED_S, Upstash
from tests.service import TOKEN, Answer, until

#: What urllib and curl send with a body unless told otherwise; Go says nothing about its JSON.
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Plain:
    """An index by its URL, and requests of any form to it."""

    url: str

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = ...,
        *,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, with a body as it is if that is text, as JSON otherwise, and none if there is none."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        text = None if body is ... else body if isinstance(body, str) else json.dumps(body)
        sent = {"Authorization": f"Bearer {TOKEN}", **(headers or {})}
        if kind is not None:
            sent["Content-Type"] = kind
        try:
            connection.request(method, parts.path + path, text and text.encode(), sent)
            reply = connection.getresponse()
            assert (reply.getheader("Content-Type") or "").startswith("application/json"), reply.headers
            said = reply.read()
            return Answer(reply.status, dict(reply.headers), json.loads(said) if said else None)
        finally:
            connection.close()

    def result(self, method: str, path: str, body: Any = ..., **how: Any) -> Any:
        """The result of a request that must succeed, and nothing else may be answered."""
        answer = self(method, path, body, **how)
        assert answer.status == 200 and answer.json.keys() == {"result"}, answer
        return answer.json["result"]

    def error(self, method: str, path: str, body: Any = ..., **how: Any) -> tuple[int, str]:
        """Status and text of a refusal, which says both and nothing else."""
        answer = self(method, path, body, **how)
        assert answer.json.keys() == {"error", "status"} and answer.json["status"] == answer.status, answer
        assert answer.status >= 400 and answer.json["error"], answer
        return answer.status, answer.json["error"]

    def settle(self) -> None:
        for _ in until(SETTLED_S):
            if self.result("GET", "/info")["pendingVectorCount"] == 0:
                return


@pytest.fixture
def dense(upstash: Upstash) -> Plain:
    return Plain(upstash.make("dense"))


def test_as_the_php_client_does(dense: Plain) -> None:
    """GET with a JSON body, DELETE with one and without."""
    many = [{"id": f"v{n}", "vector": [1, n], "metadata": {"n": n}} for n in range(5)]
    assert dense.result("POST", "/upsert/php", many, kind="application/json") == "Success"
    asked = {"ids": ["v1", "nobody"], "includeMetadata": True, "includeVectors": False, "includeData": False}
    assert dense.result("GET", "/fetch/php", asked, kind="application/json") == [
        {"id": "v1", "metadata": {"n": 1}},
        None,
    ]
    page = dense.result("GET", "/range/php", {"cursor": "0", "limit": 2, "includeVectors": True})
    assert page == {"nextCursor": "2", "vectors": [{"id": f"v{n}", "vector": [1, n]} for n in (0, 1)]}
    random = dense.result("GET", "/random/php")
    assert random["id"] in {one["id"] for one in many} and len(random["vector"]) == 2
    assert dense.result("GET", "/random") is None, "there is nothing in this one"
    assert dense.result("DELETE", "/delete/php", {"ids": ["v0", "v9"]}) == {"deleted": 1}
    assert dense.result("GET", "/list-namespaces") == ["", "php"]
    assert dense.result("GET", "/info")["namespaces"].keys() == {"", "php"}
    assert dense.result("DELETE", "/reset/php") == "Success"
    assert dense.result("GET", "/fetch/php", {"prefix": "v"}) == []
    assert dense.result("DELETE", "/delete-namespace/php") == "Success"
    status, text = dense.error("DELETE", "/delete-namespace/php")
    assert status == 404 and text.startswith("Namespace php for the index ")
    dense.result("POST", "/upsert/php", many)
    assert dense.result("DELETE", "/reset?all=true") == "Success"
    assert dense.result("GET", "/range/php", {"cursor": "", "limit": 9})["vectors"] == []


def test_as_the_go_client_does(dense: Plain) -> None:
    """POST without a content type, ``null`` or nothing as a body where there is nothing to say."""
    assert dense.result("POST", "/upsert", [{"id": "a", "vector": [0.1, 0.2]}]) == "Success"
    assert dense.result("POST", "/info", None)["dimension"] == 2
    assert dense.result("POST", "/list-namespaces", None) == [""]
    assert dense.result("POST", "/info", [])["dimension"] == 2
    ranged = dense.result("POST", "/range", {"includeVectors": True})
    assert ranged == {"nextCursor": "", "vectors": [{"id": "a", "vector": [0.1, 0.2]}]}, "neither is needed"
    assert dense.result("POST", "/reset") == "Success"
    assert dense.result("POST", "/reset?all", []) == "Success"
    assert dense.result("POST", "/fetch", {"ids": ["a"]}) == [None]


def test_as_the_documentation_has_it(dense: Plain) -> None:
    """``curl -d`` calls its body a form; one object will do where a list would; PUT is as good as POST."""
    one = {"id": "a", "vector": [0.1, 0.2], "metadata": None, "sparseVector": None, "data": None}
    assert dense.result("POST", "/upsert", one, kind=FORM) == "Success"
    assert dense.result("PUT", "/upsert", {"id": 7, "vector": [1, 0]}, kind="text/plain") == "Success"
    dense.settle()
    found = [{"id": "a", "score": 1}]
    asked = {"vector": [0.1, 0.2], "topK": 1, "filter": ""}
    assert dense.result("POST", "/query", asked, kind=FORM) == found
    assert dense.result("GET", "/query", [asked]) == found, "a list of one is answered as the one"
    assert dense.result("POST", "/query", [asked, asked]) == [found, found]
    nulls = dict.fromkeys(("filter", "topK", "includeVectors", "sparseVector", "weightingStrategy"))
    assert len(dense.result("POST", "/query", {"vector": [0.1, 0.2], **nulls})) == 2
    assert dense.result("POST", "/update", {"id": 7, "metadata": {"k": 1}}) == {"updated": 1}
    assert dense.result("POST", "/fetch", {"ids": [7], "includeMetadata": True}) == [
        {"id": "7", "metadata": {"k": 1}}
    ]
    assert dense.result("POST", "//fetch", {"ids": ["a"]}) == [{"id": "a"}], "a base URL that ended in /"
    assert dense.result("POST", "/upsert/with%20a%2Fslash", {"id": "s", "vector": [1, 1]}) == "Success"
    assert "with a/slash" in dense.result("GET", "/list-namespaces")
    moved = {"namespace": "with a/slash", "newNamespace": "plain"}
    assert dense.result("POST", "/rename-namespace", moved) == {"renamed": True}
    assert dense.result("GET", "/list-namespaces") == ["", "plain"]
    assert dense.result("GET", "/fetch/plain", {"ids": ["s"]}) == [{"id": "s"}]


def test_a_query_that_goes_on(dense: Plain) -> None:
    dense.result("POST", "/upsert/ns", [{"id": str(n), "vector": [1, n]} for n in range(3)])
    dense.settle()
    begun = dense.result("POST", "/resumable-query/ns", {"vector": [1, 0], "topK": 1, "maxIdle": 60})
    assert begun["scores"] == [{"id": "0", "score": 1}] and begun["uuid"]
    more = {"uuid": begun["uuid"], "additionalK": 9}
    assert [one["id"] for one in dense.result("POST", "/resumable-query-next", more)] == ["1", "2"]
    assert dense.result("POST", "/resumable-query-end", {"uuid": begun["uuid"]}) == "Success"
    assert dense.error("POST", "/resumable-query-next", more)[0] in {400, 404, 422}
    assert dense.error("POST", "/resumable-query-end", {"uuid": begun["uuid"]})[0] in {400, 404, 422}
    short = dense.result("POST", "/resumable-query/ns", {"vector": [1, 0], "topK": 1, "maxIdle": 1})
    for _ in until(SETTLED_S, every_s=1.5):
        answer = dense("POST", "/resumable-query-next", {"uuid": short["uuid"], "additionalK": 1})
        if answer.status != 200:
            break
    nowhere = dense.result("POST", "/resumable-query/nowhere", {"vector": [1, 0]})
    assert nowhere == {"uuid": "", "scores": []}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/upsert", "not json", 400),
        ("/upsert", '{"id": "a", "vector": [1, 2', 400),
        ("/upsert", "null", 422),
        ("/upsert", [1], 422),
        ("/upsert", {"vector": [1, 2]}, 422),
        ("/upsert", {"id": "", "vector": [1, 2]}, 422),
        ("/upsert", {"id": True, "vector": [1, 2]}, 422),
        ("/upsert", {"id": "a", "vector": ["x", 2]}, 422),
        ("/upsert", '{"id": "a", "vector": [1e999, 2]}', 422),
        ("/upsert", {"id": "a", "vector": [1, 2, 3]}, 422),
        ("/upsert", {"id": "a", "vector": [1, 2], "metadata": [1]}, 422),
        ("/upsert", {"id": "a", "vector": [1, 2], "data": 7}, 422),
        ("/upsert", [{"id": "b", "vector": [1, 2]}, {"id": "a"}], 422),
        ("/upsert-data", {"id": "a", "data": "words"}, 422),
        ("/upsert-data", {"id": "a"}, 422),
        ("/update", {"vector": [1, 2]}, 422),
        ("/update", {"id": "a", "metadata": {}, "metadataUpdateMode": "MERGE"}, 422),
        ("/query", {}, 422),
        ("/query", {"vector": [1, 2], "topK": -1}, 422),
        ("/query", {"vector": [1, 2], "topK": "many"}, 422),
        ("/query", {"vector": [1, 2], "filter": "a = = 1"}, 422),
        ("/query", {"vector": [1, 2], "fusionAlgorithm": "SUM"}, 422),
        ("/fetch", {}, 422),
        ("/delete", {}, 422),
        ("/range", {"cursor": "nonsense", "limit": 1}, 422),
        ("/range", {"cursor": "0", "limit": -1}, 422),
        ("/rename-namespace", {"namespace": "never", "newNamespace": "was"}, 404),
        ("/resumable-query-next", {"uuid": "nobody", "additionalK": 1}, 404),
        ("", ["get", "1", "2"], 404),
        ("/no-such-command", {}, 404),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    empty: Plain, path: str, body: Any, status: int
) -> None:
    assert empty.error("POST", path, body)[0] == status
    assert empty.result("POST", "/range", {"cursor": "0", "limit": 5})["vectors"] == []


@pytest.fixture(scope="module")
def empty(upstash: Upstash) -> Plain:
    """An index into which nothing ever comes."""
    return Plain(upstash.make("dense"))


def test_who_may_not(dense: Plain, upstash: Upstash) -> None:
    unknown = (401, "Unauthorized: Invalid auth token")
    assert dense.error("POST", "/info", headers={"Authorization": "Bearer nobody"}) == unknown
    assert dense.error("POST", "/info", headers={"Authorization": ""}) == unknown
    assert dense.error("PATCH", "/info")[0] == 405
    assert Plain(f"{dense.url}-of-nobody").error("POST", "/info")[0] == 404
    token = upstash.command("token", "create", "--access", "read", "--door", "upstash").strip()
    reader = {"Authorization": f"Bearer {token}"}
    assert dense.result("GET", "/info", headers=reader)["vectorCount"] == 0
    for path, body in (
        ("/upsert", {"id": "a", "vector": [1, 2]}),
        ("/update", {"id": "a", "vector": [1, 2]}),
        ("/delete", {"ids": ["a"]}),
        ("/reset", None),
        ("/delete-namespace/ns", None),
        ("/rename-namespace", {"namespace": "a", "newNamespace": "b"}),
    ):
        assert dense.error("POST", path, body, headers=reader)[0] == 403, path


def test_each_write_names_its_mutation(dense: Plain, upstash: Upstash) -> None:
    index = upstash.service.apis[0].index(dense.url.rsplit("/", 1)[1])
    for path, body in (
        ("/upsert", [{"id": "a", "vector": [1, 2]}, {"id": "b", "vector": [1, 2]}]),
        ("/update", {"id": "a", "metadata": {"k": 1}}),
        ("/delete", {"ids": ["a"]}),
        ("/reset", None),
    ):
        answer = dense("POST", path, body)
        assert answer.status == 200, answer
        assert index.visible(answer.headers["X-Mutation-Id"])["state"] == "visible", path
    waited = dense("POST", "/upsert", {"id": "c", "vector": [3, 4]}, headers={"Prefer": "wait=30"})
    assert waited.json == {"result": "Success"}
    assert index.status(waited.headers["X-Mutation-Id"])["state"] == "visible", "it was waited for"
    assert dense.result("POST", "/query", {"vector": [3, 4]}) == [{"id": "c", "score": 1}]
