"""Globs: what each pattern matches, held against a plain evaluator; and that no pattern makes them slow."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plain_filters import globbed
from upwell.shard.glob import GLOB_CHARACTERS_MAX, matches

ALPHABET = "abzAé😀*?[]^-\\\n.!"

#: pattern, what it matches, what it does not
SAID: list[tuple[str, list[str], list[str]]] = [
    ("", [""], ["a"]),
    ("abc", ["abc"], ["ABC", "abcd", "xabc", ""]),
    ("*", ["", "a", "a\nb", "😀"], []),
    ("a*c", ["ac", "abc", "a\n\nc"], ["acb", "Ac"]),
    ("?", ["a", "é", "😀", "\n", "?"], ["", "ab"]),
    ("?[sz]*[^m-z]", ["Istanbul"[:2] + "k", "Izmia", "asa"], ["Istanbus", "Ankara", "as"]),
    ("[abc]", ["a", "b", "c"], ["d", "A", "ab", "", "[abc]"]),
    ("[a-cx]", ["a", "b", "c", "x"], ["d", "-"]),
    ("[^abc]", ["d", "A", "\n"], ["a", "", "dd"]),
    ("[^a-z]", ["A", "{", "-", "^"], ["a", "m", "z"]),
    ("[a^]", ["a", "^"], ["b"]),
    ("[]a]", ["]", "a"], ["[]a]", "b"]),
    ("[^]a]", ["b", "["], ["]", "a"]),
    ("[-a]", ["-", "a"], ["b"]),
    ("[a-]", ["-", "a"], ["b"]),
    ("[z-a]", [], ["z", "a", "m", "-"]),
    ("[^z-a]", ["z", "-"], [""]),
    ("[", ["["], ["", "a"]),
    ("[]", ["[]"], ["", "]"]),
    ("[^]", ["[^]"], ["a", "^"]),
    ("a[b", ["a[b"], ["ab"]),
    ("[*?]", ["*", "?"], ["a", ""]),
    ("[[]", ["["], ["]"]),
    (r"\*", ["\\", r"\abc"], ["*"]),
    (r"[\d]", ["\\", "d"], ["1"]),
    ("a.c$", ["a.c$"], ["abc", "abc$"]),
    ("(a|b)+", ["(a|b)+"], ["a", "b"]),
    ("[!a]", ["!", "a"], ["b"]),
    ("[à-ü]", ["é"], ["e", "É"]),
    ("\0*", ["\0", "\0a"], ["", "a"]),
]


@pytest.mark.parametrize(("pattern", "found", "left"), SAID, ids=lambda value: repr(value)[:20])
def test_what_a_pattern_matches(pattern: str, found: list[str], left: list[str]) -> None:
    assert matches(pa.array(found + left, pa.utf8()), pattern).tolist() == [True] * len(found) + [
        False
    ] * len(left)
    assert [globbed(pattern, word) for word in found + left] == [True] * len(found) + [False] * len(left)


@settings(max_examples=300, deadline=None)
@given(pattern=st.text(ALPHABET, max_size=8), words=st.lists(st.text(ALPHABET, max_size=6), max_size=8))
def test_any_pattern_matches_what_a_plain_evaluator_says(pattern: str, words: list[str]) -> None:
    words.append(pattern)
    assert matches(pa.array(words, pa.utf8()), pattern).tolist() == [globbed(pattern, word) for word in words]


@settings(max_examples=100, deadline=None)
@given(pattern=st.text(max_size=8), words=st.lists(st.text(max_size=8), max_size=4))
def test_any_character_is_matched_by_itself(pattern: str, words: list[str]) -> None:
    assert matches(pa.array(words, pa.utf8()), pattern).tolist() == [globbed(pattern, word) for word in words]


@pytest.mark.parametrize("words", [[], ["a"], ["b", "a"]])
def test_no_words_and_slices_of_words(words: list[str]) -> None:
    """What is asked may be a part of a longer array."""
    array = pa.array(["x", *words, "y"], pa.utf8()).slice(1, len(words))
    assert matches(array, "a").tolist() == [word == "a" for word in words]


@pytest.mark.parametrize(
    "pattern",
    [
        "a*" * (GLOB_CHARACTERS_MAX // 2 - 1) + "b",
        "*a" * (GLOB_CHARACTERS_MAX // 2 - 1) + "b",
        "*a" + "?" * (GLOB_CHARACTERS_MAX - 3) + "b",
        "*a" + "[^b]" * (GLOB_CHARACTERS_MAX // 4 - 1) + "b",
        "[^\x01-\u0fff]" * (GLOB_CHARACTERS_MAX // 6),
        "?" * GLOB_CHARACTERS_MAX,
        "[" * GLOB_CHARACTERS_MAX,
    ],
    ids=lambda pattern: repr(pattern[:12]),
)
def test_the_longest_and_worst_patterns_are_matched_in_linear_time(pattern: str) -> None:
    """A matcher that goes back would take longer than the universe; this one is done well within any test's time limit."""
    assert len(pattern) <= GLOB_CHARACTERS_MAX
    words = pa.array(["a" * 20_000, "ab" * 10_000 + "c", "é" * 10_000], pa.utf8())
    assert not matches(words, pattern).any()
