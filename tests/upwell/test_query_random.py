"""Any row by chance: what a view counts in a namespace are just the rows that it has there, in every format and after any history."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import SupportsIndex

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from tests.making import make_engine
from tests.querying import NAMESPACES, Story
from upwell.kinds import IndexKind
from upwell.query.ordered import random_row
from upwell.query.scan import Scan
from upwell.shard.view import View

GOLDEN = Path(__file__).parent / "golden"


class Chosen(random.Random):
    """Says what it is told to, and remembers of how many."""

    def __init__(self, says: int) -> None:
        super().__init__()
        self.says = says
        self.of = 0

    def randrange(self, start: SupportsIndex, *_: object, **__: object) -> int:
        self.of = int(start)
        return self.says


def check(view: View) -> None:
    """Every number that can be drawn is another row, and all rows are drawn by one."""
    names = (
        {view.namespaces.name(identity) for identity in view.counts} | set(view.namespaces.identities) | {""}
    )
    total = 0
    for name in names:
        there = Counter(id for some in Scan(view, name).some(1_000) for id in some.ids)
        rows = sum(there.values())
        total += rows
        if rows == 0:
            assert random_row(view, name, Chosen(0)) is None
            continue
        chosen = [Chosen(number) for number in range(rows)]
        found = [random_row(view, name, one) for one in chosen]
        assert {one.of for one in chosen} == {rows}
        assert Counter(one.id for one in found if one is not None) == there
        assert {(one.namespace or "") for one in found if one is not None} == {name}
    assert total == view.manifest.vectors


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_in_every_format(tmp_path: Path, name: str) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / name)
    engine = make_engine(tmp_path / name)
    for index_id in engine.live_indexes():
        while engine.apply_batch(index_id, lambda: True):
            pass
        check(engine.index(index_id).newest.get())


@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.sampled_from(["write", "delete", "compact", "rename"]), max_size=6),
    shards=st.integers(1, 3),
)
@settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_after_any_history(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: list[str], shards: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        story = Story(tmp_path_factory.mktemp("story"), seed, IndexKind.DENSE, shards=shards)
        story.write_some(30)
        for number, step in enumerate(steps):
            match step:
                case "write":
                    story.write_some(25)
                case "delete":
                    story.delete_some(0.4)
                case "rename":
                    story.rename(NAMESPACES[1 + number % 2], f"new-{number}")
                case _:
                    story.compact()
            check(story.view())
