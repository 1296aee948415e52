"""Texts as sparse vectors: how often each term is there. What BM25 makes of the counts, it makes when a query asks (query/sparse.py).

A term's dimension is the low 31 bits of its xxh32, for ever the same; terms that meet in one dimension count together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import xxhash

from upwell.sparse import Sparse
from upwell.text.analyzer import Analyzer

_INDEX_MASK = 0x7FFF_FFFF


def dimension_of(term: str) -> int:
    """A term's dimension: not negative, below 2^31."""
    return xxhash.xxh32_intdigest(term.encode()) & _INDEX_MASK


def term_counts(analyzer: Analyzer, texts: Iterable[str], go_on: Callable[[], None] = lambda: None) -> Sparse:
    """One vector a text, its dimensions ascending; a text without terms has none. ``go_on`` is called before each text, and may raise to
    end it: a slow analyzer takes a second for a text of 64 KiB."""
    rows: list[Any] = []
    for text in texts:
        go_on()
        counts = Counter(map(dimension_of, analyzer.terms(text)))
        indices = sorted(counts)
        # As arrays at once: of long texts the numbers would take ten times as much as Python's.
        values = np.fromiter(map(counts.__getitem__, indices), np.float32, len(indices))
        rows.append((np.array(indices, np.int32), values))
    return Sparse.of(rows)
