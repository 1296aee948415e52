"""The check of a store: it finds what is damaged, missing or untrue, names it, and says what that means; and nothing where nothing is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.custody_house import DIMENSIONS, House, build, engine_on, one
from tests.dict_store import DictStore, objects_in
from tests.making import Client, HandClock, contents, delete, drain, make_engine, make_index, upsert
from upwell.custody.check import check_store
from upwell.custody.findings import Finding, Report, Severity
from upwell.engine import Engine, Index
from upwell.errors import NotFound, Unavailable
from upwell.format import VERSION, Kind, pack
from upwell.manifest import ManifestChain, SegmentRef, ShardState
from upwell.shard.rows import SegmentRows
from upwell.shard.segment import encode_segment
from upwell.shard.vectors import Vectors
from upwell.shard.view import segment_key
from upwell.streamed import joined

NAME = "default/house"


@pytest.fixture(scope="module")
def house() -> House:
    return build()


def checked(objects: dict[str, bytes], **how: bool) -> Report:
    return check_store(DictStore(objects), **how)  # type: ignore[arg-type]


def problems(report: Report) -> list[Finding]:
    """What is more than a note."""
    return [one for one in report.findings if one.severity is not Severity.NOTE]


def named(house: House, kind: str) -> list[str]:
    """The objects of a kind in the house's index."""
    return [key for key in house.objects if key.startswith(f"{house.folder}/{kind}")]


def test_a_store_that_is_well_is_clean_and_all_of_it_was_read(house: House) -> None:
    report = checked(house.objects)
    assert problems(report) == [] and report.clean
    assert (report.indexes, report.vectors) == (1, 2_099)
    # Folded into another one, and superseded; not collected yet.
    segments, notes = sorted(report.findings, key=lambda one: one.key, reverse=True)
    assert (segments.key, segments.index) == (f"{house.folder}/segment", NAME)
    assert "1 objects" in segments.problem
    assert (notes.key, notes.index) == (f"{house.folder}/notes", NAME)
    assert "2 objects" in notes.problem
    own = [key for key in house.objects if not key.startswith("catalog/") and "/manifest/" not in key]
    assert report.objects == len(own)
    assert report.nbytes == sum(len(house.objects[key]) for key in own)


def test_a_bit_flipped_in_any_object_is_found_and_named(house: House) -> None:
    for key, data in house.objects.items():
        for place in (3, 40, 70, len(data) - 1):
            damaged = bytearray(data)
            damaged[place] ^= 8
            report = checked(house.objects | {key: bytes(damaged)})
            found = problems(report)
            if found:
                assert {one.key for one in found} == {key}
                assert all(one.problem and one.meaning and one.remedy for one in found)
                assert not report.clean
            else:
                # What no reader looks at is looked at only where there is much of it.
                assert place not in {3, 70}, key
                assert key.startswith(("catalog/", "token/", "database/")) or "/manifest/" in key


def test_a_flip_between_sections_is_a_warning_about_the_disk(house: House) -> None:
    key = named(house, "deletions")[0]
    damaged = bytearray(house.objects[key])
    damaged[-1] ^= 1
    (found,) = problems(checked(house.objects | {key: bytes(damaged)}))
    assert found.severity is Severity.WARNING and "zero" in found.problem and "disk" in found.remedy
    assert problems(checked(house.objects | {key: bytes(damaged)}, quick=True)) == []


def test_only_a_whole_look_finds_what_is_wrong_inside(house: House) -> None:
    key = max(named(house, "segment"), key=lambda each: len(house.objects[each]))
    damaged = bytearray(house.objects[key])
    damaged[len(damaged) // 2] ^= 1
    objects = house.objects | {key: bytes(damaged)}
    assert problems(checked(objects, quick=True)) == []
    (found,) = problems(checked(objects))
    assert (found.severity, found.key, found.index) == (Severity.ERROR, key, NAME)
    assert "backup" in found.remedy


@pytest.mark.parametrize(
    "kind", ["record", "segment", "deletions", "namespaces", "payload", "log/00000000000000000008"]
)
def test_what_the_newest_version_needs_is_missed(house: House, kind: str) -> None:
    needed = named(house, kind)
    if kind == "segment":
        index = engine_on(house.objects).find("default", "house")
        needed = [segment_key(house.folder, ref.id) for ref in index.head.refresh().segments()]
    for key in needed:
        found = problems(checked({name: data for name, data in house.objects.items() if name != key}))
        assert [(each.severity, each.key) for each in found] == [(Severity.ERROR, key)]


def test_what_is_applied_or_superseded_is_not_missed(house: House) -> None:
    gone = {f"{house.folder}/manifest/{number:020d}" for number in (1, 2)}
    assert checked({key: data for key, data in house.objects.items() if key not in gone}).clean


def test_a_damaged_older_version_is_no_error_and_a_damaged_newest_one_is(house: House) -> None:
    for number, severity in ((2, Severity.WARNING), (4, Severity.ERROR)):
        key = f"{house.folder}/manifest/{number:020d}"
        (found,) = problems(checked(house.objects | {key: house.objects[key][:-100]}))
        assert (found.severity, found.key) == (severity, key)


def test_a_newer_format_is_told_as_such(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"{house.folder}/request/{house.request}"
    with monkeypatch.context() as newer:
        newer.setitem(VERSION, Kind.REQUEST, 99)
        data = joined(pack(Kind.REQUEST, {}))
    (found,) = problems(checked(house.objects | {key: data}))
    assert found.key == key and "format 99" in found.problem and found.remedy == "upgrade Upwell"


def test_objects_of_no_known_name_and_indexes_without_one_are_noted(house: House) -> None:
    more = {"readme": b"x", f"{house.folder}/odd/thing": b"x", "index/0123/record": b"x", "revoked/abc": b""}
    more["revoked/abc"] = joined(pack(Kind.TOKEN, {}))
    report = checked(house.objects | more)
    assert report.clean
    assert {each.key for each in report.findings} > {
        "readme",
        f"{house.folder}/odd/thing",
        "index/0123",
        "revoked/abc",
    }


def test_a_name_given_twice_is_found(house: House) -> None:
    event = "catalog/default/house/00000000000000000004"
    data = joined(pack(Kind.CATALOG_EVENT, {"event": "created", "index": "0" * 32, "at": ""}))
    found = problems(checked(house.objects | {event: data}))
    assert any(each.key == event and "another had it" in each.problem for each in found)


def test_what_a_renamer_left_half_done_and_databases_that_cannot_be_read_are_told(house: House) -> None:
    engine = engine_on(house.objects)
    assert isinstance(engine.store, DictStore)
    taken = engine.catalog._events.take_away

    def dies(*_: object) -> None:
        raise Unavailable("it died")

    engine.catalog._events.take_away = dies  # type: ignore[assignment, method-assign]
    with pytest.raises(Unavailable):
        engine.rename("default", "house", "again")
    engine.catalog._events.take_away = taken  # type: ignore[method-assign]
    report = checked(engine.store.objects)
    (told,) = [one for one in report.findings if one.key.startswith("catalog/")]
    assert "as well" in told.problem and report.clean and report.indexes == 1
    key = next(key for key in house.objects if key.startswith("database/empty/"))
    moved = house.objects | {key.replace("empty", "other"): house.objects[key]}
    (error,) = problems(checked(moved))
    assert (error.severity, error.problem) == (Severity.ERROR, "it is of another database")


def test_only_one_index_can_be_asked_about(house: House) -> None:
    report = check_store(DictStore(house.objects), only=("default", "house"))
    assert report.clean and report.indexes == 1
    with pytest.raises(NotFound):
        check_store(DictStore(house.objects), only=("default", "nobody"))


# What no damaged disk does, but a fault of ours could: objects that are whole, and untrue.


@pytest.fixture
def engine() -> Engine:
    return engine_on({})


def lying(engine: Engine, segments: list[list[SegmentRef]], index: Index) -> Report:
    """The check of an index whose next version has these segments in its shards."""
    manifest = index.head.refresh()
    shards = tuple(ShardState(segments=tuple(refs)) for refs in segments)
    after = manifest.model_copy(update={"version": manifest.version + 1, "shards": shards})
    ManifestChain(engine.store, index.record.folder, engine.clock, 60.0).adopt(after)
    return check_store(engine.store)


def written(engine: Engine, index: Index, *ids: str, hashes_of: tuple[str, ...] = ()) -> SegmentRef:
    """A segment of these vectors."""
    rows = SegmentRows(
        pa.array(ids),
        Vectors.of(np.ones((len(ids), 2), np.float32)),
        None,
        None,
        np.zeros(len(ids), np.uint64),
        np.arange(1, len(ids) + 1, dtype=np.uint64),
    )
    encoded = encode_segment(
        f"{len(ids)}{hash(ids) & 0xFFFF:04x}" * 4, rows, index.record.metric, index.record.key_scope
    )
    engine.store.create(segment_key(index.record.folder, encoded.ref.id), *encoded.parts)
    return encoded.ref


def test_a_vector_that_is_alive_twice_is_found(engine: Engine) -> None:
    index = make_index(engine, shards=1)
    first, second = written(engine, index, "a", "b"), written(engine, index, "b", "c", "d")
    found = problems(lying(engine, [[first, second]], index))
    twice = [each for each in found if "alive here and in" in each.problem]
    assert len(twice) == 1 and "'b'" in twice[0].problem and first.id in twice[0].problem
    assert twice[0].key.endswith(second.id) and twice[0].severity is Severity.ERROR


def test_vectors_in_the_wrong_shard_are_found(engine: Engine) -> None:
    index = make_index(engine, shards=2)
    ref = written(engine, index, *(f"v{n}" for n in range(50)))
    assert any("another shard" in each.problem for each in problems(lying(engine, [[ref], []], index)))


def test_a_version_that_does_not_follow_from_the_one_before_is_found(engine: Engine) -> None:
    index = make_index(engine, shards=1)
    ref = written(engine, index, "a")
    found = [each.problem for each in problems(lying(engine, [[ref]], index))]
    assert found == [
        "it does not follow from the version before: only the log changes what there is does not hold"
    ]


def test_a_count_of_deleted_rows_that_is_wrong_is_found(engine: Engine) -> None:
    index = make_index(engine, shards=1)
    Client(index).append(upsert(*((f"v{n}", [n, n]) for n in range(20))))
    drain(engine, index)
    Client(index).append(delete("v1", "v2"))
    drain(engine, index)
    (ref,) = index.head.refresh().segments()
    assert ref.deletions is not None
    lie = ref.model_copy(update={"deletions": ref.deletions.model_copy(update={"count": 3})})
    found = problems(lying(engine, [[lie]], index))
    assert any("does not fit its segment" in each.problem for each in found)


class Superseded(DictStore):
    """A store whose index is superseded, and its old segments collected, just before they are listed."""

    def __init__(self, objects: dict[str, bytes], supersede: Callable[[], None]) -> None:
        super().__init__()
        self.objects = objects
        self.supersede, self.done = supersede, False

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        if folder.endswith("/segment") and not self.done:
            self.done = True
            old = [key for key in self.objects if key.startswith(folder)]
            self.supersede()
            for key in old:
                del self.objects[key]
        return super().list(folder, after=after)


def test_what_a_newer_version_does_without_is_not_missed(engine: Engine) -> None:
    index, store = make_index(engine, shards=1), engine.store
    assert isinstance(store, DictStore)

    def supersede() -> None:
        Client(index).append(upsert(("a", [1.0, 2.0]), ("b", [1.0, 2.0])))
        drain(engine, index)

    supersede()
    report = check_store(Superseded(store.objects, supersede))
    assert problems(report) == [] and report.vectors == 2


def test_beside_a_service_that_writes_merges_and_collects_nothing_is_complained_of(tmp_path: Path) -> None:
    """What goes while it is looked for, and by right, is no finding. Time is moved so that everything is collected at once."""
    clock = HandClock()
    engine = make_engine(
        tmp_path, clock=clock, grace_s=0.2, results_s=0.2, compaction_fanout=2, compaction_settle_s=0.0
    )
    index = make_index(engine, "busy", dimensions=DIMENSIONS, shards=1)
    stop = threading.Event()

    def work() -> None:
        client, number = Client(index), 0
        while not stop.is_set():
            number += 1
            client.append(one(f"v{number % 20}", number), delete(f"v{(number + 7) % 20}"))
            drain(engine, index)
            engine.compact(index.record.id, 0)
            engine.collect_garbage(index.record.id)
            clock.pass_s(0.07)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        checks = 0
        while index.head.refresh().version < 50:
            checks += 1
            report = check_store(engine.store)
            assert problems(report) == []
    finally:
        stop.set()
        worker.join(30)
    assert checks > 2
    assert check_store(DictStore(objects_in(tmp_path / "store"))).vectors == len(contents(index))


def test_a_file_where_folders_should_be_stops_nobody(tmp_path: Path) -> None:
    clock = HandClock()
    engine = make_engine(tmp_path, clock=clock, grace_s=60.0)
    index, store = make_index(engine), tmp_path / "store"
    make_index(engine, "dead")
    engine.catalog.delete("default", "dead")
    Client(index).append(upsert(("a", [1.0, 2.0])))
    for where in ("catalog/README", "catalog/default/README", "index/README"):
        (store / where).write_text("look here first")
    assert list(engine.backlogged()) == [index.record.id]
    assert drain(engine, index) == 1
    report = check_store(engine.store)
    assert report.clean and report.vectors == 1
    engine.collect_dead_indexes()
    clock.pass_s(100)
    engine.collect_dead_indexes()
    assert {path.name for path in (store / "index").iterdir()} == {index.record.id, "README"}
    assert "index/README" in {one.key for one in report.findings}
