"""`owm batch` as a person uses it: rows of every form in, answers of every form out, the same at every width."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from support.batches import FEW, batch, prompts, read_rows, write_rows
from support.run import environment, run, run_here
from support.tiny_gguf import write_tiny_gguf

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_gguf(tmp_path_factory.mktemp("models") / "other.gguf", seed=1))


def _answers(capsys: Capture, tmp_path: Path, model: str, rows: Iterable[object], *args: str) -> list[dict[str, Any]]:
    output = tmp_path / "answers.jsonl"
    batch(capsys, write_rows(tmp_path / "rows.jsonl", rows), output, model, "--restart", *args)
    return read_rows(output)


# -- forms -----------------------------------------------------------------------------------------------------------


def test_rows_are_answered_in_their_order_and_carry_what_was_beside_them(
    model: str, tmp_path: Path, capsys: Capture
) -> None:
    rows = [{"id": i, "prompt": "the tin " * (1 + i % 3), "tags": [i], "text": "mine"} for i in range(7)]
    answers = _answers(capsys, tmp_path, model, rows)
    assert [(row["id"], row["tags"], row["input_text"]) for row in answers] == [(i, [i], "mine") for i in range(7)]
    assert all(row["usage"]["completion_tokens"] == 6 and row["finish_reason"] == "length" for row in answers)
    alone = run_here(capsys, "run", model, "the tin the tin ", "--json", *FEW[:-4]).json
    assert answers[1]["text"] == alone["text"]
    assert answers[1]["usage"] == alone["usage"]


@pytest.mark.parametrize(
    ("name", "content", "args"),
    [
        ("in.jsonl", '{"prompt": "the tin 1"}\n{"prompt": "the tin 2"}\n', []),
        ("in.jsonl", '{"messages": [{"role": "user", "content": "the tin 1"}]}\n\n{"prompt": "the tin 2"}', []),
        ("in.jsonl", '{"n": 1}\n{"n": 2}\n', ["--prompt", "the tin {n}"]),
        ("in.csv", "n,what\r\n1,tin\r\n2,tin\r\n", ["--prompt", "the {what} {n}"]),
        ("in.csv", 'prompt\n"the tin 1"\nthe tin 2\n', []),
        ("in.tsv", "n\twhat\n1\ttin\n2\ttin\n", ["--prompt", "the {what} {n}"]),
        ("in.txt", "the tin 1\nthe tin 2\n", []),
        ("in", "the tin 1\nthe tin 2", []),
        ("in", "tin 1\ntin 2", ["--prompt", "the {line}"]),
        ("in.odd", "n,what\n1,tin\n2,tin\n", ["--input-format", "csv", "--prompt", "the {what} {n}"]),
    ],
)
def test_every_form_of_input_asks_the_same(
    model: str, tmp_path: Path, capsys: Capture, name: str, content: str, args: list[str]
) -> None:
    expected = [row["text"] for row in _answers(capsys, tmp_path, model, [{"prompt": f"the tin {i}"} for i in (1, 2)])]
    (tmp_path / name).write_bytes(content.encode())
    output = tmp_path / "out.jsonl"
    done = batch(capsys, tmp_path / name, output, model, *args)
    assert done.exit_code == 0, done.stderr
    assert [row["text"] for row in read_rows(output)] == expected


def test_every_form_of_output_says_the_same(model: str, tmp_path: Path, capsys: Capture) -> None:
    source = write_rows(tmp_path / "in.jsonl", [{"id": "a", "prompt": "the tin", "x": 1}, {"id": "b", "prompt": ""}])
    outputs = {}
    for name, args in {
        "out.jsonl": [], "out.csv": [], "out.tsv": [], "out.txt": [], "out.odd": [],
        "openai.jsonl": ["--output-format", "openai"],
    }.items():  # fmt: skip
        done = batch(capsys, source, tmp_path / name, model, *args)
        assert done.exit_code == 1, "one of the rows has no prompt"
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            outputs[name] = file.read()
    plain, failed = map(json.loads, outputs["out.jsonl"].splitlines())
    text = plain["text"]
    assert failed == {"id": "b", "error": {"code": "invalid_row", "message": "prompt is empty"}}
    assert outputs["out.odd"] == outputs["out.jsonl"]
    for name, delimiter in (("out.csv", ","), ("out.tsv", "\t")):
        assert list(csv.reader(io.StringIO(outputs[name], newline=""), delimiter=delimiter)) == [
            ["id", "x", "answer", "finish_reason", "error"],
            ["a", "1", text, "length", ""],
            ["b", "", "", "", "prompt is empty"],
        ]
    assert outputs["out.txt"] == text.replace("\n", "\\n").replace("\r", "\\r") + "\n\n"
    first, second = map(json.loads, outputs["openai.jsonl"].splitlines())
    assert first["response"]["body"]["choices"][0]["message"]["content"] == text
    assert second["error"] == {"code": "invalid_row", "message": "prompt is empty"}


def test_rows_of_openai_s_form_are_answered_in_it(model: str, tmp_path: Path, capsys: Capture) -> None:
    def row(name: str, url: str, **body: Any) -> dict[str, Any]:
        return {"custom_id": name, "method": "POST", "url": url, "body": {"model": "gpt", **body}}

    turns = [{"role": "system", "content": "the"}, {"role": "user", "content": "tin"}]
    rows = [
        row("chat", "/v1/chat/completions", messages=turns, max_tokens=3),
        row("text", "/v1/completions", prompt="the tin", max_tokens=4),
        row("no", "/v1/embeddings", input="the"),
    ]
    chat, text, refused = _answers(capsys, tmp_path, model, rows)
    assert (chat["custom_id"], chat["response"]["status_code"], chat["error"]) == ("chat", 200, None)
    assert chat["response"]["body"]["usage"]["completion_tokens"] == 3
    plain = _answers(capsys, tmp_path, model, [{"prompt": "tin", "system": "the"}])[0]
    assert plain["text"].startswith(chat["response"]["body"]["choices"][0]["message"]["content"].rstrip("�"))
    raw = run_here(capsys, "run", model, "the tin", "--raw", "--json", "-n", "4", "--temp", "0", "--ignore-eos").json
    assert text["response"]["body"]["choices"][0]["text"] == raw["text"]
    assert (refused["custom_id"], refused["response"], refused["error"]["code"]) == ("no", None, "unsupported")


def test_a_row_has_its_own_settings(model: str, tmp_path: Path, capsys: Capture) -> None:
    rows = [
        {"id": "plain", "prompt": "the"},
        {"id": "short", "prompt": "the", "max_tokens": 2},
        {"id": "hot", "prompt": "the", "temp": 5, "seed": 11},
        {"id": "choice", "prompt": "the", "choice": ["tin", "ton"]},
        {"id": "schema", "prompt": "the", "schema": {"const": 5}},
        {"id": "system", "prompt": "the", "system": "tin " * 9},
    ]
    found = {row["id"]: row for row in _answers(capsys, tmp_path, model, rows)}
    assert found["short"]["usage"]["completion_tokens"] == 2
    assert (found["hot"]["seed"], found["plain"].get("seed")) == (11, None)
    args = ["run", model, "the", "--json", "-n", "6", "--ignore-eos"]
    assert found["hot"]["text"] == run_here(capsys, *args, "--temp", "5", "--seed", "11").json["text"]
    assert found["choice"]["text"] in ("tin", "ton")
    assert found["schema"]["text"] == "5"
    alone = run_here(capsys, *args, "--temp", "0", "--system", "tin " * 9).json
    assert found["system"]["text"] == alone["text"]
    assert found["system"]["usage"]["prompt_tokens"] > found["plain"]["usage"]["prompt_tokens"]


def test_the_system_prompt_is_the_row_s_the_flag_s_or_the_configured_one(
    model: str, tmp_path: Path, capsys: Capture
) -> None:
    rows = [{"prompt": "the"}, {"prompt": "the", "system": "a b c d e f g h"}]

    def n_prompt(*args: str) -> list[int]:
        return [row["usage"]["prompt_tokens"] for row in _answers(capsys, tmp_path, model, rows, *args)]

    bare, own = n_prompt()
    assert n_prompt("--system", "a b") == [own - 12, own]
    assert run_here(capsys, "config", "set", "system=a b").exit_code == 0
    assert n_prompt() == [own - 12, own]
    assert n_prompt("--system", "")[0] <= own - 12
    assert bare < own - 12
    assert run_here(capsys, "batch", tmp_path / "rows.jsonl", "-m", model, "--raw", "--system", "a").exit_code == 2
    raw = _answers(capsys, tmp_path, model, rows[:1], "--raw")
    assert raw[0]["usage"]["prompt_tokens"] == 1


def test_several_models_answer_side_by_side(model: str, other: str, tmp_path: Path, capsys: Capture) -> None:
    source = write_rows(tmp_path / "in.jsonl", prompts(3, max_tokens=4))
    assert batch(capsys, source, tmp_path / "out.jsonl", model, "-m", other).exit_code == 0
    assert batch(capsys, source, tmp_path / "out.csv", model, "-m", other).exit_code == 0
    assert batch(capsys, source, tmp_path / "alone.jsonl", other).exit_code == 0
    both, alone = read_rows(tmp_path / "out.jsonl"), read_rows(tmp_path / "alone.jsonl")
    assert [list(row["answers"]) for row in both] == [["tiny.gguf", "other.gguf"]] * 3
    assert [row["answers"]["other.gguf"]["text"] for row in both] == [row["text"] for row in alone]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["other.gguf"] for row in table] == [row["text"] for row in alone]
    assert [row["tiny.gguf"] for row in table] == [row["answers"]["tiny.gguf"]["text"] for row in both]
    again = batch(capsys, source, tmp_path / "twice.jsonl", model, "-m", model)
    assert (again.exit_code, again.stderr.count("is the same model as one before it")) == (2, 1)


def _shell(command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command.replace("owm", f"{sys.executable} -m owm")],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_rows_of_a_pipe_are_answered_whole(model: str, other: str, tmp_path: Path) -> None:
    """A pipe can be read only once: neither to look what it is, nor for a second model."""
    write_rows(tmp_path / "in.jsonl", prompts(3))
    few = " ".join(FEW)
    streamed = _shell(f"cat in.jsonl | owm batch - -m {model} {few} -o -", tmp_path)
    assert streamed.returncode == 0, streamed.stderr
    assert [json.loads(line)["id"] for line in streamed.stdout.splitlines()] == ["row 0", "row 1", "row 2"]
    named = _shell(f"owm batch <(cat in.jsonl) -m {model} -o named.jsonl {few}", tmp_path)
    assert named.returncode == 0, named.stderr
    assert (tmp_path / "named.jsonl").read_text("utf-8") == streamed.stdout
    several = _shell(f"cat in.jsonl | owm batch - -m {model} -m {other} -o both.jsonl", tmp_path)
    assert several.returncode == 2
    assert "each model reads the rows anew, and stdin can be read only once" in several.stderr
    assert not list(tmp_path.glob("both*"))


# -- the same answers ------------------------------------------------------------------------------------------------


def test_every_width_gives_the_same_greedy_answers(model: str, tmp_path: Path, capsys: Capture) -> None:
    rows = [{"id": i, "prompt": "the tin on " * (i % 4) + str(i)} for i in range(9)]
    source = write_rows(tmp_path / "in.jsonl", rows)
    found = []
    for width in (["-np", "1"], ["-np", "2"], ["-np", "7"], ["-np", "1", "--deterministic"], ["-np", "auto"]):
        output = tmp_path / f"{'-'.join(width)}.jsonl"
        done = run_here(
            capsys,
            "batch",
            source,
            "-m",
            model,
            "-o",
            output,
            "-t",
            "1",
            "--temp",
            "0",
            "-n",
            "24",
            "--ignore-eos",
            *width,
        )
        assert done.exit_code == 0, done.stderr
        found.append([row["text"] for row in read_rows(output)])
    assert found == [found[0]] * 5
    assert len(set(found[0])) == 9


def test_a_drawn_answer_depends_on_its_row_alone(model: str, tmp_path: Path, capsys: Capture) -> None:
    rows = prompts(6, temp=2)
    drawn = ["--deterministic", "--seed", "3"]

    def answers(rows: list[dict[str, Any]], *args: str) -> dict[str, dict[str, Any]]:
        args = (
            "batch",
            str(write_rows(tmp_path / "rows.jsonl", rows)),
            "-m",
            model,
            "-t",
            "1",
            "-n",
            "6",
            "--ignore-eos",
            *args,
        )
        return {row["id"]: row for row in map(json.loads, run_here(capsys, *args).splitlines())}

    whole = answers(rows, *drawn)
    assert len({row["text"] for row in whole.values()}) > 1
    assert answers(rows[::-1], *drawn) == whole
    assert answers(rows[2:4], *drawn) == {name: whole[name] for name in ("row 2", "row 3")}
    other = answers(rows, "--deterministic", "--seed", "4")
    assert all(other[name]["seed"] != whole[name]["seed"] for name in whole)
    seed = str(whole["row 1"]["seed"])
    args = ["run", model, rows[1]["prompt"], "--seed", seed, "--temp", "2", "-n", "6", "--ignore-eos", "--json"]
    assert run_here(capsys, *args).json["text"] == whole["row 1"]["text"]


def test_the_order_of_done_has_all_rows_too(model: str, tmp_path: Path, capsys: Capture) -> None:
    rows = [{"id": i, "prompt": "the", "max_tokens": 40 if i == 0 else 1} for i in range(6)]
    for args in (["-o", str(tmp_path / "out.jsonl")], []):
        done = run_here(
            capsys, "batch", write_rows(tmp_path / "in.jsonl", rows), "-m", model, *FEW, "--order", "done", *args
        )
        text = (tmp_path / "out.jsonl").read_text() if args else str(done)
        ids = [json.loads(line)["id"] for line in text.splitlines()]
        assert sorted(ids) == list(range(6))
        assert ids[-1] == 0, "it takes longest"


def test_the_program_itself_answers_to_stdout_and_talks_to_stderr(model: str, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", prompts(2))
    done = run(["-m", "owm", "batch", source, "-m", model, *FEW])
    assert done.exit_code == 0
    assert [json.loads(line)["id"] for line in done.splitlines()] == ["row 0", "row 1"]
    assert done.stderr.startswith("MODEL")
    quiet = run(["-m", "owm", "batch", source, "-m", model, *FEW, "--quiet"])
    assert (quiet, quiet.stderr) == (done, "")
