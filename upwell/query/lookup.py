"""Fetching vectors by id from one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from upwell.shard.keys import hash_keys, keys_of, shard_of
from upwell.shard.segment import Segment
from upwell.shard.view import View


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A row of a segment; its columns are read when asked for."""

    segment: Segment
    row: int

    @property
    def id(self) -> str:
        return str(self.segment.ids[self.row].as_py())

    @property
    def values(self) -> npt.NDArray[np.float32]:
        """float32 (dimensions,), as the client sent them."""
        return np.asarray(self.segment.take_vectors(np.array([self.row]))[0])

    @property
    def namespace(self) -> str | None:
        column = self.segment.namespaces
        return None if column is None else column[self.row].as_py()

    @property
    def metadata(self) -> bytes | None:
        """A JSON object, as compact JSON."""
        column = self.segment.metadata
        return None if column is None else column[self.row].as_py()


def lookup(view: View, ids: Sequence[str], namespace: str | None = None) -> list[Found]:
    """The vectors with the given ids that exist, in the order asked, each once. ``namespace`` counts only where it is part
    of the key."""
    wanted = list(dict.fromkeys(ids))
    column = pa.array(wanted, pa.utf8())
    keys = keys_of(column, pa.array([namespace] * len(wanted), pa.utf8()), view.record.key_scope)
    hashes = hash_keys(keys)
    shard = shard_of(hashes, len(view.shards))
    found: dict[int, Found] = {}
    for number, segments in enumerate(view.shards):
        places = np.flatnonzero(shard == number)
        its_keys, its_hashes = keys.take(pa.array(places)), hashes[places]
        for live in segments:
            asked, rows = live.find(its_keys, its_hashes, view.record)
            for place, row in zip(places[asked].tolist(), rows.tolist(), strict=True):
                found[place] = Found(live.segment, row)
    return [found[place] for place in sorted(found)]
