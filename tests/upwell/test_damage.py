"""Damage to any bit, and a cut at any length, of any object: every question is answered rightly, or by Corrupt that names the object."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from tests.custody_house import House, Question, build, drained, engine_on, questions
from tests.dict_store import DictStore
from upwell.changeset import KeyScope
from upwell.custody.check import check_store
from upwell.engine import Engine
from upwell.errors import Corrupt, Gone
from upwell.outcome import State
from upwell.shard.keys import hash_keys, keys_of
from upwell.shard.metric import Metric
from upwell.shard.rows import SegmentRows
from upwell.shard.segment import Segment, encode_segment
from upwell.shard.vectors import Vectors
from upwell.streamed import joined

#: Damage to each object: what is tried of its prefix, of its header, and of the rest.
TRIED = (1, 1, 2)
CUTS = 1


@pytest.fixture(scope="module")
def house() -> House:
    return build()


@pytest.fixture(scope="module")
def right(house: House) -> dict[str, object]:
    """The right answers. Each is asked of an engine of its own: merging and applying change what there is."""
    asked = questions() | {"drain": drained}
    return {name: ask(question, house, engine_on(house.objects), "") for name, question in asked.items()}


def ask(question: Question, house: House, engine: Engine, damaged: str) -> object:
    """The answer; None for Corrupt that names ``damaged``. Whatever else is raised is a failure."""
    try:
        return question(engine, engine.find("default", "house"), house)
    except Corrupt as error:
        if error.facts.get("key") != damaged or damaged not in str(error):
            raise AssertionError(f"damage to {damaged} is told as: {error}") from error
        return None


def damage(data: bytes, random_: random.Random, *, tried: tuple[int, int, int], cuts: int) -> list[bytes]:
    """The same bytes, each with one bit flipped, or cut short."""
    header = 64 + int.from_bytes(data[12:16], "little")
    places = [
        *random_.sample(range(64), tried[0]),
        *random_.sample(range(64, header), tried[1]),
        *random_.choices(range(header, max(len(data), header + 1)), k=tried[2]),
    ]
    damaged = []
    for place in places:
        if place < len(data):
            flipped = bytearray(data)
            flipped[place] ^= 1 << random_.randrange(8)
            damaged.append(bytes(flipped))
    lengths = random_.sample([0, 1, 63, 64, header - 1, len(data) // 2, random_.randrange(len(data))], cuts)
    return damaged + [data[:length] for length in lengths]


def check_all(house: House, right: dict[str, object], tried: tuple[int, int, int], cuts: int) -> None:
    random_ = random.Random(5)
    answers = dict.fromkeys(right, 0)
    for key, data in house.objects.items():
        for damaged in damage(data, random_, tried=tried, cuts=cuts):
            objects = house.objects | {key: damaged}
            # One engine for all questions: none of its answers may spoil another.
            engine = engine_on(objects)
            for name, question in questions().items():
                answer = ask(question, house, engine, key)
                assert answer in (None, right[name]), (key, name)
                answers[name] += answer is None
            answers["drain"] += check_drained(house, objects, key, right["drain"])
    # Each was touched by some of it; else this would have tested nothing.
    assert all(answers.values()), answers


def check_drained(house: House, objects: dict[str, bytes], key: str, right: object) -> bool:
    """What waits is applied; or that fails for the damage, or the mutation does whose entry or payload it was. Did it show?"""
    answer = ask(drained, house, engine_on(objects), key)
    if answer is None or answer == right:
        return answer is None
    assert "/log/" in key or "/payload/" in key or "/request/" in key, key
    assert isinstance(answer, tuple)
    failed = [error for state, error in answer[1] if state is State.FAILED]
    assert len(failed) == 1
    assert key in failed[0]
    return True


def test_no_damage_to_any_object_is_answered_wrongly_or_in_other_words(
    house: House, right: dict[str, object]
) -> None:
    check_all(house, right, TRIED, CUTS)


def test_what_the_newest_version_names_and_is_not_there_is_told_as_damage(
    house: House, right: dict[str, object]
) -> None:
    """Not as something that never was: a client would take a 404 for an answer."""
    named = [
        key
        for key in house.objects
        if key.startswith((f"{house.folder}/segment", f"{house.folder}/deletions"))
    ]
    missed = 0
    for key in named:
        engine = engine_on({name: data for name, data in house.objects.items() if name != key})
        for name, question in questions().items():
            try:
                answer = ask(question, house, engine, key)
            except Gone:
                # A cursor's version may be gone for good reasons; whoever lists again from the start is told.
                assert name.startswith("list")
                continue
            assert answer in (None, right[name]), (key, name)
            missed += answer is None
    assert missed


def test_somebody_elses_files_among_the_numbered_ones_are_passed_over(
    house: House, right: dict[str, object]
) -> None:
    """A copy made by hand, say, or what an editor left there."""
    folders = (
        "catalog/default/house",
        f"{house.folder}/log",
        f"{house.folder}/manifest",
        f"{house.folder}/delivery/x",
    )
    names = ("0", "00000000000000000009 (copy)", "zzz")
    strange = {f"{folder}/{name}": b"not ours" for folder in folders for name in names}
    engine = engine_on(house.objects | strange)
    for name, question in questions().items():
        assert ask(question, house, engine, "") == right[name], name
    assert ask(drained, house, engine_on(house.objects | strange), "") == right["drain"]
    engine.collect_garbage(engine.find("default", "house").record.id)
    report = check_store(DictStore(house.objects | strange))
    assert report.clean
    noted = {each.key for each in report.findings if "nothing of this name" in each.problem}
    assert noted == {key for key in strange if not key.startswith("catalog")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nor_is_any_of_much_more_damage(house: House, right: dict[str, object]) -> None:
    check_all(house, right, (40, 20, 30), 6)


def made(rows: int, dimensions: int, metric: Metric, lists: int) -> bytes:
    """A segment's bytes."""
    generator = np.random.default_rng(rows)
    held = SegmentRows(
        pa.array([f"v{n}" for n in range(rows)]),
        Vectors.of(generator.standard_normal((rows, dimensions)).astype(np.float32)),
        pa.array([None, "n"] * (rows // 2), pa.utf8()),
        pa.array([b'{"a":"x"}', b'{"a":2}'] * (rows // 2), pa.binary()),
        np.arange(rows, dtype=np.uint64),
        np.arange(1, rows + 1, dtype=np.uint64),
    )
    encoded = encode_segment("s", held, metric, KeyScope.INDEX, lists=lists, properties=("a",))
    return joined(encoded.parts)


def read_whole(data: bytes, asked: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[object] | None:
    """All that can be read of a segment; None for Corrupt that names it."""
    keys = keys_of(pa.array(["v1", "v7", "nobody"]), None, KeyScope.INDEX)
    try:
        segment = Segment(memoryview(data), "the/segment")
        column = segment.property_column("a")
        return [
            [part.tolist() for part in segment.index.search(asked, 5)],
            segment.take_vectors(np.arange(0, segment.rows, 3)).tobytes(),
            segment.vectors.tobytes(),
            [part.tolist() for part in segment.find(keys, hash_keys(keys), KeyScope.INDEX)],
            segment.ids.to_pylist() + segment.take(np.array([2])).ids.to_pylist(),
            segment.in_namespace("n").tolist() + segment.written.tolist(),
            [column.kinds.tolist(), None if column.words is None else column.words.to_pylist()],
            None if segment.trust is None else segment.spread.tolist(),
        ]
    except Corrupt as error:
        if error.facts.get("key") != "the/segment":
            raise AssertionError(str(error)) from error
        return None


@pytest.mark.parametrize(
    ("rows", "dimensions", "metric", "lists"),
    [
        (64, 8, Metric.EUCLIDEAN, 1),
        (64, 8, Metric.COSINE, 1),
        (2_100, 64, Metric.COSINE, 1),
        (3_000, 64, Metric.DOT_PRODUCT, 16),
        (3_000, 8, Metric.EUCLIDEAN, 16),
    ],
)
def test_of_no_tier_can_a_bit_flip_unseen_or_reach_faiss(
    rows: int, dimensions: int, metric: Metric, lists: int
) -> None:
    """Whatever FAISS is given was verified: what it makes of damaged bytes may be a crash."""
    data, random_ = made(rows, dimensions, metric, lists), random.Random(rows)
    asked = np.random.default_rng(1).standard_normal((1, dimensions)).astype(np.float32)
    whole = read_whole(data, asked)
    assert whole is not None
    found = 0
    for damaged in damage(data, random_, tried=(15, 15, 40), cuts=7):
        answer = read_whole(damaged, asked)
        assert answer in (None, whole)
        found += answer is None
    assert found > 60
