"""`owm run` as a process: what goes in, what comes out where, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.hub_server import HubServer, Repo
from support.run import environment, finish, run, start
from support.terminal import Terminal
from support.tiny_gguf import tiny_gguf, write_tiny_gguf

JSON_KEYS = {"model", "quant", "text", "reasoning", "finish_reason", "usage", "timings", "sampling", "context"}
FEW = ["--max-tokens", "5", "--temp", "0"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_tiny_gguf(tmp_path / "tiny-Q8_0.gguf"))


def _piped(args: list[str], stdin: bytes, *, timeout: float = 60) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "owm", *args], input=stdin, env=environment(), capture_output=True, timeout=timeout
    )


def test_only_the_answer_is_on_stdout(model: str) -> None:
    done = run(["-m", "owm", "run", model, "the tin", *FEW])
    assert done.exit_code == 0
    assert done.stderr == ""
    assert done.endswith("\n")
    as_json = run(["-m", "owm", "run", model, "the tin", *FEW, "--json"]).json
    assert done.removesuffix("\n") == as_json["text"].removesuffix("\n")


def test_the_json_object_has_the_keys_that_programs_rely_on(model: str) -> None:
    done = run(["-m", "owm", "run", model, "the tin", "--max-tokens", "5", "--seed", "7", "--json"]).json
    assert set(done) == JSON_KEYS
    assert done["finish_reason"] in ("length", "stop")
    assert set(done["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens", "reasoning_tokens"}
    assert set(done["timings"]) == {
        "load_seconds", "ttft_seconds", "decode_seconds", "prompt_per_second", "decode_per_second", "peak_memory_bytes",
    }  # fmt: skip
    assert done["sampling"]["seed"] == 7
    assert done["quant"] == "Q8_0"
    assert done["usage"]["total_tokens"] == done["usage"]["prompt_tokens"] + done["usage"]["completion_tokens"]


def test_a_seed_repeats_an_answer_and_none_does_not(model: str) -> None:
    def answer(*extra: str) -> str:
        return str(
            run(["-m", "owm", "run", model, "the", "-n", "20", "--temp", "2", "--ignore-eos", "--json", *extra]).json[
                "text"
            ]
        )

    assert answer("--seed", "3") == answer("--seed", "3")
    assert answer() != answer()


def test_material_comes_from_the_pipe_and_the_instruction_from_the_argument(model: str) -> None:
    def n_prompt(args: list[str], stdin: bytes) -> int:
        import json

        done = _piped(["run", model, *args, *FEW, "--raw", "--json"], stdin)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["usage"]["prompt_tokens"])

    both = n_prompt(["on a"], b"the tin\n")
    assert both == n_prompt(["the tin\n\non a"], b"")
    assert n_prompt([], b"the tin\n") == n_prompt(["the tin"], b"")


def test_what_a_pipe_gets_is_the_model_s_own_text_and_a_terminal_never_its_escapes(tmp_path: Path) -> None:
    model = str(write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"general.name": "evil \x1b]0;title\x07"}))
    hot = ["run", model, "the", "-n", "400", "--temp", "50", "--seed", "5", "--ignore-eos", "--raw"]
    piped = _piped(hot, b"").stdout
    assert re.search(rb"[\x00-\x08\x0b-\x1f]", piped), "the seed should draw control characters"
    for args in (hot, ["show", model]):
        with Terminal(args) as terminal:
            assert terminal.wait_for_end() == 0
            assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", terminal.raw)


def test_stats_and_details_go_to_stderr(model: str) -> None:
    done = run(["-m", "owm", "run", model, "the", *FEW, "--stats", "--verbose"])
    assert re.search(
        r"load .* first token after .* prompt \d+ tokens at .* answer \d+ tokens.* peak memory", done.stderr
    )
    assert "running on the CPU with" in done.stderr
    assert "llama_model_loader" in done.stderr
    quiet = run(["-m", "owm", "run", model, "the", *FEW])
    assert quiet.stderr == ""
    assert quiet == done


def test_threads_and_context_are_taken_from_the_flags(model: str) -> None:
    done = run(["-m", "owm", "run", model, "the", *FEW, "--threads", "1", "--ctx-size", "100", "--verbose", "--json"])
    assert done.json["context"] == 100
    assert "n_threads" not in done.stderr or "n_threads = 1" in done.stderr


def test_a_context_that_ends_the_answer_is_said(model: str) -> None:
    done = run(["-m", "owm", "run", model, "the", "--ctx-size", "60", "--ignore-eos", "--temp", "0"])
    assert done.exit_code == 0
    assert "warning: the answer ended with the context, at 60 tokens" in done.stderr


def test_environment_and_model_file_set_the_sampling(tmp_path: Path) -> None:
    model = str(
        write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"general.sampling.temp": 0.25, "general.sampling.top_k": 7})
    )
    sampling = run(["-m", "owm", "run", model, "the", "-n", "2", "--json"], {"OWM_TOP_K": "9"}).json["sampling"]
    assert (sampling["temp"], sampling["top_k"]) == (0.25, 9)
    wrong = run(["-m", "owm", "run", model, "the", "-n", "2"], {"OWM_TOP_K": "many"})
    assert wrong.exit_code == 2
    assert "OWM_TOP_K is not a number: many" in wrong.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["smolm2", "hi"], 3, "no model named smolm2"),
        (["smollm2:9b", "hi"], 3, "smollm2 has no size 9b"),
        (["./none.gguf", "hi"], 3, "no such file: ./none.gguf"),
        (["a b c", "hi"], 2, "not a model name: 'a b c'"),
        (["MODEL", ""], 2, "the prompt is empty"),
        (["MODEL", "  \n "], 2, "the prompt is empty"),
        (["MODEL"], 2, "the prompt is empty"),
        (["MODEL", "hi", "--temp", "-1"], 2, "--temp must be between 0 and 100: -1.0"),
        (["MODEL", "hi", "--temp", "nan"], 2, "--temp must be"),
        (["MODEL", "hi", "--top-p", "1.5"], 2, "--top-p must be between 0 and 1: 1.5"),
        (["MODEL", "hi", "-n", "0"], 2, "--max-tokens must be positive: 0"),
        (["MODEL", "hi", "-t", "0"], 2, "--threads must be positive: 0"),
        (["MODEL", "hi", "-t", "100000"], 2, "--threads must be between 1 and 512: 100000"),
        (["MODEL", "hi", "--stop", ""], 2, "--stop needs a text"),
        (["MODEL", "bad \udcff"], 2, "the prompt is not UTF-8 text"),
        (["MODEL", "hi", "-c", "-5"], 2, "--ctx-size must be positive: -5"),
        (["MODEL", "hi", "--seed", "-1"], 2, "--seed must be between"),
        (["MODEL", "hi", "--raw", "--system", "x"], 2, "--raw sends no template"),
        (["MODEL", "hi", "-c", "10"], 2, "the asked-for context holds 10"),
        (["MODEL", "the tin " * 2000], 2, "the model's context holds 512"),
        (["MODEL", "hi", "--gpu-layers", "5"], 2, "--gpu-layers needs a build"),
        (["ollama:a/b/c/d", "hi"], 2, "not a model name of Ollama's"),
        (["http://example.com/m.gguf", "hi"], 2, "plain http is not taken"),
    ],
)
def test_bad_input_is_one_sentence_a_hint_and_the_right_code(
    model: str, args: list[str], code: int, message: str
) -> None:
    done = run(["-m", "owm", "run", *[model if arg == "MODEL" else arg for arg in args]])
    assert done == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert message in errors[0]
    assert done.exit_code == code
    assert "Traceback" not in done.stderr


def test_the_name_that_was_meant_is_suggested() -> None:
    assert "did you mean `smollm2`?" in run(["-m", "owm", "run", "smolm2", "hi"]).stderr


def test_a_prompt_too_long_names_both_counts_and_cuts_nothing(model: str) -> None:
    done = run(["-m", "owm", "run", model, "the " * 3000])
    found = re.search(r"the prompt has (\d+) tokens, the model's context holds 512", done.stderr)
    assert found
    assert int(found[1]) > 3000
    assert "nothing was cut" in done.stderr


def test_stdin_that_is_no_text_is_refused(model: str) -> None:
    done = _piped(["run", model, *FEW], b"\xff\xfe\x00")
    assert done.returncode == 2
    assert b"stdin is not UTF-8 text (byte 0)" in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(model: str) -> None:
    command = f"{sys.executable} -m owm run {model} the -n 400 --ignore-eos --temp 2 --seed 1 --raw | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], env=environment(), capture_output=True, timeout=60
    )
    assert done.stderr == b""
    assert done.returncode == 0


def test_ctrl_c_keeps_what_was_printed_and_ends_with_130(smollm2_path: Path) -> None:
    with Terminal(["run", str(smollm2_path), "Why is the sky blue?", "--temp", "0", "--ignore-eos"]) as terminal:
        terminal.wait_for("Rayleigh", timeout=60)
        terminal.interrupt()
        assert terminal.wait_for_end(timeout=60) == 130
        assert "Traceback" not in terminal.text()
        assert terminal.text().startswith("The sky is blue")


def test_ctrl_c_in_a_long_prefill_is_quick(smollm2_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "owm", "run", str(smollm2_path), "word " * 7000, "--json"],
        env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(2.5)
    assert process.poll() is None, "the prefill should still be running"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - began < 10  # the whole of it would take half a minute
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert '"finish_reason": "cancelled"' in stdout


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_stdout_is_utf8_in_any_locale(model: str, locale: str) -> None:
    env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "owm", "run", model, "é漢", "-n", "60", "--temp", "3", "--seed", "1", "--ignore-eos"],
        env=environment(env), stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == b""
    done.stdout.decode("utf-8")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_break_nothing(model: str, closed: str) -> None:
    for args, code in ((f"run {model} hi -n 2 --temp 0", 0), ("list", 0), ("--version", 0), ("show nosuch", 3)):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m owm {args} {closed}"],
            env=environment(),
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == code, (args, done.stderr)
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "args", ["run {model} hi -n 2 --temp 0", "list --catalog", "--version", "list --catalog --json"]
)
def test_a_full_disk_behind_stdout_is_said(model: str, args: str) -> None:
    command = f"{sys.executable} -m owm {args.format(model=model)} >/dev/full"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stderr == "error: cannot write to stdout: No space left on device\n"
    assert done.returncode != 0


def test_ctrl_c_at_start_up_is_130_without_a_traceback() -> None:
    for delay in (0.03, 0.08, 0.15, 0.3):
        process = start(["-m", "owm", "list", "--catalog"])
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        done = finish(process)
        if "Fatal Python error" in done.stderr:  # not even the interpreter had begun, which owm has no hand in
            continue
        assert done.exit_code in (0, 130, -signal.SIGINT)  # it was over; it had begun; it had not
        if done.exit_code == 130:
            assert "Traceback" not in done.stderr


def test_the_log_of_llama_cannot_steer_a_terminal(tmp_path: Path) -> None:
    name = "evil \x1b[31m\x1b]0;pwn\x07 \x9b2J \u202e"
    model = str(write_tiny_gguf(tmp_path / "tiny.gguf", metadata={"general.name": name}))
    for args in (["run", model, "the", "-n", "2", "-v"], ["show", model, "--json"]):
        with Terminal(args) as terminal:
            assert terminal.wait_for_end() == 0
            assert b"evil" in terminal.raw
            assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80\xae", terminal.raw)


def test_bare_owm_shows_its_help_and_no_error() -> None:
    done = run(["-m", "owm"])
    assert done.exit_code == 2
    assert "Commands" in done + done.stderr
    assert "error" not in done.stderr


# -- with a Hub ------------------------------------------------------------------------------------------------------


def _serve(hub: HubServer, name: str = "acme/tiny-GGUF") -> None:
    files = {"tiny-Q4_K_M.gguf": tiny_gguf(), "tiny-Q8_0.gguf": tiny_gguf(seed=1), "README.md": b"# tiny"}
    hub.add(Repo(name, files, licence="mit"))


def test_a_model_that_is_not_stored_is_pulled_after_its_size_licence_and_reason_are_said(hub: HubServer) -> None:
    _serve(hub)
    first = run(["-m", "owm", "run", "acme/tiny-GGUF", "the", *FEW])
    assert first.exit_code == 0, first.stderr
    reason, pulling, licence = first.stderr.splitlines()
    assert reason.startswith("Q4_K_M is the usual choice")
    assert re.fullmatch(r"pulling acme/tiny-GGUF:Q4_K_M: [\d.]+ KiB, licence mit", pulling)
    assert licence.startswith("licence: MIT License: any use")
    hub.requests.clear()
    again = run(["-m", "owm", "run", "acme/tiny-GGUF", "the", *FEW])
    assert again.stderr == ""
    assert again == first
    assert hub.requests == [], "a stored model needs no network"


def test_a_stored_quant_is_taken_before_a_download(hub: HubServer) -> None:
    _serve(hub)
    assert run(["-m", "owm", "pull", "acme/tiny-GGUF:q8_0"]).exit_code == 0
    hub.requests.clear()
    done = run(["-m", "owm", "run", "acme/tiny-GGUF", "the", *FEW, "--json"])
    assert done.json["quant"] == "Q8_0"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("ref", "code", "words"),
    [
        ("acme/tiny-GGUF:Q4_K_L", 3, ["no quant Q4_K_L in acme/tiny-GGUF", "did you mean `Q4_K_M`?", "Q8_0"]),
        ("acme/tiny-GGUF:other.gguf", 3, ["no file other.gguf", "tiny-Q4_K_M.gguf"]),
        ("acme/tiny-GGUF@v9", 3, ["no revision v9"]),
        ("acme/nothing", 3, ["no repo acme/nothing"]),
    ],
)
def test_what_the_hub_does_not_have_is_said(hub: HubServer, ref: str, code: int, words: list[str]) -> None:
    _serve(hub)
    done = run(["-m", "owm", "run", ref, "the", *FEW])
    assert done.exit_code == code
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_gguf_is_never_stored(hub: HubServer) -> None:
    hub.add(Repo("acme/fake", {"fake-Q4_K_M.gguf": b"<html>not a model</html>" * 100}))
    done = run(["-m", "owm", "run", "acme/fake", "the", *FEW])
    assert done.exit_code == 7
    assert "is not a usable GGUF file: it begins with b'<htm'" in done.stderr
    assert run(["-m", "owm", "list", "--json"]).json == []
    left = [path for path in Path(os.environ["HF_HOME"]).rglob("*") if path.is_file() and path.stat().st_size > 100]
    assert left == []
