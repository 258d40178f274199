"""Bytes and a Content-Type, through the parser alone and through the door: the two always agree, and both know but one kind of refusal."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jupyter_cortex.core.errors import PayloadError
from jupyter_cortex.handler import payload
from jupyter_cortex.store import keys

from .conftest import Watched

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
_encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-7"])
texts = st.text(max_size=50)
bodies = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda text, encoding: text.encode(encoding, "replace"), texts, _encodings),
    st.builds(
        lambda value, encoding: json.dumps(value, ensure_ascii=False).encode(encoding, "surrogatepass"),
        json_values,
        st.sampled_from(["utf-8", "utf-16"]),
    ),
    st.builds(lambda value, at: json.dumps(value).encode()[:at], json_values, st.integers(0, 60)),
    st.builds(lambda text, count: text * count, st.sampled_from([b"[", b'{"a":', b"9", b"[]", b"-", b" ", b'"\\u']), st.integers(1, 5000)),
)
#: What may stand in a header: no control characters but a tab.
_value = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]) | st.just("\t"), max_size=40)
_charset = (
    st.sampled_from(["utf-8", "utf_16", "UTF 8", "latin-1", "idna", "punycode", "base64", "rot13", "undefined", "x" * 70, "mbcs", "uu", "oem", ""])
    | _value
)
content_types = st.one_of(
    st.none(),
    _value,
    st.sampled_from(["application/json", "text/plain", "application/octet-stream", "application/problem+json", " Application/JSON ;"]),
    st.builds(
        lambda media, charset, quote: f"{media}; charset={quote}{charset}{quote}",
        st.sampled_from(["application/json", "text/plain"]),
        _charset,
        st.sampled_from(["", '"', "'", '\\"']),
    ),
    st.builds(
        lambda pieces: "text/plain" + "".join(pieces),
        st.lists(st.sampled_from([";", "=", '"', "\\", "charset", "CHARSET", "utf-8", " ", "a", ","]), max_size=12),
    ),
)


def parsed(body: bytes, content_type: str | None) -> tuple[str, Any]:
    """("payload", its kind) or ("refused", the reason). Any other exception is a fault."""
    try:
        return "payload", type(payload.parse(body, content_type))
    except PayloadError as caught:
        refusal = caught
    document = refusal.problem()
    json.dumps(document).encode()
    assert document["kind"] in ("json_decode", "text_decode", "unknown_charset", "missing_content_type")
    assert len(refusal.message) < 600, "an error is a sentence"
    return "refused", document["kind"]


@given(body=bodies, content_type=content_types)
@settings(max_examples=1000)
@example(body=b'"\\ud800"', content_type="application/json")
@example(body=b"\xff\xfe\x00", content_type="application/json")
@example(body=b"", content_type="text/plain; charset=utf_16")
def test_any_bytes_are_a_payload_or_a_refusal_that_says_where(body: bytes, content_type: str | None) -> None:
    outcome, kind = parsed(body, content_type)
    assert parsed(body, content_type) == (outcome, kind)
    if outcome == "payload" and kind is bytes:
        assert payload.parse(body, content_type) == body


def post(url: str, lines: list[str], body: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer, at whose end the gateway closes."""
    head = ["POST /resting HTTP/1.1", "host: 127.0.0.1", "connection: close", f"content-length: {len(body)}", *lines, "", ""]
    at = httpx.URL(url)
    with socket.create_connection((at.host, at.port), timeout=30) as sock:
        sock.sendall("\r\n".join(head).encode("latin-1") + body)
        answer, _, said = b"".join(iter(lambda: sock.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(answer.split(b" ", 2)[1]), answer, said


def test_the_door_accepts_what_the_parser_accepts_and_nothing_else(watched: Watched) -> None:
    accepted = 0

    @given(body=bodies, content_type=content_types)
    @settings(max_examples=500)
    def run(body: bytes, content_type: str | None) -> None:
        nonlocal accepted
        # A server takes the blanks off a header's ends.
        outcome, kind = parsed(body, content_type if content_type is None else content_type.strip(" \t"))
        status, head, said = post(watched.url, [] if content_type is None else [f"content-type: {content_type}"], body)
        accepted += outcome == "payload"
        assert watched.accepted() == (accepted, accepted)
        assert status == (200 if outcome == "payload" else 400), said
        if outcome == "payload":
            request_id = json.loads(said)["id"]
            assert watched.api.store.get(keys.body(watched.api.name, request_id)) == body
            assert watched.api.store.hget(keys.record(watched.api.name, request_id), "status") == b"in_queue"
        if outcome == "refused":
            assert b"application/problem+json" in head
            assert json.loads(said)["kind"] == kind

    run()
    watched.check_alive()


_token = st.text(st.sampled_from("abcXYZ019!#$%&'*+-.^_`|~"), min_size=1, max_size=30)
_named = st.sampled_from(
    ["x-request-id", "X-Request-ID", "content-type", "origin", "authorization", "accept", "cookie", "content-encoding", "x-forwarded-for"]
)
headers = st.lists(st.tuples(_named | _token, _value), max_size=12)
#: Names that change what belongs to a message are another test's.
_FRAMING = ("content-length", "transfer-encoding", "connection", "upgrade", "expect", "host")


def test_whatever_headers_a_request_has_it_is_accepted_once_or_refused_in_words(watched: Watched) -> None:
    ids: set[str] = set()

    @given(headers=headers)
    @settings(max_examples=500)
    def run(headers: list[tuple[str, str]]) -> None:
        lines = [f"{name}: {value}" for name, value in headers if name.lower() not in _FRAMING]
        status, head, body = post(watched.url, lines, b"{}")
        assert status in (200, 400, 403, 409), body
        if status == 200:
            ids.add(json.loads(body)["id"])
        elif b"problem+json" in head:
            assert {"code", "detail", "title"} <= set(json.loads(body))
        assert watched.accepted() == (len(ids), len(ids))

    run()
    assert ids
    watched.check_alive()


_number = st.integers(-3, 40).map(str) | st.sampled_from(["", "x", "1" * 30, "+2", "2, 3", "0x2", "\xb2", " 2 "])
_chunk = st.one_of(
    st.binary(max_size=20).map(lambda data: b"%x\r\n%s\r\n" % (len(data), data)),
    st.sampled_from(
        [b"0\r\n\r\n", b"-1\r\n", b"fffffffffffffffff\r\n", b"g\r\n", b"2;a=b\r\n{}\r\n", b"2\n{}\n", b"\r\n", b"0\r\ntrailer: x\r\n\r\n"]
    ),
    st.binary(max_size=20),
)


def test_a_length_that_lies_and_chunks_that_are_none_enqueue_nothing_half(watched: Watched) -> None:
    """What is accepted is a whole payload: the bytes that its framing said."""

    @given(lengths=st.lists(_number, max_size=2), chunked=st.booleans(), pieces=st.lists(_chunk, max_size=4), end=st.booleans())
    @settings(max_examples=400)
    def run(lengths: list[str], chunked: bool, pieces: list[bytes], end: bool) -> None:
        lines = [f"content-length: {length}" for length in lengths] + ["transfer-encoding: chunked"] * chunked
        head = "\r\n".join(
            ["POST /resting HTTP/1.1", "host: 127.0.0.1", "connection: close", "content-type: text/plain; charset=latin-1", *lines, "", ""]
        )
        data = head.encode("latin-1") + b"".join(pieces) + b"0\r\n\r\n" * end
        at = httpx.URL(watched.url)
        with socket.create_connection((at.host, at.port), timeout=30) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)  # what is missing never comes
            said = b"".join(iter(lambda: sock.recv(65536), b""))
        assert not said or said.startswith(b"HTTP/1.1 "), said
        assert not said.startswith(b"HTTP/1.1 5"), said

    run()
    prefix = f"cx:{{{watched.api.name}}}"
    for key in watched.api.store.scan_iter(f"{prefix}:w:*", count=1000):
        size, digest = watched.api.store.hmget(key, "size", "digest")
        body = watched.api.store.get(key.replace(b":w:", b":b:", 1))
        assert body is not None
        assert (int(size), len(digest)) == (len(body), 32)
    watched.check_alive()
