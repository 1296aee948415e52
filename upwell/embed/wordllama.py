"""The built-in dense model: WordLlama, 256 dimensions, which ships in its wheel and is never downloaded.

A text's vector is the mean of its tokens' vectors (a table of 32,000) as the library computes it with ``norm=True``: of unit length, so that
it suits every metric. Only the two files are taken from the package, and the package itself is not imported: that would set up
logging for the whole process, and its ``embed`` pads all texts to the longest one, so that one long text costs gigabytes. A test holds our
vectors to the library's.

An empty text has no tokens, and its vector is zero. Every other text has tokens: what the table does not know is spelt in bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from upwell.changeset import Matrix
from upwell.embed.model import nonsense, whole_unicode
from upwell.errors import Invalid, ModelAway

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DIMENSIONS = 256
#: What is behind that many characters of a text does not count. Models have such limits (here about 8,000 tokens), and so memory has one.
TEXT_CHARS_MAX = 32_768
#: Texts that are tokenized in one go.
TEXTS_AT_ONCE = 256

_PACKAGE = "wordllama"
_TOKENIZER = Path("tokenizers", "l2_supercat_tokenizer_config.json")
_WEIGHTS = Path("weights", "l2_supercat_256.safetensors")


@dataclass(frozen=True, slots=True, eq=False)
class _Files:
    """What the package brings; never changed once loaded, so threads may share it."""

    tokenizer: Tokenizer
    table: Matrix


class WordLlamaModel:
    """WordLlama under a name. Loads its files when made, about 0.15 s and 46 MiB the first time in a process."""

    dimensions = DIMENSIONS
    texts_at_once = TEXTS_AT_ONCE

    def __init__(self, name: str) -> None:
        self.name = name
        self._files = _load()

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text, by the same arithmetic whatever its neighbours are. Refuses no text; longer ones are cut."""
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = [whole_unicode(text[:TEXT_CHARS_MAX]) for text in texts[start : start + TEXTS_AT_ONCE]]
            # As a batch, since only then the tokenizer lets other threads run meanwhile; "fast" leaves out where in the text tokens are.
            encoded = self._files.tokenizer.encode_batch_fast(some, add_special_tokens=False)
            for place, encoding in enumerate(encoded, start):
                tokens = encoding.ids
                if tokens:
                    vectors[place] = _unit(self._files.table[tokens].sum(axis=0))
        return vectors


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.sqrt(np.square(vector, dtype=np.float64).sum())
    return np.asarray(vector / length, dtype=np.float32) if length else vector


def is_installed() -> bool:
    """Is the package there? It is not where it has no wheel."""
    return find_spec(_PACKAGE) is not None


@cache
def _load() -> _Files:
    """The tokenizer and the table, from the package's folder. Raises Invalid if it is not installed, ModelAway if it is damaged."""
    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise Invalid("the built-in model wordllama needs the package wordllama: pip install wordllama")
    # Workers share the cores already; and a pool of threads does not survive a fork. Whoever sets it himself has his way.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from safetensors import safe_open  # noqa: PLC0415  paid for by who embeds
    from tokenizers import Tokenizer  # noqa: PLC0415

    folder = Path(found.submodule_search_locations[0])
    try:
        tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        with safe_open(folder / _WEIGHTS, framework="np") as weights:
            table = np.ascontiguousarray(weights.get_tensor("embedding.weight"), dtype=np.float32)
    except Exception as error:  # both libraries raise bare exceptions of their own
        raise ModelAway(f"the files of the built-in model wordllama cannot be read: {error}") from error
    if table.ndim != 2 or table.shape[1] != DIMENSIONS or len(table) < tokenizer.get_vocab_size():
        raise nonsense("wordllama", f"a table of shape {table.shape}")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return _Files(tokenizer, table)
