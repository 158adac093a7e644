"""`owm bench`: what it says, what it writes in which form, what it keeps, and what it says has changed."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.bench import history
from owm.bench.record import LLAMA_BENCH_FIELDS, Record
from owm.hardware import probe
from support.run import environment, run_here
from support.tiny_gguf import write_tiny_gguf

FAST = ("-p", "8", "-n", "4", "-r", "2", "-t", "1")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf")


@pytest.fixture(autouse=True)
def known_machine(clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare each test the second in which the machine's rates are measured."""
    from owm.hardware import rates

    monkeypatch.setattr(rates, "rates", lambda *_, **__: rates.Rates(1e10, {"f16": 1e10, "f32": 1e10}, 1.0))


def kept() -> list[Record]:
    return history.read(note=lambda message: pytest.fail(message))


def test_it_says_what_it_measures_and_writes_llama_benchs_table_into_a_pipe(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_here(capsys, "bench", path, "-p", "8", "-n", "4", "-r", "1")
    assert found.exit_code == 0
    threads = probe.cores().usable
    assert found.stderr.splitlines()[0] == (
        f"measuring {path}: pp8, tg4 with {threads} thread{'s' * (threads > 1)} (performance cores), batch 2048,"
        " ubatch 512, flash attention auto, KV f16, as `owm run` would"
    )
    lines = found.splitlines()
    assert lines[0].startswith("| model ")
    assert re.search(r"\| +pp8 \| +[\d.]+ ± 0\.00 \|$", lines[2])
    assert lines[5].startswith("build: ")


def test_settings_from_elsewhere_are_used_and_named(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWM_THREADS", "1")
    monkeypatch.setenv("OWM_UBATCH_SIZE", "64")
    found = run_here(capsys, "bench", path, "-p", "8", "-n", "0", "-r", "1", "-fa", "on", "--json")
    assert "1 thread (OWM_THREADS), batch 2048, ubatch 64 (OWM_UBATCH_SIZE), flash attention on (--flash-attn)" in (
        found.stderr
    )
    assert "as `owm run` would" not in found.stderr
    [entry] = found.json
    assert (entry["n_threads"], entry["n_ubatch"], entry["flash_attn"]) == (1, 64, 1)
    assert entry["settings"]["threads"] == "OWM_THREADS"
    assert entry["settings"]["batch_size"] == "default"


def test_all_combinations_are_measured_and_kept(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_here(capsys, "bench", path, *FAST, "-ub", "8,16", "-d", "0,4", "-pg", "4,2", "-o", "jsonl")
    entries = [json.loads(line) for line in found.splitlines()]
    assert len(entries) == 12
    assert list(entries[0])[: len(LLAMA_BENCH_FIELDS)] == list(LLAMA_BENCH_FIELDS)
    assert [entry["test"] for entry in entries[:6]] == ["pp8", "tg4", "pp4+tg2", "pp8 @ d4", "tg4 @ d4", "pp4+tg2 @ d4"]
    assert kept() == [Record.of_members(entry) for entry in entries]
    assert len({record.run_id for record in kept()}) == 1


def test_every_form_is_written_and_nothing_else_goes_to_stdout(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begins = {"md": "| model", "csv": "build_commit,", "json": "[\n", "sql": "CREATE TABLE", "table": "model"}
    for form, begin in begins.items():
        found = run_here(capsys, "bench", path, *FAST, "-o", form, "--no-history", "--quiet")
        assert found.startswith(begin), form
        assert not found.stderr
    assert kept() == []


def test_memory_time_to_the_first_token_and_loading_are_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt, answer = run_here(capsys, "bench", path, *FAST, "--json").json
    assert prompt["ttft_seconds"] == pytest.approx(prompt["avg_ns"] / 1e9, rel=0.5)
    assert answer["ttft_seconds"] is None
    assert prompt["load_seconds_warm"] > 0
    assert prompt["peak_memory_bytes"] > 10 << 20
    assert answer["gbps"] > 0
    assert answer["bandwidth_share"] == pytest.approx(answer["gbps"] / 10)
    assert answer["machine"]["fingerprint"]


def test_a_real_prompt_and_answers_side_by_side(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("What is the airspeed of a swallow?")
    entries = run_here(capsys, "bench", path, "-n", "3", "-r", "1", "-t", "1", "--prompt", prompt, "--json").json
    assert [entry["prompt_kind"] for entry in entries] == ["text", "text"]
    assert entries[0]["n_prompt"] == entries[1]["n_depth"] > 8
    entries = run_here(capsys, "bench", path, "-p", "0", "-n", "3", "-r", "1", "--parallel", "1,3", "--json").json
    assert [(entry["test"], entry["n_parallel"]) for entry in entries] == [("tg3", 1), ("tg3 × 3", 3)]


def test_bars_are_drawn_when_they_are_asked_for(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_here(capsys, "bench", path, *FAST, "--chart")
    bars = [line for line in found.splitlines() if "█" in line]
    assert len(bars) == 2
    assert len({bar.count("█") for bar in bars}) == 1  # prompts and answers have a scale each


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("-p", "x"), "--n-prompt takes numbers and ranges: x"),
        (("-p", "0", "-n", "0"), "there is nothing to measure"),
        (("-o", "xml"), "--output must be one of table, md"),
        (("--json", "-o", "sql"), "two forms"),
        (("-t", "513"), "--threads must be between 1 and 512"),
        (("-fa", "off", "-ctv", "q8_0"), "needs flash attention"),
        (("--fail-on-regression", "5%"), "needs something to compare with"),
        (("--compare", "last", "--fail-on-regression", "much"), "takes a share such as 5%"),
        (("--budget", "10s"), "--budget is the time for `--tune`"),
        (("--tune", "--budget", "inf"), "--budget must be from 5 s to a day: inf s"),
        (("--tune", "--budget", "nan"), "--budget must be from 5 s to a day: nan s"),
        (("--tune", "--compare", "last"), "--tune searches settings and writes no results, so --compare has no place"),
        (("--compare", "last", "--fail-on-regression", "0.05"), "say `5%` or `0.05%`"),
        (("--parallel", "2-257"), "--parallel must be 256 or less: 257"),
        (("--reference", "m"), "--reference is what quality is measured against"),
        (("--plot", "plot.pdf"), "a plot ends in .svg or .png"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(
    path: Path, args: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_here(capsys, "bench", path, *args)
    assert found.exit_code == 2
    assert message in found.stderr
    assert not found


def test_without_a_model_it_asks_for_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = run_here(capsys, "bench")
    assert (found.exit_code, found.stderr.splitlines()[0]) == (2, "error: which model is to be measured?")


@pytest.fixture
def short_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from owm.quality import texts

    words = tmp_path / "words.txt"
    words.write_text("the inner ton at on thread in a " * 300)
    text = texts.read(words)
    monkeypatch.setattr(texts, "bundled", lambda: text)


@pytest.mark.usefixtures("short_text")
def test_quality_stands_beside_speed_and_is_drawn(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tiny_gguf(tmp_path / "other.gguf", seed=1)
    args = ("bench", path, other, *FAST, "--quality", "--reference", path)
    entries = run_here(capsys, *args, "--plot", tmp_path / "plot.svg", "--json").json
    assert [entry["kld"] == 0 for entry in entries] == [True, True, False, False]
    assert all(entry["perplexity"] > 1 and entry["quality_reference"] == str(path) for entry in entries)
    assert kept() == [Record.of_members(entry) for entry in entries]
    assert (tmp_path / "plot.svg").read_text().startswith("<?xml")
    found = run_here(capsys, *args, "-o", "md")
    assert found.splitlines()[0].endswith("|                KLD |      PPL |   top-1 |")
    assert "|          reference |" in found.splitlines()[2]
    found = run_here(capsys, *args, "-o", "table")
    assert "top-1" in found.splitlines()[0]
    assert f"KLD and top-1 are against {path}" in found.stderr


@pytest.mark.usefixtures("short_text")
def test_speeds_are_not_lost_where_quality_cannot_be_measured(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_tiny_gguf(tmp_path / "other.gguf", metadata={"tokenizer.ggml.pre": "gpt-2"})
    found = run_here(capsys, "bench", other, *FAST, "--quality", "--reference", path, "--json")
    assert found.exit_code == 0
    assert [entry["perplexity"] for entry in found.json] == [None, None]
    assert f"warning: no quality of {other}: {path} has another vocabulary" in found.stderr


def test_after_ctrl_c_what_was_measured_is_written_and_kept_as_partial(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from owm.bench import rounds

    measure, n_done = rounds._Shelf.measure, 0

    def pressed(shelf: rounds._Shelf, measured: rounds.Measured) -> None:
        nonlocal n_done
        if n_done == 3:
            raise KeyboardInterrupt
        measure(shelf, measured)
        n_done += 1

    monkeypatch.setattr(rounds._Shelf, "measure", pressed)
    found = run_here(capsys, "bench", path, *FAST, "--json")
    assert found.exit_code == 130
    assert [(entry["test"], len(entry["samples_ts"]), entry["is_partial"]) for entry in found.json] == [
        ("pp8", 2, True),
        ("tg4", 1, True),
    ]
    assert kept() == [Record.of_members(entry) for entry in found.json]
    assert "interrupted: 2 results of 1 to 2 repetitions are written, and kept as partial" in found.stderr


def test_after_an_error_what_was_measured_is_written_kept_and_the_error_said(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from owm.bench import rounds

    monkeypatch.setattr(rounds, "weights_room", lambda: 1)  # one model after the other
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(path.read_bytes()[:-4096])
    found = run_here(capsys, "bench", path, cut, *FAST, "--json")
    assert found.exit_code == run_here(capsys, "bench", cut, *FAST).exit_code != 0
    assert [(entry["test"], entry["is_partial"]) for entry in found.json] == [("pp8", True), ("tg4", True)]
    assert kept() == [Record.of_members(entry) for entry in found.json]
    assert "an error ended it: 2 results of 2 repetitions are written, and kept as partial" in found.stderr
    assert "it is truncated" in found.stderr


def test_a_context_that_has_no_room_in_memory_costs_no_other_result(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_here(capsys, "bench", path, "-p", "8,900000000", "-n", "0", "-r", "1", "-t", "1", "--json")
    assert found.exit_code == 6
    assert [entry["test"] for entry in found.json] == ["pp8"]
    assert re.search(r"error: pp900000000 needs [\d.]+ [GT]iB of memory for its context, ", found.stderr)


@pytest.mark.slow
def test_ctrl_c_ends_a_measurement_at_once(path: Path, tmp_path: Path) -> None:
    import signal
    import time

    args = [sys.executable, "-m", "owm", "bench", os.fspath(path), "-p", "0", "-n", "20,2000000", "-t", "1", "--json"]
    process = subprocess.Popen(args, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "of 10 parts" not in process.stderr.readline():  # the first of them is done
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 130, stderr
    assert [(entry["test"], entry["is_partial"]) for entry in json.loads(stdout)] == [("tg20", True)]
    assert "Traceback" not in stderr


def test_a_run_that_was_interrupted_is_compared_with_last_of_all(
    records: list[Record], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history.append(slower(records, 1e6, "whole", "2026-01-02"))
    history.append([replace(each, is_partial=True) for each in slower(records, 1e-6, "partial", "2026-01-03")])
    found = run_here(capsys, "bench", path, *FAST, "--compare", "last", "--json")
    assert {entry["verdict"] for entry in found.json} == {"slower"}


def test_where_a_file_stays_in_memory_no_cold_time_is_made_up(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from owm.hardware import resident

    monkeypatch.setattr(resident, "forget_files", lambda paths: False)
    found = run_here(capsys, "bench", path, *FAST, "-o", "json")
    assert [entry["load_seconds_cold"] for entry in found.json] == [None, None]
    assert "from memory, from disk not known: the system keeps the file in memory" in found.stderr


def slower(records: list[Record], ratio: float, run_id: str, day: str) -> list[Record]:
    """Records as they would be if everything had been so much slower, on another day."""
    return [
        replace(
            record,
            samples_ts=tuple(rate * ratio for rate in record.samples_ts),
            quick_ts=record.quick_ts * ratio,
            run_id=run_id,
            build_commit=run_id,
            test_time=f"{day}T12:00:00Z",
        )
        for record in records
    ]


def saved(tmp_path: Path, name: str, records: list[Record]) -> Path:
    path = tmp_path / name
    path.write_text(json.dumps([record.members() for record in records]))
    return path


@pytest.fixture
def records(path: Path, capsys: pytest.CaptureFixture[str]) -> list[Record]:
    """Results whose samples are all alike, so that they do not depend on what else this machine does."""
    entries = run_here(capsys, "bench", path, *FAST, "--json", "--no-history").json
    return [replace(Record.of_members(entry), samples_ts=(100.0, 100.5, 99.5), quick_ts=100.5) for entry in entries]


def test_two_files_are_compared_and_a_slowdown_fails(
    records: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = saved(tmp_path, "a.json", records)
    after = saved(tmp_path, "b.json", slower(records, 0.9, "b", "2026-01-02"))
    found = run_here(capsys, "bench", "--compare", before, after, "--fail-on-regression", "5%")
    assert found.exit_code == 1
    assert found.splitlines()[1].split()[-1] == "verdict"
    assert [line.split()[-1] for line in found.splitlines()[2:]] == ["slower", "slower"]
    assert "slower by 5 % or more: " in found.stderr
    assert run_here(capsys, "bench", "--compare", before, after, "--fail-on-regression", "20%").exit_code == 0
    assert run_here(capsys, "bench", "--compare", before, after).exit_code == 0
    back = run_here(capsys, "bench", "--compare", after, before, "--fail-on-regression", "5%", "--json")
    assert back.exit_code == 0
    assert [(entry["verdict"], round(entry["ratio"], 3)) for entry in back.json] == [("faster", 1.111)] * 2
    assert back.json[0]["low"] < back.json[0]["ratio"] < back.json[0]["high"]


def test_what_is_measured_is_compared_with_the_last_run_or_a_day(
    records: list[Record], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = run_here(capsys, "bench", path, *FAST, "--compare", "last", "--no-history")
    assert none.exit_code == 3
    assert "there is no earlier result to compare with" in none.stderr
    history.append(slower(records, 1e6, "long ago", "2026-01-02"))
    history.append(slower(records, 1e-6, "later", "2026-01-03"))
    found = run_here(capsys, "bench", path, *FAST, "--compare", "last", "--fail-on-regression", "5%", "--json")
    assert found.exit_code == 0
    assert {entry["verdict"] for entry in found.json} == {"faster"}
    found = run_here(capsys, "bench", path, *FAST, "--compare", "2026-01-02", "--fail-on-regression", "5%", "--json")
    assert found.exit_code == 1
    assert {entry["verdict"] for entry in found.json} == {"slower"}
    history.append(slower(records, 1, "odd", "\x1b[31m"))  # no day, which is not named as one
    nothing = run_here(capsys, "bench", path, *FAST, "--compare", "2026-01-04")
    assert nothing.exit_code == 3
    assert "hint: there are results of " in nothing.stderr
    assert "2026-01-02, 2026-01-03" in nothing.stderr
    assert "[31m" not in nothing.stderr


def test_last_is_the_last_run_of_the_same_work_on_the_same_machine(
    records: list[Record], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = [replace(each, machine={"fingerprint": "other"}) for each in slower(records, 1e-4, "x", "2026-01-03")]
    history.append(slower(records, 1e4, "same", "2026-01-02"))
    history.append(elsewhere)
    assert run_here(capsys, "bench", path, "-p", "4", "-n", "0", "-r", "1", "-t", "1").exit_code == 0
    found = run_here(capsys, "bench", path, *FAST, "-pg", "4,2", "--compare", "last", "--json")
    assert [entry["verdict"] for entry in found.json] == ["slower", "slower"]
    assert "1 of the results has nothing to be compared with" in found.stderr
    assert "another machine" not in found.stderr
    found = run_here(capsys, "bench", path, *FAST, "--compare", "2026-01-03", "--json")
    assert [entry["verdict"] for entry in found.json] == ["faster", "faster"]
    assert "warning: the results before are of another machine" in found.stderr


def test_the_form_that_was_asked_for_keeps_stdout_to_itself(
    records: list[Record], path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = saved(tmp_path, "a.json", records)
    found = run_here(capsys, "bench", path, *FAST, "--compare", before, "-o", "json")
    assert [entry["test"] for entry in found.json] == ["pp8", "tg4"]
    assert "95 % interval" in found.stderr


@pytest.mark.parametrize("content", ["", "[]", "{}", "[1]", "not json", '[{"n_prompt": 1}]', "\xff"])
def test_a_file_without_results_is_told_of(
    records: list[Record], content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = saved(tmp_path, "a.json", records)
    other = tmp_path / "b.json"
    other.write_bytes(content.encode("latin-1"))
    found = run_here(capsys, "bench", "--compare", before, other)
    assert found.exit_code == 7
    assert "holds no results" in found.stderr


def test_results_of_llama_bench_itself_are_compared_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(__file__).parents[1] / "unit" / "bench" / "llama_bench"
    found = run_here(capsys, "bench", "--compare", folder / "with_md.json", folder / "with_sql.json", "--json")
    assert found.exit_code == 0
    assert [entry["test"] for entry in found.json] == [
        "pp16",
        "tg4",
        "pp8+tg2",
        "pp16 @ d8",
        "tg4 @ d8",
        "pp8+tg2 @ d8",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_results_that_a_shell_of_windows_wrote_are_read(
    records: list[Record], encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, "a.json", records)
    path.write_bytes(path.read_text().encode(encoding))
    assert run_here(capsys, "bench", "--compare", path, path).exit_code == 0


def test_a_history_that_cannot_be_written_costs_no_result(
    path: Path, clean_environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clean_environment / "owm" / "bench" / "history.jsonl").mkdir(parents=True)
    found = run_here(capsys, "bench", path, *FAST, "--json")
    assert found.exit_code == 0
    assert len(found.json) == 2
    assert "warning: the results are not in the history" in found.stderr


SLOW = """
import sys, time
from owm.cli.app import main
from owm.native.llama import Context
decode = Context.decode
def slow(self):
    began = time.perf_counter()
    status = decode(self)
    until = time.perf_counter() + 4 * (time.perf_counter() - began)
    while time.perf_counter() < until:
        pass
    return status
Context.decode = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_busy_loop_in_the_measured_process_is_found(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["bench", os.fspath(path), "-p", "64", "-n", "32", "-r", "7", "-t", "1"]
    assert run_here(capsys, *args).exit_code == 0
    done = subprocess.run(
        [sys.executable, "-c", SLOW, *args, "--compare", "last", "--fail-on-regression", "5%", "--json"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert {entry["verdict"] for entry in found} == {"slower"}
