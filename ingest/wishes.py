"""What a client may wish beside a write, at any door that offers it.

``Prefer: wait=N``    answer once the mutation is visible or failed, after N seconds at the latest (RFC 7240)
``Idempotency-Key``   the same key and body again is the same mutation; another body under a known key is refused
"""

from __future__ import annotations

from aiohttp import web

from upwell.errors import Invalid

KEY_CHARACTERS_MAX = 255


def idempotency_key(request: web.Request) -> str | None:
    """The key that the request may be sent again with. Raises Invalid."""
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
        raise Invalid(f"Idempotency-Key: expected 1 to {KEY_CHARACTERS_MAX} printable ASCII characters")
    return key


def preferred_wait_s(request: web.Request, wait_s_max: float) -> float | None:
    """The seconds of ``wait``, as whole and not negative as the RFC has them. Preferences that are not understood are ignored."""
    for header in request.headers.getall("Prefer", []):
        for preference in header.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            text = value.strip().strip('"')
            if name.strip().lower() == "wait" and text.isascii() and text.isdigit():
                return min(float(text[:9]), wait_s_max)
    return None
