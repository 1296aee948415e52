"""Where the application keeps its parts; handlers find them by these keys."""

from __future__ import annotations

from aiohttp import web

from ingest.operations import Operations
from upwell.doorbell.notices import Notices

OPERATIONS = web.AppKey("operations", Operations)
NOTICES = web.AppKey("notices", Notices)
#: Of each application that asks for tokens: the door that it is.
DOOR = web.AppKey("door", str)
