"""Checking a whole store: its names, its tokens, and each of its indexes. Reads only, and beside running processes.

An index whose name is taken away while it is looked at is let go of, with all that was found about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from upwell.catalog.databases import FOLDER as DATABASES
from upwell.catalog.events import NAME_PATTERN
from upwell.catalog.notes import notes_in
from upwell.catalog.record import index_folder
from upwell.catalog.tokens import Grant
from upwell.custody.findings import CONSEQUENCES, WAIT, Finding, Report, Severity
from upwell.custody.index import IndexCheck
from upwell.custody.objects import verify
from upwell.errors import Corrupt, NotFound, TooNew
from upwell.format import Kind
from upwell.ids import numbered, numbers_in
from upwell.store import Store

#: Folders of a store, and what is in them.
_TOKENS = ("token", "revoked", "rotated")
_FOLDERS = frozenset({"index", "catalog", DATABASES, *_TOKENS})
READERS = 4


def check_store(
    store: Store,
    *,
    only: tuple[str, str] | None = None,
    quick: bool = False,
    told: Callable[[int], None] = lambda _: None,
) -> Report:
    """Check everything, or the ``only`` index (account, name). ``told`` hears the size of each object that was read."""
    report = Report()
    names = _Names(store)
    live: dict[str, tuple[str, str]] = {}
    for account in store.list("catalog") if only is None else (only[0],):
        for name in store.list(f"catalog/{account}") if only is None else (only[1],):
            index_id, findings = names.check(account, name)
            report.add(findings)
            if index_id is not None:
                if index_id in live:
                    report.add([_twice(f"catalog/{account}/{name}", *live[index_id])])
                live[index_id] = (account, name)
    if only is not None and not live and not report.findings:
        raise NotFound("there is no such index", account=only[0], name=only[1])
    with ThreadPoolExecutor(READERS, thread_name_prefix="check") as executor:
        for index_id, (account, name) in sorted(live.items(), key=lambda one: one[1]):
            check = IndexCheck(store, index_id, f"{account}/{name}", executor, report, quick=quick, told=told)
            found = check.run()
            if names.check(account, name)[0] == index_id:
                report.add(found)
                report.indexes += 1
                report.vectors += check.vectors
    if only is None:
        report.add(_nameless(store, set(live)))
        report.add(_tokens(store, report))
        report.add(_databases(store, report))
        report.add(_strangers(store))
    return report


class _Names:
    """The names of a store, and which index each stands for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, account: str, name: str) -> tuple[str | None, list[Finding]]:
        """The index that a name stands for now, None if it is none or cannot be told; and what is wrong with that name."""
        folder = f"catalog/{account}/{name}"
        if not NAME_PATTERN.fullmatch(account) or not NAME_PATTERN.fullmatch(name):
            problem = "this cannot be the name of an index"
            return None, [_note(folder, problem, "look who put it there")]
        events = [numbered(generation) for generation in numbers_in(self._store.list(folder))]
        findings: list[Finding] = []
        index_id, yielded = None, False
        for generation, event in enumerate(events, 1):
            key, newest = f"{folder}/{event}", event == events[-1]
            if event != numbered(generation) and newest:
                problem = f"events of the name are missing: the last of {generation} is {event}"
                findings.append(_error(folder, f"{account}/{name}", problem, Kind.CATALOG_EVENT))
            try:
                box = verify(self._store.read(key), Kind.CATALOG_EVENT, key)
                with box.understood():
                    before, index_id = index_id, box.meta["index"]
                    if box.meta["event"] == "deleted":
                        index_id = None
                    elif before not in (None, index_id) and not yielded:
                        problem = "the name was given to an index while another had it"
                        findings.append(_error(key, f"{account}/{name}", problem, Kind.CATALOG_EVENT))
                    yielded = bool(box.meta.get("yields"))
            except (Corrupt, TooNew) as error:
                index_id = None
                if newest:
                    findings.append(_error(key, f"{account}/{name}", error.detail, Kind.CATALOG_EVENT))
                else:
                    findings.append(_superseded(key, f"{account}/{name}", error.detail))
        return index_id, findings


def _nameless(store: Store, live: set[str]) -> Iterator[Finding]:
    for index_id in store.list("index"):
        if index_id not in live:
            problem = "an index without a name: deleted, or never finished"
            yield _note(index_folder(index_id), problem, WAIT)


def _tokens(store: Store, report: Report) -> Iterator[Finding]:
    tokens = set(store.list("token"))
    for folder in _TOKENS:
        for digest in store.list(folder):
            key = f"{folder}/{digest}"
            try:
                data = store.read(key)
                box = verify(data, Kind.TOKEN, key)
                if folder == "token":
                    with box.understood():
                        Grant.model_validate(box.meta)
            except NotFound:
                continue
            except (Corrupt, TooNew) as error:
                yield _error(key, None, error.detail, Kind.TOKEN)
                continue
            report.looked_at(objects=1, nbytes=len(data))
            if digest not in tokens and not store.exists(f"token/{digest}"):
                yield _note(key, "this is of a token that is not there", "delete it, or leave it")


def _databases(store: Store, report: Report) -> Iterator[Finding]:
    for name in store.list(DATABASES):
        folder = f"{DATABASES}/{name}"
        numbers = numbers_in(store.list(folder))
        for number in numbers:
            key = f"{folder}/{numbered(number)}"
            try:
                data = store.read(key)
                notes = notes_in(verify(data, Kind.NOTES, key))
                if notes.get("name") != name:
                    raise Corrupt("it is of another database")
            except NotFound:
                continue
            except (Corrupt, TooNew) as error:
                if number == numbers[-1]:
                    yield _error(key, None, error.detail, Kind.NOTES)
                else:
                    yield _superseded(key, None, error.detail)
                continue
            report.looked_at(objects=1, nbytes=len(data))


def _twice(folder: str, account: str, name: str) -> Finding:
    problem = f"its index is called {account}/{name} as well: whoever renamed it did not come to an end"
    return _note(folder, problem, "rename it again, or delete one of the names: the other keeps the index")


def _strangers(store: Store) -> Iterator[Finding]:
    for name in store.list(""):
        if name not in _FOLDERS:
            yield _note(name, "nothing of this name is known", "look who put it there")


def _note(key: str, problem: str, remedy: str) -> Finding:
    return Finding(
        severity=Severity.NOTE, key=key, index=None, problem=problem, meaning="nothing", remedy=remedy
    )


def _superseded(key: str, index: str | None, problem: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        key=key,
        index=index,
        problem=problem,
        meaning="nothing: newer ones count",
        remedy="nothing",
    )


def _error(key: str, index: str | None, problem: str, kind: Kind) -> Finding:
    meaning, remedy = CONSEQUENCES[kind]
    return Finding(
        severity=Severity.ERROR, key=key, index=index, problem=problem, meaning=meaning, remedy=remedy
    )
