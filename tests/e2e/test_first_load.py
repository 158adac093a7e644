"""Commands before a model that llama.cpp does not survive, and what they do on the way to one that it does."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from owm.paths import owm_home
from owm.store.local import Store
from support.hostile_gguf import BLIND_COMMAND, blind_reader, write_contradictory_rope
from support.hub_server import HubServer, Repo
from support.packed_gguf import STRING, U32, key, pack, tensor
from support.run import Output, finish, run, run_here, start
from support.stored import put_model
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

pytestmark = pytest.mark.slow

Owm = Callable[..., Output]
CAUSE = "GGML_ASSERT(n_embd_head == n_rot) failed"
# A command that takes anything for a model, so that llama.cpp waits in the trial for what never comes.
ENDLESS_COMMAND = BLIND_COMMAND.replace(
    "from owm.__main__", "import owm.engine.model as m\nm.read_headers = lambda *_, **__: ()\nfrom owm.__main__"
)
Q8_0_BLOCK = 34


@pytest.fixture(autouse=True)
def no_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWM_TRUST", raising=False)


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owm:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", None)
    return lambda *args: run_here(capsys, *args)


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that aborts llama.cpp, in front of a reader of headers that does not know so."""
    blind_reader(monkeypatch)
    return write_contradictory_rope(tmp_path / "bad.gguf")


def kept() -> list[Path]:
    folder = owm_home() / "tried"
    return sorted(folder.iterdir()) if folder.is_dir() else []


# -- every command that loads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ("run", "bad.gguf", "hello"),
        ("run", "bad.gguf", "--show-settings"),
        ("chat", "bad.gguf", "--plain"),
        ("batch", "rows.txt", "-m", "bad.gguf", "-o", "out.jsonl"),
        ("embed", "bad.gguf", "hello"),
        ("bench", "bad.gguf", "-p", "8", "-n", "0", "-r", "1"),
        ("bench", "bad.gguf", "--tune", "--budget", "5"),
        ("bench", "good.gguf", "--quality", "--reference", "bad.gguf", "-p", "8", "-n", "0"),
        ("imatrix", "bad.gguf", "--chunks", "2"),
        ("quality", "bad.gguf", "good.gguf"),
        ("quality", "good.gguf", "bad.gguf"),
        ("quantize", "bad.gguf", "Q8_0", "--imatrix", "auto", "-o", "out.gguf"),
    ],
    ids=lambda args: " ".join(args[:3]),
)
def test_an_abort_is_an_error_of_the_command(args: tuple[str, ...], bad: Path, tmp_path: Path, owm: Owm) -> None:
    write_tiny_gguf(tmp_path / "good.gguf")
    (tmp_path / "rows.txt").write_text("hello\n")
    done = owm(*args)
    assert done.exit_code == 7, done.stderr
    assert done == ""
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "bad.gguf is not a usable GGUF file: tried in a process of its own, it aborted: qwen2.cpp:" in error
    assert error.endswith(CAUSE)
    assert "hint: get the model from somewhere else; `--trust` loads it all the same" in done.stderr


def test_without_the_trial_it_takes_the_command_along(bad: Path) -> None:
    """What the gate is there for."""
    quiet = {"GGML_NO_BACKTRACE": "1"}
    done = run(["-c", BLIND_COMMAND, "run", bad, "hello", "--trust"], quiet)
    assert done.exit_code == -signal.SIGABRT
    assert CAUSE in done.stderr


def test_the_command_itself_goes_on_to_its_end(bad: Path) -> None:
    done = run(["-c", BLIND_COMMAND, "run", bad, "hello"])
    assert (done, done.exit_code) == ("", 7)
    assert len(done.stderr.splitlines()) == 2
    assert "Traceback" not in done.stderr


def test_trust_is_for_one_command(bad: Path, tmp_path: Path, owm: Owm) -> None:
    assert owm("run", write_tiny_gguf(tmp_path / "m.gguf"), "hello", "-n", "1", "--trust").exit_code == 0
    assert not kept()
    os.environ.pop("OWM_TRUST")  # as it goes with the process
    assert owm("run", bad, "hello").exit_code == 7


# -- one that is sound -------------------------------------------------------------------------------------------------


def test_it_is_tried_once_and_says_nothing(tmp_path: Path, owm: Owm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owm.library.gate.PATIENCE_SECONDS", 600.0)
    path = write_tiny_gguf(tmp_path / "m.gguf")
    first = owm("run", path, "hello", "-n", "2", "--temp", "0")
    assert first.exit_code == 0, first.stderr
    assert first.stderr == ""
    assert len(kept()) == 1
    monkeypatch.setattr("owm.native.guard.Child", None)  # no process is to be started
    again = owm("run", path, "hello", "-n", "2", "--temp", "0")
    assert (again, again.stderr, again.exit_code) == (first, "", 0)


def test_a_long_trial_is_announced_on_stderr(tmp_path: Path, owm: Owm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owm.library.gate.PATIENCE_SECONDS", 0.0)
    done = owm("run", write_tiny_gguf(tmp_path / "m.gguf"), "hello", "-n", "1", "--temp", "0")
    assert "trying m.gguf in a process of its own before its first use" in done.stderr
    assert "trying" not in done


def test_a_model_that_was_tried_brings_no_more_modules(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    script = (
        "import sys\nfrom owm.cli.app import main\n"
        "code = main(sys.argv[1:])\nprint(code, 'owm.native.guard' in sys.modules, file=sys.stderr)"
    )
    for is_there in (True, False):
        done = run(["-c", script, "run", path, "hello", "-n", "1"])
        assert done.stderr.splitlines()[-1] == f"0 {is_there}"


def test_two_at_once_both_answer(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    both = [start(["-m", "owm", "run", path, "hello", "-n", "1", "--seed", "1"]) for _ in range(2)]
    first, second = (finish(each) for each in both)
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first == second
    assert len(kept()) == 1


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf")
    owm_home().mkdir(parents=True)
    owm_home().chmod(0o555)
    try:
        done = run(["-m", "owm", "run", path, "hello", "-n", "1"], unprivileged=True)
    finally:
        owm_home().chmod(0o755)
    assert (done.exit_code, done.stderr) == (0, ""), done.stderr
    assert not kept()


# -- what happens to the trial -----------------------------------------------------------------------------------------


def in_trial(tmp_path: Path) -> "tuple[psutil.Popen, psutil.Process]":
    """Start a command that stays in its trial; return it, and the trial's process."""
    os.mkfifo(path := tmp_path / "endless.gguf")
    command = start(["-c", ENDLESS_COMMAND, "run", path, "hello"])
    process = psutil.Process(command.pid)
    while not (found := process.children()):
        assert command.poll() is None, command.communicate()
    return command, found[0]


def test_ctrl_c_ends_both(tmp_path: Path) -> None:
    command, trial = in_trial(tmp_path)
    command.send_signal(signal.SIGINT)
    done = finish(command)
    assert (done, done.exit_code) == ("", 130)
    assert "Traceback" not in done.stderr
    trial.wait(30)


def test_a_trial_that_is_killed_is_an_error(tmp_path: Path) -> None:
    command, trial = in_trial(tmp_path)
    trial.kill()
    done = finish(command)
    assert (done, done.exit_code) == ("", 1)
    assert "error: trying endless.gguf was ended from outside (SIGKILL)" in done.stderr
    assert not kept()


def test_a_command_that_is_killed_leaves_no_trial(tmp_path: Path) -> None:
    command, trial = in_trial(tmp_path)
    command.kill()
    command.communicate()
    trial.wait(30)


# -- where models come in ----------------------------------------------------------------------------------------------


def test_pull_reads_the_header_before_anything_is_stored(hub: HubServer, store: Store, owm: Owm) -> None:
    hub.add(Repo("o/r", {"m-Q8_0.gguf": pack([key("general.architecture", STRING, "llama")], n_tensors=9) + bytes(99)}))
    done = owm("pull", "o/r:Q8_0")
    assert done.exit_code == 7, done.stderr
    assert "m-Q8_0.gguf is not a usable GGUF file: 9 tensors cannot fit in" in done.stderr
    assert not store.models()


def test_import_reads_the_header_of_every_file(tmp_path: Path, store: Store, owm: Owm) -> None:
    (tmp_path / "mine").mkdir()
    write_tiny_gguf(tmp_path / "mine/good-Q8_0.gguf")
    (tmp_path / "mine/bad-Q8_0.gguf").write_bytes(tiny_gguf()[:-1])
    done = owm("import", "--from", tmp_path / "mine")
    assert "bad-Q8_0.gguf" in done.stderr + done
    assert [model.path.name for model in store.models()] == ["good-Q8_0.gguf"]


# -- rows, by `verify --full` ------------------------------------------------------------------------------------------


def rows_file(*, n_rows: int = 40_000, bad_row: int | None = None) -> bytes:
    """A file of two tensors, of which the second, of Q8_0 blocks, may have a scale that is no number."""
    norm, rows = np.ones(64, np.float32).tobytes(), bytearray(bytes(Q8_0_BLOCK) * n_rows * 2)
    if bad_row is not None:
        rows[bad_row * 2 * Q8_0_BLOCK : bad_row * 2 * Q8_0_BLOCK + 2] = np.float16("nan").tobytes()
    return pack(
        [key("general.architecture", STRING, "llama"), key("llama.block_count", U32, 1)],
        [tensor("norm", (64,), 0, 0), tensor("blk.0.q", (64, n_rows), 8, 256)],
        norm + rows,
    )


def test_verify_full_finds_rows_that_are_no_numbers(store: Store, owm: Owm) -> None:
    put_model(store, "o/good", "Q8_0", content=rows_file())
    put_model(store, "o/bad", "Q8_0", content=rows_file(bad_row=31_234))
    assert owm("verify").exit_code == 0
    done = owm("verify", "--full", "--json")
    assert done.exit_code == 7
    found = {row["name"]: (row["status"], row["problem"]) for row in done.json}
    assert found["o/good:Q8_0"] == ("whole", None)
    assert found["o/bad:Q8_0"] == (
        "damaged",
        "model-Q8_0.gguf is not a usable GGUF file: the tensor 'blk.0.q' (Q8_0) has values that are infinite or no "
        "numbers (NaN), in row 31234",
    )
    assert "ggml_validate_row_data" not in done.stderr


def test_what_was_published_so_is_not_fetched_again(store: Store, owm: Owm) -> None:
    put_model(store, "o/bad", "Q8_0", content=rows_file(n_rows=8, bad_row=0))
    done = owm("verify", "--full", "--repair", "--json")
    assert done.exit_code == 7
    assert done.json[0]["status"] == "damaged"
    assert "owm pull" not in done.json[0]["hint"]


def test_verify_full_reads_a_file_that_is_not_stored(tmp_path: Path, owm: Owm) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(rows_file(n_rows=8, bad_row=3))
    assert owm("verify", path).exit_code == 0
    done = owm("verify", "--full", path)
    assert done.exit_code == 7
    assert "the tensor 'blk.0.q' (Q8_0) has values that are infinite or no numbers (NaN), in row 3" in done


def test_ggml_says_nothing_of_its_own(store: Store) -> None:
    put_model(store, "o/bad", "Q8_0", content=rows_file(n_rows=8, bad_row=0))
    done = run(["-m", "owm", "verify", "--full"])
    assert done.exit_code == 7
    assert "ggml_validate_row_data" not in done.stderr
