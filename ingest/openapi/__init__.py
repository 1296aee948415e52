"""The description of the HTTP surface: ``GET /openapi.json``.

operation.py is what can be said of one operation; each door has a table of its operations (``cloudflare/``, ``own.py``);
document.py makes them one OpenAPI 3.1 document, whose schemas come from the pydantic models that handlers use.
"""

from ingest.openapi.document import document as document
from ingest.openapi.page import openapi_page as openapi_page
