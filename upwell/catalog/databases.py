"""Databases: what some doors call an account, and what they know of it besides its indexes.

An account needs no making: it is there while it has an index. A database may also be made, and is then there without one; it has properties,
and other names (aliases) for its indexes. All of that is one document for each, ``database/{name}/`` (notes.py), which stays when the
database is dropped, and says so.

    notes  {"name": its name, "made": bool, "properties": {…}, "aliases": {alias: [name of an index, its identity]}}

An alias is of an index and not of its name: renamed, the index keeps it, and one that was deleted leaves it to nobody. Ceilings: an alias
that is set in the same moment in which an index of that name is made, or a backup is restored under it, stands beside it, and the index is
what is found; and finding a renamed index by its alias is a look at each index of the database.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from upwell.catalog.events import NAME_PATTERN
from upwell.catalog.names import Catalog
from upwell.catalog.notes import Notes, OldNotes
from upwell.clock import Clock
from upwell.errors import Exists, Invalid, NotFound
from upwell.store import Store

#: The database that is always there.
DEFAULT_DATABASE: Final = "default"
FOLDER: Final = "database"
_Names = list[str]


class Databases:
    """The databases of a store. Blocking; safe to share between threads."""

    def __init__(self, store: Store, clock: Clock, catalog: Catalog, grace_s: float) -> None:
        self._store = store
        self._clock = clock
        self._catalog = catalog
        self._grace_s = grace_s
        self._lock = threading.Lock()
        self._notes: dict[str, Notes] = {}
        #: For the one thread that collects.
        self._old: dict[str, OldNotes] = {}

    def exists(self, name: str) -> bool:
        """Is there such a database: the default one, one that was made, or an account with an index?"""
        if name == DEFAULT_DATABASE:
            return True
        if not NAME_PATTERN.fullmatch(name):
            return False
        return self._has_indexes(name) or bool(self._read(name).get("made"))

    def list(self) -> _Names:
        """The names of all there are, ascending. Some looks for each account that there ever was."""
        names = {*self._catalog.accounts(), *self._store.list(FOLDER), DEFAULT_DATABASE}
        return sorted(name for name in names if self.exists(name))

    def create(self, name: str, properties: dict[str, Any]) -> None:
        """Make a database. Raises Exists or Invalid."""
        if not NAME_PATTERN.fullmatch(name):
            raise Invalid("a database's name must be letters, digits, _ and -", got=name[:64])
        if self.exists(name):
            raise Exists("a database of this name exists", name=name)

        def make(notes: dict[str, Any]) -> dict[str, Any]:
            # The name that lies there may be another to everybody but the file system.
            if notes.get("made") or notes.get("name", name) != name:
                raise Exists("a database of this name exists", name=name)
            return _unmade(name) | {"made": True, "properties": properties}

        self._of(name).change(make)

    def drop(self, name: str) -> None:
        """Let there be no such database. Raises NotFound, or Invalid for the default one and for one that has indexes."""
        if name == DEFAULT_DATABASE:
            raise Invalid("the default database cannot be dropped", name=name)
        self._demand(name)
        if self._has_indexes(name):
            raise Invalid("the database has indexes; drop them first", name=name)
        self._change(name, lambda _: _unmade(name))

    def properties(self, name: str) -> dict[str, Any]:
        """What was said of a database. Raises NotFound."""
        self._demand(name)
        found: dict[str, Any] = self._read(name).get("properties", {})
        return found

    def alter(self, name: str, make: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Let the properties become what ``make`` makes of them, which may be asked several times. Raises NotFound, or what it raises."""
        self._demand(name)
        became = self._change(name, lambda notes: notes | {"properties": make(notes["properties"])})
        found: dict[str, Any] = became["properties"]
        return found

    def aliases(self, name: str) -> dict[str, str]:
        """The name of the index that each alias stands for; those whose index was deleted are left out."""
        found: dict[str, str] = {}
        for alias, target in sorted(_aliases_in(self._read(name)).items()):
            meant = self._now_called(name, target)
            if meant is not None:
                found[alias] = meant
        return found

    def meant_by(self, name: str, alias: str) -> str | None:
        """The name of the index that an alias stands for; None if there is no such alias, or its index was deleted."""
        target = _aliases_in(self._read(name)).get(alias)
        return None if target is None else self._now_called(name, target)

    def set_alias(self, name: str, alias: str, index_name: str, *, new: bool) -> None:
        """Let an alias stand for an index: a ``new`` one, or one that there is.

        Raises NotFound (with ``index`` if there is no such index, with ``alias`` if there is no such alias), Exists (with the ``index``
        that has the name, or has it for an alias already), or Invalid.
        """
        if not NAME_PATTERN.fullmatch(alias):
            raise Invalid("an alias must be letters, digits, _ and -", got=alias[:64])
        identity = self._catalog.identity(name, index_name)
        if identity is None:
            raise NotFound("there is no such index", index=index_name)
        if self._catalog.identity(name, alias) is not None:
            raise Exists("an index has this name", index=alias)

        def make(notes: dict[str, Any]) -> dict[str, Any]:
            target = _aliases_in(notes).get(alias)
            meant = None if target is None else self._now_called(name, target)
            if not new and meant is None:
                raise NotFound("there is no such alias", alias=alias)
            is_other = target is not None and not self._catalog.is_or_replaces(identity, target[1])
            if new and meant is not None and is_other:
                raise Exists("the alias stands for another index", index=meant)
            return notes | {"aliases": notes["aliases"] | {alias: [index_name, identity]}}

        self._change(name, make)

    def drop_alias(self, name: str, alias: str) -> None:
        """Let an alias stand for nothing. Raises NotFound."""
        if self.meant_by(name, alias) is None:
            raise NotFound("there is no such alias", alias=alias)

        def make(notes: dict[str, Any]) -> dict[str, Any]:
            return notes | {"aliases": {one: to for one, to in notes["aliases"].items() if one != alias}}

        self._change(name, make)

    def collect_old(self) -> int:
        """Delete old versions of what is known of databases; returns how many. For one thread at a time."""
        names = list(self._store.list(FOLDER))
        self._old = {
            name: self._old.get(name) or OldNotes(self._store, _folder(name), self._clock, self._grace_s)
            for name in names
        }
        return sum(old.collect() for old in self._old.values())

    def _demand(self, name: str) -> None:
        if not self.exists(name):
            raise NotFound("there is no such database", name=name)

    def _has_indexes(self, name: str) -> bool:
        return next(self._catalog.names(name), None) is not None

    def _now_called(self, name: str, target: tuple[str, str]) -> str | None:
        """What the index is called now that an alias was set to; None if it was deleted."""
        was_called, identity = target
        names, catalog = self._catalog.names, self._catalog
        if catalog.is_or_replaces(catalog.identity(name, was_called), identity):
            return was_called
        called = (one for one in names(name) if catalog.is_or_replaces(catalog.identity(name, one), identity))
        return next(called, None)

    def _of(self, name: str) -> Notes:
        with self._lock:
            if name not in self._notes:
                self._notes[name] = Notes(self._store, _folder(name), self._clock, self._grace_s)
            return self._notes[name]

    def _read(self, name: str) -> dict[str, Any]:
        """What is known of a database; {} if nothing is."""
        if not NAME_PATTERN.fullmatch(name):
            return {}
        notes = self._of(name).read()
        if not notes:
            # Whoever asks for names that never were must not fill the memory.
            with self._lock:
                self._notes.pop(name, None)
        return notes if notes.get("name") == name else {}

    def _change(self, name: str, make: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Change what is known of a database that there is. Raises what ``make`` raises."""

        def whole(notes: dict[str, Any]) -> dict[str, Any]:
            if notes.get("name", name) != name:
                raise Invalid("another database has this name, to the file system", name=name)
            return make(_unmade(name) | notes)

        return self._of(name).change(whole)


def _aliases_in(notes: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {alias: (called, identity) for alias, (called, identity) in notes.get("aliases", {}).items()}


def _unmade(name: str) -> dict[str, Any]:
    """What is known of a database of which nothing was said."""
    return {"name": name, "made": False, "properties": {}, "aliases": {}}


def _folder(name: str) -> str:
    return f"{FOLDER}/{name}"
