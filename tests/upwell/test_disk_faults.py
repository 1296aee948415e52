"""A disk that fails: full, broken, read-only, short of descriptors, at any call. Nothing is acknowledged that is not there, nothing is left
lying about, and all goes on when the disk does, without a restart.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.house import House
from tests.making import prepared, upsert
from tests.simulated_disk import Fault, SimulatedDisk
from upwell.errors import AlreadyExists, StoreFull, Unavailable
from upwell.store import DirectoryStore
from upwell.store import disk as disk_module
from upwell.store.disk import RealDisk

#: What each call of a disk may say, and EIO. A fault that comes after the deed is done is one whose answer was lost.
FAULTS: dict[str, tuple[Fault, ...]] = {
    "new_file": (Fault(errno.EMFILE), Fault(errno.ENOSPC), Fault(errno.EROFS), Fault(errno.EDQUOT)),
    "write": (Fault(errno.ENOSPC), Fault(errno.EDQUOT), Fault(takes=1), Fault(takes=1000), Fault(errno.EIO, after=True)),
    "sync": (Fault(errno.ENOSPC), Fault(errno.EDQUOT), Fault(errno.EIO)),
    "link": (Fault(errno.ENOSPC), Fault(errno.EROFS), Fault(errno.EIO, after=True)),
    "sync_folder": (Fault(errno.EMFILE), Fault(errno.ENOSPC), Fault(errno.EIO, after=True)),
    "make_folder": (Fault(errno.ENOSPC), Fault(errno.EROFS), Fault(errno.EIO, after=True)),
    "unlink": (Fault(errno.EROFS), Fault(errno.EIO, after=True)),
    "remove_folder": (Fault(errno.ENOTEMPTY), Fault(errno.EROFS)),
    "read": (Fault(errno.EMFILE),),
    "names": (Fault(errno.EMFILE),),
}  # fmt: skip


def faults_of(call: str) -> tuple[Fault, ...]:
    return (*FAULTS.get(call, ()), Fault(errno.EIO))


@pytest.fixture(autouse=True)
def same_identities(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = random.Random(7)
    monkeypatch.setattr("secrets.token_hex", lambda nbytes=16: ids.randbytes(nbytes).hex())


def lived(seed: int, actions: int, first: int, last: int, which: int) -> House:
    """A house whose disk failed from one call to another."""
    disk = SimulatedDisk()
    house = House(disk, random.Random(seed), nested=0.02)

    def fault(number: int, call: str) -> Fault | None:
        if not first <= number <= last:
            return None
        choices = faults_of(call)
        return choices[(number + which) % len(choices)]

    disk.fault = fault
    house.live(actions)
    disk.hook = disk.fault = None
    return house


def check(house: House, *, lives_on: bool) -> None:
    """Everything promised is there: for whoever goes on, and if the power fails now."""
    assert house.disk.open_files == set()
    for survive in (0.0, 0.5):
        left = house.disk.after_power_loss(house.now, random.Random(house.now), survive)
        house.check(left, house.now, lives_on=False)
    # Without a restart: the processes that met the fault write, apply and merge.
    for process in house.processes:
        house.send(process, upsert(("after", (1, 1))))
        while process.engine.apply_batch(house.main.id, lambda: True) is not None:
            pass
    house.check(house.disk, house.now, lives_on=lives_on)


def calls_of(seed: int, actions: int) -> tuple[int, int]:
    """From when to when a life on a sound disk makes calls."""
    disk = SimulatedDisk()
    house = House(disk, random.Random(seed), nested=0.02)
    first = disk.calls
    house.live(actions)
    return first, disk.calls


def test_a_fault_at_any_call_loses_nothing_and_is_over_when_it_is_over() -> None:
    first, last = calls_of(5, 14)
    refused = 0
    for number in range(first, last, 5):
        house = lived(5, 14, number, number, number // 7)
        refused += house.refused
        check(house, lives_on=number % 25 == 0)
    assert refused > (last - first) / 20


def test_a_disk_that_is_full_or_broken_for_a_while() -> None:
    first, last = calls_of(6, 30)
    for number in range(first, last, 200):
        house = lived(6, 30, number, number + 80, number)
        check(house, lives_on=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("seed", range(2))
def test_every_fault_at_any_call(seed: int, which: int) -> None:
    first, last = calls_of(seed, 20)
    for number in range(first + which % 3, last, 3):
        check(lived(seed, 20, number, number, which), lives_on=number % 25 == 0)


def test_a_file_whose_sync_failed_is_never_asked_again() -> None:
    """What the system could not write it may have forgotten, and a second fsync says that all is well (the disk here does so)."""
    disk = SimulatedDisk()
    store = DirectoryStore(Path("/store"), disk)
    store.create("a/first", b"x")
    faults = iter([Fault(errno.EIO)])
    disk.fault = lambda _, call: next(faults, None) if call == "sync" else None
    with pytest.raises(Unavailable):
        store.create("a/b", b"x" * 1000)
    assert not store.exists("a/b")
    store.create("a/b", b"x" * 1000)
    left = DirectoryStore(Path("/store"), disk.after_power_loss(len(disk.journal), random.Random(1), 0.0))
    assert bytes(left.read("a/b")) == b"x" * 1000


def test_an_entry_whose_name_was_not_synced_lasts_as_soon_as_one_behind_it_does() -> None:
    """The append failed at the folder's sync, and its outcome is unknown; the next goes behind it, and is promised."""
    disk = SimulatedDisk()
    house = House(disk, random.Random(1), nested=0)
    process = house.processes[0]
    writer = process.index().log_writer()
    writer.append([prepared(upsert(("before", (1, 1))))])
    disk.fault = lambda _, call: Fault(errno.EIO) if call == "sync_folder" else None
    with pytest.raises(Unavailable):
        writer.append([prepared(upsert(("unknown", (2, 2))))])
    disk.fault = None
    assert process.index().log.exists(2)
    assert writer.append([prepared(upsert(("after", (3, 3))))]) == 3
    left = disk.after_power_loss(house.now, random.Random(1), 0.0)
    store = DirectoryStore(Path("/store"), left)
    assert len(list(store.list(f"{house.main.folder}/log"))) == 3


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EROFS, Unavailable)]
)
def test_a_full_disk_is_called_full(number: int, kind: type[Unavailable]) -> None:
    disk = SimulatedDisk()
    store = DirectoryStore(Path("/store"), disk)
    for call in ("new_file", "write", "sync", "link", "make_folder"):
        disk.fault = lambda _, name, call=call: Fault(number) if name == call else None
        with pytest.raises(Unavailable, match=errno.errorcode[number]) as caught:
            store.create(f"{call}/b", b"x")
        assert type(caught.value) is kind
    disk.fault = None
    assert [path for path, _ in disk.walk()] == []


# The real disk.


@pytest.fixture(params=["nameless", "private"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DirectoryStore:
    return opened(tmp_path / "store", request.param)


def opened(root: Path, sort: str) -> DirectoryStore:
    """A store whose files have no names until they are whole, or private ones."""
    disk = RealDisk()
    if sort == "private":
        disk._nameless = False
    return DirectoryStore(root, disk)


def files(store: DirectoryStore) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


@pytest.mark.parametrize("failing", ["open", "writev", "fsync", "link"])
def test_neither_files_nor_descriptors_are_left(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    store.create("there/before", b"x")
    real = getattr(os, failing)
    for nth in range(4):
        asked, before = [0], len(descriptors())

        def fail(*what: Any, asked: list[int] = asked, nth: int = nth, **how: Any) -> Any:
            asked[0] += 1
            if asked[0] == nth + 1:
                raise OSError(errno.EIO, "input/output error")
            return real(*what, **how)

        with monkeypatch.context() as patch:
            patch.setattr(os, failing, fail)
            try:
                store.create(f"there/{failing}{nth}", b"y" * 10_000)
            except Unavailable:
                assert asked[0] > nth
        assert len(descriptors()) == before
    assert not [name for name in files(store) if ".private" in name]
    for name in files(store):
        assert bytes(store.read(name)) in (b"x", b"y" * 10_000)


def test_short_writes_are_gone_on_with(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, views: real(fd, [views[0][:777]]))
    content = os.urandom(50_000)
    store.create("a/b", content[:10], content[10:30_000], b"", content[30_000:])
    assert bytes(store.read("a/b")) == content


def test_without_descriptors_nothing_happens_and_then_all_goes_on(store: DirectoryStore) -> None:
    store.create("a/b", b"x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, descriptors())) + 1, hard))
    taken = []
    try:
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        for call in (
            lambda: store.create("a/c", b"y"),
            lambda: store.read("a/b"),
            lambda: list(store.list("a")),
        ):
            with pytest.raises(Unavailable, match="EMFILE"):
                call()
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert files(store) == ["a/b"]
    store.create("a/c", b"y")


#: A writer that begins an object and is killed before it is linked.
KILLED = """
import os, signal, sys
from pathlib import Path
from upwell.store import DirectoryStore
from upwell.store.disk import RealDisk

disk = RealDisk()
if sys.argv[2] == "private":
    disk._nameless = False
store = DirectoryStore(Path(sys.argv[1]), disk)
store.create("a/first", b"x")
def writing(fd):
    print("here", flush=True)
    signal.pause()
os.fsync = writing
store.create("a/never", b"y" * 100_000)
"""


@pytest.mark.parametrize("sort", ["nameless", "private"])
def test_a_killed_writer_leaves_nothing_for_long_and_a_living_one_is_let_be(
    tmp_path: Path, sort: str
) -> None:
    root = tmp_path / "store"
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root), sort], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None and writer.stdout.readline() == "here\n"
        private = 1 if sort == "private" else 0
        store = opened(root, sort)
        assert len(files(store)) == 1 + private, (
            "a living writer's file was taken away, or one is there too many"
        )
        writer.kill()
        writer.wait(10)
        assert len(files(store)) == 1 + private
        assert files(opened(root, sort)) == ["a/first"]
    finally:
        writer.kill()
        writer.communicate()


def test_a_private_file_that_was_tidied_up_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path, "private")
    real = fcntl.flock
    tidied: list[bool] = []

    def late(fd: int, how: int) -> None:
        if not tidied and how == fcntl.LOCK_EX:
            tidied.append(True)
            disk_module._remove_leftovers(tmp_path / ".private")
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    store.create("a/b", b"x")
    assert tidied and files(store) == ["a/b"]


def test_without_locks_and_by_older_upwells_a_private_file_is_kept_for_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = opened(tmp_path, "private").root / ".private"
    (private / "0123456789abcdef01234567").write_bytes(b"an older Upwell's")
    (private / "locked-0").write_bytes(b"of a system without locks")

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    opened(tmp_path, "private")
    assert len(list(private.iterdir())) == 2


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT])
def test_a_file_system_without_nameless_files_gets_private_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.open

    def refusing(path: Any, flags: int, *mode: Any, **how: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *mode, **how)

    monkeypatch.setattr(os, "open", refusing)
    store = DirectoryStore(tmp_path)
    store.create("a/b", b"x")
    with pytest.raises(AlreadyExists):
        store.create("a/b", b"y")
    assert files(store) == ["a/b"]


def test_a_full_disk_at_the_first_write_is_no_reason_to_do_without_nameless_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk()
    store = DirectoryStore(tmp_path, disk)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(StoreFull):
            store.create("a/b", b"x")
    assert disk._nameless is None
    store.create("a/b", b"x")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


#: A reader of an object that somebody cuts short while it is mapped.
CUT_SHORT = """
import os, sys
from pathlib import Path
from upwell.store import DirectoryStore

store = DirectoryStore(Path(sys.argv[1]))
store.create("a/b", b"x" * 100_000)
data = store.read("a/b")
os.truncate(store.root / "a" / "b", 10)
print(bytes(data[50_000:50_010]))
"""


def test_a_file_that_is_cut_short_while_it_is_mapped_ends_the_process(tmp_path: Path) -> None:
    """No promise, but a fact to be known: it is the same for a mapped page that the disk cannot read. Nothing of ours cuts files short."""
    reader = subprocess.run(
        [sys.executable, "-c", CUT_SHORT, str(tmp_path)], capture_output=True, timeout=60, check=False
    )
    assert reader.returncode == -signal.SIGBUS
