"""Why mutations failed: the newest in the manifest itself, older ones in pages that it names.

A failure is told for as long as its index lives. So that a manifest does not grow with them, every FAILURES_INLINE_MAX failures
move to an object of their own, which is never changed. Ceiling: a million failures make a thousand pages, whose names are 150 KB.

    index/{id}/failures/{identity}   section "failures": JSON [Failure, …] in the log's order
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import orjson
from pydantic import TypeAdapter

from upwell.format import Box, Kind, pack
from upwell.ids import new_identity
from upwell.manifest.state import Failure, FailurePage, Manifest
from upwell.store import Store, create_own, read_object

#: Failures that a manifest holds itself. 250 of them are some 40 KB.
FAILURES_INLINE_MAX = 250
PAGES_CACHED = 16

_PAGE = TypeAdapter(tuple[Failure, ...])


class Failures:
    """The failures of one index. Blocking; safe to share between threads."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = f"{folder}/failures"
        self._lock = threading.Lock()
        self._pages: OrderedDict[str, tuple[Failure, ...]] = OrderedDict()

    def at(self, manifest: Manifest, position: int, place: int) -> Failure | None:
        """Why a mutation failed, as of ``manifest``; None if it did not. Raises Corrupt, NotFound if the version is long gone."""
        wanted = (position, place)
        for failures in (manifest.failures, self._page_around(manifest, wanted)):
            # The last one that begins no later.
            place_after = bisect_right(failures, wanted, key=_where)
            if place_after and failures[place_after - 1].covers(position, place):
                return failures[place_after - 1]
        return None

    def newest_first(self, manifest: Manifest, before: tuple[int, int] | None = None) -> Iterator[Failure]:
        """All failures of ``manifest`` that lie before a position and place."""
        yield from reversed(_older(manifest.failures, before))
        for page in reversed(manifest.failure_pages):
            if before is None or page.first < before:
                yield from reversed(_older(self._page(page.object), before))

    def added(
        self, before: Manifest, failures: Sequence[Failure]
    ) -> tuple[tuple[Failure, ...], tuple[FailurePage, ...]]:
        """The failures and pages of the manifest after ``before``, when ``failures`` come to it. Writes a page if it is time."""
        inline = (*before.failures, *failures)
        if len(inline) <= FAILURES_INLINE_MAX:
            return inline, before.failure_pages
        key = f"{self._folder}/{new_identity()}"
        create_own(self._store, key, *pack(Kind.FAILURES, {}, [("failures", [_PAGE.dump_json(inline)])]))
        page = FailurePage(object=key, first=_where(inline[0]), last=_where(inline[-1]), count=len(inline))
        return (), (*before.failure_pages, page)

    def _page_around(self, manifest: Manifest, wanted: tuple[int, int]) -> tuple[Failure, ...]:
        place_after = bisect_right(manifest.failure_pages, wanted, key=lambda page: page.first)
        # A page ends with the entry of its last failure: what lies behind is told without it, be it damaged or not.
        if place_after == 0 or wanted[0] > manifest.failure_pages[place_after - 1].last[0]:
            return ()
        return self._page(manifest.failure_pages[place_after - 1].object)

    def _page(self, key: str) -> tuple[Failure, ...]:
        with self._lock:
            page = self._pages.get(key)
        if page is None:
            page = failures_in(read_object(self._store, key, Kind.FAILURES))
            with self._lock:
                self._pages[key] = page
                while len(self._pages) > PAGES_CACHED:
                    self._pages.popitem(last=False)
        return page


def failures_in(box: Box) -> tuple[Failure, ...]:
    """What a page holds. Raises Corrupt."""
    with box.understood():
        return _PAGE.validate_python(orjson.loads(box.section("failures")))


def _where(failure: Failure) -> tuple[int, int]:
    return failure.position, failure.place


def _older(failures: tuple[Failure, ...], before: tuple[int, int] | None) -> tuple[Failure, ...]:
    return failures if before is None else failures[: bisect_left(failures, before, key=_where)]
