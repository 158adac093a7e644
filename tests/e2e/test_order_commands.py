"""`owm list`, `du`, `prune`, `rm` and `verify` as people and scripts use them: real processes, files and kills."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from owm.store import manifest, pull
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.refs import parse
from support.facts import inspect, model_bytes
from support.hub_server import Fault, HubServer, Repo
from support.run import Output, finish, run, run_here, start
from support.stored import put_model
from support.terminal import Terminal
from support.tiny_gguf import tiny_gguf

Owm = Callable[..., Output]
N_KILLS = int(os.environ.get("OWM_TEST_KILLS", "1"))


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    """Run a command in this process."""
    return partial(run_here, capsys)


def put_outside(store: Store, file: Path, owner: str | None = "ollama") -> Path:
    """Store a model whose file lies elsewhere; return its folder."""
    folder = put_model(store, "o/theirs", "Q8_0", content=tiny_gguf())
    known = manifest.parse((folder / "manifest.json").read_text(), folder)
    (folder / "model-Q8_0.gguf").rename(file)
    record = replace(known.files[0], path=str(file), root="outside")
    manifest.write(replace(known, files=(record,), owner=owner), folder)
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    time.sleep(0.02)
    path.write_bytes(content)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)


# -- listing -----------------------------------------------------------------------------------------------------------


def test_a_list_can_be_sorted_and_filtered(owm: Owm, store: Store) -> None:
    for name, size in (("small", 100), ("large", 3000), ("middle", 2000)):
        put_model(store, f"o/{name}", "Q8_0", content=model_bytes(size))
    listed = owm("list", "--sort", "size", "--filter", "size>1k", "--json").json
    assert [model["name"] for model in listed] == ["o/large:Q8_0", "o/middle:Q8_0"]
    assert {model["owner"] for model in listed} == {"owm"}
    shown = owm("list", "--filter", "name~small")
    assert "o/small:Q8_0" in shown
    assert "OWNER" not in shown
    assert "large" not in shown
    nothing = owm("list", "--filter", "size>1TB")
    assert (nothing, nothing.exit_code) == ("", 0)
    assert nothing.stderr == "no stored model is like that\n"
    assert owm("list", "--filter", "size>1TB", "--json").json == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--filter", "colour=red"], "no field of a model: colour"),
        (["--filter", "size>big"], "not a size: big"),
        (["--sort", "colour"], "models are not sorted by colour"),
    ],
)
def test_a_wrong_condition_or_order_is_a_usage_error(owm: Owm, args: list[str], message: str) -> None:
    said = owm("list", *args)
    assert said.exit_code == 2
    assert f"error: {message}" in said.stderr
    assert "hint: " in said.stderr


def test_who_owns_the_bytes_is_shown_where_it_is_not_owm(owm: Owm, store: Store, tmp_path: Path) -> None:
    put_outside(store, tmp_path / "theirs.gguf")
    put_model(store, "o/mine", "Q8_0")
    for shown in (owm("list"), owm("list", "--all")):
        assert "OWNER" in shown
        assert "ollama" in shown
    assert [model["owner"] for model in owm("list", "--json").json] == ["owm", "ollama"]


def test_all_shows_what_other_tools_have_that_is_not_imported(
    owm: Owm, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".lmstudio/models/acme/tiny-GGUF/tiny-Q8_0.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(tiny_gguf())
    assert owm("list", "--json").json == []
    (found,) = owm("list", "--all", "--json").json
    assert found["path"] == str(file)
    assert found["is_imported"] is False
    assert "not imported" in owm("list", "--all")


@pytest.mark.parametrize(
    "args",
    [
        ["list", "--catalog", "--filter", "size>1"],
        ["list", "--catalog", "--all"],
        ["list", "--catalog", "--sort", "size"],
        ["prune", "--older", "", "--yes"],
        ["alias", "--remove"],
        ["store", "move", ""],
    ],
)
def test_what_would_mean_something_else_than_was_asked_is_refused(owm: Owm, store: Store, args: list[str]) -> None:
    put_model(store, "o/r", "Q8_0")
    work = store.home / "work/c"
    work.parent.mkdir(parents=True)
    work.write_bytes(b"x")
    said = owm(*args)
    assert (said, said.exit_code) == ("", 2)
    assert "error: " in said.stderr
    assert "hint: " in said.stderr
    assert work.exists()
    assert not (store.home / "models").is_symlink()


# -- du ----------------------------------------------------------------------------------------------------------------


def test_du_says_what_takes_how_much(owm: Owm, store: Store, tmp_path: Path) -> None:
    put_model(store, "o/mine", "Q8_0", content=model_bytes(5000))
    put_outside(store, tmp_path / "theirs.gguf")
    partial = store.home / "models/url/h/m/1/Q8_0/m.gguf.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(2000))
    found = owm("du", "--json").json
    assert set(found) == {"models", "owners", "other", "total_bytes", "disk"}
    assert set(found["models"][0]) == {"name", "owner", "size_bytes", "shared_bytes"}
    assert set(found["other"][0]) == {"what", "size_bytes", "n_files", "is_own"}
    assert {owner["owner"] for owner in found["owners"]} == {"owm", "ollama"}
    assert found["other"][0]["what"] == "incomplete downloads"
    assert found["disk"]["free_bytes"] > 0
    shown = owm("du")
    assert "o/mine:Q8_0" in shown
    assert "(incomplete downloads)" in shown
    assert "in all" in shown.stderr
    assert "ollama's" in shown.stderr


def test_du_of_an_empty_store_is_nothing(owm: Owm, store: Store) -> None:
    said = owm("du")
    assert (said, said.exit_code) == ("", 0)
    assert said.stderr.startswith("0 B in all")
    assert not store.home.exists()


# -- prune -------------------------------------------------------------------------------------------------------------


def test_prune_lists_asks_and_removes(owm: Owm, store: Store) -> None:
    put_model(store, "o/r", "Q8_0", content=tiny_gguf())
    partial = store.home / "models/url/h/m/1/Q8_0/m.gguf.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(2000))
    said = owm("prune", "--dry-run")
    assert str(partial) in said
    assert "would remove" in said.stderr
    refused = owm("prune")
    assert refused.exit_code == 2
    assert "hint: `owm prune --yes` removes it" in refused.stderr
    assert partial.exists()
    for answer, is_there in ((b"n\r", True), (b"y\r", False)):
        with Terminal(["prune"]) as terminal:
            terminal.wait_for("[y/N]")
            terminal.process.send(answer)
            assert terminal.wait_for_end() == 0
        assert partial.exists() == is_there
    assert owm("prune", "--yes", "--json").json == {"items": [], "freed_bytes": 0, "would_free_bytes": 0}
    assert owm("verify").exit_code == 0


def test_prune_of_a_kind_or_an_age(owm: Owm, store: Store) -> None:
    for name in ("cache/headers/a", "cache/snapshots/b.kv", "work/c"):
        path = store.home / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(100))
    os.utime(store.home / "work/c", (1000, 1000))
    assert owm("prune", "--older", "7d", "--yes", "--json").json["freed_bytes"] == 100
    found = owm("prune", "headers", "--yes", "--json").json
    assert [(item["kind"], item["is_removed"], item["is_in_use"]) for item in found["items"]] == [
        ("headers", True, False)
    ]
    assert (store.home / "cache/snapshots/b.kv").exists()
    assert owm("prune", "everything").exit_code == 2
    assert owm("prune", "--older", "soon").exit_code == 2


@pytest.mark.slow
def test_prune_leaves_a_running_pull_alone_and_takes_what_a_killed_one_left(
    owm: Owm, hub: HubServer, store: Store
) -> None:
    content = tiny_gguf() + bytes(3_000_000)
    hub.add(Repo("o/r", {"m-Q8_0.gguf": content}))
    hub.faults.append(Fault(path="", server="cdn", times=None, trickle_seconds=0.2))
    pulling = start(["-m", "owm", "pull", "o/r:Q8_0"])
    until(lambda: any(store.hub.rglob("*.owm.incomplete")))
    begun = list(store.hub.rglob("*.owm.incomplete"))
    found = owm("prune", "--yes", "--json").json
    assert [item["is_in_use"] for item in found["items"] if item["kind"] == "incomplete"] == [True] * len(
        found["items"]
    )
    assert begun[0].exists()
    os.kill(pulling.pid, signal.SIGKILL)
    finish(pulling)
    assert owm("prune", "--yes", "--json").json["items"][0]["is_removed"]
    assert not list(store.hub.rglob("*.owm.incomplete*"))
    assert owm("list", "--json").json == []


# -- rm ----------------------------------------------------------------------------------------------------------------


def test_removing_an_adopted_model_leaves_its_file(owm: Owm, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "theirs.gguf"
    folder = put_outside(store, file)
    assert "stays where it is" in owm("rm", "--dry-run", "o/theirs:Q8_0")
    said = owm("rm", "o/theirs:Q8_0", "--json")
    assert said.json == [{"name": "o/theirs:Q8_0", "freed_bytes": 0, "is_removed": True}]
    assert f"{file} stays where it is" in said.stderr
    assert file.exists()
    assert not folder.exists()


def test_removing_an_adopted_model_of_the_hub_cache_asks_nothing_and_leaves_it(owm: Owm, store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0")
    known = manifest.parse((folder / "manifest.json").read_text(), folder)
    file = store.hub / "models--o--r/snapshots" / ("a" * 40) / "m.gguf"
    file.parent.mkdir(parents=True)
    (folder / "model-Q8_0.gguf").rename(file)
    record = replace(known.files[0], path=file.relative_to(store.hub).as_posix(), root="hub")
    manifest.write(replace(known, files=(record,), owner="Hugging Face cache"), folder)
    assert owm("rm", "o/r").exit_code == 0
    assert file.exists()


def test_a_file_of_the_users_is_refused_in_a_dry_run_too(owm: Owm, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(tiny_gguf())
    for args in (["rm", file], ["rm", "--dry-run", file]):
        said = owm(*args)
        assert said.exit_code == 2
        assert "is a file of yours" in said.stderr
    assert file.exists()


def test_naming_a_model_twice_removes_it_once(owm: Owm, store: Store) -> None:
    put_model(store, "o/r", "Q8_0")
    assert [each["is_removed"] for each in owm("rm", "o/r", "o/r:Q8_0", "--json").json] == [True]


def test_a_hard_linked_copy_frees_nothing(owm: Owm, store: Store) -> None:
    first = put_model(store, "o/a", "Q8_0")
    second = put_model(store, "o/b", "Q8_0")
    (second / "model-Q8_0.gguf").unlink()
    os.link(first / "model-Q8_0.gguf", second / "model-Q8_0.gguf")
    assert owm("rm", "o/b", "--json").json[0]["freed_bytes"] == 0
    assert owm("rm", "o/a", "--json").json[0]["freed_bytes"] == 64


def test_a_removal_that_was_killed_is_finished_by_the_same_command(owm: Owm, store: Store) -> None:
    line = (
        "import os, signal\nfrom owm.library import open_store\nfrom owm.store import removing\n"
        "n = {0}\nreal = os.unlink\n"
        "def dies(*args, **kwargs):\n    global n\n    n -= 1\n    if n < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*args, **kwargs)\n"
        "os.unlink = dies\nstore = open_store()\n"
        "store.remove(store.find_exactly('o/r'), remove_hub_files=print)\n"
    )
    for n in range(4):
        folder = put_model(store, "o/r", "Q8_0")
        (folder / "model-Q8_0.recipe.json").write_text("{}")
        (folder / "zz.txt").write_text("x")
        killed = run(["-c", line.format(n)])
        listed = owm("list", "--json").json
        if killed.exit_code == 0:
            assert listed == []
        else:
            assert len(listed) == 1  # whole or gone, but known: the same command goes on
            assert owm("rm", "o/r").exit_code == 0
        assert not folder.exists()
        assert owm("list", "--json").json == []


def test_two_removals_at_once_both_end_well(owm: Owm, hub: HubServer, store: Store) -> None:
    hub.add(Repo("o/r", {"m-Q8_0.gguf": tiny_gguf()}))
    for _ in range(3):
        pull.execute(pull.plan(parse("o/r:Q8_0"), store), store, inspect=inspect)
        both = [start(["-m", "owm", "rm", "--yes", "o/r"]) for _ in range(2)]
        done = [finish(process) for process in both]
        assert 0 in [each.exit_code for each in done]
        assert {each.exit_code for each in done} <= {0, 3}, [each.stderr for each in done]
        assert "Traceback" not in done[0].stderr + done[1].stderr
        assert owm("list", "--json").json == []
        assert not list(store.hub.rglob("*.gguf"))


def test_a_model_that_was_removed_while_it_was_waited_for_is_no_error(store: Store) -> None:
    import shutil
    import threading

    folder = put_model(store, "o/r", "Q8_0")
    model = store.models()[0]
    freed: list[int] = []
    with store.lock(folder):
        thread = threading.Thread(target=lambda: freed.append(store.remove(model, remove_hub_files=print)))
        thread.start()
        time.sleep(0.2)
        shutil.rmtree(folder)
    thread.join(30)
    assert freed == [0]


# -- verify ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pulled(hub: HubServer, store: Store) -> StoredModel:
    """Two models from a Hub, one of them in two parts."""
    parts = {f"m-Q4_0-0000{i}-of-00002.gguf": model_bytes(200_000, seed=i) for i in (1, 2)}
    hub.add(Repo("o/parts", parts))
    hub.add(Repo("o/one", {"m-Q8_0.gguf": tiny_gguf()}))
    pull.execute(pull.plan(parse("o/parts:Q4_0"), store), store, inspect=inspect)
    model = pull.execute(pull.plan(parse("o/one:Q8_0"), store), store, inspect=inspect)
    hub.requests.clear()
    return model


def statuses(said: Output) -> list[str]:
    return [f"{row['name']} {row['status']}" for row in said.json]


def test_verify_is_quick_unless_all_is_asked_for(owm: Owm, store: Store, pulled: StoredModel) -> None:
    (found,) = owm("verify", "o/one", "--json").json
    assert [found[key] for key in ("name", "status", "problem", "hint")] == ["o/one:Q8_0", "whole", None, None]
    path = pulled.path.resolve()
    times = path.stat()
    flip(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert owm("verify", "o/one").exit_code == 0
    said = owm("verify", "o/one", "--full")
    assert said.exit_code == 7
    assert "damaged" in said
    assert "`owm verify --repair` fetches again what is damaged" in said.stderr


def test_verify_repairs_what_is_damaged_and_nothing_else(
    owm: Owm, hub: HubServer, store: Store, pulled: StoredModel
) -> None:
    flip(pulled.path.resolve())
    assert statuses(owm("verify", "o/one", "--json")) == ["o/one:Q8_0 damaged"]
    said = owm("verify", "o/one", "--repair", "--json")
    assert (statuses(said), said.exit_code) == (["o/one:Q8_0 repaired"], 0)
    assert pulled.path.read_bytes() == tiny_gguf()
    assert len(hub.transfers()) == 1
    assert statuses(owm("verify", "o/one", "--repair", "--json")) == ["o/one:Q8_0 whole"]
    assert len(hub.transfers()) == 1


def test_a_repair_that_fails_says_why_and_the_model_is_still_damaged(
    owm: Owm, hub: HubServer, store: Store, pulled: StoredModel
) -> None:
    flip(pulled.path.resolve())
    hub.faults.append(Fault(path="o/one", server="hub", method=None, times=None, status=404))
    said = owm("verify", "o/one", "--repair", "--json")
    assert said.exit_code == 7
    (row,) = said.json
    assert row["status"] == "damaged"
    assert row["problem"]
    assert owm("verify", "o/one").exit_code == 7


def test_a_repair_that_was_killed_goes_on(owm: Owm, hub: HubServer, store: Store) -> None:
    content = tiny_gguf() + bytes(2_000_000)
    hub.add(Repo("o/big", {"m-Q8_0.gguf": content}))
    model = pull.execute(pull.plan(parse("o/big:Q8_0"), store), store, inspect=inspect)
    for number in range(N_KILLS):
        if model.path.exists():
            flip(model.path.resolve())
        hub.faults[:] = [Fault(path="", server="cdn", times=None, trickle_seconds=0.01)]
        repairing = start(["-m", "owm", "verify", "--repair"])
        if number == 0:
            until(lambda: any(store.hub.rglob("*.owm.incomplete")))
        else:
            time.sleep(0.4 + number % 8 * 0.2)
        repairing.kill()
        finish(repairing)
        hub.faults.clear()
        assert owm("verify", "--repair").exit_code == 0
        assert model.path.read_bytes() == content
        assert statuses(owm("verify", "--full", "--json")) == ["o/big:Q8_0 whole"]
    owm("prune", "--yes")
    assert not list(store.hub.rglob("*.damaged"))


def test_verify_names_what_is_gone_damaged_and_unreadable(owm: Owm, store: Store) -> None:
    gone, damaged = put_model(store, "o/gone", "Q8_0"), put_model(store, "o/bad", "Q8_0")
    put_model(store, "o/good", "Q8_0", content=tiny_gguf())
    (gone / "model-Q8_0.gguf").unlink()
    flip(damaged / "model-Q8_0.gguf")
    broken = put_model(store, "o/broken", "Q8_0")
    (broken / "manifest.json").write_text("{")
    said = owm("verify", "--json")
    assert said.exit_code == 7
    assert statuses(said) == ["None damaged", "o/bad:Q8_0 damaged", "o/gone:Q8_0 gone", "o/good:Q8_0 whole"]
    assert all(row["hint"] for row in said.json if row["status"] != "whole")


def test_the_header_of_a_file_that_is_not_stored_is_read(owm: Owm, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.gguf", tmp_path / "bad.gguf"
    good.write_bytes(tiny_gguf())
    bad.write_bytes(tiny_gguf()[:100])
    assert owm("verify", good).exit_code == 0
    said = owm("verify", bad, "--json")
    assert (said.exit_code, said.json[0]["status"]) == (7, "damaged")
    assert owm("verify", bad, "--repair").exit_code == 7


def test_a_store_that_cannot_be_written_can_be_verified_and_listed(owm: Owm, store: Store) -> None:
    folder = put_model(store, "o/r", "Q8_0", content=tiny_gguf())
    for path in (folder, store.home):
        path.chmod(0o500)
    try:
        assert run(["-m", "owm", "verify"], unprivileged=True).exit_code == 0
        assert run(["-m", "owm", "list"], unprivileged=True).exit_code == 0
        assert run(["-m", "owm", "du"], unprivileged=True).exit_code == 0
        assert run(["-m", "owm", "rm", "o/r"], unprivileged=True).exit_code == 1
    finally:
        for path in (folder, store.home):
            path.chmod(0o755)
    assert statuses(owm("verify", "--json")) == ["o/r:Q8_0 whole"]


def test_the_helps_of_the_commands_say_the_same_everywhere(owm: Owm) -> None:
    for command in ("list", "du", "prune", "rm", "verify"):
        said = owm(command, "--help")
        assert said.exit_code == 0
        assert "--json" in said


def test_json_is_one_value_on_stdout_even_with_problems(owm: Owm, store: Store) -> None:
    broken = put_model(store, "o/broken", "Q8_0")
    (broken / "manifest.json").write_text("{")
    for command in ("list", "du"):
        said = owm(command, "--json")
        json.loads(said)
        assert "is not a manifest" in said.stderr
