"""Another tool's file in owm's own tree: four ways, each in one step, none of which harms the source."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from owm.errors import NotEnoughDisk, Unsupported
from owm.store.adopting import linking
from owm.store.adopting.linking import Link, put
from support.tool_layouts import put_file

CONTENT = os.urandom(100_000)


@pytest.mark.parametrize("link", ["hard", "sym", "copy"])
def test_the_bytes_are_there_under_the_new_name(tmp_path: Path, link: Link) -> None:
    source, target = put_file(tmp_path / "a/m.gguf", CONTENT), tmp_path / "m.gguf"
    target.write_bytes(b"an earlier state")
    digest = put(source, target, link)
    assert target.read_bytes() == source.read_bytes() == CONTENT
    assert target.is_symlink() is (link == "sym")
    assert target.samefile(source) is (link != "copy")
    assert digest == (hashlib.sha256(CONTENT).hexdigest() if link == "copy" else None)
    assert sorted(os.listdir(tmp_path)) == ["a", "m.gguf"]


def test_linking_again_is_harmless(tmp_path: Path) -> None:
    source, target = put_file(tmp_path / "a.gguf", CONTENT), tmp_path / "m.gguf"
    for _ in range(2):
        put(source, target, "hard")
    assert sorted(os.listdir(tmp_path)) == ["a.gguf", "m.gguf"]


def test_a_hard_link_of_a_link_is_one_of_the_file(tmp_path: Path) -> None:
    put_file(tmp_path / "blob", CONTENT)
    (tmp_path / "pointer.gguf").symlink_to("blob")
    put(tmp_path / "pointer.gguf", tmp_path / "m.gguf", "hard")
    assert not (tmp_path / "m.gguf").is_symlink()


def test_a_copy_goes_on_from_what_a_killed_one_left(tmp_path: Path) -> None:
    source, target = put_file(tmp_path / "a.gguf", CONTENT), tmp_path / "m.gguf"
    (tmp_path / "m.gguf.incomplete").write_bytes(CONTENT[:5000])
    assert put(source, target, "copy") == hashlib.sha256(CONTENT).hexdigest()
    assert target.read_bytes() == CONTENT


def test_blocks_are_shared_or_it_is_said_that_they_cannot_be(tmp_path: Path) -> None:
    source, target = put_file(tmp_path / "a.gguf", CONTENT), tmp_path / "m.gguf"
    said: list[Unsupported] = []
    try:
        put(source, target, "reflink")
    except Unsupported as problem:
        said.append(problem)
    if not said:
        assert target.read_bytes() == CONTENT
        return
    assert "cannot share blocks" in str(said[0])
    assert "--link hard" in (said[0].hint or "")
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_a_hard_link_to_another_disk_is_refused_with_what_can_be_done(tmp_path: Path) -> None:
    shm = Path("/dev/shm") / f"owm-test-{os.getpid()}"
    shm.mkdir()
    try:
        if shm.stat().st_dev == tmp_path.stat().st_dev:
            raise AssertionError("this machine has one disk only")
        source = put_file(shm / "m.gguf", CONTENT)
        with pytest.raises(Unsupported, match="another disk") as told:
            put(source, tmp_path / "m.gguf", "hard")
    finally:
        shutil.rmtree(shm)
    assert "--link copy" in (told.value.hint or "")
    assert os.listdir(tmp_path) == []


def test_a_copy_for_which_there_is_no_room_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put_file(tmp_path / "a.gguf", CONTENT)
    monkeypatch.setattr(linking, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(NotEnoughDisk):
        put(source, tmp_path / "m.gguf", "copy")
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_a_disk_that_fills_up_leaves_the_beginning_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put_file(tmp_path / "a.gguf", CONTENT)

    def full(*_: object, **__: object) -> str:
        (tmp_path / "m.gguf.incomplete").write_bytes(CONTENT[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(linking, "copy_into", full)
    with pytest.raises(NotEnoughDisk):
        put(source, tmp_path / "m.gguf", "copy")
    assert sorted(os.listdir(tmp_path)) == ["a.gguf", "m.gguf.incomplete"]
