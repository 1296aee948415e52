"""The Workers binding's surface over HTTP: the REST surface's results, rules and errors, without envelopes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.service import TOKEN, Answer, Api, Service, running

NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass(frozen=True)
class Binding:
    """The binding's surface of one index, reached in one of two ways."""

    api: Api
    index: str
    by_headers: bool
    account: str = "default"

    def ask(
        self,
        operation: str,
        body: bytes | str | dict[str, Any] | None = None,
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        token: str | None = TOKEN,
    ) -> Answer:
        """One request, as workerd sends it."""
        method = method or ("POST" if body is not None else "GET")
        sent = dict(headers or {})
        path = f"/bindings/vectorize/{self.account}/{self.index}/{operation}"
        if self.by_headers:
            path = f"/{operation}"
            sent |= {"Host": "vector-search", "Upwell-Account": self.account, "Upwell-Index": self.index}
        return self.api.call(method, path, body, headers=sent, token=token)

    def result(self, operation: str, body: bytes | str | dict[str, Any] | None = None, **how: Any) -> Any:
        answer = self.ask(operation, body, **how)
        assert answer.status == 200, answer
        return answer.json


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture(params=["by path", "by headers"])
def by_headers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "by headers")


@pytest.fixture
def binding(service: Service, by_headers: bool) -> Binding:
    """An index of three dimensions with two vectors; made once a way."""
    binding = Binding(service.apis[0], f"binding-{'headers' if by_headers else 'path'}", by_headers)
    index = service.apis[0].index(binding.index)
    if index.create(3).status == 200:
        index.visible(
            index.upsert(
                [
                    {"id": "a", "values": [1, 0, 0], "metadata": {"k": "ünï"}},
                    {"id": "b", "values": [0, 1, 0], "namespace": "n"},
                ]
            )
        )
    return binding


def test_every_operation(service: Service, by_headers: bool) -> None:
    name = f"every-{'headers' if by_headers else 'path'}"
    index, binding = service.apis[0].index(name), Binding(service.apis[0], name, by_headers)
    index.create(3)
    empty = binding.result("info")
    assert empty["dimensions"] == 3 and empty["vectorCount"] == 0 and "processedUpToMutation" not in empty

    # With and without useNdJson.
    lines = '{"id":"a","values":[1,0,0],"metadata":{"k":1}}\n{"id":"b","values":[0,1,0],"namespace":"n"}'
    sizes = {"cf-vector-search-dim-width": "3", "cf-vector-search-dim-height": "2"}
    inserted = binding.result("insert", lines, headers=NDJSON | sizes)
    assert list(inserted) == ["mutationId"]
    upserted = binding.result("upsert", {"vectors": [{"id": "a", "values": [0, 0, 2]}]})
    index.visible(upserted["mutationId"])
    info = binding.result("info")
    assert info["vectorCount"] == 2 and info["processedUpToMutation"] == upserted["mutationId"]

    asked = {"vector": [0, 0, 1], "topK": 1, "returnValues": True, "returnMetadata": "all"}
    assert binding.result("query", asked) == {
        "count": 1,
        "matches": [{"id": "a", "score": 1.0, "values": [0, 0, 2]}],
    }
    by_id = binding.result("query", {"vectorId": "b", "namespace": "n", "returnMetadata": False})
    assert by_id == {"count": 1, "matches": [{"id": "b", "score": 1.0, "namespace": "n"}]}
    got = binding.result("getByIds", {"ids": ["b", "nobody"]})
    assert got == [{"id": "b", "values": [0, 1, 0], "namespace": "n"}]

    deleted = binding.result("deleteByIds", {"ids": ["b"]})
    gone = binding.result("query", {"vectorId": "a", "after": deleted["mutationId"]})
    assert [match["id"] for match in gone["matches"]] == ["a"]


def test_results_are_those_of_rest(service: Service, binding: Binding) -> None:
    index = service.apis[0].index(binding.index)
    asked = {"vector": [0.3, 0.7, 0.1], "returnValues": True, "returnMetadata": "all"}
    assert binding.result("query", asked) == index.post("query", asked).result
    ids = {"ids": ["a", "b"]}
    assert binding.result("getByIds", ids) == index.post("get_by_ids", ids).result
    assert binding.result("info")["vectorCount"] == index.get("/info").result["vectorCount"]


MISTAKES: list[tuple[str, bytes | str | dict[str, Any], int, int, str]] = [
    ("insert", "", 400, 50400, "contains no vectors"),
    ("insert", b'{"id":"x","values":[1,2]}', 400, 40012, "expected 3 dimensions, and got 2"),
    ("upsert", {"vectors": [{"id": "x", "values": ["1", 2, 3]}]}, 400, 40023, "values[0]"),
    ("upsert", {"vectors": 5}, 400, 50400, "vectors: expected an array"),
    ("upsert", b'{"id":"', 400, 40023, "line 1"),
    ("query", b"{", 400, 40026, "Failed to parse"),
    ("query", {"vector": [1, 2]}, 400, 40006, "expected 3 dimensions, and got 2 dimensions"),
    ("query", {"vector": [1, 2, 3], "vectorId": "a"}, 400, 40026, "exactly one of"),
    ("query", {"vector": [1, 2, 3], "topK": 1000}, 400, 40025, "max top K"),
    ("query", {"vector": [1, 2, 3], "returnMetadata": "some"}, 400, 40026, "returnMetadata"),
    ("query", {"vectorId": "nobody"}, 400, 50404, 'no vector with id "nobody"'),
    ("getByIds", {"ids": []}, 400, 40026, "at least one id"),
    ("getByIds", {"vectors": []}, 400, 40026, "ids"),
    ("deleteByIds", {"ids": ["x" * 65]}, 400, 40008, "64 bytes"),
]


@pytest.mark.parametrize(("operation", "body", "status", "code", "says"), MISTAKES)
def test_mistakes_have_the_codes_of_rest(
    service: Service,
    binding: Binding,
    operation: str,
    body: bytes | str | dict[str, Any],
    status: int,
    code: int,
    says: str,
) -> None:
    answer = binding.ask(operation, body)
    assert answer.status == status and list(answer.json) == ["code", "error"], answer
    assert answer.json["code"] == code and says in answer.json["error"]
    rest = {"getByIds": "get_by_ids", "deleteByIds": "delete_by_ids"}.get(operation, operation)
    enveloped = service.apis[0].index(binding.index).post(rest, body).error
    assert (answer.status, answer.json["code"], answer.json["error"]) == enveloped
    assert binding.result("info")["vectorCount"] == 2


OPERATIONS: list[tuple[str, dict[str, Any] | None]] = [
    ("info", None),
    ("insert", {"vectors": [{"id": "x", "values": [1, 2, 3]}]}),
    ("upsert", {"vectors": [{"id": "x", "values": [1, 2, 3]}]}),
    ("query", {"vector": [1, 2, 3]}),
    ("getByIds", {"ids": ["a"]}),
    ("deleteByIds", {"ids": ["a"]}),
]


@pytest.mark.parametrize(("operation", "body"), OPERATIONS)
def test_every_operation_asks_who_and_which(
    service: Service, binding: Binding, operation: str, body: dict[str, Any] | None
) -> None:
    def refused(index: Binding, token: str | None = TOKEN) -> tuple[int, int]:
        answer = index.ask(operation, body, token=token)
        assert list(answer.json) == ["code", "error"], answer
        return answer.status, answer.json["code"]

    assert refused(binding, token=None) == (401, 9106)
    assert refused(binding, token="wrong") == (401, 10000)
    assert refused(binding, token=elsewhere(service)) == (403, 7403)
    assert refused(Binding(binding.api, "never-was", binding.by_headers)) == (404, 3000)
    assert refused(Binding(binding.api, binding.index, binding.by_headers, "no.account")) == (404, 7003)
    deleted = service.apis[0].index("deleted-before")
    if deleted.create(3).status == 200:
        assert deleted.api.call("DELETE", deleted.path()).result is None
    assert refused(Binding(binding.api, deleted.name, binding.by_headers)) == (410, 3005)
    assert binding.result("getByIds", {"ids": ["a", "x"]})[0]["id"] == "a"


def elsewhere(service: Service) -> str:
    """A token that may do everything, in another account."""
    asked = {"account": "somebody-else", "access": "admin"}
    return str(service.apis[0].call("POST", "/upwell/v1/tokens", asked).result["token"])


def test_a_token_that_may_only_read(service: Service, binding: Binding) -> None:
    asked = {"account": "default", "index": binding.index, "access": "read"}
    token = str(service.apis[0].call("POST", "/upwell/v1/tokens", asked).result["token"])
    assert binding.result("query", {"vectorId": "a"}, token=token)["count"] == 2
    refused = binding.ask("deleteByIds", {"ids": ["a"]}, token=token)
    assert refused.status == 403 and refused.json["code"] == 7403
    assert binding.result("info")["vectorCount"] == 2


def test_what_is_no_operation(binding: Binding) -> None:
    unknown = binding.ask("list")
    assert unknown.status == 404 and unknown.json["code"] == 7003
    method = binding.ask("query", method="GET")
    assert method.status == 405 and method.json["code"] == 10405 and method.headers["Allow"] == "POST"
    rest = binding.ask("get_by_ids", {"ids": ["a"]})
    assert rest.status == 404 and list(rest.json) == ["code", "error"]


@pytest.mark.parametrize("missing", ["Upwell-Account", "Upwell-Index"])
def test_a_header_that_is_missing_is_named(service: Service, missing: str) -> None:
    headers = {"Host": "vector-search", "Upwell-Account": "default", "Upwell-Index": "any"}
    for nothing in (None, ""):
        sent = {name: value for name, value in headers.items() if name != missing}
        if nothing is not None:
            sent[missing] = nothing
        answer = service.apis[0].call("GET", "/info", headers=sent)
        assert answer.status == 400 and answer.json["code"] == 50400 and missing in answer.json["error"]


def test_only_the_binding_asks_that_host(service: Service) -> None:
    headers = {"Upwell-Account": "default", "Upwell-Index": "any"}
    with pytest.raises(json.JSONDecodeError):  # aiohttp's own page: there is no /info
        service.apis[0].call("GET", "/info", headers=headers)
    rest = "/client/v4/accounts/default/vectorize/v2/indexes"
    assert service.apis[0].call("GET", rest, headers=headers).status == 200
    there = service.apis[0].call("GET", rest, headers=headers | {"Host": "vector-search"})
    assert there.status == 404 and there.json["code"] == 7003


def test_lines_left_out_are_told_by_the_status(service: Service, binding: Binding) -> None:
    body = b'{"id":"c","values":[0,0,1]}\nnot json'
    mutation = binding.result("upsert?unparsable-behavior=discard", body)
    assert list(mutation) == ["mutationId"]
    index = service.apis[0].index(binding.index)
    assert [line["line"] for line in index.visible(mutation["mutationId"])["discarded"]] == [2]
    index.visible(index.delete(["c"]))
