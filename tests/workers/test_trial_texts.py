"""Trials of batches with texts: a model may crash on one, or be slow, and only the first is a mutation's fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from tests.embedding_server import DIMENSIONS, Answer, Asked, embedding_server, sound
from tests.making import Client, make_engine
from upwell.catalog.names import NewIndex
from upwell.changeset import Changeset, Details, KeyScope, Operation
from upwell.embed import sentence_transformers
from upwell.engine import Engine, Index
from upwell.errors import Unavailable
from upwell.log.receipt import Receipt
from upwell.shard.metric import Metric
from workers.poison import culprits
from workers.trial import Trials

#: What a trial's process finds under the name of the extra.
PACKAGE = """
import os, time
import numpy as np

class SentenceTransformer:
    def __init__(self, name, device=None):
        pass

    def encode(self, texts, **_):
        if any("crash" in text for text in texts):
            os._exit(11)
        if any("hang" in text for text in texts):
            time.sleep(600)
        return np.array([[len(text), 1] for text in texts], np.float32)
"""


def texts(*given: str) -> list[Changeset]:
    """An upsert for each text."""
    return [
        Changeset(
            operation=Operation.UPSERT,
            ids=pa.array([f"v{number}"], pa.utf8()),
            data=pa.array([text], pa.utf8()),
            received=1,
            details=Details(scope=KeyScope.NAMESPACE, embed=True, namespace=""),
        )
        for number, text in enumerate(given)
    ]


def with_texts(folder: Path, models: object, dimensions: int, given: Sequence[str]) -> tuple[Engine, Index]:
    """An index whose model is called M, and an entry in its log with these texts, a mutation each."""
    engine = make_engine(folder, embedding_models={"M": models})
    new = NewIndex(
        name="texts", description=None, dimensions=dimensions, metric=Metric.COSINE, shards=1,
        key_scope=KeyScope.NAMESPACE, embedding_model="M",
    )  # fmt: skip
    engine.catalog.create("default", new)
    index = engine.find("default", "texts")
    Client(index).append(*texts(*given))
    return engine, index


async def found(engine: Engine, index: Index, texts: int, timeout_s: float) -> dict[Receipt, str]:
    async with Trials(engine.settings, index.record.id, timeout_s) as trials:
        return await culprits([Receipt(1, place) for place in range(texts)], trials.breaks)


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A model that dies of one text and never comes back from another."""
    package = tmp_path / "packages" / "sentence_transformers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(sentence_transformers, "is_installed", lambda: True)
    return {"sentence_transformers": "any", "dimensions": 2}


def test_a_text_that_kills_the_model_is_found(tmp_path: Path, crashing: dict[str, object]) -> None:
    engine, index = with_texts(tmp_path, crashing, 2, ["a", "crash"])
    broken = asyncio.run(found(engine, index, 2, timeout_s=60))
    assert list(broken) == [Receipt(1, 1)] and "died, 3 times" in broken[Receipt(1, 1)]
    # And without it the others are applied, and nothing is blamed of what does not come from it.
    assert index.head.refresh().applied_through == 0
    engine.apply_batch(index.record.id, lambda: True, broken=broken)
    assert [(one.place, one.reason) for one in index.head.refresh().failures] == [(1, broken[Receipt(1, 1)])]
    assert index.newest.get().manifest.vectors == 1


@pytest.mark.slow
def test_a_text_that_hangs_the_model_is_found(tmp_path: Path, crashing: dict[str, object]) -> None:
    engine, index = with_texts(tmp_path, crashing, 2, ["a", "hang"])
    broken = asyncio.run(found(engine, index, 2, timeout_s=2))
    assert list(broken) == [Receipt(1, 1)] and "took longer than 2 s" in broken[Receipt(1, 1)]


def test_a_slow_model_and_one_that_is_away_prove_nothing(tmp_path: Path) -> None:
    def slow(asked: Asked) -> Answer:
        time.sleep(0.25)
        return Answer(sound(asked.texts))

    with embedding_server() as server:
        server.answer = slow
        one_by_one = {"texts_per_request": 1, "requests_at_once": 1, "tries_max": 1}
        letters = {"url": server.url, "model": "m", "dimensions": DIMENSIONS, **one_by_one}
        engine, index = with_texts(tmp_path, letters, DIMENSIONS, [f"text {n}" for n in range(14)])
        assert asyncio.run(found(engine, index, 14, timeout_s=1.5)) == {}
        assert len(server.asked) >= 14
        server.answer = lambda _: Answer({}, 503)
        with pytest.raises(Unavailable):
            asyncio.run(found(engine, index, 14, timeout_s=60))
