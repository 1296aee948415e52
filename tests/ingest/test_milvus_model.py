"""All row commands of the Milvus door, of both versions and in any order, against a dict: see tests/milvus_model.py."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.milvus_house import milvus_house
from tests.milvus_model import Client, Model

KINDS = [
    (texts, declared, dynamic) for texts in (False, True) for declared, dynamic in ((0, 1), (1, 0), (1, 1))
]


async def play(folder: Path, seed: int, steps: int) -> None:
    """A client with each kind of collection, their steps mixed."""
    chance = Random(seed)
    async with milvus_house(folder, wait_s_max=30) as house:
        clients = []
        for number, (texts, declared, dynamic) in enumerate(KINDS):
            model = Model(f"c{number}", texts, bool(declared), bool(dynamic))
            clients.append(Client(house, model, chance))
            await clients[-1].begin()
        for _ in range(steps):
            await chance.choice(clients).step()


async def test_any_commands_in_any_order(tmp_path: Path) -> None:
    await play(tmp_path, 1, 150)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2, 8))
async def test_many_commands_in_any_order(tmp_path: Path, seed: int) -> None:
    await play(tmp_path, seed, 2_000)
