"""What lies in a folder, so that it can be compared: paths and contents, without what differs from run to run."""

import hashlib
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from owm.chat.session import Session
from owm.errors import OwmError

# By docs/store.md: what is under way, or was cut off, and is never taken for a whole file.
TEMPORARY = re.compile(
    r"\.incomplete(/|$|\.json$|\.json\.new$|\.journal$)"
    r"|\.owm\.incomplete|\.damaged$|/log\.db-(wal|shm|journal)$"
    r"|^owm/work[/]|^owm/(models|hub)\.(new|old)(/|$)|^owm/move-(models|hub)\.json$|^owm/locks/|/\.locks/|\.lock$|^tmp/"
    r"|^hf/hub\.(new|old)(/|$)|/tmp[^/]+/dummy_file_(src|dst)$"  # the Hub library tries out links
)
LEFT = re.compile(r"\.incomplete|\.damaged$|^owm/work[/][^.]|^tmp/|\.(new|old)(/|$)|^owm/move-")
RANDOM_NAME = re.compile(r"(?<=^owm/sessions/)[^/]+(?=\.jsonl$)")
NO_TARGET = "a link to nothing"
_N_SAID = 4  # turns that a command with two questions adds
VOLATILE = {
    "created", "created_at", "mtime_ns", "at", "time", "timestamp", "seconds", "checked_at", "started_at",
    "finished_at", "runs",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: what is compared of its content, or why it is broken."""

    content: str
    broken: str | None = None


Tree = dict[str, Entry]


def read_tree(top: Path) -> Tree:
    """Read all files and links below a folder."""
    tree: Tree = {}
    for folder, folders, names in os.walk(top):
        for name in sorted([*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]):
            path = Path(folder, name)
            tree[path.relative_to(top).as_posix()] = _entry(path, path.relative_to(top).as_posix())
    return tree


def _entry(path: Path, name: str) -> Entry:
    if path.is_symlink():
        return Entry(f"-> {os.readlink(path)}", None if path.exists() else NO_TARGET)
    try:
        if not path.is_file():
            return Entry("special")
        raw = path.read_bytes()
    except FileNotFoundError:  # an orphan of the killed command has just removed it
        return Entry("gone")
    if TEMPORARY.search(name) or name.endswith((".db-wal", ".db-shm")):
        return Entry("temporary")
    if name.endswith("log.db"):
        return _log(path)
    if name.endswith((".json", "stored_tokens.json")):
        return _json(raw, name)
    if name.startswith("owm/bench/"):
        return _history(raw)
    if RANDOM_NAME.search(name):
        return _conversation(path)
    return Entry(hashlib.sha256(raw).hexdigest())


def _json(raw: bytes, name: str) -> Entry:
    try:
        found = json.loads(raw)
    except ValueError as error:
        return Entry("", f"no JSON: {error}")
    if name.endswith(("cache/machine.json", "tuned.json")) or name.startswith("owm/tried/"):
        return Entry("measured")
    return Entry(json.dumps(_steady(found), sort_keys=True))


def _history(raw: bytes) -> Entry:
    """Read the history of measurements; a line that a kill has cut off is closed by the next writer, and skipped."""
    n_whole = 0
    for line in raw.split(b"\n"):
        with suppress(ValueError):
            n_whole += isinstance(json.loads(line), dict)
    return Entry("measured" if n_whole else "nothing")


def _conversation(path: Path) -> Entry:
    try:
        session = Session.read(path)
    except OwmError as error:
        return Entry("", str(error))
    return Entry(json.dumps([(turn.role, turn.content) for turn in session.path()]), session.damage)


def _log(path: Path) -> Entry:
    """Read a copy: reading what a kill has left mends it."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for part in path.parent.glob(f"{path.name}*"):
            shutil.copy(part, folder)
        try:
            with closing(sqlite3.connect(Path(folder, path.name))) as connection:
                tables = [row[0] for row in connection.execute("select name from sqlite_master where type='table'")]
                checked = connection.execute("pragma integrity_check").fetchone()[0]
                n_rows = connection.execute("select count(*) from answers").fetchone()[0] if "answers" in tables else 0
        except sqlite3.Error as error:
            return Entry("", f"no database: {error}")
    return Entry(f"{n_rows} rows", None if checked == "ok" else checked)


def _steady(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _steady(value) for key, value in found.items() if key not in VOLATILE}
    return [_steady(value) for value in found] if isinstance(found, list) else found


def named(tree: Tree) -> dict[str, list[str]]:
    """Return the contents by name, where names that are made at random are one."""
    names: dict[str, list[str]] = {}
    for name, entry in tree.items():
        names.setdefault(RANDOM_NAME.sub("ID", name), []).append(entry.content)
    return {name: sorted(contents) for name, contents in names.items()}


def stray(tree: Tree, *wholes: Tree, between: str | None = None) -> list[str]:
    """Tell of each file that is neither as in one of several whole trees, nor by its name something under way.

    Args:
        between: fits names of files that have other contents on the way, each of which is whole.
    """
    known = [named(whole) for whole in wholes]
    found = []
    for name, entry in tree.items():
        if between and re.search(between, name) and entry.broken in (None, NO_TARGET):
            continue
        if entry.broken:
            if any(whole.get(name) == entry for whole in wholes) or TEMPORARY.search(name):
                continue
            found.append(f"{name}: {entry.broken}")
        elif TEMPORARY.search(name) or RANDOM_NAME.search(name) or name.startswith("owm/tried/"):
            continue
        elif all(entry.content not in names.get(name, ()) for names in known):
            is_new = all(name not in names for names in known)
            found.append(f"{name}: {'a stray file' if is_new else 'not as it was, nor as it should be'}")
    return found


def differences(tree: Tree, *wholes: Tree) -> list[str]:
    """Tell where a tree is like none of the whole ones: files that are missing, left over, or different."""
    found, each = named(tree), [named(whole) for whole in wholes]
    told = []
    for name in sorted({*found, *(name for names in each for name in names)}):
        is_lock = bool(re.search(r"^owm/locks/|/\.locks/|\.lock$|log\.db-(wal|shm)$|^owm/tried/", name))
        if is_lock or "/dummy_file_" in name or any(found.get(name) == names.get(name) for names in each):
            continue
        if name == "owm/sessions/ID.jsonl" and _are_kept(each[0].get(name, []), found.get(name, [])):
            continue
        if name not in found:
            told.append(f"{name} is missing")
        elif all(name not in names for names in each):
            told.append(f"{name} is left over")
        else:
            told.append(f"{name} is different: {_first_difference(found[name][0], each[0].get(name, [''])[0])}")
    return [
        *told,
        *(f"{name} is broken: {e.broken}" for name, e in tree.items() if e.broken and _is_new(name, e, wholes)),
    ]


def _are_kept(wanted: list[str], found: list[str]) -> bool:
    """Tell whether conversations end as they should.

    What was said before the kill is kept as well: the same command begins another one, or goes on with that one.
    """
    tails = [json.loads(each)[-_N_SAID:] for each in found]
    return [] not in tails and all(json.loads(each)[-_N_SAID:] in tails for each in wanted)


def _first_difference(one: str, other: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    begin = max(0, at - 60)
    return f"{one[begin : at + 60]!r} and not {other[begin : at + 60]!r}"


def _is_new(name: str, entry: Entry, wholes: tuple[Tree, ...]) -> bool:
    return all(whole.get(name) != entry for whole in wholes) and not TEMPORARY.search(name)
