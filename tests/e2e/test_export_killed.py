"""`owm export` that is killed between two of the files that it writes: the same command writes the rest."""

from pathlib import Path

import pytest

from owm.store.local import Store
from support.dying import die
from support.run import run_here
from support.stored import put_model
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
EXPORT = "from owm.cli.app import main; main(['export', 'me/tiny', {0}, '--with-manifest'])"
HARD = EXPORT.replace("'--with-manifest'", "'--with-manifest', '--link', 'hard'")


@pytest.fixture(autouse=True)
def model(store: Store) -> Path:
    return put_model(store, "me/tiny", "Q8_0", content=tiny_gguf())


@pytest.mark.parametrize(("code", "words"), [(EXPORT, ()), (HARD, ("--link", "hard"))])
def test_the_manifest_is_written_by_the_same_command(
    code: str, words: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "out.gguf"
    die("open", "out.manifest.json", code, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf"]
    done = run_here(capsys, "export", "me/tiny", target, "--with-manifest", *words)
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "out.manifest.json"]
    assert target.read_bytes() == tiny_gguf()
    again = run_here(capsys, "export", "me/tiny", target, "--with-manifest", *words)
    assert (again.exit_code, "already" in again.stderr) == (2, True)


def test_another_file_of_the_same_size_is_not_taken_for_it(tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "out.gguf"
    target.write_bytes(tiny_gguf()[:-1] + b"!")
    done = run_here(capsys, "export", "me/tiny", target, "--with-manifest")
    assert done.exit_code == 2
    assert f"{target} is there already" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf"]


def test_a_second_name_that_a_kill_left_goes_with_the_next_try(tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "out.gguf"
    die("os.remove", "out.gguf.incomplete", EXPORT.replace(", '--with-manifest'", ""), target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "out.gguf.incomplete"]
    done = run_here(capsys, "export", "me/tiny", target)
    assert done.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    assert target.read_bytes() == tiny_gguf()
