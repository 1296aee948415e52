"""Deleting what nothing can read any more: applied log entries, old manifests, objects that no manifest names, dead indexes.

Time is only ever our own: a collector trusts no timestamp of the store and notes, on its monotonic clock, when it *saw* a thing to
be superfluous. Restarted, it begins anew, and deletes later. The rules, each against a way of deleting too early:

    a log entry       once a manifest that has applied it was seen a grace period ago; always upwards, so that an entry which is
                      there proves that none after it is gone. Writers vouch for positions for half that time (log/writer.py).
    its payload       with its entry; one that no entry names, after the entries that might have are gone
    a manifest        once a newer one was seen a results period ago; upwards. They hold the counts that status tells.
    a segment, a part, once it was seen unnamed by the newest manifest a grace period ago, *and* a version was committed since half of
    deletions, a page that period: whoever was about to name it then (a drain, a compaction) has lost the race for that version.
                      Where nothing is committed, the collector commits a version that changes nothing, to be sure (a fence).
    a request         once it was decided longer ago than requests are remembered, and the log was seen to be applied since then
    a kept mutation   that failed: once that was longer ago than they are kept for, and it was seen a grace period ago
    notes             once newer ones were seen a grace period ago; upwards. Readers trust what they know for half that time (catalog/notes.py).
    a dead index      once its name was seen to be another's, or nobody's, a grace period ago, *and* whoever was about to give it one since
                      then has lost the race for that name (catalog/names.py, ``retire``). One that was replaced is dead from that event on: no
                      name ever comes back to it (catalog/replacing.py)
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta

import structlog

from upwell.catalog.notes import NOTES, OldNotes
from upwell.catalog.record import IndexRecord
from upwell.clock import Clock
from upwell.errors import Corrupt, Fenced, NotFound
from upwell.failpoint import Step, reached
from upwell.ids import new_identity, numbered, numbers_in
from upwell.log.kept import KeptMutations
from upwell.log.reader import LogReader
from upwell.log.request import RETRY_PREFIX, Requests
from upwell.manifest import Manifest, ManifestHead
from upwell.shard.view import named_by
from upwell.store import Store

log = structlog.get_logger()

#: Records of requests that one pass reads to learn their age: with many the first passes see some, and no pass takes long.
REQUESTS_READ_MAX = 5_000
#: Before and after an object of a kind is deleted.
_STEPS = {
    "segment": (Step.GARBAGE_SEGMENT_BEFORE, Step.GARBAGE_SEGMENT_AFTER),
    "deletions": (Step.GARBAGE_DELETIONS_BEFORE, Step.GARBAGE_DELETIONS_AFTER),
    "failures": (Step.GARBAGE_FAILURES_BEFORE, Step.GARBAGE_FAILURES_AFTER),
    "namespaces": (Step.GARBAGE_NAMESPACES_BEFORE, Step.GARBAGE_NAMESPACES_AFTER),
    "part": (Step.GARBAGE_PART_BEFORE, Step.GARBAGE_PART_AFTER),
}


@dataclass(frozen=True, slots=True)
class _Seen:
    """The newest manifest at one time."""

    at: float
    version: int
    applied_through: int


@dataclass(slots=True)
class _Suspect:
    """An object that seems superfluous: since when, and what must be past before it may go.

    Of a payload, or a request, that is the log's tail at one time; of a segment or deletion vector, the newest version half a grace
    period after.
    """

    since: float
    past: int | None = None


@dataclass(slots=True)
class Collected:
    """How many objects of each sort were deleted."""

    log_entries: int = 0
    payloads: int = 0
    manifests: int = 0
    segments: int = 0
    deletions: int = 0
    parts: int = 0
    requests: int = 0
    failures: int = 0
    namespaces: int = 0
    embedded: int = 0
    kept: int = 0
    notes: int = 0

    def __bool__(self) -> bool:
        return any(astuple(self))


class Collector:
    """Collects the garbage of one index. Blocking; for one thread at a time."""

    def __init__(
        self, store: Store, record: IndexRecord, head: ManifestHead, log: LogReader, clock: Clock, *,
        grace_s: float, results_s: float, requests_s: float, failed_s: float,
    ) -> None:  # fmt: skip
        self._store = store
        self._folder = record.folder
        self._head = head
        self._log = log
        self._clock = clock
        self._grace_s = grace_s
        self._results_s = max(results_s, grace_s)
        self._requests = Requests(store, record.folder, clock)
        self._requests_kept = timedelta(seconds=max(requests_s, grace_s))
        self._kept = KeptMutations(store, record.folder, clock)
        self._failed_kept = timedelta(seconds=max(failed_s, grace_s))
        #: When each object with failed mutations that was seen was written.
        self._kept_at: dict[str, datetime] = {}
        #: When each request that was seen was decided.
        self._decided_at: dict[str, datetime] = {}
        self._history: deque[_Seen] = deque()
        self._suspects: dict[str, _Suspect] = {}
        self._notes = OldNotes(store, f"{record.folder}/{NOTES}", clock, grace_s)
        self._writer = new_identity()
        #: Entries up to here are deleted, by whomever.
        self._log_gone_through = 0

    def collect(self) -> Collected:
        """Delete what may be deleted by now. May raise Unavailable; what was deleted until then is deleted.

        Ages are measured up to the time when the pass began, and from the time when a look was over: a sleep in between makes
        things seem younger, and never older.
        """
        began = self._clock.monotonic()
        # Durable, or a power failure would leave us with neither what it made superfluous nor itself.
        manifest = self._head.durable()
        self._history.append(_Seen(self._clock.monotonic(), manifest.version, manifest.applied_through))
        done = Collected()
        entries_until = self._seen_before(began - self._grace_s)
        if entries_until is not None:
            self._collect_log(entries_until.applied_through, done)
            self._collect_embedded(entries_until.applied_through, done)
        manifests_until = self._seen_before(began - self._results_s)
        if manifests_until is not None:
            self._collect_manifests(manifests_until.version, done)
        tail = self._log.tail(manifest.applied_through)
        self._collect_objects(began, manifest, done)
        self._collect_payloads(began, tail, done)
        self._collect_requests(tail, manifest, done)
        self._collect_kept(began, done)
        done.notes += self._notes.collect()
        self._forget_history(began)
        return done

    def _list(self, kind: str) -> list[str]:
        """The keys of one kind, each suspected from now on if it is not yet; those that others deleted are forgotten."""
        folder = f"{self._folder}/{kind}/"
        keys = [folder + name for name in self._store.list(folder[:-1])]
        now = self._clock.monotonic()
        for key in keys:
            self._suspects.setdefault(key, _Suspect(now))
        for key in self._suspects.keys() - set(keys):
            if key.startswith(folder):
                del self._suspects[key]
        return keys

    def _seen_before(self, at: float) -> _Seen | None:
        """The newest manifest as of ``at``, as far as we looked."""
        return next((seen for seen in reversed(self._history) if seen.at <= at), None)

    def _forget_history(self, now: float) -> None:
        while len(self._history) > 1 and self._history[1].at <= now - self._results_s:
            self._history.popleft()

    def _collect_log(self, through: int, done: Collected) -> None:
        for position in numbers_in(self._store.list(f"{self._folder}/log")):
            if position > through:
                break
            for payload in self._payloads_of(position):
                reached(Step.GARBAGE_PAYLOAD_BEFORE)
                self._store.delete(payload)
                reached(Step.GARBAGE_PAYLOAD_AFTER)
                self._suspects.pop(payload, None)
                done.payloads += 1
            reached(Step.GARBAGE_LOG_BEFORE)
            self._store.delete(self._log.key(position))
            reached(Step.GARBAGE_LOG_AFTER)
            done.log_entries += 1
        self._log_gone_through = max(self._log_gone_through, through)

    def _collect_embedded(self, through: int, done: Collected) -> None:
        for position in numbers_in(self._store.list(f"{self._folder}/embedded")):
            if position > through:
                break
            reached(Step.GARBAGE_EMBEDDED_BEFORE)
            self._store.delete(f"{self._folder}/embedded/{numbered(position)}")
            reached(Step.GARBAGE_EMBEDDED_AFTER)
            done.embedded += 1

    def _payloads_of(self, position: int) -> list[str]:
        try:
            mutations = self._log.read(position).mutations
        except (NotFound, Corrupt):
            # Another collector was here, or the entry is damaged: a payload it named is found unnamed later.
            return []
        return [mutation.payload for mutation in mutations if mutation.payload is not None]

    def _collect_manifests(self, newest_kept: int, done: Collected) -> None:
        for name in self._store.list(f"{self._folder}/manifest"):
            if name >= numbered(newest_kept):
                break
            reached(Step.GARBAGE_MANIFEST_BEFORE)
            self._store.delete(f"{self._folder}/manifest/{name}")
            reached(Step.GARBAGE_MANIFEST_AFTER)
            done.manifests += 1

    def _collect_objects(self, now: float, manifest: Manifest, done: Collected) -> None:
        named = named_by(manifest, self._folder)
        fence = False
        for kind in ("segment", "deletions", "failures", "namespaces", "part"):
            for key in self._list(kind):
                if key in named:
                    del self._suspects[key]
                    continue
                suspect = self._suspects[key]
                if suspect.past is None and now - suspect.since >= self._grace_s / 2:
                    suspect.past = manifest.version
                if suspect.past is None or now - suspect.since < self._grace_s:
                    continue
                if manifest.version <= suspect.past:
                    fence = True
                    continue
                before, after = _STEPS[kind]
                reached(before)
                self._store.delete(key)
                reached(after)
                del self._suspects[key]
                match kind:
                    case "segment":
                        done.segments += 1
                    case "deletions":
                        done.deletions += 1
                    case "failures":
                        done.failures += 1
                    case "namespaces":
                        done.namespaces += 1
                    case _:
                        done.parts += 1
        if fence:
            self._commit_fence(now, manifest)

    def _commit_fence(self, known_newest_at: float, manifest: Manifest) -> None:
        """Commit a version that changes nothing: what was prepared for the newest one till now can be committed no more."""
        after = manifest.model_copy(update={"version": manifest.version + 1, "writer": self._writer})
        reached(Step.GARBAGE_FENCE_BEFORE)
        with contextlib.suppress(Fenced):
            self._head.chain.commit(manifest, after, (), known_newest_at)
        reached(Step.GARBAGE_FENCE_AFTER)

    def _collect_payloads(self, now: float, tail: int, done: Collected) -> None:
        """Payloads whose entry was never written: after a grace period no writer adds that entry and vouches for it."""
        for key in self._list("payload"):
            suspect = self._suspects[key]
            if suspect.past is None:
                if now - suspect.since >= self._grace_s:
                    suspect.past = tail
            elif self._log_gone_through >= suspect.past:
                reached(Step.GARBAGE_PAYLOAD_BEFORE)
                self._store.delete(key)
                reached(Step.GARBAGE_PAYLOAD_AFTER)
                del self._suspects[key]
                done.payloads += 1

    def _collect_requests(self, tail: int, manifest: Manifest, done: Collected) -> None:
        """Requests of long ago. Their age is told by the clock of who decided: a day's window needs no better one."""
        keys = self._list("request")
        self._decided_at = {key: self._decided_at[key] for key in keys if key in self._decided_at}
        unread = REQUESTS_READ_MAX
        for key in keys:
            if key not in self._decided_at:
                if unread == 0:
                    continue
                unread -= 1
                try:
                    found = self._requests.find(key.rpartition("/")[2])
                except Corrupt as error:
                    # Of an age that nobody knows: it stays for those who look into it.
                    log.error("a request's record is damaged", key=key, error=str(error))
                    continue
                if found is None:
                    continue
                self._decided_at[key] = found.at
            is_retry = key.rpartition("/")[2].startswith(RETRY_PREFIX)
            kept = max(self._failed_kept, self._requests_kept) if is_retry else self._requests_kept
            if self._clock.now() - self._decided_at[key] < kept:
                continue
            suspect = self._suspects[key]
            if suspect.past is None:
                # The same request may be in the log a second time, up to here.
                suspect.past = tail
            if manifest.applied_through >= suspect.past:
                found = self._requests.find(key.rpartition("/")[2])
                if found is not None and found.at == self._decided_at[key]:
                    reached(Step.GARBAGE_REQUEST_BEFORE)
                    self._store.delete(key)
                    reached(Step.GARBAGE_REQUEST_AFTER)
                    done.requests += 1
                # Else another collector was here, and what there is now is a new request of the same key.
                del self._suspects[key], self._decided_at[key]

    def _collect_kept(self, now: float, done: Collected) -> None:
        """Failed mutations of long ago, named or not: their failures stay known."""
        keys = self._list("failed")
        self._kept_at = {key: self._kept_at[key] for key in keys if key in self._kept_at}
        for key in keys:
            if key not in self._kept_at:
                try:
                    self._kept_at[key] = self._kept.kept_at(key)
                except NotFound:
                    continue
                except Corrupt as error:
                    log.error("an object with failed mutations is damaged", key=key, error=str(error))
                    continue
            old = self._clock.now() - self._kept_at[key] >= self._failed_kept
            # Our own clock as well: one that was set forward must not take what was only just kept.
            if old and now - self._suspects[key].since >= self._grace_s:
                reached(Step.GARBAGE_KEPT_BEFORE)
                self._store.delete(key)
                reached(Step.GARBAGE_KEPT_AFTER)
                del self._suspects[key], self._kept_at[key]
                done.kept += 1


class DeadIndexes:
    """Notes which index folders no name stands for, and deletes them once that has been so for a grace period."""

    def __init__(
        self, store: Store, clock: Clock, grace_s: float, *, live: Callable[[], set[str]], retire: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._grace_s = grace_s
        #: Tells the identities that have a name.
        self._live = live
        #: Sees to it that an identity without a name gets none any more; False if it has one after all.
        self._retire = retire
        #: By identity: the newest sign of life that was seen, and when.
        self._dead_since: dict[str, tuple[str, float]] = {}

    def collect(self) -> int:
        """Delete indexes that are long dead; returns how many. Their age counts from when they were seen to have no name."""
        began = self._clock.monotonic()
        deleted = 0
        found = set(self._store.list("index"))
        live = self._live()
        for index_id in found - live:
            old = began - self._dead_for_sure_since(index_id) >= self._grace_s
            if old and self._retire(index_id):
                reached(Step.GARBAGE_INDEX_BEFORE)
                self._store.delete_folder(f"index/{index_id}")
                reached(Step.GARBAGE_INDEX_AFTER)
                deleted += 1
        for index_id in self._dead_since.keys() - (found - live):
            del self._dead_since[index_id]
        return deleted

    def _dead_for_sure_since(self, index_id: str) -> float:
        """Since when it had no name and nobody worked on it: who restores one says so as long as it takes (custody/restore.py)."""
        sign = max(self._store.list(f"index/{index_id}/restoring"), default="")
        known = self._dead_since.get(index_id)
        if known is None or known[0] != sign:
            known = self._dead_since[index_id] = sign, self._clock.monotonic()
        return known[1]
