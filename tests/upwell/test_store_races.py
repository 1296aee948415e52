"""The directory store among other processes and threads: one winner, and no name that only somebody else made durable."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from upwell.errors import AlreadyExists, NotFound, Unavailable
from upwell.store import DirectoryStore
from upwell.store.disk import RealDisk

#: What a process does in the race: wait for the gate to open, then try each name once and say which it won.
RACER = """
import sys
from pathlib import Path
from upwell.errors import AlreadyExists
from upwell.store import DirectoryStore

store = DirectoryStore(Path(sys.argv[1]))
print("here", flush=True)
sys.stdin.readline()
for name in range(60):
    try:
        store.create(f"race/{name}", sys.argv[2].encode() * 2000)
    except AlreadyExists:
        continue
    print(name)
"""


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def synced(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> list[str]:
    """The folders that ``work`` syncs, relative to the store."""
    seen: list[str] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        target = Path(f"/proc/self/fd/{fd}").readlink()
        if target.is_dir():
            seen.append(os.path.relpath(target, store.root))
        fsync(fd)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", record)
        work()
    return seen


def test_between_processes_each_name_has_one_winner_and_its_bytes(store: DirectoryStore) -> None:
    arguments = [sys.executable, "-c", RACER, str(store.root)]
    racers = [
        subprocess.Popen([*arguments, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    won: dict[str, int] = {}
    try:
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "here\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for number, racer in enumerate(racers):
            names = racer.communicate(timeout=60)[0].split()
            assert racer.returncode == 0
            assert not won.keys() & set(names)
            won |= dict.fromkeys(names, number)
    finally:
        for racer in racers:
            racer.kill()
    assert won.keys() == {str(n) for n in range(60)}
    for name, number in won.items():
        assert bytes(store.read(f"race/{name}")) == str(number).encode() * 2000


def test_a_folder_that_another_made_is_synced_by_us_too(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have died between making the folder and syncing its name; what we acknowledge must not hang on that."""
    (store.root / "a" / "b").mkdir(parents=True)
    assert synced(store, monkeypatch, lambda: store.create("a/b/one", b"x")) == [".", "a", "a/b"]
    assert synced(store, monkeypatch, lambda: store.create("a/b/two", b"x")) == ["a/b"]


def test_two_processes_that_make_the_root_at_once_both_sync_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = DirectoryStore(tmp_path / "store")
    assert synced(first, monkeypatch, lambda: DirectoryStore(first.root)) == [".."]


def test_a_root_in_a_folder_that_is_closed_to_us_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    sync = RealDisk.sync_folder

    def closed_above(disk: RealDisk, path: Path) -> None:
        if not path.is_relative_to(root):
            raise PermissionError(13, "permission denied")
        sync(disk, path)

    monkeypatch.setattr(RealDisk, "sync_folder", closed_above)
    store = DirectoryStore(root)
    store.create("a/b", b"x")
    assert bytes(store.read("a/b")) == b"x"


def test_a_folder_whose_name_cannot_be_synced_is_tried_again(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", failing_disk)
        with pytest.raises(Unavailable, match="EIO"):
            store.create("new/name", b"x")
    assert not store.exists("new/name")
    assert synced(store, monkeypatch, lambda: store.create("new/name", b"x")) == [".", "new"]


def failing_disk(*_: Any) -> None:
    raise OSError(5, "input/output error")


def test_a_name_that_may_not_last_is_never_called_written(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is made and its folder's sync fails: the outcome is unknown, and what can be seen is whole."""
    store.create("there/before", b"x")
    sync = RealDisk.sync_folder

    def fail_after_the_link(disk: RealDisk, path: Path) -> None:
        if (store.root / "there" / "now").exists():
            failing_disk()
        sync(disk, path)

    with monkeypatch.context() as patch:
        patch.setattr(RealDisk, "sync_folder", fail_after_the_link)
        with pytest.raises(Unavailable):
            store.create("there/now", b"whole" * 1000)
        # Nor is it called somebody else's, from whom one could go on, before it is sure to last.
        with pytest.raises(Unavailable):
            store.create("there/now", b"y")
    assert bytes(store.read("there/now")) == b"whole" * 1000
    with pytest.raises(AlreadyExists):
        store.create("there/now", b"y")
    assert list((store.root / ".private").iterdir()) == []


def test_deleting_folders_does_not_disturb_those_who_make_others(store: DirectoryStore) -> None:
    """The set of known folders is shared by threads; walking it while it grows used to fail."""
    for number in range(300):
        store._known_folders.add(store.root / f"old{number}")
    over, failures = threading.Event(), []

    def make() -> None:
        number = 0
        while not over.is_set():
            number += 1
            store._known_folders.add(store.root / f"new{number % 100}")
            store._known_folders.discard(store.root / f"new{(number + 50) % 100}")

    maker = threading.Thread(target=make)
    maker.start()
    try:
        for _ in range(20):
            try:
                store.delete_folder("old1")
            except RuntimeError as error:
                failures.append(error)
    finally:
        over.set()
        maker.join()
    assert failures == []


def test_a_folder_that_was_deleted_is_made_again(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("index/one/log/1", b"x")
    store.delete_folder("index/one")
    store.delete_folder("index/one")
    again = synced(store, monkeypatch, lambda: store.create("index/one/log/1", b"y"))
    assert again == ["index", "index/one", "index/one/log"]


def test_a_folder_that_another_process_deleted_is_not_there(store: DirectoryStore) -> None:
    store.create("index/one/log/1", b"x")
    DirectoryStore(store.root).delete_folder("index/one")
    with pytest.raises(NotFound):
        store.create("index/one/log/2", b"y")
    assert list((store.root / ".private").iterdir()) == []
