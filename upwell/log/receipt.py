"""A mutationId: a UUID that carries where its mutation lies, so that status is arithmetic and needs no table.

    bits 0–47     position in the log
    bits 48–51    8, the UUID version for custom layouts (RFC 9562)
    bits 52–63    place within the entry, 0 to 4,095
    bits 64–65    0b10, the UUID variant
    bits 66–127   the first 62 bits of keyed BLAKE2b over position and place; the key is the index's secret

The keyed part ties a receipt to one index's identity: a foreign, made-up or outdated id (of an index that was deleted
and made again under its name) does not verify, so it is a 404 without a look at the store.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass

from upwell.errors import NotFound

POSITION_MAX = (1 << 48) - 1
PLACES_MAX = 1 << 12


@dataclass(frozen=True, slots=True, order=True)
class Receipt:
    """Where a mutation lies: the entry's position, from 1, and its place in the entry, from 0."""

    position: int
    place: int


def mint(secret: bytes, receipt: Receipt) -> str:
    """The mutationId of a receipt, 36 characters."""
    if not (0 < receipt.position <= POSITION_MAX and 0 <= receipt.place < PLACES_MAX):
        raise ValueError(f"{receipt} does not fit a mutationId")
    high = receipt.position << 16 | 8 << 12 | receipt.place
    low = 0b10 << 62 | _check(secret, receipt)
    return str(uuid.UUID(int=high << 64 | low))


def parse(secret: bytes, mutation_id: str) -> Receipt:
    """The receipt that ``mutation_id`` stands for. Raises NotFound unless this index minted it."""
    try:
        number = uuid.UUID(mutation_id).int
    except ValueError:
        raise NotFound("no such mutation here", mutationId=mutation_id[:64]) from None
    high, low = number >> 64, number & (1 << 64) - 1
    receipt = Receipt(position=high >> 16, place=high & 0xFFF)
    genuine = 0b10 << 62 | _check(secret, receipt)
    same = hmac.compare_digest(low.to_bytes(8, "big"), genuine.to_bytes(8, "big"))
    if (
        not same
        or high >> 12 & 0xF != 8
        or receipt.position == 0
        or mutation_id != str(uuid.UUID(int=number))
    ):
        raise NotFound("no such mutation here", mutationId=mutation_id[:64])
    return receipt


def _check(secret: bytes, receipt: Receipt) -> int:
    place = receipt.position.to_bytes(6, "big") + receipt.place.to_bytes(2, "big")
    return int.from_bytes(hashlib.blake2b(place, key=secret, digest_size=8).digest(), "big") >> 2
