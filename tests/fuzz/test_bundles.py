"""Archives by chance: a bundle is unpacked as its digest says, or refused in words; nothing is written outside, and no bomb goes off."""

from __future__ import annotations

import contextlib
import io
import shutil
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_cortex.core.errors import ProjectError
from jupyter_cortex.project import bundle
from jupyter_cortex.store import keys

from .conftest import Watched

_part = st.sampled_from(
    [
        "a",
        "A",
        "handler.py",
        "..",
        ".",
        "",
        "b c",
        "e\u0301",
        "\u00e9",
        "\ud7ff",
        "con",
        "C:",
        "a\\b",
        "\\",
        "~",
        ".env",
        "x" * 300,
        "\u202e",
        "\n",
        "\x7f",
    ]
)
_paths = st.lists(_part, min_size=1, max_size=5).map("/".join)
names = st.one_of(
    st.just("project/handler.py"),
    st.builds(
        lambda root, path: root + path,
        st.sampled_from(["project/", "meta/", "", "/", "../", "project/../../", "PROJECT/", "project//", "\\\\x\\", "project/" * 300]),
        _paths,
    ),
    st.text(max_size=12),
)
#: What the upper half of a member's attributes says it is: nothing, a file, a link, a directory, a device.
_modes = st.sampled_from([0, 0, 0, 0o100644, 0o120777, 0o040755, 0o060600, 0o020600, 0o104755])
members = st.tuples(
    names, st.binary(max_size=60), _modes, st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
)


def written(parts: list[tuple[str, bytes, int, int]]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of the duplicates that a test makes
        for name, content, mode, compression in parts:
            member = zipfile.ZipInfo("x")
            member.filename, member.external_attr, member.compress_type = name, mode << 16, compression
            with contextlib.suppress(UnicodeEncodeError):  # a name that no archive can hold
                archive.writestr(member, content)
    return buffer.getvalue()


_damages = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "field"]), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32 - 1), st.integers(0, 255)),
    max_size=4,
)


def damaged(data: bytes, damages: list[tuple[str, float, int, int]]) -> bytes:
    """Bytes changed, cut off and put in; ``field``: a number of a member's header (a size, a place, a method) is another one."""
    buffer = bytearray(data)
    for what, place, number, byte in damages:
        at = int(place * len(buffer))
        if what == "flip" and buffer:
            buffer[at] = byte
        elif what == "cut":
            del buffer[at : at + byte]
        elif what == "insert":
            buffer[at:at] = bytes([byte]) * (number % 50)
        elif what == "field" and (header := buffer.find(b"PK", at)) >= 0 and header + 46 < len(buffer):
            struct.pack_into("<I", buffer, header + 4 + number % 40, number)
    return bytes(buffer)


archives = st.one_of(
    st.builds(written, st.lists(members, max_size=4)),
    st.builds(damaged, st.builds(written, st.lists(members, max_size=3)), _damages),
    st.builds(lambda data, junk: junk + data + junk, st.builds(written, st.lists(members, max_size=2)), st.binary(max_size=30)),
    st.binary(max_size=100),
)


def outcome_of(data: bytes) -> tuple[str, str]:
    """("digest", it) or ("refused", its kind)."""
    try:
        return "digest", bundle.digest_of(data)
    except ProjectError as caught:
        refusal = caught
    refusal.message.encode()
    assert len(refusal.message) < 400
    return "refused", refusal.details["kind"]


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("room") / "a" / "b"
    made.mkdir(parents=True)
    return made


def test_an_archive_is_unpacked_below_its_directory_or_leaves_nothing(room: Path) -> None:
    top = room.parent.parent
    numbers = iter(range(1 << 30))
    digests = 0

    @given(archives)
    @settings(max_examples=600)
    def run(data: bytes) -> None:
        nonlocal digests
        before, target = everything(top), room / str(next(numbers))
        outcome, said = outcome_of(data)
        try:
            listed = bundle.unpack(data, target)
        except ProjectError as caught:
            kind = caught.details["kind"]
            listed = None
        if listed is None:
            assert everything(top) == before, "a refused archive left something"
            assert (outcome, said) == ("refused", kind) or kind == "unwritable"
            return
        digests += 1
        assert (outcome, len(said)) == ("digest", 64)
        assert bundle.names(data) == listed
        there = everything(top) - before
        assert all(path == f"a/b/{target.name}" or path.startswith(f"a/b/{target.name}/") for path in there), there
        for path in target.rglob("*"):
            assert path.is_dir() or (path.is_file() and not path.is_symlink()), path
            assert path.is_dir() or path.stat().st_mode & 0o7111 == 0, "nothing is executable that a bundle brings"
        assert {str(path.relative_to(target / "project")) for path in (target / "project").rglob("*") if path.is_file()} == set(listed)
        shutil.rmtree(target)

    run()
    assert digests, "good archives were among them"


def bombs() -> Iterator[tuple[str, bytes]]:
    """Archives that say they are small, or are."""
    zeros = bytes(1 << 20)
    yield "much of nothing", written([(f"project/{number}", zeros, 0, zipfile.ZIP_DEFLATED) for number in range(300)])
    yield "one large member", written([("project/a", zeros * 200, 0, zipfile.ZIP_DEFLATED)])
    liar = bytearray(written([("project/a", zeros * 200, 0, zipfile.ZIP_DEFLATED)]))
    central = liar.rfind(b"PK\x01\x02")
    struct.pack_into("<I", liar, central + 24, 10)
    struct.pack_into("<I", liar, 22, 10)
    yield "a size that lies", bytes(liar)
    yield "members that lie over each other", overlapping(zeros, 400)
    yield "many empty members", empty_members(900_000)


def overlapping(content: bytes, count: int) -> bytes:
    """Many entries that name the same compressed bytes."""
    data = written([("project/a", content, 0, zipfile.ZIP_DEFLATED)])
    start = data.rfind(b"PK\x01\x02")
    end = data.rfind(b"PK\x05\x06")
    entries = data[start:end] * count
    return data[:start] + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(entries), start, 0)


def empty_members(count: int) -> bytes:
    """A directory of entries of one letter and no content: 47 bytes here, many more as objects."""
    data = written([("a", b"", 0, zipfile.ZIP_STORED)])
    start = data.rfind(b"PK\x01\x02")
    end = data.rfind(b"PK\x05\x06")
    entries = data[start:end] * count
    return data[:start] + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entries), start, 0)


@pytest.mark.parametrize(("name", "data"), [pytest.param(name, data, id=name.replace(" ", "-")) for name, data in bombs()])
def test_a_bomb_is_refused_before_it_has_gone_off(name: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        outcome, _ = outcome_of(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome == "refused"
    assert peak < 3 * bundle.MAX_UNPACKED + len(data), f"{peak >> 20} MiB for {name}"


def test_the_door_takes_a_bundle_that_is_what_its_digest_says_and_no_other(watched: Watched) -> None:
    put = 0

    @given(archives, st.sampled_from(["right", "right", "right", "another", "upper", "short"]))
    @settings(max_examples=150)
    def run(data: bytes, said: str) -> None:
        nonlocal put
        outcome, digest = outcome_of(data)
        known = digest if outcome == "digest" else "0" * 64
        name = {"right": known, "another": "f" * 64, "upper": known.upper().replace("0", "A"), "short": known[:63]}[said]
        answer: Any = web.put(f"/_cortex/v1/apis/resting/bundles/{name}", content=data)
        good = outcome == "digest" and name == digest
        assert answer.status_code == (200 if good else 400), answer.text
        if not good:
            assert answer.headers["content-type"] == "application/problem+json"
            assert not watched.api.store.exists(keys.bundle("resting", name)) or name == digest
        else:
            put += 1
            # Or one that came before and holds the same.
            assert outcome_of(watched.api.store.get(keys.bundle("resting", name))) == ("digest", name)
            assert 0 < watched.api.store.ttl(keys.bundle("resting", name)) <= 86400, "for good only once it is deployed"

    with httpx.Client(base_url=watched.url, trust_env=False, timeout=60, headers={"authorization": f"Bearer {watched.token}"}) as web:
        run()
        for name, data in bombs():
            answer = web.put(f"/_cortex/v1/apis/resting/bundles/{'0' * 64}", content=data)
            assert answer.status_code in (400, 413), name
    assert put, "good bundles were among them"
    watched.check_alive()
