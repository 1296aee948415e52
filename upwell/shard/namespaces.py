"""What a batch does to an index's namespaces, decided in order before its rows are: who is there, what rows call it, which row comes after
which, and within what ids are unique.

From here on a batch's rows have the identities of their namespaces (manifest/namespaces.py) where they came with names. All this is
the same for everybody who reads the batch on the same view, so shards can be written by several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from upwell.changeset import Changeset, KeyScope, Operation, Selection
from upwell.manifest import Namespaces, NamespacesDraft
from upwell.shard.batch import Pending
from upwell.shard.rows import Sequenced
from upwell.shard.view import View


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A batch with the identities of its namespaces, and what is true of namespaces and keys after it.

    ``sequences``: for each mutation the numbers of its rows within their namespaces; None for one that brings no whole rows. Of an
    update that may add rows, each has one, and those that it adds use theirs.
    """

    batch: list[Pending]
    sequences: list[Sequenced | None]
    namespaces: Namespaces
    scope: KeyScope


def settle_namespaces(view: View, batch: Sequence[Pending]) -> Settled:
    """Decide a batch's namespaces, exactly as if its mutations were applied one after the other."""
    work = _Settling(view)
    settled, sequences = [], []
    for one in batch:
        done = work.settle(one)
        settled.append(done)
        sequences.append(work.number(done.changeset) if done.changeset is not None else None)
    return Settled(settled, sequences, work.namespaces.done(), work.scope)


class _Settling:
    """Namespaces, scope and numbers after the mutations settled so far."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.namespaces = NamespacesDraft(view.namespaces)
        self.scope = view.key_scope
        #: The last number given out, by identity; what is not here, the view knows.
        self._last: dict[str, int] = {}
        self._all_emptied = False
        if view.manifest.namespaces is None:
            # Rows of before there was a table: from now on it has their namespaces, as it has those of all others.
            for name in sorted(view.counts):
                self.namespaces.add(name, "")

    def settle(self, one: Pending) -> Pending:
        """One mutation, with identities, or failed."""
        changeset = one.changeset
        if changeset is None:
            return one
        if changeset.operation is Operation.RENAME_NAMESPACE:
            return self._rename(one, changeset)
        if changeset.operation.selects:
            return replace(one, changeset=self._select(changeset))
        return replace(one, changeset=self._with_identities(one, changeset))

    def _with_identities(self, one: Pending, changeset: Changeset) -> Changeset:
        if changeset.namespaces is None:
            return changeset
        if self.scope is KeyScope.OPEN and self._means_ids_alone(changeset):
            # Later in the batch it may be decided otherwise; here it means a row, and no row has a namespace yet.
            return replace(changeset, namespaces=None)
        encoded = changeset.namespaces.dictionary_encode()
        names = [name for name in encoded.dictionary.to_pylist() if name is not None]
        if changeset.brings_rows:
            if names and self.scope is KeyScope.OPEN:
                self.scope = changeset.details.scope
            for name in names:
                self.namespaces.add(name, _unlike(one))
        called = [self.namespaces.called(name) for name in names]
        if called == names:
            return changeset
        return replace(changeset, namespaces=pa.array(called, pa.utf8()).take(encoded.indices))

    def _means_ids_alone(self, changeset: Changeset) -> bool:
        return not changeset.brings_rows and changeset.details.scope is KeyScope.INDEX

    def _select(self, changeset: Changeset) -> Changeset:
        selection = changeset.details.selection
        assert selection is not None
        name = selection.namespace
        identity = None if name is None else self.namespaces.called(name)
        if changeset.operation is not Operation.DELETE_MATCHING:
            self._emptied(identity)
        if changeset.operation is Operation.DELETE_NAMESPACE and name:
            self.namespaces.remove(name)
        return _selecting(changeset, selection.model_copy(update={"namespace": identity}))

    def _rename(self, one: Pending, changeset: Changeset) -> Pending:
        """A mutation that removes what has the new name already, if that is wished and there is something; else it has nothing to do."""
        rename = changeset.details.rename
        assert rename is not None
        old, new = rename.namespace, rename.new_namespace
        if not (old and new):
            return replace(one, changeset=None, error="Rows without a namespace keep to themselves")
        if old not in self.namespaces:
            return replace(one, changeset=None, error=f"Namespace {old} does not exist")
        if old == new:
            return one
        if new not in self.namespaces:
            self.namespaces.rename(old, new)
            return one
        if not rename.delete_existing:
            return replace(one, changeset=None, error=f"Namespace {new} exists already")
        replaced = self.namespaces.called(new)
        self._emptied(replaced)
        self.namespaces.remove(new)
        self.namespaces.rename(old, new)
        return replace(one, changeset=_selecting(changeset, Selection(namespace=replaced)))

    def _emptied(self, identity: str | None) -> None:
        """All rows of a namespace, or of all, are gone: the next one is the first."""
        if identity is None:
            self._all_emptied = True
            self._last.clear()
        else:
            self._last[identity] = 0

    def number(self, changeset: Changeset) -> Sequenced | None:
        """The numbers of a changeset's rows, if it brings any; they are given out with this."""
        if not changeset.brings_rows:
            return None
        rows = len(changeset)
        if changeset.namespaces is None:
            return np.asarray(self._next("", rows) + np.arange(1, rows + 1, dtype=np.uint64))
        encoded = pc.fill_null(changeset.namespaces, "").dictionary_encode()
        codes = encoded.indices.to_numpy().astype(np.int64)
        counts = np.bincount(codes, minlength=len(encoded.dictionary))
        order = np.argsort(codes, kind="stable")
        within = np.empty(rows, np.uint64)
        within[order] = np.arange(rows) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        names = encoded.dictionary.to_pylist()
        first = [self._next(name, count) for name, count in zip(names, counts.tolist(), strict=True)]
        return np.asarray(within + np.array(first, np.uint64)[codes])

    def _next(self, identity: str, rows: int) -> np.uint64:
        """The last number given out in a namespace, before ``rows`` more are."""
        last = self._last.get(identity)
        if last is None:
            last = 0
            if not self._all_emptied:
                last = max((live.last_sequence(identity) for live in self._view.segments()), default=0)
        self._last[identity] = last + rows
        return np.uint64(last)


def _selecting(changeset: Changeset, selection: Selection) -> Changeset:
    """A mutation that removes what ``selection`` describes, by its identity."""
    return Changeset(
        operation=Operation.DELETE_MATCHING,
        ids=changeset.ids,
        received=changeset.received,
        details=changeset.details.model_copy(update={"selection": selection, "rename": None}),
    )


def _unlike(one: Pending) -> str:
    return f"{one.position}-{one.place}"
