"""Two collectors that delete the same folder at once: what the one has just deleted is no failure of the other's."""

from __future__ import annotations

import shutil
from pathlib import Path

from upwell.store import DirectoryStore
from upwell.store.disk import RealDisk


class RacedDisk(RealDisk):
    """Somebody else removes a file, or all, while we are at it."""

    def __init__(self, *gone_meanwhile: Path) -> None:
        super().__init__()
        self._gone = list(gone_meanwhile)

    def remove_tree(self, folder: Path) -> None:
        if self._gone:
            gone = self._gone.pop(0)
            shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
            raise FileNotFoundError(str(gone))
        super().remove_tree(folder)


def test_what_another_deletes_meanwhile_is_no_failure(tmp_path: Path) -> None:
    folder = tmp_path / "index" / "1"
    store = DirectoryStore(tmp_path, RacedDisk(folder / "log" / "2", folder / "log"))
    for number in range(4):
        store.create(f"index/1/log/{number}", b"entry")
    store.delete_folder("index/1")
    assert list(store.list("index")) == []


def test_a_folder_that_is_gone_before_we_come_to_it_is_no_failure(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, RacedDisk(tmp_path / "index" / "1"))
    store.create("index/1/record", b"record")
    store.delete_folder("index/1")
    store.delete_folder("index/1")
    assert list(store.list("index")) == []
