"""`owm batch` where something is there already: it goes on from it, or says why not."""

import io
import json
import os
from pathlib import Path

import pytest

from support.batches import batch, prompts, read_rows, write_rows
from support.run import run, run_here
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


def test_nothing_is_done_twice(model: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(3)), tmp_path / "out.jsonl"
    assert batch(capsys, source, output, model).exit_code == 0
    before, journal = output.stat(), (tmp_path / "out.jsonl.journal").read_bytes()
    content = output.read_bytes()

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("the model was loaded")

    with monkeypatch.context() as patch:
        patch.setattr("owm.cli.opening.open_model", never)
        again = batch(capsys, source, output, model)
        assert (again.exit_code, again) == (0, "")
        assert "nothing was left to do, 3 rows are done" in again.stderr
        assert (output.stat().st_ino, output.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert (tmp_path / "out.jsonl.journal").read_bytes() == journal
        output.unlink()
        assert batch(capsys, source, output, model).exit_code == 0
        assert output.read_bytes() == content
        assert batch(capsys, source, output, model, "--output-format", "csv").exit_code == 0
        assert output.read_text("utf-8").startswith("id,answer")
        write_rows(source, prompts(3)[1:])
        assert batch(capsys, source, output, model).exit_code == 0
        assert output.read_bytes() == b"".join(content.splitlines(keepends=True)[1:])


def test_only_what_is_new_changed_or_failed_is_answered(model: str, tmp_path: Path, capsys: Capture) -> None:
    rows = prompts(4)
    rows[3]["prompt"] = ""
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert batch(capsys, source, output, model).exit_code == 1
    first = read_rows(output)
    rows = [*rows[1:], {"id": "new", "prompt": "the"}]
    rows[0] = {**rows[0], "prompt": "the tin, changed"}
    rows[2] = {**rows[2], "prompt": "no longer empty"}
    write_rows(source, rows)
    done = batch(capsys, source, output, model, "--json")
    assert done.exit_code == 0
    assert (done.json["rows"], done.json["failed"]) == (4, 0)
    part = done.json["models"][0]
    assert (part["answered"], part["failed"], part["answered_before"]) == (3, 0, 3)
    second = read_rows(output)
    assert [row["id"] for row in second] == ["row 1", "row 2", "row 3", "new"]
    assert second[0]["text"] != first[1]["text"]
    assert second[1] == first[2]


@pytest.mark.parametrize(
    ("args", "difference"),
    [
        (["--temp", "1"], "temp was 0, now 1"),
        (["--max-tokens", "9"], "max_tokens was 6, now 9"),
        (["--system", "be"], 'system was not set, now "be"'),
        (["--prompt", "on {prompt}"], 'prompt was not set, now "on {prompt}"'),
        (["--seed", "5"], "the seed was 4, now 5"),
        (["--choice", "a,b"], "choice was not set, now"),
        (["--stop", "x"], 'stop was not set, now ["x"]'),
        (["--deterministic"], "deterministic was not set, now true"),
    ],
)
def test_other_settings_are_refused_by_name(
    model: str, tmp_path: Path, capsys: Capture, args: list[str], difference: str
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(1)), tmp_path / "out.jsonl"
    few = ["-t", "1", "--temp", "0", "--max-tokens", "6", "--seed", "4"]
    before = run_here(capsys, "batch", source, "-m", model, "-o", output, *few)
    assert before.exit_code == 0
    content = output.read_bytes()
    done = run_here(capsys, "batch", source, "-m", model, "-o", output, *few, *args)
    assert done.exit_code == 2
    assert f"the answers so far are from another run: {difference}" in done.stderr
    assert "`--restart` begins anew, `--append` keeps" in done.stderr
    assert output.read_bytes() == content


def test_another_model_may_be_refused_appended_or_begun_anew_with(
    model: str, other: str, tmp_path: Path, capsys: Capture
) -> None:
    path = Path(tmp_path / "tiny.gguf")
    path.write_bytes(Path(model).read_bytes())
    source, output = write_rows(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    assert batch(capsys, source, output, str(path)).exit_code == 0
    first = read_rows(output)
    path.write_bytes(Path(other).read_bytes())
    write_rows(source, prompts(3))
    refused = batch(capsys, source, output, str(path))
    assert refused.exit_code == 2
    assert "the model was tiny.gguf (sha256 " in refused.stderr
    appended = batch(capsys, source, output, str(path), "--append")
    assert appended.exit_code == 0
    second = read_rows(output)
    assert second[:2] == first
    assert len(second) == 3
    assert batch(capsys, source, output, str(path)).exit_code == 0, "that is the run which goes on now"
    assert batch(capsys, source, output, str(path), "--restart").exit_code == 0
    third = read_rows(output)
    assert third[2] == second[2]
    assert all(row["text"] != was["text"] for row, was in zip(third[:2], first, strict=True))
    assert batch(capsys, source, output, str(path), "--restart", "--append").exit_code == 2


def test_what_another_model_answered_stays_in_the_output(
    model: str, other: str, tmp_path: Path, capsys: Capture
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    assert batch(capsys, source, output, model).exit_code == 0
    first = read_rows(output)
    write_rows(source, prompts(3))
    assert batch(capsys, source, output, other).exit_code == 2
    assert batch(capsys, source, output, other, "--append").exit_code == 0
    second = read_rows(output)
    assert second[:2] == first
    assert [row["model"] for row in second] == ["tiny.gguf", "tiny.gguf", "other.gguf"]
    again = batch(capsys, source, output, other)
    assert (again.exit_code, read_rows(output)) == (0, second)
    assert "nothing was left to do, 3 rows are done" in again.stderr


def test_an_answer_without_its_whole_shape_is_one_the_second_time_too(
    model: str, tmp_path: Path, capsys: Capture
) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    for _ in range(2):
        done = batch(capsys, source, output, model, "--regex", "[a-z]{50}")
        assert done.exit_code == 1
        assert "2 answers were cut at --max-tokens, before the shape was complete" in done.stderr
    assert "is_cut" not in output.read_text()


def test_what_a_killed_run_left_half_written_goes(model: str, tmp_path: Path, capsys: Capture) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.incomplete").write_text("half")
    assert batch(capsys, source, output, model).exit_code == 0
    assert not list(tmp_path.glob("*incomplete"))
    assert len(read_rows(output)) == 2


def test_a_field_that_only_the_last_row_has_is_a_column(model: str, tmp_path: Path, capsys: Capture) -> None:
    rows: list[dict[str, object]] = [*prompts(280, max_tokens=1), {"id": "last", "prompt": "tin", "topic": "late"}]
    source, output = write_rows(tmp_path / "in.jsonl", rows), tmp_path / "out.csv"
    assert batch(capsys, source, output, model).exit_code == 0
    header, *lines = output.read_text("utf-8").splitlines()
    assert header == "id,topic,answer,finish_reason,error"
    assert (len(lines), lines[-1].split(",")[:2]) == (281, ["last", "late"])
    to_stdout = ["batch", "-m", model, "--output-format", "csv", "-n", "1", "--ignore-eos", "-t", "1"]
    assert run_here(capsys, *to_stdout, source).splitlines()[0] == header
    refused = run(["-m", "owm", *to_stdout, "-"])
    assert (refused.exit_code, refused) == (2, "")
    assert "the columns of a table have to be known before its first row" in refused.stderr


def test_the_seed_of_the_environment_is_the_run_s(
    model: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "in.jsonl", prompts(3, temp=2))
    monkeypatch.setenv("OWM_SEED", "5")
    outputs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for output in outputs:
        assert batch(capsys, source, output, model, "-np", "1").exit_code == 0
    assert read_rows(outputs[0]) == read_rows(outputs[1])


def test_a_run_that_answered_nothing_binds_nobody(model: str, other: str, tmp_path: Path, capsys: Capture) -> None:
    """Else the next run, which did answer, would be taken for one of the first's settings when it goes on."""
    source, output = write_rows(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    (tmp_path / "in.txt").write_text("")
    assert (
        run_here(capsys, "batch", tmp_path / "in.txt", "-m", other, "-o", output, "--temp", "1", "-t", "1").exit_code
        == 0
    )
    assert batch(capsys, source, output, model).exit_code == 0
    write_rows(source, prompts(3))
    done = batch(capsys, source, output, model)
    assert done.exit_code == 0, done.stderr
    assert len(read_rows(output)) == 3


def test_a_lost_manifest_is_made_again_from_what_is_asked_now(model: str, tmp_path: Path, capsys: Capture) -> None:
    source, output = write_rows(tmp_path / "in.jsonl", prompts(2)), tmp_path / "out.jsonl"
    manifest = tmp_path / "out.jsonl.manifest.json"
    assert batch(capsys, source, output, model).exit_code == 0
    manifest.unlink()
    write_rows(source, prompts(3))
    refused = batch(capsys, source, output, model, "--stop", "q")
    assert refused.exit_code == 2
    assert "the answers of tiny.gguf so far are from another run" in refused.stderr
    assert not manifest.exists()
    assert batch(capsys, source, output, model).exit_code == 0
    assert json.loads(manifest.read_text())["settings"]["max_tokens"] == 6
    assert len(read_rows(output)) == 3


def test_what_is_there_is_not_written_over(model: str, tmp_path: Path, capsys: Capture) -> None:
    source = write_rows(tmp_path / "in.jsonl", prompts(1))
    output = tmp_path / "mine.jsonl"
    output.write_text("precious")
    done = batch(capsys, source, output, model)
    assert (done.exit_code, output.read_text()) == (2, "precious")
    assert "is there already, and no journal beside it" in done.stderr
    assert batch(capsys, source, output, model, "--restart").exit_code == 0
    content = source.read_bytes()
    os.symlink(source, tmp_path / "link.jsonl")
    for name in ("in.jsonl", "link.jsonl"):
        for flag in ("-o", "--errors"):
            place = ["-o", tmp_path / "x.jsonl", "--errors"] if flag == "--errors" else ["-o"]
            same = run_here(capsys, "batch", source, "-m", model, *place, tmp_path / name)
            assert same.exit_code == 2
            assert "the input" in same.stderr
            assert "are one file" in same.stderr
    to_stdout = run_here(capsys, "batch", source, "-m", model, "--errors", source)
    assert to_stdout.exit_code == 2
    beside = batch(capsys, source, output, model, "--errors", str(tmp_path / "mine.jsonl.journal"))
    assert beside.exit_code == 2
    assert source.read_bytes() == content
    assert len(read_rows(output)) == 1
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "none" / "x.jsonl", "no such folder")):
        wrong = batch(capsys, source, path, model)
        assert wrong.exit_code == 2
        assert said in wrong.stderr
