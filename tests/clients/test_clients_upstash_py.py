"""upstash-vector, unchanged, on a dense index: every operation, in the default namespace and in another.

What is expected here is what Upstash's own suite (vector-py, tests/core) and documentation expect of Upstash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from upstash_vector import Index, Vector
from upstash_vector.errors import UpstashError
from upstash_vector.types import Data, MetadataUpdateMode, QueryResult

from tests.clients.upstash import Upstash, client, settle
from tests.service import TOKEN

FIVE: list[dict[str, Any]] = [
    {"id": "id1", "vector": [0.1, 0.2], "metadata": {"n": 1, "odd": True}, "data": "one"},
    {"id": "id2", "vector": [0.3, 0.4], "metadata": {"n": 2, "odd": False}},
    {"id": "id3", "vector": [0.5, 0.6], "metadata": {"n": 3, "odd": True, "tags": ["x", "y"]}},
    {"id": "id4", "vector": [0.7, 0.8]},
    {"id": "id5", "vector": [0.9, 1.0], "metadata": {"n": 5, "deep": {"er": "yes"}}},
]


@pytest.fixture
def url(upstash: Upstash) -> str:
    return upstash.make("dense")


@pytest.fixture
def index(url: str) -> Iterator[Index]:
    with client(url) as index:
        yield index


@pytest.fixture(params=["", "ns"])
def ns(request: pytest.FixtureRequest) -> str:
    """The namespaces in which Upstash's own suite tries everything."""
    return str(request.param)


def refused(text: str) -> Any:
    """What a client raises when the service answers with this error; which item of several it was may be said besides."""
    return pytest.raises(UpstashError, match=rf"^{re.escape(text)}( \(item .*\))?$")


def ids(found: Any) -> list[str]:
    return [one.id for one in found]


def test_every_form_of_a_vector(index: Index, ns: str) -> None:
    mixed: list[dict[str, Any] | tuple[Any, ...] | Vector | Data] = [
        ("tuple", [0.1, 0.2], {"k": "v"}, "words"),
        ("no data", [0.2, 0.3], {"k": "v"}),
        ("bare", [0.3, 0.4]),
        ("numpy", np.array([0.5, 0.25], dtype=np.float32)),
        {"id": "dict", "vector": [0.1, 0.2], "metadata": {"a": [1, {"b": None}]}, "data": "ä€😀"},
        {"id": "bare dict", "vector": [0.1, 0.2]},
        Vector(id="object", vector=[0.1, 0.2], metadata={"k": 1.5}, data=""),
        Vector(id=33, vector=[1, 0]),
    ]
    assert index.upsert(mixed, namespace=ns) == "Success"
    names = ["tuple", "no data", "bare", "numpy", "dict", "bare dict", "object", "33", "nobody"]
    *found, nobody = index.fetch(
        names, include_vectors=True, include_metadata=True, include_data=True, namespace=ns
    )
    assert nobody is None
    assert [(one and (one.id, one.vector, one.metadata, one.data, one.sparse_vector)) for one in found] == [
        ("tuple", [0.1, 0.2], {"k": "v"}, "words", None),
        ("no data", [0.2, 0.3], {"k": "v"}, None, None),
        ("bare", [0.3, 0.4], None, None, None),
        ("numpy", [0.5, 0.25], None, None, None),
        ("dict", [0.1, 0.2], {"a": [1, {"b": None}]}, "ä€😀", None),
        ("bare dict", [0.1, 0.2], None, None, None),
        ("object", [0.1, 0.2], {"k": 1.5}, "", None),
        ("33", [1, 0], None, None, None),
    ]


def test_an_upsert_replaces_the_whole_record_and_the_last_of_one_id_counts(index: Index, ns: str) -> None:
    index.upsert([("a", [0.1, 0.2], {"k": 1}, "words"), ("a", [0.3, 0.4], {"k": 2}, "more")], namespace=ns)
    (got,) = index.fetch("a", include_vectors=True, include_metadata=True, include_data=True, namespace=ns)
    assert got is not None and (got.vector, got.metadata, got.data) == ([0.3, 0.4], {"k": 2}, "more")
    index.upsert([("a", [0.5, 0.6])], namespace=ns)
    (got,) = index.fetch(["a"], include_vectors=True, include_metadata=True, include_data=True, namespace=ns)
    assert got is not None and (got.vector, got.metadata, got.data) == ([0.5, 0.6], None, None)
    settle(index)
    assert index.info().vector_count == 1


def test_what_an_index_without_a_model_and_with_two_dimensions_refuses(index: Index) -> None:
    with refused("Invalid vector dimension: 3, expected: 2"):
        index.upsert([("a", [0.1, 0.2]), ("b", [0.1, 0.2, 0.3])])
    without_model = (
        "Embedding data for this index is not allowed. "
        "The index must be created with an embedding model to use it."
    )
    with refused(without_model):
        index.upsert([Data("a", "some words")])
    with refused(without_model):
        index.query(data="some words")
    with pytest.raises(UpstashError):
        index.upsert([("", [0.1, 0.2])])
    with refused("This index requires dense vectors"):
        index.upsert([Vector("a", sparse_vector=([1], [0.5]))])
    with pytest.raises(UpstashError):
        index.query(vector=[0.1, 0.2, 0.3])
    with pytest.raises(UpstashError):
        index.query(vector=[0.1, 0.2], filter="n === 2 OR")
    with pytest.raises(UpstashError):
        index.query(vector=[0.1, 0.2], top_k=0)
    assert index.fetch(["a", "b"]) == [None, None], "nothing of what was refused is there"


def test_a_thousand_at_a_time(index: Index) -> None:
    thousand = [(f"id-{n}", [1, n]) for n in range(1000)]
    with pytest.raises(UpstashError):
        index.upsert([*thousand, ("one more", [1, 1])])
    assert index.range(limit=1).vectors == [], "and not the first thousand of them"
    assert index.upsert(thousand) == "Success"
    names = [name for name, _ in thousand]
    assert ids(index.fetch(names)) == ids(index.range(limit=1000).vectors) == names
    assert len(index.fetch(prefix="id-")) == 1000
    settle(index)
    assert len(index.query([1, 0], top_k=1000)) == 1000
    with pytest.raises(UpstashError):
        index.query([1, 0], top_k=1001)
    assert index.delete(names).deleted == 1000


def test_a_query(index: Index, ns: str) -> None:
    index.upsert(FIVE, namespace=ns)
    settle(index)
    found = index.query(
        [0.1, 0.2], top_k=2, include_vectors=True, include_metadata=True, include_data=True, namespace=ns
    )
    assert found[0] == QueryResult("id1", 1, [0.1, 0.2], {"n": 1, "odd": True}, "one")
    assert (found[1].id, found[1].vector, found[1].metadata) == ("id2", [0.3, 0.4], {"n": 2, "odd": False})
    assert 0 < found[1].score < 1
    assert ids(index.query([0.1, 0.2], namespace=ns)) == ["id1", "id2", "id3", "id4", "id5"]
    assert index.query(np.array([0.1, 0.2]), top_k=1, namespace=ns) == [QueryResult("id1", 1)]
    (opposite,) = index.query([-0.1, -0.2], top_k=1, namespace=ns)
    assert 0 <= opposite.score < 0.1, "a cosine of -1 is a score of 0"


def test_ten_are_found_unless_asked_otherwise_and_the_first_written_comes_first_among_equals(
    index: Index, ns: str
) -> None:
    index.upsert([(f"same-{n}", [0.6, 0.8]) for n in range(12)], namespace=ns)
    settle(index)
    found = index.query([0.6, 0.8], namespace=ns)
    assert found == [QueryResult(f"same-{n}", 1) for n in range(10)]
    assert len(index.query([0.6, 0.8], top_k=100, namespace=ns)) == 12


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("n = 2", ["id2"]),
        ("n != 2 AND odd = true", ["id1", "id3"]),
        ("n >= 2 and n < 5", ["id2", "id3"]),
        ("odd = 1", ["id1", "id3"]),
        ("odd = False", ["id2"]),
        ("n = 1 OR n = 2 AND odd = false", ["id1", "id2"]),
        ("(n = 1 OR n = 2) AND odd = false", ["id2"]),
        ("n IN (1, 5)", ["id1", "id5"]),
        ("n NOT IN (1, 5) AND HAS FIELD n", ["id2", "id3"]),
        ("tags CONTAINS 'x'", ["id3"]),
        ("tags[0] = 'x'", ["id3"]),
        ("tags[#-1] = 'y'", ["id3"]),
        ("deep.er GLOB 'y*'", ["id5"]),
        ('deep.er GLOB "[a-z]?s"', ["id5"]),
        ("HAS NOT FIELD n", ["id4"]),
        ("n = 77", []),
    ],
)
def test_a_filter(filled: Index, written: str, expected: list[str]) -> None:
    assert ids(filled.query([0.1, 0.2], filter=written)) == expected


@pytest.fixture(scope="module")
def filled(upstash: Upstash) -> Iterator[Index]:
    """An index that tests only read."""
    with client(upstash.make("dense")) as index:
        index.upsert(FIVE)
        settle(index)
        yield index


def test_a_filter_leaves_as_many_as_were_asked_for(index: Index) -> None:
    index.upsert([(f"v{n}", [1, n / 1000], {"rare": n % 300 == 0}) for n in range(900)])
    settle(index)
    assert ids(index.query([1, 0], top_k=3, filter="rare = true")) == ["v0", "v300", "v600"]


def test_several_queries_at_once(filled: Index) -> None:
    one, two = filled.query_many(
        queries=[
            {"vector": [0.1, 0.2], "top_k": 1},
            {"vector": [0.9, 1.0], "top_k": 1, "filter": "n = 5", "include_metadata": True},
        ]
    )
    assert one == [QueryResult("id1", 1)]
    assert two == [QueryResult("id5", 1, metadata={"n": 5, "deep": {"er": "yes"}})]
    assert filled.query_many(queries=[{"vector": [0.1, 0.2], "top_k": 1}]) == [[QueryResult("id1", 1)]]
    nothing, something = filled.query_many(
        queries=[{"vector": [0.1, 0.2], "filter": "n > 99"}, {"vector": [0.3, 0.4], "top_k": 1}]
    )
    assert nothing == [] and ids(something) == ["id2"]


def test_fetching_by_ids_and_by_prefix(index: Index, ns: str) -> None:
    index.upsert(
        [("pre-1", [0.1, 0.2], {"k": 1}, "d"), ("pre-2", [0.3, 0.4]), ("other", [0.5, 0.6])], namespace=ns
    )
    one, nobody, other = index.fetch(["pre-2", "nobody", "other"], namespace=ns)
    assert nobody is None and one is not None and other is not None
    assert (one.id, one.vector, one.metadata, one.data) == ("pre-2", None, None, None)
    (single,) = index.fetch("pre-1", include_metadata=True, namespace=ns)
    assert single is not None and (single.metadata, single.data, single.vector) == ({"k": 1}, None, None)
    assert sorted(ids(index.fetch(prefix="pre-", namespace=ns))) == ["pre-1", "pre-2"]
    assert index.fetch(prefix="none", namespace=ns) == []
    with refused("Only one of ids or prefix must be provided."):
        index.fetch(ids=["other"], prefix="pre", namespace=ns)


def test_a_range_goes_in_the_order_of_writing(index: Index, ns: str) -> None:
    names = [f"id-{n}" for n in range(20)]
    index.upsert([(name, [0.1, 0.2], {"name": name}, f"words of {name}") for name in names], namespace=ns)
    first = index.range(limit=5, namespace=ns)
    assert ids(first.vectors) == names[:5] and first.next_cursor == "5"
    assert first.vectors[0].vector is None and first.vectors[0].metadata is None
    second = index.range(
        first.next_cursor, 8, include_vectors=True, include_metadata=True, include_data=True, namespace=ns
    )
    assert ids(second.vectors) == names[5:13]
    assert second.vectors[0].vector == [0.1, 0.2] and second.vectors[0].metadata == {"name": "id-5"}
    assert second.vectors[0].data == "words of id-5"
    last = index.range(second.next_cursor, 7, namespace=ns)
    assert ids(last.vectors) == names[13:]
    assert last.next_cursor == "", "though the page is full, nothing comes after it"
    everything = index.range("0", 100, namespace=ns)
    assert ids(everything.vectors) == names and everything.next_cursor == ""


def test_a_range_of_a_prefix(index: Index, ns: str) -> None:
    index.upsert([(f"{'even' if n % 2 == 0 else 'odd'}-{n}", [0.1, 0.2]) for n in range(10)], namespace=ns)
    first = index.range("", 3, prefix="odd-", namespace=ns)
    assert ids(first.vectors) == ["odd-1", "odd-3", "odd-5"] and first.next_cursor != ""
    rest = index.range(first.next_cursor, 3, prefix="odd-", namespace=ns)
    assert ids(rest.vectors) == ["odd-7", "odd-9"] and rest.next_cursor == ""
    assert index.range("", 3, prefix="none", namespace=ns).vectors == []


def test_deleting_by_ids_prefix_and_filter(index: Index, ns: str) -> None:
    index.upsert([(f"pre-{n}", [0.1, 0.2], {"n": n}) for n in range(6)] + [("other", [1, 1])], namespace=ns)
    assert index.delete("pre-0", namespace=ns).deleted == 1
    assert index.delete("pre-0", namespace=ns).deleted == 0
    assert index.delete(["pre-1", "nobody", "other"], namespace=ns).deleted == 2
    assert index.delete(filter="n > 3", namespace=ns).deleted == 2
    assert ids(index.range(limit=10, namespace=ns).vectors) == ["pre-2", "pre-3"]
    assert index.delete(prefix="pre-", namespace=ns).deleted == 2
    assert index.fetch(["pre-2", "pre-3"], namespace=ns) == [None, None]
    assert index.delete(prefix="pre-", namespace=ns).deleted == 0
    for wrong in ({"ids": ["a"], "prefix": "p"}, {"prefix": "p", "filter": "n = 1"}, {}):
        with refused("Only and only one of the ids, prefix, or filter must be provided."):
            index.delete(**wrong, namespace=ns)


def test_updating(index: Index, ns: str) -> None:
    index.upsert([("a", [0.1, 0.2], {"keep": 1, "drop": 2, "deep": {"x": 1, "y": 2}}, "data")], namespace=ns)

    def now() -> tuple[Any, Any, Any]:
        (got,) = index.fetch(
            "a", include_vectors=True, include_metadata=True, include_data=True, namespace=ns
        )
        assert got is not None
        return got.vector, got.metadata, got.data

    before = now()
    assert index.update("a", vector=[0.2, 0.3], namespace=ns) is True
    assert now() == ([0.2, 0.3], *before[1:])
    assert index.update("a", data="other data", namespace=ns) is True
    assert now() == ([0.2, 0.3], before[1], "other data")
    patch = {"new": "n", "drop": None, "deep": {"y": None, "z": [3]}}
    assert index.update("a", metadata=patch, metadata_update_mode=MetadataUpdateMode.PATCH, namespace=ns)
    assert now()[1] == {"keep": 1, "deep": {"x": 1, "z": [3]}, "new": "n"}
    assert index.update("a", metadata={"all": "new"}, namespace=ns) is True
    assert now() == ([0.2, 0.3], {"all": "new"}, "other data")
    assert index.update("nobody", vector=[0.4, 0.5], namespace=ns) is False
    with refused("Invalid vector dimension: 1, expected: 2"):
        index.update("a", vector=[0.4], namespace=ns)
    settle(index)
    (found,) = index.query([0.2, 0.3], filter="all = 'new'", namespace=ns)
    assert found == QueryResult("a", 1)


def test_namespaces(index: Index) -> None:
    assert index.list_namespaces() == [""]
    index.upsert([("same", [0.1, 0.2], {"in": "default"})])
    index.upsert([("same", [0.9, 0.1], {"in": "ns"}), ("more", [1, 0])], namespace="ns")
    index.upsert([("same", [0.5, 0.5], {"in": "ä ö"})], namespace="ä ö")
    assert index.list_namespaces()[0] == "" and set(index.list_namespaces()) == {"", "ns", "ä ö"}
    for name, where in (("", "default"), ("ns", "ns"), ("ä ö", "ä ö")):
        (got,) = index.fetch("same", include_metadata=True, namespace=name)
        assert got is not None and got.metadata == {"in": where}
    settle(index)
    assert [one.metadata for one in index.query([0.1, 0.2], include_metadata=True)] == [{"in": "default"}]
    assert len(index.query([0.1, 0.2], namespace="ns")) == 2
    assert index.delete("same", namespace="ns").deleted == 1
    assert ids(index.range(limit=9).vectors) == ["same"], "the other of that id is still there"

    index.delete_namespace("ns")
    assert set(index.list_namespaces()) == {"", "ä ö"}
    assert index.fetch(["more"], namespace="ns") == [None]
    with pytest.raises(UpstashError, match=r"^Namespace ns for the index .* does not exist$"):
        index.delete_namespace("ns")
    with pytest.raises(UpstashError):
        index.delete_namespace("")
    index.upsert([("again", [1, 0])], namespace="ns")
    assert ids(index.range(limit=9, namespace="ns").vectors) == ["again"]


def test_a_namespace_nobody_wrote_to_is_empty_and_stays_unlisted(index: Index) -> None:
    assert index.query([0.1, 0.2], namespace="no") == []
    assert index.fetch(["a"], namespace="no") == [None]
    assert index.range(limit=5, namespace="no").vectors == []
    assert index.delete(["a"], namespace="no").deleted == 0
    assert index.update("a", vector=[1, 0], namespace="no") is False
    assert index.reset(namespace="no") == "Success"
    scores, _ = index.resumable_query([0.1, 0.2], namespace="no")
    assert scores == []
    assert index.list_namespaces() == [""]


def test_resetting_one_namespace_or_all(index: Index) -> None:
    for name in ("", "ns", "third"):
        index.upsert([("a", [0.1, 0.2]), ("b", [0.3, 0.4])], namespace=name)
    assert index.reset(namespace="ns") == "Success"
    assert index.fetch(["a", "b"], namespace="ns") == [None, None]
    assert None not in index.fetch(["a", "b"]) + index.fetch(["a", "b"], namespace="third")
    index.upsert([("c", [0.1, 0.2])], namespace="ns")
    assert ids(index.range(limit=9, namespace="ns").vectors) == ["c"]
    assert index.reset(all=True) == "Success"
    for name in ("", "ns", "third"):
        assert index.range(limit=9, namespace=name).vectors == []
    assert set(index.list_namespaces()) == {"", "ns", "third"}, "they are empty, and there"


def test_info(index: Index) -> None:
    info = index.info()
    assert (info.vector_count, info.pending_vector_count, info.index_size >= 0) == (0, 0, True)
    assert (info.dimension, info.similarity_function, info.sparse_index) == (2, "COSINE", None)
    assert info.dense_index is not None
    assert (info.dense_index.dimension, info.dense_index.similarity_function) == (2, "COSINE")
    assert info.dense_index.embedding_model == ""
    assert [(name, one.vector_count) for name, one in info.namespaces.items()] == [("", 0)]
    index.upsert([("a", [0.1, 0.2]), ("b", [0.1, 0.2])])
    index.upsert([("a", [0.1, 0.2])], namespace="ns")
    settle(index)
    info = index.info()
    assert info.vector_count == 3 and info.index_size > 0
    counts = {name: (one.vector_count, one.pending_vector_count) for name, one in info.namespaces.items()}
    assert counts == {"": (2, 0), "ns": (1, 0)}


def test_a_query_that_goes_on(index: Index, ns: str) -> None:
    index.upsert(FIVE, namespace=ns)
    settle(index)
    found, handle = index.resumable_query([0.1, 0.2], top_k=2, include_metadata=True, namespace=ns)
    assert ids(found) == ["id1", "id2"] and found[0].score == 1
    index.upsert([("late", [0.5, 0.6])], namespace=ns)
    settle(index)
    assert ids(handle.fetch_next(2)) == ["id3", "id4"], "it goes on where it began, whatever is written since"
    last = handle.fetch_next(1)
    assert ids(last) == ["id5"] and last[0].metadata == {"n": 5, "deep": {"er": "yes"}}
    assert handle.fetch_next(1) == []
    handle.stop()
    with pytest.raises(UpstashError):
        handle.fetch_next(1)
    with pytest.raises(UpstashError):
        handle.stop()


def test_a_query_that_goes_on_and_is_left(index: Index) -> None:
    index.upsert(FIVE)
    settle(index)
    found, handle = index.resumable_query(
        [0.1, 0.2], top_k=1, include_vectors=True, filter="odd = true", max_idle=60
    )
    with handle:
        assert [one.vector for one in found] == [[0.1, 0.2]]
        assert ids(handle.fetch_next(5)) == ["id3"]
    with pytest.raises(UpstashError):
        handle.fetch_next(1)
    with pytest.raises(UpstashError):
        index.resumable_query([0.1, 0.2, 0.3])


def test_who_may_not(upstash: Upstash, url: str) -> None:
    with client(url, "not-the-token") as stranger, refused("Unauthorized: Invalid auth token"):
        stranger.info()
    with client(f"{url}-of-nobody") as lost, pytest.raises(UpstashError):
        lost.info()
    with client(f"{url}/", TOKEN) as slashed:
        assert slashed.upsert([("a", [0.1, 0.2])]) == "Success", "a URL that ends in a slash gives //upsert"
        assert slashed.fetch("a") != [None]


def test_a_token_that_may_only_read(upstash: Upstash, index: Index, url: str) -> None:
    index.upsert(FIVE)
    settle(index)
    token = upstash.command("token", "create", "--access", "read", "--door", "upstash").strip()
    with client(url, token) as reader:
        assert ids(reader.query([0.1, 0.2], top_k=1)) == ["id1"]
        assert len(reader.range(limit=9).vectors) == 5 and reader.info().vector_count == 5
        _, handle = reader.resumable_query([0.1, 0.2])
        handle.stop()
        with pytest.raises(UpstashError, match=r"^Forbidden"):
            reader.upsert([("a", [0.1, 0.2])])
        with pytest.raises(UpstashError, match=r"^Forbidden"):
            reader.delete("id1")
        with pytest.raises(UpstashError, match=r"^Forbidden"):
            reader.reset()
    assert index.info().vector_count == 5
