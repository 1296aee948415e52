"""Cloudflare's own Python SDK, unchanged, but for the address that it is given.

Its quirks are kept on purpose: a str body is sent as one JSON string, a bytes body as application/json (bytes work since
5.x), and returnMetadata may be left to its default.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import cloudflare
import pytest
from cloudflare import Cloudflare

from tests.service import TOKEN, Service, running

# Its insert and upsert take bytes, and its own transport then warns about that.
pytestmark = pytest.mark.filterwarnings("ignore:Passing raw bytes as `body`:DeprecationWarning")

ACCOUNT = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[Cloudflare]:
    url = f"{service.apis[0].url}/client/v4"
    with Cloudflare(api_token=TOKEN, base_url=url, max_retries=0) as client:
        yield client


def ndjson(*vectors: dict[str, object]) -> str:
    return "\n".join(json.dumps(vector) for vector in vectors)


def test_create_insert_upsert_wait_query_delete(service: Service, client: Cloudflare) -> None:
    indexes = client.vectorize.indexes
    created = indexes.create(
        account_id=ACCOUNT, name="sdk", config={"dimensions": 3, "metric": "cosine"}, description="by the SDK"
    )
    assert created is not None and created.name == "sdk" and created.description == "by the SDK"
    assert created.created_on is not None and created.created_on.tzinfo is not None
    assert [one.name for one in indexes.list(account_id=ACCOUNT)] == ["sdk"]
    got = indexes.get("sdk", account_id=ACCOUNT)
    assert got is not None and got.config is not None and got.config.dimensions == 3

    text = ndjson(
        {"id": "a", "values": [1, 0, 0], "metadata": {"k": "one"}},
        {"id": "b", "values": [0, 1, 0], "namespace": "n"},
    )
    inserted = indexes.insert("sdk", account_id=ACCOUNT, body=text)  # type: ignore[arg-type]  # what many send
    assert inserted is not None and inserted.mutation_id is not None
    wait(service, inserted.mutation_id)
    info = indexes.info("sdk", account_id=ACCOUNT)
    assert info is not None and info.vector_count == 2 and info.dimensions == 3
    assert info.processed_up_to_mutation == inserted.mutation_id
    assert info.processed_up_to_datetime is not None

    more = ndjson({"id": "a", "values": [0, 0, 2], "metadata": {"k": "two"}}) + "\n"
    upserted = indexes.upsert("sdk", account_id=ACCOUNT, body=more.encode())
    assert upserted is not None and upserted.mutation_id is not None
    wait(service, upserted.mutation_id)
    answer = indexes.query(
        "sdk", account_id=ACCOUNT, vector=[0, 0, 1], top_k=2, return_values=True, return_metadata="all"
    )
    assert answer is not None and answer.matches is not None and answer.count == 2
    assert answer.matches[0].id == "a" and answer.matches[0].values == [0, 0, 2]
    assert answer.matches[0].metadata == {"k": "two"} and answer.matches[0].score == pytest.approx(1.0)

    fetched = indexes.get_by_ids("sdk", account_id=ACCOUNT, ids=["b", "nobody"])
    assert fetched == [{"id": "b", "values": [0, 1, 0], "namespace": "n"}]
    deleted = indexes.delete_by_ids("sdk", account_id=ACCOUNT, ids=["a"])
    assert deleted is not None and deleted.mutation_id is not None
    wait(service, deleted.mutation_id)
    assert indexes.get_by_ids("sdk", account_id=ACCOUNT, ids=["a"]) == []
    assert indexes.delete("sdk", account_id=ACCOUNT) is None


def test_discarding_what_cannot_be_parsed(service: Service, client: Cloudflare) -> None:
    indexes = client.vectorize.indexes
    indexes.create(account_id=ACCOUNT, name="discarding", config={"dimensions": 2, "metric": "euclidean"})
    body = b'{"id":"a","values":[1,2]}\nnot json\n{"id":"b","values":[3,4]}\n'
    answer = indexes.upsert("discarding", account_id=ACCOUNT, body=body, unparsable_behavior="discard")
    assert answer is not None and answer.mutation_id is not None
    wait(service, answer.mutation_id, "discarding")
    info = indexes.info("discarding", account_id=ACCOUNT)
    assert info is not None and info.vector_count == 2


def test_metadata_indexes_filters_and_lists(service: Service, client: Cloudflare) -> None:
    indexes = client.vectorize.indexes
    indexes.create(account_id=ACCOUNT, name="filtered", config={"dimensions": 2, "metric": "cosine"})
    for name, kind in (("color", "string"), ("size", "number")):
        declared = indexes.metadata_index.create(
            "filtered",
            account_id=ACCOUNT,
            property_name=name,
            index_type=kind,  # type: ignore[arg-type]  # both are among its literals
        )
        assert declared is not None and declared.mutation_id is not None
        wait(service, declared.mutation_id, "filtered")
    listed = indexes.metadata_index.list("filtered", account_id=ACCOUNT)
    assert listed is not None and listed.metadata_indexes is not None
    found = [(one.property_name, one.index_type) for one in listed.metadata_indexes]
    assert found == [("color", "string"), ("size", "number")]

    text = ndjson(
        {"id": "a", "values": [1, 0], "metadata": {"color": "red", "size": 1, "note": "n"}},
        {"id": "b", "values": [1, 1], "metadata": {"color": "red", "size": 2.5}},
        {"id": "c", "values": [0, 1], "metadata": {"color": "blue", "size": 4}},
        {"id": "d", "values": [0, 1]},
    )
    upserted = indexes.upsert("filtered", account_id=ACCOUNT, body=text.encode())
    assert upserted is not None and upserted.mutation_id is not None
    wait(service, upserted.mutation_id, "filtered")
    for wanted, expected in (
        ({"color": "red"}, ["a", "b"]),
        ({"color": {"$ne": "red"}, "size": {"$lte": 4}}, ["c"]),
        ({"size": {"$gte": 2.5, "$lt": 4}}, ["b"]),
        ({"color": {"$in": ["blue", "green"]}}, ["c"]),
    ):
        answer = indexes.query("filtered", account_id=ACCOUNT, vector=[1, 0], filter=wanted)
        assert answer is not None and answer.matches is not None
        assert [match.id for match in answer.matches] == expected, wanted
    some = indexes.query(
        "filtered",
        account_id=ACCOUNT,
        vector=[1, 0],
        top_k=1,
        filter={"color": "red"},
        return_metadata="indexed",
    )
    assert some is not None and some.matches is not None
    assert some.matches[0].metadata == {"color": "red", "size": 1}, "and not the note"

    first = indexes.list_vectors("filtered", account_id=ACCOUNT, count=3)
    assert first is not None and (first.count, first.total_count, first.is_truncated) == (3, 4, True)
    assert first.next_cursor is not None
    rest = indexes.list_vectors("filtered", account_id=ACCOUNT, count=3, cursor=first.next_cursor)
    assert rest is not None and (rest.count, rest.is_truncated, rest.next_cursor) == (1, False, None)
    assert sorted(one.id for one in [*first.vectors, *rest.vectors]) == ["a", "b", "c", "d"]

    undeclared = indexes.metadata_index.delete("filtered", account_id=ACCOUNT, property_name="color")
    assert undeclared is not None and undeclared.mutation_id is not None
    wait(service, undeclared.mutation_id, "filtered")
    left = indexes.metadata_index.list("filtered", account_id=ACCOUNT)
    assert left is not None and left.metadata_indexes is not None
    assert [one.property_name for one in left.metadata_indexes] == ["size"]


def test_errors_are_the_sdks_own(client: Cloudflare) -> None:
    indexes = client.vectorize.indexes
    with pytest.raises(cloudflare.NotFoundError) as missing:
        indexes.get("never-was", account_id=ACCOUNT)
    assert missing.value.errors[0].code == 3000
    indexes.create(account_id=ACCOUNT, name="strict", config={"dimensions": 3, "metric": "dot-product"})
    with pytest.raises(cloudflare.BadRequestError) as duplicate:
        indexes.create(account_id=ACCOUNT, name="strict", config={"dimensions": 3, "metric": "dot-product"})
    assert duplicate.value.errors[0].code == 3002
    with pytest.raises(cloudflare.BadRequestError) as narrow:
        indexes.upsert("strict", account_id=ACCOUNT, body=ndjson({"id": "a", "values": [1]}).encode())
    assert narrow.value.errors[0].code == 40012
    with pytest.raises(cloudflare.AuthenticationError):
        client.with_options(api_token="wrong-token").vectorize.indexes.get("strict", account_id=ACCOUNT)


def test_the_key_and_email_form_of_authentication(service: Service) -> None:
    url = f"{service.apis[0].url}/client/v4"
    with Cloudflare(api_key=TOKEN, api_email="me@example.com", base_url=url, max_retries=0) as client:
        assert list(client.vectorize.indexes.list(account_id="somebody")) == []


def wait(service: Service, mutation: str, name: str = "sdk") -> None:
    service.apis[0].index(name, account=ACCOUNT).visible(mutation)
