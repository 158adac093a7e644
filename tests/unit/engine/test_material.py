"""Bytes to text: encodings, PDF, and one clear error for whatever is none."""

import contextlib
import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine import material
from owm.engine.material import Piece
from owm.errors import MalformedFile, NotFound, OwmError, Unsupported, UsageError
from support.tiny_pdf import tiny_pdf


def written(folder: Path, raw: bytes, name: str = "notes.txt") -> Path:
    (folder / name).write_bytes(raw)
    return folder / name


@given(st.text(), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"]))
def test_text_of_every_encoding_that_says_so_is_read_as_it_is(text: str, encoding: str) -> None:
    text = text.replace("\0", "").removeprefix("\ufeff")
    raw = text.encode(encoding)
    if encoding == "utf-16-be":
        raw = b"\xfe\xff" + raw
    assert material.decode(raw, "x") == text


def test_a_file_is_read_without_its_last_line_end(tmp_path: Path) -> None:
    path = written(tmp_path, b"one\r\n\r\ntwo\r\n")
    assert material.read_file(path) == Piece(str(path), "one\r\n\r\ntwo")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, b"home")
    assert material.read_file("~/notes.txt") == Piece("~/notes.txt", "home")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"abc\x00def", r"notes.txt is binary, not text \(a zero byte at 3\)"),
        (b"caf\xe9 au lait", r"notes.txt is not UTF-8 text \(byte 3\)"),
        (b"\xef\xbb\xbfcaf\xe9", r"notes.txt is not UTF-8 text \(byte 6\)"),
        (b"\xff\xfea\x00\x00\xd8b\x00", r"notes.txt is not UTF-8 text \(byte 0\), nor UTF-16 \(byte 4\)"),
        (b"\xff\xfea\x00\x00\x00b\x00", r"notes.txt is binary, not text"),
        (b"GGUF\x03\x00\x00\x00", r"notes.txt is a model file \(GGUF\), not text"),
        (b"\x89PNG\r\n\x1a\n\x00", r"notes.txt is a PNG image, not text"),
        (b"PK\x03\x04\x14\x00\x08\x00", r"notes.txt is a ZIP archive or an office document, not text"),
        (b"\x1f\x8b\x08\x08\xc3\xff", r"notes.txt is compressed \(gzip\), not text"),
    ],
)
def test_what_is_no_text_is_refused_with_its_name_and_the_reason(tmp_path: Path, raw: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        material.read_file(written(tmp_path, raw))
    assert caught.value.hint


def test_a_text_that_begins_like_a_binary_file_is_text(tmp_path: Path) -> None:
    assert material.read_file(written(tmp_path, b"GGUF is a format")).text == "GGUF is a format"


def test_a_folder_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder") as caught:
        material.read_file(tmp_path)
    assert f"cat {tmp_path}/*" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["none.txt", "no/such/file.txt", "zero\0byte", "notes.txt/inside"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    written(tmp_path, b"a file is no folder")
    with pytest.raises((NotFound, OwmError), match=r"no such file: |cannot read .*notes.txt/inside: Not a directory"):
        material.read_file(tmp_path / name)


def test_a_name_that_is_no_text_can_be_shown(tmp_path: Path) -> None:
    path = written(tmp_path, b"x", os.fsdecode(b"a\xff\nb.txt"))
    assert material.read_file(path).name == f"{tmp_path}/a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b.txt"


def test_a_giant_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, b"text ")
    os.truncate(path, 1 << 40)  # a sparse file: reading it would take hours
    with pytest.raises(UsageError, match="is binary"):
        material.read_file(path)
    path = written(tmp_path, b"text " * 2000)
    os.truncate(path, 1 << 40)
    with pytest.raises(UsageError, match=r"larger than any context: it has more than 64.0 MiB"):
        material.read_file(path)


def test_an_endless_pipe_is_refused_when_it_passes_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "MAX_BYTES", 20_000)

    class Endless(io.RawIOBase):
        n_read = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            buffer[:] = b"y" * len(buffer)
            self.n_read += len(buffer)
            return len(buffer)

    endless = Endless()
    with pytest.raises(UsageError, match="stdin is larger than any context"):
        material.read_stdin(io.BufferedReader(endless))
    assert endless.n_read < 60_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(tiny_pdf(["from a pipe"])))
    writer.start()
    assert material.read_file(path).text == "from a pipe"
    writer.join()


def test_a_file_without_rights_is_an_error_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "notes.txt")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OwmError, match=r"cannot read notes.txt: Permission denied"):
        material.read_file("notes.txt")


# -- joining -----------------------------------------------------------------------------------------------------------


def test_what_was_piped_in_alone_has_no_header_and_a_file_has_one() -> None:
    piped, file = Piece("stdin", "a log"), Piece("src/a.py", "x = 1")
    assert material.join([]) == ""
    assert material.join([piped]) == "a log"
    assert material.join([file]) == "=== src/a.py ===\nx = 1"
    assert material.join([piped, file]) == "=== stdin ===\na log\n\n=== src/a.py ===\nx = 1"


# -- PDF ---------------------------------------------------------------------------------------------------------------


def test_the_text_of_a_pdf_is_taken_page_by_page(tmp_path: Path) -> None:
    piece = material.read_file(written(tmp_path, tiny_pdf(["First (page)\nits second line", "Second page"]), "a.pdf"))
    assert piece.text == "First (page)\nits second line\n\nSecond page"
    assert piece.notes == ()


def test_a_pdf_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    assert material.read_file(written(tmp_path, tiny_pdf(["hello"]), "paper")).text == "hello"
    assert material.read_stdin(io.BytesIO(tiny_pdf(["hello"]))).text == "hello"
    assert material.read_file(written(tmp_path, b"no magic", "paper.pdf")).text == "no magic"
    assert material.read_file(written(tmp_path, b"junk\n" + tiny_pdf(["hello"]), "junk.pdf")).text == "hello"


def test_pages_without_text_are_counted_in_a_note(tmp_path: Path) -> None:
    piece = material.read_file(written(tmp_path, tiny_pdf(["one", "", "three", ""]), "a.pdf"))
    assert piece.text == "one\n\nthree"
    assert piece.notes == (f"2 of the 4 pages of {tmp_path}/a.pdf hold no text, only images",)


@pytest.mark.parametrize(
    ("pages", "what"), [([""], "its one page is an image"), (["", ""], "its 2 pages are images"), ([], "no pages")]
)
def test_a_scanned_pdf_is_refused(tmp_path: Path, pages: list[str], what: str) -> None:
    with pytest.raises(Unsupported, match=rf"a.pdf holds no text, .*{what}") as caught:
        material.read_file(written(tmp_path, tiny_pdf(pages), "a.pdf"))
    assert "ocrmypdf" in str(caught.value.hint)


def test_an_encrypted_pdf_is_refused_unless_it_opens_without_a_password(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"a.pdf is encrypted") as caught:
        material.read_file(written(tmp_path, tiny_pdf(["secret"], password="key"), "a.pdf"))
    assert "qpdf" in str(caught.value.hint)
    assert material.read_file(written(tmp_path, tiny_pdf(["open"], password=""), "b.pdf")).text == "open"


@pytest.mark.parametrize("cut", [5, 9, 100, 250, 400])
def test_a_damaged_pdf_is_an_error_of_ours_or_its_text(tmp_path: Path, cut: int) -> None:
    raw = tiny_pdf(["hello there", "second"])
    for damaged in (raw[:cut], raw[:cut] + b"\xff" * 40 + raw[cut + 40 :], raw.replace(b"/Kids [3", b"/Kids [2")):
        path = written(tmp_path, damaged, "a.pdf")
        with contextlib.suppress(MalformedFile, Unsupported):
            assert material.read_file(path).text.strip()


def test_a_pdf_that_is_cut_off_is_named_as_damaged(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match=r"a\.pdf is not a usable PDF file: .*[^.]$"):
        material.read_file(written(tmp_path, tiny_pdf(["hello"])[:60], "a.pdf"))
