"""The bundle: the same files give the same archive, and no archive gets out of its directory."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_cortex.core.errors import ProjectError
from jupyter_cortex.project import bundle, files
from jupyter_cortex.project.bundle import digest_of, pack, unpack
from jupyter_cortex.project.files import ProjectFile, list_files


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, content in {
        "handler.py": b"x = 1\n",
        "data/a.bin": bytes(range(256)) * 9,
        "é b.txt": b"",
        ".env": b"A=secret",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "cortex.yaml").touch()
    return root


def listed(root: Path) -> list[ProjectFile]:
    return list_files(root / "cortex.yaml")


def archive(*members: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as zipped:
        warnings.simplefilter("ignore")  # zipfile warns of the duplicates that a test makes
        for name, content in members:
            zipped.writestr(name, content)
    return buffer.getvalue()


def kind_of(call: Callable[[], object]) -> str:
    with pytest.raises(ProjectError) as caught:
        call()
    caught.value.message.encode()
    return str(caught.value.details["kind"])


def test_a_project_comes_back_as_it_was_without_its_env(project: Path, tmp_path: Path) -> None:
    packed = pack(listed(project))
    assert packed.names == ["data/a.bin", "handler.py", "é b.txt"]
    assert unpack(packed.data, tmp_path / "out") == packed.names
    for name in packed.names:
        assert (tmp_path / "out" / "project" / name).read_bytes() == (project / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "a.bin",
        "handler.py",
        "é b.txt",
    ]
    assert b"secret" not in packed.data


def test_time_permissions_and_order_do_not_change_a_byte(project: Path) -> None:
    first = pack(listed(project))
    os.utime(project / "handler.py", (10**9, 10**9))
    (project / "handler.py").chmod(0o755)
    again = pack(reversed(listed(project)))
    assert again == first
    with zipfile.ZipFile(io.BytesIO(first.data)) as zipped:
        assert zipped.namelist() == ["project/data/a.bin", "project/handler.py", "project/é b.txt"]
        assert {(member.date_time, member.external_attr >> 16) for member in zipped.infolist()} == {((1980, 1, 1, 0, 0, 0), 0)}


def test_the_digest_changes_with_a_name_a_content_and_a_border_between_them(tmp_path: Path) -> None:
    trees = [{"ab": "c"}, {"a": "bc"}, {"ab": "d"}, {"ab": "c", "x": ""}, {}, {"a": "b", "c": "d"}, {"a": "bcd"}]
    digests = set()
    for index, tree in enumerate(trees):
        root = tmp_path / str(index)
        root.mkdir()
        for name, content in tree.items():
            (root / name).write_text(content)
        packed = pack(listed(root))
        assert len(packed.digest) == 64
        assert digest_of(packed.data) == packed.digest
        digests.add(packed.digest)
    assert len(digests) == len(trees)


def test_the_digest_is_of_the_content_and_not_of_the_zip(project: Path) -> None:
    packed = pack(listed(project))
    with zipfile.ZipFile(io.BytesIO(packed.data)) as zipped:
        stored = archive(*((name, zipped.read(name)) for name in reversed(zipped.namelist())), compression=zipfile.ZIP_STORED)
    assert stored != packed.data
    assert digest_of(stored) == packed.digest


def test_the_digest_is_the_documented_one(tmp_path: Path) -> None:
    (tmp_path / "h.py").write_bytes(b"pass")
    expected = hashlib.sha256(struct.pack(">Q", 4) + b"h.py" + struct.pack(">Q", 4) + b"pass").hexdigest()
    assert pack(listed(tmp_path)).digest == expected


def test_meta_travels_beside_the_project_and_outside_its_digest(project: Path, tmp_path: Path) -> None:
    plain, with_meta = pack(listed(project)), pack(listed(project), meta={"lines.json": b"{}"})
    assert (with_meta.digest, with_meta.names) == (plain.digest, plain.names)
    assert unpack(with_meta.data, tmp_path / "out") == plain.names
    assert (tmp_path / "out" / "meta" / "lines.json").read_bytes() == b"{}"
    assert kind_of(lambda: pack([], meta={"../x": b""})) == "invalid_name"


def test_a_file_that_changes_or_vanishes_while_packing_is_named(project: Path) -> None:
    before = listed(project)
    (project / "handler.py").write_bytes(b"longer than it was\n")
    with pytest.raises(ProjectError, match=r"handler\.py changed.*deploy again") as caught:
        pack(before)
    assert caught.value.details == {"kind": "changed", "path": "handler.py"}
    (project / "handler.py").unlink()
    assert kind_of(lambda: pack(before)) == "vanished"
    (project / "handler.py").mkdir()
    assert kind_of(lambda: pack(before)) == "unreadable"


def _special(mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("project/x")
    member.external_attr = (mode | 0o644) << 16
    return member


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ([("/etc/passwd", b"")], "invalid_name"),
        ([("project/../../x", b"")], "invalid_name"),
        ([("project/./x", b"")], "invalid_name"),
        ([("project//x", b"")], "invalid_name"),
        ([("project/a\\b", b"")], "invalid_name"),
        ([("project/C:x", b"")], "invalid_name"),
        ([("C:/x", b"")], "invalid_name"),
        ([("x", b"")], "invalid_name"),
        ([("projectx/x", b"")], "invalid_name"),
        ([("project/" + "d/" * 30_000 + "x", b"")], "invalid_name"),
        ([("project/.env", b"A=1")], "invalid_name"),
        ([("project/d/", b"")], "invalid_archive"),
        ([("project/x", b"1"), ("project/x", b"2")], "duplicate"),
        ([("project/x", b"1"), ("project/x/y", b"2")], "duplicate"),
        ([(_special(stat.S_IFLNK), b"/etc/passwd")], "invalid_archive"),
        ([(_special(stat.S_IFIFO), b"")], "invalid_archive"),
        ([(_special(stat.S_IFBLK), b"")], "invalid_archive"),
        ([("project/" + "n" * 300, b"")], "unwritable"),
    ],
)
def test_an_archive_that_reaches_out_is_refused_and_leaves_nothing(
    members: list[tuple[str | zipfile.ZipInfo, bytes]], kind: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    data = archive(("project/first", b"1"), *members)
    assert kind_of(lambda: unpack(data, home / "out")) == kind
    assert list(home.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    if kind != "unwritable":
        assert kind_of(lambda: digest_of(data)) == kind


def test_a_name_cut_short_by_nul_is_refused() -> None:
    data = archive(("project/aXb", b"")).replace(b"aXb", b"a\0b")
    assert kind_of(lambda: digest_of(data)) == "invalid_name"


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(compression: int) -> None:
    assert kind_of(lambda: digest_of(archive(("project/x", b"1" * 99), compression=compression))) == "invalid_archive"


def test_a_bomb_is_stopped_by_the_bytes_that_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_UNPACKED", 2**20)
    member = ("project/zeros", bytes(4 * 2**20))
    assert kind_of(lambda: unpack(archive(member), tmp_path / "out")) == "too_large"
    lying = bytearray(archive(member))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the headers' uncompressed size
        place = lying.index(signature) + offset
        lying[place : place + 4] = struct.pack("<I", 10)
    assert kind_of(lambda: unpack(bytes(lying), tmp_path / "out")) in ("invalid_archive", "too_large")
    many = archive(*((f"project/{index}", bytes(2**18)) for index in range(8)))
    assert kind_of(lambda: unpack(many, tmp_path / "out")) == "too_large"
    assert list(tmp_path.iterdir()) == []


def test_the_limits_of_a_project_hold_in_an_archive_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 10)
    assert kind_of(lambda: digest_of(archive(("project/x", b"1" * 11)))) == "too_large"
    digest_of(archive(("project/x", b"1" * 10), ("meta/y", b"1" * 11)))
    monkeypatch.setattr(bundle, "MAX_FILES", 2)
    assert kind_of(lambda: digest_of(archive(*((f"project/{index}", b"") for index in range(3))))) == "too_many_files"
    assert files.MAX_BYTES == 32 * 2**20


def test_a_directory_of_too_many_entries_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(("project/a", b""))
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    count = files.MAX_FILES + 1
    entries = data[start:end] * count
    many = data[:start] + entries + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entries), start, 0)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it was read"))
    assert kind_of(lambda: digest_of(many)) == "too_many_files"


def test_an_existing_target_is_left_alone(project: Path, tmp_path: Path) -> None:
    data = pack(listed(project)).data
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine").touch()
    assert kind_of(lambda: unpack(data, target)) == "target_exists"
    assert [path.name for path in target.iterdir()] == ["mine"]
    assert kind_of(lambda: unpack(data, project / "handler.py" / "below")) == "unwritable"
    assert kind_of(lambda: unpack(data, Path("a\0b"))) == "unwritable"


def test_parents_of_the_target_are_made_and_an_empty_project_has_its_directory(tmp_path: Path) -> None:
    assert unpack(pack([]).data, tmp_path / "a" / "b") == []
    assert (tmp_path / "a" / "b" / "project").is_dir()


def test_damage_anywhere_is_one_kind_of_error(project: Path) -> None:
    data, chance = pack(listed(project), meta={"m": b"1"}).data, random.Random(11)
    for junk in (b"", b"PK", b"no zip at all", data[: len(data) // 2]):
        assert kind_of(lambda junk=junk: digest_of(junk)) == "invalid_archive"
    for _ in range(3000):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            digest_of(bytes(damaged))
        except ProjectError as error:
            error.message.encode()
