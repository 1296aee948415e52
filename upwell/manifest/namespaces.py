"""Which namespaces an index has, and what its rows call them.

A row holds its namespace's *identity*, which is the name that it had when it was made. Renaming changes nothing but this table; so it is
done at once, however many rows there are. The table is an object that a manifest names, and a new one when it changes. Rows of before
there was one have the names of their namespaces: who is in no table is called by its own name.

    index/{id}/namespaces/{identity}   meta {"names": [[name, identity], …]}, or [name] alone where both are the same

Ceiling: the whole table is written when a namespace is new, some 20 bytes for each there is: 1 MB for fifty thousand.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from upwell.format import Box, Kind, pack
from upwell.ids import new_identity
from upwell.manifest.state import Manifest
from upwell.store import Store, create_own, read_object

#: Between a name that was used before and what makes an identity of it: no name has this character.
AGAIN = "\0"


@dataclass(frozen=True)
class Namespaces:
    """Identities by name. Immutable."""

    identities: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Names by identity."""
        return {identity: name for name, identity in self.identities.items()}

    def identity(self, name: str) -> str | None:
        """What rows of the namespace call it; None if there can be no rows of it. "" is always itself."""
        return _identity(name, self.identities, self.names)

    def called(self, name: str) -> str:
        """What rows of the namespace call it; if there can be none, what no row calls its own."""
        return _called(name, self.identities, self.names)

    def name(self, identity: str) -> str:
        """The name of a namespace whose rows call it ``identity``."""
        return self.names.get(identity, identity)


class NamespacesDraft:
    """Namespaces that are being changed, however many of them: each change takes the same time. For one thread."""

    def __init__(self, before: Namespaces) -> None:
        self._before = before
        self._identities: Mapping[str, str] = before.identities
        self._names: Mapping[str, str] = before.names
        self._own: tuple[dict[str, str], dict[str, str]] | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._identities

    def called(self, name: str) -> str:
        """As of ``Namespaces``."""
        return _called(name, self._identities, self._names)

    def add(self, name: str, unlike: str) -> None:
        """Let there be a namespace of this name, if there is none yet. ``unlike`` is part of no identity so far."""
        if name and name not in self._identities:
            identity = _identity(name, self._identities, self._names)
            self._put(name, name + AGAIN + unlike if identity is None else identity)

    def remove(self, name: str) -> None:
        """Let there be none of this name."""
        if name in self._identities:
            identities, names = self._changing()
            del names[identities.pop(name)]

    def rename(self, name: str, new_name: str) -> None:
        """Give a namespace that is there a name that is free."""
        identity = self._identities[name]
        self.remove(name)
        self._put(new_name, identity)

    def done(self) -> Namespaces:
        """What has become of them; the very same that there were, if nothing has changed."""
        return self._before if self._own is None else Namespaces(dict(self._own[0]))

    def _put(self, name: str, identity: str) -> None:
        identities, names = self._changing()
        identities[name], names[identity] = identity, name

    def _changing(self) -> tuple[dict[str, str], dict[str, str]]:
        if self._own is None:
            self._identities, self._names = self._own = dict(self._identities), dict(self._names)
        return self._own


def _identity(name: str, identities: Mapping[str, str], names: Mapping[str, str]) -> str | None:
    known = identities.get(name)
    if known is not None:
        return known
    return None if name in names else name


def _called(name: str, identities: Mapping[str, str], names: Mapping[str, str]) -> str:
    identity = _identity(name, identities, names)
    return name + AGAIN if identity is None else identity


class NamespaceTables:
    """Tables of one index. Blocking; safe to share between threads."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store = store
        self._folder = f"{folder}/namespaces"
        self._lock = threading.Lock()
        self._newest: tuple[str, Namespaces] | None = None

    def of(self, manifest: Manifest) -> Namespaces:
        """The namespaces of a version. Raises Corrupt, NotFound if the version is long gone."""
        key = manifest.namespaces
        if key is None:
            return Namespaces()
        with self._lock:
            known = self._newest
        if known is None or known[0] != key:
            known = key, namespaces_in(read_object(self._store, key, Kind.NAMESPACES))
            with self._lock:
                self._newest = known
        return known[1]

    def write(self, namespaces: Namespaces) -> str:
        """Write a table; returns its name."""
        key = f"{self._folder}/{new_identity()}"
        names = [
            [name] if name == identity else [name, identity]
            for name, identity in namespaces.identities.items()
        ]
        create_own(self._store, key, *pack(Kind.NAMESPACES, {"names": names}))
        return key


def namespaces_in(box: Box) -> Namespaces:
    """What a table holds. Raises Corrupt."""
    with box.understood():
        return Namespaces({one[0]: one[-1] for one in box.meta["names"]})
