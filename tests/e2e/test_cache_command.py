"""`owm cache`: listed and cleared."""

import os
import re

import pytest

from owm.engine.snapshots import Fingerprint, open_snapshots
from support.run import finish, run_here, start

Capture = pytest.CaptureFixture[str]


def put(label: str, n_tokens: int, used_at: int) -> None:
    path = open_snapshots().save(
        Fingerprint("0" * 64, "build"), list(range(n_tokens)), bytearray(b"x" * 1000), label=label
    )
    assert path is not None
    os.utime(path, (used_at, used_at))


def test_nothing_is_kept_at_first(capsys: Capture) -> None:
    for words in (("cache",), ("cache", "list")):
        done = run_here(capsys, *words)
        assert (done, done.stderr, done.exit_code) == ("", "no snapshots are kept\n", 0)
    assert run_here(capsys, "cache", "--json").json == []
    assert run_here(capsys, "cache", "clear").stderr == "removed 0 snapshots, 0 B\n"
    assert not open_snapshots().folder.exists()


def test_snapshots_are_listed_and_the_one_used_last_comes_first(capsys: Capture) -> None:
    put("smollm2:135m:Q4_1", 1200, 1_700_000_000)
    put("other \x1b[2J", 7, 1_800_000_000)
    done = run_here(capsys, "cache")
    assert [re.split(r"\s{2,}", line.strip())[:2] for line in done.splitlines()[:1]] == [["MODEL", "TOKENS"]]
    assert [line.split("  ")[0].split()[0] for line in done.splitlines()[1:]] == ["other", "smollm2:135m:Q4_1"]
    assert "1,200" in done
    assert "\x1b" not in done
    assert f"in {open_snapshots().folder}\n" in done.stderr
    rows = run_here(capsys, "cache", "list", "--json").json
    assert [set(row) for row in rows] == [{"path", "model", "n_tokens", "size_bytes", "used_at"}] * 2
    assert [(row["n_tokens"], row["used_at"]) for row in rows] == [
        (7, "2027-01-15T08:00:00+00:00"), (1200, "2023-11-14T22:13:20+00:00"),
    ]  # fmt: skip


def test_what_is_damaged_is_not_listed_but_cleared(capsys: Capture) -> None:
    put("one", 3, 1_700_000_000)
    put("two", 4, 1_700_000_001)
    path = next(open_snapshots().folder.glob("*.kv"))
    path.write_bytes(path.read_bytes()[:-1])
    assert len(run_here(capsys, "cache", "--json").json) == 1
    (path.parent / "left.kv.7.incomplete").write_bytes(b"x")
    done = run_here(capsys, "cache", "clear", "--json")
    assert done.json["n_removed"] == 2
    assert done.json["bytes_freed"] > 2000
    assert [path.name for path in open_snapshots().folder.iterdir()] == [".lock"]


def test_the_program_lists_without_loading_llama() -> None:
    put("one", 3, 1_700_000_000)
    code = "import sys; from owm.cli.app import main; main(['cache', 'list', '--json']); " \
        "sys.exit('llama_cpp' in sys.modules)"  # fmt: skip
    done = finish(start(["-c", code]))
    assert done.exit_code == 0, done.stderr
    assert [row["model"] for row in done.json] == ["one"]
