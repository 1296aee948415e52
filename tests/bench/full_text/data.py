"""What is loaded and asked: seeded texts of words as unequally common as a language's, queries of three words, and their exact answers.

    python -m tests.bench.full_text.data --out FOLDER [--texts N] [--queries N]

Each text has 30 to 90 words, in sentences with capitals, commas and full stops. A vocabulary's n-th word is as common as 1 / (n + 2.7), which
is Zipf's law as Mandelbrot has it for English. A query's words differ from one another; they are drawn in two ways:

as in texts   so that most queries have one of the very commonest words, which half of the texts or more have
telling       the same, without the hundred commonest: what is left once stop words are
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

SEED = 17
WORDS = 50_000
SHIFT = 2.7
SHORTEST, LONGEST = 30, 90
SENTENCE_WORDS, COMMA_EVERY = 12, 5
QUERY_WORDS = 3
STOP_WORDS = 100
SYLLABLES = "ba con dor el fin gar ho in jus ket lam mon nor op per qui ras sen tol un ver wis yan zor"
#: From so common on, words have a syllable more: long before those that are shorter run out.
SYLLABLES_MORE_FROM = (12, 300, 6_000)
#: Of every store's, and of the exact answers.
K1, B = 1.2, 0.75
TOP_K = 10
#: Of two scores that differ by less, either may come first: some stores reckon in float32.
TIED = 1e-5

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Data:
    """Texts, whose ids are their places, and the queries of each case."""

    texts: list[str]
    queries: dict[str, list[str]]

    def write(self, folder: Path) -> None:
        """Write it for ``read``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What was written."""
        return cls(**json.loads((folder / "data.json").read_text()))


def generate(texts: int, queries: int, seed: int = SEED) -> Data:
    """Seeded data."""
    generator = np.random.default_rng(seed)
    words = np.array(_vocabulary(generator))
    weights = 1 / (np.arange(1, len(words) + 1) + SHIFT)
    lengths = generator.integers(SHORTEST, LONGEST, texts, endpoint=True)
    drawn = generator.choice(words, int(lengths.sum()), p=weights / weights.sum()).tolist()
    ends = np.cumsum(lengths).tolist()
    made = [_written(drawn[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    telling = np.where(np.arange(len(words)) < STOP_WORDS, 0, weights)
    cases = {"as in texts": weights, "telling": telling}
    asked = {
        case: [
            " ".join(generator.choice(words, QUERY_WORDS, replace=False, p=chances / chances.sum()))
            for _ in range(queries)
        ]
        for case, chances in cases.items()
    }
    return Data(made, asked)


def _vocabulary(generator: np.random.Generator) -> list[str]:
    """Made-up words, each once: the common ones short, as in a language."""
    syllables = SYLLABLES.split()
    found: dict[str, None] = {}
    while len(found) < WORDS:
        many = 1 + sum(len(found) >= one for one in SYLLABLES_MORE_FROM)
        found["".join(generator.choice(syllables, many))] = None
    return list(found)


def _written(words: Sequence[str]) -> str:
    """Words as sentences."""
    parts = []
    for start in range(0, len(words), SENTENCE_WORDS):
        sentence = list(words[start : start + SENTENCE_WORDS])
        sentence[0] = sentence[0].capitalize()
        commas = range(0, len(sentence), COMMA_EVERY)
        clauses = [" ".join(sentence[place : place + COMMA_EVERY]) for place in commas]
        parts.append(", ".join(clauses) + ".")
    return " ".join(parts)


class Exact:
    """BM25 by its definition, of words in lower case without their commas and full stops: for each word the texts that have it, and how often.

    This is neither the service's analyzer nor its arithmetic, so that it can say whether they are right.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        split = [text.lower().replace(",", "").replace(".", "").split() for text in texts]
        self._lengths = np.array([len(words) for words in split], np.float64)
        numbers: dict[str, int] = {}
        drawn = np.array([numbers.setdefault(word, len(numbers)) for words in split for word in words])
        rows = np.repeat(np.arange(len(split)), self._lengths.astype(np.int64))
        pairs, self._counts = np.unique(drawn * len(split) + rows, return_counts=True)
        self._numbers, self._rows = numbers, pairs % len(split)
        self._starts = np.searchsorted(pairs, np.arange(len(numbers) + 1) * len(split))

    def scores(self, query: str) -> Scores:
        """The score of each text; 0 of those that have none of the words."""
        found = np.zeros(len(self._lengths))
        for word in query.split():
            if word not in self._numbers:
                continue
            part = slice(*self._starts[self._numbers[word] : self._numbers[word] + 2].tolist())
            rows, tf = self._rows[part], self._counts[part]
            idf = np.log((len(found) - len(rows) + 0.5) / (len(rows) + 0.5) + 1)
            damped = tf + K1 * (1 - B + B * self._lengths[rows] / self._lengths.mean())
            found[rows] += idf * tf * (K1 + 1) / damped
        return found


@dataclass(frozen=True, slots=True)
class Judged:
    """How the answers of a store agree with the exact ones."""

    #: Of all that belong among the first ten.
    agreeing: float
    #: The largest difference of a score from the exact one, as a share of it.
    scores_off: float


def judge(exact: Exact, queries: Sequence[str], answers: Sequence[Sequence[tuple[int, float]]]) -> Judged:
    """Ids and scores that were found for the first of the queries. A text that scores as the tenth does belongs among the ten as well.

    Raises RuntimeError for an id that came twice in an answer.
    """
    agreeing, expected, off = 0, 0, 0.0
    for query, answer in zip(queries, answers, strict=False):
        scores = exact.scores(query)
        wanted = min(TOP_K, int(np.count_nonzero(scores)))
        least = np.partition(scores, -TOP_K)[-TOP_K] * (1 - TIED) if len(scores) >= TOP_K else 0.0
        ids = [id for id, _ in answer]
        if len(set(ids)) != len(ids):
            raise RuntimeError(f"an id came twice for {query!r}")
        expected += wanted
        agreeing += sum(1 for id in ids if scores[id] > 0 and scores[id] >= least)
        off = max([off, *(abs(score / scores[id] - 1) for id, score in answer if scores[id] > 0)])
    return Judged(agreeing / expected if expected else 1.0, float(off))


def main() -> None:
    """Run it as a command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    generate(options.texts, options.queries).write(options.out)


if __name__ == "__main__":
    main()
