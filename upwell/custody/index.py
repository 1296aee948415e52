"""Checking one index: what its newest version names is there and whole, its log goes on where that ends, and all the rest is known.

Nothing is written. Beside running processes objects come and go: where something is missing, and a newer version has come meanwhile, the
index is looked at again from the start.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

from upwell.catalog.notes import notes_in
from upwell.catalog.record import IndexRecord, index_folder, read_record
from upwell.changeset import KeyScope
from upwell.clock import SystemClock
from upwell.custody.findings import CONSEQUENCES, FROM_BACKUP, WAIT, Finding, Report, Severity
from upwell.custody.objects import KINDS, kind_of, strays, verify
from upwell.custody.rows import check_shard
from upwell.errors import Corrupt, NotFound, TooNew
from upwell.format import ALIGNMENT, Box, Kind
from upwell.ids import numbered, numbers_in
from upwell.log.embedded import embedded_in
from upwell.log.entry import decode_entry
from upwell.log.reader import LogReader
from upwell.log.receipt import Receipt
from upwell.manifest import Manifest, ManifestChain
from upwell.manifest.failures import failures_in
from upwell.manifest.namespaces import namespaces_in
from upwell.manifest.state import INVARIANTS
from upwell.shard.filter_json import filter_from_json
from upwell.shard.view import LiveSegment, ViewOpener, named_by, segment_key
from upwell.store import Store
from upwell.webhook import Progress, Webhook

#: How often an index is looked at anew because others went on with it meanwhile.
LOOKS_MAX = 4
#: Objects that count although no manifest and no log entry names them, by the piece of their path.
_OF_THEIR_OWN = frozenset({"webhook", "delivery", "request", "failed", "names"})
#: Kinds of objects that are named by numbers.
_NUMBERED = frozenset({"log", "manifest", "delivery", "embedded", "notes", "names"})
#: Kinds whose objects lie one folder deeper: a webhook's, and a name's.
_NESTED = frozenset({"delivery", "names"})

#: Whose bodies one function reads, by the piece of their path.
_DECODED: dict[str, Callable[[Box], object]] = {
    "failures": failures_in,
    "embedded": embedded_in,
    "notes": notes_in,
}


class IndexCheck:
    """The check of the index under ``index/{index_id}``. Blocking; objects are read by the threads of ``executor``."""

    def __init__(
        self, store: Store, index_id: str, name: str | None, executor: Executor, report: Report, *,
        quick: bool = False, told: Callable[[int], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._store = store
        self._folder = index_folder(index_id)
        self._id = index_id
        self._name = name
        self._executor = executor
        self._report = report
        self._quick = quick
        #: Told the size of each object that was read.
        self._told = told
        self._chain = ManifestChain(store, self._folder, SystemClock(), 1.0)
        #: Live vectors in the newest version, once that was read.
        self.vectors = 0
        #: Was something missing that may have gone by right?
        self._missing = False
        #: Objects of which it was said that they cannot be read.
        self._unread: set[str] = set()

    def run(self) -> list[Finding]:
        """Everything there is to say of the index."""
        findings: list[Finding] = []
        for left in reversed(range(LOOKS_MAX)):
            self._missing = False
            self._unread.clear()
            before = self._newest()
            findings = list(self._look())
            if not self._missing or left == 0 or self._newest() == before:
                break
        return findings

    def _newest(self) -> int:
        versions = self._numbers("manifest")
        return versions[-1] if versions else 0

    def _look(self) -> Iterator[Finding]:
        record = None
        with contextlib.suppress(Corrupt, TooNew, NotFound):
            # Said when all objects are read.
            record = read_record(self._store, self._id)
        # The log first: what is listed after the manifest may be written after it as well.
        positions = self._numbers("log")
        manifest = None
        for found in self._check_versions():
            if isinstance(found, Manifest):
                manifest = found
            else:
                yield found
        needed: set[str] = {f"{self._folder}/record"}
        if manifest is not None:
            self.vectors = manifest.vectors
            needed |= named_by(manifest, self._folder)
            yield from self._check_log(positions, manifest, needed)
        yield from self._check_objects(needed)
        if record is not None and manifest is not None and not self._quick:
            yield from self._check_rows(record, manifest)

    # Versions.

    def _check_versions(self) -> Iterator[Finding | Manifest]:
        """Findings, and the newest manifest if it can be read."""
        versions = self._numbers("manifest")
        if not versions:
            yield self._lost(f"{self._folder}/manifest", Kind.MANIFEST)
            return
        before: Manifest | None = None
        for version in versions:
            key = f"{self._folder}/manifest/{numbered(version)}"
            try:
                manifest = self._chain.load(version)
                self._chain.results(version)
            except NotFound:
                # Swept by age meanwhile, or a newer one came.
                before = None
                continue
            except (Corrupt, TooNew) as error:
                yield self._unreadable(error, key, Kind.MANIFEST, needed=version == versions[-1])
                before = None
                continue
            if manifest.index_id != self._id:
                yield self._broken(key, f"it is of the index {manifest.index_id}")
            if before is not None and before.version + 1 == version:
                for invariant in INVARIANTS:
                    if not invariant(before, manifest):
                        says = invariant.__name__.replace("_", " ")
                        yield self._broken(
                            key, f"it does not follow from the version before: {says} does not hold"
                        )
            before = manifest
        if before is not None:
            yield before

    # The log.

    def _check_log(self, positions: list[int], manifest: Manifest, needed: set[str]) -> Iterator[Finding]:
        """That it is dense from where the manifest ends. What its entries name is needed."""
        log = LogReader(self._store, self._folder)
        waiting = [position for position in positions if position > manifest.applied_through]
        for expected, position in enumerate(waiting, manifest.applied_through + 1):
            if position != expected and not log.exists(expected) and self._not_applied(expected):
                yield self._finding(
                    Severity.ERROR,
                    log.key(expected),
                    f"the log has no entry at position {expected}, and has one at {position}",
                    "acknowledged mutations are lost, and those behind are never applied",
                    FROM_BACKUP,
                )
                break
        for position in waiting:
            key = log.key(position)
            needed.add(key)
            try:
                entry = log.read(position)
            except (NotFound, Corrupt, TooNew):
                # Swept meanwhile; or said when all objects are read.
                continue
            needed |= {one.payload for one in entry.mutations if one.payload is not None}

    def _not_applied(self, position: int) -> bool:
        try:
            return self._chain.load(self._newest()).applied_through < position
        except (NotFound, Corrupt, TooNew):
            return True

    # Objects.

    def _check_objects(self, needed: set[str]) -> Iterator[Finding]:
        there = list(self._everything())
        known = [key for key in there if _is_known(key)]
        # The newest; what was noted before is superseded.
        needed |= set([key for key in known if key.split("/")[2] == "notes"][-1:])
        for key in sorted(set(there) - set(known)):
            if key.split("/")[2] != "restoring":
                yield self._note(key, "nothing of this name is known", "look who put it there")
        for found in self._executor.map(partial(self._check_object, needed), known):
            yield from found
        for key in sorted(needed - set(there)):
            if not self._store.exists(key):
                self._missing = True
                yield self._lost(key, kind_of(key))
        unnamed = Counter(key.split("/")[2] for key in known if key not in needed)
        for kind, count in sorted(unnamed.items()):
            if kind not in _OF_THEIR_OWN:
                problem = f"{count} objects that the newest version does not need"
                yield self._note(f"{self._folder}/{kind}", problem, WAIT)

    def _everything(self) -> Iterator[str]:
        """The names of all objects, but for manifests: those are read already."""
        for piece in self._store.list(self._folder):
            if piece == "record":
                yield f"{self._folder}/record"
            elif piece in _NESTED:
                for one in self._store.list(f"{self._folder}/{piece}"):
                    folder = f"{self._folder}/{piece}/{one}"
                    yield from (f"{folder}/{name}" for name in self._store.list(folder))
            elif piece == "manifest":
                for name in self._store.list(f"{self._folder}/manifest"):
                    if not numbers_in([name]):
                        yield f"{self._folder}/manifest/{name}"
            else:
                yield from (
                    f"{self._folder}/{piece}/{name}" for name in self._store.list(f"{self._folder}/{piece}")
                )

    def _check_object(self, needed: set[str], key: str) -> list[Finding]:
        kind = kind_of(key)
        try:
            data = self._store.read(key)
            box = verify(data, kind, key, quick=self._quick)
            with box.understood():
                _decode(box, key)
        except NotFound:
            # If it is needed, that is said of all that are missing.
            return []
        except (Corrupt, TooNew) as error:
            needed_here = key in needed or key.split("/")[2] in _OF_THEIR_OWN
            return [self._unreadable(error, key, kind, needed=needed_here)]
        nbytes = ALIGNMENT + int.from_bytes(data[12:16], "little") if self._quick else len(data)
        self._report.looked_at(objects=1, nbytes=nbytes)
        self._told(nbytes)
        stray = None if self._quick else strays(box)
        if stray is None:
            return []
        meaning, remedy = "nothing that is read; but the disk, or a copy, changes bytes", "check the disk"
        return [self._finding(Severity.WARNING, key, stray, meaning, remedy)]

    # Rows.

    def _check_rows(self, record: IndexRecord, manifest: Manifest) -> Iterator[Finding]:
        if len(manifest.shards) != record.shards:
            key = f"{self._folder}/manifest/{numbered(manifest.version)}"
            yield self._broken(key, f"it has {len(manifest.shards)} shards, the index {record.shards}")
            return
        if manifest.key_scope is not None and record.key_scope is not KeyScope.OPEN:
            key = f"{self._folder}/manifest/{numbered(manifest.version)}"
            yield self._broken(key, "it decides what ids are unique in, which the index was made with")
        checks, scope = [], manifest.key_scope or record.key_scope
        for number, state in enumerate(manifest.shards):
            opened: list[tuple[str, LiveSegment]] = []
            for ref in state.segments:
                key = segment_key(self._folder, ref.id)
                try:
                    opened.append((key, ViewOpener(self._store, record).live(ref)))
                    if (size := self._store.size_bytes(key)) != ref.nbytes:
                        yield self._broken(key, f"it has {size} bytes, and the manifest says {ref.nbytes}")
                except NotFound:
                    # Said when all objects were looked for.
                    self._missing = True
                except (Corrupt, TooNew) as error:
                    named = str(error.facts.get("key", key))
                    if named not in self._unread:
                        yield self._unreadable(error, named, kind_of(named))
            checks.append(self._executor.submit(_listed, record, scope, number, opened))
        for check in checks:
            for key, problem in check.result():
                if key not in self._unread:
                    yield self._broken(key, problem)

    # Findings.

    def _finding(self, severity: Severity, key: str, problem: str, meaning: str, remedy: str) -> Finding:
        return Finding(
            severity=severity, key=key, index=self._name, problem=problem, meaning=meaning, remedy=remedy
        )

    def _note(self, key: str, problem: str, remedy: str) -> Finding:
        return self._finding(Severity.NOTE, key, problem, "nothing", remedy)

    def _broken(self, key: str, problem: str) -> Finding:
        return self._finding(
            Severity.ERROR,
            key,
            problem,
            "queries may answer wrongly: a fault of Upwell's, not of the disk",
            FROM_BACKUP,
        )

    def _lost(self, key: str, kind: Kind) -> Finding:
        return self._finding(Severity.ERROR, key, "it is missing", *CONSEQUENCES[kind])

    def _unreadable(self, error: Corrupt | TooNew, key: str, kind: Kind, *, needed: bool = True) -> Finding:
        self._unread.add(key)
        if isinstance(error, TooNew):
            return self._finding(
                Severity.ERROR,
                key,
                error.detail,
                "this Upwell cannot read it; the one that wrote it can",
                "upgrade Upwell",
            )
        facts = {name: value for name, value in error.facts.items() if name != "key"}
        problem = ", ".join([error.detail, *(f"{name} {value!r}" for name, value in facts.items())])
        if needed:
            return self._finding(Severity.ERROR, key, problem, *CONSEQUENCES[kind])
        meaning = "nothing: the newest version does without it"
        if kind is Kind.MANIFEST:
            meaning = "the counts of mutations that it applied are not told any more"
        return self._finding(Severity.WARNING, key, problem, meaning, WAIT)

    def _numbers(self, kind: str) -> list[int]:
        return numbers_in(self._store.list(f"{self._folder}/{kind}"))


def _is_known(key: str) -> bool:
    """Can an object of this name be one of ours?"""
    kind, name = key.split("/")[2], key.rpartition("/")[2]
    return kind in KINDS and (kind not in _NUMBERED or bool(numbers_in([name])))


def _listed(
    record: IndexRecord, scope: KeyScope, number: int, segments: Sequence[tuple[str, LiveSegment]]
) -> list[tuple[str, str]]:
    return list(check_shard(record, scope, number, segments))


def _decode(box: Box, key: str) -> None:
    """Read what it holds as those do who use it. Segments and deletion vectors are read with their rows."""
    match key.split("/")[2]:
        case "record":
            IndexRecord.model_validate(box.meta)
        case "log":
            for mutation in decode_entry(box.data, int(key.rpartition("/")[2]), key).mutations:
                if mutation.details.selection is not None and mutation.details.selection.filter is not None:
                    filter_from_json(mutation.details.selection.filter)
        case "webhook":
            Webhook.model_validate(box.meta)
        case "delivery":
            Progress.model_validate(box.meta)
        case "request":
            Receipt(box.meta["position"], box.meta["place"])
        case "namespaces":
            table = namespaces_in(box).identities
            if len(set(table.values())) < len(table) or len(table) < len(box.meta["names"]):
                raise Corrupt("two of its namespaces are one")
        case other if other in _DECODED:
            _DECODED[other](box)
        case _:
            return
