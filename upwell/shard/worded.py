"""Which of many texts have the words, or say the phrase, that a filter asks for. Texts are told apart into terms by an analyzer (``upwell/text``).

To analyze a text takes some ten microseconds and more, so what was found out is kept: for each term, which texts have it, in about a third
of the memory that the texts themselves take; and once a phrase is asked for, where in them it stands, in two thirds of it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse

from upwell.recent import Recent
from upwell.shard.deletions import Mask
from upwell.text.analyzer import Analyzer, analyzer_of

#: The terms of a phrase, each with its position.
Phrase = Sequence[tuple[int, str]]
GoOn = Callable[[], None]

#: Of a term in a phrase: no text that is asked for has more words.
POSITION_MAX: Final = 1_000_000
#: Analyzers for which one column keeps what it found. A field has one for ever.
ANALYZERS_KEPT: Final = 2
#: Texts that are looked at together, and after how many, or how many characters of them, others get their turn: these take a millisecond,
#: unless the analyzer is a slow one.
_BLOCK: Final = 1_024
_TURN: Final = 64
_TURN_CHARACTERS: Final = 32_768
_PAUSE_S: Final = 0.000_1
_OTHERS_POLL_S: Final = 0.05
#: Where terms of a phrase stand, looked at at once, unless one text alone has more.
_PLACES_MAX: Final = 1 << 20
#: More terms than this are found by hashing all that there are.
_LOOKED_UP_MAX: Final = 256

N = TypeVar("N", bound=np.generic)
Numbers = npt.NDArray[np.int64]
Places = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class _Postings:
    """For each term which texts have it, ascending: term i has ``texts[starts[i]:starts[i + 1]]``. Terms ascend by their bytes.

    ``positions``: where it stands in each; then a text is there as often as it has the term. None: nothing is known of that.
    """

    terms: pa.Array
    starts: Numbers
    texts: Places
    positions: npt.NDArray[np.unsignedinteger] | None

    @classmethod
    def of(cls, found: _Found) -> Self:
        """What was found, turned round."""
        unified = pa.chunked_array(found.terms, _TERMS).unify_dictionaries()
        dictionary = unified.chunk(0).dictionary if unified.num_chunks else pa.array([], pa.large_utf8())
        order = pc.sort_indices(dictionary)
        place = np.empty(len(dictionary), np.int32)
        place[order.to_numpy()] = np.arange(len(dictionary), dtype=np.int32)
        codes = [place[chunk.indices.to_numpy()] for chunk in unified.chunks]
        columns = np.concatenate([np.empty(0, np.int32), *codes])
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(found.lengths, dtype=np.int64)])
        values = np.ones(len(columns), np.int8)
        if found.positions is not None:
            values = np.concatenate([np.empty(0, np.uint32), *found.positions])
            values = values.astype(np.min_scalar_type(int(values.max(initial=0))))
        # This neither adds up what is there twice, nor changes the order of that.
        shape = (len(found.lengths), max(1, len(dictionary)))
        matrix = scipy.sparse.csr_array((values, columns, ends), shape=shape).tocsc()
        starts = np.asarray(matrix.indptr, np.int64)[: len(dictionary) + 1]
        positions = None if found.positions is None else matrix.data
        return cls(dictionary.take(order), starts, np.asarray(matrix.indices, np.uint32), positions)

    def places(self, terms: Collection[str]) -> dict[str, int]:
        """Where those of some terms are that any text has."""
        if len(terms) > _LOOKED_UP_MAX:
            found = pc.index_in(pa.array(terms, self.terms.type), value_set=self.terms).to_pylist()
            return {term: place for term, place in zip(terms, found, strict=True) if place is not None}
        return {term: place for term in terms if (place := self._place(term)) is not None}

    def _place(self, term: str) -> int | None:
        low, high, wanted = 0, len(self.terms), term.encode()
        while low < high:
            middle = (low + high) // 2
            here: str = self.terms[middle].as_py()
            if here.encode() < wanted:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self.terms) and self.terms[low].as_py() == term else None

    def range(self, place: int) -> slice:
        """Where the postings of the term at this place are."""
        return slice(self.starts[place], self.starts[place + 1])


_TERMS: Final = pa.dictionary(pa.int32(), pa.large_utf8())


class _Found:
    """What was found in the first texts of some, as they follow: their terms, and where these stand if that is asked for."""

    def __init__(self, *, positions: bool) -> None:
        self.terms: list[pa.Array] = []
        self.lengths: list[int] = []
        self.positions: list[Places] | None = [] if positions else None

    def add(self, analyzer: Analyzer, texts: Sequence[str], go_on: GoOn) -> None:
        """Analyze some more texts: all of them, or those until it is ended."""
        terms: list[str] = []
        places: list[int] = []
        lengths: list[int] = []
        placed = analyzer.placed(_in_turns(texts, go_on))
        words = ((set(analyzer.terms(text)), ()) for text in _in_turns(texts, go_on))
        try:
            for own, stand in words if self.positions is None else placed:
                terms += own
                places += stand
                lengths.append(len(own))
        finally:
            self.terms.append(pa.array(terms, pa.large_utf8()).dictionary_encode())
            self.lengths += lengths
            if self.positions is not None:
                self.positions.append(np.array(places, np.uint32))


def _in_turns(texts: Sequence[str], go_on: GoOn) -> Iterator[str]:
    """The texts one by one, with a look now and then whether to go on."""
    count = characters = 0
    go_on()
    for text in texts:
        if count >= _TURN or characters >= _TURN_CHARACTERS:
            # Without a pause Python lets others wait for five milliseconds.
            time.sleep(_PAUSE_S)
            go_on()
            count = characters = 0
        yield text
        count += 1
        characters += len(text)


class _Once:
    """The postings of texts, made once: by one thread, while others wait."""

    def __init__(self, analyzer: Analyzer, *, positions: bool) -> None:
        self._analyzer = analyzer
        self._positions = positions
        self._lock = Lock()
        self._found = _Found(positions=positions)
        self.made: _Postings | None = None

    def of(self, texts: pa.Array, go_on: GoOn) -> _Postings:
        """The postings. What was found before ``go_on`` ended it is kept, and the next one goes on from there."""
        while self.made is None:
            if not self._lock.acquire(timeout=_OTHERS_POLL_S):
                go_on()
                continue
            try:
                if self.made is None:
                    while (done := len(self._found.lengths)) < len(texts):
                        self._found.add(self._analyzer, texts.slice(done, _BLOCK).to_pylist(), go_on)
                    self.made = _Postings.of(self._found)
                    self._found = _Found(positions=self._positions)
            finally:
                self._lock.release()
        return self.made


class Worded:
    """The texts of a column, asked by one analyzer. Whoever asks gives the same texts each time: Arrow utf8 without nulls.

    Safe to share. What takes long calls ``go_on`` now and then, which may raise to end it.
    """

    def __init__(self, analyzer: Analyzer) -> None:
        """Nothing is analyzed before something is asked."""
        self._words = _Once(analyzer, positions=False)
        self._places = _Once(analyzer, positions=True)

    def having(self, texts: pa.Array, terms: Sequence[str], least: int, go_on: GoOn) -> Mask:
        """Which texts have at least ``least`` (1 and more) of the terms: bool (texts,). A term that is given twice counts twice."""
        mask = np.zeros(len(texts), dtype=bool)
        if len(terms) < least:
            return mask
        postings = self._words.of(texts, go_on)
        times = Counter(terms)
        counts = np.zeros(len(texts) if least > 1 else 0, np.int32)
        for number, (term, place) in enumerate(postings.places(times.keys()).items()):
            if number % _TURN == 0:
                go_on()
            if least == 1:
                mask[postings.texts[postings.range(place)]] = True
            else:
                counts[postings.texts[postings.range(place)]] += times[term]
        return mask if least == 1 else counts >= least

    def saying(self, texts: pa.Array, phrase: Phrase, slop: int, go_on: GoOn) -> Mask:
        """Which texts say the phrase: bool (texts,). One without terms is in none.

        Wherever a term of the phrase stands, it says where the phrase would begin. It is said if each of its terms can be taken from a
        place such that all of these beginnings lie within ``slop`` of one another: with 0 it is there as it is, with 2 two neighbours
        may have changed places, or two other words be in between. One word may serve for two equal terms.
        """
        mask = np.zeros(len(texts), dtype=bool)
        terms = {term for _, term in phrase}
        if len(phrase) <= 1:
            return self.having(texts, list(terms), 1, go_on)
        postings = self._places.of(texts, go_on)
        ranges = {term: postings.range(place) for term, place in postings.places(terms).items()}
        if len(ranges) < len(terms):
            return mask
        candidates, *others = sorted((_distinct(postings.texts[one]) for one in ranges.values()), key=len)
        for other in others:
            candidates = candidates[_are_among(candidates, other)]
        waiting = [candidates[start : start + _BLOCK] for start in range(0, len(candidates), _BLOCK)]
        while waiting:
            some = waiting.pop()
            if len(some) > 1 and _places_in(postings, some, ranges, phrase) > _PLACES_MAX:
                waiting += np.array_split(some, 2)
            else:
                mask[some[_saying(postings, some, ranges, phrase, slop=slop, go_on=go_on)]] = True
        return mask


def _places_in(postings: _Postings, some: Places, ranges: Mapping[str, slice], phrase: Phrase) -> int:
    """About how many places there are where one of the phrase's terms stands."""
    return sum(
        int(np.diff(np.searchsorted(postings.texts[ranges[term]], [some[0], some[-1] + 1]))[0])
        for _, term in phrase
    )


def _saying(
    postings: _Postings, some: Places, ranges: Mapping[str, slice], phrase: Phrase, *, slop: int, go_on: GoOn
) -> Numbers:
    """Those of ``some`` texts, by their place there, that say the phrase; ``ranges``: the postings of its terms, which all of them have."""
    assert postings.positions is not None
    stands: dict[str, tuple[Numbers, Numbers]] = {}
    for term, here in ranges.items():
        texts, positions = postings.texts[here], postings.positions[here]
        first, last = np.searchsorted(texts, [some[0], some[-1] + 1])
        texts, positions = texts[first:last], positions[first:last]
        own = _are_among(texts, some)
        stands[term] = np.searchsorted(some, texts[own]), positions[own].astype(np.int64)
    longest = max(int(positions.max()) for _, positions in stands.values())
    reach = max(place for place, _ in phrase)
    # Beyond, no two beginnings in one text are; and those of one text lie so far from those of the next.
    slop = min(slop, longest + reach)
    width = longest + reach + slop + 1
    keys = {term: texts * width + positions for term, (texts, positions) in stands.items()}
    begins = [keys[term] + (reach - place) for place, term in dict.fromkeys(phrase)]
    begins.sort(key=len)
    # A span of beginnings starts with one of them.
    spans = begins[0] if slop == 0 else _distinct(np.sort(np.concatenate(begins), kind="stable"))
    for one in begins:
        go_on()
        following = np.searchsorted(one, spans)
        near = following < len(one)
        near[near] = one[following[near]] <= spans[near] + slop
        spans = spans[near]
    return _distinct(np.sort(spans // width))


def _distinct(ascending: npt.NDArray[N]) -> npt.NDArray[N]:
    first = np.ones(len(ascending), dtype=bool)
    first[1:] = ascending[1:] != ascending[:-1]
    return np.asarray(ascending[first])


def _are_among(places: Places, ascending: Places) -> Mask:
    """Which of some places are among others."""
    found = np.searchsorted(ascending, places)
    found[found == len(ascending)] = 0
    return np.asarray(ascending[found] == places)


class WordedBy:
    """What is known of a column's texts, for each analyzer by which they were asked: the last few."""

    def __init__(self) -> None:
        self._kept = Recent[str, Worded](ANALYZERS_KEPT)

    def by(self, analyzer: str) -> Worded:
        """The texts asked by an analyzer, told as canonical JSON."""
        return self._kept.of(analyzer, lambda: Worded(analyzer_of(json.loads(analyzer))))
