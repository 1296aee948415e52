"""Queries that go on: kept for as long as somebody asks, and no longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.doors.upstash.errors import UpstashError
from ingest.doors.upstash.resumable import ResumableQueries
from ingest.doors.upstash.shown import EVERYTHING, score
from tests.making import HandClock, make_engine, make_index
from upwell.query.hybrid import Question
from upwell.query.patience import Patience
from upwell.query.resumable import ResumableQuery


def test_a_query_is_kept_until_nobody_has_asked_for_long_enough(tmp_path: Path) -> None:
    clock = HandClock()
    index = make_index(make_engine(tmp_path, clock=clock))
    question = Question(dense=np.ones(2, np.float32), sparse=None, namespace="", dense_score=score)
    kept = ResumableQueries(clock, most=2)

    def begin(idle_s: float) -> str:
        query = ResumableQuery(index.newest.get(), question)
        return kept.keep(query, Patience(clock, 1), EVERYTHING, idle_s)

    short, long = begin(10), begin(100)
    assert short != long and len(short) == 36
    for _ in range(3):
        clock.pass_s(9)
        assert kept.find(short, index.record.id).query.next(1) == []
    with pytest.raises(UpstashError, match="2 active"):
        begin(10)
    clock.pass_s(10)
    with pytest.raises(UpstashError, match="does not exist"):
        kept.find(short, index.record.id)
    kept.find(long, index.record.id)
    begin(10)
    with pytest.raises(UpstashError, match="does not exist"):
        kept.find(long, "another index")
    clock.pass_s(101)
    kept.forget_idle()
    with pytest.raises(UpstashError, match="does not exist"):
        kept.end(long, index.record.id)
