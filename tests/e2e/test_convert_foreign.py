"""`owm convert --with-converter`: another converter runs, and only a whole model file comes of it."""

import json
import os
import sys
from pathlib import Path

import pytest

from owm.formats.gguf import read_header
from support.hub_server import HubServer, Repo
from support.run import Output, run
from support.tiny_checkpoint import files_of, write_tiny_checkpoint

pytestmark = pytest.mark.slow

UNKNOWN = {"architectures": ["PerceiverForCausalLM"]}
SCRIPT = """
import argparse, sys
from pathlib import Path
from support.tiny_gguf import tiny_gguf

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--outfile", type=Path)
parser.add_argument("--outtype")
args = parser.parse_args()
assert (args.folder / "model.safetensors").is_file()
print("loading", args.folder.name)
%s
"""
WRITES = 'args.outfile.write_bytes(tiny_gguf()); print("done as", args.outtype, file=sys.stderr)'


def checkout(folder: Path, what: str) -> Path:
    """Make a checkout with a converter that does `what`, and a Python of its own."""
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / "convert_hf_to_gguf.py").write_text(SCRIPT % what)
    return folder


def convert(*args: str | os.PathLike[str]) -> Output:
    return run(["-m", "owm", "convert", *args])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "tiny", config=UNKNOWN)


def test_another_converter_makes_what_owm_cannot(checkpoint: Path, tmp_path: Path) -> None:
    done = convert(checkpoint, "--with-converter", checkout(tmp_path / "there", WRITES), "-o", tmp_path / "out.gguf")
    assert done.exit_code == 0, done.stderr
    assert done == f"{tmp_path / 'out.gguf'}\n"
    [line] = done.stderr.splitlines()
    assert line.startswith(f"running {tmp_path / 'there' / 'convert_hf_to_gguf.py'} with ")
    assert line.endswith("code that is not owm's, and not checked by it")
    assert read_header(tmp_path / "out.gguf").architecture == "llama"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.gguf", "there", "tiny"]


def test_what_it_says_is_heard_with_verbose_and_it_gets_the_checkpoints_type(checkpoint: Path, tmp_path: Path) -> None:
    there = checkout(tmp_path / "there", WRITES)
    done = convert(checkpoint, "--with-converter", there, "-o", tmp_path / "out.gguf", "--verbose")
    assert "loading tiny" in done.stderr
    assert "done as bf16" in done.stderr


def test_a_repos_result_goes_to_the_store_which_says_who_made_it(hub: HubServer, tmp_path: Path) -> None:
    repo = hub.add(Repo("acme/tiny", files_of(config=UNKNOWN)))
    there = checkout(tmp_path / "there", WRITES)
    done = convert("acme/tiny", "--with-converter", there, "--type", "f16")
    assert done.exit_code == 0, done.stderr
    path = Path(done.strip())
    assert path.name == "tiny-F16.gguf"
    made = json.loads((path.parent / "manifest.json").read_text())
    assert made["made_from"]["by"] == str(there / "convert_hf_to_gguf.py")
    assert made["made_from"]["commit"] == repo.commit
    assert run(["-m", "owm", "run", "acme/tiny", "the", "-n", "2"]).exit_code == 0


@pytest.mark.parametrize(
    ("what", "code", "word"),
    [
        (
            'args.outfile.write_bytes(b"GG"); sys.exit("no such\\x1b architecture")',
            5,
            "failed: no such\\x1b architecture",
        ),
        ('args.outfile.write_bytes(b"no model file")', 7, "tiny"),
        ("pass", 7, "wrote nothing, and said: loading tiny"),
        ("import os; os.kill(os.getpid(), 9)", 5, "failed: it was ended by signal 9"),
    ],
)
def test_a_failure_is_one_error_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, what: str, code: int, word: str
) -> None:
    done = convert(checkpoint, "--with-converter", checkout(tmp_path / "there", what), "-o", tmp_path / "tiny.gguf")
    assert (done.exit_code, done) == (code, ""), done.stderr
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert word in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "tiny"]


def test_a_folder_without_a_converter_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    done = convert(checkpoint, "--with-converter", tmp_path)
    assert (done.exit_code, done) == (2, "")
    assert "convert_hf_to_gguf.py" in done.stderr


def test_a_dry_run_says_what_would_run(checkpoint: Path, tmp_path: Path) -> None:
    there = checkout(tmp_path / "there", 'raise SystemExit("it ran")')
    done = convert(checkpoint, "--with-converter", there, "-o", tmp_path / "out.gguf", "--dry-run")
    assert done.startswith("would run ")
    assert done.exit_code == 0
