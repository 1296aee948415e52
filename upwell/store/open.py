"""From a store's address to the store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from upwell.errors import Invalid
from upwell.store.base import Store
from upwell.store.directory import DirectoryStore
from upwell.store.disk import RealDisk


class _Looking(RealDisk):
    """A disk that may be mounted read-only: opening a store on it changes nothing."""

    def open(self, root: Path) -> None:
        pass


def open_store(address: str | None, data: Path, *, to_look: bool = False) -> Store:
    """Open ``file:///path``, or ``data/store`` when there is no address. Raises Invalid for a scheme we do not know.

    One that is opened only ``to_look`` must be there, and is left as it is.
    """
    disk = _Looking() if to_look else None
    if address is None:
        return DirectoryStore((data / "store").resolve(), disk)
    parts = urlsplit(address)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return DirectoryStore(Path(unquote(parts.path)), disk)
    raise Invalid("the store's address must be file:///absolute/path", store=address)
