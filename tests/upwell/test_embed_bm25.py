"""The built-in sparse model, against its formula written down plainly."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from Stemmer import Stemmer

from upwell.embed import bm25
from upwell.embed.bm25 import ENTRIES_MAX, Bm25Model, words
from upwell.text.counts import dimension_of
from upwell.text.stop_words import ENGLISH

MODEL = Bm25Model("BM25")

TEXTS = st.lists(
    st.sampled_from(["running", "runs", "ran", "the", "Wells", "well", "queue", "Queues", "is", "42", "x-y", "—"]), max_size=60
).map(" ".join)  # fmt: skip


def row(text: str, query: bool = False) -> dict[int, float]:
    made = MODEL.queries([text]) if query else MODEL.documents([text])
    indices, values = made.row(0)
    assert indices.dtype == np.int32 and values.dtype == np.float32
    assert (np.diff(indices) > 0).all() and (indices >= 0).all()
    return dict(zip(indices.tolist(), values.tolist(), strict=True))


def plain(text: str) -> list[str]:
    """The terms of a text of ASCII words, by the shortest way."""
    kept = "".join(c.lower() if c.isalnum() else " " for c in text).split()
    return [Stemmer("english").stemWord(word) for word in kept if word not in ENGLISH]


def reference(text: str) -> dict[int, float]:
    terms = plain(text)
    weights: dict[int, float] = {}
    for term in set(terms):
        tf = terms.count(term)
        weight = tf * (1.2 + 1) / (tf + 1.2 * (1 - 0.75 + 0.75 * len(terms) / 32))
        dimension = xxhash.xxh32(term.encode("utf-8")).intdigest() % 2**31
        weights[dimension] = weights.get(dimension, 0) + weight
    return weights


@settings(max_examples=200)
@given(TEXTS)
def test_documents_are_by_the_formula(text: str) -> None:
    assert row(text) == pytest.approx(reference(text), rel=1e-6)


@settings(max_examples=100)
@given(TEXTS)
def test_a_query_has_one_for_each_of_its_terms(text: str) -> None:
    assert row(text, query=True) == dict.fromkeys(reference(text), 1.0)


def test_a_weight_worked_out_by_hand() -> None:
    """Two of three terms are the same: tf = 2, |D| = 3, so 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 32))."""
    assert row("cats and the cat, queueing")[dimension_of("cat")] == pytest.approx(
        4.4 / (2 + 1.2 * 0.3203125), rel=1e-6
    )


def test_dimensions_never_change() -> None:
    """What is in an index was made by some earlier version: these numbers are for ever."""
    assert [dimension_of(term) for term in ("cat", "queue", "été")] == [
        186_315_820,
        1_777_205_411,
        18_525_239,
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The quick-brown FOX_trot!", ["quick", "brown", "fox", "trot"]),
        ("Don't; it’s the dog's 'day'", ["don't", "it's", "dog's", "day"]),
        ("e\u0301te\u0301 ﬁne Ⅳ", ["été", "fine", "iv"]),
        ("3.14 v2", ["3", "14", "v2"]),
        ("to be or not to be", []),
        ("", []),
        ("…—🦄\ud800", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize("text", ["", "the", "\ud800", "🦄"])
def test_a_text_without_terms_has_no_entries(text: str) -> None:
    assert row(text) == row(text, query=True) == {}


def test_no_texts() -> None:
    assert len(MODEL.documents([])) == len(MODEL.queries([])) == 0


def test_a_stem_finds_its_words_and_stop_words_say_nothing() -> None:
    assert row("the running of the wells", query=True).keys() == row("RUN well").keys()


def test_the_heaviest_entries_are_kept() -> None:
    often = [f"often{n}" for n in range(300)]
    once = [f"once{n}" for n in range(900)]
    found = row(" ".join([*once, *often, *often]))
    assert len(found) == ENTRIES_MAX
    assert {dimension_of(term) for term in plain(" ".join(often))} <= found.keys()
    lightest = sorted(dimension_of(term) for term in plain(" ".join(once)))
    assert [index for index in sorted(found) if index in set(lightest)] == lightest[:700]


def test_terms_that_meet_in_a_dimension_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = row("queue queue cat")
    monkeypatch.setattr(bm25, "dimension_of", lambda _: 7)
    assert row("queue queue cat") == {7: pytest.approx(sum(apart.values()), rel=1e-6)}
    assert row("queue queue cat", query=True) == {7: 2.0}


def test_rows_are_in_the_order_of_their_texts_and_know_nothing_of_one_another() -> None:
    texts = ["one cat", "", "two dogs and a queue", "one cat"]
    made = MODEL.documents(texts)
    assert len(made) == 4
    for place, text in enumerate(texts):
        for mine, alone in zip(made.row(place), MODEL.documents([text]).row(0), strict=True):
            assert np.array_equal(mine, alone)


def test_threads_do_not_share_a_stemmer() -> None:
    texts = [f"running wells {n} queueing" for n in range(200)]
    wrong: list[int] = []
    expected = MODEL.documents(texts)

    def embed() -> None:
        made = MODEL.documents(texts)
        if not (
            np.array_equal(made.indices, expected.indices) and np.array_equal(made.values, expected.values)
        ):
            wrong.append(1)

    threads = [threading.Thread(target=embed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
