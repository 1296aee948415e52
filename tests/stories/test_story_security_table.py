"""Who may do what: every operation there is, by every kind of token there is, against what each operation is declared to need.

A new operation must be declared in ``NEEDS``; that every route is an operation is held by tests/ingest/test_openapi.py.
"""

from __future__ import annotations

import http.client
import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ingest.openapi.document import OPERATIONS
from ingest.openapi.operation import Operation
from tests import milvus_needs as milvus
from tests.service import TOKEN, Api, Index, Service, running
from upwell.catalog.tokens import Access

#: Where a token may be good.
DOORS = ("cloudflare", "binding", "upstash", "milvus")
ACCOUNT, INDEX, NEVER, GONE = "default", "docs", "never-was", "once-was"


class Need(Enum):
    """What an operation needs of a token."""

    NOTHING = "nothing: it is open to all"
    TOKEN = "any token that may be used at this door"
    SEEN = "any token of this account: what it may not see is left out"
    READ = "to read this index, or the account if it names no index"
    WRITE = "to write this index"
    ADMIN = "to administer the account's indexes, or this index"
    TOKENS = "to do everything everywhere"


#: By the operation's id in the API description.
NEEDS = {
    "healthz": Need.NOTHING,
    "readyz": Need.NOTHING,
    "metrics": Need.NOTHING,
    "openapi": Need.NOTHING,
    "listAccounts": Need.TOKEN,
    "listMemberships": Need.TOKEN,
    "user": Need.TOKEN,
    "verifyToken": Need.TOKEN,
    "createIndex": Need.ADMIN,
    "listIndexes": Need.READ,
    "getIndex": Need.READ,
    "deleteIndex": Need.ADMIN,
    "indexInfo": Need.READ,
    "insertVectors": Need.WRITE,
    "upsertVectors": Need.WRITE,
    "deleteVectors": Need.WRITE,
    "getVectors": Need.READ,
    "listVectors": Need.READ,
    "queryVectors": Need.READ,
    "exportVectors": Need.READ,
    "createMetadataIndex": Need.WRITE,
    "listMetadataIndexes": Need.READ,
    "deleteMetadataIndex": Need.WRITE,
    "recentMutations": Need.READ,
    "mutationEvents": Need.READ,
    "mutationStatus": Need.READ,
    "mutationChangeset": Need.READ,
    "retryMutation": Need.WRITE,
    "createWebhook": Need.WRITE,
    "listWebhooks": Need.READ,
    "deleteWebhook": Need.WRITE,
    **{
        f"binding{name}{how}": Need.READ
        for name in ("Info", "GetByIds", "Query")
        for how in ("", "ByHeaders")
    },
    **{
        f"binding{name}{how}": Need.WRITE
        for name in ("Insert", "Upsert", "DeleteByIds")
        for how in ("", "ByHeaders")
    },
    **{
        f"upstash{name}{where}": Need.READ
        for name in ("Query", "QueryData", "ResumableQuery", "ResumableQueryData", "Fetch", "Range", "Random")
        for where in ("", "InNamespace")
    },
    "upstashResumableQueryNext": Need.READ,
    "upstashResumableQueryEnd": Need.READ,
    "upstashInfo": Need.READ,
    "upstashListNamespaces": Need.READ,
    **{
        f"upstash{name}{where}": Need.WRITE
        for name in ("Upsert", "UpsertData", "Update", "Delete", "Reset", "DeleteNamespace")
        for where in ("", "InNamespace")
    },
    "upstashRenameNamespace": Need.WRITE,
    **dict.fromkeys(milvus.ids("Collections", version=1) + milvus.ids(*milvus.SEEN), Need.SEEN),
    **dict.fromkeys([*milvus.ids(*milvus.OPEN), *milvus.REFUSED], Need.TOKEN),
    **dict.fromkeys(milvus.ids(*milvus.V1_READS, version=1), Need.READ),
    **dict.fromkeys(milvus.ids(*milvus.READS, *milvus.DATABASE_READS), Need.READ),
    **dict.fromkeys(milvus.ids(*milvus.V1_WRITES, version=1) + milvus.ids(*milvus.WRITES), Need.WRITE),
    **dict.fromkeys(milvus.ids("CollectionsCreate", "CollectionsDrop", version=1), Need.ADMIN),
    **dict.fromkeys(milvus.ids(*milvus.ADMINS, *milvus.DATABASE_ADMINS, "CollectionsRename"), Need.ADMIN),
    "createToken": Need.TOKENS,
    "listTokens": Need.TOKENS,
    "rotateToken": Need.TOKENS,
    "revokeToken": Need.TOKENS,
}

#: Of those that are alike one is tried.
TRIED = [one for one in OPERATIONS if one.id not in milvus.REFUSED[1:]]
IN_ORDER = (Need.TOKEN, Need.READ, Need.WRITE, Need.ADMIN, Need.TOKENS)


@dataclass(frozen=True)
class Caller:
    """Somebody who asks: what they send, and what they may do at most."""

    name: str
    headers: tuple[tuple[str, str], ...]
    #: None: they are not known, and get a 401.
    may: Need | None
    #: The index that it is limited to.
    index: str | None = None
    account: str = ACCOUNT
    #: Does it send the right one without a word before it? Milvus's clients may.
    by_a_bare_token: bool = False

    def expected(self, operation: Operation, index: str = NEVER) -> str:
        """401, 403, or that it is let in."""
        need = need_of(operation)
        if need is Need.NOTHING:
            return "let in"
        if self.by_a_bare_token and door_of(operation) == "milvus":
            return "let in"
        if self.may is None:
            return "401"
        if need is Need.SEEN:
            return "let in" if self.account == ACCOUNT else "403"
        if IN_ORDER.index(self.may) < IN_ORDER.index(need):
            return "403"
        asked = index if "index" in names_of(operation) else None
        if self.index not in (None, asked) and need is not Need.TOKEN:
            return "403"
        return "let in"


def need_of(operation: Operation) -> Need:
    need = NEEDS.get(operation.id)
    if need is None:
        pytest.fail(f"say in NEEDS of {__file__} what {operation.id} needs of a token")
    return need


def names_of(operation: Operation) -> set[str]:
    if operation.id in milvus.OF_COLLECTION:
        return {"index"}
    return {parameter.name.lower().removeprefix("upwell-") for parameter in operation.parameters}


@dataclass(frozen=True)
class House:
    service: Service
    api: Api
    callers: tuple[Caller, ...]
    #: By door: the caller whose token is for another one.
    strangers: dict[str, Caller]

    def everything_stored(self) -> dict[str, bytes]:
        store = self.service.data / "store"
        return {str(path): path.read_bytes() for path in store.rglob("*") if path.is_file()}

    def ask(
        self, operation: Operation, caller: Caller, index: str, method: str | None = None
    ) -> tuple[int, str, Any]:
        """Status, content type, and the body as JSON. No body is sent, or one that means nothing, so that who is let in changes nothing."""
        names = {"account": ACCOUNT, "index": index, "mutation": "00000000-0001-8000-8000-000000000000"}
        path = operation.path.format(**names, webhook="0" * 32, namespace="tenant")
        headers, sent = dict(caller.headers), None
        if door_of(operation) == "milvus":
            path, asked = milvus.asked(operation, ACCOUNT, index, NEVER)
            sent = None if asked is None else json.dumps(asked)
        if operation.server is not None:
            headers |= {
                "Host": urlsplit(operation.server).netloc,
                "Upwell-Account": ACCOUNT,
                "Upwell-Index": index,
            }
        connection = http.client.HTTPConnection(urlsplit(self.api.url).netloc, timeout=20)
        try:
            connection.request(method or operation.method.upper(), path, sent, headers)
            answer = connection.getresponse()
            body = answer.read() if answer.status != 200 else b"null"
            return answer.status, answer.headers.get_content_type(), json.loads(body or b"null")
        finally:
            connection.close()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("Authorization", f"Bearer {token}"),)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with running(workers=0) as service:
        api = service.apis[0]
        Index(api, INDEX).create().result  # noqa: B018  it must have worked
        Index(api, GONE).create().result  # noqa: B018
        assert api.call("DELETE", Index(api, GONE).path()).status == 200
        Index(api, INDEX).upsert([{"id": "a", "values": [1, 2, 3]}])
        # So that it is no change if it is done again.
        assert api.call("POST", "/v2/vectordb/databases/alter", {"dbName": ACCOUNT}).status == 200

        def make(**fields: Any) -> str:
            return str(api.call("POST", "/upwell/v1/tokens", {"access": "admin", **fields}).result["token"])

        revoked, rotated = make(), make()
        assert api.call("POST", "/upwell/v1/tokens/revoke", {"token": revoked}).status == 200
        new = api.call("POST", "/upwell/v1/tokens/rotate", {"token": rotated}).result["token"]
        password = b64encode(f"anybody:{make(account=ACCOUNT, access='read')}".encode()).decode()
        callers = (
            Caller("no token", (), None),
            Caller("an empty header", (("Authorization", ""),), None),
            Caller("Bearer and nothing", (("Authorization", "Bearer "),), None),
            Caller("a token without a scheme", (("Authorization", TOKEN),), None, by_a_bare_token=True),
            Caller("another scheme", (("Authorization", f"Digest {TOKEN}"),), None),
            Caller("what is no base64", (("Authorization", "Basic %%%"),), None),
            Caller("a key without an address", (("X-Auth-Key", TOKEN),), None),
            Caller("a wrong token", bearer("upw_wrong"), None),
            Caller("the right token and more", bearer(TOKEN + "x"), None),
            Caller("a name of a file", bearer("../../admin-token"), None),
            Caller("an expired token", bearer(make(expires_in_s=0.000_001)), None),
            Caller("a revoked token", bearer(revoked), None),
            Caller("a token rotated away", bearer(rotated), None),
            Caller("the one that took its place", bearer(new), Need.TOKENS),
            Caller("a reader", bearer(make(account=ACCOUNT, access="read")), Need.READ),
            Caller("a reader by password", (("Authorization", f"Basic {password}"),), Need.READ),
            Caller("a writer", bearer(make(account=ACCOUNT, access="write")), Need.WRITE),
            Caller("an account's administrator", bearer(make(account=ACCOUNT)), Need.ADMIN),
            Caller("another account's", bearer(make(account="other")), Need.TOKEN, account="other"),
            Caller("another index's", bearer(make(account=ACCOUNT, index="other")), Need.TOKEN),
            Caller("this index's", bearer(make(account=ACCOUNT, index=INDEX)), Need.ADMIN, index=INDEX),
            Caller("bootstrap", bearer(TOKEN), Need.TOKENS),
        )
        strangers = {door: Caller(f"another door's: {door}", bearer(make(door=door)), None) for door in DOORS}
        yield House(service, api, callers, strangers)


def test_every_operation_is_declared_and_nothing_else() -> None:
    there = {operation.id for operation in OPERATIONS}
    assert not there - NEEDS.keys(), f"say in NEEDS what these need: {sorted(there - NEEDS.keys())}"
    assert not NEEDS.keys() - there, f"no longer there: {sorted(NEEDS.keys() - there)}"
    for operation in OPERATIONS:
        assert operation.secured == (NEEDS.get(operation.id) is not Need.NOTHING), operation.id


def door_of(operation: Operation) -> str:
    return next((door for door in DOORS if operation.id.startswith(door)), "cloudflare")


def check_refusal(operation: Operation, answer: tuple[int, str, Any]) -> None:
    """In the door's own words."""
    status, content_type, body = answer
    assert content_type == "application/json", operation.id
    if door_of(operation) == "upstash":
        says = {401: "Unauthorized: Invalid auth token", 403: "Forbidden: "}[status]
        assert set(body) == {"error", "status"} and body["status"] == status, (operation.id, body)
        assert body["error"].startswith(says), (operation.id, body)
        return
    if door_of(operation) == "milvus":
        code = {401: 1800, 403: 1401}[status]
        assert body.keys() == {"code", "message"} and body["code"] == code, (operation.id, body)
        return
    codes = {401: {9106, 10000}, 403: {7403}}[status]
    if operation.id.startswith("binding"):
        assert set(body) == {"code", "error"} and body["code"] in codes, (operation.id, body)
        return
    assert body["result"] is None and body["success"] is False, (operation.id, body)
    assert [error["code"] in codes for error in body["errors"]] == [True], (operation.id, body)


@pytest.mark.parametrize("operation", TRIED, ids=lambda operation: operation.id)
def test_everybody_may_what_is_declared_and_no_more(house: House, operation: Operation) -> None:
    before = house.everything_stored()
    for caller in house.callers:
        expected = caller.expected(operation)
        # About an index that never was, so that who is let in changes nothing.
        answer = house.ask(operation, caller, NEVER)
        if expected == "let in":
            assert answer[0] in (200, 400, 404), (operation.id, caller.name, answer)
        else:
            assert str(answer[0]) == expected, (operation.id, caller.name, answer)
            check_refusal(operation, answer)
    assert house.everything_stored() == before, f"{operation.id}: somebody changed something"


@pytest.mark.parametrize(
    "operation", [one for one in TRIED if one.secured], ids=lambda operation: operation.id
)
def test_a_token_for_another_door_is_refused_at_this_one(house: House, operation: Operation) -> None:
    door = door_of(operation)
    for caller_door, caller in house.strangers.items():
        answer = house.ask(operation, caller, NEVER)
        if caller_door == door and need_of(operation) is not Need.TOKENS:
            assert answer[0] in (200, 400, 404), (operation.id, caller.name, answer)
        else:
            assert answer[0] == 403, (operation.id, caller.name, answer)
            check_refusal(operation, answer)


@pytest.mark.parametrize(
    "operation",
    [one for one in OPERATIONS if "index" in names_of(one)],
    ids=lambda operation: operation.id,
)
def test_who_may_not_see_an_index_is_not_told_whether_it_exists(house: House, operation: Operation) -> None:
    before = house.everything_stored()
    for caller in house.callers:
        if caller.expected(operation) == "let in":
            continue
        names = (INDEX, NEVER) if door_of(operation) == "milvus" else (INDEX, NEVER, GONE, "Not-A-Name!")
        others = [name for name in names if name != caller.index]
        first, *rest = [house.ask(operation, caller, name) for name in others]
        assert first[0] in (401, 403) and all(answer == first for answer in rest), (caller.name, first, rest)
    assert house.everything_stored() == before


def test_a_token_for_one_index_works_there(house: House) -> None:
    (caller,) = [one for one in house.callers if one.index == INDEX]
    by_id = {operation.id: operation for operation in OPERATIONS}
    for name in (
        "getIndex",
        "indexInfo",
        "listVectors",
        "recentMutations",
        "bindingInfo",
        "bindingInfoByHeaders",
        "upstashInfo",
        "milvusCollectionsDescribe",
        "milvusV1CollectionsDescribe",
    ):
        assert house.ask(by_id[name], caller, INDEX)[0] == 200, name


@pytest.mark.parametrize(
    "operation",
    [one for one in OPERATIONS if one.secured and one.method == "get" and door_of(one) != "milvus"],
    ids=lambda operation: operation.id,
)
def test_head_is_no_way_around(house: House, operation: Operation) -> None:
    for caller in house.callers:
        if caller.may is None:
            assert house.ask(operation, caller, INDEX, "HEAD")[0] == 401, (operation.id, caller.name)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_any_method_of_a_command_needs_what_the_command_needs(house: House, method: str) -> None:
    """Upstash's clients disagree about methods, so this door takes all of them; and none of them is a way around."""
    before = house.everything_stored()
    for operation in (one for one in OPERATIONS if door_of(one) == "upstash"):
        for caller in house.callers:
            status = house.ask(operation, caller, NEVER, method)[0]
            expected = caller.expected(operation)
            assert str(status) == ("404" if expected == "let in" else expected), (operation.id, caller.name)
    assert house.everything_stored() == before


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PUT", "PATCH", "PROPFIND"])
def test_other_methods_are_no_way_around(house: House, method: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(house.api.url).netloc, timeout=20)
    connection.request(method, Index(house.api, INDEX).path(), headers=dict(bearer(TOKEN)))
    assert connection.getresponse().status in (400, 404, 405)
    connection.close()
    assert house.api.call("GET", Index(house.api, INDEX).path()).status == 200


def test_no_request_of_a_browser_is_helped_along(house: House) -> None:
    """No cookies, and no page of another origin is let in: so there is nothing to forge."""
    answer = house.api.call("GET", Index(house.api, INDEX).path(), headers={"Origin": "https://evil.example"})
    names = {name.lower() for name in answer.headers}
    assert not {name for name in names if name.startswith("access-control-") or name == "set-cookie"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "aiohttp" not in str(answer.headers) and "Python" not in str(answer.headers)


def test_the_order_of_access_is_that_of_the_engine() -> None:
    assert [need.name.lower() for need in IN_ORDER[1:4]] == [str(access) for access in Access]


def test_nothing_of_a_token_lies_in_the_store(house: House) -> None:
    stored = b"".join(house.everything_stored().values())
    names = " ".join(str(path) for path in Path(house.service.data).rglob("*"))
    for caller in (*house.callers, *house.strangers.values()):
        for _, value in caller.headers:
            secret = value.removeprefix("Bearer ")
            if secret.startswith("upw_") and secret != "upw_wrong":
                assert secret.encode() not in stored and secret not in names, caller.name
