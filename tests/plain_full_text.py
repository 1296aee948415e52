"""Full-text search by its definition: what BM25 says of texts that are words with spaces between them, in plain Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import log
from typing import Any

from upwell.text.counts import dimension_of

#: A text field, and the sparse one that a function fills.
TEXT_FIELDS: list[dict[str, Any]] = [
    {"fieldName": "text", "dataType": "VarChar", "elementTypeParams": {"max_length": "65535", "enable_analyzer": True}},
    {"fieldName": "sparse", "dataType": "SparseFloatVector"},
]  # fmt: skip
FUNCTION: dict[str, Any] = {
    "name": "bm25",
    "type": "BM25",
    "inputFieldNames": ["text"],
    "outputFieldNames": ["sparse"],
}


def bm25_scores(query: str, texts: Mapping[Any, str], k1: float = 1.2, b: float = 0.75) -> dict[Any, float]:
    """The scores of the texts that have one of the query's words, by their keys."""
    counts = {key: Counter(text.lower().split()) for key, text in texts.items()}
    lengths = {key: counted.total() for key, counted in counts.items()}
    scores: dict[Any, float] = {}
    for word, asked in Counter(query.lower().split()).items():
        having = [key for key, counted in counts.items() if counted[word]]
        idf = log((len(texts) - len(having) + 0.5) / (len(having) + 0.5) + 1)
        for key in having:
            average = sum(lengths.values()) / len(texts)
            tf = counts[key][word]
            damped = tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths[key] / average))
            scores[key] = scores.get(key, 0.0) + asked * idf * damped
    return scores


def counted(text: str) -> tuple[tuple[int, float], ...]:
    """How often a text has each of its words, by their dimensions: the sparse vector of its row."""
    counts = Counter(map(dimension_of, text.lower().split()))
    return tuple((index, float(count)) for index, count in sorted(counts.items()))


def ranked(scores: Mapping[Any, float]) -> list[Any]:
    """Keys, best first."""
    return sorted(scores, key=lambda key: -scores[key])
