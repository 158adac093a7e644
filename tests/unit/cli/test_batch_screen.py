"""What is said of a batch while it runs and at its end: in a terminal, in a log, as JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from owm.batch.runner import Tally
from owm.cli import batch_screen
from owm.cli.output import Output
from owm.library.batching import Batch, Outcome, Progress
from support.batches import prompts, write_rows
from support.run import run
from support.terminal import Terminal
from support.tiny_gguf import write_tiny_gguf

Capture = pytest.CaptureFixture[str]
TALLY = Tally(n_rows=30, n_failed=2, n_cut=5, n_prompt=3000, n_generated=600, n_slots=16, n_busy=15)
PROGRESS = Progress("tiny.gguf", n_rows=90, n_before=10, tally=TALLY, seconds=10)
BATCH = Batch(Path("in.jsonl"), Path("out.jsonl"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    return str(write_tiny_gguf(path, n_blocks=4, n_embd=256, n_ctx_train=4096))


@pytest.mark.parametrize("columns", [60, 120])
def test_a_line_is_kept_up_to_date_and_is_gone_at_the_end(model: str, tmp_path: Path, columns: int) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(40)), tmp_path / "out.jsonl"
    args = ["batch", str(source), "-m", model, "-o", str(output), "-np", "4", "-t", "1", "-n", "40", "--ignore-eos"]
    with Terminal(args, columns=columns) as terminal:
        terminal.wait_for("/40 rows, ")
        assert "/40 rows" in terminal.text()
        assert terminal.wait_for_end() == 0
        text = terminal.text()
    assert "/40 rows" not in text
    assert "slots busy" in terminal.raw.decode() or columns == 60
    lines = text.splitlines()
    assert lines[0].startswith("MODEL")
    assert [cell for cell in text.split() if cell in ("MODEL", "ANSWERED", "FAILED", "TOKENS/S", "tiny.gguf", "40")]
    assert all(len(line) <= columns for line in lines)


def test_an_interruption_leaves_a_clean_screen(model: str, tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(400)), tmp_path / "out.jsonl"
    args = ["batch", str(source), "-m", model, "-o", str(output), "-np", "4", "-t", "1", "-n", "40", "--ignore-eos"]
    with Terminal(args) as terminal:
        terminal.wait_for("/400 rows, ")
        terminal.interrupt()
        assert terminal.wait_for_end() == 130
        text = terminal.text()
    assert "of 400 rows are answered and kept; the same command goes on from there" in text
    assert "slots busy" not in text
    assert not terminal.screen.cursor.hidden


def test_answers_on_a_terminal_are_not_mixed_with_a_live_line(model: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", prompts(9))
    with Terminal(["batch", str(source), "-m", model, "-np", "2", "-t", "1", "-n", "30", "--ignore-eos"]) as terminal:
        assert terminal.wait_for_end() == 0
        assert "slots busy" not in terminal.raw.decode("utf-8", "replace")


def test_a_pipe_gets_no_drawing_and_quiet_nothing(model: str, tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(3)), tmp_path / "out.jsonl"
    args = ["-m", "owm", "batch", source, "-m", model, "-o", output, "-np", "2", "-t", "1", "-n", "3"]
    done = run([*args, "--quiet", "--restart"])
    assert (done, done.stderr) == ("", "")
    done = run([*args, "--restart"])
    assert done == ""
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    done = run([*args, "--restart", "--json"])
    assert done.stderr == ""
    assert {"input", "output", "rows", "failed", "seed", "models"} == set(done.json)


def test_a_log_gets_a_line_now_and_then(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 1.0, 9.0, 10.5, 11.0, 20.4, 20.6, 0.0, 99.0))
    monkeypatch.setattr("owm.cli.batch_screen.time.monotonic", lambda: next(clock))
    with batch_screen.progress(Output(), is_shown=True) as screen:
        for _ in range(6):
            screen.tell(PROGRESS)
    line = "40/90 rows, 16.7 s left, 3.00 rows/s, answers 60.0 t/s, prompts 300.0 t/s, 15 of 16 slots busy, 2 failed"
    assert capsys.readouterr().err.splitlines() == [line] * 2
    with batch_screen.progress(Output(quiet=True), is_shown=True) as screen:
        screen.tell(PROGRESS)
    assert capsys.readouterr().err == ""


def test_rows_that_are_answered_again_are_not_counted_twice(capsys: Capture) -> None:
    progress = replace(PROGRESS, n_before=90, n_changed=30)
    assert progress.n_done == 90
    assert replace(PROGRESS, n_before=85).n_done == 90, "some have left the input"
    assert replace(PROGRESS, n_rows=None).n_done == 40
    screen = batch_screen.Screen(Output(), is_shown=True)
    screen.tell(progress)
    screen.interrupted(BATCH)
    assert "88 of 90 rows are answered and kept" in capsys.readouterr().err


def test_the_summary_as_a_table_and_as_json(capsys: Capture) -> None:
    outcome = Outcome(90, 2, 0, 7, (PROGRESS, replace(PROGRESS, model="other\x1b[31m")))
    batch_screen.summarize(outcome, BATCH, Output())
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == ""
    assert lines[0].split() == [
        "MODEL", "ANSWERED", "FAILED", "CUT", "PROMPT", "GENERATED", "TIME", "ROWS/S", "TOKENS/S", "AT", "A", "TIME",
    ]  # fmt: skip
    assert lines[1].split() == ["tiny.gguf", "28", "2", "5", "3000", "600", "10.0", "s", "3.00", "360.00", "16"]
    assert "\x1b" not in said.err
    assert lines[-1] == "warning: 2 of 90 rows have no answer, see out.jsonl"
    batch_screen.summarize(outcome, BATCH, Output(as_json=True))
    said = capsys.readouterr()
    assert said.err == ""
    found = json.loads(said.out)
    assert (found["rows"], found["failed"], found["seed"]) == (90, 2, 7)
    assert set(found["models"][0]) == {
        "model", "answered", "failed", "cut", "answered_before", "prompt_tokens", "completion_tokens",
        "computed_tokens", "seconds", "time", "rows_per_second", "tokens_per_second", "width",
    }  # fmt: skip
