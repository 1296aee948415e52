"""What a model promises, and how many texts are embedded of which some may be refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from upwell.changeset import Matrix
from upwell.errors import ModelAway, TextRefused
from upwell.sparse import Sparse

#: A text that no model has a reason to refuse: who refuses even this one has another trouble than the text.
PLAIN_TEXT = "hello"


class DenseModel(Protocol):
    """Turns each text into one dense vector. May be called by several threads at once."""

    @property
    def name(self) -> str:
        """The plain name it is known by (``configuration.plain_name``)."""
        ...

    @property
    def dimensions(self) -> int:
        """Of each of its vectors."""
        ...

    @property
    def texts_at_once(self) -> int:
        """With how many texts a call is well filled. More are taken too, but then one failure costs the vectors of all of them."""
        ...

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text: float32, (n, dimensions), C-contiguous, all finite.

        A text's vector does not depend on its neighbours. Raises ModelAway if it should be tried again later, and TextRefused if at
        least one of ``texts`` will never be taken (``embed_each`` finds out which).
        """
        ...


class SparseModel(Protocol):
    """Turns each text into one sparse vector, as a document or as a question. May be called by several threads at once."""

    @property
    def name(self) -> str:
        """The plain name it is known by (``configuration.plain_name``)."""
        ...

    def documents(self, texts: Sequence[str]) -> Sparse:
        """One vector a text that is to be found."""
        ...

    def queries(self, texts: Sequence[str]) -> Sparse:
        """One vector a text that is looked for."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """The vectors of many texts, but for those that were refused.

    ``vectors``  float32 (n, dimensions); rows of refused texts are zero and mean nothing
    ``refused``  why, by the text's place
    """

    vectors: Matrix
    refused: Mapping[int, TextRefused]


def embed_each(model: DenseModel, texts: Sequence[str]) -> Embedded:
    """Embed ``texts``, and find out by halves which are refused, so that the others get their vectors all the same.

    Best called with ``model.texts_at_once`` texts or fewer: raises ModelAway as ``embed`` does, and then nothing is known of any text.
    A model that refuses even the plainest text is taken to be away: no text of ours is to blame for that.
    """
    vectors = np.zeros((len(texts), model.dimensions), np.float32)
    refused: dict[int, TextRefused] = {}
    spans = [(0, len(texts))] if texts else []
    takes_some = False
    while spans:
        start, end = spans.pop()
        try:
            vectors[start:end] = model.embed(texts[start:end])
            takes_some = True
        except TextRefused as error:
            if not takes_some:
                _prove_sound(model, error)
                takes_some = True
            if end - start == 1:
                refused[start] = error
            else:
                middle = (start + end) // 2
                spans += [(middle, end), (start, middle)]
    return Embedded(vectors, refused)


def _prove_sound(model: DenseModel, refusal: TextRefused) -> None:
    """Does the model take any text? Raises ModelAway if not."""
    try:
        model.embed([PLAIN_TEXT])
    except TextRefused as error:
        raise ModelAway(f"embedding model {model.name} refuses every text: {error.detail}") from refusal


def checked_vectors(found: npt.NDArray[Any], name: str, count: int, dimensions: int) -> Matrix:
    """What a model made of ``count`` texts, as ``DenseModel.embed`` promises it. Raises ModelAway if that cannot be."""
    if found.dtype.kind not in "fiu":
        raise nonsense(name, "vectors that are not made of numbers")
    if found.ndim != 2 or len(found) != count:
        raise nonsense(name, f"{len(found) if found.ndim else 0} vectors for {count} texts")
    if found.shape[1] != dimensions:
        raise nonsense(name, f"vectors of {found.shape[1]} dimensions, expected {dimensions}")
    with np.errstate(over="ignore"):  # what is too large for float32 is found below
        vectors = np.ascontiguousarray(found, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise nonsense(name, "numbers that are not finite")
    return vectors


def nonsense(name: str, what: str) -> ModelAway:
    """The error for a model that answers what no model should: it may be repaired, so it counts as away."""
    return ModelAway(f"embedding model {name} answered {what}")


def whole_unicode(text: str) -> str:
    """``text`` as it can be written in UTF-8: halves of surrogate pairs are joined, and one alone becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
