"""`owm store move` as a process that is killed: at any moment all models are there, and the same command ends it."""

import hashlib
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.store.local import Store
from support.facts import model_bytes
from support.hub_server import HubServer, Repo
from support.run import finish, run, run_here, start
from support.stored import put_model
from support.terminal import Terminal
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

N_KILLS = int(os.environ.get("OWM_TEST_KILLS", "2"))
STEP = 1 if "OWM_TEST_KILLS" in os.environ else 9  # every change to the disk, or every so many
PLACE_KEYS = {"name", "path", "place", "set_by", "is_there", "size_bytes", "free_bytes", "unfinished_move"}
Capture = pytest.CaptureFixture[str]
MOVE_KEYS = {"name", "path", "from", "to", "n_files", "size_bytes", "bytes_there", "is_moved"}


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system where there is one."""
    disk = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=disk if disk.is_dir() else tmp_path))
    yield folder
    shutil.rmtree(folder)


def _fill(store: Store, n_models: int, n_bytes: int) -> dict[str, str]:
    for number in range(n_models):
        put_model(store, f"me/model{number:02}", "Q8_0", content=model_bytes(n_bytes + number, number))
    return _hashes(store)


def _hashes(store: Store) -> dict[str, str]:
    return {
        model.name: hashlib.sha256(b"".join(path.read_bytes() for path in model.files)).hexdigest()
        for model in store.models()
    }


def test_killed_at_any_moment_all_models_are_there_and_the_same_command_ends_it(
    capsys: Capture, store: Store, other_disk: Path
) -> None:
    before = _fill(store, 24, 1_000_000)
    chance = random.Random(9)
    began = time.monotonic()
    assert run(["-m", "owm", "store", "move", other_disk / "measured", "--dry-run"]).exit_code == 0
    startup = time.monotonic() - began
    n_begun = n_moves = 0
    for number in range(N_KILLS):
        there = other_disk / f"{n_moves % 2}"
        process = start(["-m", "owm", "store", "move", there])
        if number % 2:
            time.sleep(chance.uniform(startup * 0.7, startup * 1.3 + 0.4))
        else:  # however slow the machine is: in the midst of it
            until = time.monotonic() + 30
            while not there.exists() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        n_begun += process.returncode == -signal.SIGKILL
        assert _hashes(store) == before
        if chance.random() < 0.4 or number == N_KILLS - 1:
            done = run_here(capsys, "store", "move", there)
            assert done.exit_code == 0, done.stderr
            _check_moved(store, there, before)
            assert sorted(path.name for path in other_disk.iterdir() if (path / "models").exists()) == [there.name]
            n_moves += 1
    assert n_begun > 0


def test_killed_before_any_change_to_the_disk_all_models_are_there(store: Store, other_disk: Path) -> None:
    before = _fill(store, 2, 10_000)
    script = (Path(__file__).parent.parent / "support" / "dying_move.py").read_text()
    places = [other_disk / name for name in "ab"]
    done = run(["-c", script, str(STEP), *places])
    assert done.exit_code == 0, done.stderr
    found = done.json
    assert found["n_killed"] > 60 // STEP
    _check_moved(store, Path(found["place"]), before)


def _check_moved(store: Store, there: Path, before: dict[str, str]) -> None:
    assert _hashes(store) == before
    assert (store.home / "models").resolve() == (there / "models").resolve()
    assert sorted(path.name for path in store.home.iterdir()) == ["locks", "models"]


def test_a_pull_under_way_is_waited_for_and_goes_along(store: Store, other_disk: Path, hub: HubServer) -> None:
    _fill(store, 2, 100_000)
    hub.plain["m-Q8_0.gguf"] = tiny_gguf(n_blocks=4)
    slow = hub.fail("/plain/m-Q8_0.gguf", times=None, trickle_seconds=0.2)
    pulling = start(["-m", "owm", "pull", hub.url("m-Q8_0.gguf"), "--jobs", "1"])
    _until(lambda: any((store.home / "models").rglob("*.incomplete")))
    moving = start(["-m", "owm", "store", "move", other_disk])
    said = ""
    while "waiting for it" not in said:
        line = moving.stderr.readline()  # type: ignore[union-attr]
        assert line, said
        said += line
    slow.trickle_seconds = 0.001
    done = finish(moving)
    assert done.exit_code == 0, done.stderr
    pulled = finish(pulling)
    assert pulled.exit_code == 0, pulled.stderr
    assert len(store.models()) == 3
    for model in store.models():
        store.verify(model)
    assert (store.home / "models").is_symlink()


def test_after_a_move_models_are_pulled_run_and_removed_as_before(
    capsys: Capture, store: Store, other_disk: Path, hub: HubServer
) -> None:
    put_model(store, "me/tiny", "Q8_0", content=tiny_gguf())
    assert run_here(capsys, "store", "move", other_disk).exit_code == 0
    assert run(["-m", "owm", "run", "me/tiny", "the", "--max-tokens", "3"]).exit_code == 0
    hub.plain["m-Q8_0.gguf"] = tiny_gguf(seed=1)
    assert run_here(capsys, "pull", hub.url("m-Q8_0.gguf")).exit_code == 0
    assert len(list((other_disk / "models").rglob("m-Q8_0.gguf"))) == 1
    assert run_here(capsys, "rm", hub.url("m-Q8_0.gguf")).exit_code == 0
    assert run_here(capsys, "rm", "me/tiny:Q8_0").exit_code == 0
    assert run_here(capsys, "list", "--json").json == []
    assert not list(other_disk.rglob("*.gguf"))


def test_the_places_are_shown_with_what_they_hold(capsys: Capture, store: Store, other_disk: Path) -> None:
    _fill(store, 2, 100_000)
    shown = run_here(capsys, "store", "--json").json
    assert [set(place) for place in shown] == [PLACE_KEYS] * len(shown)
    assert shown[0]["path"] == shown[0]["place"] == str(store.home / "models")
    assert shown[0]["size_bytes"] > 200_000
    assert shown[0]["set_by"] == "OWM_HOME"
    run_here(capsys, "store", "move", other_disk)
    assert f"{store.home / 'models'} -> {other_disk / 'models'}" in run_here(capsys, "store")


def test_a_dry_run_says_what_would_be_moved_and_moves_nothing(capsys: Capture, store: Store, other_disk: Path) -> None:
    _fill(store, 2, 1 << 20)
    said = run_here(capsys, "store", "move", other_disk, "--dry-run")
    assert said == f"would move the models to {other_disk.resolve() / 'models'}: 4 files, 2.00 MiB\n"
    found = run_here(capsys, "store", "move", other_disk, "--dry-run", "--json").json
    assert [set(each) for each in found] == [MOVE_KEYS]
    assert not (store.home / "models").is_symlink()
    assert not (other_disk / "models").exists()


def test_what_stays_in_the_hub_cache_is_said_and_moved_when_asked(
    capsys: Capture, store: Store, other_disk: Path, hub: HubServer
) -> None:
    hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf()}))
    assert run_here(capsys, "pull", "me/tiny").exit_code == 0
    done = run_here(capsys, "store", "move", other_disk)
    assert "stay in the Hugging Face cache" in done.stderr
    assert "`--hub`" in done.stderr
    assert run_here(capsys, "store", "move", other_disk, "--hub").exit_code == 0
    assert store.hub.is_symlink()
    assert run(["-m", "owm", "run", "me/tiny", "the", "--max-tokens", "3", "--offline"]).exit_code == 0
    assert run_here(capsys, "verify", "--full").exit_code == 0
    assert run_here(capsys, "rm", "--yes", "me/tiny").exit_code == 0
    assert not list(other_disk.rglob("*.gguf"))


def test_a_full_disk_leaves_everything_where_it_was(capsys: Capture, store: Store, other_disk: Path) -> None:
    before = _fill(store, 4, 3_000_000)
    script = (
        "import resource, signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "from owm.cli.app import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = run(["-c", script, "store", "move", other_disk])
    assert done.exit_code == 6, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert _hashes(store) == before
    assert not (store.home / "models").is_symlink()
    assert run_here(capsys, "store", "move", other_disk).exit_code == 0
    assert _hashes(store) == before


def test_a_place_that_may_not_be_written_is_one_sentence(store: Store, tmp_path: Path) -> None:
    _fill(store, 1, 1000)
    (tmp_path / "locked").mkdir(mode=0o500)
    done = finish(start(["-m", "owm", "store", "move", tmp_path / "locked"], unprivileged=True))
    assert done.exit_code == 1
    assert "cannot write to" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (store.home / "models").is_symlink()


def test_two_movers_at_once_make_one_move(store: Store, other_disk: Path) -> None:
    before = _fill(store, 8, 1_000_000)
    both = [start(["-m", "owm", "store", "move", other_disk]) for _ in range(2)]
    assert [finish(each).exit_code for each in both] == [0, 0]
    assert _hashes(store) == before


def test_ctrl_c_says_that_nothing_has_changed(store: Store, other_disk: Path) -> None:
    before = _fill(store, 30, 3_000_000)
    with Terminal(["store", "move", str(other_disk)]) as terminal:
        terminal.wait_for("moving the models")
        terminal.interrupt()
        code = terminal.wait_for_end()
    assert code in (0, 130, -signal.SIGINT), terminal.text()  # it may have been quicker, and at its end already
    assert _hashes(store) == before


def _until(condition: "object", seconds: float = 20) -> None:
    waiting = threading.Event()
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it does not happen"
        waiting.wait(0.02)
