"""Fetching vectors by id from one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from upwell.changeset import KeyScope
from upwell.manifest import Namespaces
from upwell.shard.keys import hash_keys, keys_of, shard_of
from upwell.shard.segment import Segment
from upwell.shard.spaces import in_space
from upwell.shard.view import View


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A row of a segment; its columns are read when asked for. ``namespaces`` are those of the view that it was found in."""

    segment: Segment
    row: int
    namespaces: Namespaces

    @property
    def id(self) -> str:
        return str(self.segment.ids[self.row].as_py())

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """float32 (dimensions,), as the client sent them; of no dimensions in a sparse index."""
        return np.asarray(self.segment.take_vectors(np.array([self.row]))[0])

    @property
    def sparse(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None:
        """Indices and values, as the client sent them; None in an index without sparse vectors."""
        return None if self.segment.sparse is None else self.segment.sparse.row(self.row)

    @property
    def namespace(self) -> str | None:
        """The name of its namespace, None if it is in none."""
        column = self.segment.namespaces
        identity = None if column is None else column[self.row].as_py()
        return None if identity is None else self.namespaces.name(identity)

    @property
    def metadata(self) -> bytes | None:
        """A JSON object, as compact JSON."""
        column = self.segment.metadata
        return None if column is None else column[self.row].as_py()

    @property
    def data(self) -> str | None:
        """The text that it was sent with."""
        column = self.segment.data
        return None if column is None else column[self.row].as_py()

    @property
    def sequence(self) -> int:
        """Which row of its namespace it was, by the order of writing; 0 if it was written before that was kept."""
        return int(self.segment.sequence[self.row])


def lookup(
    view: View, ids: Sequence[str], namespace: str | None = None, *, within_namespace: bool = False
) -> list[Found]:
    """The vectors with the given ids that exist, in the order asked, each once.

    ``namespace`` (a name; None or "": none) counts where it is part of the key, and elsewhere only if ``within_namespace``:
    then a vector that lies in another one is left out.
    """
    identity = view.namespaces.called(namespace) if namespace else None
    wanted = list(dict.fromkeys(ids))
    column = pa.array(wanted, pa.utf8())
    keys = keys_of(column, pa.array([identity] * len(wanted), pa.utf8()), view.key_scope)
    hashes = hash_keys(keys)
    shard = shard_of(hashes, len(view.shards))
    elsewhere = within_namespace and view.key_scope is not KeyScope.NAMESPACE
    found: dict[int, Found] = {}
    for number, segments in enumerate(view.shards):
        places = np.flatnonzero(shard == number)
        its_keys, its_hashes = keys.take(pa.array(places)), hashes[places]
        for live in segments:
            asked, rows = live.find(its_keys, its_hashes, view.key_scope)
            if elsewhere:
                theirs = live.segment.namespaces
                taken = None if theirs is None else theirs.take(pa.array(rows))
                inside = in_space(taken, len(rows), identity or "")
                asked, rows = asked[inside], rows[inside]
            for place, row in zip(places[asked].tolist(), rows.tolist(), strict=True):
                found[place] = Found(live.segment, row, view.namespaces)
    return [found[place] for place in sorted(found)]
