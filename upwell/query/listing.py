"""Listing an index's ids page by page, as of one version: what is written or deleted meanwhile changes nothing of it.

A page's cursor says where the next one begins: version, shard, segment and row, and until when that version may be read. It is signed
with the index's secret, so that one that was changed, or belongs to another index, is known. Nothing is kept for a reader: what a
version names stays in the store for a grace period after a newer one (upwell/garbage.py), and a listing may take half of that.
Order is that of shards, segments and rows: stable within a version, and otherwise of no meaning.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from upwell.catalog.record import IndexRecord
from upwell.clock import Clock
from upwell.errors import Gone, Invalid, NotFound
from upwell.manifest import ManifestHead
from upwell.shard.view import View, ViewOpener
from upwell.store import Store

#: Versions kept open for those who read them.
VIEWS_KEPT = 4

_PLACE = struct.Struct(">QIIQQ")
_CHECK_BYTES = 12


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: of a version that may be read until ``expires_us`` (microseconds since 1970)."""

    version: int
    shard: int
    segment: int
    row: int
    expires_us: int

    @property
    def expires_at(self) -> datetime:
        """When the version must not be read any more."""
        return datetime.fromtimestamp(self.expires_us / 1_000_000, UTC)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of an index's ids; ``following`` is where the next page begins, None after the last one."""

    ids: list[str]
    total: int
    following: Place | None


def encode_cursor(secret: bytes, place: Place) -> str:
    """A cursor: url-safe, about 60 characters."""
    raw = _PLACE.pack(place.version, place.shard, place.segment, place.row, place.expires_us)
    return base64.urlsafe_b64encode(raw + _check(secret, raw)).rstrip(b"=").decode()


def decode_cursor(secret: bytes, cursor: str) -> Place:
    """The place that a cursor stands for. Raises Invalid unless this index gave it out."""
    try:
        data = base64.b64decode(
            cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        )
    except (UnicodeEncodeError, binascii.Error):
        raise Invalid("the cursor is not one of this index") from None
    raw, check = data[: _PLACE.size], data[_PLACE.size :]
    if len(raw) != _PLACE.size or not hmac.compare_digest(check, _check(secret, raw)):
        raise Invalid("the cursor is not one of this index")
    return Place(*_PLACE.unpack(raw))


def _check(secret: bytes, raw: bytes) -> bytes:
    return hashlib.blake2b(raw, key=secret, digest_size=_CHECK_BYTES, person=b"list").digest()


class PinnedViews:
    """Pages of one index. Blocking; safe to share between threads."""

    def __init__(
        self, store: Store, record: IndexRecord, head: ManifestHead, clock: Clock, grace_s: float
    ) -> None:
        self._store = store
        self._record = record
        self._head = head
        self._clock = clock
        self._lasts = timedelta(seconds=grace_s / 2)
        self._lock = threading.Lock()
        #: By version: until when somebody may read it, and the view.
        self._views: OrderedDict[int, tuple[int, View]] = OrderedDict()

    def begin(self) -> Place:
        """The place of the first page, of the newest version."""
        # Before the look, so that the version may be read for at least as long as it says.
        expires_at = self._clock.now() + self._lasts
        version = self._head.refresh().version
        return Place(version, 0, 0, 0, _microseconds(expires_at))

    def page(self, place: Place, count: int) -> Page:
        """At most ``count`` ids from ``place`` on. Raises Gone if its version must not be read any more."""
        if self._clock.now() >= place.expires_at:
            raise Gone("the cursor has expired; list again from the start")
        view = self._view(place)
        ids: list[str] = []
        shard, segment, row = place.shard, place.segment, place.row
        while shard < len(view.shards):
            while segment < len(view.shards[shard]):
                live = view.shards[shard][segment]
                rows = live.live_rows()
                taken = rows[np.searchsorted(rows, row) :][: count - len(ids)]
                ids += live.segment.ids.take(pa.array(taken)).to_pylist()
                if len(ids) == count:
                    following = Place(place.version, shard, segment, int(taken[-1]) + 1, place.expires_us)
                    return Page(ids, view.manifest.vectors, self._unless_over(view, following))
                segment, row = segment + 1, 0
            shard, segment = shard + 1, 0
        return Page(ids, view.manifest.vectors, None)

    def _unless_over(self, view: View, place: Place) -> Place | None:
        """``place``, or None if nothing comes after it."""
        rest = view.shards[place.shard][place.segment].live_rows()
        later = view.shards[place.shard][place.segment + 1 :]
        if (len(rest) and rest[-1] >= place.row) or later or any(view.shards[place.shard + 1 :]):
            return place
        return None

    def forget_expired(self) -> None:
        """Let go of versions that nobody may read any more: what they hold open stays on the disk for as long."""
        now_us = _microseconds(self._clock.now())
        with self._lock:
            for version in [version for version, (until_us, _) in self._views.items() if until_us <= now_us]:
                del self._views[version]

    def _view(self, place: Place) -> View:
        with self._lock:
            until_us, view = self._views.pop(place.version, (0, None))
        if view is None:
            try:
                view = ViewOpener(self._store, self._record).open(self._head.chain.load(place.version))
            except NotFound:
                raise Gone("the cursor's version is gone; list again from the start") from None
        with self._lock:
            self._views[place.version] = max(until_us, place.expires_us), view
            while len(self._views) > VIEWS_KEPT:
                self._views.popitem(last=False)
        return view


def _microseconds(when: datetime) -> int:
    return int(when.timestamp() * 1_000_000)
