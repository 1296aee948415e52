"""Analyzers: which terms a text has, as told by Milvus's ``analyzer_params``. For doors, and for filters of words.

    {}                                    as {"type": "standard"}: words in lower case
    {"type": "english"}                   also without English stop words, and stemmed
    {"tokenizer": …, "filter": [...]}     one's own

The same parameters and text give the same terms for ever: rows are kept by them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from upwell.errors import Invalid

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Token:
    """A term where it stands. ``start`` and ``end``: bytes of UTF-8 of the text; ``position``: how many words come before it."""

    term: str
    start: int
    end: int
    position: int


class Analyzer:
    """Finds the terms of texts. Immutable; any number of threads."""

    def terms(self, text: str) -> list[str]:
        """In order, each as often as it is there."""
        return [word.lower() for word in _WORD.findall(text)]


def analyzer_of(params: Mapping[str, Any]) -> Analyzer:
    """The analyzer that these parameters describe. Raises Invalid, in Milvus's words, for what there is not."""
    return _known(canonical(params))


def canonical(params: Mapping[str, Any]) -> str:
    """Parameters as a text: the same for the same ones."""
    return json.dumps(params, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


@lru_cache(maxsize=256)
def _known(params: str) -> Analyzer:
    if json.loads(params) not in ({}, {"type": "standard"}):
        raise Invalid("unsupported analyzer")
    return Analyzer()
