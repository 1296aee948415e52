"""A store in a dictionary: quick to copy, so that one can be damaged in a thousand ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from upwell.errors import AlreadyExists, NotFound
from upwell.streamed import Part, joined


class DictStore:
    """Objects by their names. For one thread at a time."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})

    def create(self, key: str, *parts: Part) -> None:
        if key in self.objects:
            raise AlreadyExists(key=key)
        self.objects[key] = joined(parts)

    def confirm(self, key: str) -> None:
        pass

    def read(self, key: str) -> memoryview:
        try:
            return memoryview(self.objects[key])
        except KeyError:
            raise NotFound("there is no such object", key=key) from None

    def exists(self, key: str) -> bool:
        return key in self.objects

    def size_bytes(self, key: str) -> int:
        return len(self.read(key))

    def list(self, folder: str, *, after: str = "") -> Iterator[str]:
        begins = f"{folder}/" if folder else ""
        names = {key[len(begins) :].partition("/")[0] for key in self.objects if key.startswith(begins)}
        return iter(sorted(name for name in names if name > after))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def delete_folder(self, folder: str) -> None:
        for key in [key for key in self.objects if key.startswith(f"{folder}/")]:
            del self.objects[key]


def objects_in(root: Path) -> dict[str, bytes]:
    """Every object of a directory store."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(piece.startswith(".") for piece in path.relative_to(root).parts)
    }
