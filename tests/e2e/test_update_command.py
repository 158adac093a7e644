"""`owm update`: what is stale and why, the new one beside the old, and nothing fetched whose content is the same."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from owm.store import manifest, refs
from owm.store.local import Store
from support.hub_server import HubServer, Repo
from support.run import run_here, start
from support.stored import put_model
from support.terminal import Terminal
from support.tiny_gguf import CHATML, tiny_gguf

KEYS = {
    "name", "state", "reason", "changes", "commit", "new_commit", "bytes_to_fetch", "is_updated", "is_old_removed",
    "error",
}  # fmt: skip
N_KILLS = int(os.environ.get("OWM_TEST_KILLS", "0"))  # at other moments than the two that are waited for
NEW_COMMIT = "b2c3d4e5" * 5
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    return hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf(), "README.md": b"one"}))


def _publish(repo: Repo, content: bytes, **changes: object) -> None:
    repo.files["tiny-Q8_0.gguf"] = content
    repo.commit = NEW_COMMIT
    for name, value in changes.items():
        setattr(repo, name, value)


def test_what_is_as_it_was_is_up_to_date(repo: Repo, capsys: Capture) -> None:
    run_here(capsys, "pull", "me/tiny")
    done = run_here(capsys, "update", "me/tiny")
    assert done.exit_code == 0
    assert done.stderr == "me/tiny:Q8_0 is up to date\n"


def test_a_new_commit_with_the_same_files_is_no_reason_to_fetch(repo: Repo, capsys: Capture, hub: HubServer) -> None:
    run_here(capsys, "pull", "me/tiny")
    _publish(repo, tiny_gguf())
    repo.files["README.md"] = b"two"
    n_transfers = len(hub.transfers())
    checked = run_here(capsys, "update", "--check", "--json").json
    assert [(each["state"], each["reason"]) for each in checked] == [
        ("current", "its files are the same in a newer commit")
    ]
    run_here(capsys, "update", "--all")
    assert len(hub.transfers()) == n_transfers


def test_a_check_says_what_has_changed_and_changes_nothing(
    repo: Repo, capsys: Capture, store: Store, hub: HubServer
) -> None:
    run_here(capsys, "pull", "me/tiny")
    new = tiny_gguf(3, 64, 1024, 1, CHATML + "\n", ())
    _publish(repo, new, licence="mit", gated=False)
    checked = run_here(capsys, "update", "--check", "--json").json
    assert [set(each) for each in checked] == [KEYS]
    (found,) = checked
    assert found["state"] == "stale"
    assert found["new_commit"] == NEW_COMMIT
    assert found["bytes_to_fetch"] == len(new)
    changes = {each["what"]: (each["before"], each["after"]) for each in found["changes"]}
    assert changes["licence"] == ("apache-2.0", "mit")
    assert "its file changed" in changes
    assert "size" in changes
    assert "chat template changed" in changes
    assert changes["context"] == ("512", "1024")
    assert found["is_updated"] is False
    assert len(store.models()) == 1
    shown = run_here(capsys, "update", "--check")
    assert "stale" in shown
    assert "licence apache-2.0 -> mit" in shown


def test_without_a_terminal_the_old_one_stays_until_that_is_said(
    repo: Repo, capsys: Capture, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(capsys, "pull", "me/tiny")
    new = tiny_gguf(seed=1)
    _publish(repo, new)
    done = run_here(capsys, "update", "me/tiny")
    assert done.exit_code == 0, done.stderr
    assert "the old one is kept" in done.stderr
    assert len(store.models()) == 2
    found = store.find(refs.parse("me/tiny"))
    assert found is not None
    assert found.path.read_bytes() == new
    states = {each["state"] for each in run_here(capsys, "update", "--check", "--json").json}
    assert states == {"current", "old"}
    assert run_here(capsys, "update", "--all", "--yes").exit_code == 0
    assert len(store.models()) == 1
    left = store.models()[0]
    assert left.path.read_bytes() == new
    assert not [path for path in store.hub.rglob("*") if path.is_file() and path.stat().st_size == len(new) + 1]


def test_with_yes_the_old_one_goes_when_the_new_one_is_there(repo: Repo, capsys: Capture, store: Store) -> None:
    run_here(capsys, "pull", "me/tiny")
    _publish(repo, tiny_gguf(seed=1))
    done = run_here(capsys, "update", "me/tiny", "--yes", "--json").json
    assert [(each["is_updated"], each["is_old_removed"]) for each in done] == [(True, True)]
    (left,) = store.models()
    assert left.path.read_bytes() == tiny_gguf(seed=1)
    blobs = list((store.hub / "models--me--tiny" / "blobs").iterdir())
    assert len([path for path in blobs if path.stat().st_size > 10_000]) == 1


def test_on_a_terminal_it_is_asked(capsys: Capture, repo: Repo, store: Store) -> None:
    run_here(capsys, "pull", "me/tiny")
    _publish(repo, tiny_gguf(seed=1))
    with Terminal(["update", "me/tiny"]) as terminal:
        terminal.wait_for("remove the old")
        terminal.wait_for("[y/N]")
        terminal.process.sendline("y")
        assert terminal.wait_for_end() == 0
    assert len(store.models()) == 1


def test_only_what_was_named_is_updated_and_a_repo_means_all_its_quants(hub: HubServer, capsys: Capture) -> None:
    one = hub.add(Repo("me/one", {"one-Q8_0.gguf": tiny_gguf(), "one-Q4_0.gguf": tiny_gguf(seed=2)}))
    two = hub.add(Repo("me/two", {"two-Q8_0.gguf": tiny_gguf(seed=3)}))
    for name in ("me/one:Q8_0", "me/one:Q4_0", "me/two"):
        run_here(capsys, "pull", name)
    for repo, file in ((one, "one-Q8_0.gguf"), (one, "one-Q4_0.gguf"), (two, "two-Q8_0.gguf")):
        repo.commit = NEW_COMMIT
        repo.files[file] = tiny_gguf(seed=len(file) + 20)
    n_asked = len(hub.asked("/api/models/me/one"))
    found = run_here(capsys, "update", "me/one", "--check", "--json").json
    assert [each["name"] for each in found] == ["me/one:Q4_0", "me/one:Q8_0"]
    assert len(hub.asked("/api/models/me/one")) == n_asked + 1
    assert len(run_here(capsys, "update", "me/one:Q8_0", "--check", "--json").json) == 1


def test_a_quant_that_its_repo_has_no_more_stays(repo: Repo, capsys: Capture, store: Store) -> None:
    run_here(capsys, "pull", "me/tiny")
    del repo.files["tiny-Q8_0.gguf"]
    repo.files["tiny-Q4_0.gguf"] = tiny_gguf(seed=1)
    repo.commit = NEW_COMMIT
    done = run_here(capsys, "update", "me/tiny")
    assert done.exit_code == 3
    assert len(store.models()) == 1
    (found,) = run_here(capsys, "update", "--check", "--json").json
    assert found["state"] == "unknown"
    assert "has it no more" in found["reason"]


def test_one_source_that_cannot_be_reached_stops_no_other(
    repo: Repo, hub: HubServer, capsys: Capture, store: Store
) -> None:
    hub.add(Repo("me/away", {"away-Q8_0.gguf": tiny_gguf(seed=5)}))
    run_here(capsys, "pull", "me/away")
    run_here(capsys, "pull", "me/tiny")
    _publish(repo, tiny_gguf(seed=1))
    hub.fail("/api/models/me/away", status=404, times=None)
    done = run_here(capsys, "update", "--all", "--yes")
    assert done.exit_code != 0
    assert "me/away" in done.stderr
    found = store.find(refs.parse("me/tiny"))
    assert found is not None
    assert found.path.read_bytes() == tiny_gguf(seed=1)


def test_what_was_asked_for_at_a_commit_or_made_here_stays(repo: Repo, capsys: Capture, store: Store) -> None:
    run_here(capsys, "pull", f"me/tiny@{repo.commit}")
    put_model(store, "local:mine", "Q4_K_M", source="local", name="mine", commit=None)
    _publish(repo, tiny_gguf(seed=1))
    found = {each["state"] for each in run_here(capsys, "update", "--check", "--json").json}
    assert found == {"pinned", "made here"}
    assert run_here(capsys, "update", "--all", "--yes").exit_code == 0
    assert len(store.models()) == 2


def test_a_web_address_is_known_by_its_etag(hub: HubServer, capsys: Capture, store: Store) -> None:
    hub.plain["m-Q8_0.gguf"] = tiny_gguf()
    url = hub.url("m-Q8_0.gguf")
    run_here(capsys, "pull", url)
    assert "up to date" in run_here(capsys, "update", url).stderr
    hub.plain["m-Q8_0.gguf"] = tiny_gguf(seed=1)
    assert len(tiny_gguf()) == len(tiny_gguf(seed=1))
    refused = run_here(capsys, "update", url)
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert run_here(capsys, "update", url, "--yes").exit_code == 0
    (left,) = store.models()
    assert left.path.read_bytes() == tiny_gguf(seed=1)
    assert "up to date" in run_here(capsys, "update", url).stderr


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_it(
    repo: Repo, store: Store, hub: HubServer, capsys: Capture
) -> None:
    run_here(capsys, "pull", "me/tiny")
    old, new = tiny_gguf(), tiny_gguf(n_blocks=12, seed=1)
    _publish(repo, new)
    slow = hub.fail("", server="cdn", times=None, trickle_seconds=0.05)
    for moment in (_is_begun, _is_stored_beside, *range(N_KILLS)):
        process = start(["-m", "owm", "update", "me/tiny", "--yes"])
        end = time.monotonic() + (0.4 + 0.15 * (moment % 8) if isinstance(moment, int) else 30)
        while time.monotonic() < end and process.poll() is None and (isinstance(moment, int) or not moment(store)):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert moment is not _is_begun or _is_begun(store)
        slow.trickle_seconds = 0.002
        found = store.find(refs.parse("me/tiny"))
        assert found is not None
        assert found.path.read_bytes() in (old, new)
    assert run_here(capsys, "update", "me/tiny", "--yes").exit_code == 0
    (left,) = store.models()
    assert left.path.read_bytes() == new


def _is_begun(store: Store) -> bool:
    return any(store.hub.rglob("*.owm.incomplete"))


def _is_stored_beside(store: Store) -> bool:
    return len(store.models()) == 2


def test_the_name_means_the_new_one_though_the_clock_was_set_back(repo: Repo, capsys: Capture, store: Store) -> None:
    run_here(capsys, "pull", "me/tiny")
    (old,) = store.models()
    assert old.manifest is not None
    assert old.folder is not None
    manifest.write(replace(old.manifest, created_at="2999-01-01T00:00:00+00:00"), old.folder)
    new = tiny_gguf(seed=1)
    _publish(repo, new)
    run_here(capsys, "update", "me/tiny")
    found = store.find(refs.parse("me/tiny"))
    assert found is not None
    assert found.path.read_bytes() == new
    assert run_here(capsys, "update", "--all", "--yes").exit_code == 0
    assert [model.path.read_bytes() for model in store.models()] == [new]


@pytest.mark.parametrize(
    ("words", "code"),
    [((), 2), (("--all", "me/tiny"), 2), (("me/none",), 3), (("--all", "--offline"), 4), (("me/tiny", "--offline"), 4)],
)
def test_wrong_requests_are_one_sentence_and_a_hint(
    capsys: Capture, repo: Repo, words: tuple[str, ...], code: int
) -> None:
    run_here(capsys, "pull", "me/tiny")
    done = run_here(capsys, "update", *words)
    assert done.exit_code == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 2


def test_an_empty_store_has_nothing_to_update(capsys: Capture, tmp_path: Path) -> None:
    assert run_here(capsys, "update", "--check").exit_code == 0
    assert run_here(capsys, "update", "--check", "--json").json == []
    assert run_here(capsys, "update", "--all", "--offline").exit_code == 0
