"""Trials of whole models in a process of their own: what passes, what is refused, and what ends the process."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from owm.native import guard
from owm.native.guard import Child, Trial
from support.hostile_gguf import write_contradictory_rope, write_whole_numbers
from support.run import environment, start
from support.tiny_adapter import factors, write_adapter
from support.tiny_bert import write_tiny_bert
from support.tiny_gguf import write_tiny_gguf
from support.tiny_recurrent import write_tiny_mamba

PASSED = Trial(None)


def tried(path: Path, *, adapters: tuple[Path, ...] = (), limit_seconds: float | None = None) -> Trial:
    with Child("trial") as child:
        return child.trial(path, size_bytes=1, n_threads=1, adapters=adapters, limit_seconds=limit_seconds)


def pipe(folder: Path) -> Path:
    """Make what llama.cpp waits for without an end."""
    path = folder / "endless.gguf"
    os.mkfifo(path)
    return path


def in_background(child: Child, path: Path) -> tuple[threading.Thread, list[Trial]]:
    found: list[Trial] = []

    def work() -> None:
        found.append(child.trial(path, size_bytes=1, n_threads=1))

    thread = threading.Thread(target=work)
    thread.start()
    return thread, found


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_waiting(pid: int) -> bool:
    """Tell whether a process is in the midst of opening a pipe; where the system does not say, that it is there."""
    try:
        return any(task.read_text() == "wait_for_partner" for task in Path(f"/proc/{pid}/task").glob("*/wchan"))
    except OSError:
        return not sys.platform.startswith("linux")


# -- what passes -------------------------------------------------------------------------------------------------------


def test_a_model_that_answers_passes(tmp_path: Path) -> None:
    assert tried(write_tiny_gguf(tmp_path / "m.gguf")) == PASSED


def test_a_model_that_keeps_a_state_passes(tmp_path: Path) -> None:
    assert tried(write_tiny_mamba(tmp_path / "m.gguf")) == PASSED


def test_an_embedding_model_passes(tmp_path: Path) -> None:
    assert tried(write_tiny_bert(tmp_path / "m.gguf")) == PASSED


def test_a_name_that_is_no_utf8_passes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"m\xff\xe9.gguf")
    assert tried(write_tiny_gguf(path)) == PASSED


def test_the_first_token_may_be_out_of_the_vocabulary(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", metadata={"tokenizer.ggml.bos_token_id": 2**32 - 1})
    assert tried(path) == PASSED


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_refusal_has_llama_cpps_words(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", metadata={"llama.rope.dimension_count": 14})
    found = tried(path)
    assert found.stage == "load"
    assert found.error == "error loading model hyperparameters: invalid n_rot: 14, expected 16"
    assert found.signal is None


def test_an_adapter_is_tried_too(tmp_path: Path) -> None:
    model = write_tiny_gguf(tmp_path / "m.gguf")
    a, b = factors("q", 64, 64)
    adapter = write_adapter(tmp_path / "a.gguf", {"blk.0.attn_q.weight.lora_a": a, "blk.0.attn_q.weight.lora_b": b})
    assert tried(model, adapters=(adapter,)) == PASSED
    found = tried(model, adapters=(model,))
    assert found.stage == "adapter"
    assert found.error


# -- what ends the process ---------------------------------------------------------------------------------------------


def test_an_abort_when_the_context_is_made_has_its_cause(tmp_path: Path) -> None:
    found = tried(write_contradictory_rope(tmp_path / "m.gguf"))
    assert found.signal == "SIGABRT"
    assert found.error is not None
    assert found.error.startswith("it aborted: qwen2.cpp:")
    assert found.error.endswith("GGML_ASSERT(n_embd_head == n_rot) failed")


def test_a_crash_when_a_token_is_computed_has_its_signal(tmp_path: Path) -> None:
    found = tried(write_whole_numbers(tmp_path / "m.gguf"))
    assert found == Trial("it crashed (SIGSEGV)", signal="SIGSEGV")


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGSEGV, "it crashed (SIGSEGV)"), (signal.SIGBUS, "it crashed (SIGBUS)"), (signal.SIGKILL, "it aborted")],
)
def test_a_signal_is_told_by_its_name(number: signal.Signals, words: str, tmp_path: Path) -> None:
    path = pipe(tmp_path)
    with Child("trial") as child:
        thread, found = in_background(child, path)
        os.kill(child._process.pid, number)
        thread.join()
    assert str(found[0].error).startswith(words)
    assert found[0].signal == number.name


def test_what_comes_to_no_end_is_ended(tmp_path: Path) -> None:
    found = tried(pipe(tmp_path), limit_seconds=0.2)
    assert found == Trial("it did not come to an end in 0 s")


def test_a_larger_model_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    with Child("trial") as child:
        monkeypatch.setattr(child, "_ask", lambda request, limit: (limits.append(limit), ({}, "no"))[1])
        for size_bytes in (0, 160 << 30):
            child.trial(Path("m.gguf"), size_bytes=size_bytes, n_threads=1)
    assert limits == [guard.TRIAL_SECONDS, guard.TRIAL_SECONDS + 10240]


def test_no_core_file_is_left_and_complaints_are_bounded() -> None:
    script = (
        "import resource as r; from owm.native.trial import _confine; _confine();"
        "print(r.getrlimit(r.RLIMIT_CORE)[0], r.getrlimit(r.RLIMIT_FSIZE)[0])"
    )
    said = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["0", str(1 << 20)]


def test_no_debugger_is_started_for_an_abort(tmp_path: Path) -> None:
    path = pipe(tmp_path)
    with Child("trial") as child:
        thread, _ = in_background(child, path)
        process = psutil.Process(child._process.pid)
        wait_for(lambda: process.environ().get("GGML_NO_BACKTRACE") == "1")  # before, it is still a copy of this one
        process.kill()
        thread.join()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a stream leads to is read in /proc")
def test_what_c_code_prints_is_no_answer(tmp_path: Path) -> None:
    path = pipe(tmp_path)
    with Child("trial") as child:
        thread, _ = in_background(child, path)
        wait_for(lambda: is_waiting(child._process.pid))
        streams = [os.readlink(f"/proc/{child._process.pid}/fd/{number}") for number in (1, 2)]
        child._process.kill()
        thread.join()
    assert streams[0] == streams[1]


def test_the_child_imports_no_more_than_it_needs() -> None:
    script = "import sys, owm.native.guarded, owm.native.trial; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    modules = set(said.stdout.split())
    assert not modules & {"numpy", "psutil", "typer", "rich", "jinja2", "huggingface_hub", "requests", "urllib3"}


# -- and its parent ----------------------------------------------------------------------------------------------------


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    path = pipe(tmp_path)
    script = (
        "import sys; from pathlib import Path; from owm.native.guard import Child\n"
        "child = Child('trial'); print(child._process.pid, flush=True)\n"
        "child.trial(Path(sys.argv[1]), size_bytes=1, n_threads=1)"
    )
    parent = start(["-c", script, path])
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    wait_for(lambda: is_waiting(child.pid))
    parent.kill()
    parent.communicate()
    try:
        child.wait(30)
    except psutil.TimeoutExpired:
        child.kill()
        pytest.fail("it went on without its parent")


def test_it_is_gone_when_it_has_answered(tmp_path: Path) -> None:
    with Child("trial") as child:
        pid = child._process.pid
        child.trial(write_tiny_gguf(tmp_path / "m.gguf"), size_bytes=1, n_threads=1)
        assert not psutil.pid_exists(pid)
