"""What `owm run` makes of an answer: its shape, its thought, several of it; models that say what a test wrote."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.run import Output, environment, run, run_here
from support.scripted_gguf import write_scripted_gguf
from support.terminal import Terminal

THINKING = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"  # noqa: E501
MARKS = ("<think>", "</think>")
THOUGHT = ["<think>", "\n", "Hm", ",", " secret", "</think>", "\n\n", "Blue", "!"]


@pytest.fixture(autouse=True)
def no_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.fixture
def thinker(tmp_path: Path) -> Path:
    return write_scripted_gguf(tmp_path / "thinker.gguf", THOUGHT, template=THINKING, marks=MARKS)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """It answers `red` (0.7), `blue` (0.2) or `green` (0.1), at once and with its whole name as one token."""
    return write_scripted_gguf(tmp_path / "colours.gguf", [{"red": 0.7, "blue": 0.2, "green": 0.1}])


def ask(capsys: pytest.CaptureFixture[str], model: Path, *args: str) -> Output:
    return run_here(capsys, "run", model, "Why?", "--temp", "0", *args)


def as_object(done: Output) -> Any:
    assert done.exit_code == 0, done.stderr
    return done.json


# -- thoughts ----------------------------------------------------------------------------------------------------------


def test_a_thought_never_gets_into_a_pipe(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ask(capsys, thinker)
    assert (done.exit_code, done, done.stderr) == (0, "Blue!\n", "")


def test_json_has_thought_and_answer_apart(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_object(ask(capsys, thinker, "--json"))
    assert (found["reasoning"], found["text"], found["finish_reason"]) == ("Hm, secret", "Blue!", "stop")
    assert 0 < found["usage"]["reasoning_tokens"] < found["usage"]["completion_tokens"]


def test_a_shown_thought_of_a_pipe_is_on_stderr(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ask(capsys, thinker, "--think", "show")
    assert done == "Blue!\n"
    assert done.stderr == "Hm, secret\n\n"


def test_only_the_thought(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, thinker, "--think", "only") == "Hm, secret\n"


def test_thinking_is_turned_off_by_the_template_s_switch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(
        tmp_path / "t.gguf", THOUGHT, template=THINKING, marks=MARKS, after={"</think>\n\n": "At once."}
    )
    found = as_object(ask(capsys, model, "--think", "off", "--json"))
    assert (found["reasoning"], found["text"]) == (None, "At once.")


def test_a_terminal_shows_the_thought_dim_and_apart(thinker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    with Terminal(["run", str(thinker), "Why?", "--temp", "0", "-t", "1"]) as terminal:
        assert terminal.wait_for_end() == 0
        assert b"\x1b[2mHm" in terminal.raw
        assert terminal.text().split("\n")[:3] == ["Hm, secret", "", "Blue!"]


def test_a_thought_that_never_ends_is_a_failure_with_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(
        tmp_path / "t.gguf", ["<think>", "on", " and"], loop_from=1, template=THINKING, marks=MARKS
    )
    done = ask(capsys, model, "-n", "20")
    assert (done.exit_code, done) == (1, "")
    assert "error: the thought did not end within 20 tokens" in done.stderr
    assert "--think-budget" in done.stderr


def test_a_budget_closes_a_thought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(
        tmp_path / "t.gguf",
        ["<think>", "on ", "and "],
        loop_from=1,
        template=THINKING,
        marks=MARKS,
        after={"</think>\n\n": "Enough."},
    )
    found = as_object(ask(capsys, model, "--think-budget", "6", "--json"))
    assert found["text"] == "Enough."
    assert found["reasoning"].startswith("on and on")
    assert found["finish_reason"] == "stop"


def test_a_schema_is_for_the_answer_after_the_thought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(
        tmp_path / "t.gguf", ["<think>", "Hm {", "</think>"], template=THINKING, marks=MARKS, after={": ": "4}"}
    )
    found = as_object(ask(capsys, model, "--schema", "n int", "--json", "-n", "60"))
    assert isinstance(json.loads(found["text"])["n"], int)
    assert found["reasoning"] == "Hm {"


def test_a_choice_is_scored_after_the_thought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(
        tmp_path / "t.gguf",
        ["<think>", "Hm", "</think>"],
        template=THINKING,
        marks=MARKS,
        after={"</think>\n\n": [{"a": 0.75, "b": 0.25}]},
    )
    found = as_object(ask(capsys, model, "--choice", "a,b", "--json"))
    assert (found["text"], found["reasoning"]) == ("a", "Hm")
    assert [choice["probability"] for choice in found["choices"]] == pytest.approx([0.75, 0.25], abs=1e-4)


def test_labels_of_more_than_one_byte_are_scored_after_a_thought(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_scripted_gguf(
        tmp_path / "t.gguf",
        ["<think>", "Hm", "</think>"],
        template=THINKING,
        marks=MARKS,
        after={"</think>\n\n": [{"byte 195": 0.9, "a": 0.1}, {"byte 169": 0.8, "byte 160": 0.2}]},
    )
    found = as_object(ask(capsys, model, "--choice", "é,à", "--json"))
    assert (found["text"], found["reasoning"]) == ("é", "Hm")
    assert [choice["probability"] for choice in found["choices"]] == pytest.approx([0.8, 0.2], abs=1e-3)


def test_a_prompt_that_opens_a_thought_is_enough_to_keep_it_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The template names the opening mark only."""
    turns = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    opens = turns + "<|im_start|>assistant\n<think>\n"
    model = write_scripted_gguf(
        tmp_path / "t.gguf", ["hm", " secret", "</think>", "\n\n", "Blue"], template=opens, marks=MARKS
    )
    assert ask(capsys, model) == "Blue\n"
    silent = write_scripted_gguf(tmp_path / "s.gguf", ["hm", " secret"], template=opens, marks=MARKS)
    done = ask(capsys, silent)
    assert (done, done.exit_code) == ("", 0)
    assert "warning: the model ended its turn after a thought, without an answer" in done.stderr


def test_a_base_model_with_marks_in_its_vocabulary_keeps_its_thought_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_scripted_gguf(tmp_path / "t.gguf", THOUGHT, template=None, marks=MARKS)
    assert ask(capsys, model) == "Blue!\n"


def test_an_answer_without_visible_text_is_no_thought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", ["\n", "Hi"])
    for more in (["-n", "1"], ["-n", "1", "--raw"]):
        done = ask(capsys, model, *more)
        assert (done.exit_code, done.strip(), done.stderr) == (0, "", "")


def test_a_thought_that_has_only_been_opened_is_no_answer(thinker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ask(capsys, thinker, "-n", "1")
    assert (done.exit_code, done) == (1, "")
    assert "error: the thought did not end within 1 tokens" in done.stderr


# -- shapes ------------------------------------------------------------------------------------------------------------


def test_choices_have_their_probabilities(colours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(Path("abc.gguf"), [{"r": 0.7, "b": 0.2, "g": 0.1}])
    found = as_object(ask(capsys, model, "--choice", "b,r,g", "--json"))
    assert found["text"] == "r"
    assert {each["text"]: each["probability"] for each in found["choices"]} == pytest.approx(
        {"b": 0.2, "r": 0.7, "g": 0.1}, abs=1e-4
    )
    assert ask(capsys, model, "--choice", "b,g") == "b\n"


def test_an_answer_that_is_cut_before_it_is_complete_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(Path("m.gguf"), ["7"], loop_from=0)
    done = ask(capsys, model, "--regex", "[0-9]{40}", "-n", "8")
    assert done.exit_code == 1
    assert done == "7" * 8 + "\n"
    assert "error: the answer was cut at 8 tokens, before it was complete" in done.stderr
    as_json = ask(capsys, model, "--regex", "[0-9]{40}", "-n", "8", "--json")
    assert (as_json.exit_code, as_json.json["finish_reason"], as_json.json["text"]) == (1, "length", "7" * 8)


def test_a_grammar_of_either_kind(capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(Path("m.gguf"), "no")
    Path("g.gbnf").write_text('root ::= "yes" | "maybe"\n')
    assert ask(capsys, model, "--grammar", "g.gbnf").strip() in ("yes", "maybe")
    Path("g.lark").write_text('start: "yes" | "maybe"\n')
    assert ask(capsys, model, "--grammar", "g.lark").strip() in ("yes", "maybe")


def test_the_answer_begins_as_told(capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(Path("m.gguf"), "Hm", after={"Sure: ": "blue"})
    assert ask(capsys, model, "--answer-prefix", "Sure: ") == "Sure: blue\n"


def test_extract_prints_the_code_alone(capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(Path("m.gguf"), "Here:\n```python\nx = 1\n```\nDone.")
    assert ask(capsys, model, "--extract") == "x = 1\n"
    assert as_object(ask(capsys, model, "--extract", "--json"))["code"] == "x = 1\n"
    without = write_scripted_gguf(Path("w.gguf"), "None.")
    done = ask(capsys, without, "--extract")
    assert (done.exit_code, done) == (1, "")
    assert done.stderr == "error: the answer has no fenced code block\nNone.\n"


def test_logprobs_are_those_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(Path("m.gguf"), [{"r": 0.7, "b": 0.2, "g": 0.1}])
    found = as_object(ask(capsys, model, "--json", "--logprobs", "2"))["logprobs"]
    assert found[0]["token"] == "r"
    assert found[0]["logprob"] == pytest.approx(-0.3567, abs=1e-3)
    assert [each["token"] for each in found[0]["top_logprobs"]] == ["r", "b"]
    assert bytes(found[0]["bytes"]) == b"r"


def test_drafts_are_a_list_with_seeds_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(Path("m.gguf"), [{"r": 0.4, "b": 0.3, "g": 0.3}])
    found = as_object(run_here(capsys, "run", model, "Why?", "--drafts", "6", "--seed", "5", "--temp", "1", "--json"))
    assert [each["sampling"]["seed"] for each in found] == [5, 6, 7, 8, 9, 10]
    assert {each["text"] for each in found} <= {"r", "b", "g"}
    assert len({each["text"] for each in found}) > 1
    single = as_object(run_here(capsys, "run", model, "Why?", "--seed", "7", "--temp", "1", "--json"))
    assert single["text"] == found[2]["text"]
    text = run_here(capsys, "run", model, "Why?", "--drafts", "2", "--seed", "5", "--temp", "1")
    assert text.split("---\n") == [found[0]["text"] + "\n", found[1]["text"] + "\n"]


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--schema", '{"type": "strin"}'], 2, "strin"),
        (["--schema", "n int", "--choice", "a,b"], 2, "an answer has one shape, not two: --schema and --choice"),
        (["--regex", "("], 2, "the regex cannot be used"),
        (["--grammar", "none.gbnf"], 3, "no such grammar: none.gbnf"),
        (["--grammar", "bad.gbnf"], 2, "line 2"),
        (["--choice", "a,a"], 2, "a"),
        (["--choice", "a,b", "--answer-prefix", "x"], 2, "--answer-prefix has no place"),
        (["--regex", "[0-9]+", "--answer-prefix", "x"], 2, "cannot begin"),
        (["--schema", "n int", "--stop", "x"], 2, "an answer of a given shape ends by itself"),
        (["--choice", "a,b", "--drafts", "2"], 2, "--choice is scored, not drawn"),
        (["--seed", "4294967295"], 2, "--seed must be between 0 and 4294967294"),
        (["--logprobs", "2"], 2, "--logprobs has a place in JSON only"),
        (["--extract", "--schema", "n int"], 2, "--extract"),
        (["--think", "loud"], 2, "--think must be one of show, hide, only, off: loud"),
        (["--think", "off", "--think-budget", "3"], 2, "--think off leaves no thought"),
        (["--raw", "--think", "show"], 2, "--raw sends no template"),
        (["--prompt-template", "none"], 3, "none"),
        (["--var", "a=b"], 2, "--var fills a saved prompt"),
        (["--overflow", "cut"], 2, "--overflow must be error, head, tail or middle: cut"),
        (["--chunk", "Sum up"], 2, "--chunk has nothing to read in parts"),
        (["--lora", "none.gguf"], 3, "no such adapter: none.gguf"),
        (["-f", "none.txt"], 3, "none.txt"),
    ],
)
def test_a_mistake_is_one_sentence(
    args: list[str], code: int, says: str, colours: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.gbnf").write_text('root ::= "a"\nx ::= (\n')
    done = ask(capsys, colours, *args)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.exit_code, len(errors)) == (code, 1), done.stderr
    assert says in errors[0]
    assert done == ""


def test_the_last_turn_of_a_conversation_is_never_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Hm", after={"LAST<|im_end|>\n<|im_start|>assistant\n": "Seen."})
    turns = [
        {"role": "user", "content": "word " * 200},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "LAST"},
    ]
    Path("chat.json").write_text(json.dumps(turns))
    for mode in ("head", "tail", "middle"):
        done = run_here(capsys, "run", model, "--messages", "chat.json", "--overflow", mode, "--temp", "0", "-n", "6")
        assert (done.exit_code, done) == (0, "Seen.\n"), done.stderr
        assert "of the conversation" in done.stderr


def test_a_choice_has_room_for_its_label_when_material_is_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", [{"r": 0.7, "b": 0.3}])
    Path("long.txt").write_text("word " * 400)
    done = ask(capsys, model, "-f", "long.txt", "--choice", "blue and green,r", "--overflow", "tail")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith("dropped ")


# -- the process -------------------------------------------------------------------------------------------------------


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "line\n", loop_from=0)
    command = f"{sys.executable} -m owm run {model} hi --temp 0 -n 400 -t 1 | head -1"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("line\n", "")


def test_a_reader_of_stderr_that_leaves_costs_no_answer(tmp_path: Path) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Blue.")
    command = f"{sys.executable} -m owm run {model} hi --temp 0 -c 9999 -t 1 --stats 2>&-"
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("Blue.\n", 0)
    full = command.replace("2>&-", "2>/dev/full")
    done = subprocess.run(["bash", "-c", full], env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("Blue.\n", 0)


def test_answers_are_logged_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Blue.")
    assert ask(capsys, model).exit_code == 0
    assert run_here(capsys, "logs", "--json").json == []
    assert ask(capsys, model, "--log", "--system", "Be brief").exit_code == 0
    (entry,) = run_here(capsys, "logs", "--json").json
    assert (entry["answer"], entry["system"], entry["finish_reason"]) == ("Blue.", "Be brief", "stop")
    assert entry["prompt"][-1] == {"role": "user", "content": "Why?"}
    assert entry["settings"]["temp"] == 0
    assert entry["model"] == str(model.resolve())


def test_settings_are_shown_with_their_origins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Blue.", metadata={"general.sampling.top_k": 7})
    assert run_here(capsys, "config", "set", model, "max_tokens=9").exit_code == 0
    done = run_here(capsys, "run", model, "--show-settings", "--temp", "0.5", "--json")
    rows = {row["name"]: (row["value"], row["origin"]) for row in done.json}
    assert rows["temp"] == (0.5, "--temp")
    assert rows["top_k"] == (7, "model file")
    assert rows["max_tokens"][0] == 9
    assert "config.toml" in rows["max_tokens"][1]
    assert rows["min_p"] == (0.05, "default")
    assert as_object(run_here(capsys, "run", model, "Why?", "--temp", "0", "--json"))["text"] == "Blue."


def test_a_model_that_thinks_reads_parts_and_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Mat.", n_ctx_train=512)
    text = tmp_path / "long.txt"
    text.write_text("The cat slept.\n" * 60)
    done = run_here(
        capsys, "run", model, "Where?", "-f", text, "--chunk", "Where did it sleep?", "--temp", "0", "-n", "20"
    )
    assert (done.exit_code, done) == (0, "Mat.\n"), done.stderr
    assert "reading" in done.stderr
    assert "parts" in done.stderr


@pytest.mark.slow
def test_32_runs_at_once_log_every_answer(tmp_path: Path) -> None:
    model = write_scripted_gguf(tmp_path / "m.gguf", "Blue.")
    script = (
        f'for i in $(seq 32); do {sys.executable} -m owm run {model} "n $i" --temp 0 -t 1 --log >/dev/null & done; wait'
    )
    done = subprocess.run(["bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=200)
    assert done.stderr == ""
    logged = run(["-m", "owm", "logs", "--json", "--last", "100"]).json
    assert sorted(entry["prompt"][-1]["content"] for entry in logged) == sorted(f"n {i}" for i in range(1, 33))
    assert os.stat(run(["-m", "owm", "logs", "path"]).strip()).st_mode & 0o777 == 0o600
