"""What is remembered of many things: the last few that were asked for, each of them once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.making import Client, drain, make_engine, make_index, upsert
from upwell.recent import Recent
from upwell.shard.filter import Covered, HasWords
from upwell.shard.segment import PROPERTIES_KEPT
from upwell.text.analyzer import Analyzer, canonical


def test_forgotten_is_what_nobody_asked_for_the_longest() -> None:
    made: list[str] = []
    recent = Recent[str, int](2)

    def make(key: str) -> int:
        made.append(key)
        return len(made)

    def ask(key: str) -> int:
        return recent.of(key, lambda: make(key))

    assert [ask(key) for key in "abacab"] == [1, 2, 1, 3, 1, 4]
    assert made == ["a", "b", "c", "b"]


def test_what_cannot_be_made_is_made_by_the_next() -> None:
    recent = Recent[str, int](2)
    with pytest.raises(ZeroDivisionError):
        recent.of("a", lambda: 1 // 0)
    assert recent.of("a", lambda: 7) == 7


def test_all_who_ask_at_once_get_the_same_and_nobody_waits_for_another_key() -> None:
    recent = Recent[str, object](2)
    both = threading.Barrier(2)

    def made() -> object:
        both.wait(30)
        return object()

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: recent.of("a", made), range(2))
    assert one is other is recent.of("a", object)


def test_a_segment_forgets_no_words_that_are_asked_for_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many other properties are asked for in between, one after the other."""
    engine = make_engine(tmp_path)
    index = make_index(engine, shards=1)
    Client(index).append(upsert(("1", (1, 1), None, {"t": "a b"})))
    drain(engine, index)
    ((live,),) = index.newest.get().shards
    analyzed: list[str] = []
    real = Analyzer.terms

    def watched(self: Analyzer, text: str) -> list[str]:
        analyzed.append(text)
        return real(self, text)

    monkeypatch.setattr(Analyzer, "terms", watched)
    asked = Covered(HasWords("t", canonical({}), ("b",)), (), backfill=True)
    for number in range(2 * PROPERTIES_KEPT):
        assert asked(live.segment).tolist() == [True]
        live.segment.property_column(f"other{number}")
    assert analyzed == ["a b"]
