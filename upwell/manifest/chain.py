"""The versions of an index in the store, and the one commit point.

Versions are dense objects ``index/{id}/manifest/{version:020d}``, created if absent. ``commit`` is where mutations become
visible, in every shard at once: before its create they are invisible, after it visible, and a crash between leaves only
garbage for the sweeper. A worker that lost its lease loses the race for the next version, and its work is void.

One object holds the state, and in a section of its own the results of the mutations which that very commit applied. So
outcome and visibility are one atomic fact; the state stays small; and reading the state does not read the results.

    meta               see Manifest
    section "results"  JSON: [MutationResult, …] in order of position and place
"""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import TypeAdapter

from upwell.clock import Clock
from upwell.dense import last_of
from upwell.errors import AlreadyExists, Corrupt, Fenced, NotFound
from upwell.format import Kind, pack, unpack
from upwell.ids import new_identity, numbered
from upwell.manifest.state import INVARIANTS, Manifest, MutationResult, ShardState
from upwell.store import Store

_RESULTS = TypeAdapter(tuple[MutationResult, ...])


class ManifestChain:
    """The manifests of one index, which lies under ``folder`` (``index/{id}``). Holds no state: share it freely."""

    def __init__(self, store: Store, folder: str, clock: Clock, grace_s: float) -> None:
        self._store = store
        self._folder = f"{folder}/manifest"
        self._clock = clock
        self._trust_s = grace_s / 2

    def begin(self, index_id: str, shards: int) -> None:
        """Write version 1 of a new index: empty, so that an index without a manifest is known to be damaged."""
        first = Manifest(
            version=1,
            index_id=index_id,
            writer=new_identity(),
            committed_at=self._clock.now(),
            shards=(ShardState(),) * shards,
        )
        self._store.create(self._key(1), *_encode(first, ()))

    def trusts(self, since: float) -> bool:
        """May what was known at ``since`` (monotonic seconds) still be acted upon?"""
        return self._clock.monotonic() - since <= self._trust_s

    def exists(self, version: int) -> bool:
        """Is this version in the store now?"""
        return self._store.exists(self._key(version))

    def newest_version(self, known: int | None = None) -> int:
        """The newest version in the store. With ``known``, a version that was newest less than the grace period ago,
        this is one look when nothing changed; without, it lists. Raises NotFound for an index that has none."""
        if known is None:
            names = list(self._store.list(self._folder))
            if not names:
                raise NotFound("the index has no manifest", folder=self._folder)
            return int(names[-1])
        return last_of(self.exists, known)

    def oldest_version(self) -> int:
        """The oldest version that is not swept yet. Lists. Raises NotFound for an index that has none."""
        name = next(self._store.list(self._folder), None)
        if name is None:
            raise NotFound("the index has no manifest", folder=self._folder)
        return int(name)

    def load(self, version: int) -> Manifest:
        """The state at ``version``. Raises NotFound once swept, Corrupt if damaged."""
        return _decode_state(self._store.read(self._key(version)), version)

    def results(self, version: int) -> tuple[MutationResult, ...]:
        """What the commit of ``version`` applied. Raises NotFound once swept, Corrupt if damaged."""
        box = unpack(self._store.read(self._key(version)), Kind.MANIFEST)
        return _RESULTS.validate_python(orjson.loads(box.section("results")))

    def version_that_applied(self, position: int, newest: Manifest) -> int | None:
        """The version whose commit applied ``position``, or None if it is swept. ``newest`` must have applied it.

        Looks backwards in growing steps and then halves: what clients ask for is mostly recent. Swept versions are always
        the oldest ones, so "is there, and has applied it" is false up to some version and true from there on.
        """
        above, step = newest.version, 1
        below = above - step
        while below >= 1 and self._has_applied(below, position):
            above, step = below, 2 * step
            below = above - step
        below = max(below, 0)
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (below, middle) if self._has_applied(middle, position) else (middle, above)
        if above > 1 and not self.exists(above - 1):
            # The oldest one left may have applied it, or one that is gone already: its results tell.
            return above if any(result.position == position for result in self.results(above)) else None
        return above

    def _has_applied(self, version: int, position: int) -> bool:
        try:
            return self.load(version).applied_through >= position
        except NotFound:
            return False

    def commit(
        self, before: Manifest, after: Manifest, results: tuple[MutationResult, ...], known_newest_at: float
    ) -> None:
        """Make ``after`` the newest version. THE commit point: returns only once it is durable and surely the newest.

        ``known_newest_at`` is when ``before`` was last seen to be the newest version (monotonic seconds). Raises Fenced if
        another commit came first, AssertionError if an invariant does not hold, Unavailable with the outcome unknown.
        """
        for invariant in INVARIANTS:
            if not invariant(before, after):
                raise AssertionError(f"a commit would break an invariant: {invariant.__name__}")
        if self._clock.monotonic() - known_newest_at > self._trust_s:
            # Objects that nothing names for so long may be swept; a fresh attempt writes them anew.
            raise Fenced("a batch took longer than its objects are kept for", version=after.version)
        try:
            self._store.create(self._key(after.version), *_encode(after, results))
        except AlreadyExists as error:
            raise Fenced(version=after.version) from error
        # A worker that slept for long may have "won" a version that existed once and was swept since.
        if (
            self._clock.monotonic() - known_newest_at > self._trust_s
            and self.newest_version() != after.version
        ):
            raise Fenced("a commit came too late to be believed", version=after.version)

    def _key(self, version: int) -> str:
        return f"{self._folder}/{numbered(version)}"


def _encode(manifest: Manifest, results: tuple[MutationResult, ...]) -> list[Any]:
    meta = manifest.model_dump(mode="json")
    return pack(Kind.MANIFEST, meta, [("results", [_RESULTS.dump_json(results)])])


def _decode_state(data: memoryview, version: int) -> Manifest:
    manifest = Manifest.model_validate(unpack(data, Kind.MANIFEST).meta)
    if manifest.version != version:
        raise Corrupt("a manifest lies under another version's name", expected=version, got=manifest.version)
    return manifest
