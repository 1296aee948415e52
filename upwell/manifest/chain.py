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
from upwell.failpoint import Step, reached
from upwell.format import Kind, pack
from upwell.ids import new_identity, numbered, numbers_in
from upwell.manifest.state import INVARIANTS, Manifest, MutationResult, ShardState
from upwell.store import Store, create_own, read_object

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
        create_own(self._store, self._key(1), *_encode(first, ()))

    def adopt(self, manifest: Manifest) -> None:
        """Write the first version of an index that goes on where another one ended: it keeps its number."""
        create_own(self._store, self._key(manifest.version), *_encode(manifest, ()))

    def trusts(self, since: float) -> bool:
        """May what was known at ``since`` (monotonic seconds) still be acted upon?"""
        return self._clock.monotonic() - since <= self._trust_s

    def exists(self, version: int) -> bool:
        """Is this version in the store now?"""
        return self._store.exists(self._key(version))

    def confirm(self, version: int) -> None:
        """Return only after a version that was seen is on stable storage."""
        self._store.confirm(self._key(version))

    def newest_version(self, known: int | None = None) -> int:
        """The newest version in the store. With ``known``, a version that was newest less than the grace period ago,
        this is one look when nothing changed; without, it lists. Raises NotFound for an index that has none."""
        if known is None:
            versions = numbers_in(self._store.list(self._folder))
            if not versions:
                raise NotFound("the index has no manifest", folder=self._folder)
            return versions[-1]
        return last_of(self.exists, known)

    def oldest_version(self) -> int:
        """The oldest version from which on all are there. Lists. Raises NotFound for an index that has none.

        Older ones may be there as well: after a power failure, some that were swept are back.
        """
        versions = numbers_in(self._store.list(self._folder))
        if not versions:
            raise NotFound("the index has no manifest", folder=self._folder)
        oldest = versions.pop()
        while versions and versions[-1] == oldest - 1:
            oldest = versions.pop()
        return oldest

    def load(self, version: int) -> Manifest:
        """The state at ``version``. Raises NotFound once swept, Corrupt if damaged."""
        box = read_object(self._store, self._key(version), Kind.MANIFEST)
        with box.understood():
            manifest = Manifest.model_validate(box.meta)
            if manifest.version != version:
                raise Corrupt(
                    "a manifest lies under another version's name", expected=version, got=manifest.version
                )
        return manifest

    def results(self, version: int) -> tuple[MutationResult, ...]:
        """What the commit of ``version`` applied. Raises NotFound once swept, Corrupt if damaged."""
        box = read_object(self._store, self._key(version), Kind.MANIFEST)
        with box.understood():
            return _RESULTS.validate_python(orjson.loads(box.section("results")))

    def version_that_applied(self, position: int, newest: Manifest) -> int | None:
        """The version whose commit applied ``position``, or None if it is swept. ``newest`` must have applied it.

        Looks backwards in growing steps and then halves: what clients ask for is mostly recent. Swept versions are always
        the oldest ones, so "is there, and has applied it" is false up to some version and true from there on. After a power failure some
        swept ones are back, with gaps between them; then the end may be at any gap, and the results found there tell the truth.
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
        another commit came first, AssertionError if an invariant does not hold, Unavailable with the outcome unknown: then look
        again. Whatever came of it, the next batch starts from the version that is there; what is done again is work, not a mutation.
        ``before`` need not be on stable storage: both names are in one folder, and our own fsync covers them.
        """
        for invariant in INVARIANTS:
            if not invariant(before, after):
                raise AssertionError(f"a commit would break an invariant: {invariant.__name__}")
        if self._clock.monotonic() - known_newest_at > self._trust_s:
            # Objects that nothing names for so long may be swept; a fresh attempt writes them anew.
            raise Fenced("a batch took longer than its objects are kept for", version=after.version)
        reached(Step.MANIFEST_COMMIT_BEFORE)
        try:
            self._store.create(self._key(after.version), *_encode(after, results))
        except AlreadyExists as error:
            if not self._is_there(after):
                raise Fenced(version=after.version) from error
        reached(Step.MANIFEST_COMMIT_AFTER)
        # A worker that slept for long may have "won" a version that existed once and was swept since.
        if (
            self._clock.monotonic() - known_newest_at > self._trust_s
            and self.newest_version() != after.version
        ):
            raise Fenced("a commit came too late to be believed", version=after.version)

    def _is_there(self, manifest: Manifest) -> bool:
        """Is this very manifest in the store? Then a client library sent it twice. Its writer and what it names are nobody else's."""
        try:
            return self.load(manifest.version) == manifest
        except NotFound:
            return False

    def _key(self, version: int) -> str:
        return f"{self._folder}/{numbered(version)}"


def _encode(manifest: Manifest, results: tuple[MutationResult, ...]) -> list[Any]:
    meta = manifest.model_dump(mode="json")
    return pack(Kind.MANIFEST, meta, [("results", [_RESULTS.dump_json(results)])])
