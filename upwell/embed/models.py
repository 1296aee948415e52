"""All models of a process, by name: each is loaded once, when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from upwell.changeset import Matrix
from upwell.clock import Clock, SystemClock
from upwell.embed import sentence_transformers, wordllama
from upwell.embed.bm25 import Bm25Model
from upwell.embed.configuration import (
    BUILTIN_DENSE,
    BUILTIN_SPARSE,
    Bm25Settings,
    DenseSettings,
    SentenceTransformersSettings,
    ServerSettings,
    WordLlamaSettings,
    plain_name,
)
from upwell.embed.model import DenseModel, SparseModel
from upwell.errors import Invalid
from upwell.settings import Settings
from upwell.sparse import Sparse, concat_sparse

#: Texts that a sparse model takes in one turn.
SPARSE_TEXTS_AT_ONCE = 256

_Value = TypeVar("_Value")


class Models:
    """What ``embedding_models`` and ``sparse_embedding_models`` name, and what is built in. For any number of threads.

    Made once a process. Raises Invalid when made if a configured model needs a package or a key that is not there.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._dense_settings: Mapping[str, DenseSettings] = BUILTIN_DENSE | settings.embedding_models
        self._sparse_settings: Mapping[str, Bm25Settings] = BUILTIN_SPARSE | settings.sparse_embedding_models
        self._clock = clock or SystemClock()
        self._turns = threading.Semaphore(settings.embedding_jobs)
        self._loading = threading.Lock()
        self._dense: dict[str, DenseModel] = {}
        self._sparse: dict[str, SparseModel] = {}
        self._keys = {name: _checked(name, model) for name, model in settings.embedding_models.items()}

    def known_dense(self) -> tuple[str, ...]:
        """The plain names of all dense models, sorted."""
        return tuple(sorted(self._dense_settings))

    def known_sparse(self) -> tuple[str, ...]:
        """The plain names of all sparse models, sorted."""
        return tuple(sorted(self._sparse_settings))

    def dense_dimensions(self, name: str) -> int:
        """How many dimensions the dense model's vectors have; loads nothing. Raises Invalid for a name that is not known."""
        settings = self._find(self._dense_settings, name, "embedding model")
        _checked(plain_name(name), settings)
        return wordllama.DIMENSIONS if isinstance(settings, WordLlamaSettings) else settings.dimensions

    def dense(self, name: str) -> DenseModel:
        """The dense model. Raises Invalid for a name that is not known, and ModelAway if it cannot be loaded just now."""
        settings = self._find(self._dense_settings, name, "embedding model")
        return self._loaded(self._dense, plain_name(name), lambda plain: self._load_dense(plain, settings))

    def sparse(self, name: str) -> SparseModel:
        """The sparse model. Raises Invalid for a name that is not known."""
        self._find(self._sparse_settings, name, "sparse embedding model")
        return self._loaded(self._sparse, plain_name(name), lambda plain: _SparseInTurns(plain, self._turns))

    def close(self) -> None:
        """Let go of connections and threads; calls that wait for a server end soon with ModelAway."""
        with self._loading:
            for model in self._dense.values():
                close: Callable[[], None] | None = getattr(model, "close", None)
                if close is not None:
                    close()

    def _find(self, known: Mapping[str, _Value], name: str, what: str) -> _Value:
        found = known.get(plain_name(name))
        if found is None:
            raise Invalid(f"there is no {what} {name[:64]!r} here; known are {', '.join(sorted(known))}")
        return found

    def _loaded(self, loaded: dict[str, _Value], plain: str, load: Callable[[str], _Value]) -> _Value:
        """One model, made by the first who asks. What failed to load is tried again by the next."""
        model = loaded.get(plain)
        if model is None:
            with self._loading:
                model = loaded.get(plain)
                if model is None:
                    model = loaded[plain] = load(plain)
        return model

    def _load_dense(self, plain: str, settings: DenseSettings) -> DenseModel:
        if isinstance(settings, ServerSettings):
            from upwell.embed.openai import OpenAIModel  # noqa: PLC0415  its HTTP client takes 60 ms to import

            return OpenAIModel(plain, settings, self._clock, self._keys[plain])
        if isinstance(settings, SentenceTransformersSettings):
            return _DenseInTurns(
                sentence_transformers.SentenceTransformersModel(plain, settings), self._turns
            )
        return _DenseInTurns(wordllama.WordLlamaModel(plain), self._turns)


def _checked(name: str, settings: DenseSettings) -> str | None:
    """The model's key, if it has one. Raises Invalid if something it needs is not there."""
    if isinstance(settings, WordLlamaSettings) and not wordllama.is_installed():
        raise Invalid(f"embedding model {name} needs the package wordllama: pip install wordllama")
    if isinstance(settings, SentenceTransformersSettings) and not sentence_transformers.is_installed():
        raise Invalid(
            f"embedding model {name} needs sentence-transformers: pip install 'upwell[sentence-transformers]'"
        )
    try:
        return settings.key() if isinstance(settings, ServerSettings) else None
    except ValueError as error:
        raise Invalid(f"embedding model {name} has no API key: {error}") from error


class _DenseInTurns:
    """A model that computes in this process, by a bounded number of threads at once; a long call lets others in between."""

    def __init__(self, model: DenseModel, turns: threading.Semaphore) -> None:
        self.name = model.name
        self.dimensions = model.dimensions
        self.texts_at_once = model.texts_at_once
        self._model = model
        self._turns = turns

    def embed(self, texts: Sequence[str]) -> Matrix:
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), self.texts_at_once):
            end = start + self.texts_at_once
            with self._turns:
                vectors[start:end] = self._model.embed(texts[start:end])
        return vectors


class _SparseInTurns:
    """The same for BM25."""

    def __init__(self, name: str, turns: threading.Semaphore) -> None:
        self.name = name
        self._model = Bm25Model(name)
        self._turns = turns

    def documents(self, texts: Sequence[str]) -> Sparse:
        return self._made(self._model.documents, texts)

    def queries(self, texts: Sequence[str]) -> Sparse:
        return self._made(self._model.queries, texts)

    def _made(self, make: Callable[[Sequence[str]], Sparse], texts: Sequence[str]) -> Sparse:
        parts = []
        for start in range(0, len(texts), SPARSE_TEXTS_AT_ONCE):
            with self._turns:
                parts.append(make(texts[start : start + SPARSE_TEXTS_AT_ONCE]))
        return concat_sparse(parts)
