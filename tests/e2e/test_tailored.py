"""`owm quantize` for a size, and with its quality measured: what is chosen, what is kept, what is refused."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from owm.formats.gguf import read_header
from support.run import Output, run_here
from support.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.slow

Owm = Callable[..., Output]
TEXT = "".join(f"{number} the tin man and a cat sat there\n" for number in range(600))


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owm:
    """Run a command in this process, in the test's folder, which holds a checkpoint and a text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    write_tiny_checkpoint(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text(TEXT)

    def called(*args: str | os.PathLike[str]) -> Output:
        return run_here(capsys, *args)

    return called


def test_types_are_chosen_for_a_size_and_a_recipe_makes_the_same_file_again(owm: Owm, tmp_path: Path) -> None:
    made = owm("quantize", "tiny", "--calibration", "text.txt", "--target-size", "80000B", "-o", ".", "-t", "1")
    assert made.exit_code == 0, made.stderr
    path = tmp_path / made.strip()
    assert 0.995 * 80_000 <= path.stat().st_size <= 80_000
    types = {tensor.name: tensor.type_name for tensor in read_header(path).tensors}
    assert len(set(types.values())) > 2
    recipe = path.with_name(f"{path.stem}.recipe.json")
    assert all(types[name] == chosen for name, chosen in json.loads(recipe.read_text())["types"].items())
    assert "the tin" not in made.stderr
    assert "ffn_down.weight" in made.stderr  # the table of choices
    (tmp_path / "again").mkdir()
    again = owm("quantize", "tiny", "--calibration", "text.txt", "--recipe", recipe, "-o", "again")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / again.strip()).read_bytes() == path.read_bytes()
    assert "measuring what" not in again.stderr
    assert not list((tmp_path / "home").rglob("work/*"))


def test_a_target_that_is_too_small_is_told_the_smallest(owm: Owm) -> None:
    done = owm("quantize", "tiny", "--calibration", "text.txt", "--target-size", "10KB", "-t", "1")
    assert done.exit_code == 2
    assert done == ""
    assert "the smallest possible is" in done.stderr


def test_what_was_lost_is_measured_and_kept(owm: Owm, tmp_path: Path) -> None:
    done = owm("quantize", "tiny", "Q8_0", "Q4_0", "--text", "text.txt", "--plot", "out.svg", "--json", "-t", "1")
    assert done.exit_code == 0, done.stderr
    better, worse = done.json
    assert 0 < better["kld_mean"] < worse["kld_mean"]
    assert better["kld_interval"][0] <= better["kld_mean"] <= better["kld_interval"][1]
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")
    shown = owm("show", "tiny:Q4_0", "--json").json
    assert shown["quality"]["kld_mean"]["value"] == pytest.approx(worse["kld_mean"], rel=1e-3)
    assert shown["quality"]["reference"] == "tiny"
    assert owm("verify").exit_code == 0
    assert "KLD" in owm("list")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--bpw", "0"], "--bpw"),
        (["--bpw", "40"], "--bpw"),
        (["--target-size", "much"], "--target-size"),
        (["--ctx-size", "16k"], "--fit"),
        (["--fit", "--ctx-size", "x"], "--ctx-size"),
        (["--bpw", "5", "--pure"], "cannot be overridden"),
        (["--plot", "out.pdf"], ".svg"),
        (["--recipe", "text.txt"], "recipe"),
        (["--imatrix", "text.txt"], "text.txt"),
        (["--calibration", "nothing.txt"], "nothing.txt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_before_any_work(owm: Owm, options: list[str], word: str) -> None:
    done = owm("quantize", "tiny", *options)
    assert done.exit_code in (1, 2, 3, 7)
    assert done == ""
    assert word in done.stderr
    assert done.stderr.count("error: ") == 1


def test_a_recipe_of_another_model_is_refused(owm: Owm, tmp_path: Path) -> None:
    recipe = {"format": "owm.recipe", "version": 1, "types": {"blk.9.attn_q.weight": "Q8_0"}}
    (tmp_path / "other.json").write_text(json.dumps(recipe))
    done = owm("quantize", "tiny", "--recipe", "other.json", "-o", ".")
    assert done.exit_code == 2
    assert "blk.9.attn_q.weight" in done.stderr


def write_recipe(path: Path, types: dict[str, str]) -> Path:
    path.write_text(json.dumps({"format": "owm.recipe", "version": 1, "comment": "by hand", "types": types}))
    return path


@pytest.mark.parametrize(
    ("types", "word"),
    [
        ({"blk.0.attn_q.weight": "Q4_K"}, "do not divide"),
        ({"blk.0.attn_norm.weight": "Q8_0"}, "llama.cpp runs it as F32 only"),
        ({"output_norm.weight": "F16"}, "llama.cpp runs it as F32 only"),
    ],
)
def test_a_recipe_that_would_not_run_is_refused(owm: Owm, tmp_path: Path, types: dict[str, str], word: str) -> None:
    write_recipe(tmp_path / "mine.json", types)
    done = owm("quantize", "tiny", "--recipe", "mine.json", "-o", ".")
    assert done.exit_code == 2
    assert word in done.stderr
    assert not list(tmp_path.glob("*.gguf"))


def test_the_recipe_that_was_given_is_not_overwritten(owm: Owm, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "mine.recipe.json", {"blk.0.attn_q.weight": "Q4_0"})
    before = recipe.read_bytes()
    assert owm("quantize", "tiny", "--recipe", recipe, "-o", "mine.gguf").exit_code == 0
    assert recipe.read_bytes() == before


def test_targets_that_come_to_the_same_make_one_file(owm: Owm, tmp_path: Path) -> None:
    """Both are more than Q8_0, the best that is chosen."""
    done = owm(
        "quantize", "tiny", "--calibration", "text.txt", "--target-size", "1GB", "--bpw", "30", "-o", ".", "-t", "1"
    )
    assert done.exit_code == 0, done.stderr
    assert len(done.splitlines()) == 1
    assert "was chosen already" in done.stderr
