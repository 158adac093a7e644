"""Files that are kept while of use: shared by those who use them, removed by the last."""

from pathlib import Path

import pytest

from owm.library import quantizing, working
from owm.store.local import Store
from support.run import run_here
from support.tiny_checkpoint import write_tiny_checkpoint


def test_who_still_uses_a_converted_file_keeps_it(store: Store, tmp_path: Path) -> None:
    source = quantizing.of_folder(write_tiny_checkpoint(tmp_path / "tiny"))
    with working.runnable(source, store) as (path,):
        with working.runnable(source, store) as (same,):
            assert same == path
        assert path.exists()
    assert not list((store.home / "work").iterdir())


def test_a_file_that_was_just_removed_is_not_claimed(tmp_path: Path) -> None:
    assert working._claim(tmp_path / "gone.gguf") == -1


def test_what_a_killed_command_converted_is_removed_by_one_that_does_not_need_it(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    text = tmp_path / "text.txt"
    text.write_text("the tin man and a cat sat there\n" * 80)
    words = ("quantize", folder, "Q4_K_M", "--imatrix", "auto", "--calibration", text, "-t", "1")
    assert run_here(capsys, *words).exit_code == 0
    source = quantizing.of_folder(folder)
    with working.runnable(source, store) as (path,):
        content = path.read_bytes()
    path.write_bytes(content)  # killed after the importance matrix was written
    with working.runnable(source, store):
        assert run_here(capsys, *words).exit_code == 0
        assert path.exists()  # in use
    path.write_bytes(content)
    assert run_here(capsys, *words).exit_code == 0
    assert not path.exists()
