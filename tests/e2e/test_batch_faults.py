"""`owm batch` where things go wrong: killed, interrupted, without room, with rows that fail or readers that leave."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from owm.batch.journal import Journal
from support.batches import FEW, batch, prompts, read_rows, write_rows
from support.run import Output, environment, finish, run, start
from support.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow

KEPT = ("-t", "1", "--deterministic", "--temp", "0", "--ignore-eos", "-n", "60")
PATIENCE = 30.0
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf"))


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that takes long enough for a row to be interrupted amid it."""
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    return str(write_tiny_gguf(path, n_blocks=4, n_embd=512, n_ctx_train=4096))


def _n_records(output: Path) -> int:
    journal = Path(f"{output}.journal")
    return journal.read_bytes().count(b'{"number":') if journal.exists() else 0


def _wait(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    latest = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < latest
        time.sleep(0.002)


def _start(source: Path | str, model: str, output: Path, *args: str) -> "subprocess.Popen[str]":
    return start(["-m", "owm", "batch", source, "-m", model, "-o", output, *args])


# -- killed and interrupted ------------------------------------------------------------------------------------------


def test_killed_at_any_moment_it_ends_with_the_same_bytes(model: str, tmp_path: Path, capsys: Capture) -> None:
    source = write_rows(tmp_path / "in.jsonl", prompts(80))
    whole = tmp_path / "whole.jsonl"
    assert run(["-m", "owm", "batch", source, "-m", model, "-o", whole, *KEPT]).exit_code == 0
    output, dice, n_kills = tmp_path / "out.jsonl", random.Random(8), 0
    for least in (0, 1, 9, 20, 33):
        process = _start(source, model, output, *KEPT)
        try:
            _wait(lambda least=least: _n_records(output) >= least, process)  # type: ignore[misc]
            time.sleep(dice.random() * 0.02)
        finally:
            process.kill()
            finish(process)
        n_kills += process.returncode == -signal.SIGKILL
        assert not output.exists() or output.read_bytes() == whole.read_bytes()
        with Path(f"{output}.journal").open("ab") if least else open(os.devnull, "ab") as journal:
            journal.write(b'{"number":1,"key":"torn')
    assert n_kills >= 4
    done = run(["-m", "owm", "batch", source, "-m", model, "-o", output, *KEPT, "--json"])
    assert done.exit_code == 0
    assert (done.json["rows"], done.json["failed"]) == (80, 0)
    assert output.read_bytes() == whole.read_bytes()
    with Journal.open(Path(f"{output}.journal")) as journal:
        assert sorted(record.number for _, record in journal.scan()) == list(range(1, 81))
        assert journal.n_damaged == 0
    assert not list(tmp_path.glob("*.incomplete"))


def _interrupted(process: "subprocess.Popen[str]", *, seconds: float = 10) -> Output:
    process.send_signal(signal.SIGINT)
    done = finish(process, timeout=seconds)
    assert done.exit_code == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
    return done


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(slow_model: str, tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(300)), tmp_path / "out.jsonl"
    args = ("-t", "1", "--temp", "0", "--ignore-eos", "-n", "20", "-np", "4")
    process = _start(source, slow_model, output, *args)
    _wait(lambda: _n_records(output) >= 3, process)
    done = _interrupted(process)
    n_kept = _n_records(output)
    assert 3 <= n_kept < 300
    assert (
        f"interrupted; {n_kept} of 300 rows are answered and kept; the same command goes on from there" in done.stderr
    )
    assert not output.exists()
    few = write_rows(tmp_path / "in.jsonl", prompts(3))
    again = run(["-m", "owm", "batch", few, "-m", slow_model, "-o", output, *args])
    assert again.exit_code == 0
    assert "nothing was left to do, 3 rows are done" in again.stderr


def test_answers_of_an_interrupted_run_are_whole(model: str, tmp_path: Path) -> None:
    """Between two looks at what was decoded, Ctrl-C may lose some of it: then a row has to count as not answered."""
    source, whole = write_rows(tmp_path / "in.jsonl", prompts(800)), tmp_path / "whole.jsonl"
    args = ("-t", "1", "--temp", "0", "--ignore-eos", "-n", "8", "-np", "4")
    assert run(["-m", "owm", "batch", source, "-m", model, "-o", whole, *args]).exit_code == 0
    expected = {row["id"]: row["text"] for row in read_rows(whole)}
    for n in (1, 150):
        output = tmp_path / f"out{n}.jsonl"
        process = _start(source, model, output, *args)
        _wait(lambda n=n, output=output: _n_records(output) >= n, process)  # type: ignore[misc]
        _interrupted(process)
        with Journal.open(Path(f"{output}.journal")) as journal:
            found = {record.key: record.answer and record.answer["text"] for _, record in journal.scan()}
        assert len(found) >= n
        assert found == {name: expected[name] for name in found}


def test_two_ctrl_c_in_quick_succession_end_it_as_well(slow_model: str, tmp_path: Path) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(50)), tmp_path / "out.jsonl"
    process = _start(source, slow_model, output, "-t", "1", "--ignore-eos", "-n", "40", "-np", "4")
    _wait(lambda: _n_records(output) >= 1, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    done = finish(process, timeout=10)
    assert done.exit_code in (130, -signal.SIGINT)
    assert "Traceback" not in done.stderr
    with Journal.open(Path(f"{output}.journal")) as journal:
        assert journal.n_damaged == 0


@pytest.mark.parametrize("to_file", [True, False])
@pytest.mark.parametrize("row", ["", '{"prompt": "the", "max_tokens": 2}\n'])
def test_ctrl_c_ends_the_waiting_for_stdin(model: str, tmp_path: Path, row: str, to_file: bool) -> None:
    output = tmp_path / "out.jsonl"
    place = ["-o", output] if to_file else []
    process = subprocess.Popen(
        [sys.executable, "-m", "owm", "batch", "-", "-m", model, "-np", "1", "-t", "1", *place],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(row)
        process.stdin.flush()
        if row and to_file:
            _wait(lambda: _n_records(output) == 1, process)
        elif row:
            assert json.loads(process.stdout.readline())["id"] == 1, "it is answered although stdin stays open"
        elif to_file:
            _wait(Path(f"{output}.journal").exists, process)
            time.sleep(0.05)
        else:
            time.sleep(1.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert time.monotonic() - began < 5
        said = process.stderr.read() if process.stderr else ""
        assert "Traceback" not in said
        assert "Fatal" not in said
        assert "interrupted" in said
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


def test_ctrl_c_while_the_model_loads(tmp_path: Path) -> None:
    model = write_tiny_gguf(tmp_path / "large.gguf", n_embd=1024, n_blocks=4)
    source, output = write_rows(tmp_path / "in.jsonl", prompts(3)), tmp_path / "out.jsonl"
    process = _start(source, str(model), output, "-n", "2000")
    _wait(Path(f"{output}.manifest.json").exists, process)
    done = _interrupted(process)
    assert "interrupted" in done.stderr
    assert not output.exists()


# -- locks and room --------------------------------------------------------------------------------------------------


def test_a_second_batch_on_one_output_is_refused(model: str, tmp_path: Path, capsys: Capture) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    with Journal.open(Path(f"{output}.journal")):
        for args in ((), ("--restart",), ("--append",)):
            done = batch(capsys, source, output, model, *args)
            assert done.exit_code == 1
            assert f"another owm batch is writing {output}" in done.stderr
    assert batch(capsys, source, output, model).exit_code == 0


def _limited(n_bytes: int, args: list[str | os.PathLike[str]]) -> Output:
    """Run with a limit on the size of a file, which is what a full disk is like."""
    done = subprocess.run(
        [sys.executable, "-m", "owm", *map(os.fspath, args)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes)),
    )
    output = Output(done.stdout)
    output.stderr, output.exit_code = done.stderr, done.returncode
    return output


def test_without_room_it_stops_and_goes_on_when_there_is_some(model: str, tmp_path: Path, capsys: Capture) -> None:
    source, whole, output = (tmp_path / name for name in ("in.jsonl", "whole.jsonl", "out.jsonl"))
    write_rows(source, prompts(30))
    assert batch(capsys, source, whole, model).exit_code == 0
    args: list[str | os.PathLike[str]] = ["batch", source, "-m", model, "-o", output, *FEW]
    for n_bytes, n_rows in ((16, 0), (1000, 0), (3000, 6), (whole.stat().st_size - 100, 10)):
        done = _limited(n_bytes, args)
        assert done.exit_code == 6, done.stderr
        assert "the limit on the size of a file is reached" in done.stderr
        assert "hint: make room and run the same command again" in done.stderr
        assert "Traceback" not in done.stderr
        assert not output.exists()
        assert _n_records(output) >= n_rows
        assert not list(tmp_path.glob("*.incomplete"))
    assert batch(capsys, source, output, model).exit_code == 0
    assert output.read_bytes() == whole.read_bytes()


def test_where_nothing_may_be_written_nothing_is_begun(model: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", prompts(2))
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    done = run(["-m", "owm", "batch", source, "-m", model, "-o", folder / "out.jsonl"], unprivileged=True)
    assert done.exit_code == 1
    assert f"cannot write {folder / 'out.jsonl.journal'}: Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def _shell(command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command.replace("owm", f"{sys.executable} -m owm")],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_stdout_that_takes_nothing_is_said_and_one_that_leaves_is_not(model: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", prompts(3000))
    command = f"owm batch in.jsonl -m {model} -n 4 --ignore-eos -np 2 -t 1"
    full = _shell(f"{command} > /dev/full", tmp_path)
    assert (full.returncode, full.stderr) == (6, "error: cannot write to stdout: No space left on device\n")
    left = _shell(f"{command} | head -n 1; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (left.returncode, left.stderr) == (0, "")
    assert json.loads(left.stdout)["id"] == "row 0"


# -- rows that fail --------------------------------------------------------------------------------------------------

ROWS = (
    {"id": "good", "prompt": "the", "x": 1},
    "{no json",
    {"id": "good", "prompt": "again"},
    {"id": "shape", "prompt": "the", "schema": {"type": "nonsense"}},
    {"id": "long", "prompt": "the " * 600},
    {"id": "last", "prompt": "tin"},
)
CODES = {2: "invalid_json", "good": "repeated_id", "shape": "invalid_shape", "long": "too_long"}


def test_failed_rows_are_among_the_answers_or_in_a_file(model: str, tmp_path: Path, capsys: Capture) -> None:
    source, output, errors = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    done = batch(capsys, source, output, model, "--json")
    assert done.exit_code == 1
    assert (done.json["rows"], done.json["failed"], done.json["models"][0]["failed"]) == (6, 4, 4)
    assert f"warning: 4 of 6 rows have no answer, see {output}" not in done.stderr, "that is the JSON's to say"
    found = read_rows(output)
    assert [row["id"] for row in found] == ["good", 2, "good", "shape", "long", "last"]
    assert {row["id"]: row["error"]["code"] for row in found if "error" in row} == CODES
    apart = batch(capsys, source, output, model, "--errors", str(errors))
    assert apart.exit_code == 1
    assert f"warning: 4 of 6 rows have no answer, see {errors}" in apart.stderr
    assert [row["id"] for row in read_rows(output)] == ["good", "last"]
    assert {row["id"]: row["error"]["code"] for row in read_rows(errors)} == CODES
    streamed = run(["-m", "owm", "batch", source, "-m", model, *FEW])
    assert streamed.exit_code == 1
    assert [json.loads(line)["id"] for line in streamed.splitlines()] == [row["id"] for row in found]


def test_a_table_of_rows_that_all_fail_says_so(model: str, tmp_path: Path, capsys: Capture) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", ["{", "[]"]), tmp_path / "out.jsonl"
    done = batch(capsys, source, output, model)
    assert done.exit_code == 1
    assert "nothing was left that could be answered" in done.stderr
    assert f"2 of 2 rows have no answer, see {output}" in done.stderr
    assert len(read_rows(output)) == 2


@pytest.mark.parametrize(
    ("args", "n_done"), [(["--strict"], 1), (["--max-errors", "2"], 2), (["--max-errors", "9"], 6)]
)
def test_so_many_failures_stop_it(model: str, tmp_path: Path, capsys: Capture, args: list[str], n_done: int) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", [ROWS[1], *ROWS[3:], ROWS[0]]), tmp_path / "out.jsonl"
    done = batch(capsys, source, output, model, *args)
    assert done.exit_code == 1
    n_most = int(args[1]) if len(args) > 1 else 1
    assert output.exists() == (n_most == 9)
    if n_most < 9:
        assert f"error: stopped after {n_most} failed row{'s' * (n_most > 1)}, the last one is" in done.stderr
        assert "what was answered is kept; the same command goes on" in done.stderr
    assert _n_records(output) >= min(n_most, 5)
    assert batch(capsys, source, output, model).exit_code == 1
    assert [row["id"] for row in read_rows(output)] == [1, "shape", "long", "last", "good"]


def test_the_first_failure_of_a_pipe_that_stays_open_ends_it(model: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    holder = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        os.write(holder, b'{"prompt": ""}\n')
        done = run(["-m", "owm", "batch", tmp_path / "pipe", "-m", model, *FEW, "--strict"], timeout=20)
    finally:
        os.close(holder)
    assert done.exit_code == 1
    assert "stopped after 1 failed row" in done.stderr


def test_answers_of_a_schema_are_single_lines_where_the_output_is(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the\n")
    schema = '{"type": "array", "items": {"enum": [1]}, "minItems": 2, "maxItems": 2}'
    done = run(["-m", "owm", "batch", tmp_path / "in.txt", "-m", model, *FEW, "-n", "40", "--schema", schema])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done) == [1, 1]
    assert done.count("\n") == 1
    assert "\\n" not in done


def test_a_line_without_an_answer_is_empty_and_said(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the\n" + "the " * 600 + "\ntin\n")
    done = run(["-m", "owm", "batch", tmp_path / "in.txt", "-m", model, *FEW, "--regex", "[a-z]{3}"])
    assert done.exit_code == 1
    first, second, third = done.splitlines()
    assert (len(first), second, len(third)) == (3, "", 3)
    assert "warning: line 2 has no answer: the prompt has 1218 tokens, the model's context holds 512" in done.stderr


def test_why_a_stopped_batch_was_stopped_is_known(model: str, tmp_path: Path) -> None:
    """Without a journal, what was written is all there is: it is not taken back."""
    source, errors = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "bad.jsonl"
    done = run(["-m", "owm", "batch", source, "-m", model, *FEW, "--errors", errors, "--max-errors", "2"])
    assert done.exit_code == 1
    assert "error: stopped after 2 failed rows, the last one is good: the row's id was there before" in done.stderr
    assert [row["error"]["code"] for row in read_rows(errors)] == ["invalid_json", "repeated_id"]
    full = run(["-m", "owm", "batch", source, "-m", model, *FEW, "--errors", "/dev/full"])
    assert full.exit_code == 6
    assert "the disk is full: /dev/full" in full.stderr


@pytest.mark.parametrize("place", [[], ["-o", "out.jsonl"]])
def test_failed_rows_go_to_a_device_and_never_in_its_place(model: str, tmp_path: Path, place: list[str]) -> None:
    source = write_rows(tmp_path / "in.jsonl", ROWS)
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    try:
        to = [tmp_path / each if each == "out.jsonl" else each for each in place]
        done = run(["-m", "owm", "batch", source, "-m", model, *FEW, *to, "--errors", tmp_path / "pipe"])
        said, _ = reader.communicate(timeout=10)
    finally:
        reader.kill()
        reader.wait()
    assert done.exit_code == 1
    assert len(said.splitlines()) == 4
    assert (tmp_path / "pipe").is_fifo()


def test_what_cannot_take_answers_or_errors_is_refused_before_any_work(
    model: str, tmp_path: Path, capsys: Capture
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(1)), tmp_path / "out.jsonl"
    for flags, said in (
        (["--errors", str(tmp_path / "none" / "bad.jsonl")], "no such folder"),
        (["--errors", str(tmp_path)], "is a folder"),
    ):
        done = batch(capsys, source, output, model, *flags)
        assert done.exit_code == 2
        assert said in done.stderr
    os.mkfifo(tmp_path / "pipe")
    done = batch(capsys, source, tmp_path / "pipe", model, "--restart")
    assert done.exit_code == 2
    assert "is not a file" in done.stderr
    assert not list(tmp_path.glob("*journal"))


def test_rows_that_cannot_be_read_end_it_with_their_reason(model: str, tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "in.csv"
    source.write_text("a,b\n1,2\n")
    done = batch(capsys, source, tmp_path / "out.csv", model)
    assert (done.exit_code, "the table has no column `prompt`" in done.stderr) == (2, True)
    missing = batch(capsys, tmp_path / "none.jsonl", tmp_path / "out.csv", model)
    assert (missing.exit_code, "no such file" in missing.stderr) == (3, True)
    assert not list(tmp_path.glob("out*"))
