"""Cloudflare Vectorize V2, as its own clients speak it: ``/client/v4/accounts/{account}/vectorize/v2/indexes/…``.

envelope.py is the shape of every answer, errors.py the codes, models.py the requests and results, and indexes.py,
vectors.py and mutations.py the routes. The facts behind each rule are Cloudflare's documentation, its OpenAPI schema and
what its clients were seen to send.
"""

from ingest.doors.cloudflare.routes import cloudflare_door as cloudflare_door
