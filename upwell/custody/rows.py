"""What the segments of one shard hold, against what must be true of them: each key alive once, in its shard, found by its hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from upwell.catalog.record import IndexRecord
from upwell.changeset import KeyScope
from upwell.errors import Corrupt
from upwell.format import blaming
from upwell.shard.keys import Hashes, Rows, hash_keys, keys_of, shard_of
from upwell.shard.numbers import equal
from upwell.shard.postings import Postings
from upwell.shard.property import PropertyColumn, ValueKind, columns_of
from upwell.shard.segment import Segment
from upwell.shard.spaces import spaces_of
from upwell.shard.vectors import Vectors
from upwell.shard.view import LiveSegment


@dataclass(frozen=True, slots=True, eq=False)
class _Alive:
    """A segment's rows that are alive, and the hashes of their keys."""

    live: LiveSegment
    key: str
    rows: Rows
    hashes: Hashes


def check_shard(
    record: IndexRecord, scope: KeyScope, number: int, segments: Sequence[tuple[str, LiveSegment]]
) -> Iterator[tuple[str, str]]:
    """Of each segment (its name, and what is alive of it) that is not as it must be: its name, and in what. Blocking and long:
    some 3 us a row."""
    alive = []
    for key, live in segments:
        try:
            with blaming(key):
                if (live.segment.sparse is not None) != record.kind.has_sparse:
                    raise Corrupt(f"it is not of a {record.kind} index")
                if scope is KeyScope.OPEN and set(live.segment.spaces) - {""}:
                    raise Corrupt("its rows have namespaces before it is decided what ids are unique in")
                hashes = _check_segment(scope, live.segment, key)
        except Corrupt as error:
            yield key, error.detail + (f": {error.facts['reason']}" if "reason" in error.facts else "")
            continue
        rows = live.live_rows()
        if len(rows) != live.live:
            yield key, f"{len(rows)} of its rows are alive, and the manifest counts {live.live}"
        strangers = np.count_nonzero(shard_of(hashes[rows], record.shards) != number)
        if strangers:
            yield key, f"{strangers} of its rows belong to another shard than {number}"
        alive.append(_Alive(live, key, rows, hashes[rows]))
    yield from _alive_twice(scope, alive)
    yield from _numbered_twice(alive)


def _check_segment(scope: KeyScope, segment: Segment, key: str) -> Hashes:
    """The hashes of all its rows' keys. Raises Corrupt, or whatever reading it raises."""
    for column in (segment.ids, segment.namespaces, segment.metadata, segment.data):
        if column is not None:
            column.validate(full=True)
    if segment.ids.null_count:
        raise Corrupt("a row has no id")
    hashes = hash_keys(keys_of(segment.ids, segment.namespaces, scope))
    kept, order = segment.hashes
    if not np.array_equal(np.sort(order), np.arange(segment.rows)) or not np.array_equal(hashes[order], kept):
        raise Corrupt("its hashes are not those of its keys, so that rows cannot be found by id")
    if (kept[1:] < kept[:-1]).any():
        raise Corrupt("its hashes are out of order, so that rows cannot be found by id")
    if len(segment.written) != segment.rows:
        raise Corrupt("it does not say of all rows which mutation wrote them")
    if segment.spaces != spaces_of(segment.namespaces, segment.sequence):
        raise Corrupt("what it says of its namespaces is not what its rows say")
    _check_sparse(segment)
    # Its blocks are verified by this, each on its own.
    if not all(np.isfinite(chunk).all() for chunk in Vectors.of(segment.vectors).chunks()):
        raise Corrupt("a vector has a number that is not finite")
    if segment.dimensions:
        _ = segment.index
    if segment.trust is not None and len(segment.spread) != segment.rows:
        raise Corrupt("it does not say of all rows how far from their lists' centres they are")
    _check_properties(segment, key)
    return hashes


def _check_sparse(segment: Segment) -> None:
    """Raise Corrupt if sparse vectors are not found by what they hold."""
    sparse = segment.sparse
    if sparse is None:
        return
    if len(sparse) != segment.rows or not np.isfinite(sparse.values).all():
        raise Corrupt("it does not have a sparse vector of finite numbers for each row")
    kept, told = segment.postings, Postings.build(sparse)
    if not all(
        np.array_equal(getattr(kept, name), getattr(told, name))
        for name in ("terms", "starts", "rows", "values")
    ):
        raise Corrupt("its postings are not those of its sparse vectors")


def _check_properties(segment: Segment, key: str) -> None:
    """Raise Corrupt if a column is not what the metadata says."""
    paths = segment.column_paths()
    # Also without any: metadata that is no JSON shows here.
    for path, told in zip(paths, columns_of(segment.metadata, segment.rows, paths), strict=True):
        if not _same(segment.property_column(path), told):
            raise Corrupt(f"its column of {path!r} is not what its metadata says", key=key)


def _same(kept: PropertyColumn, told: PropertyColumn) -> bool:
    if not np.array_equal(kept.kinds, told.kinds):
        return False
    numbers, texts = kept.kinds == ValueKind.NUMBER, kept.kinds == ValueKind.STRING
    if numbers.any():
        assert kept.exact is not None
        assert told.exact is not None
        if not equal(kept.exact, told.exact)[numbers].all():
            return False
    return not texts.any() or _words(kept, texts).equals(_words(told, texts))


def _words(column: PropertyColumn, texts: np.typing.NDArray[np.bool_]) -> pa.Array:
    assert column.words is not None
    assert column.codes is not None
    return column.words.take(pa.array(column.codes[texts]))


def _alive_twice(scope: KeyScope, alive: Sequence[_Alive]) -> Iterator[tuple[str, str]]:
    if not alive:
        return
    hashes = np.concatenate([one.hashes for one in alive])
    found, counts = np.unique(hashes, return_counts=True)
    several = found[counts > 1]
    if not len(several):
        return
    seen: dict[bytes, str] = {}
    for one in alive:
        rows = pa.array(one.rows[np.isin(one.hashes, several)])
        segment = one.live.segment
        namespaces = None if segment.namespaces is None else segment.namespaces.take(rows)
        for key in keys_of(segment.ids.take(rows), namespaces, scope).to_pylist():
            if key in seen:
                yield one.key, f"the vector {key.decode(errors='replace')!r} is alive here and in {seen[key]}"
            seen.setdefault(key, one.key)


def _numbered_twice(alive: Sequence[_Alive]) -> Iterator[tuple[str, str]]:
    """Who reads a namespace page by page goes on after a number. 0: from before rows had numbers."""
    seen: set[tuple[str, int]] = set()
    for one in alive:
        segment = one.live.segment
        kept = one.rows[segment.sequence[one.rows] > 0]
        names = [""] * len(kept)
        if segment.namespaces is not None:
            names = [name or "" for name in segment.namespaces.take(pa.array(kept)).to_pylist()]
        numbered = list(zip(names, segment.sequence[kept].tolist(), strict=True))
        before = len(seen)
        seen.update(numbered)
        if len(seen) - before != len(numbered):
            yield one.key, "it has a number that another row of the same namespace has as well"
