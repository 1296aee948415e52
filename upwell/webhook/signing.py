"""Signing messages as the Standard Webhooks specification says, so that receivers can check them with any of its libraries.

    webhook-id          the message's identity, the same on every try
    webhook-timestamp   seconds since 1970, of this try
    webhook-signature   v1,<base64 of HMAC-SHA256(secret, id.timestamp.body)>

A secret is written ``whsec_`` and base64. It is stored as it is, since signing needs it; it appears in the answer that creates the
webhook, and nowhere else: no listing, no log line, no error.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from datetime import datetime

from upwell.errors import Invalid

SECRET_PREFIX = "whsec_"  # noqa: S105  how every secret begins
SECRET_BYTES = 32
#: What the specification allows.
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64


def new_secret() -> str:
    """A fresh secret."""
    return SECRET_PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check_secret(secret: str) -> None:
    """Raise Invalid unless ``secret`` is one that receivers' libraries take. Never repeats it."""
    try:
        length = len(_key_of(secret))
    except (binascii.Error, ValueError):
        raise Invalid(f"secret: expected {SECRET_PREFIX} and base64") from None
    if not SECRET_BYTES_MIN <= length <= SECRET_BYTES_MAX:
        raise Invalid(
            f"secret: expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64, got {length}"
        )


def signed_headers(secret: str, message_id: str, body: str, sent_at: datetime) -> dict[str, str]:
    """The three headers of one try."""
    seconds = str(int(sent_at.timestamp()))
    signed = f"{message_id}.{seconds}.{body}".encode()
    signature = hmac.digest(_key_of(secret), signed, hashlib.sha256)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{b64encode(signature).decode()}",
    }


def _key_of(secret: str) -> bytes:
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("a secret begins otherwise")
    return b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
