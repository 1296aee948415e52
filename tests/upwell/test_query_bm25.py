"""BM25: what the formula gives, worked out row by row in plain Python from texts that the index should hold by now."""

from __future__ import annotations

import math
import os
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.querying import NAMESPACES, Row, Story, answered, even_ids, is_even, sparse_of
from upwell.kinds import IndexKind
from upwell.query import sparse as searching
from upwell.query.fusion import ByRank
from upwell.query.grouped import Grouping, search_grouped
from upwell.query.hybrid import fuse_lists
from upwell.query.ranged import Bounds, search_sparse_within
from upwell.query.scope import Names, RowFilter, asks_for
from upwell.query.search import Match
from upwell.query.sparse import Bm25, SparseVector, search_sparse
from upwell.shard import merge, postings
from upwell.text.analyzer import analyzer_of
from upwell.text.counts import term_counts

EVERY = 500
#: Of texts: so few that rows share many. Some are beyond what a namespace has.
TERMS = range(9)
PARAMETERS = (Bm25(), Bm25(k1=0), Bm25(b=0), Bm25(b=1), Bm25(k1=3, b=0.4))


@pytest.fixture(autouse=True, scope="module")
def _small_pieces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        # Small segments stay apart, and what is added up in pieces comes in several.
        patch.setattr(merge, "FOLDED_BYTES_MAX", 0)
        patch.setattr(postings, "ADDED_AT_ONCE", 7)
        patch.setattr(searching, "ADDED_AT_ONCE", 5)
        yield


def terms_of(row: Row) -> Counter[int]:
    """How often a row has each of its terms; what is less than once is no term."""
    counts: Counter[int] = Counter()
    for term, count in zip(row.indices, row.values, strict=True):
        counts[term] += int(count)
    return +counts


def truth(rows: Sequence[Row], query: Mapping[int, int], bm25: Bm25) -> dict[str, float]:
    """The score of every row that shares a term."""
    held = [(row.id, terms_of(row)) for row in rows]
    lengths = [sum(terms.values()) for _, terms in held]
    scores = {}
    for (name, terms), length in zip(held, lengths, strict=True):
        shared = [term for term in query if term in terms]
        if not shared:
            continue
        average = sum(lengths) / len(rows)
        score = 0.0
        for term in shared:
            holding = sum(1 for _, others in held if term in others)
            idf = math.log((len(rows) - holding + 0.5) / (holding + 0.5) + 1)
            tf = terms[term]
            damped = tf + bm25.k1 * (1 - bm25.b + bm25.b * length / average)
            score += query[term] * idf * tf * (bm25.k1 + 1) / damped
        scores[name] = score
    return scores


def drawn(story: Story, namespace: str, name: str) -> Row:
    """A row with a text of up to twelve words; another door wrote a few of them, with what is no count."""
    terms = Counter(story.random.choice(TERMS, story.random.integers(0, 13)).tolist())
    odd = story.random.random() < 0.1
    values = [float(-count if odd and story.random.random() < 0.5 else count) for count in terms.values()]
    return Row(namespace, name, [1.0, 2.0, 3.0], list(terms), values)


def write_some(story: Story, count: int) -> None:
    """Rows of names that no two namespaces share, some of them anew."""
    chosen = {int(one) for one in story.random.integers(0, 60, count)}
    story.write([drawn(story, NAMESPACES[one % 3], f"v{one}") for one in sorted(chosen)])


def vector(query: Mapping[int, int]) -> SparseVector:
    return sparse_of([*query], [float(count) for count in query.values()])


def rows_of(story: Story, names: Names) -> list[Row]:
    return [row for name in NAMESPACES if asks_for(names, name) for row in story.rows(name)]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from([1, 4, 40])),
        st.tuples(st.just("delete"), st.sampled_from([0.1, 0.5, 0.95, 1.0])),
        st.tuples(st.just("compact"), st.just(0)),
    ),
    min_size=1,
    max_size=5,
)


@given(
    seed=st.integers(0, 2**32 - 1),
    shards=st.integers(1, 2),
    steps=STEPS,
    per_posting=st.sampled_from([0, 16]),
    asked=st.lists(
        st.tuples(
            st.sampled_from(PARAMETERS),
            st.sampled_from([*NAMESPACES, "nobody's", ("one", "", "one"), None]),
        ),
        min_size=2,
        max_size=4,
    ),
)
@settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_any_score_is_what_the_formula_gives(
    seed: int, shards: int, steps: list[tuple[str, float]], per_posting: int, asked: list[tuple[Bm25, Names]]
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "ROWS_PER_POSTING", per_posting)
        story = Story(Path(folder), seed, IndexKind.SPARSE, shards=shards)
        for what, how_much in [("write", 40), *steps]:
            match what:
                case "write":
                    write_some(story, int(how_much))
                case "delete":
                    story.delete_some(how_much)
                case _:
                    story.compact()
        for bm25, names in asked:
            query = Counter(story.random.choice(TERMS, story.random.integers(0, 5)).tolist())
            _check(story, query, bm25, names)


def _check(story: Story, query: Mapping[int, int], bm25: Bm25, names: Names) -> None:
    view, rows = story.view(), rows_of(story, names)
    ask = partial(search_sparse, view, vector(query), bm25=bm25)
    every = answered(ask(EVERY, names))
    assert dict(every) == pytest.approx(truth(rows, query, bm25), rel=1e-12)
    orders = {row.id: row.order for row in rows}
    if isinstance(names, str):
        # In which order others are that are equal depends on how many were written into each of them.
        assert every == sorted(every, key=lambda one: (-one[1], orders[one[0]]))
    assert [score for _, score in every] == sorted((score for _, score in every), reverse=True)
    alike: dict[tuple[tuple[int, int], ...], set[float]] = {}
    for row in rows:
        if row.id in dict(every):
            alike.setdefault(tuple(sorted(terms_of(row).items())), set()).add(dict(every)[row.id])
    assert all(len(scores) == 1 for scores in alike.values())
    assert answered(ask(3, names)) == every[:3]
    assert answered(ask(EVERY, names, within=even_ids)) == [one for one in every if is_even(one[0])]
    if every:
        best, worst = every[len(every) // 4][1], every[3 * len(every) // 4][1]
        bounds = Bounds(closest=best, furthest=worst)
        found = search_sparse_within(view, vector(query), EVERY, names, bounds=bounds, bm25=bm25)
        between = [one for one in every if np.float32(worst) < np.float32(one[1]) <= np.float32(best)]
        assert answered(found) == between


TEXTS = (
    "the quick brown fox",
    "The lazy dog, and the quick dog!",
    "brown bread",
    "",
    "dog dog dog dog dog",
)

#: Worked out with awk from the formula, for k1 and b: text -> score.
TABLE: list[tuple[str, float, float, dict[int, float]]] = [
    ("quick dog", 1.2, 0.75, {0: 0.837404879208, 1: 1.582612176087, 4: 1.470252841358}),
    ("quick dog", 0, 0.75, {0: 0.875468737354, 1: 1.750937474708, 4: 0.875468737354}),
    ("quick dog", 1.2, 0, {0: 0.875468737354, 1: 2.079238251216, 4: 1.553250985628}),
    ("quick dog", 2, 1, {0: 0.815091583054, 1: 1.429206467884, 4: 1.688403993468}),
    ("the the brown", 1.2, 0.75, {0: 2.512214637624, 1: 1.902253058942, 2: 1.070017345655}),
    ("the the brown", 0, 0.75, {0: 2.626406212062, 1: 1.750937474708, 2: 0.875468737354}),
    ("the the brown", 1.2, 0, {0: 2.626406212062, 1: 2.407539027723, 2: 0.875468737354}),
    ("the the brown", 2, 1, {0: 2.445274749161, 1: 1.783974030834, 2: 1.244087153082}),
    ("bread lazy quick", 1.2, 0.75, {0: 0.837404879208, 1: 1.631435677588, 2: 1.694359774702}),
    ("bread lazy quick", 0, 0.75, {0: 0.875468737354, 1: 2.261763098474, 2: 1.386294361120}),
    ("bread lazy quick", 1.2, 0, {0: 0.875468737354, 1: 2.261763098474, 2: 1.386294361120}),
    ("bread lazy quick", 2, 1, {0: 0.815091583054, 1: 1.387900083154, 2: 1.969997250012}),
]


def texts(folder: Path, *groups: Sequence[str]) -> Story:
    """Each group a mutation, and so a segment; rows are t0, t1, …"""
    story = Story(folder, 0, IndexKind.SPARSE, shards=1)
    number = 0
    for group in groups:
        counted = term_counts(analyzer_of({}), group)
        rows = []
        for place in range(len(group)):
            indices, values = counted.row(place)
            rows.append(Row("", f"t{number}", [1.0] * 3, indices.tolist(), values.tolist()))
            number += 1
        story.write(rows)
    return story


def asked_for(text: str) -> SparseVector:
    return term_counts(analyzer_of({}), [text]).row(0)


def test_texts_have_the_scores_of_a_table(tmp_path: Path) -> None:
    view = texts(tmp_path, TEXTS[:2], TEXTS[2:]).view()
    assert len(list(view.segments())) == 2
    for query, k1, b, expected in TABLE:
        found = answered(search_sparse(view, asked_for(query), 9, bm25=Bm25(k1=k1, b=b)))
        assert dict(found) == pytest.approx({f"t{one}": score for one, score in expected.items()}, abs=1e-11)
        assert [one for one, _ in found] == sorted(dict(found), key=lambda one: -expected[int(one[1:])])


def test_rows_without_a_term_count_among_the_rows_and_in_the_average(tmp_path: Path) -> None:
    few, more = (
        texts(tmp_path / "few", ["a b", "a c c c"]),
        texts(tmp_path / "more", ["a b", "a c c c", "", "..."]),
    )
    ask = partial(search_sparse, query=asked_for("a"), count=9, bm25=Bm25(b=1))
    # N 2, average 3; then N 4, average 1.5.
    assert dict(answered(ask(few.view())))["t0"] == pytest.approx(math.log(1.2) * 2.2 / (1 + 1.2 * 2 / 3))
    assert dict(answered(ask(more.view())))["t0"] == pytest.approx(math.log(2) * 2.2 / (1 + 1.2 * 2 / 1.5))


def test_where_no_row_has_a_term_nothing_is_found(tmp_path: Path) -> None:
    story = texts(tmp_path, ["", " ", "?"])
    for bm25 in PARAMETERS:
        assert search_sparse(story.view(), asked_for("word"), 9, bm25=bm25) == []
        assert search_sparse(story.view(), asked_for(""), 9, bm25=bm25) == []
    story.delete([("", f"t{number}") for number in range(3)])
    assert search_sparse(story.view(), asked_for("word"), 9, bm25=Bm25()) == []
    # What is below zero is no term, and a row of nothing else has none.
    story.write([Row("", "odd", [1.0] * 3, [5], [-2.0])])
    for bm25 in PARAMETERS:
        assert search_sparse(story.view(), sparse_of([5], [1]), 9, bm25=bm25) == []


def test_scores_are_finite_whatever_other_doors_have_written(tmp_path: Path) -> None:
    story = texts(tmp_path, ["a", "b"])
    largest = float(np.finfo(np.float32).max)
    story.write(
        [Row("", "much", [1.0] * 3, [1], [largest]), Row("", "little", [1.0] * 3, [1, 2], [1e-45, 1])]
    )
    for k1 in (0, 1.2, largest):
        for b in (0, 0.75, 1):
            found = search_sparse(
                story.view(), sparse_of([1], [largest]), 9, bm25=Bm25(k1=k1, b=b), among=np.isfinite
            )
            assert {match.found.id for match in found} == {"much", "little"}


def test_a_search_for_all_terms_takes_memory_for_its_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "ADDED_AT_ONCE", 4_096)
    terms = [f"t{n}" for n in range(300)]
    story = texts(tmp_path, [" ".join(terms)] * 500)
    view, query = story.view(), asked_for(" ".join(terms))

    def ask() -> tuple[int, list[Match]]:
        tracemalloc.start()
        try:
            found = search_sparse(view, query, 500, bm25=Bm25())
            return tracemalloc.get_traced_memory()[1], found
        finally:
            tracemalloc.stop()

    ask()  # The first time something is read for the first time.
    peak, found = ask()
    assert len(found) == 500 and len({one.closeness for one in found}) == 1
    # 150,000 postings of 16 bytes would be more than two megabytes.
    assert peak < 1_000_000


def test_parameters_that_mean_nothing_are_refused() -> None:
    for k1 in (-0.1, math.nan, math.inf, 1e300):
        with pytest.raises(ValueError, match="k1 is"):
            Bm25(k1=k1)
    for b in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="b is"):
            Bm25(b=b)


def test_groups_and_fused_lists_are_made_of_its_scores(tmp_path: Path) -> None:
    story = texts(tmp_path, TEXTS[:2], TEXTS[2:])
    view = story.view()

    def ask(text: str, count: int, within: RowFilter | None = None) -> list[Match]:
        return search_sparse(view, asked_for(text), count, "", within=within, bm25=Bm25())

    groups = search_grouped(partial(ask, "dog quick"), Grouping(path="id", groups=2))
    assert [answered(group) for group in groups] == [[one] for one in answered(ask("dog quick", 2))]
    lists = [ask("dog quick", 9), ask("brown", 9)]
    assert {match.found.id for match in fuse_lists(lists, ByRank())} == {"t0", "t1", "t2", "t4"}
