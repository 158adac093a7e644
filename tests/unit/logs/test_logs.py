"""The log: off until it is on, private, searchable, and never a reason for a run to fail."""

import json
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owm.errors import Damaged, StoreError
from owm.logs import Log, LogEntry, database, open_log, record
from support.run import environment, finish, run

HERE = Path(__file__).parent


def entry(answer: str = "Hello", **changes: Any) -> LogEntry:
    return LogEntry(
        **{
            "command": "run",
            "model": "smollm2:135m:Q4_1",
            "model_sha256": "ab" * 32,
            "prompt": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Say hello"}],
            "system": "Be kind",
            "answer": answer,
            "settings": {"temp": 0.5, "seed": 7},
            "finish_reason": "stop",
            "n_prompt": 12,
            "n_generated": 3,
            "timings": {"load_seconds": 0.25},
            **changes,
        }
    )


@pytest.fixture
def log() -> Log:
    return open_log()


def answers(log: Log, text: str = "", **changes: Any) -> list[str]:
    return [found["answer"] for found in database.search(log.path, text, **changes)]


# -- the switch --------------------------------------------------------------------------------------------------------


def test_nothing_is_logged_before_it_is_on(log: Log) -> None:
    assert record(entry(), is_forced=False) is None
    assert not log.folder.exists()
    assert database.search(log.path) == []
    log.turn_on()
    assert log.is_on
    assert not log.path.exists()
    assert record(entry(), is_forced=False) is None
    log.turn_off()
    assert record(entry("unseen"), is_forced=False) is None
    assert record(entry("forced"), is_forced=True) is None
    assert not log.is_on
    assert answers(log) == ["Hello", "forced"]


def test_logging_that_is_off_imports_no_sqlite() -> None:
    code = """if True:
        import sys
        from owm.logs import LogEntry, open_log, record
        before = set(sys.modules)
        assert not open_log().is_on
        record(LogEntry("run", "m", None, "p", "a", {}, "stop", 1, 1, {}), is_forced=False)
        assert "sqlite3" not in sys.modules
        record(LogEntry("run", "m", None, "p", "a", {}, "stop", 1, 1, {}), is_forced=True)
        assert "sqlite3" in sys.modules
    """
    done = run(["-c", code])
    assert (done.exit_code, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_only_the_owner_may_look(log: Log) -> None:
    log.folder.mkdir(parents=True, mode=0o755)
    before = os.umask(0)
    try:
        assert record(entry(), is_forced=True) is None
    finally:
        os.umask(before)
    with closing(database._open(log.path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE answers SET answer = ''")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in log.folder.iterdir()}
    assert modes == {"log.db": 0o600, "log.db-wal": 0o600, "log.db-shm": 0o600}
    assert stat.S_IMODE(log.folder.stat().st_mode) == 0o700
    log.path.chmod(0o644)
    assert record(entry(), is_forced=True) is None
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


# -- what is written ---------------------------------------------------------------------------------------------------


def test_an_answer_comes_back_whole(log: Log) -> None:
    from owm import __version__

    when = datetime(2025, 1, 2, 3, 4, 5, 678_000, timezone(timedelta(hours=2)))
    assert record(entry(time=when, reasoning="Hm", n_reasoning=1), is_forced=True) is None
    assert database.search(log.path) == [
        {
            "id": 1,
            "time": "2025-01-02T01:04:05.678+00:00",
            "command": "run",
            "model": "smollm2:135m:Q4_1",
            "model_sha256": "ab" * 32,
            "prompt": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Say hello"}],
            "system": "Be kind",
            "answer": "Hello",
            "reasoning": "Hm",
            "settings": {"temp": 0.5, "seed": 7},
            "finish_reason": "stop",
            "n_prompt": 12,
            "n_generated": 3,
            "n_reasoning": 1,
            "timings": {"load_seconds": 0.25},
            "owm_version": __version__,
        }
    ]


def test_the_time_is_now_in_utc() -> None:
    assert abs(datetime.now(UTC) - entry().time) < timedelta(seconds=10)


def test_drafts_are_logged_together_or_not_at_all(log: Log) -> None:
    assert record(entry("one"), entry("two"), is_forced=True) is None
    assert answers(log) == ["one", "two"]
    problem = record(entry("three"), entry("four", n_prompt=10**30), is_forced=True)
    assert problem is not None
    assert problem.startswith("the answer is not logged: ")
    assert answers(log) == ["one", "two"]


_texts = st.text(max_size=30)


@settings(max_examples=30)
@given(_texts, st.none() | _texts, st.lists(st.fixed_dictionaries({"role": _texts, "content": _texts}), max_size=3))
def test_any_text_is_logged_and_found_again(text: str, reasoning: str | None, turns: list[dict[str, str]]) -> None:
    log = open_log()
    assert record(entry(text, reasoning=reasoning, prompt=turns), is_forced=True) is None
    found = database.search(log.path, last=1)[0]
    for name, value in (("answer", text), ("reasoning", reasoning), ("prompt", turns)):
        assert found[name] == value
    assert database.search(log.path, text, last=1)[0]["id"] == found["id"]


def test_what_utf_8_cannot_write_is_logged_with_a_mark_in_its_place(log: Log) -> None:
    assert record(entry("a\udcffb", prompt="\ud800", settings={"path": Path("/x")}), is_forced=True) is None
    found = database.search(log.path)[0]
    assert (found["answer"], found["prompt"], found["settings"]) == ("a\ufffdb", "\ufffd", {"path": "/x"})


# -- searching ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["indexed", "scanned"])
def searchable(request: pytest.FixtureRequest, log: Log, monkeypatch: pytest.MonkeyPatch) -> Log:
    """A log with some answers, searched with and without the full-text index."""
    if request.param == "scanned":
        monkeypatch.setattr(database, "_CREATE_INDEX", "CREATE VIRTUAL TABLE x USING no_such_module")
    texts = ["The quick brown fox", "Ein GROẞER Fuchs", "快速的棕色狐狸跳过", 'say "foo-bar" AND (baz*)', "% _ \\ fox"]
    for text in texts:
        assert record(entry(text, prompt="ask", system=None), is_forced=True) is None
    record(entry("nothing", prompt=[{"role": "user", "content": "the\nRed\nFOX"}], model="other"), is_forced=True)
    return log


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fox", [1, 5, 6]),
        ("FOX", [1, 5, 6]),
        ("quick fox", [1]),
        ("fox quick the", [1]),
        ("ick bro", [1]),
        ("fuchs großer", [2]),
        ("棕色狐", [3]),
        ("狐", [3]),
        ("foo-bar", [4]),
        ('"foo', [4]),
        ("AND", [4]),
        ("(baz*)", [4]),
        ("%", [5]),
        ("_ fox", [5]),
        ("user", []),
        ("red fox", [6]),
        ("absent", []),
        ("  ", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_all_words_have_to_be_there_in_any_order_and_case(text: str, expected: list[int], searchable: Log) -> None:
    assert [found["id"] for found in database.search(searchable.path, text)] == expected


def test_the_last_ones_and_those_of_a_model(searchable: Log) -> None:
    def ids(**changes: Any) -> list[int]:
        return [found["id"] for found in database.search(searchable.path, **changes)]

    assert ids(last=2) == [5, 6]
    assert ids(text="fox", last=2) == [5, 6]
    assert ids(model="OTH") == [6]
    assert ids(model="smollm2", last=1) == [5]
    assert ids(model="%") == []
    assert ids(text="fox", model="smollm2:135m") == [1, 5]


def test_the_index_takes_up_what_was_logged_since(searchable: Log) -> None:
    assert len(database.search(searchable.path, "fox")) == 3
    record(entry("another fox"), is_forced=True)
    assert database.search(searchable.path, "fox", last=1)[0]["answer"] == "another fox"


def test_this_sqlite_has_the_index(log: Log) -> None:
    record(entry("a fox"), is_forced=True)
    assert answers(log, "fox") == ["a fox"]
    with closing(sqlite3.connect(log.path)) as connection:
        assert connection.execute("SELECT count(*) FROM answers_index WHERE answers_index MATCH 'fox'").fetchone() == (
            1,
        )


# -- clearing ----------------------------------------------------------------------------------------------------------


def test_clearing_leaves_no_trace_and_logging_goes_on(searchable: Log) -> None:
    database.search(searchable.path, "fox")
    assert database.clear(searchable.path) == 6
    left = b"".join(path.read_bytes() for path in searchable.folder.iterdir())
    assert b"fox" not in left.lower()
    assert database.search(searchable.path) == []
    assert record(entry("a new fox"), is_forced=True) is None
    assert answers(searchable, "fox") == ["a new fox"]


def test_clearing_what_is_not_there_makes_nothing(log: Log) -> None:
    assert database.clear(log.path) == 0
    assert not log.folder.exists()


# -- what can go wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be one" * 100, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_damaged_log_is_one_warning_and_can_be_cleared(content: bytes, log: Log) -> None:
    log.turn_on()
    log.path.write_bytes(content)
    problem = record(entry(), is_forced=False)
    assert problem == (f"the answer is not logged: the log is damaged: {log.path}; `owm logs clear` starts a new one")
    with pytest.raises(Damaged):
        database.search(log.path)
    assert database.clear(log.path) is None
    assert record(entry(), is_forced=False) is None
    assert answers(log) == ["Hello"]


def test_a_log_with_a_damaged_page_is_one_warning(log: Log) -> None:
    for number in range(50):
        record(entry(str(number) * 500), is_forced=True)
    content = bytearray(log.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    log.path.write_bytes(content)
    assert "the log is damaged" in (record(entry(), is_forced=True) or "")


def test_a_newer_log_is_not_written(log: Log) -> None:
    record(entry(), is_forced=True)
    with closing(sqlite3.connect(log.path)) as connection:
        connection.execute("PRAGMA user_version = 9")
    problem = record(entry(), is_forced=True)
    assert problem is not None
    assert "was written by a newer owm (schema 9, this one knows 1); update owm" in problem
    for act in (database.search, database.clear):
        with pytest.raises(StoreError, match="written by a newer owm"):
            act(log.path)


def test_a_log_kept_busy_is_given_up_soon(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    record(entry(), is_forced=True)
    with closing(sqlite3.connect(log.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert "another program keeps the log busy" in (record(entry(), is_forced=True) or "")
        assert answers(log) == ["Hello"]  # reading goes on
    assert record(entry(), is_forced=True) is None


@pytest.mark.parametrize("where", ["folder", "home", "database"])
def test_what_is_in_the_way_is_one_warning(where: str, log: Log) -> None:
    log.folder.parent.parent.mkdir(parents=True, exist_ok=True)
    if where == "home":
        log.folder.parent.write_text("a file")
    elif where == "folder":
        log.folder.parent.mkdir()
        log.folder.write_text("a file")
    else:
        log.path.mkdir(parents=True)
    problem = record(entry(), is_forced=True)
    assert problem is not None
    assert problem.startswith(f"the answer is not logged: cannot use the log {log.path}: ")
    assert record(entry(), is_forced=False) is None


def _log_in_a_child(setup: str = "", *, unprivileged: bool = False) -> Any:
    code = f"""if True:
        import resource, time
        from owm.logs import LogEntry, record
        {setup}
        began = time.monotonic()
        problem = record(LogEntry("run", "m", None, "p", "x" * 200_000, {{}}, "stop", 1, 1, {{}}), is_forced=True)
        import json
        print(json.dumps([problem, time.monotonic() - began]))
    """
    done = run(["-c", code], unprivileged=unprivileged)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.json


def test_a_full_disk_is_one_warning_and_the_log_stays_whole(log: Log) -> None:
    record(entry(), is_forced=True)
    problem, seconds = _log_in_a_child("resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))")
    assert problem.startswith("the answer is not logged: ")
    assert seconds < 3
    assert answers(log) == ["Hello"]
    assert record(entry("then"), is_forced=True) is None
    assert answers(log) == ["Hello", "then"]


def test_a_full_disk_at_the_first_answer_is_mended_by_the_next(log: Log) -> None:
    problem, _ = _log_in_a_child("resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))")
    assert problem.startswith("the answer is not logged: ")
    assert record(entry(), is_forced=True) is None
    assert answers(log) == ["Hello"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_that_may_not_be_written_is_one_warning(is_there: bool, log: Log) -> None:
    if is_there:
        record(entry(), is_forced=True)
    log.folder.mkdir(parents=True, exist_ok=True)
    if is_there:
        log.path.chmod(0o400)
    log.folder.chmod(0o500)
    try:
        problem, _ = _log_in_a_child(unprivileged=True)
    finally:
        log.folder.chmod(0o700)
    assert problem.startswith("the answer is not logged: cannot use the log ")


def test_an_unforeseen_error_is_one_warning_too(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(database, "add", fail)
    assert record(entry(), is_forced=True) == "the answer is not logged: MemoryError: none left"


def test_thirty_two_processes_at_once_all_log(log: Log) -> None:
    """Every one begins when stdin closes, with a database that none of them finds there."""
    code = """if True:
        import json, sys
        from owm.logs import LogEntry, record
        import owm.logs.database
        sys.stdin.read()
        entry = LogEntry("run", "m", None, "p", sys.argv[1] * 3000, {}, "stop", 1, 1, {})
        problems = [record(entry, is_forced=True) for _ in range(3)]
        print(json.dumps(problems))
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"[{number}]"],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(32)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    said = [finish(child) for child in children]
    assert [(done.exit_code, done.stderr, done.strip()) for done in said] == [(0, "", "[null, null, null]")] * 32
    logged = answers(log)
    assert sorted(logged) == sorted(f"[{number}]" * 3000 for number in range(32) for _ in range(3))
    with closing(sqlite3.connect(log.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_killed_while_writing_the_log_stays_whole(log: Log) -> None:
    record(entry(), is_forced=True)
    code = """if True:
        import os, signal
        from owm.logs import database, open_log
        connection = database._open(open_log().path)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE answers SET answer = 'half'")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(["-c", code]).exit_code == -9
    assert record(entry("then"), is_forced=True) is None
    assert answers(log) == ["Hello", "then"]


def test_the_columns_are_those_that_programs_rely_on(log: Log) -> None:
    record(entry(), is_forced=True)
    with closing(sqlite3.connect(log.path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(answers)")]
        assert connection.execute("PRAGMA user_version").fetchone() == (database.SCHEMA,)
        assert json.loads(connection.execute("SELECT settings FROM answers").fetchone()[0]) == {"temp": 0.5, "seed": 7}
    assert columns == [
        "id", "time", "command", "model", "model_sha256", "prompt", "system", "answer", "reasoning", "settings",
        "finish_reason", "n_prompt", "n_generated", "n_reasoning", "timings", "owm_version",
    ]  # fmt: skip


def test_a_folder_that_may_not_be_looked_into_is_no_failure(tmp_path: Path) -> None:
    """As one `sudo owm run --log` leaves it: with modes that only its owner gets past."""
    folder = tmp_path / "logs"
    Log(folder).turn_on()
    is_root = os.geteuid() == 0
    folder.chmod(0)
    if is_root:  # modes do not bind root
        os.seteuid(65534)
    try:
        assert Log(folder).is_on is False
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)
    assert Log(folder).is_on is True
