"""Doors: one package a vendor's protocol. A door turns requests into the operations of ``ingest.operations`` and their
results into that vendor's shapes. No door knows about storage, and none imports another.
"""

from __future__ import annotations

from enum import StrEnum


class Door(StrEnum):
    """Where a token may be used. Upwell's own routes, which administer tokens, ask for one that may be used anywhere."""

    ANY = "*"
    #: ``/client/v4``
    CLOUDFLARE = "cloudflare"
    #: ``/bindings/vectorize``, and the host ``vector-search``
    BINDING = "binding"
    #: ``/upstash``
    UPSTASH = "upstash"
    #: ``/v1/vector`` and ``/v2/vectordb``
    MILVUS = "milvus"
