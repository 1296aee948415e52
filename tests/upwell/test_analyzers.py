"""Analyzers: the terms that Milvus finds, for ever the same, in any text; and what is refused."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.errors import Invalid
from upwell.text import filters, folding, letters
from upwell.text.analyzer import Analyzer, Token, analyzer_of, canonical
from upwell.text.filters import PLAIN, STEMMERS, Decompounder
from upwell.text.parameters import CHARACTERS_MAX, FILTERS_MAX
from upwell.text.stop_words import ELSEWHERE, ENGLISH, LISTS

MILVUS_CN = "Milvus 是 LF AI & Data Foundation 下的一个开源项目，以 Apache 2.0 许可发布。"
COMPOUNDS = ["dampf", "schiff", "fahrt", "brot", "backen", "automat"]


def custom(*filters: object, tokenizer: object = "standard") -> dict[str, Any]:
    return {"tokenizer": tokenizer, "filter": list(filters)}


#: The examples of Milvus's documentation, and what its sources say of the odd cases.
EXAMPLES: list[tuple[dict[str, Any], str, list[str]]] = [
    ({}, "The Milvus vector database is built for scale!",
     ["the", "milvus", "vector", "database", "is", "built", "for", "scale"]),
    ({"type": "standard", "stop_words": ["a", "an", "for"]},
     "An efficient system relies on a robust analyzer to correctly process text for various applications.",
     ["efficient", "system", "relies", "on", "robust", "analyzer", "to", "correctly", "process", "text",
      "various", "applications"]),
    ({"type": "standard", "stop_words": ["_english_"]}, "The cat and the hat", ["cat", "hat"]),
    ({"type": "english", "stop_words": ["a", "an", "the"]}, "Milvus is a vector database built for scale!",
     ["milvus", "vector", "databas", "built", "scale"]),
    # Stop words are looked for among stems.
    ({"type": "english"}, "inning Ins of the bees", ["inning", "bee"]),
    ({"type": "english", "stop_words": ["bee"]}, "bees buzzing", ["buzz"]),
    (custom(), "Don't STOP_words 3.14", ["Don", "t", "STOP", "words", "3", "14"]),
    ({"tokenizer": {"type": "standard", "uax29": False}}, "A b", ["A", "b"]),
    (custom("lowercase", tokenizer="whitespace"), "The Milvus vector\tdatabase is built\nfor scale!",
     ["the", "milvus", "vector", "database", "is", "built", "for", "scale!"]),
    (custom(tokenizer={"type": "whitespace"}), "a\x0bb c\x0cd\u00a0e\u3000f", ["a\x0bb", "c", "d\u00a0e\u3000f"]),
    (custom("asciifolding"), "Café Möller serves crème brûlée and piñatas.",
     ["Cafe", "Moller", "serves", "creme", "brulee", "and", "pinatas"]),
    (custom("asciifolding"), "Straße Œuvre Łódź Þórr ð ﬃ ⅷ", ["Strasse", "OEuvre", "Lodz", "THorr", "d", "ffi", "ⅷ"]),
    (custom("alphanumonly"), "Milvus 2.0 @ Scale! #AI #Vector_Databasé", ["Milvus", "2", "0", "Scale", "AI", "Vector"]),
    (custom("cnalphanumonly"), MILVUS_CN + " я",
     ["Milvus", "是", "LF", "AI", "Data", "Foundation", "下的一个开源项目", "以", "Apache", "2", "0", "许可发布"]),
    (custom("cncharonly"), MILVUS_CN, ["是", "下的一个开源项目", "以", "许可发布"]),
    (custom("removepunct", tokenizer="whitespace"), "Hello , world ! it's 5€ 。", ["Hello", "world", "5€"]),
    (custom({"type": "length", "max": 10}),
     "The length filter allows control over token length requirements for text processing.",
     ["The", "length", "filter", "allows", "control", "over", "token", "length", "for", "text", "processing"]),
    # Bytes are counted.
    (custom({"type": "length", "max": 3}), "abc abcd é éa éé 漢 漢字", ["abc", "é", "éa", "漢"]),
    (custom({"type": "length", "max": 0}), "a b", []),
    (custom({"type": "stop", "stop_words": ["of", "to", "_english_"]}),
     "The stop filter allows control over common stop words for text processing.",
     ["The", "stop", "filter", "allows", "control", "over", "common", "stop", "words", "text", "processing"]),
    ({"type": "standard", "stop_words": ["_german_", "_french_"]}, "Das Dach und même le toit der Über", ["dach", "toit"]),
    (custom({"type": "stop", "stop_words": ["_klingon_", ""]}), "_klingon_ klingon", ["klingon", "klingon"]),
    (custom({"type": "stemmer", "language": "English"}), "running runs looked ran runner",
     ["run", "run", "look", "ran", "runner"]),
    (custom({"type": "stemmer", "language": "dutch"}), "above absence", ["abov", "absenc"]),
    (custom({"type": "decompounder", "word_list": COMPOUNDS}), "dampfschifffahrt brotbackautomat",
     ["dampf", "schiff", "fahrt", "brotbackautomat"]),
    # As many characters as can be, though then the rest may not be a word.
    (custom({"type": "decompounder", "word_list": ["a", "ab", "b", "bc"]}), "abc aabb", ["abc", "a", "ab", "b"]),
]  # fmt: skip


@pytest.mark.parametrize(("params", "text", "expected"), EXAMPLES)
def test_terms_are_those_that_milvus_finds(params: dict[str, Any], text: str, expected: list[str]) -> None:
    assert analyzer_of(params).terms(text) == expected


#: What Rust's ``char::is_alphanumeric`` says, character by character.
LETTERS = [
    ("हिन्दी भाषा", ["हिन", "दी", "भाषा"]),  # vowel signs are alphabetic, the virama is not
    ("a\u0301b é", ["a", "b", "é"]),  # an accent by itself is not
    ("Ⓐx 🄰y ½z ²", ["ⓐx", "🄰y", "½z", "²"]),
    ("漢字かな交じり文", ["漢字かな交じり文"]),
    ("한국어 русский ΟΔΟΣ", ["한국어", "русский", "οδοσ"]),  # no sigma is a final one
    ("İSTANBUL ẞ ǅ", ["i̇stanbul", "ß", "ǆ"]),
    ("👩‍🔬a😀b𐐀c🇨🇳", ["a", "b𐐨c"]),
    ("\U00016ea0x Ᲊ", ["\U00016ebbx", "ᲊ"]),  # younger than Python 3.11
    ("a\0b \ud800c\udfff d", ["a", "b", "c", "d"]),
    ("", []),
    (" \n", []),
]


@pytest.mark.parametrize(("text", "expected"), LETTERS)
def test_letters_of_all_the_world_make_words(text: str, expected: list[str]) -> None:
    assert analyzer_of({}).terms(text) == expected


def test_what_was_once_a_term_is_so_for_ever() -> None:
    """Tables read off tantivy. With another Python they must not change: rows are kept by them."""
    characters = [chr(one) for one in range(0x34000)]  # none above is anything
    words = analyzer_of({}).terms(" ".join(characters))
    assert len(words) == 149_106
    # Each in lower case as Rust has it: i with a dot of its own, too.
    assert _digest(words) == "a8ee7ac90f431e0c6a3be7c42708d149d8e0f9b089072ad965fbbaff32c201b1"
    unfolded = characters[:0x20000]
    made = folding.fold("\0".join(unfolded)).split("\0")[1:]  # NUL itself makes two of nothing
    folded = [(one, text) for one, text in zip(unfolded, made, strict=True) if one != text != ""]
    assert len(folded) == 1_242
    assert dict(folded).items() >= {"Å": "A", "ﬄ": "ffl", "Þ": "TH", "⑽": "(10)", "„": '"', "ə": "a"}.items()
    assert all(text.isascii() for _, text in folded)


def test_the_lists_of_stop_words_are_those_of_tantivy() -> None:
    sizes = {name: len(words) for name, words in LISTS.items()}
    assert sizes == {
        "_english_": 33, "_danish_": 94, "_dutch_": 101, "_finnish_": 229, "_french_": 154, "_german_": 231,
        "_hungarian_": 198, "_italian_": 279, "_norwegian_": 172, "_portuguese_": 203, "_russian_": 159,
        "_spanish_": 308, "_swedish_": 114,
    }  # fmt: skip
    listed = [f"{name} {word}" for name, words in sorted(LISTS.items()) for word in sorted(words)]
    assert _digest(listed) == "de5ad9d585fbabf80bc76975b3b9ccc5cad4564df7e10de560302ca18d1c2286"


def _digest(words: list[str]) -> str:
    return hashlib.sha256("".join(word + "\n" for word in words).encode()).hexdigest()


#: A word of each language, and its stem. A newer Snowball may not change them.
STEMS = {
    "arabic": ("يكتبون", "يكتب"), "arabig": ("يكتبون", "يكتب"), "danish": ("husene", "hus"),
    "dutch": ("lichamelijk", "licham"), "english": ("relational", "relat"), "finnish": ("taloissa", "talo"),
    "french": ("continuellement", "continuel"), "german": ("häuser", "haus"), "greek": ("ανθρωποι", "ανθρωπ"),
    "hungarian": ("házakban", "ház"), "italian": ("parlavano", "parl"), "norwegian": ("husene", "hus"),
    "portuguese": ("falando", "fal"), "romanian": ("frumoasele", "frumoas"), "russian": ("книгами", "книг"),
    "spanish": ("hablando", "habl"), "swedish": ("husen", "hus"), "tamil": ("மரங்கள்", "மரங்"),
    "turkish": ("evlerimizde", "ev"),
}  # fmt: skip


def test_every_language_has_its_stemmer() -> None:
    assert STEMS.keys() == STEMMERS.keys()
    for language, (word, stem) in STEMS.items():
        told = custom({"type": "stemmer", "language": language}, tokenizer="whitespace")
        assert analyzer_of(told).terms(word) == [stem], language


# Against a plain evaluator.

ALPHABET = "aAbB9_-. \t\n\x0b\0éÉßİΣςﬁ漢一👩😀𐐀𝐀न्ी\u0301،。\u3000\ud800"
TEXTS = st.text(st.sampled_from(ALPHABET) | st.characters(), max_size=60)
WORDS = st.text(st.sampled_from("aAbBéß漢"), min_size=1, max_size=4)
FILTERS = st.one_of(
    st.sampled_from(sorted(PLAIN)),
    st.builds(lambda words: {"type": "stop", "stop_words": words}, st.lists(WORDS, max_size=3)),
    st.builds(lambda most: {"type": "length", "max": most}, st.integers(0, 6)),
    st.builds(
        lambda words: {"type": "decompounder", "word_list": words}, st.lists(WORDS, min_size=1, max_size=6)
    ),
)
PARAMS = st.builds(
    lambda tokenizer, filters: {"tokenizer": tokenizer, "filter": filters},
    st.sampled_from(["standard", "whitespace"]),
    st.lists(FILTERS, max_size=4),
)


def _is_in(character: str, ranges: str) -> bool:
    ends = (one.split("-") for one in ranges.split())
    return any(int(one[0], 16) <= ord(character) <= int(one[-1], 16) for one in ends)


def _plain_words(text: str, tokenizer: str) -> Iterator[tuple[int, str]]:
    """Each word, and where it begins in the text."""

    def in_word(placed: tuple[int, str]) -> bool:
        if tokenizer == "standard":
            return _is_in(placed[1], letters.ALPHANUMERIC)
        return placed[1] not in " \t\n\r\x0c" and unicodedata.category(placed[1]) != "Cs"

    for is_word, run in groupby(enumerate(text), in_word):
        if is_word:
            places, characters = zip(*run, strict=True)
            yield places[0], "".join(characters)


def _plain_filter(word: str, told: Any) -> list[str]:
    if isinstance(told, dict):
        match told["type"]:
            case "stop":
                return [] if word in told["stop_words"] else [word]
            case "length":
                return [word] if len(word.encode()) <= told["max"] else []
            case _:
                return _plain_parts(word, told["word_list"])
    has_han = any(_is_in(one, letters.HAN) for one in word)
    is_ascii = [one.isascii() and one.isalnum() for one in word]
    changed = {
        "lowercase": "".join("σ" if one == "Σ" else letters.lowered(one) for one in word),
        "asciifolding": "".join(map(folding.fold, word)),
    }
    kept = {
        "alphanumonly": all(is_ascii),
        "cncharonly": has_han,
        "cnalphanumonly": has_han or any(is_ascii),
        "removepunct": not any(
            _is_in(one, letters.PUNCTUATION) or _is_in(one, letters.WHITE_SPACE) for one in word
        ),
    }
    return [changed.get(told, word)] if kept.get(told, True) else []


def _plain_parts(word: str, words: list[str]) -> list[str]:
    parts, rest = [], word
    while rest:
        part = max((one for one in words if rest.startswith(one)), key=len, default="")
        if not part:
            return [word]
        parts.append(part)
        rest = rest.removeprefix(part)
    return parts


@given(PARAMS, TEXTS)
def test_any_analyzer_finds_what_a_plain_evaluator_does(params: dict[str, Any], text: str) -> None:
    expected = []
    for position, (start, word) in enumerate(_plain_words(text, params["tokenizer"])):
        terms = [word]
        for told in params["filter"]:
            terms = [made for term in terms for made in _plain_filter(term, told)]
        start_bytes = len(text[:start].encode("utf-8", "surrogatepass"))
        end_bytes = start_bytes + len(word.encode())
        expected += [Token(term, start_bytes, end_bytes, position) for term in terms]
    analyzer = analyzer_of(params)
    assert analyzer.tokens(text) == expected
    assert analyzer.terms(text) == [token.term for token in expected]


@given(st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=8), st.text("ab", max_size=14))
def test_compounds_fall_into_their_parts(words: list[str], word: str) -> None:
    assert Decompounder(words)([word] if word else []) == _plain_parts(word, words)


@given(TEXTS)
def test_any_text_can_be_stemmed(text: str) -> None:
    analyzer = analyzer_of({"type": "english"})
    terms = analyzer.terms(text)
    assert [token.term for token in analyzer.tokens(text)] == terms
    assert all(term and term not in ENGLISH for term in terms)
    "".join(terms).encode()


def test_parts_stand_where_their_compound_does() -> None:
    told = custom(
        "lowercase", {"type": "stop", "stop_words": ["die"]}, {"type": "decompounder", "word_list": COMPOUNDS}
    )
    assert analyzer_of(told).tokens("Ü: die Dampfschiff Fahrt") == [
        Token("ü", 0, 2, 0),
        Token("dampf", 8, 19, 2),
        Token("schiff", 8, 19, 2),
        Token("fahrt", 20, 25, 3),
    ]


def test_one_analyzer_is_used_by_many_threads() -> None:
    """A stemmer has state, which another thread must never see."""
    analyzer = analyzer_of({"type": "english"})
    alone = analyzer_of(custom("lowercase", {"type": "stemmer", "language": "english"}))
    texts = [
        f"relational{number % 7}s hopping conditional{number % 5} generously" * 20 for number in range(64)
    ]
    expected = [alone.terms(text) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(4):
            assert list(threads.map(analyzer.terms, texts)) == expected
    both = Barrier(2)

    def own() -> object:
        both.wait(30)
        return filters._stemmer("english")

    # As long as a stemmer keeps Python's lock, one that is shared would do no harm that could be seen.
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda _: own(), range(2))
    assert one is not other


def test_long_texts_of_any_shape_are_analyzed() -> None:
    """Not how fast: but with anything that is not linear this would not end."""
    told = [{}, {"type": "english"}, custom(*sorted(PLAIN), tokenizer="whitespace")]
    told.append(custom({"type": "decompounder", "word_list": ["a", *("a" * n + "b" for n in range(1, 63))]}))
    shapes = ["a", " ", "a ", "😀", "a😀", "é ", "!", "漢", "\0", "ing", "\u0301", "aab"]
    for params in told:
        for shape in shapes:
            text = shape * (65_535 // len(shape.encode()))
            assert "".join(analyzer_of(params).terms(text)).count("\0") in (0, 65_535)


# The same parameters are the same analyzer; and which there are not.


def test_the_same_parameters_are_one_analyzer() -> None:
    one = analyzer_of({"tokenizer": "standard", "filter": ["lowercase"]})
    assert analyzer_of({"filter": ["lowercase"], "tokenizer": "standard"}) is one
    assert isinstance(one, Analyzer)
    assert canonical({"b": 1, "a": ["é"]}) == '{"a":["é"],"b":1}'
    assert json.loads(canonical({"type": "english"})) == {"type": "english"}


DEEP: Any = []
for _ in range(100_000):
    DEEP = [DEEP]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": 1}, "analyzer type shoud be string"),
    ({"type": "klingon"}, "unknown build-in analyzer type: klingon: it does not exist"),
    ({"type": "chinese"}, "unknown build-in analyzer type: chinese: it is not supported here"),
    ({"type": "standard", "filter": []}, "unknown option of the standard analyzer key: filter"),
    ({"type": "english", "stop_words": "a"}, "filter stop_words should be array"),
    ({"type": "standard", "stop_words": [1]}, "filter stop_words list item should be string"),
    ({"type": "standard", "stop_words": ["_chinese_"]}, "the stop words _chinese_ are not supported here"),
    ({"filter": []}, "tokenizer name or type must be set"),
    ({"tokenizer": ["standard"]}, "tokenizer name should be string or dict"),
    ({"tokenizer": {}}, "costum tokenizer must set type"),
    ({"tokenizer": {"type": 1}}, "tokenizer type should be string"),
    ({"tokenizer": "jieba"}, "unsupported tokenizer: jieba; there are standard, whitespace"),
    ({"tokenizer": {"type": "lindera", "dict_kind": "ipadic"}}, "unsupported tokenizer: lindera"),
    ({"tokenizer": "icu"}, "unsupported tokenizer: icu"),
    ({"tokenizer": {"type": "language_identifier"}}, "unsupported tokenizer: language_identifier"),
    ({"tokenizer": {"type": "standard", "uax29": True}}, "uax29 is not supported here"),
    ({"tokenizer": {"type": "standard", "uax29": 1}}, "uax29 must be a boolean"),
    ({"tokenizer": {"type": "whitespace", "uax29": False}}, "unknown option of the whitespace tokenizer key: uax29"),
    ({"tokenizer": "standard", "char_filter": []}, "unknown analyzer option key: char_filter"),
    ({"tokenizer": "standard", "filter": "lowercase"}, "filter params should be array"),
    (custom(1), "filter should be string or dict"),
    (custom("stop"), "build analyzer failed, filter not found :stop"),
    (custom({}), "no type field in filter params"),
    (custom({"type": []}), "filter type should be string"),
    (custom({"type": "regex", "expr": "^a"}), "unsupport filter type: regex"),
    (custom({"type": "lowercase"}), "unsupport filter type: lowercase"),
    (custom({"type": "stop"}), "stop_words should be array"),
    (custom({"type": "stop", "stop_words_file": {}}), "stop_words_file is not supported here"),
    (custom({"type": "stop", "stop_words": [], "case": 1}), "unknown option of the stop filter key: case"),
    (custom({"type": "length"}), "lenth max param was none or not uint"),
    *((custom({"type": "length", "max": bad}), "not uint") for bad in (-1, 1.5, True, "3", None)),
    (custom({"type": "stemmer"}), "stemmer language field should be string"),
    (custom({"type": "stemmer", "language": "klingon"}), "unsupport language: klingon"),
    (custom({"type": "decompounder"}), "decompounder word list should be array"),
    (custom({"type": "decompounder", "word_list": []}), "decompounder word list is empty"),
    (custom({"type": "decompounder", "word_list": [1]}), "decompounder word list item should be string"),
    (custom({"type": "decompounder", "word_list": [""]}), "should have 1 to 64 characters"),
    (custom({"type": "decompounder", "word_list": ["a" * 65]}), "should have 1 to 64 characters"),
    (custom({"type": "decompounder", "word_list_file": {}}), "word_list_file is not supported here"),
    (custom(*["lowercase"] * (FILTERS_MAX + 1)), f"at most {FILTERS_MAX} are allowed"),
    ({"type": "standard", "stop_words": ["a" * CHARACTERS_MAX]}, f"at most {CHARACTERS_MAX} are allowed"),
    (custom(DEEP), "analyzer params are nested too deeply"),
    *((custom({"type": "stop", "stop_words": [name]}), name) for name in sorted(ELSEWHERE)),
]  # fmt: skip


@pytest.mark.parametrize(("params", "message"), REFUSED)
def test_what_there_is_not_is_refused_by_name(params: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as refused:
        analyzer_of(params)
    assert message in refused.value.detail
    assert len(refused.value.detail) < 400
