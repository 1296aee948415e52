"""The benchmark of full-text search (tests/bench/full_text) runs from end to end, with little to load; and its judge tells right from wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.full_text import ask
from tests.bench.full_text.__main__ import judged
from tests.bench.full_text.data import TOP_K, Exact, generate, judge
from tests.plain_full_text import bm25_scores, ranked

DATA = generate(texts=300, queries=8)


def test_the_exact_answers_are_those_of_the_definition() -> None:
    exact = Exact(DATA.texts)
    plain = {row: text.replace(",", "").replace(".", "") for row, text in enumerate(DATA.texts)}
    for query in [*DATA.queries["as in texts"], *DATA.queries["telling"], "unheard"]:
        expected = bm25_scores(query, plain)
        scores = exact.scores(query)
        assert {row: scores[row] for row in range(300) if scores[row]} == pytest.approx(expected)


def test_the_judge_tells_right_answers_from_wrong_ones() -> None:
    exact, queries = Exact(DATA.texts), DATA.queries["as in texts"]
    right = []
    for query in queries:
        scores = {row: score for row, score in enumerate(exact.scores(query).tolist()) if score}
        right.append([(row, scores[row]) for row in ranked(scores)[:TOP_K]])
    told = judge(exact, queries, right)
    assert (told.agreeing, told.scores_off) == (1.0, 0.0)
    fewer = [answer[1:] for answer in right]
    assert judge(exact, queries, fewer).agreeing == pytest.approx(1 - 1 / TOP_K)
    doubled = [[(row, 2 * score) for row, score in answer] for answer in right]
    assert judge(exact, queries, doubled).scores_off == pytest.approx(1)
    none = [[(int(exact.scores(query).argmin()), 1.0)] for query in queries]
    assert judge(exact, queries, none).agreeing == 0
    with pytest.raises(RuntimeError, match="came twice"):
        judge(exact, queries, [answer[:1] * 2 for answer in right])


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", ["upwell", "sqlite"])
def test_a_store_is_measured(store: str, tmp_path: Path) -> None:
    told = ask.measure(store, DATA, tmp_path, threads=2)
    assert told["visible_per_s"] > 0
    row = judged(told, DATA, Exact(DATA.texts))
    # SQLite makes next to nothing of a word that half of the texts have.
    cases = ["telling"] if store == "sqlite" else list(DATA.queries)
    assert {case: row["cases"][case]["agreeing"] for case in cases} == dict.fromkeys(cases, 1.0)
    assert all(found["queries"] == 8 and found["p50_ms"] > 0 for found in row["cases"].values())
