"""Which URLs a webhook may have, and which addresses may be connected to on its behalf.

Whoever registers a webhook makes our workers send requests; without rules they would reach what only our network can reach. So a URL
is checked when it is registered (syntax here, and what its host resolves to by the door), and the *address* again at every single
connection, by the worker, since a name may resolve to something else by then. Only the second is protection; the first is courtesy.

The networks are listed here and not left to ``ipaddress.is_global``, which says different things in different versions of Python
and takes NAT64 and site-local addresses for global ones. What is not known to be public is refused.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from upwell.errors import Invalid

URL_LENGTH_MAX = 2_048
PORTS = {"http": 80, "https": 443}

_PRINTABLE = re.compile(r"[!-~]+")
_NAME = re.compile(
    r"(?=.{1,254}$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_-]{1,63}\.?"
)
#: What some resolvers take for a number, and so for an address: 127.1, 2130706433, 0x7f000001, 0177.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: IPv4 that is not public, and what it is.
_IPV4 = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "Azure's own"),  # what a machine there is configured by
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
#: IPv6 that is not public although it lies in the public part of it, 2000::/3; and, for a name, some that lies outside.
_IPV6 = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),  # Teredo, which tunnels to any IPv4, among them
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
    )
)
_IPV6_PUBLIC = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a URL leads: a host as a name or an address, and a port."""

    host: str
    port: int
    #: The host, if it is an address and no name.
    address: Address | None


def destination(url: str) -> Destination:
    """Where ``url`` leads. Raises Invalid unless it is a plain http or https URL whose host can be taken in one way only."""
    if len(url) > URL_LENGTH_MAX:
        raise Invalid(f"url: at most {URL_LENGTH_MAX} characters are allowed, got {len(url)}")
    if not _PRINTABLE.fullmatch(url) or "\\" in url:
        raise Invalid(
            "url: expected plain ASCII without spaces; write names in other scripts as xn--, the rest as %XX"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Invalid(f"url: {error}") from None
    if parts.scheme not in PORTS or not parts.netloc:
        raise Invalid("url: expected one that begins with http:// or https:// and names a host")
    if "@" in parts.netloc:
        raise Invalid("url: a user name or password in it is not allowed; messages are signed instead")
    if "#" in url:
        raise Invalid("url: a fragment (#…) is never sent; leave it out")
    if port == 0:
        raise Invalid("url: the port must be from 1 to 65535")
    address = _address_of(parts)
    return Destination(str(address or parts.hostname), port or PORTS[parts.scheme], address)


def _address_of(parts: SplitResult) -> Address | None:
    """The host as an address, None if it is a name. Raises Invalid for what some would take for another than others."""
    host = parts.hostname or ""
    bracketed = parts.netloc.startswith("[")
    behind = parts.netloc.lower().removeprefix(f"[{host}]" if bracketed else host)
    if not re.fullmatch("(:[0-9]+)?", behind):
        raise Invalid("url: expected a host, and a port after a colon if there is to be one")
    if bracketed:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise Invalid("url: what stands in [] must be an IPv6 address") from None
        if address.scope_id is not None:
            raise Invalid("url: an address with a zone (%…) means something on one machine only")
        return address
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return ipaddress.IPv4Address(host)
        except ValueError:
            raise Invalid(
                "url: an IPv4 address must be written as four decimal numbers, as in 203.0.113.7"
            ) from None
    if not _NAME.fullmatch(host):
        raise Invalid("url: the host is not a valid name")
    return None


def why_refused(address: str) -> str | None:
    """Why a connection to ``address`` is not allowed; None if it is public. What is no plain address is refused."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "not an address"
    return _why_refused(parsed)


def _why_refused(address: Address) -> str | None:
    if isinstance(address, ipaddress.IPv4Address):
        return next((what for network, what in _IPV4 if address in network), None)
    embedded = _embedded(address)
    if embedded is not None:
        why = _why_refused(embedded)
        return None if why is None else f"{why}, as {embedded} in IPv6"
    found = next((what for network, what in _IPV6 if address in network), None)
    return found or (None if address in _IPV6_PUBLIC else "reserved")


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to ``address`` may end up at."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _6TO4:
        return ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    return None
