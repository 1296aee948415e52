"""Objects: written once, durably, whole or not at all, and known to be damaged when they are."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.dense import last_of
from upwell.errors import AlreadyExists, Corrupt, Invalid, NotFound, StoreFull, TooNew
from upwell.format import ALIGNMENT, VERSION, Kind, pack, unpack
from upwell.store import DirectoryStore, open_store
from upwell.store import disk as disk_module
from upwell.streamed import joined


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def names_left(store: DirectoryStore) -> list[str]:
    return [str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()]


def test_of_many_creates_of_one_name_exactly_one_wins(store: DirectoryStore) -> None:
    barrier = threading.Barrier(8)

    def create(writer: int) -> bool:
        barrier.wait()
        try:
            store.create("a/b", str(writer).encode() * 100_000)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            won = list(pool.map(create, range(8)))
            assert won.count(True) == 1
            content = bytes(store.read("a/b"))
            assert content == str(won.index(True)).encode() * 100_000
            store.delete("a/b")
    assert names_left(store) == []


def test_a_store_that_is_made_is_its_owners_alone_and_one_that_was_there_stays_as_it_is(
    store: DirectoryStore, tmp_path: Path
) -> None:
    assert store.root.stat().st_mode & 0o777 == 0o700
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o770)
    DirectoryStore(shared)
    assert shared.stat().st_mode & 0o777 == 0o770


def test_the_file_is_synced_before_its_name_and_its_folder_after(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def recording_fsync(fd: int) -> None:
        target = Path(f"/proc/self/fd/{fd}").readlink()
        steps.append("sync folder " + target.name if target.is_dir() else "sync file")
        fsync(fd)

    def recording_link(source: Any, target: Any, **how: Any) -> None:
        steps.append("link")
        link(source, target, **how)

    # Whether files can be made without a name is tried before the first.
    store.create("first", b"x")
    monkeypatch.setattr("os.fsync", recording_fsync)
    monkeypatch.setattr("os.link", recording_link)
    store.create("new/folder/name", b"x")
    # New folders are names in their parents, and as mortal as those.
    assert steps == ["sync folder store", "sync folder new", "sync file", "link", "sync folder folder"]
    steps.clear()
    store.create("new/folder/other", b"x")
    assert steps == ["sync file", "link", "sync folder folder"]


@pytest.mark.parametrize("failing", ["fsync", "writev", "link"])
def test_a_failing_disk_is_no_success_and_leaves_no_half(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store.create("there/before", b"x")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(f"os.{failing}", fail)
    with pytest.raises(StoreFull, match="ENOSPC"):
        store.create("there/now", b"y")
    monkeypatch.undo()
    assert names_left(store) == ["there/before"]
    store.create("there/now", b"y")


def test_what_is_read_stays_readable_after_it_is_deleted(store: DirectoryStore) -> None:
    store.create("gone/soon", b"still here" * 1000)
    data = store.read("gone/soon")
    store.delete("gone/soon")
    store.delete("gone/soon")
    assert bytes(data[:10]) == b"still here"
    with pytest.raises(NotFound):
        store.read("gone/soon")
    assert not store.exists("gone/soon")
    assert not store.exists("never/was")


def test_listing_is_in_order_after_a_name_and_without_private_files(store: DirectoryStore) -> None:
    for name in ("b", "a", "c/x"):
        store.create(f"folder/{name}", b"")
    assert list(store.list("folder")) == ["a", "b", "c"]
    assert list(store.list("folder", after="a")) == ["b", "c"]
    assert list(store.list("nowhere")) == []
    assert list(store.list("")) == ["folder"]
    assert bytes(store.read("folder/a")) == b""
    assert store.size_bytes("folder/b") == 0
    store.delete_folder("folder")
    assert list(store.list("")) == []
    store.create("folder/a", b"again")


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(store: DirectoryStore, key: str) -> None:
    with pytest.raises(Invalid):
        store.create(key, b"x")


def test_private_files_of_the_long_dead_are_removed_at_start(tmp_path: Path) -> None:
    private = DirectoryStore(tmp_path).root / ".private"
    for name, age_s in (("old", 2 * disk_module.STALE_PRIVATE_FILE_S), ("young", 60)):
        (private / name).write_bytes(b"x")
        then = (private / name).stat().st_mtime - age_s
        os.utime(private / name, (then, then))
    DirectoryStore(tmp_path)
    assert [path.name for path in private.iterdir()] == ["young"]


def test_many_parts_are_one_object(store: DirectoryStore) -> None:
    store.create("many", *(bytes([number % 256]) * 3 for number in range(5000)))
    assert store.size_bytes("many") == 15_000


@pytest.mark.parametrize("address", ["s3://bucket", "file://elsewhere/path", "/plain/path", "file://"])
def test_an_address_that_cannot_be_used_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(Invalid, match="file:///"):
        open_store(address, tmp_path)


@given(known=st.integers(0, 50), more=st.integers(0, 300))
def test_the_end_of_a_dense_numbering_is_found_from_anywhere(known: int, more: int) -> None:
    asked: list[int] = []

    def exists(number: int) -> bool:
        asked.append(number)
        return number <= known + more

    assert last_of(exists, known) == known + more
    assert more > 0 or asked == [known + 1]


CONTENT = st.lists(
    st.tuples(st.text(max_size=5), st.lists(st.binary(max_size=100), max_size=3)),
    max_size=4,
    unique_by=lambda one: one[0],
)


@given(meta=st.dictionaries(st.text(max_size=5), st.integers(0, 2**63)), sections=CONTENT)
def test_what_is_packed_is_unpacked_and_aligned(
    meta: dict[str, Any], sections: list[tuple[str, list[bytes]]]
) -> None:
    data = joined(pack(Kind.SEGMENT, meta, sections))
    box = unpack(memoryview(data), Kind.SEGMENT)
    assert box.meta == meta
    assert {name: bytes(box.section(name)) for name in box.sections} == {
        n: b"".join(parts) for n, parts in sections
    }
    assert all(section.offset % ALIGNMENT == 0 for section in box.sections.values())
    assert len(data) % ALIGNMENT == 0


@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    whole = bytearray(joined(pack(Kind.LOG_ENTRY, {"a": 1}, [("x", [b"hello" * 20]), ("y", [b"z"])])))
    box = unpack(memoryview(bytes(whole)), Kind.LOG_ENTRY)
    covered = [*range(24), *range(64, 64 + int.from_bytes(whole[12:16], "little"))]
    for section in box.sections.values():
        covered += range(section.offset, section.offset + section.length)
    place = data.draw(st.sampled_from(covered))
    whole[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Corrupt):
        read_all(bytes(whole))


def read_all(data: bytes) -> list[bytes]:
    box = unpack(memoryview(data), Kind.LOG_ENTRY)
    return [bytes(box.section(name)) for name in box.sections]


@given(length=st.integers(0, 227))
def test_a_cut_object_is_noticed(length: int) -> None:
    whole = joined(pack(Kind.LOG_ENTRY, {"a": 1}, [("x", [b"hello" * 20])]))
    # What follows is padding, which nothing reads.
    assert len(whole) == 256
    with pytest.raises(Corrupt):
        unpack(memoryview(whole[:length]), Kind.LOG_ENTRY).section("x")


def test_another_kind_and_a_newer_format_are_refused_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    data = joined(pack(Kind.TOKEN, {}))
    with pytest.raises(Corrupt, match="another kind"):
        unpack(memoryview(data), Kind.MANIFEST)
    with monkeypatch.context() as newer:
        newer.setitem(VERSION, Kind.TOKEN, VERSION[Kind.TOKEN] + 1)
        data = joined(pack(Kind.TOKEN, {}))
    with pytest.raises(TooNew, match="upgrade"):
        unpack(memoryview(data), Kind.TOKEN)
    damaged = bytearray(joined(pack(Kind.TOKEN, {})))
    damaged[10:12] = (VERSION[Kind.TOKEN] + 1).to_bytes(2, "little")
    with pytest.raises(Corrupt, match="prefix is damaged"):
        unpack(memoryview(bytes(damaged)), Kind.TOKEN)
    # An Upwell that wrote no checksum of the prefix: its format is all there is to go by.
    damaged[24:32] = bytes(8)
    with pytest.raises(TooNew, match="upgrade"):
        unpack(memoryview(bytes(damaged)), Kind.TOKEN)
