"""Is every number that is made for a row given once, but for a request that is sent again?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest.doors.milvus import auto_ids
from ingest.doors.milvus.auto_ids import COUNTED_BITS, KEYED_BITS, KeyedIds, RandomIds

INT64_END = 1 << 63


def test_nobody_is_given_a_number_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_ids, "COUNTED_BITS", 3)
    one = RandomIds()
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(one.of, range(1_000)))
    assert len(set(given)) == 1_000
    assert all(1 << KEYED_BITS <= number < INT64_END for number in given)
    # A new beginning whenever what can be counted is used up.
    assert len({number >> 3 for number in given}) == 125


def test_processes_draw_differently_and_count_on() -> None:
    first, second = RandomIds(), RandomIds()
    mine, theirs = [first.of(0) for _ in range(9)], [second.of(0) for _ in range(9)]
    assert mine == list(range(mine[0], mine[0] + 9)) and mine[0] % (1 << COUNTED_BITS) == 0
    assert not set(mine) & set(theirs)


def test_a_request_that_is_sent_again_gets_the_same() -> None:
    one = [KeyedIds("me", "key", b"body").of(row) for row in range(100)]
    assert one == [KeyedIds("me", "key", b"body").of(row) for row in range(100)]
    unlike = (("me", "other", b"body"), ("you", "key", b"body"), ("me", "key", b"another"))
    others = [KeyedIds(*what).of(row) for what in unlike for row in range(100)]
    assert len({*one, *others}) == 400
    # None of them is one that is given without a key.
    assert all(0 < number < 1 << KEYED_BITS for number in (*one, *others))
