"""Vectors for the texts of a batch: made before the batch is decided, by whoever applies it or by somebody ahead of him.

Order is not touched by it: of a batch only a beginning is applied whose vectors are all there. A mutation has all of its vectors or fails;
one text that a model will never take fails its whole mutation, with the reason. A model that is away keeps an index waiting, for
``patience_s`` at most: after that, mutations fail that have waited so long themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from upwell.catalog.record import IndexRecord
from upwell.changeset import Changeset, Matrix
from upwell.clock import Clock
from upwell.embed.model import Embedded, embed_each
from upwell.embed.models import Models
from upwell.errors import Invalid, ModelAway, TextRefused, Unavailable
from upwell.failpoint import Step, reached
from upwell.log.embedded import EmbeddedEntries, Made, MadeOfEntry
from upwell.shard.batch import Pending
from upwell.sparse import Sparse

#: So many texts are taken on at once; at least those of one entry.
RUN_TEXTS = 2_048
#: What took longer is kept, whoever needs it: what becomes of the batch must not cost it.
KEPT_AFTER_S = 1.0
#: How long, and how often, what somebody else is making is waited for. Then the batch is tried again later.
OTHERS_WAIT_S = 30.0
OTHERS_POLL_S = 0.005


class TextClaims(Protocol):
    """Who makes the vectors of which entry. Blocking; never raises: without it everybody makes them all."""

    def claim_texts(self, position: int) -> bool:
        """Is this entry ours to embed? True for one who asks, for a while; for everyone when Redis is away."""
        ...

    def ask_for_embedding(self) -> None:
        """Let others embed what comes later in the log."""
        ...

    def went_on(self) -> None:
        """Some vectors more are made, or some texts more are asked for the words of a filter. Who makes many of them, with a slow model, or
        asks many, does not hang."""
        ...


class NoClaims:
    """For one who works alone."""

    def claim_texts(self, position: int) -> bool:  # noqa: ARG002  it is a TextClaims'
        """Always ours."""
        return True

    def ask_for_embedding(self) -> None:
        """There is nobody to ask."""

    def went_on(self) -> None:
        """There is nobody who would wait."""


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    """A mutation whose vectors are to be made."""

    position: int
    place: int
    changeset: Changeset


class Embedding:
    """Makes the vectors of one index's texts. Blocking; safe to share between threads."""

    def __init__(
        self,
        entries: EmbeddedEntries,
        record: IndexRecord,
        models: Callable[[], Models],
        clock: Clock,
        patience_s: float,
    ) -> None:
        self._entries = entries
        self._record = record
        self._models = models
        self._clock = clock
        self._patience_s = patience_s
        #: Monotonic seconds: since when every try has found a model away; None: the last one did not.
        self._away_since: float | None = None

    def completed(
        self, batch: Sequence[Pending], claims: TextClaims, *, keep: bool, behind: bool = False
    ) -> list[Pending]:
        """The longest beginning of a batch, by whole entries, that can have its vectors now, with them. With ``keep`` what is made here
        is kept for others who need the same; so is what took long. ``behind``: the log goes on after the batch, so that others are asked to begin there.

        Raises ModelAway if not even the first entry can, Unavailable if somebody else takes long to make its vectors.
        """
        waiting = _positions(batch)
        if not waiting:
            return list(batch)
        made = self._read(batch)
        missing = [position for position in waiting if position not in made]
        if missing:
            run = self._claimed(batch, missing, claims)
            if behind or len(run) < len(missing):
                claims.ask_for_embedding()
            if not run and missing[0] == batch[0].position:
                return self._others(batch, missing[0], claims)
            began = self._clock.monotonic()
            try:
                made |= self._make(run, claims)
            except ModelAway as error:
                return self._without_model(batch, made, error)
            if keep or self._clock.monotonic() - began > KEPT_AFTER_S:
                for position in {one.position for one in run}:
                    self._entries.keep(position, made[position])
        ends = next((position for position in waiting if position not in made), None)
        return [_with_vectors(one, made) for one in batch if ends is None or one.position < ends]

    def kept(self, batch: Sequence[Pending]) -> list[Pending] | None:
        """A batch with vectors that others have kept; None if any are not there."""
        made = self._read(batch)
        if len(made) < len(_positions(batch)):
            return None
        return [_with_vectors(one, made) for one in batch]

    def _read(self, batch: Sequence[Pending]) -> dict[int, MadeOfEntry]:
        """What is kept, of each entry of which it is all there. Who left mutations out when he made them kept fewer."""
        made = {position: self._entries.read(position) or {} for position in _positions(batch)}
        lacking = {one.position for one in _texts(batch) if one.place not in made[one.position]}
        return {position: found for position, found in made.items() if position not in lacking}

    def ahead(self, entries: Iterable[list[Pending]], claims: TextClaims) -> int:
        """Make and keep the vectors of entries that nobody is at, up to RUN_TEXTS texts; returns of how many entries.
        Raises ModelAway."""
        run: list[_Text] = []
        texts = 0
        for entry in entries:
            its = _texts(entry)
            if not its or not claims.claim_texts(entry[0].position):
                continue
            run += its
            texts += sum(len(one.changeset) for one in its)
            if texts >= RUN_TEXTS:
                break
        made = self._make(run, claims)
        for position, found in made.items():
            self._entries.keep(position, found)
        return len(made)

    def _claimed(self, batch: Sequence[Pending], missing: Sequence[int], claims: TextClaims) -> list[_Text]:
        """Texts of the first entries that need vectors: those that we claim, up to RUN_TEXTS or the first that another has."""
        by_entry: dict[int, list[_Text]] = {}
        for one in _texts(batch):
            by_entry.setdefault(one.position, []).append(one)
        run: list[_Text] = []
        texts = 0
        for position in missing:
            if texts >= RUN_TEXTS or not claims.claim_texts(position):
                break
            texts += sum(len(one.changeset) for one in by_entry[position])
            run += by_entry[position]
        return run

    def _others(self, batch: Sequence[Pending], first: int, claims: TextClaims) -> list[Pending]:
        """Wait for what somebody else makes of the first entry; should he let go of it, it is ours to make."""
        deadline = time.monotonic() + OTHERS_WAIT_S
        entry = [one for one in batch if one.position == first]
        while time.monotonic() < deadline:
            if self._entries.exists(first) or claims.claim_texts(first):
                return self.completed(entry, NoClaims(), keep=False)
            time.sleep(OTHERS_POLL_S)
        raise Unavailable("the vectors of its texts are being made", index=self._record.id, position=first)

    def _make(self, run: Sequence[_Text], claims: TextClaims) -> dict[int, dict[int, Made]]:
        """Make the vectors of mutations, by their positions and places. Raises ModelAway: then none are made."""
        if not run:
            return {}
        texts = [text for one in run for text in one.changeset.data.to_pylist()]  # type: ignore[union-attr]
        reached(Step.EMBED_BEFORE)
        try:
            dense, sparse = self._dense(texts, claims), self._sparse(texts)
        except ModelAway:
            if self._away_since is None:
                self._away_since = self._clock.monotonic()
            raise
        self._away_since = None
        reached(Step.EMBED_AFTER)
        made: dict[int, dict[int, Made]] = {}
        start = 0
        for one in run:
            rows = np.arange(start, start + len(one.changeset))
            start += len(rows)
            made.setdefault(one.position, {})[one.place] = _made(dense, sparse, rows)
        return made

    def _dense(self, texts: Sequence[str], claims: TextClaims) -> Embedded | None:
        name = self._record.embedding_model
        if name is None or not self._record.kind.has_dense:
            return None
        try:
            model = self._models().dense(name)
        except Invalid as error:
            # This process is not told of the model; that can be mended.
            raise ModelAway(error.detail) from error
        if model.dimensions != self._record.dimensions:
            says = f"embedding model {name} has {model.dimensions} dimensions, the index {self._record.dimensions}"
            raise ModelAway(says)
        vectors = np.empty((len(texts), model.dimensions), np.float32)
        refused: dict[int, TextRefused] = {}
        for start in range(0, len(texts), model.texts_at_once):
            some = embed_each(model, texts[start : start + model.texts_at_once])
            vectors[start : start + len(some.vectors)] = some.vectors
            refused |= {start + place: why for place, why in some.refused.items()}
            claims.went_on()
        return Embedded(vectors, refused)

    def _sparse(self, texts: Sequence[str]) -> Sparse | None:
        name = self._record.sparse_embedding_model
        if name is None or not self._record.kind.has_sparse:
            return None
        try:
            return self._models().sparse(name).documents(texts)
        except Invalid as error:
            raise ModelAway(error.detail) from error

    def _without_model(
        self, batch: Sequence[Pending], made: Mapping[int, MadeOfEntry], error: ModelAway
    ) -> list[Pending]:
        """What can be applied while a model is away: what comes before the first text, or that text's entry as failed, if all that
        it waits for has been awaited long enough."""
        first = next(position for position in _positions(batch) if position not in made)
        ready = [_with_vectors(one, made) for one in batch if one.position < first]
        if ready:
            return ready
        since = self._away_since
        entry = [one for one in batch if one.position == first]
        if since is None or self._clock.monotonic() - since < self._patience_s:
            raise error
        waited = (
            self._clock.now() - min(one.mutation.accepted_at for one in entry if one.mutation)
        ).total_seconds()
        if waited < self._patience_s:
            raise error
        reason = f"no vectors could be made of its text for {self._patience_s:g} s: {error.detail}"
        return [
            replace(one, changeset=None, error=reason) if _embeds(one) else _with_vectors(one, made)
            for one in entry
        ]


def has_texts(batch: Sequence[Pending]) -> bool:
    """Are there any vectors to be made?"""
    return any(map(_embeds, batch))


def _embeds(one: Pending) -> bool:
    return one.changeset is not None and one.changeset.details.embed


def _texts(batch: Sequence[Pending]) -> list[_Text]:
    return [
        _Text(one.position, one.place, one.changeset)
        for one in batch
        if one.changeset is not None and one.changeset.details.embed
    ]


def _positions(batch: Sequence[Pending]) -> list[int]:
    """The entries that have texts, in order."""
    return list(dict.fromkeys(one.position for one in _texts(batch)))


def _made(dense: Embedded | None, sparse: Sparse | None, rows: np.typing.NDArray[np.int64]) -> Made:
    """What was made of one mutation, whose texts are ``rows`` of all."""
    if dense is not None:
        why = next(((row, dense.refused[row]) for row in rows.tolist() if row in dense.refused), None)
        if why is not None:
            return Made(error=f"the text of item {why[0] - int(rows[0])} was refused: {why[1].detail}")
    vectors: Matrix | None = None if dense is None else np.ascontiguousarray(dense.vectors[rows])
    return Made(vectors, None if sparse is None else sparse.take(rows))


def _with_vectors(one: Pending, made: Mapping[int, MadeOfEntry]) -> Pending:
    """A mutation with the vectors that were made for it, or failed if there can be none."""
    changeset = one.changeset
    if changeset is None or not changeset.details.embed:
        return one
    found = made[one.position][one.place]
    if found.error is not None:
        return replace(one, changeset=None, error=found.error)
    whole = replace(
        changeset,
        vectors=found.vectors,
        sparse=found.sparse,
        details=changeset.details.model_copy(update={"embed": False}),
    )
    return replace(one, changeset=whole)
