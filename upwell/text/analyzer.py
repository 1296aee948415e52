"""Analyzers: which terms a text has, as told by Milvus's ``analyzer_params``. For doors, and for filters of words.

    {}                                    as {"type": "standard"}: words in lower case
    {"type": "english"}                   also stemmed, and without English stop words
    {"tokenizer": …, "filter": [...]}     one's own

What analyzes is named and told what to do as in Milvus, and says the same of wrong parameters, but for this: an option that nothing knows of
is refused, where Milvus passes some of them over. What Milvus has besides (Chinese, Japanese and Korean words, regular expressions, files)
is refused by name.

The same parameters and text give the same terms for ever: rows are kept by them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from upwell.errors import Invalid
from upwell.text.filters import Filter
from upwell.text.parameters import canonical, read
from upwell.text.tokenizers import Tokenizer

__all__ = ["Analyzer", "Token", "analyzer_of", "canonical"]

#: Analyzers that are kept ready.
_KNOWN_MAX = 32


class Token(NamedTuple):
    """A term where it stands. ``start`` and ``end``: bytes of UTF-8 of the text; ``position``: how many words come before it.

    These are the word's out of which the term was made: words that a filter leaves out count as well, and the parts of a compound
    stand where it does.
    """

    term: str
    start: int
    end: int
    position: int


class Analyzer:
    """Finds the terms of texts. Immutable; any number of threads."""

    def __init__(self, tokenizer: Tokenizer, filters: Sequence[Filter]) -> None:
        self._tokenizer = tokenizer
        self._filters = tuple(filters)

    def terms(self, text: str) -> list[str]:
        """In order, each as often as it is there. No term has surrogates; one of which a stemmer leaves nothing is empty. Takes time linear
        in the text."""
        return self._filtered(self._tokenizer(text).findall(text))

    def tokens(self, text: str) -> list[Token]:
        """The same terms, with where they stand."""
        found: list[Token] = []
        made: dict[str, list[str]] = {}  # of each word, which often come again
        is_ascii, seen, seen_bytes = text.isascii(), 0, 0
        for position, match in enumerate(self._tokenizer(text).finditer(text)):
            word = match.group()
            start, end = match.span()
            if not is_ascii:
                seen_bytes += _bytes(text[seen:start])
                start, seen = seen_bytes, end
                end = seen_bytes = start + _bytes(word)
            terms = made.get(word)
            if terms is None:
                terms = made[word] = self._filtered([word])
            found.extend(Token(term, start, end, position) for term in terms)
        return found

    def placed(self, texts: Iterable[str]) -> Iterator[tuple[list[str], list[int]]]:
        """The terms of many texts, one text at a time, and their positions: as ``tokens`` has them, but a word that comes again costs little."""
        made: dict[str, list[str]] = {}
        for text in texts:
            terms: list[str] = []
            positions: list[int] = []
            for position, word in enumerate(self._tokenizer(text).findall(text)):
                some = made.get(word)
                if some is None:
                    some = made[word] = self._filtered([word])
                for term in some:
                    terms.append(term)
                    positions.append(position)
            yield terms, positions

    def _filtered(self, words: list[str]) -> list[str]:
        for one in self._filters:
            words = one(words)
        return words


def analyzer_of(params: Mapping[str, Any]) -> Analyzer:
    """The analyzer that these parameters describe. Raises Invalid, in Milvus's words, for what there is not."""
    return _known(canonical(params))


@lru_cache(maxsize=_KNOWN_MAX)
def _known(params: str) -> Analyzer:
    try:
        told = json.loads(params)
    except RecursionError:
        raise Invalid("analyzer params are nested too deeply") from None
    return Analyzer(*read(told))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
