"""What owm writes, and where: in its own folder, in the Hub cache, in paths that were named, and nowhere else."""

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from owm.cli.chat import external
from owm.cli.chat.history import HistoryFile
from owm.hardware import seclusion
from owm.library import batch_files
from owm.paths import hub_cache, owm_home
from owm.publishing import make_private, publish_text, save_text
from owm.store.local import Store
from support.every_command import TOKEN, Step, places, prepare, publish, steps
from support.hub_server import HubServer
from support.stepping import run_steps

pytestmark = pytest.mark.slow

PRIVATE = {  # below the folder of owm, or of the Hub's library, or where outputs are named
    "logs", "logs/on", "logs/log.db", "sessions", "sessions/*.jsonl", "cache/snapshots", "cache/snapshots/*",
    "prompts", "prompts/*.txt", "config.toml", "chat-history",
}  # fmt: skip


def inventory(*folders: Path) -> dict[str, tuple[int, ...]]:
    """Return what would be another if anything had been made, changed, removed or given other permissions."""
    found = {}
    for folder in folders:
        for path in [folder, *sorted(folder.rglob("*"))]:
            status = path.lstat()
            times = (status.st_mtime_ns, status.st_ctime_ns) if not stat.S_ISDIR(status.st_mode) else ()
            found[str(path)] = (status.st_mode, status.st_ino, status.st_size, *times)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="read-only mounts for one process are Linux's")
def test_no_command_changes_anything_outside_its_places_or_opens_a_socket_unasked(
    hub: HubServer, store: Store, tmp_path: Path, clean_environment: Path
) -> None:
    """The kernel refuses it anywhere but in five folders; three of these must be as they were, one empty."""
    where = places(tmp_path)
    prepare(where, store)
    publish(hub)
    for folder in (owm_home(), hub_cache()):
        folder.mkdir(parents=True, exist_ok=True)
    untouched = (where.home, where.cwd, where.inputs)
    before = inventory(*untouched)
    allowed = [where.out, where.temporary, *untouched, clean_environment]
    env = {"HOME": str(where.home), "TMPDIR": str(where.temporary), "XDG_CONFIG_HOME": None, "XDG_CACHE_HOME": None}
    means = seclusion.available()
    assert set(means) == {"filter", "namespace"}, f"seccomp and `unshare -n` (as root or in a user namespace): {means}"
    for is_networked in (False, True):
        wanted = [step for step in steps(where) if step.is_networked == is_networked]
        # What asks no server opens no socket for the internet either: neither `--offline` nor its variable is set.
        alone = () if is_networked else means
        done = run_steps(wanted, where.cwd, means=alone, writable=allowed, temporary=where.temporary, env=env)
        assert done.surprises() == []
        assert len(done.of) == len(wanted)
        assert [(step.args, said["outside"]) for step, said in done.of if said["outside"]] == []
        assert [(step.args, said["careless"]) for step, said in done.of if said["careless"]] == []
    assert inventory(*untouched) == before
    assert list(where.temporary.iterdir()) == []
    assert sorted(path.name for path in clean_environment.iterdir()) == ["hf", "owm"]


def test_the_watch_is_real(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    wanted = Step(("config", "set", "temp=0.5"), code=1)
    done = run_steps([wanted], tmp_path, writable=[out], temporary=out, env={"TMPDIR": str(out)})
    ((_, said),) = done.of
    assert said["code"] == 1
    assert any(path.startswith(str(owm_home())) for path in said["outside"])
    assert not (owm_home() / "config.toml").exists()


# -- permissions -------------------------------------------------------------------------------------------------------


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_the_users_text_is_for_the_user_alone(
    mask: int, hub: HubServer, store: Store, tmp_path: Path, clean_environment: Path
) -> None:
    where = places(tmp_path)
    prepare(where, store)
    publish(hub)
    wanted = {("logs", "on"), ("login",), ("batch",), ("run",), ("chat",), ("prompts", "save"), ("config", "set"),
              ("sessions", "export")}  # fmt: skip
    chosen = [
        step
        for step in steps(where)
        if not step.code and not step.fails_at and (step.args[:1] in wanted or step.args[:2] in wanted)
    ]
    with umask(mask):
        done = run_steps(chosen, where.cwd, env={"HOME": str(where.home)})
    assert done.surprises() == []
    home, hf = clean_environment / "owm", clean_environment / "hf"
    texts = [path for name in PRIVATE for path in home.glob(name)]
    texts += [hf / "token", hf / "stored_tokens", *where.out.iterdir()]
    names = {
        path.relative_to(tmp_path if path.is_relative_to(tmp_path) else clean_environment).as_posix() for path in texts
    }
    assert {"owm/logs/log.db", "owm/config.toml", "owm/prompts/brief.txt", "hf/token"} <= names
    assert {"out/answers.jsonl", "out/answers.jsonl.manifest.json", "out/answers.jsonl.journal"} <= names
    assert {"out/errors.jsonl", "out/talk.md"} <= names
    assert any(name.startswith("owm/sessions/") for name in names)
    loose = {path: oct(mode(path)) for path in texts if mode(path) & 0o077}
    assert loose == {}


def test_a_log_is_private_in_all_its_parts_while_it_is_written(tmp_path: Path) -> None:
    from owm.logs import database

    path = tmp_path / "logs" / "log.db"
    with umask(0):
        make_private(path.parent)
        database._create_private(path)
        connection = database._open(path)
        try:
            connection.execute("BEGIN IMMEDIATE")
            parts = {each.name: mode(each) for each in path.parent.iterdir()}
        finally:
            connection.close()
    assert parts == dict.fromkeys(("log.db", "log.db-wal", "log.db-shm"), 0o600)


def test_what_is_being_written_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at in the moment before each gets its name."""
    seen: dict[str, int] = {}
    original = os.replace

    def look(source: Path, target: Path) -> None:
        seen[Path(source).name.partition(".")[0]] = mode(Path(source))
        original(source, target)

    monkeypatch.setattr(os, "replace", look)
    with umask(0):
        save_text(tmp_path / "talk.md", "said")
        publish_text(tmp_path / "note.json", "said", mode=0o600)
        with batch_files.replaced(tmp_path / "answers.jsonl") as file:
            assert file is not None
            assert mode(tmp_path / "answers.jsonl.incomplete") == 0o600
            file.write("said")
        history = HistoryFile(tmp_path / "history")
        for _ in range(40):
            history.add("x" * 60_000)
        history.load()
    assert seen == dict.fromkeys(("talk", "note", "answers", "history"), 0o600)
    assert mode(tmp_path / "history") == 0o600


def test_folders_of_the_users_text_are_private_with_all_above_them(tmp_path: Path) -> None:
    with umask(0):
        make_private(tmp_path / "home" / "cache" / "snapshots")
    for name in ("home", "home/cache", "home/cache/snapshots"):
        assert mode(tmp_path / name) == 0o700


@pytest.mark.parametrize("before", [0o644, 0o640, 0o600])
def test_a_file_that_the_user_has_made_keeps_its_permissions(before: int, tmp_path: Path) -> None:
    for name in ("talk.md", "answers.jsonl", "errors.jsonl"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(before)
    save_text(tmp_path / "talk.md", "said")
    with batch_files.replaced(tmp_path / "answers.jsonl") as file:
        assert file is not None
        file.write("said")
    with batch_files.ErrorsFile(tmp_path / "errors.jsonl") as errors:
        errors.write("said")
    for name in ("talk.md", "answers.jsonl", "errors.jsonl"):
        assert (mode(tmp_path / name), (tmp_path / name).read_text()) == (before, "said")


def test_an_editor_is_given_a_file_that_nobody_else_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    listing = tmp_path / "modes"
    script = tmp_path / "editor"
    script.write_text(f'#!/bin/sh\nstat -c "%a" "$1" "$(dirname "$1")" > {listing}\n')
    script.chmod(0o700)
    monkeypatch.setenv("VISUAL", str(script))
    with umask(0):
        assert external.edit("a draft") == "a draft"
    assert listing.read_text().split() == ["600", "700"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["editor", "modes"]


def test_a_token_is_private_also_where_a_killed_login_has_left_a_file(clean_environment: Path, hub: HubServer) -> None:
    from owm.store.sources import hub_login

    path = clean_environment / "hf" / "token"
    path.parent.mkdir()
    (path.parent / f"token.{os.getpid()}.incomplete").write_text("left")
    (path.parent / f"token.{os.getpid()}.incomplete").chmod(0o666)
    with umask(0):
        hub_login._write_secret(path, TOKEN)
    assert (mode(path), path.read_text()) == (0o600, TOKEN)


def test_defaults_lie_where_the_page_of_the_store_says(tmp_path: Path) -> None:
    """Without any variable: the user's data and config folders, and nothing else in the home."""
    home = tmp_path / "home"
    home.mkdir()
    unset = dict.fromkeys(("OWM_HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"))
    wanted = [Step(("list",)), Step(("logs", "on")), Step(("config", "set", "temp=0.5")), Step(("doctor",)),
              Step(("prompts", "save", "p"), stdin="Be brief.")]  # fmt: skip
    done = run_steps(wanted, tmp_path, env={**unset, "HOME": str(home)})
    assert done.surprises() == []
    usual = (".local/share/owm", ".config/owm") if sys.platform == "linux" else ("Library/Application Support/owm",)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {"config.toml", "p.txt", "on"} <= {path.name for path in files}
    assert [path for path in files if not any(path.is_relative_to(home / each) for each in usual)] == []
