"""Results in llama-bench's formats, held against what llama-bench itself wrote of the same results."""

import csv
import io
import json
import math
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.bench.record import LLAMA_BENCH_FIELDS, OWN_FIELDS, Record
from owm.bench.report import write
from owm.errors import UsageError

THEIRS = Path(__file__).parent / "llama_bench"  # of one run each: its JSON, and the other form on stderr


def theirs(form: str) -> tuple[list[dict[str, Any]], list[Record], str]:
    entries = json.loads((THEIRS / f"with_{form}.json").read_text())
    return entries, [Record.of_members(entry) for entry in entries], (THEIRS / f"output.{form}").read_text()


def test_the_markdown_table_is_llama_benchs_to_the_byte() -> None:
    _, records, expected = theirs("md")
    assert write(records, "md") == expected


def test_the_sql_table_of_llama_bench_is_made_and_filled_as_llama_bench_does() -> None:
    _, records, expected = theirs("sql")
    found = write(records, "sql")
    statements = [part for part in found.split(";\n") if "llama_bench (" in part]
    assert ";\n".join(statements).replace("\n\n", "\n").split() == expected.removesuffix(";\n").split()


def test_csv_begins_each_line_as_llama_bench_writes_it() -> None:
    _, records, expected = theirs("csv")
    for ours, line in zip(write(records, "csv").splitlines(), expected.splitlines(), strict=True):
        assert ours.startswith(f"{line},")


def test_json_has_llama_benchs_fields_in_its_order_with_its_types_and_values() -> None:
    entries, records, _ = theirs("md")
    for ours, entry in zip(json.loads(write(records, "json")), entries, strict=True):
        assert list(ours)[: len(entry)] == list(entry) == list(LLAMA_BENCH_FIELDS)
        assert {name: (type(ours[name]), ours[name]) for name in entry} == {
            name: (type(value), value) for name, value in entry.items()
        }
        assert list(ours)[len(entry) :] == list(OWN_FIELDS)


def test_json_lines_hold_the_same_objects_as_json() -> None:
    _, records, _ = theirs("md")
    assert [json.loads(line) for line in write(records, "jsonl").splitlines()] == json.loads(write(records, "json"))
    lines = (THEIRS / "output.jsonl").read_text().splitlines()
    assert [Record.of_members(json.loads(line)).test for line in lines] == [record.test for record in records]


def test_sql_fills_a_database_and_keeps_apart_what_llama_bench_could_not_have_measured() -> None:
    _, records, _ = theirs("md")
    odd = replace(records[0], n_parallel=4, test="pp16 × 4", model_filename="it's; DROP TABLE llama_bench;--.gguf")
    database = sqlite3.connect(":memory:")
    database.executescript(write([*records, odd], "sql"))
    assert database.execute("SELECT count(*) FROM llama_bench").fetchone() == (len(records),)
    assert database.execute("SELECT model_filename, n_parallel FROM owm_bench WHERE n_parallel > 1").fetchall() == [
        (odd.model_filename, 4)
    ]
    assert database.execute("SELECT gbps FROM owm_bench").fetchone() == (None,)
    database.close()


def test_csv_is_read_back_whole_whatever_a_name_holds() -> None:
    _, records, _ = theirs("md")
    odd = replace(records[0], model_filename='a "b", c\nd.gguf', ttft_seconds=0.25)
    [row] = csv.DictReader(io.StringIO(write([odd], "csv")))
    assert (row["model_filename"], row["ttft_seconds"], row["gbps"]) == (odd.model_filename, "0.25", "")


def test_a_name_cannot_break_the_markdown_table() -> None:
    _, records, _ = theirs("md")
    lines = write([replace(records[0], model_type="a|b\x1b[2J\nc")], "md").splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| a\\|b [2J c")
    assert "\x1b" not in lines[2]


def test_settings_are_shown_where_they_vary_or_are_not_the_default() -> None:
    _, records, _ = theirs("md")
    varied = [records[0], replace(records[0], n_batch=64, type_k="q8_0", flash_attn=1)]
    heading = write(varied, "md").splitlines()[0]
    assert [cell.strip() for cell in heading.strip("|").split("|")] == [
        "model", "size", "params", "backend", "threads", "n_batch", "type_k", "fa", "test", "t/s",
    ]  # fmt: skip


def test_a_record_comes_back_from_its_members_and_from_nothing_less() -> None:
    _, [record, *_], _ = theirs("md")
    record = replace(record, settings={"threads": "--threads"}, machine={"cpu": "x"}, gbps=1.5, run_id="a")
    assert Record.of_members(json.loads(json.dumps(record.members())) | {"unknown": 1}) == record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_prompt": None}, "n_prompt cannot be None"),
        ({"n_prompt": "16"}, "n_prompt cannot be '16'"),
        ({"n_prompt": True}, "n_prompt cannot be True"),
        ({"cpu_strict": 0}, "cpu_strict cannot be 0"),
        ({"avg_ts": "fast"}, "avg_ts cannot be 'fast'"),
        ({"model_type": 5}, "model_type cannot be 5"),
        ({"samples_ts": 5}, "samples_ts is no list"),
        ({"samples_ts": [1.0, "2"]}, "samples_ts is no list"),
        ({"samples_ts": []}, "there is no rate"),
        ({"samples_ts": [0.0]}, "there is no rate"),
        ({"samples_ts": [math.inf]}, "samples_ts is no list"),
        ({"samples_ts": [1e20]}, "there is no rate"),
        ({"samples_ts": [5e-324]}, "there is no rate"),
        ({"samples_ns": [10**400]}, "samples_ns is no list"),
        ({"quick_ts": -1.0}, "there is no rate"),
        ({"n_batch": 10**400}, "n_batch cannot be"),
        ({"machine": []}, "machine cannot be"),
        ({"machine": {"fingerprint": []}}, "machine cannot be"),
    ],
)
def test_members_of_another_kind_are_refused(changes: dict[str, object], message: str) -> None:
    entries, _, _ = theirs("md")
    with pytest.raises(UsageError, match=message):
        Record.of_members(entries[0] | changes)
    with pytest.raises(UsageError, match="n_gen is missing"):
        Record.of_members({name: value for name, value in entries[0].items() if name != "n_gen"})


def test_results_of_an_older_llama_bench_are_read() -> None:
    [entry, *_], _, _ = theirs("md")
    newer = ("load_mode", "lazy_mode", "fit_target", "no_host", "n_depth", "test", "tensor_buft_overrides")
    older = {name: value for name, value in entry.items() if name not in newer} | {"flash_attn": True}
    found = Record.of_members(older)
    assert (found.samples_ts, found.flash_attn, found.load_mode) == (tuple(entry["samples_ts"]), 1, "")
    with pytest.raises(UsageError, match="n_gen is missing"):
        Record.of_members({name: value for name, value in older.items() if name != "n_gen"})
