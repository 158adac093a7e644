"""Files that are kept while of use: shared by those who use them, removed by the last."""

from pathlib import Path

from owm.library import quantizing, working
from owm.store.local import Store
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
