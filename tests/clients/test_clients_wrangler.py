"""wrangler, unchanged, but for the address in ``CLOUDFLARE_API_BASE_URL``: an old version and the newest.

What it does not send is left to other clients: it drops ``$gte`` from filters, and a list as the value of a property.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.clients.javascript import Home, Ran
from tests.service import TOKEN, Index, Service, running

ACCOUNT = "0123456789abcdef0123456789abcdef"
#: Each command is a second of computing, so the old one is for `make test-all`.
VERSIONS = (pytest.param("wrangler", marks=pytest.mark.slow), "wrangler-newest")

Wrangler = Callable[..., Ran]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def at_home(service: Service, home: Home) -> Home:
    """wrangler knows the address, and no account."""
    return home.knowing(
        CLOUDFLARE_API_BASE_URL=f"{service.apis[0].url}/client/v4", CLOUDFLARE_API_TOKEN=TOKEN
    )


@pytest.fixture
def index(service: Service, version: str) -> Index:
    return service.apis[0].index(f"docs-{version}", ACCOUNT)


@pytest.fixture
def vectorize(at_home: Home, version: str) -> Wrangler:
    """``wrangler vectorize …`` in one account."""
    knowing = at_home.knowing(CLOUDFLARE_ACCOUNT_ID=ACCOUNT)
    return lambda *arguments: knowing.wrangler(version, "vectorize", *arguments)


def write(home: Home, *vectors: dict[str, Any]) -> str:
    """A file of vectors with a blank line, which wrangler sends as it is; returns its path."""
    path = home.folder / "vectors.ndjson"
    path.write_text("\n\n".join(json.dumps(vector) for vector in vectors) + "\n", "utf-8")
    return str(path)


def vector(id: str, *values: float, **more: Any) -> dict[str, Any]:
    return {"id": id, "values": list(values), **more}


def ids(ran: Ran) -> list[str]:
    return [match["id"] for match in ran.json["matches"]]


@pytest.mark.timeout(300)  # twenty commands, and each is a second of computing
def test_from_create_to_delete(home: Home, vectorize: Wrangler, index: Index) -> None:
    name = index.name
    created = vectorize(
        "create", name, "--dimensions=3", "--metric=cosine", "--description=by wrangler", "--json"
    )
    assert created.json["config"] == {"dimensions": 3, "metric": "cosine"}
    assert created.json["description"] == "by wrangler"
    assert created.json in vectorize("list", "--json").json
    assert vectorize("get", name, "--json").json == created.json

    inserted = vectorize("insert", name, "--file", write(home, vector("a", 1, 0, 0), vector("b", 0, 1, 0)))
    assert index.visible(inserted.mutation)["counts"]["inserted"] == 2
    indexed = vectorize("create-metadata-index", name, "--property-name=kind", "--type=string")
    index.visible(indexed.mutation)
    declared = vectorize("list-metadata-index", name, "--json")
    assert declared.json == [{"propertyName": "kind", "indexType": "string"}]

    upserted = vectorize(
        "upsert", name, "--file", write(
            home,
            vector("a", 1, 0, 0, metadata={"kind": "red", "n": 1}),
            vector("b", 0, 1, 0, metadata={"kind": "blue"}),
            vector("c", 0, 0, 1, namespace="apart", metadata={"kind": "red"}),
        ),
    )  # fmt: skip
    assert index.visible(upserted.mutation)["counts"]["replaced"] == 2
    info = vectorize("info", name, "--json").json
    assert info["vectorCount"] == 3 and info["processedUpToMutation"] == upserted.mutation

    near = ("query", name, "--vector", "1", "0", "0.5")
    everything = vectorize(*near, "--top-k=2", "--return-values", "--return-metadata=all")
    assert [match["id"] for match in everything.json["matches"]] == ["a", "c"]
    assert everything.json["matches"][0]["values"] == [1, 0, 0]
    assert everything.json["matches"][0]["metadata"] == {"kind": "red", "n": 1}
    assert ids(vectorize(*near, "--filter", '{"kind":"red"}')) == ["a", "c"]
    assert ids(vectorize(*near, "--filter", '{"kind":{"$nin":["red","green"]}}')) == ["b"]
    assert ids(vectorize(*near, "--filter", '{"kind":{"$eq":"red"}}', "--namespace=apart")) == ["c"]
    assert ids(vectorize("query", name, "--vector-id=b", "--top-k=1")) == ["b"]
    assert "matches" not in vectorize(*near, "--filter", '{"kind":"green"}').said

    first = vectorize("list-vectors", name, "--count=2", "--json").json
    assert (first["count"], first["totalCount"], first["isTruncated"]) == (2, 3, True)
    rest = vectorize("list-vectors", name, "--count=2", "--cursor", first["nextCursor"], "--json").json
    assert (rest["count"], rest["isTruncated"], rest["nextCursor"]) == (1, False, None)
    assert sorted(one["id"] for one in first["vectors"] + rest["vectors"]) == ["a", "b", "c"]

    got = vectorize("get-vectors", name, "--ids", "c", "nobody").json
    assert got == [vector("c", 0, 0, 1, namespace="apart", metadata={"kind": "red"})]
    deleted = vectorize("delete-vectors", name, "--ids", "c", "nobody")
    assert index.visible(deleted.mutation)["counts"]["deleted"] == 1
    assert '"c"' not in vectorize("get-vectors", name, "--ids", "c").said

    undeclared = vectorize("delete-metadata-index", name, "--property-name=kind")
    index.visible(undeclared.mutation)
    assert vectorize("list-metadata-index", name, "--json").json == []
    assert "Deleted index" in vectorize("delete", name, "--force").said
    gone = vectorize("get", name)
    assert gone.code == 1 and "[code: 3005]" in gone.err and f'Index name "{name}" was deleted' in gone.err


def test_a_preset_in_place_of_dimensions_and_metric(vectorize: Wrangler, version: str) -> None:
    created = vectorize("create", f"preset-{version}", "--preset=@cf/baai/bge-small-en-v1.5", "--json").json
    assert created["config"]["dimensions"] == 384 and created["config"]["metric"]


def test_a_mistake_is_shown_with_its_place(home: Home, vectorize: Wrangler, version: str) -> None:
    name = f"strict-{version}"
    vectorize("create", name, "--dimensions=2", "--metric=euclidean").said  # noqa: B018  fails if it failed
    refused = vectorize("insert", name, "--file", write(home, vector("a", 1, 2), vector("b", 1, 2, 3)))
    assert refused.code == 1 and "[code: 40012]" in refused.err
    assert 'invalid vector for id="b"' in refused.err and "line 3" in refused.err
    twice = vectorize("create", name, "--dimensions=2", "--metric=euclidean")
    assert twice.code == 1 and "[code: 3002]" in twice.err


def test_whoami_tells_what_the_token_is_for(service: Service, at_home: Home, version: str) -> None:
    token = make_token(service, account=f"only-{version}")
    told = at_home.knowing(CLOUDFLARE_API_TOKEN=token).wrangler(version, "whoami")
    assert "You are logged in with an User API Token" in told.said and f"only-{version}" in told.out
    facts = at_home.knowing(CLOUDFLARE_API_TOKEN=token).wrangler(version, "whoami", "--json").json
    assert facts["loggedIn"] and facts["email"] is None
    assert [account["id"] for account in facts["accounts"]] == [f"only-{version}"]


def test_without_an_account_it_takes_the_one_of_the_token(
    service: Service, at_home: Home, version: str
) -> None:
    account = f"mine-{version}"
    service.apis[0].index("apart", account).create(2)
    token = make_token(service, account=account, access="read")
    listed = at_home.knowing(CLOUDFLARE_API_TOKEN=token).wrangler(version, "vectorize", "list", "--json")
    assert [one["name"] for one in listed.json] == ["apart"]


def test_a_key_with_an_address_serves_as_well(service: Service, at_home: Home, version: str) -> None:
    variables = {name: value for name, value in at_home.variables.items() if name != "CLOUDFLARE_API_TOKEN"}
    with_key = Home(at_home.folder, variables).knowing(
        CLOUDFLARE_API_KEY=TOKEN, CLOUDFLARE_EMAIL="me@example.com", CLOUDFLARE_ACCOUNT_ID="by-key"
    )
    assert with_key.wrangler(version, "vectorize", "list", "--json").json == []


def test_a_wrong_token_is_told_apart_from_nothing(at_home: Home, version: str) -> None:
    wrong = at_home.knowing(CLOUDFLARE_API_TOKEN="wrong", CLOUDFLARE_ACCOUNT_ID=ACCOUNT)
    refused = wrong.wrangler(version, "vectorize", "list", "--json")
    assert refused.code == 1 and "10000" in refused.out + refused.err


def make_token(service: Service, **fields: Any) -> str:
    return str(service.apis[0].call("POST", "/upwell/v1/tokens", fields).result["token"])
