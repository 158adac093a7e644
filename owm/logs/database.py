"""The database of the log: the only importer of SQLite. Many processes may write at once.

Writing is one row and nothing else. The index for searching is brought up to date by the search that needs it, so that
a SQLite without full-text search writes and finds just as well, only slower.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from owm.errors import Damaged, StoreError
from owm.logs.entry import COLUMNS, LogEntry, parse_row, texts_of
from owm.logs.switch import keep_private

T = TypeVar("T")
SCHEMA = 1
BUSY_SECONDS = 5.0  # for another process to finish writing

_CREATE = f"""
CREATE TABLE answers (
  id INTEGER PRIMARY KEY,
  {", ".join(f"{name} {'INTEGER' if name.startswith('n_') else 'TEXT'}" for name in COLUMNS)}
)"""
_CREATE_INDEX = "CREATE VIRTUAL TABLE IF NOT EXISTS answers_index USING fts5(text, content='', tokenize='trigram')"
_INSERT = f"INSERT INTO answers ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
_TRIGRAM = 3  # characters: shorter words are in no index
_TRANSIENT = (5, 6, 15)  # SQLITE_BUSY, SQLITE_LOCKED, SQLITE_PROTOCOL
_BROKEN = (11, 26)  # SQLITE_CORRUPT, SQLITE_NOTADB
_FULL = 13


def add(path: Path, entries: Sequence[LogEntry]) -> None:
    """Write answers, all or none; the database is made if it is not there.

    Raises:
        StoreError: it cannot be written, or is kept busy for too long, or is a newer owm's.
        Damaged: it is no database any more.
    """
    rows = [entry.row() for entry in entries]
    with _translated(path):
        keep_private(path.parent)
        _create_private(path)
        with closing(_open(path)) as connection, _transaction(connection):
            connection.executemany(_INSERT, rows)


def search(path: Path, text: str = "", *, model: str = "", last: int | None = None) -> list[dict[str, Any]]:
    """Return logged answers, oldest first, as JSON objects.

    Args:
        text: words that all have to be in prompt, thought or answer, in any order and case.
        model: how the model's name begins.
        last: the most to return, from the end.

    Raises:
        StoreError, Damaged: as `add` does.
    """
    if not path.exists():
        return []
    words = text.lower().split()
    conditions, values = ["substr(lower(model), 1, length(?)) = lower(?)"], [model, model]
    with _translated(path), closing(_open(path)) as connection:
        connection.row_factory = sqlite3.Row
        long_words = [word for word in words if len(word) >= _TRIGRAM]
        if long_words and _bring_up_index(connection):
            conditions.append("id IN (SELECT rowid FROM answers_index WHERE answers_index MATCH ?)")
            values.append(" AND ".join('"' + word.replace('"', '""') + '"' for word in long_words))
        query = f"SELECT * FROM answers WHERE {' AND '.join(conditions)} ORDER BY id DESC"
        found: list[dict[str, Any]] = []
        for row in connection.execute(query, values):
            if last is not None and len(found) >= last:
                break
            answer = parse_row(dict(row))
            if not words or all(word in _searched(answer) for word in words):
                found.append(answer)
    return found[::-1]


def clear(path: Path) -> int | None:
    """Forget all answers, leaving no trace of them in the file; return how many, None of a damaged database.

    Raises:
        StoreError: as `add` does.
    """
    if not path.exists():
        return 0
    try:
        with _translated(path), closing(_open(path)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            with _transaction(connection):
                n_answers = int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
                connection.execute("DELETE FROM answers")
                connection.execute("DROP TABLE IF EXISTS answers_index")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return n_answers
    except Damaged:
        with _translated(path):
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        return None


def _create_private(path: Path) -> None:
    """Make the file before SQLite does, whose further files take over its mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            path.chmod(0o600)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        version = _patiently(lambda: _version(connection))
        if version == 0:
            _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone())
            with _transaction(connection):
                if _version(connection) == 0:
                    connection.execute(_CREATE)
                    connection.execute(f"PRAGMA user_version = {SCHEMA}")
        elif version > SCHEMA:
            raise StoreError(
                f"{path} was written by a newer owm (schema {version}, this one knows {SCHEMA})", hint="update owm"
            )
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the right to write from the first statement on: whoever waits for it waits here."""
    _patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _bring_up_index(connection: sqlite3.Connection) -> bool:
    """Add to the index what was logged since the last search; return whether this SQLite and file can have one."""
    try:
        with _transaction(connection):
            connection.execute(_CREATE_INDEX)
            newest = connection.execute("SELECT coalesce(max(rowid), 0) FROM answers_index").fetchone()[0]
            missing = connection.execute("SELECT * FROM answers WHERE id > ?", (newest,))
            connection.executemany(
                "INSERT INTO answers_index (rowid, text) VALUES (?, ?)",
                ((row["id"], _searched(parse_row(dict(row)))) for row in missing),
            )
    except sqlite3.OperationalError:
        return False
    return True


def _searched(answer: dict[str, Any]) -> str:
    texts = [*texts_of(answer["prompt"]), answer["system"], answer["answer"], answer["reasoning"]]
    return "\n".join(text for text in texts if isinstance(text, str)).lower()


def _patiently(call: Callable[[], T]) -> T:
    """Repeat a call while another process is in the way, also where SQLite itself does not wait."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return call()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _TRANSIENT or time.monotonic() >= until:
                raise
            time.sleep(0.01)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into owm's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None) or 0
        if code & 0xFF in _BROKEN:
            raise Damaged(f"the log is damaged: {path}", hint="`owm logs clear` starts a new one") from error
        if code & 0xFF in _TRANSIENT:
            raise StoreError(f"another program keeps the log busy: {path}", hint="try again later") from error
        if code & 0xFF == _FULL:
            raise StoreError(f"the disk is full: {path.parent}", hint="free some space") from error
        raise StoreError(f"cannot use the log {path}: {error}") from error
    except OSError as error:
        raise StoreError(f"cannot use the log {path}: {error.strerror or error}") from error
