"""Where webhooks may lead: every notation of every address that is not public, and nothing that is."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.errors import Invalid
from upwell.webhook.addresses import URL_LENGTH_MAX, destination, why_refused

NOT_PUBLIC = {
    "0.0.0.0": "this network",
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "CGNAT",
    "100.127.255.255": "CGNAT",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "Azure",
    "169.254.169.254": "link-local",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.1": "reserved",
    "192.0.2.1": "documentation",
    "192.88.99.1": "reserved",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "reserved",
    "::ffff:127.0.0.1": "loopback, as 127.0.0.1",
    "::ffff:10.0.0.1": "private",
    "::ffff:a9fe:a9fe": "link-local",
    "::ffff:0:127.0.0.1": "reserved",
    "64:ff9b::127.0.0.1": "loopback",
    "64:ff9b::a9fe:a9fe": "link-local",
    "64:ff9b:1::8.8.8.8": "NAT64",
    "100::1": "reserved",
    "2001::1": "reserved",
    "2001:0:53aa:64c:0:0:80ff:fffe": "reserved",
    "2001:20::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "loopback",
    "2002:c0a8:101::1": "private",
    "3fff::1": "documentation",
    "5f00::1": "reserved",
    "4000::1": "reserved",
    "fc00::1": "private",
    "fd12:3456::1": "private",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "ff0e::1": "multicast",
}
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2001:4860:4860::8888",
    "2002:808:808::1",
    "2606:4700::1111",
    "2a00:1450::1",
)
#: What some resolver, somewhere, takes for 127.0.0.1 or the like, and what cannot be connected to as it stands.
NO_PLAIN_ADDRESS = (
    "127.1",
    "0x7f000001",
    "0x7f.1",
    "2130706433",
    "0177.0.0.1",
    "127.0.0.01",
    "localhost",
    "",
    "1.1.1.1 ",
)


@pytest.mark.parametrize(("address", "why"), NOT_PUBLIC.items())
def test_an_address_that_is_not_public_is_refused_and_named(address: str, why: str) -> None:
    assert why in (why_refused(address) or "")


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_one_is_not(address: str) -> None:
    assert why_refused(address) is None


@pytest.mark.parametrize("address", NO_PLAIN_ADDRESS)
def test_what_is_no_plain_address_is_refused(address: str) -> None:
    assert why_refused(address) == "not an address"


@given(st.ip_addresses(v=4))
def test_ipv4_inside_ipv6_is_held_to_the_same_rules(inner: ipaddress.IPv4Address) -> None:
    alone = why_refused(str(inner)) is None
    number = int(inner)
    for outer in (
        0xFFFF << 32 | number,
        int(ipaddress.IPv6Address("64:ff9b::")) | number,
        0x2002 << 112 | number << 80 | 1,
    ):
        assert (why_refused(str(ipaddress.IPv6Address(outer))) is None) == alone


@given(st.ip_addresses())
def test_nothing_that_python_knows_not_to_be_global_is_allowed(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    allowed = why_refused(str(address)) is None
    # Of an address that carries another, later versions of Python say other things than earlier ones.
    carried = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
    assert not allowed or (carried.is_global and not carried.is_multicast)


@pytest.mark.parametrize(
    ("url", "host", "port", "is_address"),
    [
        ("http://example.com", "example.com", 80, False),
        ("https://example.com/", "example.com", 443, False),
        ("HTTPS://Example.COM:8443/a/b?c=d&e=%20", "example.com", 8443, False),
        ("https://xn--r8jz45g.jp/x", "xn--r8jz45g.jp", 443, False),
        ("http://localhost./x", "localhost.", 80, False),
        ("http://a_b.internal:1/", "a_b.internal", 1, False),
        ("http://1.2.3.4.example/", "1.2.3.4.example", 80, False),
        ("http://0x7f000001.example/", "0x7f000001.example", 80, False),
        ("http://127.0.0.1:9/x", "127.0.0.1", 9, True),
        ("http://[::1]:65535/x", "::1", 65535, True),
        ("http://[2606:4700:0:0::1111]/", "2606:4700::1111", 80, True),
        ("http://[::ffff:127.0.0.1]/", "::ffff:7f00:1", 80, True),
    ],
)
def test_where_a_url_leads(url: str, host: str, port: int, is_address: bool) -> None:
    where = destination(url)
    assert (where.host, where.port, where.address is not None) == (host, port, is_address)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "ASCII"),
        ("example.com/hook", "http://"),
        ("//example.com/hook", "http://"),
        ("ftp://example.com/", "http://"),
        ("file:///etc/passwd", "http://"),
        ("javascript:alert(1)", "http://"),
        ("http:/example.com", "http://"),
        ("http:///path", "names a host"),
        ("http://:80/", "valid name"),
        ("http://user@example.com/", "user name"),
        ("http://user:secret@example.com/", "user name"),
        ("http://@example.com/", "user name"),
        ("http://127.0.0.1%2f@example.com/", "user name"),
        ("http://example.com/#x", "fragment"),
        ("http://example.com/#", "fragment"),
        ("http://example.com:0/", "port"),
        ("http://example.com:65536/", "ort"),
        ("http://example.com:-1/", "ort"),
        ("http://example.com:/", "port"),
        ("http://example.com:8x/", "ort"),
        ("http://127.1/", "four decimal"),
        ("http://0x7f000001/", "four decimal"),
        ("http://0x7f.0.0.1/", "four decimal"),
        ("http://0x/", "four decimal"),
        ("http://2130706433/", "four decimal"),
        ("http://0177.0.0.1/", "four decimal"),
        ("http://127.0.0.1./", "four decimal"),
        ("http://1.2.3.4.5/", "four decimal"),
        ("http://256.0.0.1/", "four decimal"),
        ("http://example.123/", "four decimal"),
        ("http://[fe80::1%25eth0]/", "zone"),
        ("http://[127.0.0.1]/", ""),
        ("http://[::1/", "IPv6"),
        ("http://[v1.a]/", ""),
        ("http://[::1]x:80/", ""),
        ("http://a..b/", "valid name"),
        ("http://.../", "valid name"),
        ("http://-a.com/", "valid name"),
        ("http://exa%6dple.com/", "valid name"),
        ("http://%31%32%37.0.0.1/", "four decimal"),
        ("http://%6c%6f%63%61%6c/", "valid name"),
        (f"http://{'a' * 64}.com/", "valid name"),
        (f"http://{'a.' * 130}com/", "valid name"),
        ("http://exa mple.com/", "ASCII"),
        ("http://example.com/\r\nX: y", "ASCII"),
        ("http://example.com\t/", "ASCII"),
        (" http://example.com/", "ASCII"),
        ("http://１２７.0.0.1/", "ASCII"),
        ("http://例え.jp/", "ASCII"),
        ("https://h\\@127.0.0.1/", "ASCII"),
        (f"http://example.com/{'a' * URL_LENGTH_MAX}", "characters"),
    ],
)
def test_a_url_that_is_not_plain_is_refused_with_the_reason(url: str, says: str) -> None:
    with pytest.raises(Invalid, match=r"^url: ") as refused:
        destination(url)
    assert says in str(refused.value)


@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://[", "http://127.0.0.1", "http://a:"]))
def test_any_text_is_a_destination_or_invalid(text: str, begins: str) -> None:
    try:
        where = destination(begins + text)
    except Invalid:
        return
    assert where.host and 0 < where.port < 65_536
