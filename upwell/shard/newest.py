"""The newest view of an index: what every query runs on, and what every drain starts from."""

from __future__ import annotations

import threading

from upwell.errors import Corrupt, NotFound
from upwell.manifest import Manifest, ManifestHead
from upwell.shard.view import View, ViewOpener

#: A version can be swept between learning of it and opening it only if we sleep for the grace period; twice is a bug.
OPEN_TRIES = 3


class NewestView:
    """Opens the newest version, and keeps it open until there is a newer one. Blocking; safe to share between threads."""

    def __init__(self, head: ManifestHead, opener: ViewOpener) -> None:
        self.head = head
        self._opener = opener
        self._lock = threading.Lock()
        self._view: View | None = None

    def get(self) -> View:
        """The view of a version that was the newest at some moment during this call. Raises Corrupt also if something that the version
        names is missing, NotFound if all of the index is gone."""
        tried: int | None = None
        for left in reversed(range(OPEN_TRIES)):
            manifest = self.head.refresh()
            try:
                return self._open(manifest)
            except NotFound as error:
                if tried == manifest.version and self.head.chain.exists(manifest.version):
                    key = error.facts.get("key")
                    raise Corrupt("an object that the newest version names is missing", key=key) from error
                tried = manifest.version
                if left == 0:
                    raise
        raise AssertionError("unreachable")

    def _open(self, manifest: Manifest) -> View:
        view = self._view
        if view is not None and view.manifest.version >= manifest.version:
            return view
        with self._lock:
            if self._view is None or self._view.manifest.version < manifest.version:
                self._view = self._opener.open(manifest)
            return self._view
