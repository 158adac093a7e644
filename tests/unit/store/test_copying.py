"""Copies go on after a kill, are compared with their source, and take nothing for right that is not."""

import hashlib
import os
from pathlib import Path

import pytest

from owm.errors import Damaged, StoreError, UsageError
from owm.store import copying
from owm.store.copying import copy_into, publish_new, read_back

CONTENT = bytes(range(256)) * 20_000  # some 5 MB


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("begun", [b"", CONTENT[:1], CONTENT[:3_000_000], CONTENT])
def test_a_copy_goes_on_from_what_is_there(source: Path, tmp_path: Path, begun: bytes) -> None:
    partial = tmp_path / "partial"
    partial.write_bytes(begun)
    seen: list[int] = []
    assert copy_into(source, partial, advance=seen.append) == hashlib.sha256(CONTENT).hexdigest()
    assert partial.read_bytes() == CONTENT
    assert sum(seen) == len(CONTENT)


@pytest.mark.parametrize("place", [0, 1, 1_048_576, 2_999_999])
def test_what_differs_from_the_source_is_written_again(source: Path, tmp_path: Path, place: int) -> None:
    wrong = bytearray(CONTENT[:3_000_000])
    wrong[place] ^= 1
    partial = tmp_path / "partial"
    partial.write_bytes(wrong)
    assert copy_into(source, partial) == hashlib.sha256(CONTENT).hexdigest()
    assert partial.read_bytes() == CONTENT


def test_a_partial_that_is_longer_than_the_source_is_cut(source: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.write_bytes(CONTENT + b"more")
    copy_into(source, partial)
    assert partial.read_bytes() == CONTENT


def test_blanked_bytes_count_as_spaces_but_are_copied_as_they_are(source: Path, tmp_path: Path) -> None:
    offset, length = 1_048_500, 300  # over the border of two chunks
    expected = CONTENT[:offset] + b" " * length + CONTENT[offset + length :]
    partial = tmp_path / "partial"
    partial.write_bytes(CONTENT[:2_000_000])
    assert copy_into(source, partial, blanked=(offset, length)) == hashlib.sha256(expected).hexdigest()
    assert partial.read_bytes() == CONTENT


def test_a_source_that_changes_meanwhile_is_no_copy(source: Path, tmp_path: Path) -> None:
    def change(n_bytes: int) -> None:
        with open(source, "ab") as file:
            file.write(b"x")

    with pytest.raises(StoreError, match="changed while it was copied"):
        copy_into(source, tmp_path / "partial", advance=change)


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read"):
        copy_into(tmp_path / "none", tmp_path / "partial")


def test_what_is_read_back_has_to_be_what_was_written(source: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    copying.copy_into(source, partial)
    read_back(partial, hashlib.sha256(CONTENT).hexdigest())
    with open(partial, "r+b") as file:
        file.write(b"!")
    with pytest.raises(Damaged, match="the disk"):
        read_back(partial, hashlib.sha256(CONTENT).hexdigest())
    assert not partial.exists()


def test_a_new_name_takes_no_other_files_place(tmp_path: Path) -> None:
    partial, path = tmp_path / "partial", tmp_path / "there"
    partial.write_text("new")
    path.write_text("old")
    with pytest.raises(UsageError, match="is there already"):
        publish_new(partial, path)
    assert path.read_text() == "old"
    path.unlink()
    publish_new(partial, path)
    assert path.read_text() == "new"
    assert not partial.exists()


def test_a_file_system_without_hard_links_is_published_to_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    partial, path = tmp_path / "partial", tmp_path / "there"
    partial.write_text("new")
    publish_new(partial, path)
    assert path.read_text() == "new"
    assert not partial.exists()
