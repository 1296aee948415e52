"""Settings as environment: how a parent tells its children what was chosen."""

from __future__ import annotations

import json
import os

from upwell.embed.configuration import REVEALING
from upwell.settings import Settings

PREFIX = "UPWELL_"


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    """Our environment with every UPWELL_* variable replaced by ``settings``, and ``more`` besides."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    chosen = {
        f"{PREFIX}{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.model_dump(mode="json", context=REVEALING).items()
        if value is not None
    }
    return others | chosen | more
