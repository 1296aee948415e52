"""How many connections there is room for. What becomes of them is seen from the wire: tests/stories/test_story_security_wire.py."""

from __future__ import annotations

import resource

import pytest

from ingest import connections
from ingest.connections import BUSY, OTHER_FILES

UNLIMITED = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "asked", "room", "raised_to"),
    [
        (20_000, 20_000, 1_000, 1_000, None),
        (UNLIMITED, UNLIMITED, 1_000, 1_000, None),
        (1_000 + OTHER_FILES, 1_000 + OTHER_FILES, 1_000, 1_000, None),
        (256, UNLIMITED, 1_000, 1_000, 1_000 + OTHER_FILES),
        (1_024, 4_096, 1_000, 1_000, 1_000 + OTHER_FILES),
        (1_024, 1_200, 1_000, 1_200 - OTHER_FILES, 1_200),
        (1_024, 1_024, 1_000, 1_024 - OTHER_FILES, 1_024),
        (256, 256, 1_000, 128, 256),
    ],
)
def test_there_is_room_for_what_files_may_be_opened_for(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, asked: int, room: int, raised_to: int | None
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    assert connections._room_for(asked) == room
    assert raised == ([] if raised_to is None else [(raised_to, hard)])


def test_what_those_turned_away_are_told_is_an_answer() -> None:
    head, _, body = BUSY.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
