"""The built-in sparse model: BM25, for English.

    weight of a term in a document = tf * (k1 + 1) / (tf + k1 * (1 - b + b * |D| / average))

tf: how often the term is in the document, |D|: how many terms the document has. k1 = 1.2, b = 0.75, and the average is taken to be 32, since
a text is embedded without knowing the others. This is Okapi BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework:
BM25 and Beyond", 2009, formula 3.15 with the usual k1 + 1) without its last factor, the inverse document frequency: that one depends on
what the index holds by then, and is applied when a query asks for it. A query has 1 for each of its terms.

Terms are words (letters and digits, with apostrophes inside) after NFKC and in lower case, without stop words, stemmed by Snowball's English
stemmer. A term's dimension is the low 31 bits of its xxh32, for ever the same; terms that meet in one dimension add up. A text
without terms is a vector without entries.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from Stemmer import Stemmer

from upwell.sparse import Sparse
from upwell.text.counts import dimension_of
from upwell.text.stop_words import ENGLISH

K1 = 1.2
B = 0.75
TERMS_AVERAGE = 32
#: Entries of one vector; of a text with more dimensions the heaviest are kept, of equals those with the lowest index.
ENTRIES_MAX = 1_000

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class Bm25Model:
    """BM25 under a name. Refuses no text."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._own = threading.local()

    def documents(self, texts: Sequence[str]) -> Sparse:
        """One vector a text: how much each of its terms says about it."""
        return Sparse.of([_entries(_weights(self._terms(text))) for text in texts])

    def queries(self, texts: Sequence[str]) -> Sparse:
        """One vector a text: 1 for each of its terms."""
        return Sparse.of([_entries(dict.fromkeys(self._terms(text), 1.0)) for text in texts])

    def _terms(self, text: str) -> list[str]:
        stemmer = getattr(self._own, "stemmer", None)
        if stemmer is None:
            stemmer = self._own.stemmer = Stemmer("english")  # it has state, so each thread has its own
        stems: list[str] = stemmer.stemWords(words(text))
        return stems


def words(text: str) -> list[str]:
    """The words of ``text`` that count, not yet stemmed, in order."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return [word for word in _WORD.findall(plain) if word not in ENGLISH]


def _weights(terms: Sequence[str]) -> dict[str, float]:
    damping = K1 * (1 - B + B * len(terms) / TERMS_AVERAGE)
    return {term: tf * (K1 + 1) / (tf + damping) for term, tf in Counter(terms).items()}


def _entries(weights: dict[str, float]) -> tuple[Sequence[int], Sequence[float]]:
    """The weights by dimension, ascending, ENTRIES_MAX at most."""
    summed: dict[int, float] = {}
    for term, weight in weights.items():
        index = dimension_of(term)
        summed[index] = summed.get(index, 0.0) + weight
    kept: Iterable[tuple[int, float]] = summed.items()
    if len(summed) > ENTRIES_MAX:
        kept = sorted(summed.items(), key=_heaviest_first)[:ENTRIES_MAX]
    indices = sorted(index for index, _ in kept)
    return indices, [summed[index] for index in indices]


def _heaviest_first(entry: tuple[int, float]) -> tuple[float, int]:
    index, weight = entry
    return -weight, index
