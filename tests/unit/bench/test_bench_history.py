"""The history: only ever appended to, believed line by line, and never in the way."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from owm.bench import history
from owm.bench.record import VERSION, Record
from owm.errors import StoreError

[RECORD, OTHER, *_] = [
    Record.of_members(entry)
    for entry in json.loads((Path(__file__).parent / "llama_bench" / "with_md.json").read_text())
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bench" / "history.jsonl"


def test_results_come_back_in_order_and_by_run(path: Path) -> None:
    first = [replace(RECORD, run_id="a"), replace(OTHER, run_id="a")]
    second = [replace(RECORD, run_id="b")]
    history.append(first, path)
    history.append(second, path)
    assert history.read(path) == [*first, *second]
    assert history.runs(history.read(path)) == [first, second]
    assert all(json.loads(line)["version"] == VERSION for line in path.read_text().splitlines())


def test_without_a_history_there_are_no_results(path: Path) -> None:
    assert history.read(path) == []


def test_it_lies_in_the_home_of_owm(clean_environment: Path) -> None:
    history.append([RECORD])
    assert history.read() == [RECORD]
    assert (clean_environment / "owm" / "bench" / "history.jsonl").is_file()


@pytest.mark.parametrize("damage", ["flip", "cut", "garbage", "nul", "other json"])
def test_a_damaged_line_is_passed_over_with_a_sentence_and_the_others_stay(path: Path, damage: str) -> None:
    history.append([RECORD, OTHER], path)
    history.append([replace(RECORD, run_id="z")], path)
    lines = path.read_bytes().splitlines(keepends=True)
    middle = {
        "flip": lines[1].replace(b'"n_gen":4', b'"n_gen":5'),
        "cut": lines[1][:100] + b"\n",
        "garbage": b"\xff\xfe garbage\n",
        "nul": b"\0" * 4096 + b"\n",
        "other json": b'{"a": 1}\n',
    }[damage]
    assert middle != lines[1]
    path.write_bytes(lines[0] + middle + lines[2])
    said: list[str] = []
    assert history.read(path, note=said.append) == [RECORD, replace(RECORD, run_id="z")]
    assert said == [f"1 of the results in {path} is damaged and passed over"]


def test_a_last_line_that_a_crash_has_cut_does_not_swallow_the_next_result(path: Path) -> None:
    history.append([RECORD], path)
    path.write_bytes(path.read_bytes() + b'{"version":1,"build_com')
    history.append([OTHER], path)
    said: list[str] = []
    assert history.read(path, note=said.append) == [RECORD, OTHER]
    assert len(said) == 1


def test_results_of_a_newer_owm_are_left_alone_and_told_of(path: Path) -> None:
    history.append([RECORD, replace(OTHER, version=VERSION + 1)], path)
    said: list[str] = []
    assert history.read(path, note=said.append) == [RECORD]
    assert said == [f"1 of the results in {path} is of a newer owm and passed over"]


def test_a_history_that_cannot_be_read_or_written_says_so(path: Path, tmp_path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot read"):
        history.read(path)
    with pytest.raises(StoreError, match="cannot write"):
        history.append([RECORD], path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        history.append([RECORD], tmp_path / "file" / "history.jsonl")


WRITER = """
import json, sys
from dataclasses import replace
from pathlib import Path
from owm.bench import history
from owm.bench.record import Record
record = Record.of_members(json.load(open(sys.argv[1]))[0])
for number in range(10):
    history.append([replace(record, run_id=f"{sys.argv[3]} {number}")] * 2, Path(sys.argv[2]))
"""


def test_two_processes_that_append_at_once_lose_nothing(path: Path) -> None:
    source = Path(__file__).parent / "llama_bench" / "with_md.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, source, path, str(name)]) for name in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    found = history.read(path, note=lambda message: pytest.fail(message))
    assert sorted(record.run_id for record in found) == sorted(
        f"{name} {i}" for name in range(2) for i in range(10) for _ in "ab"
    )


FULL = """
import resource, signal, sys
from pathlib import Path
path = Path(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, -1))
import json
from owm.bench import history
from owm.bench.record import Record
from owm.errors import NotEnoughDisk
try:
    history.append([Record.of_members(json.load(open(sys.argv[1]))[0])], path)
except NotEnoughDisk as error:
    print(error)
"""


def test_a_full_disk_leaves_the_history_as_it_was(path: Path) -> None:
    history.append([RECORD], path)
    before = path.read_bytes()
    source = Path(__file__).parent / "llama_bench" / "with_md.json"
    done = subprocess.run([sys.executable, "-c", FULL, source, path], capture_output=True, text=True, check=True)
    assert "the limit on the size of a file is reached" in done.stdout
    assert path.read_bytes() == before
