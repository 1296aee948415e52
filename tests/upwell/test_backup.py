"""Backups: consistent while everything goes on, verified while they are copied, and restored whole or not at all."""

from __future__ import annotations

import random
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.custody_house import DIMENSIONS, House, build, drained, engine_on, holds, keyed, one, questions
from tests.dict_store import DictStore
from tests.making import Client, HandClock, drain, insert, make_engine, make_index, upsert
from upwell.catalog.record import IndexRecord
from upwell.custody.archive import Archive, Contents, check_archive
from upwell.custody.backup import take_backup
from upwell.custody.check import check_store
from upwell.custody.restore import restore_backup
from upwell.engine import Engine, Index
from upwell.errors import Corrupt, Exists, NotFound, TooNew, Unavailable
from upwell.format import VERSION, Kind
from upwell.log.receipt import Receipt, mint
from upwell.outcome import State
from upwell.webhook import Ledger


@pytest.fixture(scope="module")
def house() -> House:
    return build()


@pytest.fixture
def backup(house: House, tmp_path: Path) -> Path:
    engine = engine_on(house.objects)
    return taken(engine, engine.find("default", "house"), tmp_path)[0]


def taken(engine: Engine, index: Index, to: Path, *, with_log: bool = True) -> tuple[Path, Contents]:
    return take_backup(engine.store, index.record, to, engine.clock, with_log=with_log)


def restored(path: Path, engine: Engine, name: str = "again", account: str | None = None) -> Index:
    restore_backup(
        path, engine.store, engine.catalog, engine.clock, engine.settings.grace_s, account=account, name=name
    )
    return engine.find(account or "default", name)


def test_a_restored_index_is_the_one_that_was_backed_up(house: House, backup: Path) -> None:
    source, engine = engine_on(house.objects), engine_on({})
    index, was = restored(backup, engine), source.find("default", "house")
    assert check_store(engine.store).clean
    for name in (
        "search by codes",
        "search exactly",
        "search a namespace",
        "search with a filter",
        "get by ids",
        "list",
        "notes",
    ):
        assert questions()[name](engine, index, house) == questions()[name](source, was, house), name
    assert index.notes.read() and index.record.row_schema is not None
    kept = ("id", "secret", "name", "created_at")
    assert index.record.model_dump(exclude=set(kept)) == was.record.model_dump(exclude=set(kept))
    assert index.record.id != was.record.id and index.record.secret != was.record.secret
    # What was acknowledged and not applied is applied now, in the same order and as often.
    assert drained(source, was, house)
    assert drain(engine, index) > 0
    assert holds(index) == holds(was)
    assert index.head.refresh().applied_through == was.head.refresh().applied_through
    assert check_store(engine.store).clean


def test_a_restored_index_takes_new_mutations_and_knows_none_of_the_old(house: House, backup: Path) -> None:
    engine = engine_on({})
    index = restored(backup, engine)
    for mutation_id in (*house.waiting, house.applied):
        with pytest.raises(NotFound):
            index.outcomes.of(mutation_id)
    (new,) = Client(index).append(upsert(("new", [1.0] * DIMENSIONS), dimensions=DIMENSIONS))
    drain(engine, index)
    assert index.outcomes.of(new).state is State.VISIBLE
    assert "new" in {row[0] for row in holds(index)}
    # Failures are kept, with what they were to do.
    (failed,) = index.outcomes.recent(50, state=State.FAILED)
    assert failed.receipt == Receipt(5, 0) and failed.error is not None
    (failure,) = index.head.refresh().failures
    assert failure.kept is not None and failure.kept.startswith(index.record.folder)
    assert engine.store.exists(failure.kept)
    assert Ledger(engine.store, index.record.folder).ids() == []


def test_without_its_log_a_backup_ends_with_what_is_applied(house: House, tmp_path: Path) -> None:
    source, engine = engine_on(house.objects), engine_on({})
    was = source.find("default", "house")
    path, contents = taken(source, was, tmp_path, with_log=False)
    index = restored(path, engine)
    assert contents.log_through == contents.applied_through == 6
    assert drain(engine, index) == 0
    assert holds(index) == holds(was)


def test_a_request_that_is_in_the_log_twice_counts_once_after_a_restore(tmp_path: Path) -> None:
    """The first copy is applied in the backup, and the second waits: what tells that it does not count must go along."""
    engine = engine_on({})
    index = make_index(engine)
    request = keyed(insert(("a", [1.0, 2.0])), "again")
    Client(index).writer.append([request])
    drain(engine, index)
    Client(index).append(upsert(("a", [3.0, 4.0])))
    drain(engine, index)
    Client(index).writer.append([keyed(upsert(("a", [1.0, 2.0])), "again")])
    path, contents = taken(engine, index, tmp_path)
    assert (contents.applied_through, contents.log_through) == (2, 3)
    other = engine_on({})
    again = restored(path, other)
    drain(other, again)
    drain(engine, index)
    assert holds(again) == holds(index)


def test_it_is_one_file_that_any_unzip_reads_and_nothing_else_is_left(house: House, backup: Path) -> None:
    assert [path.name for path in backup.parent.iterdir()] == ["default-house-v4-9.upwell"]
    with zipfile.ZipFile(backup) as zipped:
        assert zipped.testzip() is None
        names = zipped.namelist()
    assert names[-1] == "contents"
    assert all(house.objects[name] for name in names[:-1])
    with Archive(backup) as archive:
        assert sorted(archive.objects()) == sorted(names[:-1])
        assert archive.contents.vectors == 2_099
    report = check_archive(backup)
    assert report.clean and (report.indexes, report.vectors) == (1, 2_099)


def test_no_file_is_written_over_and_none_is_left_of_a_backup_that_failed(
    house: House, tmp_path: Path
) -> None:
    engine = engine_on(house.objects)
    index = engine.find("default", "house")
    file = tmp_path / "b.upwell"
    assert taken(engine, index, file)[0] == file
    before = file.read_bytes()
    with pytest.raises(Exists):
        taken(engine, index, file)
    assert file.read_bytes() == before
    key = next(key for key in house.objects if "/deletions/" in key)
    damaged = engine_on(house.objects | {key: house.objects[key][:-200]})
    with pytest.raises(Corrupt, match=key):
        taken(damaged, damaged.find("default", "house"), tmp_path / "c.upwell")
    with pytest.raises(Unavailable):
        taken(engine, index, tmp_path / "nowhere" / "c.upwell")
    assert [path.name for path in tmp_path.iterdir()] == ["b.upwell"]


def test_a_backup_that_is_damaged_anywhere_restores_nothing(backup: Path) -> None:
    """Every place may be hit; what no reader needs may be hit without harm, and then all is restored."""
    whole, random_ = backup.read_bytes(), random.Random(1)
    places = [0, 40, len(whole) - 1, len(whole) - 30, *random_.sample(range(len(whole)), 40)]
    damaged = [whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :] for place in places]
    damaged += [whole[:length] for length in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    refused = 0
    for data in damaged:
        backup.write_bytes(data)
        store = DictStore()
        engine = engine_on({})
        engine = Engine(store, engine.settings, engine.clock)
        try:
            index = restored(backup, engine)
        except (Corrupt, TooNew):
            assert store.objects == {}
            refused += 1
        else:
            assert len(holds(index)) == 2_099 and check_store(store).clean
    assert refused >= 40


def test_a_backup_of_a_newer_upwell_is_refused_with_words(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, engine = engine_on(house.objects), engine_on({})
    with monkeypatch.context() as newer:
        newer.setitem(VERSION, Kind.BACKUP, 9)
        path, _ = taken(source, source.find("default", "house"), tmp_path)
    with pytest.raises(TooNew, match="upgrade"):
        restored(path, engine)


def test_the_name_must_be_free_and_is_given_last(
    house: House, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_on(house.objects)
    with pytest.raises(Exists):
        restored(backup, engine, "house")
    store = engine.store
    assert isinstance(store, DictStore)
    assert store.objects == house.objects
    # Beside the one it was taken of, and in another account.
    assert holds(restored(backup, engine, "house", "elsewhere")) == holds(engine.find("default", "house"))

    def fail(*_: object) -> None:
        raise Unavailable("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete_folder", fail)
        patch.setattr(type(engine.catalog), "give_name", fail)
        with pytest.raises(Unavailable):
            restored(backup, engine, "third")
    with pytest.raises(NotFound):
        engine.find("default", "third")
    assert check_store(store).clean


class Slow(DictStore):
    """A store on which every object takes so long to write, by the clock that everybody has."""

    def __init__(self, clock: HandClock, each_s: float) -> None:
        super().__init__()
        self.clock, self.each_s = clock, each_s
        self.meanwhile: Callable[[], object] = lambda: None

    def create(self, key: str, *parts: object) -> None:
        super().create(key, *parts)  # type: ignore[arg-type]
        self.clock.pass_s(self.each_s)
        self.meanwhile()


@pytest.mark.parametrize(("each_s", "comes_to_be"), [(20.0, True), (200.0, False)])
def test_however_long_a_restore_takes_no_collector_takes_it_for_dead(
    backup: Path, each_s: float, comes_to_be: bool
) -> None:
    """It takes many grace periods in all. Only one that is silent for a whole one is given up, and then it is not there."""
    clock = HandClock()
    store = Slow(clock, each_s)
    settings = engine_on({}).settings
    engine, collector = Engine(store, settings, clock), Engine(store, settings, clock)
    store.meanwhile = collector.collect_dead_indexes
    if comes_to_be:
        index = restored(backup, engine)
        assert len(holds(index)) == 2_099
        assert not any("/restoring/" in key for key in store.objects)
        return
    with pytest.raises((Exists, NotFound)):
        restored(backup, engine)
    with pytest.raises(NotFound):
        engine.find("default", "again")


def test_a_backup_taken_amid_writes_merges_and_collections_is_of_one_version_and_has_all_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    """Each mutation writes its number to all ids at once: a backup must show one number in all, and none below what was acknowledged."""
    clock = HandClock()
    engine = make_engine(
        tmp_path / "data",
        clock=clock,
        grace_s=4.0,
        results_s=4.0,
        compaction_fanout=2,
        compaction_settle_s=0.0,
    )
    index = make_index(engine, "busy")
    stop, acknowledged = threading.Event(), [0]

    def write(client: Client, number: int) -> None:
        client.append(upsert(*((f"v{n}", [number, n]) for n in range(30))))
        acknowledged[0] = number

    def work() -> None:
        client, number = Client(index), 1
        while not stop.is_set():
            number += 1
            write(client, number)
            if number % 3 == 0:
                drain(engine, index)
                for shard in (0, 1):
                    engine.compact(index.record.id, shard)
                engine.collect_garbage(index.record.id)
            clock.pass_s(0.3)

    write(Client(index), 1)
    worker = threading.Thread(target=work)
    worker.start()
    backups: list[tuple[int, Path, Contents]] = []
    try:
        while len(backups) < 8:
            while backups and index.head.refresh().version == backups[-1][2].version:
                stop.wait(0.001)
            least = acknowledged[0]
            path, contents = taken(engine, index, tmp_path / f"{len(backups)}.upwell")
            backups.append((least, path, contents))
    finally:
        stop.set()
        worker.join(60)
    for number, (least, path, _) in enumerate(backups):
        again = restored(path, engine, f"r{number}")
        drain(engine, again)
        found = {row[1] for row in holds_numbers(again)}
        assert len(found) == 1 and found.pop() >= least
    assert len({contents.version for _, _, contents in backups}) > 3
    assert not any(each.severity == "error" for each in check_store(engine.store).findings)


def holds_numbers(index: Index) -> list[tuple[str, float]]:
    rows = [(row[0], float(np.frombuffer(row[1], np.float32)[0])) for row in holds(index)]
    assert len(rows) == 30
    return rows


class Vanishing(DictStore):
    """A store in which a segment is superseded and collected just before it is read, for so many times."""

    def __init__(self, objects: dict[str, bytes], supersede: Callable[[int], None], times: int) -> None:
        super().__init__()
        self.objects = objects
        self.supersede, self.times, self.done = supersede, times, 0

    def read(self, key: str) -> memoryview:
        if "/segment/" in key and self.done < self.times:
            self.done += 1
            self.supersede(self.done)
            del self.objects[key]
        return super().read(key)


def test_what_vanishes_while_it_is_copied_is_taken_from_a_newer_version(tmp_path: Path) -> None:
    """A copy slower than the grace period: collectors delete what it is about to copy."""
    engine = engine_on({})
    index = make_index(engine, shards=1)
    client, store = Client(index), engine.store
    assert isinstance(store, DictStore)

    def supersede(number: int) -> None:
        client.append(upsert(*((f"v{n}", [number, n]) for n in range(5))))
        drain(engine, index)

    supersede(0)
    for times in (2, 1_000):
        slow = Vanishing(store.objects, supersede, times)
        if times > 100:
            with pytest.raises(Unavailable, match="UPWELL_GRACE_S"):
                take_backup(slow, index.record, tmp_path / "never", engine.clock)
            assert not (tmp_path / "never").exists()
            return
        path, contents = take_backup(slow, index.record, tmp_path, engine.clock)
        assert slow.done == 2 and contents.version == index.head.refresh().version
        assert holds(restored(path, engine_on({}))) == holds(index)


def test_the_record_of_a_restored_index_signs_ids_of_its_own(backup: Path) -> None:
    engine = engine_on({})
    first, second = restored(backup, engine, "one"), restored(backup, engine, "two")
    records: list[IndexRecord] = [first.record, second.record]
    ids = {mint(record.receipt_key, Receipt(7, 0)) for record in records}
    assert len(ids) == 2
    Client(first).append(one("only-in-one", 1))
    drain(engine, first)
    assert "only-in-one" not in {row[0] for row in holds(second)}
