"""Requests by chance: valid ones, such whose parts are odd but whose framing is right, and such in which any byte may be wrong.

All of it comes from one `random.Random`, so a seed is enough to have an input again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools

API = b"/resting"
BODIES = [
    *(b"{}", b'{"a": [1, 2.5, null, true, "\\u00e9"]}', b"[]", b"null", b'"text"', b"0", b"", b" ", b"{", b"}", b'{"a":}', b"{'a': 1}", b"a=1&b=2"),
    *(
        b"[" * 2000,
        b"[" * 400 + b"]" * 400,
        b"9" * 4301,
        b"1e400",
        b"NaN",
        b"-Infinity",
        b'"\\ud800"',
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\0}\0",
    ),
    *(b"\x1f\x8b\x08\0\0\0\0\0", b"<a/>", b"\0", bytes(range(256)), b"caf\xe9", b'{"a": 1}{"b": 2}', b'{"a": 1, "a": 2}', b"x" * 5000),
]
TYPES = [
    *(b"application/json", b"text/plain", b"application/octet-stream", b"APPLICATION/JSON; charset=utf-16", b"text/plain; charset=latin-1"),
    *(
        b"text/plain; charset=utf-7",
        b"text/plain; charset=idna",
        b'text/plain; charset="utf-8',
        b"text/plain; charset=\xff",
        b"text/plain;;;=;charset=",
    ),
    *(
        b"application/json;" + b"a" * 3000,
        b"",
        b" ",
        b",",
        b"application/json, text/plain",
        b"multipart/form-data; boundary=x",
        b"text/plain; charset=rot13",
    ),
    *(
        b'text/plain; charset="\\"',
        b"text/plain; charset=utf_16_be",
        b"application/vnd.x+json",
        b"image/png",
        b"*/*",
        b"text/plain; charset=undefined",
    ),
]
METHODS = [b"POST"] * 8 + [b"GET", b"DELETE", b"PUT", b"PATCH", b"HEAD", b"OPTIONS", b"post", b"TRACE", b"PROPFIND", b"M-SEARCH"]
TARGETS = [
    *(
        API,
        API,
        API,
        API,
        API + b"/",
        API + b"/x",
        API + b"/w?wait=0",
        API + b"?wait=nan",
        API + b"/x?wait=-1",
        API + b"/x?wait=1e999",
        API + b"//",
        b"//resting",
    ),
    *(
        API + b"/healthz",
        API + b"/%00",
        API + b"/%ff%fe",
        API + b"/%zz",
        API + b"/..",
        API + b"/../_cortex/v1/apis",
        b"/" + b"a/" * 500,
        b"/",
        b"*",
        b"",
    ),
    *(
        b"http://127.0.0.1/resting",
        b"/_cortex/v1/apis",
        b"/_cortex/v1/apis/resting",
        b"/metrics/x",
        b"/healthz/",
        b"/readyz/%2e",
        b"/r%65sting",
        API + b"#x",
    ),
    *(API + b"/" + b"x" * 200, API + b";a", API + b"?" + b"&=" * 400, b"/\xc3\xa9", API + b"/x?wait=%ff", b"/resting\\x", b"/_cortex/openapi.json"),
]
IDS = [b"x", b"a" * 128, b"a" * 129, b"", b" ", b"healthz", b"a b", b"\xff", b"a/b", b"..", b"same", b"same", b"a,b", b"{}", b"\t"]
HEADERS: list[tuple[bytes, list[bytes]]] = [
    (b"content-type", TYPES),
    (b"x-request-id", IDS),
    (b"X-REQUEST-ID", IDS),
    (b"origin", [b"https://friend.example", b"https://evil.example", b"null", b"http://[", b"", b"*", b"\xff", b"https://friend.example\x80"]),
    (
        b"host",
        [
            b"127.0.0.1",
            b"localhost:1",
            b"[::1]",
            b"[",
            b"evil.example",
            b"api-resting",
            b"api-resting:8888",
            b"api-x",
            b"",
            b":",
            b"\xff",
            b"LOCALHOST.",
        ],
    ),
    (b"authorization", [b"Bearer x", b"Bearer", b"Bearer \xff", b"", b"Basic eDp5", b"bearer  " + b"t" * 3000]),
    (b"accept-encoding", [b"gzip", b"identity;q=0", b"\xff"]),
    (b"content-encoding", [b"gzip", b"br", b"x"]),
    (b"expect", [b"100-continue", b"200-ok"]),
    (b"connection", [b"keep-alive", b"TE", b"x, y"]),
    (b"cookie", [b"a=b; " * 300, b"\xff=\xff"]),
    (b"x" * 300, [b"y" * 3000]),
    (b"x_y!#$%&'*+-.^`|~9", [b"\x80\xff", b"a\tb", b""]),
    (b"range", [b"bytes=0-1", b"bytes=-1,2-"]),
    (b"x-forwarded-host", [b"evil.example"]),
    (b"content-length-", [b"9"]),
]
#: What may stand in a header that is not ours to frame with.
FRAMING = (b"content-length", b"transfer-encoding", b"upgrade", b"connection")


@dataclass
class Request:
    method: bytes = b"POST"
    target: bytes = API
    headers: list[tuple[bytes, bytes]] = field(default_factory=lambda: [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")])
    body: bytes = b"{}"
    version: bytes = b"HTTP/1.1"

    def rendered(self) -> bytes:
        """With a right Content-Length, whatever else is wrong."""
        lines = [b" ".join((self.method, self.target, self.version)), *(name + b": " + value for name, value in self.headers)]
        return b"\r\n".join([*lines, b"content-length: %d" % len(self.body), b"", self.body])


def odd_part(request: Request, rng: random.Random) -> None:
    """Replace one part by an odd one; the message stays a message."""
    part = rng.choice("mtthhhhhhbbbd")
    if part == "m":
        request.method = rng.choice(METHODS)
    elif part == "t":
        request.target = rng.choice([target for target in TARGETS if target and all(32 < byte < 127 for byte in target)])
    elif part == "b":
        request.body = rng.choice(BODIES) if rng.random() < 0.6 else shaken(rng.choice(BODIES) or b"x", rng)
    elif part == "d" and len(request.headers) > 1:
        request.headers.pop(rng.randrange(1, len(request.headers)))
    else:
        name, values = rng.choice([one for one in HEADERS if one[0] not in FRAMING])
        if rng.random() < 0.5 or name == b"host":  # a second Host is no HTTP at all
            request.headers = [one for one in request.headers if one[0] != name]
        request.headers.append((name, rng.choice(values)))


class _Whole:
    """Whether bytes are one HTTP message for the parser that the gateway has, too."""

    def __init__(self, data: bytes) -> None:
        self.url, self.ends = b"", 0
        try:
            httptools.HttpRequestParser(self).feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.ends = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_headers_complete(self) -> None:
        (httptools.parse_url(self.url).path or b"\xff").decode("ascii")

    def on_message_complete(self) -> None:
        self.ends += 1


def framed(rng: random.Random) -> bytes:
    """A message of odd parts that is still HTTP, so that it is answered on its own."""
    while _Whole(data := _odd(rng).rendered()).ends != 1:
        pass
    return data


def _odd(rng: random.Random) -> Request:
    """A request of up to five odd parts."""
    request = Request(headers=[(b"host", b"127.0.0.1"), (b"content-type", rng.choice(TYPES[:3]))], body=rng.choice(BODIES))
    for _ in range(rng.randrange(6)):
        odd_part(request, rng)
    return request


def wild(rng: random.Random) -> bytes:
    """A message in which framing, lines and bytes are wrong as well."""
    request = _odd(rng)
    if rng.random() < 0.3:
        request.target = rng.choice(TARGETS)
    if rng.random() < 0.2:
        request.version = rng.choice([b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.11", b"http/1.1", b"", b"HTTP/1.1 "])
    data = request.rendered()
    if rng.random() < 0.3:
        data = data.replace(b"content-length: %d" % len(request.body), rng.choice(_LENGTHS)(request, rng))
    return shaken(data, rng) if rng.random() < 0.8 else data


def _chunks(request: Request, rng: random.Random) -> bytes:
    """Chunked: the body that follows is no chunk, unless these are put before it."""
    sizes = [b"%x" % len(request.body), b"0", b"-1", b"ffffffffffffffffff", b"g", b"", b"5;x=y", b"2\r\n{}\r\n0", b"1\n"]
    return b"transfer-encoding: " + rng.choice([b"chunked", b"Chunked", b"gzip, chunked", b"x"]) + b"\r\n\r\n" + rng.choice(sizes)


_LENGTHS: list[Callable[[Request, random.Random], bytes]] = [
    lambda request, rng: b"content-length: %d" % (len(request.body) + rng.choice([-5, -1, 1, 5, 200, 10**10, 10**30])),
    lambda request, rng: b"content-length: " + rng.choice([b"", b"x", b"+2", b" 2", b"2, 2", b"0x2", b"2 2", b"\xb2", b"1e1"]),
    lambda request, rng: b"content-length: %d\r\ncontent-length: %d" % (len(request.body), len(request.body) + rng.choice([0, 1])),
    lambda request, rng: b"content-length: %d\r\ntransfer-encoding: chunked" % len(request.body),
    lambda request, rng: b"x: y",
    _chunks,
    _chunks,
]


def shaken(data: bytes, rng: random.Random) -> bytes:
    """A few bytes of it changed, moved, repeated or gone."""
    buffer = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        at, length = rng.randrange(len(buffer) + 1), rng.choice([1, 1, 2, 4, 16])
        what = rng.randrange(6)
        if what == 0 and at < len(buffer):
            buffer[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            buffer[at:at] = rng.choice([b"\r\n", b"\n", b"\0", b" ", b":", b"\r", b"\xff", rng.randbytes(length), b"%", b"?", b"\r\n\r\n"])
        elif what == 2:
            del buffer[at : at + length]
        elif what == 3:
            buffer[at:at] = buffer[at : at + length * 4]
        elif what == 4:
            buffer[at : at + length] = rng.randbytes(length)
        elif rng.random() < 0.2:
            del buffer[at:]
    return bytes(buffer)
