"""A dense model that runs in this process by sentence-transformers, an extra: ``pip install 'upwell[sentence-transformers]'``.

The package is imported when the first such model is loaded. How long a text may be is the model's own affair; it cuts what is longer. Texts
of one batch are padded to the longest, which a model masks out; so the last bits of a vector may depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from upwell.changeset import Matrix
from upwell.embed.configuration import SentenceTransformersSettings
from upwell.embed.model import checked_vectors, whole_unicode
from upwell.errors import ModelAway

_PACKAGE = "sentence_transformers"
#: What torch, its tokenizers and its hub raise: files that are not there, no network, no memory, devices that are gone.
_FAILURES = (OSError, RuntimeError, ValueError)


class SentenceTransformersModel:
    """One of its models under a name. Loads it when made, which may take long and, unless it is a folder's, a network."""

    def __init__(self, name: str, settings: SentenceTransformersSettings) -> None:
        self.name = name
        self.dimensions = settings.dimensions
        self.texts_at_once = settings.texts_per_batch
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415  an extra, and seconds of work

            self._model = SentenceTransformer(settings.sentence_transformers, device=settings.device)
        except (*_FAILURES, ImportError) as error:
            raise ModelAway(f"embedding model {name} cannot be loaded: {error}") from error

    def embed(self, texts: Sequence[str]) -> Matrix:
        """One vector a text, as the model has it: whether it is of unit length is the model's own choice."""
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        try:
            found = self._model.encode(
                [whole_unicode(text) for text in texts],
                batch_size=self.texts_at_once, convert_to_numpy=True, show_progress_bar=False,
            )  # fmt: skip
        except _FAILURES as error:
            raise ModelAway(f"embedding model {self.name} failed: {error}") from error
        return checked_vectors(np.asarray(found), self.name, len(texts), self.dimensions)


def is_installed() -> bool:
    """Is the extra there?"""
    return find_spec(_PACKAGE) is not None
