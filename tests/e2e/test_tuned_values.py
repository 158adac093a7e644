"""Values that were tuned for a model: `run`, `chat` and `batch` use them and say so under `--verbose`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.engine.tuning import Tuning
from owm.hardware.machine import this_machine
from owm.library.configuring import identity_of
from owm.native import llama
from owm.settings import tuned
from owm.settings.tuned import Tuned
from owm.store import refs
from owm.store.model import at_path
from support.batches import prompts, write_rows
from support.run import environment, run_here
from support.tiny_gguf import write_tiny_gguf

Capture = pytest.CaptureFixture[str]
VALUES = {"threads": 1, "ubatch_size": 8, "cache_type_k": "f32", "parallel": 3}
SAID = "tuned for this model and machine: threads 1, ubatch-size 8, cache-type-k f32, parallel 3"


@pytest.fixture(autouse=True)
def no_stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A pipe that has ended, which `run` reads."""
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_tiny_gguf(tmp_path / "tiny.gguf"))


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What every context of this test is made with."""
    made: list[dict[str, object]] = []
    original = llama.Context.__init__

    def noting(self: llama.Context, model: llama.Model, **how: object) -> None:
        made.append(how)
        original(self, model, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(llama.Context, "__init__", noting)
    return made


def keep(path: str, **changes: object) -> None:
    machine = this_machine()
    identity = identity_of(at_path(refs.parse(path)))
    facts = {"model": identity, "machine": machine.fingerprint, "build": machine.build, "values": VALUES}
    tuned.save(tuned.default_path(), Tuned(**{"name": "tiny", "machine_name": "here", **facts, **changes}))  # type: ignore[arg-type]


def test_run_uses_them_and_says_so(model: str, contexts: list[dict[str, object]], capsys: Capture) -> None:
    keep(model)
    args = ("run", model, "hello", "--max-tokens", "3", "--temp", "0")
    assert SAID not in run_here(capsys, *args).stderr
    done = run_here(capsys, *args, "--verbose")
    assert done.exit_code == 0
    assert SAID in done.stderr.splitlines()
    for made in contexts:
        assert (made["n_threads"], made["n_ubatch"], made["type_k"], made["type_v"]) == (1, 8, "f32", None)


def test_flags_are_stronger(model: str, contexts: list[dict[str, object]], capsys: Capture) -> None:
    keep(model)
    done = run_here(capsys, "run", model, "hello", "--max-tokens", "3", "--threads", "2", "--verbose")
    assert "tuned for this model and machine: ubatch-size 8, cache-type-k f32, parallel 3" in done.stderr
    assert contexts[-1]["n_threads"] == 2


def test_show_settings_tells_where_they_are_from(model: str, capsys: Capture) -> None:
    keep(model)
    rows = {row["name"]: row for row in run_here(capsys, "run", model, "--show-settings", "--json").json}
    assert rows["threads"] == {"name": "threads", "value": 1, "origin": "tuned"}
    assert rows["batch_size"] == {"name": "batch_size", "value": None, "origin": "default"}


def test_batch_uses_them_and_their_width(
    model: str, contexts: list[dict[str, object]], tmp_path: Path, capsys: Capture
) -> None:
    keep(model)
    rows = write_rows(tmp_path / "in.jsonl", prompts(6))
    done = run_here(capsys, "batch", rows, "-m", model, "-o", tmp_path / "out.jsonl", "--max-tokens", "3", "--verbose")
    assert done.exit_code == 0
    assert SAID in done.stderr
    assert "at a time (measured" not in done.stderr
    assert {made["n_threads"] for made in contexts} == {1}
    assert {made["type_k"] for made in contexts} == {"f32"}
    assert 3 <= int(str(contexts[-1]["n_sequences"])) <= 5  # with sequences that keep beginnings


def test_a_batch_of_few_rows_makes_a_context_for_no_more(
    model: str, contexts: list[dict[str, object]], tmp_path: Path, capsys: Capture
) -> None:
    keep(model, values={"threads": 1, "parallel": 64})
    rows = write_rows(tmp_path / "in.jsonl", prompts(3))
    done = run_here(capsys, "batch", rows, "-m", model, "-o", tmp_path / "out.jsonl", "--max-tokens", "3")
    assert done.exit_code == 0
    assert 3 <= int(str(contexts[-1]["n_sequences"])) <= 5  # with sequences that keep beginnings


def test_a_batch_notices_that_another_tuning_computes_otherwise(model: str, tmp_path: Path, capsys: Capture) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    args = ("batch", source, "-m", model, "-o", output, "--max-tokens", "3")
    keep(model, values={"threads": 1, "ubatch_size": 8})
    assert run_here(capsys, *args).exit_code == 0
    settings = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["settings"]
    assert not settings.keys() & {"cache_type_k", "cache_type_v", "flash_attn"}
    keep(model, values={"threads": 2, "ubatch_size": 16, "cache_type_k": "f16"})
    assert run_here(capsys, *args).exit_code == 0  # none of that changes what answers are drawn from
    keep(model, values={"cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": "off"})
    done = run_here(capsys, *args)
    assert done.exit_code == 2
    for difference in ('cache_type_k was not set, now "f32"', 'cache_type_v was not set, now "f32"', "flash_attn was"):
        assert difference in done.stderr


def test_chat_uses_them_and_says_so(model: str) -> None:
    keep(model)
    done = subprocess.run(
        [sys.executable, "-m", "owm", "chat", model, "--private", "--max-tokens", "3", "--verbose"],
        input="hello\n", env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SAID in done.stderr


@pytest.mark.parametrize("changes", [{"machine": "0" * 12}, {"build": "another build"}, {"model": "b" * 64}])
def test_those_of_another_machine_build_or_model_are_not_used(
    changes: dict[str, str], model: str, contexts: list[dict[str, object]], capsys: Capture
) -> None:
    keep(model, **changes)
    done = run_here(capsys, "run", model, "hello", "--max-tokens", "3", "--verbose")
    assert done.exit_code == 0
    assert "tuned for" not in done.stderr
    assert contexts[-1]["type_k"] is None


def test_a_damaged_file_costs_one_sentence_and_no_answer(model: str, capsys: Capture) -> None:
    path = tuned.default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("}{")
    done = run_here(capsys, "run", model, "hello", "--max-tokens", "3")
    assert done.exit_code == 0
    assert done.stderr.count("is damaged, so no tuned values are used") == 1


def test_variables_and_the_config_file_take_the_same_names(
    model: str, contexts: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("OWM_UBATCH_SIZE", "16")
    assert run_here(capsys, "config", "set", "flash_attn=off", "batch_size=20").exit_code == 0
    assert run_here(capsys, "run", model, "hello", "--max-tokens", "3").exit_code == 0
    made = contexts[-1]
    assert (made["n_ubatch"], made["n_batch"], made["flash_attention"]) == (16, 20, False)
    assert Tuning().flash_attention is None
