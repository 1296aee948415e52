"""Trials: in a process of their own, on the real store, without a trace in it; and what breaks them breaks nothing else."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import Client, make_engine, make_index, upsert
from upwell import failpoint
from upwell.engine import Engine, Index
from upwell.errors import Corrupt, Unavailable
from upwell.failpoint import arm
from upwell.log.receipt import Receipt
from workers.poison import culprits
from workers.trial import ForgetfulStore, Trials


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the processes of a trial look into; this one does not."""
    path = tmp_path / "plan"
    monkeypatch.setenv(failpoint.VARIABLE, str(path))
    return path


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path)


@pytest.fixture
def index(engine: Engine) -> Index:
    index = make_index(engine)
    Client(index).append(*(upsert((f"v{n}", (n, n))) for n in range(8)))
    return index


def objects(engine: Engine) -> list[str]:
    root = Path(engine.store.root)  # type: ignore[attr-defined]
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def found(engine: Engine, index: Index, timeout_s: float = 60) -> dict[Receipt, str]:
    async with Trials(engine.settings, index.record.id, timeout_s) as trials:
        return await culprits([Receipt(1, place) for place in range(8)], trials.breaks)


def test_a_trial_leaves_no_trace(engine: Engine, index: Index, plan: Path) -> None:
    before = objects(engine)
    assert asyncio.run(found(engine, index)) == {}
    assert objects(engine) == before and index.head.refresh().applied_through == 0


def test_mutations_that_raise_are_found(engine: Engine, index: Index, plan: Path) -> None:
    arm(plan, "apply.mutation=v3 bug", "apply.mutation=v6 bug")
    before = objects(engine)
    broken = asyncio.run(found(engine, index))
    assert sorted(one.place for one in broken) == [3, 6]
    assert all(reason.startswith("BugError") for reason in broken.values())
    assert objects(engine) == before


def test_a_mutation_that_kills_is_found_and_what_is_left_to_chance_is_not_its_fault(
    engine: Engine, index: Index, plan: Path
) -> None:
    arm(plan, "apply.mutation=v7 kill", "apply.mutation kill", "segment.written kill")
    broken = asyncio.run(found(engine, index))
    assert list(broken) == [Receipt(1, 7)] and "died, 3 times" in broken[Receipt(1, 7)]


def test_a_mutation_that_takes_for_ever_is_found(engine: Engine, index: Index, plan: Path) -> None:
    arm(plan, "apply.mutation=v7 pause:600")
    broken = asyncio.run(found(engine, index, timeout_s=2))
    assert list(broken) == [Receipt(1, 7)] and "took longer than 2 s" in broken[Receipt(1, 7)]


def test_an_index_that_cannot_be_read_proves_nothing(engine: Engine, index: Index, plan: Path) -> None:
    path = next((Path(engine.store.root) / index.record.folder / "manifest").iterdir())  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Corrupt):
        asyncio.run(found(engine, index))


def test_a_process_that_cannot_even_begin_proves_nothing(
    engine: Engine, index: Index, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    nowhere = engine.settings.model_copy(update={"data": tmp_path / "file"})

    async def work() -> None:
        async with Trials(nowhere, index.record.id) as trials:
            await trials.breaks({})

    with pytest.raises(Unavailable, match="could not begin"):
        asyncio.run(work())


def test_a_forgetful_store_reads_and_forgets(engine: Engine, index: Index) -> None:
    store, before = ForgetfulStore(engine.store), objects(engine)
    key = index.log.key(1)
    store.create(key, b"other")
    store.create("new", b"x", b"y")
    store.delete(key)
    store.delete_folder("index")
    store.confirm(key)
    assert objects(engine) == before and store.exists(key) and not store.exists("new")
    assert bytes(store.read(key)) == bytes(engine.store.read(key))
    assert store.size_bytes(key) == engine.store.size_bytes(key)
    assert list(store.list("index")) == list(engine.store.list("index"))


def test_a_trial_ends_with_its_worker(engine: Engine, index: Index, plan: Path, tmp_path: Path) -> None:
    arm(plan, "apply.mutation=v0 pause:600")
    script = tmp_path / "worker.py"
    script.write_text(
        "import asyncio, sys\n"
        "from upwell.settings import Settings\n"
        "from workers.trial import Trials\n"
        "async def main():\n"
        "    async with Trials(Settings(data=sys.argv[1]), sys.argv[2]) as trials:\n"
        "        await trials.breaks({})\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    worker = subprocess.Popen([sys.executable, str(script), str(tmp_path), index.record.id])
    try:
        taken = Path(f"{plan}.taken")
        while not taken.exists():
            assert worker.poll() is None
            signal.sigtimedwait([], 0.05)
        child = int(taken.read_text().split()[2])
        worker.kill()
        worker.wait(10)
        for _ in range(200):
            if not Path(f"/proc/{child}").exists():
                return
            signal.sigtimedwait([], 0.05)
        raise AssertionError("the trial goes on without its worker")
    finally:
        worker.kill()
