"""A full or broken disk under a running service: clients are told what is the matter, queries go on, and all goes on when the disk does.

Faults are armed and disarmed while front ends and workers run, through the file that UPWELL_FAILPOINTS names.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.service import Answer, Index, Service, running, until
from upwell.failpoint import arm

NAMES = itertools.count()
NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass
class House:
    """A service, an index in it, and the file that says what its disk does."""

    service: Service
    index: Index
    plan: Path

    def write(self, name: str, value: float = 1) -> Answer:
        """Upsert one vector, whatever comes of it."""
        body = '{"id": "%s", "values": [%s, 1]}' % (name, value)  # noqa: UP031  braces
        return self.index.post("upsert", body, headers=NDJSON)

    def files(self) -> list[str]:
        """Files on their way to a name that they have not got."""
        private = self.service.data / "store" / ".private"
        return [path.name for path in private.iterdir()]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    plan = tmp_path_factory.mktemp("disk") / "plan"
    with running(apis=2, workers=2, UPWELL_FAILPOINTS=str(plan)) as service:
        yield service, plan


@pytest.fixture
def house(service: tuple[Service, Path]) -> Iterator[House]:
    index = service[0].apis[0].index(f"disk-{next(NAMES)}")
    assert index.create(2, "euclidean").status == 200
    index.visible(index.upsert([{"id": "before", "values": [0, 0]}]))
    yield House(service[0], index, service[1])
    arm(service[1])


def refused(answer: Answer) -> tuple[int, str]:
    """Status and message of a refusal, which must be the vendor's envelope and say when to come back."""
    status, code, message = answer.error
    assert code == 50_000 + status
    assert int(answer.headers["Retry-After"]) >= 1
    assert "Traceback" not in message and "/store" not in message
    return status, message


@pytest.mark.parametrize(
    ("step", "number", "status", "says"),
    [
        ("disk.write", "ENOSPC", 507, "the store is full"),
        ("disk.write", "EDQUOT", 507, "the store is full"),
        ("disk.sync", "EIO", 503, "the log could not be written"),
        ("disk.synced", "EROFS", 503, "the log could not be written"),
        ("disk.linked", "EIO", 503, "the log could not be written"),
    ],
)
def test_the_story_of_a_disk_that_fails_and_recovers(
    house: House, step: str, number: str, status: int, says: str
) -> None:
    # What waits when the disk fails is applied when it does not, by the same workers.
    arm(house.plan, "manifest.commit.before error:EIO")
    waiting = house.write("waiting").result["mutationId"]
    arm(house.plan, f"{step} error:{number}")
    acknowledged: dict[str, str] = {}
    for attempt in range(6):
        answer = house.write(f"refused{attempt}")
        told, message = refused(answer)
        assert told == status and message.startswith(says), message
    # Large ones fail where their columns are written.
    big = "\n".join('{"id": "big%d", "values": [%d, 2]}' % (n, n) for n in range(4000))  # noqa: UP031
    assert refused(house.index.post("upsert", big, headers=NDJSON))[0] == status
    # Whatever else is written is refused as well; and whatever is only read goes on.
    assert refused(house.service.apis[1].index("another").create(2))[0] == status
    for api in house.service.apis:
        reader = api.index(house.index.name)
        assert {one["id"] for one in reader.query([0, 0], topK=50)} >= {"before"}
        assert reader.get("/info").status == 200
        assert api.call("GET", "/readyz").json["status"] == "ready"
    arm(house.plan)
    after = house.write("after").result["mutationId"]
    acknowledged |= {"waiting": waiting, "after": after, "before": ""}
    for mutation in (waiting, after):
        house.index.visible(mutation)
    assert all(process.poll() is None for process in house.service.workers)
    found = set(house.index.fetch(*acknowledged, *(f"refused{n}" for n in range(6)), "big0", "big3999"))
    assert found >= acknowledged.keys()
    if step != "disk.linked":
        # Only what had got its name may be there unacknowledged.
        assert found == acknowledged.keys()
    assert ("big0" in found) is ("big3999" in found), "half of a mutation"
    assert house.files() == []


def test_a_disk_that_fails_now_and_then_loses_and_doubles_nothing(house: House) -> None:
    """Each acknowledged value is there; of what was refused, each is there whole or not, and never after a later acknowledged one."""
    arm(
        house.plan,
        "disk.write error:ENOSPC 0.05",
        "disk.sync error:EIO 0.05",
        "disk.synced error:EROFS 0.05",
        "disk.linked error:EIO 0.05",
        "disk.read error:EIO 0.01",
    )
    outcomes: list[list[tuple[int, str | None]]] = [[], [], []]

    def write(row: int) -> None:
        index = house.service.apis[row % 2].index(house.index.name)
        for value in range(1, 41):
            body = '{"id": "row%d", "values": [%d, %d]}' % (row, value, row)  # noqa: UP031
            answer = index.post("upsert", body, headers=NDJSON)
            if answer.status == 200:
                outcomes[row].append((value, answer.result["mutationId"]))
            else:
                assert refused(answer)[0] in (503, 507)
                outcomes[row].append((value, None))

    writers = [threading.Thread(target=write, args=(row,)) for row in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    arm(house.plan)
    for row, told in enumerate(outcomes):
        acknowledged = [(value, mutation) for value, mutation in told if mutation is not None]
        assert acknowledged and len(acknowledged) < len(told), "the disk never failed, or always"
        last, mutation = acknowledged[-1]
        house.index.visible(mutation)
        possible = [value for value, known in told if value == last or (value > last and known is None)]
        assert house.index.fetch(f"row{row}")[f"row{row}"]["values"][0] in possible
        for _, one in acknowledged:
            counts: Any = house.index.visible(one)["counts"]
            assert counts["inserted"] + counts["replaced"] == 1
    assert house.index.get("/info").result["vectorCount"] == 4
    assert house.files() == []


def test_a_disk_that_cannot_be_read_is_said_to_be_so(house: House) -> None:
    """Queries that need the disk say 503; nothing dies, and all goes on."""
    arm(house.plan, "disk.read error:EIO", "disk.sync error:EIO")
    assert refused(house.write("refused"))[0] == 503
    other = house.service.apis[1].index(house.index.name)
    unknown = other.post("get_by_ids", {"ids": ["before"]})
    assert unknown.status in (200, 503)
    arm(house.plan)
    for _ in until(60):
        if house.write("after").status == 200:
            break
    assert set(other.fetch("before")) == {"before"}
