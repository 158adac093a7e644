"""Snapshots of what a model has read: whole or not there, never of another model, within their limits."""

import os
import random
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from owm.engine import snapshots as module
from owm.engine.retained import common_length
from owm.engine.snapshots import Fingerprint, Snapshot, Snapshots
from owm.events import Event, Warned
from support.run import finish, start

MINE = Fingerprint("a" * 64, "build 1", (("type_k", 1.0), ("flash_attn_type", -1.0)), (("b" * 64, 0.5),))
TOKENS = list(range(100, 160))
STATE = bytearray(random.Random(1).randbytes(3000))


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def kept(tmp_path: Path, told: list[Event]) -> Snapshots:
    return Snapshots(tmp_path / "cache" / "snapshots", sink=told.append)


def put(kept: Snapshots, tokens: list[int] = TOKENS, state: bytearray = STATE, **more: Any) -> Path:
    path = kept.save(MINE, tokens, state, **more)
    assert path is not None
    return path


def look(kept: Snapshots, prompt: list[int] = TOKENS, fingerprint: Fingerprint = MINE) -> Snapshot | None:
    return kept.find(fingerprint, lambda tokens: common_length(tokens, prompt))


def said(told: list[Event]) -> list[str]:
    assert all(isinstance(event, Warned) for event in told)
    return [event.message for event in told if isinstance(event, Warned)]


def test_what_was_saved_is_found_and_loaded(kept: Snapshots, told: list[Event]) -> None:
    path = put(kept, label="smollm2")
    found = look(kept)
    assert found is not None
    assert (found.path, list(found.tokens), found.label) == (path, TOKENS, "smollm2")
    assert kept.load(found) == STATE
    assert [one.path for one in kept.all()] == [path]
    assert told == []


def test_only_its_owner_may_read_a_snapshot(kept: Snapshots) -> None:
    before = os.umask(0)
    try:
        path = put(kept)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700


def test_the_one_with_most_in_common_is_found(kept: Snapshots) -> None:
    put(kept, TOKENS[:20])
    long = put(kept, [*TOKENS[:40], 1, 2, 3])
    put(kept, [*TOKENS[:30], 7] * 3)
    found = look(kept)
    assert found is not None
    assert found.path == long
    assert look(kept, [5]) is None


@pytest.mark.parametrize(
    "other",
    [
        replace(MINE, model="c" * 64),
        replace(MINE, build="build 2"),
        replace(MINE, settings=(("type_k", 8.0), ("flash_attn_type", -1.0))),
        replace(MINE, adapters=(("b" * 64, 1.0),)),
        replace(MINE, adapters=()),
    ],
)
def test_one_of_another_model_build_or_settings_is_never_found(kept: Snapshots, other: Fingerprint) -> None:
    put(kept)
    assert look(kept, fingerprint=other) is None


def test_one_under_the_name_of_another_is_never_found(kept: Snapshots) -> None:
    other = replace(MINE, model="c" * 64)
    mine = put(kept)
    theirs = kept.save(other, TOKENS, STATE)
    assert theirs is not None
    shutil.copyfile(mine, theirs)
    assert look(kept, fingerprint=other) is None


def test_flipped_bytes_and_truncations_are_never_given_away(kept: Snapshots, told: list[Event]) -> None:
    path = put(kept, label="x")
    whole = path.read_bytes()
    chance = random.Random(2)
    begin = len(whole) - len(STATE)
    for number in range(400):
        damaged = bytearray(whole)
        match number % 4:
            case 0:
                del damaged[chance.randrange(len(damaged)) :]
            case 1:
                damaged[chance.randrange(begin)] ^= 1 << chance.randrange(8)
            case 2:
                damaged[chance.randrange(begin, len(damaged))] ^= 1 << chance.randrange(8)
            case _:
                damaged += chance.randbytes(chance.randint(1, 9))
        path.write_bytes(damaged)
        told.clear()
        found = look(kept)
        assert found is None or kept.load(found) is None, number
        assert not path.exists(), number
        assert len(said(told)) == 1
        assert said(told)[0].startswith("a snapshot was damaged and has been removed: ")


def test_one_that_goes_between_finding_and_loading_is_no_failure(kept: Snapshots, told: list[Event]) -> None:
    put(kept)
    found = look(kept)
    assert found is not None
    found.path.unlink()
    assert kept.load(found) is None
    put(kept, TOKENS[:30]).rename(found.path)
    assert kept.load(found) is None
    assert told == []


def test_the_ones_used_least_lately_give_way(tmp_path: Path) -> None:
    kept = Snapshots(tmp_path, limit_bytes=4 * 3600)
    paths = [put(kept, [i, *TOKENS]) for i in range(3)]
    for i, path in enumerate(paths):
        os.utime(path, (1000 + i, 1000 + i))
    found = look(kept, [0, *TOKENS])
    assert found is not None
    assert kept.load(found) is not None  # and so it is the one used last
    put(kept, [3, *TOKENS])
    put(kept, [4, *TOKENS])
    assert sorted(one.tokens[0] for one in kept.all()) == [0, 2, 3, 4]
    assert sum(one.size_bytes for one in kept.all()) <= 4 * 3600


def test_one_that_is_larger_than_the_limit_is_not_written_and_nothing_gives_way(
    tmp_path: Path, told: list[Event]
) -> None:
    kept = Snapshots(tmp_path, limit_bytes=8000, sink=told.append)
    path = put(kept)
    assert kept.save(MINE, TOKENS[:5], bytearray(9000)) is None
    assert [one.path for one in kept.all()] == [path]
    assert len(said(told)) == 1
    assert "its snapshot needs 9." in said(told)[0] or "its snapshot needs 8." in said(told)[0]
    assert not kept.has_room(8001)


def test_snapshots_take_a_share_of_what_is_free(kept: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    n_free = [190_000]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda at: SimpleNamespace(free=n_free[0]))
    assert kept.room_bytes() == 9_500
    first = put(kept)
    second = put(kept, [1, *TOKENS])
    os.utime(first, (1, 1))
    put(kept, [2, *TOKENS])
    assert not first.exists()
    assert second.exists()
    n_free[0] = 0
    assert kept.save(MINE, [3], STATE) is None
    assert second.exists()


@contextmanager
def files_up_to(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_the_snapshot_alone(kept: Snapshots, told: list[Event]) -> None:
    path = put(kept)
    with files_up_to(2000):
        assert kept.save(MINE, [1, 2, 3], STATE) is None
    assert [one.path for one in kept.all()] == [path]
    assert sorted(one.name for one in kept.folder.iterdir()) == sorted([".lock", path.name])
    assert said(told) == [
        "the conversation will be read anew next time: no snapshot was written (File too large)"
    ]  # fmt: skip


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, told: list[Event]) -> None:
    (tmp_path / "file").touch()
    kept = Snapshots(tmp_path / "file" / "snapshots", sink=told.append)
    assert kept.save(MINE, TOKENS, STATE) is None
    assert look(kept) is None
    assert len(told) == 1


def test_what_a_killed_process_left_is_removed(kept: Snapshots) -> None:
    put(kept)
    left = kept.folder / "x.kv.123.incomplete"
    left.write_bytes(b"half")
    put(kept, TOKENS[:3])
    assert not left.exists()


def test_a_longer_one_replaces_its_own_beginnings(kept: Snapshots) -> None:
    put(kept, TOKENS[:10])
    other = put(kept, [9, 9])
    put(kept, [*TOKENS[:20], 3])
    long = put(kept, TOKENS, replaces_beginnings=True)
    assert {one.path for one in kept.all()} >= {other, long}
    assert sorted(len(one.tokens) for one in kept.all()) == [2, 21, 60]


def test_saving_waits_for_another_process_but_not_for_ever(
    kept: Snapshots, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(kept)
    monkeypatch.setattr(module, "_LOCK_SECONDS", 0.05)
    with FileLock(kept.folder / ".lock"):
        assert kept.save(MINE, [1], STATE) is None
    assert "another process is at work there" in said(told)[0]


WORKER = """
import random, sys
from pathlib import Path
from owm.engine.snapshots import Fingerprint, Snapshots
kept = Snapshots(Path(sys.argv[1]), limit_bytes=60_000, sink=lambda event: sys.exit(str(event)))
mine, chance = Fingerprint("a" * 64, "build 1"), random.Random(int(sys.argv[2]))
def state_of(tokens): return bytearray(random.Random(len(tokens)).randbytes(9000))
for _ in range(60):
    n = chance.randint(1, 12)
    tokens = list(range(n))
    if chance.random() < 0.5:
        assert kept.save(mine, tokens, state_of(tokens)) is not None
    found = kept.find(mine, lambda tokens: len(tokens) if len(tokens) <= n else 0)
    state = found and kept.load(found)
    assert state is None or state == state_of(found.tokens)
"""


def test_processes_at_the_same_time_neither_fail_nor_see_halves(tmp_path: Path) -> None:
    workers = [start(["-c", WORKER, tmp_path, str(seed)]) for seed in range(3)]
    for worker in workers:
        done = finish(worker)
        assert (done.exit_code, done.stderr) == (0, "")
    assert sum(path.stat().st_size for path in tmp_path.glob("*.kv")) <= 60_000
    assert not list(tmp_path.glob("*.incomplete"))


def test_clearing_removes_all(kept: Snapshots) -> None:
    assert kept.clear() == (0, 0)
    n_bytes = put(kept).stat().st_size + put(kept, [1]).stat().st_size
    assert kept.clear() == (2, n_bytes)
    assert kept.all() == []
