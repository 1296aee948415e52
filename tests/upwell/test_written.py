"""What an update makes of a row: JSON Merge Patch as its RFC has it, whatever is nested; and what is not given stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.making import Client, contents, drain_of, make_engine, make_index, upsert
from tests.plain_index import PlainMutation, PlainRow, plainly_patched
from upwell.changeset import Changeset, Details, Operation
from upwell.shard.blocks import BlockChecked
from upwell.shard.rows import SegmentRows
from upwell.shard.vectors import Vectors
from upwell.shard.written import merge_patch, updated

#: Appendix A of RFC 7396, line by line.
RFC = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]
#: As deep as metadata can be: doors take what orjson writes, and that is no deeper.
DEEPEST = 254

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=1),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(("target", "patch", "result"), RFC)
def test_the_examples_of_the_rfc(target: str, patch: str, result: str) -> None:
    assert merge_patch(orjson.loads(target), orjson.loads(patch)) == orjson.loads(result)


@given(target=JSON, patch=JSON)
def test_any_patch_does_what_the_rfcs_own_words_do(target: Any, patch: Any) -> None:
    before, given_patch = orjson.dumps(target), orjson.dumps(patch)
    assert merge_patch(target, patch) == plainly_patched(target, patch)
    assert (orjson.dumps(target), orjson.dumps(patch)) == (before, given_patch)


def row(metadata: bytes | None, data: str | None = None) -> SegmentRows:
    number = np.array([7], np.uint64)
    return SegmentRows(
        pa.array(["a"]),
        Vectors.of(np.ones((1, 2), np.float32)),
        pa.array(["n"]),
        None if metadata is None else pa.array([metadata], pa.binary()),
        number,
        number,
        None if data is None else pa.array([data]),
    )


def update(metadata: bytes | None, *, patch: bool) -> Changeset:
    return Changeset(
        operation=Operation.UPDATE,
        ids=pa.array(["a"]),
        metadata=pa.array([metadata], pa.binary()),
        received=1,
        details=Details(patch=patch),
    )


def nested(depth: int, inner: str) -> bytes:
    return f"{'{' + chr(34) + 'a' + chr(34) + ':'}".encode() * depth + inner.encode() + b"}" * depth


@pytest.mark.parametrize("depth", [1, 100, DEEPEST])
def test_metadata_nested_as_deep_as_any_door_takes_is_patched(depth: int) -> None:
    deep = nested(depth, "1")
    assert orjson.dumps(orjson.loads(deep)) == deep
    for before, patch, wanted in (
        (deep, nested(depth, "2"), nested(depth, "2")),
        (deep, nested(1, "null"), b"{}"),
        (b'{"b":1}', deep, b'{"b":1,' + deep[1:]),
        (None, nested(depth, "null"), nested(depth - 1, "{}") if depth > 1 else b"{}"),
    ):
        after = updated(row(before), update(patch, patch=True), np.array([0]), 9)
        assert after.metadata is not None and after.metadata[0].as_py() == wanted
    with pytest.raises(TypeError):
        orjson.dumps(orjson.loads(nested(DEEPEST + 1, "1")))


@pytest.mark.parametrize("patch", [True, False])
def test_what_is_not_given_stays(patch: bool) -> None:
    before = row(b'{"k":1}', "text")
    after = updated(before, update(None, patch=patch), np.array([0]), 9)
    assert after.metadata is not None and after.metadata.to_pylist() == [b'{"k":1}']
    assert after.data is not None and after.data.to_pylist() == ["text"]
    assert after.vectors.read().tolist() == [[1, 1]]
    assert (after.namespaces, after.sequence.tolist()) == (before.namespaces, [7])
    assert after.written.tolist() == [9]


def test_an_update_reads_of_a_large_segment_only_what_it_changes(tmp_path: Path) -> None:
    index = make_index(make_engine(tmp_path), dimensions=64, shards=1)
    client = Client(index)
    vectors = np.random.default_rng(1).normal(size=(3_000, 64)).astype(np.float32)
    client.append(upsert(*((f"v{n}", vectors[n], None, {"n": n}) for n in range(3_000)), dimensions=64))
    drain_of(index)
    fresh = make_engine(tmp_path).find("default", "index")
    (live,) = fresh.newest.get().segments()
    assert isinstance(live.segment._raw, BlockChecked)
    patch = PlainMutation(Operation.UPDATE, (PlainRow("v7", metadata={"k": 1}),), patch=True)
    client.append(*(patch.changeset() for _ in range(3)))
    assert fresh.applier.apply_batch(lambda: True) is not None
    assert 0 < np.count_nonzero(live.segment._raw._verified) < len(live.segment._raw._verified)
    (row,) = [one for one in contents(fresh).items() if one[0][1] == "v7"]
    assert row == ((None, "v7"), (vectors[7].tolist(), {"n": 7, "k": 1}))
