"""From a store's address to the store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from upwell.errors import Invalid
from upwell.store.base import Store
from upwell.store.directory import DirectoryStore


def open_store(address: str | None, data: Path) -> Store:
    """Open ``file:///path``, or ``data/store`` when there is no address. Raises Invalid for a scheme we do not know."""
    if address is None:
        return DirectoryStore((data / "store").resolve())
    parts = urlsplit(address)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return DirectoryStore(Path(unquote(parts.path)))
    raise Invalid("the store's address must be file:///absolute/path", store=address)
