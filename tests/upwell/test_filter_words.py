"""Filters of words and phrases, against a plain evaluator: in segments, in rows that are in none, from the log, and asked by many at once."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.making import Client, contents, drain, make_engine, make_index, upsert
from tests.thorough import examples
from upwell.changeset import Details, Operation, Selection, without_rows
from upwell.errors import Corrupt
from upwell.properties import ABSENT
from upwell.shard import worded
from upwell.shard.asked import depth, paths, phrases
from upwell.shard.embedding import NoClaims
from upwell.shard.filter import (
    Covered,
    Every,
    Filter,
    Glob,
    HasPhrase,
    HasWords,
    MetadataColumns,
    Not,
    Some,
    matching,
)
from upwell.shard.filter_json import filter_from_json, filter_to_json
from upwell.shard.worded import Worded
from upwell.text.analyzer import Analyzer, analyzer_of, canonical

STANDARD = canonical({})
#: Leaves gaps where "of" was.
GAPS = canonical({"tokenizer": "standard", "filter": ["lowercase", {"type": "stop", "stop_words": ["of"]}]})


def says(text: Any, asked: HasWords | HasPhrase) -> bool:
    """What a filter says of one value, by trying all that there is to try."""
    if not isinstance(text, str):
        return False
    tokens = analyzer_of(json.loads(asked.analyzer)).tokens(text)
    if isinstance(asked, HasWords):
        there = {token.term for token in tokens}
        return sum(term in there for term in asked.terms) >= asked.least
    stands = [
        [token.position - place for token in tokens if token.term == term] for place, term in asked.phrase
    ]
    if not stands:
        return False
    return any(max(begins) - min(begins) <= asked.slop for begins in itertools.product(*stands))


def plain(value: Any, asked: Filter) -> bool:
    """The same of a whole tree."""
    match asked:
        case Every(parts):
            return all(plain(value, part) for part in parts)
        case Some(parts):
            return any(plain(value, part) for part in parts)
        case Not(part):
            return not plain(value, part)
        case HasWords() | HasPhrase():
            return says(value, asked)
    raise AssertionError(asked)


TERMS = st.sampled_from(["a", "b", "c", "dé", "of"])
TEXTS = st.lists(st.sampled_from(["a", "A", "b", "c", "dé", "of", ", ", "!"]), max_size=9).map(" ".join)
VALUES = TEXTS | st.sampled_from([ABSENT, None, 1, True, ["a b"], {"a": "b"}])
LEAVES: st.SearchStrategy[Filter] = st.builds(
    HasWords,
    st.just("t"),
    st.sampled_from([STANDARD, GAPS]),
    st.lists(TERMS, max_size=4).map(tuple),
    st.integers(1, 4),
) | st.builds(
    HasPhrase,
    st.just("t"),
    st.sampled_from([STANDARD, GAPS]),
    st.lists(st.tuples(st.integers(0, 4), TERMS), max_size=4).map(lambda some: tuple(sorted(some))),
    st.integers(0, 5) | st.just((1 << 32) - 1),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Every, st.lists(inner, max_size=2).map(tuple))
        | st.builds(Some, st.lists(inner, max_size=2).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=4,
)


def as_arrow(values: Sequence[Any]) -> pa.Array:
    return pa.array([orjson.dumps({} if value is ABSENT else {"t": value}) for value in values], pa.binary())


@settings(max_examples=examples(250), deadline=None)
@given(values=st.lists(VALUES, max_size=12), asked=st.lists(FILTERS, min_size=1, max_size=3))
@example(values=["a b", "b a", "a c b", "a"], asked=[HasPhrase("t", STANDARD, ((0, "a"), (1, "b")), 2)])
@example(values=["a a"], asked=[HasPhrase("t", STANDARD, ((0, "a"), (1, "a"), (2, "a")), 1)])
@example(values=["b a", "b a !"], asked=[HasPhrase("t", STANDARD, ((0, "a"), (1, "b")))])
@example(values=["b a", "b a !"], asked=[HasPhrase("t", STANDARD, ((0, "a"), (1, "b")), 1)])
@example(values=["b a", "b"], asked=[HasPhrase("t", STANDARD, ((0, "a"), (2, "b")), 3)])
@example(values=["a", "b a"], asked=[HasWords("t", STANDARD, ("a", "a", "b"), 2)])
def test_rows_are_found_as_a_plain_reader_finds_them(values: list[Any], asked: list[Filter]) -> None:
    columns = MetadataColumns(as_arrow(values), len(values))
    for one in asked:
        travelled = filter_from_json(orjson.loads(orjson.dumps(filter_to_json(one))))
        assert travelled == one
        assert matching(travelled, len(values), columns).tolist() == [plain(value, one) for value in values]


def test_segments_are_asked_as_other_rows_are_and_remember_what_they_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=2)
    values = ["a b", "b c a", "A, b!", None, 7, "of a", "a of b", "c"] * 3
    for start in (0, 12):
        ids = range(start, start + 12)
        Client(index).append(upsert(*((f"{n}", (n, 1), None, {"t": values[n]}) for n in ids)))
        drain(engine, index)
    asked: list[Filter] = [
        HasWords("t", STANDARD, ("b", "of"), 2),
        Not(HasWords("t", GAPS, ("c",))),
        HasPhrase("t", GAPS, ((0, "a"), (2, "b"))),
        HasPhrase("t", STANDARD, ((0, "a"), (1, "b")), 1),
    ]

    def found(one: Filter) -> list[int]:
        held = [live.segment for shard in index.newest.get().shards for live in shard]
        assert len(held) > 1
        names = [
            segment.ids.filter(pa.array(Covered(one, (), backfill=True)(segment))).to_pylist()
            for segment in held
        ]
        return sorted(int(name) for some in names for name in some)

    def expected(one: Filter) -> list[int]:
        return [n for n, value in enumerate(values) if plain(value, one)]

    assert [found(one) for one in asked] == [expected(one) for one in asked]
    monkeypatch.setattr(Analyzer, "terms", None)
    monkeypatch.setattr(Analyzer, "placed", None)
    assert len([found(one) for one in asked]) == len(asked), "nothing is analyzed twice"


def test_whoever_asks_a_segment_can_end_it(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=1)
    Client(index).append(upsert(("1", (1, 1), None, {"t": "a b"})))
    drain(engine, index)
    ((live,),) = index.newest.get().shards

    def turns(asked: Filter) -> int:
        taken: list[None] = []
        Covered(asked, (), backfill=True, go_on=lambda: taken.append(None))(live.segment)
        return len(taken)

    only_column = turns(Glob("t", "*"))
    assert turns(HasWords("t", STANDARD, ("a",))) > only_column
    assert turns(HasPhrase("t", STANDARD, ((0, "a"), (1, "b")))) > only_column


def test_a_worker_deletes_by_words(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=2)
    client = Client(index)
    texts = {"1": "Red fox", "2": "red wine", "3": "fox, red", "4": "a fox"}
    client.append(upsert(*((id, (1, 1), None, {"t": text}) for id, text in texts.items() if id != "4")))
    drain(engine, index)
    # The one in the same batch is in no segment yet.
    client.append(upsert(("4", (1, 1), None, {"t": texts["4"]})))
    phrase = HasPhrase("t", STANDARD, ((0, "red"), (1, "fox")))
    for asked in (phrase, Every((HasWords("t", STANDARD, ("fox", "a"), 2), Not(phrase)))):
        selection = Selection(filter=filter_to_json(asked))
        client.append(without_rows(Operation.DELETE_MATCHING, Details(selection=selection)))
    drain(engine, index)
    assert sorted(id for _, id in contents(index)) == ["2", "3"]


def test_who_waits_for_a_worker_that_looks_for_words_is_told_that_it_goes_on(tmp_path: Path) -> None:
    """Goal: a delete by words of many texts is not taken for a hang, in segments and in the batch itself."""

    class Signs(NoClaims):
        signs = 0

        def went_on(self) -> None:
            self.signs += 1

    engine = make_engine(tmp_path)
    index = make_index(engine, shards=1)
    client, long = Client(index), "a b " * 10_000
    rows = [upsert(*((f"{n}{m}", (1, 1), None, {"t": f"{long} {n} {m}"}) for m in range(9))) for n in "ab"]
    for row in rows:
        client.append(row)
    selection = Selection(filter=filter_to_json(HasPhrase("t", STANDARD, ((0, "a"), (1, "c")))))
    delete = without_rows(Operation.DELETE_MATCHING, Details(selection=selection))
    client.append(delete)
    in_batch, in_segment = Signs(), Signs()
    engine.apply_batch(index.record.id, lambda: True, claims=in_batch)
    client.append(delete)
    engine.apply_batch(index.record.id, lambda: True, claims=in_segment)
    assert in_batch.signs >= 18 and in_segment.signs >= 18
    assert len(contents(index)) == 18


class Slow(Analyzer):
    """Counts the texts that it is given, and waits for whoever holds its door."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.door = threading.Event()
        self.door.set()
        self.entered = threading.Event()

    def terms(self, text: str) -> list[str]:
        self.entered.set()
        assert self.door.wait(30)
        self.texts.append(text)
        return text.split()

    def placed(self, texts: Iterable[str]) -> Iterator[tuple[list[str], list[int]]]:
        for text in texts:
            terms = self.terms(text)
            yield terms, list(range(len(terms)))


def no_end() -> None:
    """Nobody ends it."""


TEXTS_MANY = [f"w{n} all x{n % 7}" for n in range(3_000)]
MANY = pa.array(TEXTS_MANY, pa.utf8())


def test_many_who_ask_at_once_have_each_text_analyzed_once() -> None:
    analyzer = Slow()
    kept = Worded(analyzer)
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(lambda _: kept.having(MANY, ["x3"], 1, no_end), range(4)))
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [list(range(3, 3_000, 7))] * 4
    assert sorted(analyzer.texts) == sorted(TEXTS_MANY)


def test_who_waits_for_another_can_give_up_and_so_can_the_other() -> None:
    analyzer = Slow()
    analyzer.door.clear()
    kept = Worded(analyzer)
    ending = threading.Event()

    def asked() -> None:
        if ending.is_set():
            raise TimeoutError

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(kept.having, MANY, ["all"], 1, asked)
        assert analyzer.entered.wait(30)
        second = pool.submit(kept.having, MANY, ["all"], 1, asked)
        ending.set()
        assert isinstance(second.exception(30), TimeoutError)
        assert not first.done(), "it is at the door"
        analyzer.door.set()
        assert isinstance(first.exception(30), TimeoutError)


@pytest.mark.parametrize("phrase", [False, True])
def test_what_was_found_before_the_end_is_found_once(monkeypatch: pytest.MonkeyPatch, phrase: bool) -> None:
    monkeypatch.setattr(worded, "_BLOCK", 100)
    analyzer = Slow()
    kept = Worded(analyzer)

    def ask(patience: int) -> np.ndarray[Any, Any]:
        left = iter(range(patience))

        def go_on() -> None:
            if next(left, None) is None:
                raise TimeoutError

        if phrase:
            return kept.saying(MANY, ((0, "all"), (1, "x3")), 0, go_on)
        return kept.having(MANY, ["x3"], 1, go_on)

    tries = 0
    while True:
        tries += 1
        try:
            mask = ask(20)
        except TimeoutError:
            continue
        break
    assert tries > 2
    assert np.flatnonzero(mask).tolist() == list(range(3, 3_000, 7))
    assert len(analyzer.texts) <= len(TEXTS_MANY) + tries * 100


@pytest.mark.parametrize("phrase", [False, True])
def test_little_patience_finds_all_in_the_end(phrase: bool) -> None:
    """Goal: long texts and a slow analyzer never make a question that nobody has the patience for, however often it is asked."""
    analyzer, turns = Slow(), list[int]()
    texts = pa.array([f"all x{n % 7} {'long ' * 10_000}" for n in range(40)], pa.utf8())
    kept = Worded(analyzer)

    def go_on() -> None:
        turns.append(len(analyzer.texts))
        if len(turns) % 3 == 0:
            raise TimeoutError

    def ask() -> list[int]:
        if phrase:
            return np.flatnonzero(kept.saying(texts, ((0, "all"), (1, "x3")), 0, go_on)).tolist()
        return np.flatnonzero(kept.having(texts, ["x3"], 1, go_on)).tolist()

    found: list[int] = []
    while not found and len(turns) < 200:
        with contextlib.suppress(TimeoutError):
            found = ask()
    assert found == list(range(3, 40, 7))
    assert len(analyzer.texts) == 40, "each once"
    assert max(np.diff(turns)) == 1, "between any two there is a look"


def test_a_phrase_of_common_words_is_looked_for_some_texts_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join("ab"[n >> place & 1] for place in range(5)) for n in range(32)] * 3
    sizes: list[int] = []
    real = worded._saying

    def watched(postings: Any, some: Any, *arguments: Any, **how: Any) -> Any:
        sizes.append(len(some))
        return real(postings, some, *arguments, **how)

    monkeypatch.setattr(worded, "_saying", watched)
    for at_once in (7, 1 << 20):
        sizes.clear()
        monkeypatch.setattr(worded, "_PLACES_MAX", at_once)
        found = Worded(analyzer_of({})).saying(pa.array(texts), ((0, "a"), (1, "b"), (2, "a")), 0, no_end)
        assert found.tolist() == ["a b a" in text for text in texts]
        assert (max(sizes) <= 2) == (at_once == 7)


def test_many_words_are_found_as_few_are() -> None:
    kept = Worded(analyzer_of({}))
    terms = [f"w{n}" for n in range(0, 3_000, 5)] + ["nobody"]
    mask = kept.having(MANY, terms, 1, no_end)
    assert np.flatnonzero(mask).tolist() == list(range(0, 3_000, 5))
    assert not kept.having(MANY, ["nobody"], 1, no_end).any()
    assert not kept.having(pa.array([], pa.utf8()), ["a"], 1, no_end).any()


def test_a_field_of_other_types_has_no_words() -> None:
    columns = MetadataColumns(as_arrow([1, None, ABSENT]), 3)
    for asked in (HasWords("t", STANDARD, ("a",)), HasPhrase("t", STANDARD, ((0, "a"), (1, "b")))):
        assert matching(asked, 3, columns).tolist() == [False] * 3
        assert matching(Not(asked), 3, columns).all()


def test_what_a_tree_asks_for() -> None:
    phrase = HasPhrase("t", STANDARD, ((0, "a"),), 1)
    tree = Every((HasWords("u", STANDARD, ("a",)), Not(phrase)))
    assert list(paths(tree)) == ["u", "t"]
    assert list(phrases(tree)) == [phrase]
    assert depth(tree) == 3


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (HasWords("a", STANDARD, ("é", "b"), 2), '["words","a","{}",2,"é","b"]'),
        (HasWords("a", STANDARD, ()), '["words","a","{}",1]'),
        (HasPhrase("a", STANDARD, ((0, "é"), (2, "b")), 3), '["phrase","a","{}",3,[0,"é"],[2,"b"]]'),
        (
            Some((HasWords("a", STANDARD, ("b",)), Not(HasPhrase("c", STANDARD, ((0, "d"),))))),
            '["by",["{}"],["or",["words","a",0,1,"b"],["not",["phrase","c",0,0,[0,"d"]]]]]',
        ),
    ],
)
def test_the_form_in_the_log_never_changes(asked: Filter, text: str) -> None:
    assert orjson.dumps(filter_to_json(asked)).decode() == text
    assert filter_from_json(orjson.loads(text)) == asked


@pytest.mark.parametrize(
    "data",
    [
        ["words"],
        ["words", "a", "{}"],
        ["words", "a", "{}", 0, "b"],
        ["words", "a", "{}", True, "b"],
        ["words", "a", "{}", 1.0, "b"],
        ["words", "a", "{}", 1, 2],
        ["words", "a", "{}", 1, None],
        ["words", 1, "{}", 1, "b"],
        ["words", "a", {}, 1, "b"],
        ["words", "a", "", 1, "b"],
        ["words", "a", "[]", 1, "b"],
        ["words", "a", "[" * 100_000, 1, "b"],
        ["words", "a", '{"type":"nothing"}', 1, "b"],
        ["phrase", "a", "{}", -1, [0, "b"]],
        ["phrase", "a", "{}", False, [0, "b"]],
        ["phrase", "a", "{}", 0, "b"],
        ["phrase", "a", "{}", 0, [0]],
        ["phrase", "a", "{}", 0, [True, "b"]],
        ["phrase", "a", "{}", 0, [-1, "b"]],
        ["phrase", "a", "{}", 0, [1_000_001, "b"]],
        ["phrase", "a", "{", 0, [0, "b"]],
        ["id", ["words", "", "{}", 1, "b"]],
        ["length", "a", ["words", "", "{}", 1, "b"]],
        ["words", "a", 0, 1, "b"],
        ["by", ["{}"], ["words", "a", 1, 1, "b"]],
        ["by", ["{}"], ["words", "a", -1, 1, "b"]],
        ["by", ["{}"], ["words", "a", False, 1, "b"]],
        ["by", ["{}"], ["by", ["{}"], ["has", "a"]]],
        ["by", "{}", ["has", "a"]],
        ["by", [0], ["has", "a"]],
        ["by", ["{"], ["has", "a"]],
    ],
    ids=lambda data: str(data)[:40],
)
def test_what_is_no_filter_is_corrupt(data: Any) -> None:
    with pytest.raises(Corrupt):
        filter_from_json(data)
