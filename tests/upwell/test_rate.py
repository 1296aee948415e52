"""Rates in their notation, in settings, and in tokens old and new."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.making import make_engine
from upwell.catalog.tokens import Access
from upwell.format import Kind, pack, unpack
from upwell.rate import Rate
from upwell.settings import Settings


@pytest.mark.parametrize(
    ("text", "amount", "period_s"),
    [
        ("1200/5minutes", 1200, 300),
        ("1200/5 minutes", 1200, 300),
        ("10/second", 10, 1),
        ("10 per second", 10, 1),
        ("10 per 1 second", 10, 1),
        ("1/hour", 1, 3_600),
        ("7 / 2 Hours", 7, 7_200),
        ("100000/day", 100_000, 86_400),
        (" 3/30days ", 3, 30 * 86_400),
    ],
)
def test_the_notation(text: str, amount: int, period_s: int) -> None:
    assert Rate.parse(text) == Rate(amount, period_s)


WRONG = [
    "", "10", "10/", "/second", "0/second", "10/0seconds", "-1/second", "1.5/second", "10/fortnight", "10 second",
    "10/second; 5/minute", "10/second,5/minute", "10persecond", "٣/second", "1" * 10 + "/second", "1/31days", "1/999999days",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_rate_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="expected a rate") as caught:
        Rate.parse(text)
    assert repr(text[:64]) in str(caught.value)


def test_a_setting_that_is_no_rate_is_refused() -> None:
    assert Settings(token_rate="5/minute").token_rate == "5/minute"
    with pytest.raises(ValidationError, match=r"expected a rate such as 10/second or 1200/5minutes.*'often'"):
        Settings(token_rate="often")


def test_a_token_keeps_its_rate_and_an_old_one_has_none(tmp_path: Path) -> None:
    engine = make_engine(tmp_path)
    issued = {
        rate: engine.tokens.issue(name="", account="*", index="*", access=Access.READ, lasts=None, rate=rate)
        for rate in ("5/minute", None)
    }
    for rate, (token, grant) in issued.items():
        assert engine.tokens.grant_of(token) == grant and grant.rate == rate
    # An older Upwell refuses fields that it does not know; it must be able to read tokens that need none of them.
    stored = [
        unpack(engine.store.read(f"token/{name}"), Kind.TOKEN).meta for name in engine.store.list("token")
    ]
    assert sorted("rate" in meta for meta in stored) == [False, True]
    digest = "0" * 64
    engine.store.create(f"token/{digest}", *pack(Kind.TOKEN, {"id": "old", "access": "read"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("upwell.catalog.tokens._hash", lambda _: digest)
        assert engine.tokens.grant_of("whatever").rate is None
