"""Compaction beside everything else: real front ends and workers, writers and readers that go on, and nothing to be noticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tests.service import Api, Service


@pytest.fixture
def service() -> Iterator[Service]:
    settings = {
        "UPWELL_COMPACTION_FANOUT": "2",
        "UPWELL_COMPACTION_SETTLE_S": "0.3",
        "UPWELL_STALL_SEGMENTS": "8",
        "UPWELL_SWEEP_INTERVAL_S": "0.2",
    }
    with Service(settings) as service:
        yield service


def vectors(first: int, count: int, version: int) -> list[dict[str, object]]:
    """Vectors of 64 dimensions that tell their number and version."""
    generator = np.random.default_rng(first)
    rows = generator.normal(size=(count, 64)).round(3)
    return [
        {"id": f"v{first + n}", "values": row.tolist(), "metadata": {"version": version}}
        for n, row in enumerate(rows)
    ]


def test_writers_and_readers_never_notice_a_merge(service: Service) -> None:
    api: Api = service.start_api()
    service.start_worker()
    service.start_worker()
    index = api.index("merged")
    index.create(64, shards=2)
    over = threading.Event()
    complaints: list[object] = []

    def read() -> None:
        """Rows are replaced by hundreds at once: of each hundred all have one version, at any time."""
        query = np.random.default_rng(1).normal(size=64).tolist()
        while not over.is_set():
            found = index.fetch(*(f"v{n}" for n in range(100)))
            versions = {one["metadata"]["version"] for one in found.values()}
            if found and (len(found) != 100 or len(versions) != 1):
                complaints.append((len(found), versions))
            ids = [hit["id"] for hit in index.query(query, topK=20)]
            if len(set(ids)) != len(ids):
                complaints.append(ids)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        mutation = ""
        for version in range(12):
            for first in (0, 100, 3_000 * (version + 1)):
                count = 100 if first < 200 else 3_000
                mutation = index.upsert(vectors(first, count, version))
            index.visible(mutation)
        deadline = time.monotonic() + 60
        while True:
            compaction = index.get("/info").result["compaction"]
            # A small one may rest beside a large one in each shard; of 72 that were written few are left.
            if compaction["segments"] <= 6 and compaction["pending"] == 0:
                break
            assert time.monotonic() < deadline, compaction
            time.sleep(0.1)
    finally:
        over.set()
        reader.join()
    assert complaints == []
    info = index.get("/info").result
    assert info["vectorCount"] == 200 + 12 * 3_000 and info["compaction"]["writeAmplification"] > 1
    for first in range(3_000, 39_000, 3_000):
        asked = vectors(first, 3_000, 0)[17]
        best = index.query(asked["values"], topK=1)[0]  # type: ignore[arg-type]
        assert best["id"] == asked["id"] and best["score"] == pytest.approx(1)


def test_uploads_are_refused_when_merging_falls_behind(service: Service) -> None:
    api = service.start_api()
    index = api.index("behind")
    index.create(64, shards=1)
    service.settings["UPWELL_COMPACTION_FANOUT"] = "1000"
    service.settings["UPWELL_COMPACTION_SETTLE_S"] = "1000"
    worker = service.start_worker()
    answer = None
    for number in range(60):
        body = "\n".join(
            f'{{"id":"{number}-{n}","values":{[n % 7, number % 5 + 1] * 32}}}' for n in range(5_000)
        )
        answer = index.post("upsert", body)
        if answer.status != 200:
            break
        index.visible(answer.result["mutationId"])
    assert answer is not None and answer.status == 429, "never refused"
    status, code, message = answer.error
    assert (status, code) == (429, 40041) and "compaction is behind" in message
    assert int(answer.headers["Retry-After"]) > 0
    # Deleting and asking go on; and with a worker that merges, so does writing.
    assert index.delete(["0-1"])
    assert len(index.query([1.0] * 64, topK=3)) == 3
    worker.terminate()
    worker.wait(20)
    service.settings["UPWELL_COMPACTION_FANOUT"] = "2"
    service.settings["UPWELL_COMPACTION_SETTLE_S"] = "0.2"
    service.start_worker()
    deadline = time.monotonic() + 60
    while index.post("upsert", f'{{"id":"late","values":{[1.0] * 64}}}').status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
