"""What becomes of words before they are terms: each of them becomes none, one or several, whatever stands around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from itertools import accumulate
from typing import Final

from Stemmer import Stemmer

from upwell.text.folding import fold
from upwell.text.letters import HAN, PUNCTUATION, WHITE_SPACE, lowered, run_of

#: Any number of threads may share one.
Filter = Callable[[list[str]], list[str]]

_HAN_OR_ASCII: Final = f"30-39 41-5a 61-7a {HAN}"
_PUNCTUATION: Final = f"{PUNCTUATION} {WHITE_SPACE}"
#: In no word, and untouched by what is done to all words at once.
_BETWEEN: Final = "\n"

#: The stemmer of each language. Snowball's of today; Milvus's are some years older, and do not always agree: "internal" stays here what it
#: is, and is "intern" there. Of Dutch there are two, and Milvus has the older one.
STEMMERS: Final = {
    "arabig": "arabic",  # Milvus's own mistake, which it takes as well
    "dutch": "dutch_porter",
} | {
    one: one
    for one in (
        *("arabic", "danish", "english", "finnish", "french", "german", "greek", "hungarian", "italian"),
        *("norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish"),
    )
}


def lowercase(words: list[str]) -> list[str]:
    """All in lower case."""
    return _all_at_once(words, lowered)


def asciifolding(words: list[str]) -> list[str]:
    """Accents taken off."""
    return _all_at_once(words, fold)


def alphanumonly(words: list[str]) -> list[str]:
    """Only those that are letters and digits of ASCII."""
    return [word for word in words if word.isascii() and word.isalnum()]


def cncharonly(words: list[str]) -> list[str]:
    """Only those with a Chinese character in them."""
    found = run_of(HAN)
    return [word for word in words if found.search(word)]


def cnalphanumonly(words: list[str]) -> list[str]:
    """Only those with a Chinese character in them, or a letter or digit of ASCII."""
    found = run_of(_HAN_OR_ASCII)
    return [word for word in words if found.search(word)]


def removepunct(words: list[str]) -> list[str]:
    """Only those without punctuation or whitespace in them."""
    found = run_of(_PUNCTUATION)
    return [word for word in words if not found.search(word)]


#: The filters that are told nothing, by name.
PLAIN: Final[dict[str, Filter]] = {
    one.__name__: one
    for one in (lowercase, asciifolding, alphanumonly, cncharonly, cnalphanumonly, removepunct)
}


def stopping(stop_words: Collection[str]) -> Filter:
    """All but these."""
    stopped = frozenset(stop_words)
    return lambda words: [word for word in words if word not in stopped]


def at_most(bytes_max: int) -> Filter:
    """Only those that are not longer, in UTF-8."""
    return lambda words: [
        word for word in words if len(word) <= bytes_max and len(word.encode()) <= bytes_max
    ]


def stemming(language: str) -> Filter:
    """Each as its stem, by a name of STEMMERS."""
    algorithm = STEMMERS[language]

    def stems(words: list[str]) -> list[str]:
        found: list[str] = _stemmer(algorithm).stemWords(words)
        return found

    return stems


def _stemmer(algorithm: str) -> Stemmer:
    """It has state, so each thread has its own."""
    own: dict[str, Stemmer] = _OF_THREAD.__dict__
    if algorithm not in own:
        own[algorithm] = Stemmer(algorithm)
    return own[algorithm]


_OF_THREAD: Final = threading.local()


class Decompounder:
    """Compounds as their parts, if they are made of nothing but words of a list. The longest word that fits is taken, each time.

    Takes time linear in a compound: what was read beyond the end of a part is not read again. The words are a tree of their characters,
    and each of its nodes knows what is to be done where a compound goes on as none of the words does.
    """

    def __init__(self, word_list: Iterable[str]) -> None:
        #: Of each node: the node that follows by a character.
        self._next: list[dict[str, int]] = [{}]
        #: Of each node: the lengths of the parts that it turns out to be, and the node that the rest of it is. None: it has no parts.
        self._back: list[_Back | None] = [None]
        level = [(0, word) for word in set(word_list)]
        # Level by level, since what is to be done at one is known from those above.
        for depth in range(1, max((len(word) for _, word in level), default=0) + 1):
            level = [(self._child(node, word, depth), word) for node, word in level if len(word) >= depth]
            for node, word in level:
                if len(word) == depth:
                    self._back[node] = (depth,), 0

    def __call__(self, words: list[str]) -> list[str]:
        """The parts of each, or itself."""
        # Words come again, those that are parts above all; and most begin as no part does.
        first = self._next[0]
        parts = {word: self._parts(word) for word in set(words) if word and word[0] in first}
        return [part for word in words for part in parts.get(word, (word,))]

    def _child(self, node: int, word: str, depth: int) -> int:
        character = word[depth - 1]
        child = self._next[node].get(character)
        if child is None:
            child = self._next[node][character] = len(self._back)
            self._next.append({})
            back = self._back[node]
            self._back.append(None if back is None else self._step(*back, character))
        return child

    def _step(self, lengths: tuple[int, ...], node: int, character: str) -> _Back | None:
        """What is known after one more character; None: this is no compound."""
        while (child := self._next[node].get(character)) is None:
            back = self._back[node]
            if back is None:
                return None
            lengths, node = lengths + back[0], back[1]
        return lengths, child

    def _parts(self, word: str) -> list[str]:
        node, lengths = 0, list[int]()
        following = self._next
        for character in word:
            # A call of ``_step`` for each character would take five times as long.
            while (child := following[node].get(character)) is None:
                back = self._back[node]
                if back is None:
                    return [word]
                lengths.extend(back[0])
                node = back[1]
            node = child
        while node:
            back = self._back[node]
            if back is None:
                return [word]
            lengths.extend(back[0])
            node = back[1]
        ends = list(accumulate(lengths))
        return [word[end - length : end] for end, length in zip(ends, lengths, strict=True)]


_Back = tuple[tuple[int, ...], int]


def _all_at_once(words: list[str], change: Callable[[str], str]) -> list[str]:
    return change(_BETWEEN.join(words)).split(_BETWEEN) if words else words
