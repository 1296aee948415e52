"""Whatever comes to be written at the Milvus door, nothing goes wrong in it: what is refused is told so, and changes nothing; what is
accepted is applied."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.milvus_house import Answer, MilvusHouse, milvus_house
from tests.thorough import examples
from upwell.catalog.names import NewIndex
from upwell.changeset import KeyScope
from upwell.kinds import IndexKind
from upwell.schema import FieldType, IdType, RowSchema, ScalarField
from upwell.shard.metric import Metric

NAMES = ("integers", "texts", "strict", "hybrid", "open")
STRICT = RowSchema(
    ids=IdType.INT64,
    dynamic=False,
    auto_id=True,
    fields=(
        ScalarField(name="n", type=FieldType.INT8, nullable=True),
        ScalarField(name="t", type=FieldType.VARCHAR, bytes_max=3, default="x"),
        ScalarField(name="a", type=FieldType.ARRAY, element=FieldType.FLOAT, capacity=2, nullable=True),
    ),
)
SCHEMAS = {
    "integers": RowSchema(ids=IdType.INT64),
    "texts": RowSchema(id_bytes_max=3),
    "strict": STRICT,
    "hybrid": RowSchema(ids=IdType.INT64),
    "open": None,
}
Call = Callable[[int, str, bytes], tuple[Answer, int]]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Requests to a house that lives for the whole module, and how many writes that was."""
    with asyncio.Runner() as runner:
        entered = milvus_house(tmp_path_factory.mktemp("fuzz"), wait_s_max=5, milvus_vectors_max=3)
        house: MilvusHouse = runner.run(entered.__aenter__())
        for name in NAMES:
            new = NewIndex(
                name=name,
                description=None,
                dimensions=2,
                metric=Metric.COSINE,
                shards=1,
                kind=IndexKind.HYBRID if name == "hybrid" else IndexKind.DENSE,
                key_scope=KeyScope.INDEX if SCHEMAS[name] else KeyScope.OPEN,
                row_schema=SCHEMAS[name],
            )
            house.engine.catalog.create("default", new)
        indexes = [house.engine.find("default", name) for name in NAMES]

        def written() -> int:
            return sum(index.log.tail(index.head.refresh().applied_through) for index in indexes)

        def ask(version: int, command: str, body: bytes) -> tuple[Answer, int]:
            before = written()
            answer = runner.run(house.ask(version, command, body, headers={"Prefer": "wait=5"}))
            return answer, written() - before

        yield ask
        runner.run(entered.__aexit__(None, None, None))


WORDS = st.text(max_size=3) | st.sampled_from(
    ["id", "id > 1", 'id in ["a"]', "n == 1", "{k}", "\0", "7", "_default"]
)
NUMBERS = st.floats(width=32) | st.integers() | st.sampled_from([0, 1, 1e39, 2**63, 2**64])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
FITTING: dict[str, Any] = {
    "id": st.sampled_from([1, "2", "a", None]),
    "vector": st.lists(st.floats(-9, 9), min_size=2, max_size=2),
    "sparse": st.dictionaries(st.sampled_from(["1", "4294967294"]), st.floats(-9, 9)),
    "n": st.integers(-128, 127) | st.none(),
    "t": st.text(max_size=1),
    "a": st.lists(st.floats(width=32), max_size=2),
}
NEEDED = ("id", "vector")
ROWS = st.fixed_dictionaries(
    {name: FITTING[name] for name in NEEDED},
    optional={name: value for name, value in FITTING.items() if name not in NEEDED},
)
ODD = st.dictionaries(st.sampled_from([*FITTING, "$meta", "x", ""]), ANYTHING, max_size=4)
BODIES = st.fixed_dictionaries(
    {
        "collectionName": st.sampled_from(NAMES) | WORDS,
        "data": st.lists(ROWS | ODD, max_size=4) | ROWS | ANYTHING,
        "filter": WORDS | ANYTHING,
    },
    optional={
        "dbName": st.sampled_from(["default", "x", None, 7]),
        "partitionName": WORDS | ANYTHING,
        "partialUpdate": st.booleans() | ANYTHING,
        "id": ANYTHING,
        "exprParams": ANYTHING,
        "fieldOps": ANYTHING,
    },
)


@given(
    st.sampled_from([(1, ""), (2, "entities/")]),
    st.sampled_from(["insert", "upsert", "delete"]),
    BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=30),
    st.randoms(use_true_random=False),
)
@settings(max_examples=examples(400))
def test_nothing_goes_wrong(
    call: Call, version: tuple[int, str], command: str, body: bytes, luck: Any
) -> None:
    if luck.random() < 0.1 and body:
        at = luck.randrange(len(body))
        body = body[:at] + bytes([luck.randrange(256)]) + body[at + 1 :]
    answer, writes = call(version[0], version[1] + command, body)
    assert answer.status == 200, (answer, body)
    if answer.json["code"] == (200 if version[0] == 1 else 0):
        assert writes == 1 and answer.headers["X-Mutation-Id"]
        assert answer.headers["X-Mutation-State"] == "visible", (answer, body)
    else:
        assert writes == 0 and answer.error[1]
