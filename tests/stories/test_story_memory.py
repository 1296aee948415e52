"""A front end maps its segments and holds nothing of them: the benchmark of memory (tests/bench/memory.py), with little to load."""

from __future__ import annotations

import sys

import pytest

from tests.bench.harness import MIB
from tests.bench.memory import CAPPED_QUERIES, DISK_BAR, UPLOAD_BAR, Size, measure

#: What queries add to an idle front end whatever it serves: 4 to 6 MiB of threads, buffers, and what libraries set up.
ALLOWED_BYTES = 12 * MIB


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and caps memory as Linux does")
async def test_a_front_end_serves_what_it_does_not_hold() -> None:
    size = Size(vectors=40_000, dimensions=768, queries=CAPPED_QUERIES, upload_bytes=20_000_000)
    found = await measure(size)
    served, capped, disk = found["served"], found["capped"], found["disk"]
    growth = served["after"]["RssAnon"] - served["idle"]["RssAnon"]
    assert growth < size.raw_bytes / 5 + ALLOWED_BYTES, served
    assert capped["same_answers"], capped
    assert disk["store_bytes"] <= DISK_BAR * disk["live_bytes"], disk
    assert found["upload"]["ratio"] <= UPLOAD_BAR, found["upload"]
