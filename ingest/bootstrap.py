"""The bootstrap admin token: given by the operator, or made at first start and kept where only they can read it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from upwell.catalog.tokens import TOKEN_PREFIX
from upwell.settings import Settings

TOKEN_FILE = "admin-token"  # noqa: S105  a file's name


def bootstrap_token(settings: Settings) -> tuple[str, bool]:
    """(the admin token, was it generated here rather than given?). Safe to call from several processes at once."""
    if settings.token is not None:
        return settings.token, False
    make_private(settings.data)
    path = settings.data / TOKEN_FILE
    if not path.exists():
        _write_once(path, TOKEN_PREFIX + secrets.token_urlsafe(32))
    return path.read_text().strip(), True


def make_private(folder: Path) -> None:
    """Make a folder that nobody else may enter: vectors and the secrets of webhooks lie in it. One that is there is left as it is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write_once(path: Path, token: str) -> None:
    """Whole or not at all, and the first writer wins: a reader never sees half a token."""
    private = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(f"{token}\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(private, path)
    except FileExistsError:
        pass
    finally:
        private.unlink()
