"""Settings as environment: how a parent tells its children what was chosen."""

from __future__ import annotations

import os

from upwell.settings import Settings

PREFIX = "UPWELL_"


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    """Our environment with every UPWELL_* variable replaced by ``settings``, and ``more`` besides."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    chosen = {
        f"{PREFIX}{name.upper()}": str(value)
        for name, value in settings.model_dump().items()
        if value is not None
    }
    return others | chosen | more
