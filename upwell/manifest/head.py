"""The newest manifest of one index, as cheaply as it can be known for certain.

``refresh`` is one look for version + 1 when nothing changed. Its answer was the newest version at some moment during the
call, which is what promise 3 (visible means visible everywhere) rests on: a status that said ``visible`` had seen a
version, versions are never taken back, and every later query refreshes.

A version can be seen a moment before it is on stable storage, and if its committer died or failed just then, long before. Queries
may run on it all the same. But ``durable`` is for whoever tells a client for good that something is visible, and for whoever deletes what
a version has made superfluous: after a power failure the version must still be there.
"""

from __future__ import annotations

import threading
from math import inf

from upwell.clock import Clock
from upwell.errors import NotFound
from upwell.manifest.chain import ManifestChain
from upwell.manifest.state import Manifest


class ManifestHead:
    """Keeps the newest manifest seen. Blocking; safe to share between threads."""

    def __init__(self, chain: ManifestChain, clock: Clock, grace_s: float) -> None:
        self.chain = chain
        self._clock = clock
        self._trust_s = grace_s / 2
        self._lock = threading.Lock()
        self._newest: Manifest | None = None
        #: When that was last known to be the newest: monotonic seconds, taken before the look.
        self._seen_at = -inf
        #: The newest version that is known to be on stable storage.
        self._durable_version = 0

    @property
    def seen(self) -> Manifest | None:
        """The newest manifest seen so far, without looking."""
        return self._newest

    def refresh(self) -> Manifest:
        """Look, and return the newest manifest. Raises NotFound, Unavailable or Corrupt."""
        with self._lock:
            while True:
                looked_at = self._clock.monotonic()
                known = self._newest
                # After a long sleep the versions after ours may be swept, so that asking for the next one proves nothing.
                stale = known is None or looked_at - self._seen_at > self._trust_s
                version = self.chain.newest_version(None if stale or known is None else known.version)
                if self._clock.monotonic() - (looked_at if stale else self._seen_at) > self._trust_s:
                    # The sleep was in the look itself.
                    continue
                if known is None or version > known.version:
                    try:
                        known = self._newest = self.chain.load(version)
                    except NotFound:
                        # Swept between the two looks, so there are later ones: list them.
                        self._seen_at = -inf
                        continue
                self._seen_at = looked_at
                return known

    def durable(self) -> Manifest:
        """The same as ``refresh``, and on stable storage. Raises NotFound, Unavailable or Corrupt."""
        manifest = self.refresh()
        if manifest.version > self._durable_version:
            self.chain.confirm(manifest.version)
            # Threads may come here in any order; to confirm a version once too often does no harm.
            self._durable_version = manifest.version
        return manifest
