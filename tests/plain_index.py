"""What an index holds after any mutations, plainly: a dict of rows, a loop over mutations. To compare the engine with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from upwell.changeset import Changeset, Details, KeyScope, Operation, Rename, Selection, without_rows
from upwell.shard.filter import Every, Filter, HasPhrase, HasWords, OneOf
from upwell.shard.filter_json import filter_to_json
from upwell.sparse import Sparse

COUNTED = ("inserted", "replaced", "skipped", "updated", "deleted")
#: The property that deletes by filter ask for.
FILTERED = "k"
#: The one with the texts whose words they ask for, which are words with spaces between them, and how these are told apart.
TEXTED, ANALYZER = "text", "{}"


@dataclass(frozen=True)
class PlainRow:
    """A row as it is sent: None where nothing is given."""

    id: str
    namespace: str | None = None
    values: tuple[float, ...] | None = None
    sparse: tuple[tuple[int, float], ...] | None = None
    data: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class PlainMutation:
    """A mutation as it is sent. ``scope``: what its sender takes ids to be unique in."""

    operation: Operation
    rows: tuple[PlainRow, ...] = ()
    scope: KeyScope = KeyScope.INDEX
    patch: bool = False
    shallow: bool = False
    adds: bool = False
    inside: bool = False
    #: Of one that selects; ``equal``: rows with this number at FILTERED; ``words``: with one of these words in their text; ``phrase``: with
    #: these words in it, one behind another.
    namespace: str | None = None
    prefix: str | None = None
    equal: float | None = None
    words: tuple[str, ...] = ()
    phrase: tuple[str, ...] = ()
    new_namespace: str | None = None
    delete_existing: bool = False

    def changeset(self) -> Changeset:
        """The same in columns."""
        if self.operation is Operation.RENAME_NAMESPACE:
            assert self.namespace is not None and self.new_namespace is not None
            rename = Rename(
                namespace=self.namespace,
                new_namespace=self.new_namespace,
                delete_existing=self.delete_existing,
            )
            return without_rows(self.operation, Details(scope=self.scope, rename=rename))
        if self.operation.selects:
            asked = self._filter()
            as_json = None if asked is None else filter_to_json(asked)
            selection = Selection(namespace=self.namespace, prefix=self.prefix, filter=as_json)
            return without_rows(self.operation, Details(scope=self.scope, selection=selection))
        first = self.rows[0]
        metadata = [None if row.metadata is None else orjson.dumps(row.metadata) for row in self.rows]
        return Changeset(
            operation=self.operation,
            ids=pa.array([row.id for row in self.rows], pa.utf8()),
            vectors=None
            if first.values is None
            else np.array([row.values for row in self.rows], np.float32).reshape(len(self.rows), -1),
            sparse=None
            if first.sparse is None
            else Sparse.of(
                [([i for i, _ in row.sparse or ()], [v for _, v in row.sparse or ()]) for row in self.rows]
            ),
            namespaces=_column([row.namespace for row in self.rows], pa.utf8()),
            metadata=_column(metadata, pa.binary()),
            data=_column([row.data for row in self.rows], pa.utf8()),
            received=len(self.rows),
            details=Details(
                scope=self.scope,
                patch=self.patch,
                shallow=self.shallow,
                adds=self.adds,
                inside=self.inside,
            ),
        )

    def _filter(self) -> Filter | None:
        parts: list[Filter] = [] if self.equal is None else [OneOf(FILTERED, (self.equal,))]
        parts += [HasWords(TEXTED, ANALYZER, self.words)] if self.words else []
        parts += [HasPhrase(TEXTED, ANALYZER, tuple(enumerate(self.phrase)))] if self.phrase else []
        if len(parts) > 1:
            return Every(tuple(parts))
        return parts[0] if parts else None


def _column(values: Sequence[object], kind: pa.DataType) -> pa.Array | None:
    return None if all(value is None for value in values) else pa.array(values, kind)


@dataclass
class PlainHeld:
    """A row as it is kept. ``sequence``: its number among all that were written into its namespace since that was emptied."""

    namespace: str
    id: str
    values: Any
    sparse: Any
    data: str | None
    metadata: Any
    sequence: int
    written: tuple[int, int]


@dataclass
class PlainIndex:
    """An index as a dict."""

    scope: KeyScope
    rows: dict[Any, PlainHeld] = field(default_factory=dict)
    namespaces: set[str] = field(default_factory=set)
    #: By namespace: the last number; and are the engine's the same? Not if what had the last number is gone.
    numbers: dict[str, int] = field(default_factory=dict)
    inexact: set[str] = field(default_factory=set)

    def apply(self, mutation: PlainMutation, written: tuple[int, int]) -> dict[str, int] | str:
        """Apply one mutation; returns what it counted, or why it failed."""
        counts = dict.fromkeys(COUNTED, 0)
        match mutation.operation:
            case Operation.INSERT | Operation.UPSERT:
                self._named(mutation)
                for row in mutation.rows:
                    counts[self._write(row, mutation.operation, written)] += 1
            case Operation.UPDATE:
                if mutation.adds:
                    self._named(mutation)
                for row in mutation.rows:
                    counts[self._update(row, mutation, written)] += 1
            case Operation.DELETE:
                for row in mutation.rows:
                    held = self._meant(row, mutation)
                    counts["deleted"] += 0 if held is None else self._remove([held])
            case Operation.RENAME_NAMESPACE:
                failed = self._rename(mutation, counts)
                if failed:
                    return failed
            case _:
                counts["deleted"] = self._remove(self._selected(mutation))
                if mutation.operation is not Operation.DELETE_MATCHING:
                    self._emptied(mutation.namespace)
                if mutation.operation is Operation.DELETE_NAMESPACE:
                    self.namespaces.discard(mutation.namespace or "")
        return counts

    def _named(self, mutation: PlainMutation) -> None:
        """What writes rows makes their namespaces, and decides what keys are."""
        named = [row.namespace for row in mutation.rows if row.namespace]
        if named and self.scope is KeyScope.OPEN:
            self.scope = mutation.scope
            self._keyed_anew()
        self.namespaces.update(named)

    def _key(self, row: PlainRow) -> Any:
        return (row.namespace or "", row.id) if self.scope is KeyScope.NAMESPACE else row.id

    def _write(self, row: PlainRow, operation: Operation, written: tuple[int, int]) -> str:
        key, space = self._key(row), row.namespace or ""
        self.numbers[space] = self.numbers.get(space, 0) + 1
        before = self.rows.get(key)
        if before is not None and operation is Operation.INSERT:
            self.inexact.add(space)
            return "skipped"
        if before is not None and before.namespace != space:
            self.inexact.add(before.namespace)
        self.rows[key] = PlainHeld(
            space, row.id, row.values, row.sparse, row.data, row.metadata, self.numbers[space], written
        )
        return "inserted" if before is None else "replaced"

    def _meant(self, row: PlainRow, mutation: PlainMutation) -> PlainHeld | None:
        held = self.rows.get(self._key(row))
        anywhere = mutation.scope is KeyScope.INDEX and not mutation.inside
        if held is None or self.scope is KeyScope.NAMESPACE or anywhere:
            return held
        return held if held.namespace == (row.namespace or "") else None

    def _update(self, row: PlainRow, mutation: PlainMutation, written: tuple[int, int]) -> str:
        held, merged = self._meant(row, mutation), _merged(mutation)
        if held is None:
            if not mutation.adds:
                return "skipped"
            given = row.metadata if row.metadata is None else merged({}, row.metadata)
            return self._write(replace(row, metadata=given), Operation.UPSERT, written)
        if mutation.adds:
            # It had a number, for the case that it is added.
            space = row.namespace or ""
            self.numbers[space] = self.numbers.get(space, 0) + 1
            self.inexact.add(space)
        held.written = written
        held.values = held.values if row.values is None else row.values
        held.sparse = held.sparse if row.sparse is None else row.sparse
        held.data = held.data if row.data is None else row.data
        if row.metadata is not None:
            held.metadata = merged(held.metadata or {}, row.metadata)
        return "updated"

    def _selected(self, mutation: PlainMutation) -> list[PlainHeld]:
        return [
            held
            for held in self.rows.values()
            if mutation.namespace in (None, held.namespace)
            and held.id.startswith(mutation.prefix or "")
            and (mutation.equal is None or (held.metadata or {}).get(FILTERED) == mutation.equal)
            and says(held.metadata, mutation.words, mutation.phrase)
        ]

    def _remove(self, gone: list[PlainHeld]) -> int:
        kept = {key: held for key, held in self.rows.items() if not any(held is one for one in gone)}
        self.inexact |= {held.namespace for held in gone}
        self.rows = kept
        return len(gone)

    def _emptied(self, namespace: str | None) -> None:
        for space in list(self.numbers) if namespace is None else [namespace]:
            self.numbers.pop(space, None)
            self.inexact.discard(space)

    def _rename(self, mutation: PlainMutation, counts: dict[str, int]) -> str | None:
        old, new = mutation.namespace or "", mutation.new_namespace or ""
        if not (old and new):
            return "without a namespace"
        if old not in self.namespaces:
            return f"Namespace {old} does not exist"
        if old == new:
            return None
        if new in self.namespaces:
            if not mutation.delete_existing:
                return f"Namespace {new} exists already"
            counts["deleted"] = self._remove([held for held in self.rows.values() if held.namespace == new])
        self._emptied(new)
        self.namespaces = (self.namespaces - {old}) | {new}
        if old in self.numbers:
            self.numbers[new] = self.numbers.pop(old)
        if old in self.inexact:
            self.inexact.remove(old)
            self.inexact.add(new)
        for held in self.rows.values():
            held.namespace = new if held.namespace == old else held.namespace
        self._keyed_anew()
        return None

    def _keyed_anew(self) -> None:
        unique = self.scope is KeyScope.NAMESPACE
        self.rows = {(held.namespace, held.id) if unique else held.id: held for held in self.rows.values()}


def says(metadata: Any, words: tuple[str, ...], phrase: tuple[str, ...] = ()) -> bool:
    """Has the text of a row with this metadata one of these words, and all of the phrase, one behind another? Yes, if none are asked for."""
    text = (metadata or {}).get(TEXTED)
    there = text.lower().split() if isinstance(text, str) else []
    starts = range(len(there) - len(phrase) + 1) if phrase else ()
    has_phrase = not phrase or any(there[at : at + len(phrase)] == list(phrase) for at in starts)
    return has_phrase and (not words or not {*there}.isdisjoint(words))


def _merged(mutation: PlainMutation) -> Callable[[Any, Any], Any]:
    """What becomes of metadata, and of what an update gives."""
    if not mutation.patch:
        return lambda _, given: given
    return plainly_replaced if mutation.shallow else plainly_patched


def plainly_replaced(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Member by member, each whole."""
    result = dict(target)
    for name, value in patch.items():
        result.pop(name, None)
        if value is not None:
            result[name] = value
    return result


def plainly_patched(target: Any, patch: Any) -> Any:
    """RFC 7396, word by word as its section 2 has it."""
    if isinstance(patch, dict):
        target = copy.deepcopy(target) if isinstance(target, dict) else {}
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = plainly_patched(target.get(name), value)
        return target
    return patch


def plain_of(changeset: Changeset) -> PlainMutation:
    """A changeset as plain values; of one that deletes by a filter, the filter must be one that a PlainMutation can have."""
    details = changeset.details
    more: dict[str, Any] = {}
    if (rename := details.rename) is not None:
        more = {
            "namespace": rename.namespace,
            "new_namespace": rename.new_namespace,
            "delete_existing": rename.delete_existing,
        }
    elif (selection := details.selection) is not None:
        more = {"namespace": selection.namespace, "prefix": selection.prefix, **_filter_of(selection.filter)}
    return PlainMutation(
        operation=changeset.operation,
        rows=tuple(_plain_rows(changeset)),
        scope=details.scope,
        patch=details.patch,
        shallow=details.shallow,
        adds=details.adds,
        inside=details.inside,
        **more,
    )


def _filter_of(asked: Any) -> dict[str, Any]:
    match asked:
        case None:
            return {}
        # 1 and true may be one to a door.
        case ["in", path, equal, *others] if path == FILTERED and {*others} <= {equal}:
            return {"equal": float(equal)}
        case ["words", path, analyzer, 1, *words] if (path, analyzer) == (TEXTED, ANALYZER):
            return {"words": tuple(words)}
        case ["phrase", path, analyzer, 0, *terms] if (path, analyzer) == (TEXTED, ANALYZER):
            if [position for position, _ in terms] == list(range(len(terms))):
                return {"phrase": tuple(term for _, term in terms)}
    raise ValueError(f"no filter of ours: {asked}")


def _plain_rows(changeset: Changeset) -> Iterator[PlainRow]:
    nothing = [None] * len(changeset)
    namespaces, data, metadata = (
        nothing if one is None else one.to_pylist()
        for one in (changeset.namespaces, changeset.data, changeset.metadata)
    )
    for place, name in enumerate(changeset.ids.to_pylist()):
        sparse = None
        if changeset.sparse is not None:
            indices, values = changeset.sparse.row(place)
            sparse = tuple(zip(indices.tolist(), values.tolist(), strict=True))
        given = metadata[place]
        yield PlainRow(
            id=name,
            namespace=namespaces[place],
            values=None if changeset.vectors is None else tuple(changeset.vectors[place].tolist()),
            sparse=sparse,
            data=data[place],
            metadata=None if given is None else orjson.loads(given),
        )
