"""Any mutations of every operation, in any batches, written by one process or several, come to what a dict holds."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.making import Client, make_engine, make_index
from tests.plain_index import COUNTED, PlainIndex, PlainMutation, PlainRow
from upwell.changeset import KeyScope, Operation
from upwell.custody.check import check_store
from upwell.custody.findings import Severity
from upwell.engine import Engine, Index
from upwell.kinds import IndexKind
from upwell.manifest import MutationResult
from upwell.outcome import State
from upwell.shard import apply as apply_module
from upwell.shard import keys as keys_module
from upwell.shard import merge as merge_module
from upwell.shard.part import PartTask
from upwell.shard.rows import written_by
from upwell.shard.view import View

IDS = st.sampled_from(["a", "ab", "b", "ba"])
SPACES = st.sampled_from([None, "n", "m", "o"])
NAMED = st.sampled_from(["n", "m", "o"])
SCOPES = st.sampled_from([KeyScope.INDEX, KeyScope.NAMESPACE])
NUMBERS = st.integers(0, 2)
VALUES = st.tuples(NUMBERS.map(float), NUMBERS.map(float))
SPARSE = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.5, -1.0])), max_size=3).map(tuple)
DATA = st.none() | st.sampled_from(["", "text"])
METADATA = st.none() | st.dictionaries(
    st.sampled_from(["k", "o"]), NUMBERS | st.dictionaries(st.sampled_from(["p", "q"]), NUMBERS, max_size=2)
)
#: Of a patch: what is null goes.
PATCH = st.none() | st.dictionaries(
    st.sampled_from(["k", "o"]),
    st.none() | NUMBERS | st.dictionaries(st.sampled_from(["p", "q"]), st.none() | NUMBERS, max_size=2),
)
#: Namespaces a selection may ask for: of any, of none, of one.
ASKED = st.sampled_from([None, "", "n", "m", "o"])


def rows_of(kind: IndexKind, *, values: bool, sparse: bool, metadata: Any = METADATA) -> Any:
    one = st.builds(
        PlainRow,
        id=IDS,
        namespace=SPACES,
        values=VALUES if values and kind.has_dense else st.none(),
        sparse=SPARSE if sparse and kind.has_sparse else st.none(),
        data=DATA,
        metadata=metadata,
    )
    return st.lists(one, min_size=1, max_size=5).map(tuple)


def all_vectors(kind: IndexKind, values: bool, sparse: bool) -> bool:
    """Has a row with these all that a whole one of this kind needs?"""
    return (values or not kind.has_dense) and (sparse or not kind.has_sparse)


def mutations(kind: IndexKind) -> Any:
    """Any mutation of an index of this kind; writes more often than what takes away."""
    whole = st.builds(
        PlainMutation,
        operation=st.sampled_from([Operation.INSERT, Operation.UPSERT, Operation.UPSERT]),
        rows=rows_of(kind, values=True, sparse=True),
        scope=SCOPES,
    )
    updates = st.tuples(st.booleans(), st.booleans(), st.booleans()).flatmap(
        lambda given: st.builds(
            PlainMutation,
            operation=st.just(Operation.UPDATE),
            rows=rows_of(kind, values=given[0], sparse=given[1], metadata=PATCH if given[2] else METADATA),
            scope=SCOPES,
            patch=st.just(given[2]),
            shallow=st.booleans() if given[2] else st.just(False),
            adds=st.booleans() if all_vectors(kind, *given[:2]) else st.just(False),
            inside=st.booleans(),
        )
    )
    deletes = st.builds(
        PlainMutation,
        operation=st.just(Operation.DELETE),
        rows=st.lists(st.builds(PlainRow, id=IDS, namespace=SPACES), min_size=1, max_size=3).map(tuple),
        scope=SCOPES,
    )
    matching = st.builds(
        PlainMutation,
        operation=st.just(Operation.DELETE_MATCHING),
        scope=SCOPES,
        namespace=ASKED,
        prefix=st.sampled_from([None, "a", "b", "ab"]),
        equal=st.none() | NUMBERS.map(float),
    )
    resets = st.builds(PlainMutation, operation=st.just(Operation.RESET), namespace=ASKED)
    drops = st.builds(PlainMutation, operation=st.just(Operation.DELETE_NAMESPACE), namespace=NAMED)
    renames = st.builds(
        PlainMutation,
        operation=st.just(Operation.RENAME_NAMESPACE),
        namespace=NAMED,
        new_namespace=NAMED | st.just(""),
        delete_existing=st.booleans(),
    )
    return st.one_of(
        whole, whole, whole, updates, updates, deletes, matching, resets, drops, renames, renames
    )


@dataclass(frozen=True)
class How:
    """How mutations are applied; none of it may make a difference."""

    mutations_max: int
    shards: int
    folded_bytes_max: int
    collide: bool
    helped: bool
    #: After which entries: applied, opened anew, merged.
    drains: frozenset[int]
    opens: frozenset[int]
    merges: frozenset[int]


PLACES = st.frozensets(st.integers(0, 7))
HOWS = st.builds(
    How,
    mutations_max=st.sampled_from([1, 3, 1000]),
    shards=st.integers(1, 3),
    folded_bytes_max=st.sampled_from([0, merge_module.FOLDED_BYTES_MAX]),
    collide=st.booleans(),
    helped=st.booleans(),
    drains=PLACES,
    opens=PLACES,
    merges=PLACES,
)


class Sharers:
    """Another process, that writes whatever part of a batch it is let write: every other one."""

    def __init__(self, helper: Engine, index_id: str) -> None:
        self._helper, self._index_id = helper, index_id
        self._claimed: set[tuple[str, int]] = set()
        self._helping = False

    def offer(self, task: PartTask, _shards: int) -> None:
        self._helping = True
        self._helper.help_apply(self._index_id, task, self)
        self._helping = False

    def claim(self, token: str, shard: int) -> bool:
        if (token, shard) in self._claimed or (self._helping and shard % 2):
            return False
        self._claimed.add((token, shard))
        return True


def run(
    kind: IndexKind, scope: KeyScope, entries: list[list[PlainMutation]], how: How, *, whole: bool
) -> None:
    """Apply them, and compare whenever that is done. ``whole``: check the store at the end as fsck does."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if how.collide:
            patch.setattr(keys_module, "xxh3_64_intdigest", lambda key: (sum(key) % 2) << 32 | sum(key) % 3)
        patch.setattr(merge_module, "FOLDED_BYTES_MAX", how.folded_bytes_max)
        patch.setattr(apply_module, "SHARED_ROWS_MIN", 1 if how.helped else 1 << 40)

        def opened() -> Engine:
            return make_engine(
                Path(folder),
                batch_mutations_max=how.mutations_max,
                compaction_settle_s=0,
                compaction_fanout=2,
            )

        engine = opened()
        index = make_index(engine, shards=how.shards, key_scope=scope, kind=kind)
        plain, sharers = PlainIndex(scope), Sharers(opened(), index.record.id)
        expected: dict[str, dict[str, int] | str] = {}
        for place, entry in enumerate(entries):
            ids = Client(index).append(*(one.changeset() for one in entry))
            expected |= {
                mutation_id: plain.apply(one, (place + 1, number))
                for number, (mutation_id, one) in enumerate(zip(ids, entry, strict=True))
            }
            if place in how.drains or place == len(entries) - 1:
                while engine.apply_batch(index.record.id, lambda: True, sharing=sharers) is not None:
                    pass
                if place in how.merges:
                    for shard in range(how.shards):
                        engine.compact(index.record.id, shard)
                compare(index.newest.get(), plain)
            if place in how.opens:
                engine = opened()
                index = engine.find("default", "index")
        compare_outcomes(index, expected)
        if whole:
            report = check_store(engine.store)
            assert [one for one in report.findings if one.severity is not Severity.NOTE] == []


def compare(view: View, plain: PlainIndex) -> None:
    """Is a version what the dict holds?"""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    numbers: dict[str, dict[int, str]] = {}
    for live in view.segments():
        rows = live.segment.take(live.live_rows())
        spaces = [None] * len(rows) if rows.namespaces is None else rows.namespaces.to_pylist()
        for place, (id, identity) in enumerate(zip(rows.ids.to_pylist(), spaces, strict=True)):
            space = view.namespaces.name(identity or "")
            assert (space, id) not in found
            metadata = None if rows.metadata is None else rows.metadata[place].as_py()
            found[space, id] = (
                tuple(rows.vectors.read()[place].tolist()) or None,
                None
                if rows.sparse is None
                else tuple(zip(*(part.tolist() for part in rows.sparse.row(place)), strict=True)),
                None if rows.data is None else rows.data[place].as_py(),
                None if metadata is None else orjson.loads(metadata),
                int(rows.written[place]),
            )
            number = int(rows.sequence[place])
            assert number not in numbers.setdefault(space, {})
            numbers[space][number] = id
    assert found == {
        (held.namespace, held.id): (
            held.values,
            held.sparse,
            held.data,
            held.metadata,
            written_by(*held.written),
        )
        for held in plain.rows.values()
    }
    assert set(view.namespaces.identities) == plain.namespaces
    assert view.key_scope is plain.scope
    counted = Counter(held.namespace for held in plain.rows.values())
    assert {view.namespaces.name(identity): rows for identity, rows in view.counts.items()} == counted
    assert view.manifest.vectors == len(plain.rows)
    for space, ids in numbers.items():
        held = sorted(
            (one for one in plain.rows.values() if one.namespace == space), key=lambda one: one.sequence
        )
        assert [ids[number] for number in sorted(ids)] == [one.id for one in held]
        assert min(ids) > 0
        if space not in plain.inexact:
            assert sorted(ids) == [one.sequence for one in held]


def compare_outcomes(index: Index, expected: dict[str, dict[str, int] | str]) -> None:
    """Did each mutation count what the dict counted, or fail for its reason?"""
    for mutation_id, wanted in expected.items():
        outcome = index.outcomes.of(mutation_id)
        if isinstance(wanted, str):
            assert outcome.state is State.FAILED and wanted in str(outcome.error)
        else:
            assert outcome.state is State.VISIBLE
            result = outcome.result
            assert isinstance(result, MutationResult)
            assert {name: getattr(result, name) for name in COUNTED} == wanted


def check(kind: IndexKind, examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(
        scope=st.sampled_from(KeyScope),
        entries=st.lists(st.lists(mutations(kind), min_size=1, max_size=4), min_size=1, max_size=8),
        how=HOWS,
        whole=st.booleans(),
    )
    def any_mutations(scope: KeyScope, entries: list[list[PlainMutation]], how: How, whole: bool) -> None:
        run(kind, scope, entries, how, whole=whole)

    any_mutations()


@pytest.mark.parametrize("kind", IndexKind)
def test_any_mutations_come_to_what_a_dict_holds(kind: IndexKind) -> None:
    check(kind, 15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", IndexKind)
def test_many_mutations_come_to_what_a_dict_holds(kind: IndexKind) -> None:
    check(kind, 1000)
