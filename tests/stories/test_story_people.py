"""Who a token is: what wrangler and the SDKs ask before they do anything, and what no token may learn of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cloudflare
import pytest
from cloudflare import Cloudflare

from tests.service import TOKEN, Answer, Api, Service, running

PATHS = ("/accounts", "/memberships", "/user", "/user/tokens/verify")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(workers=0) as service:
        for account in ("alpha", "beta", "gamma"):
            service.apis[0].index("docs", account).create(2)
        yield service


@pytest.fixture
def api(service: Service) -> Api:
    return service.apis[0]


def ask(api: Api, path: str, token: str | None = TOKEN, **headers: str) -> Answer:
    return api.call("GET", f"/client/v4{path}", token=token, headers=headers)


def make_token(api: Api, **fields: Any) -> str:
    return str(api.call("POST", "/upwell/v1/tokens", fields).result["token"])


def names(answer: Answer) -> list[str]:
    assert answer.json["errors"] == [] and answer.json["messages"] == []
    return [one["id"] for one in answer.result]


def test_a_token_for_every_account_sees_those_of_the_catalog_and_default(api: Api) -> None:
    answer = ask(api, "/accounts")
    assert names(answer) == ["alpha", "beta", "default", "gamma"]
    assert answer.result[0] == {"id": "alpha", "name": "alpha", "type": "standard"}
    info = {"page": 1, "per_page": 20, "count": 4, "total_count": 4, "total_pages": 1}
    assert answer.json["result_info"] == info
    members = ask(api, "/memberships")
    assert [one["account"] for one in members.result] == answer.result
    assert members.json["result_info"] == info
    assert {(one["status"], *one["roles"]) for one in members.result} == {("accepted", "admin")}
    assert len({one["id"] for one in members.result}) == 4, "each membership is its own"
    assert members.result == ask(api, "/memberships").result, "and stays what it is"


def test_a_token_for_one_account_sees_that_one_even_if_it_is_empty(api: Api) -> None:
    for account in ("beta", "not-there-yet"):
        token = make_token(api, account=account, access="read")
        assert names(ask(api, "/accounts", token)) == [account]
        (membership,) = ask(api, "/memberships", token).result
        assert membership["account"]["id"] == account and membership["roles"] == ["read"]


def test_a_token_for_one_index_says_so(api: Api) -> None:
    token = make_token(api, account="gamma", index="docs", access="write")
    (membership,) = ask(api, "/memberships", token).result
    assert membership["account"]["name"] == "gamma" and membership["roles"] == ["write on index docs"]


def test_an_account_that_this_door_cannot_name_is_not_offered(api: Api) -> None:
    token = make_token(api, account="y" * 33)
    assert names(ask(api, "/accounts", token)) == []


def test_an_account_stays_after_its_last_index_was_deleted(service: Service, api: Api) -> None:
    with running(workers=0) as other:
        index = other.apis[0].index("only", "emptied")
        index.create(2)
        assert other.apis[0].call("DELETE", index.path()).result is None
        assert names(ask(other.apis[0], "/accounts")) == ["default", "emptied"]


def test_pages(api: Api) -> None:
    for path in ("/accounts", "/memberships"):
        first = ask(api, f"{path}?page=1&per_page=3")
        second = ask(api, f"{path}?page=2&per_page=3")
        whole = ask(api, path)
        assert first.result + second.result == whole.result and len(first.result) == 3
        assert second.json["result_info"] == {
            "page": 2, "per_page": 3, "count": 1, "total_count": 4, "total_pages": 2,
        }  # fmt: skip
        assert ask(api, f"{path}?page=3&per_page=3").result == []
    assert names(ask(api, "/accounts?name=beta")) == ["beta"]
    assert names(ask(api, "/accounts?name=nobody")) == []
    (membership,) = ask(api, "/memberships?account.name=beta").result
    assert membership["account"]["id"] == "beta"


@pytest.mark.parametrize(
    "query", ["page=0", "page=-1", "page=x", "page=", "per_page=0", "per_page=1001", "page=²"]
)
def test_a_page_that_is_none_is_refused(api: Api, query: str) -> None:
    quoted = query.replace("²", "%C2%B2")
    status, code, message = ask(api, f"/accounts?{quoted}").error
    assert (status, code) == (400, 50400) and "expected a number from 1 to" in message
    assert message.startswith(query.partition("=")[0])


def test_a_token_is_its_own_user_without_an_address(api: Api) -> None:
    assert ask(api, "/user").result == {"id": "bootstrap", "email": None, "username": "bootstrap admin"}
    mine = ask(api, "/user", make_token(api, name="importer")).result
    assert mine["email"] is None and mine["username"] == "importer" and mine["created_on"].endswith("Z")
    assert ask(api, "/user", make_token(api)).result["username"] is None


def test_verifying_a_token(api: Api) -> None:
    answer = ask(api, "/user/tokens/verify")
    assert answer.result == {"id": "bootstrap", "status": "active"}
    assert answer.json["messages"] == [{"code": 10000, "message": "This API Token is valid and active"}]
    token = make_token(api, expires_in_s=3600)
    result = ask(api, "/user/tokens/verify", token).result
    assert result["status"] == "active" and result["expires_on"].endswith("Z")
    assert result["id"] == ask(api, "/user", token).result["id"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_without_a_valid_token(api: Api, path: str) -> None:
    assert ask(api, path, None).error[:2] == (401, 9106)
    for token in ("wrong", "upw_wrong"):
        status, code, message = ask(api, path, token).error
        assert (status, code) == (401, 10000)
        assert "alpha" not in message and "default" not in message
    key = {"X-Auth-Key": TOKEN, "X-Auth-Email": "me@example.com"}
    assert ask(api, path, None, **key).result == ask(api, path).result


def test_an_expired_token_verifies_no_more(api: Api) -> None:
    token = make_token(api, expires_in_s=0.000_001)
    assert ask(api, "/user/tokens/verify", token).error[:2] == (401, 10000)


def test_the_sdk_reads_them(api: Api) -> None:
    with Cloudflare(api_token=TOKEN, base_url=f"{api.url}/client/v4", max_retries=0) as client:
        assert [one.id for one in client.accounts.list(per_page=2)] == ["alpha", "beta", "default", "gamma"]
        members = [one.account.name for one in client.memberships.list() if one.account is not None]
        assert members == ["alpha", "beta", "default", "gamma"]
        verified = client.user.tokens.verify()
        assert verified is not None and verified.status == "active"
        assert client.user.get() is not None
        with pytest.raises(cloudflare.AuthenticationError):
            client.with_options(api_token="wrong").user.get()
