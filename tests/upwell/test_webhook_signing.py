"""Signatures, as the official library of Standard Webhooks sees them."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from upwell.clock import SystemClock
from upwell.errors import Invalid
from upwell.webhook.signing import check_secret, new_secret, signed_headers

BODY = '{"type":"mutation.visible","data":{"text":"é"}}'


def test_the_official_library_takes_what_we_sign() -> None:
    secret, now = new_secret(), SystemClock().now()
    headers = signed_headers(secret, "msg_1", BODY, now)
    assert Webhook(secret).verify(BODY.encode(), headers)["type"] == "mutation.visible"
    assert headers["webhook-signature"] == Webhook(secret).sign("msg_1", now.replace(microsecond=0), BODY)


@pytest.mark.parametrize(
    "changed",
    [
        {"webhook-id": "msg_2"},
        {"webhook-timestamp": "1"},
        {"webhook-signature": f"v1,{b64encode(bytes(32)).decode()}"},
    ],
)
def test_it_does_not_take_what_was_changed(changed: dict[str, str]) -> None:
    secret = new_secret()
    headers = signed_headers(secret, "msg_1", BODY, SystemClock().now())
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY, headers | changed)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + " ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)


def test_the_specifications_own_example() -> None:
    """The one in its text, so that ours and the library are not wrong alike."""
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        '{"test": 2432232314}',
        datetime.fromtimestamp(1614265330, UTC),
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_long_and_never_the_same() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    for secret in made:
        check_secret(secret)


@pytest.mark.parametrize("length", [24, 25, 26, 32, 64])
def test_a_secret_of_the_callers_own_is_taken(length: int) -> None:
    check_secret("whsec_" + b64encode(bytes(length)).decode())


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "hunter2hunter2hunter2hunter2hunter2",
        b64encode(bytes(32)).decode(),
        "WHSEC_" + b64encode(bytes(32)).decode(),
        "whsec_" + b64encode(bytes(23)).decode(),
        "whsec_" + b64encode(bytes(65)).decode(),
        "whsec_" + b64encode(bytes(25)).decode().rstrip("="),
        "whsec_" + "!" * 44,
        "whsec_" + "é" * 44,
        "whsec_" + b64encode(bytes(32)).decode() + "\n",
    ],
)
def test_one_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(Invalid, match=r"^secret: ") as refused:
        check_secret(secret)
    assert len(secret) < 7 or secret[6:] not in str(refused.value)
