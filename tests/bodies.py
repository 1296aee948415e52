"""Upload bodies of every kind, right and wrong, as hypothesis draws them: for tests that must hold whatever is sent.

Bodies are put together from text and not from values, so that they hold what no encoder writes: keys given twice, numbers spelt
oddly, bytes that are not UTF-8, nesting without end. What each should give is said by slow_body.py.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import zstandard
from hypothesis import strategies as st

DIMENSIONS = 3
BOM = b"\xef\xbb\xbf"


def mostly(
    usual: st.SearchStrategy[bytes], unusual: st.SearchStrategy[bytes], times: int = 20
) -> st.SearchStrategy[bytes]:
    """The one so many times as often as the other."""
    return st.sampled_from([*[usual] * times, unusual]).flatmap(lambda chosen: chosen)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request's body and the two headers that say how to read it."""

    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None


def quoted(text: str, *, ascii_only: bool = False) -> bytes:
    """A JSON string. Lone surrogates are escaped in ASCII, and bytes that are not UTF-8 otherwise."""
    return json.dumps(text, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def array(items: Sequence[bytes]) -> bytes:
    """A JSON array."""
    return b"[" + b",".join(items) + b"]"


def an_object(pairs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A JSON object, with its keys in the order given, twice if given twice."""
    return b"{" + b",".join(key + b":" + value for key, value in pairs) + b"}"


def nested(opens: bytes, inner: bytes, closes: bytes, levels: int) -> bytes:
    """Something inside so many arrays or objects."""
    return opens * levels + inner + closes * levels


# Texts are drawn from pools, made once and alike each time: drawing them piece by piece takes longer than reading them.
_random = random.Random("bodies")
_FLOATS = [struct.unpack("<d", _random.randbytes(8))[0] for _ in range(60)]
_FLOATS += [struct.unpack("<f", _random.randbytes(4))[0] for _ in range(60)]
_TEXTS = [
    "",
    "a",
    "b",
    "[",
    "]",
    "\0",
    "é",
    "\u2028\ufeff\x7f",
    "😀",
    'a"b',
    "a\\/\n",
    "NaN",
    "too many",
    "vectors",
    "y" * 300,
]
_TEXTS += ["x" * 64, "x" * 65, "é" * 32, "é" * 33, "$a", "a.b", "$"]

STRINGS = [quoted(text, ascii_only=escaped) for text in _TEXTS for escaped in (False, True)]
STRINGS += [b'"\\u005b"', b'"\\u0024"', b'"a\\/b"', b'"\\u0061"']
#: Strings that no reader of JSON or of UTF-8 should take.
BROKEN_STRINGS = [
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\ud800x"',
    b'"\\x41"',
    b'"\\u12"',
    b'"',
    b"'a'",
    b"a",
    b'"\\',
]
BROKEN_STRINGS += [b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\0"', b'"a\tb"']
PLAIN_NUMBERS = [repr(number).encode() for number in _FLOATS if math.isfinite(number)]
PLAIN_NUMBERS += [b"%d" % _random.randint(-(2**63), 2**64 - 1) for _ in range(20)]
#: Of these a float32, a double, or 64 bits do not have all.
ODD_NUMBERS = [
    b"0",
    b"-0",
    b"-0.0",
    b"1E5",
    b"1e+5",
    b"1e-400",
    b"-1e-400",
    b"5e-324",
    b"2.2250738585072011e-308",
    b"1e-46",
]
ODD_NUMBERS += [
    b"3.4028235e38",
    b"3.4028235677973362e38",
    b"3.4028235677973366e38",
    b"-3.40282357e38",
    b"1e39",
    b"1e308",
]
ODD_NUMBERS += [
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"-9223372036854775809",
]
ODD_NUMBERS += [
    b"9007199254740993",
    b"16777217",
    b"1" + b"0" * 38,
    b"9" * 400,
    b"1e400",
    b"-1e400",
    b"0." + b"3" * 400,
]
BROKEN_NUMBERS = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"nan",
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"1e",
    b"-",
    b"0x10",
    b"1_0",
    b"--1",
]
BROKEN_NUMBERS += [b"9" * 4_301, b"-" + b"9" * 100_000, b"1e" + b"9" * 5_000, b"0." + b"1" * 100_000]
SCALARS = [b"null", b"true", b"false", *STRINGS, *PLAIN_NUMBERS, *ODD_NUMBERS]
#: Few levels, or more than any reader takes: what lies between is a matter of the reader.
DEEP = [
    nested(opens, inner, closes, levels)
    for opens, inner, closes in [
        (b"[", b"", b"]"),
        (b"[[],", b"1", b"]"),
        (b'{"a":', b"1", b"}"),
        (b'[{"a":', b"1", b"}]"),
    ]
    for levels in (5, 60, 3_000, 30_000)
]
GOOD_KEYS = [quoted(key) for key in ("a", "b", "[", "]é", "a$", " ", "é", "ab", "\n")]


def _tree(leaves: Sequence[bytes], keys: Sequence[bytes], levels: int) -> bytes:
    if levels == 0 or _random.random() < 0.4:
        return _random.choice(leaves)
    inner = [_tree(leaves, keys, levels - 1) for _ in range(_random.randrange(4))]
    return array(inner) if _random.random() < 0.5 else _object_of(inner, keys)


def _object_of(values: Sequence[bytes], keys: Sequence[bytes]) -> bytes:
    return an_object([(_random.choice(keys), value) for value in values])


_GOOD_LEAVES = [
    b"null",
    b"true",
    b'"a"',
    b'"["',
    b'"\\ud83d\\ude00"',
    b"-0.0",
    b"1e22",
    b"5e-324",
    *PLAIN_NUMBERS,
]
GOOD_TREES = [_tree(_GOOD_LEAVES, GOOD_KEYS, 3) for _ in range(200)]
TREES = [_tree(SCALARS, STRINGS, 3) for _ in range(400)]
ANYTHING = mostly(st.sampled_from(TREES), st.sampled_from(BROKEN_STRINGS + BROKEN_NUMBERS + DEEP), 4)

GOOD_IDS = [b'"a"', b'"b"', b'"\\u0061"', b"7", b"-0", b"9" * 30, quoted("x" * 64), quoted("é" * 32)]
_GOOD_NUMBERS = [b"0", b"-0", b"-0.0", b"1e-400", b"3.4028235e38", b"-3.4028235677973362e38", b"16777217"]
_GOOD_NUMBERS += [repr(number).encode() for number in _FLOATS[60:] if math.isfinite(number)]
GOOD_VALUES = [array(_random.choices(_GOOD_NUMBERS, k=DIMENSIONS)) for _ in range(200)]
GOOD_NAMES = [b"null", b'""', b'"n"', b'"["', quoted("é" * 32)]
GOOD_METADATA = [b"null", *(_object_of(_random.choices(GOOD_TREES, k=k % 4), GOOD_KEYS) for k in range(200))]
_WRONG_NUMBERS = [*ODD_NUMBERS, *ODD_NUMBERS, *BROKEN_NUMBERS, b'"1"', b"true", b"null", b"[1]", b"{}"]
WRONG_VALUES = [array([b"1", number, b"-2.5"]) for number in _WRONG_NUMBERS for _ in range(2)]
WRONG_VALUES += [array(_random.choices(_GOOD_NUMBERS, k=k)) for k in (0, 1, 2, 4, 5, 1_000)] * 5
#: As many numbers as there must be, but not one beside the other.
WRONG_VALUES += [b"[[1],2,3]", b"[[1,2],[],3]", b"[[],[1],[2,3]]", b"[[],[],[1,2,3]]", b"[[[1]],2,3]"] * 5
WRONG_IDS = [
    b'""',
    b"true",
    b"1.5",
    b"-0.0",
    b"null",
    b"[]",
    b"{}",
    b"NaN",
    b"9" * 65,
    quoted("x" * 65),
    quoted("é" * 33),
]
WRONG_NAMES = [
    b'"\\u0000"',
    b'"a\\u0000b"',
    b"7",
    b"false",
    b"0",
    b"[]",
    b"NaN",
    quoted("x" * 65),
    quoted("é" * 33),
]
_WRONG_LEAVES = [
    b"18446744073709551616",
    b"-9223372036854775809",
    b"1e400",
    b"NaN",
    b"-Infinity",
    *BROKEN_STRINGS[:2],
]
_WRONG_LEAVES += [
    b'{"":1}',
    b'{"a":{"$b":1}}',
    b'{"a.b":1}',
    b'{"a\\"b":1}',
    b'{"\\u0024":1}',
    b'{"\\ud800":1}',
    quoted("y" * 300),
]
WRONG_METADATA = [b"7", b"[]", b"false", b'"{}"', b'""', b"NaN", *DEEP]
WRONG_METADATA += [an_object([(key, value)]) for value in _WRONG_LEAVES for key in (b'"a"', b'"[":[1],"b"')]
WRONG_METADATA += [_object_of([array([_tree(_GOOD_LEAVES, STRINGS, 3)])], GOOD_KEYS) for _ in range(40)]


def _wrongly(texts: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    return mostly(st.sampled_from(texts), ANYTHING)


FIELDS = {
    b'"id"': (GOOD_IDS, _wrongly(WRONG_IDS)),
    b'"values"': (GOOD_VALUES, _wrongly(WRONG_VALUES)),
    b'"namespace"': (GOOD_NAMES, _wrongly(WRONG_NAMES)),
    b'"metadata"': (GOOD_METADATA, _wrongly(WRONG_METADATA)),
}
OTHER_FIELDS = [b'"vectors"', b'"unknown"']
_SUBSETS: list[list[bytes]] = [
    [],
    [b'"namespace"'],
    [b'"metadata"'],
    [b'"namespace"', b'"metadata"'],
    [b'"unknown"'],
]
_NEEDED = [b'"id"', b'"values"']
_ORDERS = [_random.sample(_NEEDED + more, k=2 + len(more)) for more in _SUBSETS for _ in range(8)]


class _Plan(NamedTuple):
    """Which field of a vector is wrong, which is left out, and what is there besides; mostly nothing."""

    wrong: bytes = b""
    left_out: bytes = b""
    more: tuple[bytes, ...] = ()


_PLANS = [_Plan()] * 20 + [_Plan(wrong=key) for key in FIELDS] * 4
_PLANS += [_Plan(left_out=key) for key in _NEEDED] + [
    _Plan(more=(key,)) for key in (*FIELDS, *OTHER_FIELDS, *STRINGS[:6])
]


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """A vector's text: whole and right more often than not, and seldom wrong in more than one field."""
    chosen = draw(st.sampled_from(_PLANS))
    keys = [*draw(st.sampled_from(_ORDERS)), *chosen.more]
    keys += [chosen.wrong] if chosen.wrong and chosen.wrong not in keys else []
    keys = [key for key in keys if key != chosen.left_out]
    pairs = []
    for key in keys:
        good, bad = FIELDS.get(key, (TREES, ANYTHING))
        pairs.append((key, draw(bad if key == chosen.wrong else st.sampled_from(good))))
    return an_object(pairs)


#: What is not even an object, now and then.
vectors = mostly(rows(), ANYTHING)
some_vectors = st.one_of(*[st.lists(vectors, min_size=least, max_size=6) for least in (0, 1, 2, 4)])


LINE_ENDS = [b"\n"] * 12 + [
    b"\r\n",
    b"\r\n",
    b"\n\n",
    b"\n \t\r\n",
    b"\n\x0b\n",
    b" \n" + BOM,
    b"\n\n" + BOM,
    b"",
]


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """NDJSON with every kind of line end, blank lines, and byte order marks."""
    text = draw(st.sampled_from([b"", b"", b"", BOM, b"\n", b"\r\n \n", BOM + BOM]))
    for vector in draw(some_vectors):
        text += vector + draw(st.sampled_from(LINE_ENDS))
    return text if draw(st.booleans()) else text.rstrip()


def _spread(text: bytes) -> bytes:
    return text.replace(b",", b",\n ").replace(b"{", b"{\n", 1)


#: What stands between the vectors of an array: mostly what must.
BETWEEN = [b","] * 20 + [
    b" , ",
    b"\r\n,\n",
    b",\t",
    b",,",
    b"",
    b"\n",
    b",null,",
    b"],[",
    b"},{",
    b',"',
    b",\\",
    b"," + BOM,
    b":",
]


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """One of the forms that a part or a whole body may have, without multipart."""
    form = draw(st.sampled_from(["lines", "lines", "string", "array", "vectors", "more"]))
    if form == "lines":
        return draw(lines())
    if form == "string":
        inner = draw(lines()).decode("utf-8", "replace")
        return draw(st.sampled_from([b"", b"\n ", BOM])) + quoted(inner, ascii_only=draw(st.booleans()))
    text = b"[" + draw(st.sampled_from(BETWEEN)).join(draw(some_vectors)) + b"]"
    if form != "array":
        pairs = [(b'"vectors"', text)]
        if form == "more":
            pairs.insert(
                draw(st.integers(0, 1)), (draw(st.sampled_from(STRINGS)), draw(st.sampled_from(TREES)))
            )
        text = an_object(pairs)
    text = _spread(text) if draw(st.booleans()) else text
    return (
        draw(st.sampled_from([b"", b"", b"\n\n", b" ", BOM]))
        + text
        + draw(st.sampled_from([b"", b"\n", b" \r\n", b"]"]))
    )


BOUNDARIES = ["b", "----formdata-undici-0123456789", "=_ (x)?", "'", "x" * 70, "a--b", "--"]
#: A part's headers, and how much it is meant: as the one named vectors, as a file, or as neither.
PART_HEADERS = [
    (
        b'Content-Disposition: form-data; name="vectors"; filename="vectors.ndjson"\r\nContent-Type: application/x-ndjson',
        2,
    ),
    (b'Content-Disposition: form-data; name="vectors"', 2),
    (b'content-disposition: form-data; filename="a;b\\"c.ndjson"; name=vectors', 2),
    (b'Content-Type: application/json;\r\nContent-Disposition: form-data; name="file"; filename=""', 1),
    (b'Content-Disposition: form-data; name="body"', 0),
    (b"Content-Disposition: form-data", 0),
    (b"X-Nested: multipart/mixed; boundary=b\r\nContent-Type: multipart/mixed; boundary=other", 0),
    (b"Content-Disposition: ;;;=\xff; name*=utf-8''vectors", 0),
]


@st.composite
def forms(draw: st.DrawFn) -> tuple[Sent, bytes]:
    """multipart/form-data, its parts of all kinds between boundaries of all kinds; and the content of the part that counts."""
    boundary = draw(st.sampled_from(BOUNDARIES))
    delimiter = b"--" + boundary.encode()
    body, counts = draw(st.sampled_from([b"", b"", b"\r\n"])), (-1, b"")
    for head, rank in draw(st.lists(st.sampled_from(PART_HEADERS), min_size=1, max_size=3)):
        content = draw(documents())
        body += delimiter + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n"
        counts = (rank, content) if rank > counts[0] else counts
    body += delimiter + b"--" + draw(st.sampled_from([b"\r\n", b"", b"\r\nepilogue"]))
    kind = 'multipart/form-data; boundary="{}"'
    said = draw(st.sampled_from([kind, kind.title().replace("Boundary", " boundary") + "; charset=utf-8;"]))
    return Sent(body, said.format(boundary)), counts[1]


CONTENT_TYPES = [
    None,
    "application/x-ndjson",
    "application/json; charset=utf-8;",
    "application/octet-stream",
    ";;",
    "é/\udcff",
]
#: A body, and the text in it that counts.
whole = forms() | documents().flatmap(
    lambda text: st.builds(lambda kind: (Sent(text, kind), text), st.sampled_from(CONTENT_TYPES))
)

NASTY = [
    b"",
    b"\n",
    b"\r",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b"\\",
    b"\0",
    b"\xff",
    BOM,
    b"NaN",
    b"1e999",
    b"9" * 5_000,
]
NASTY += [
    b'"id":"z",',
    b'"values":[1,2,3],',
    b'"vectors":',
    b'{"vectors":[',
    b'{"id":"z","values":[1,2,3]}\n',
    b"\r\n--b",
    b"--",
]
NASTY += [b"[" * 30_000, b'{"a":' * 30_000, b'"\\ud800"', b"null", b" " * 70]


@st.composite
def damaged(draw: st.DrawFn) -> Sent:
    """A body that was cut, or in which bytes were put in, taken out, or changed."""
    sent, _ = draw(whole)
    body = bytearray(sent.body)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        stop = draw(st.sampled_from([start, start, start + 1, start + 9, len(body)]))
        body[start:stop] = draw(st.sampled_from(NASTY) | st.binary(max_size=3) | st.just(bytes(body[:40])))
    return Sent(bytes(body), sent.content_type)


_CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}


@st.composite
def encoded(draw: st.DrawFn) -> tuple[Sent, bytes]:
    """A body with a Content-Encoding, and the text in it that counts."""
    sent, text = draw(whole)
    body, names = sent.body, draw(st.lists(st.sampled_from(list(_CODINGS)), min_size=1, max_size=3))
    for name in names:
        body = _CODINGS[name](body)
    codings = draw(st.sampled_from([", ", ",", " ,, "])).join(names).title()
    return Sent(body, sent.content_type, codings), text
