"""`owm fit`: what a model takes of this machine, for files, stored models and repos."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from owm.fit.fit import Room
from owm.library import fit_speeds, plan_pull, quantizing
from owm.library.fitting import fit_model, fit_offer
from owm.native.guard import Child
from owm.store.local import Store
from owm.store.model import StoredModel
from support.hub_server import HubServer, Repo
from support.run import Output, run_here
from support.stored import put_model
from support.tiny_checkpoint import write_tiny_checkpoint
from support.tiny_gguf import write_tiny_gguf

KEYS = {"model", "machine", "n_ctx", "n_parallel", "chosen", "reason", "quants", "notes"}
QUANT_KEYS = {"quant", "size_bytes", "bits_per_weight", "verdict", "n_ctx", "n_ctx_fitting", "memory", "speed",
    "kld_mean", "is_stored", "is_exact"}  # fmt: skip


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring the machine takes seconds; the tests of speeds do it."""
    monkeypatch.setattr(fit_speeds, "MEASURING_SECONDS", 0.0)


@pytest.fixture
def fit(capsys: pytest.CaptureFixture[str]) -> Callable[..., Output]:
    return lambda *args: run_here(capsys, "fit", *args)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny-F32.gguf")


def test_a_file_is_looked_at_where_it_lies(fit: Callable[..., Output], path: Path) -> None:
    done = fit(path)
    assert done.exit_code == 0, done.stderr
    assert [line.split() for line in done.splitlines()][1][:2] == ["F32", "*"]
    assert done.splitlines()[1].endswith("yes")
    assert "with a context of 512 tokens" in done.stderr
    assert "F32 is the only one, and it fits" in done.stderr


def test_the_json_has_these_keys(fit: Callable[..., Output], path: Path) -> None:
    found = json.loads(fit(path, "--json", "--ctx-size", "256", "--parallel", "2"))
    assert set(found) == KEYS
    [row] = found["quants"]
    assert set(row) == QUANT_KEYS
    assert (found["n_ctx"], found["n_parallel"], row["verdict"]) == (256, 2, "fits")
    memory = row["memory"]
    assert memory["allocated_bytes"] == sum(memory["cpu"].values())
    # Cells × keys and values × blocks × values × bytes; llama.cpp says it in hundredths of a MiB.
    assert memory["cpu"]["kv_bytes"] == pytest.approx(2 * 256 * 2 * 2 * 32 * 2, abs=0.006 * (1 << 20))


def test_a_table_fits_sixty_columns(fit: Callable[..., Output], path: Path) -> None:
    assert all(len(line) <= 60 for line in fit(path).splitlines())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--ctx-size", "0"], "--ctx-size must be positive"),
        (["--cache-type-k", "q9"], "--cache-type-k must be one of"),
        (["--ctx-size", "99999999"], "--ctx-size times --parallel must be at most"),
        (["--gpu-layers", "-2"], "--gpu-layers must be -1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    fit: Callable[..., Output], path: Path, args: list[str], words: str
) -> None:
    done = fit(path, *args)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_context_beyond_the_models_own_is_said(fit: Callable[..., Output], path: Path) -> None:
    assert "F32 was made for contexts of at most 512 tokens" in fit(path, "--ctx-size", "4096").stderr


def test_a_damaged_file_is_refused(fit: Callable[..., Output], tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    assert fit(tmp_path / "bad.gguf").exit_code == 7


def test_a_folder_with_original_weights_has_a_row_for_each_common_type(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    report = fit_model(folder)
    assert {"Q4_K_M", "Q8_0", "BF16"} <= {row.label for row in report.rows}
    assert report.chosen is not None
    assert report.chosen.label == "Q4_K_M"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model in three types."""
    folder = tmp_path_factory.mktemp("published")
    source = write_tiny_gguf(folder / "tiny-F32.gguf", n_embd=256)
    opened = quantizing.of_model(StoredModel(str(source), None, (source,)), str(source))
    with Child() as child:
        for planned in quantizing.plan(opened, ["Q8_0", "Q4_0"], child):
            quantizing.write(opened, [planned], [[folder / f"tiny-{planned.label}.gguf"]], child)
    return {path.name: path.read_bytes() for path in folder.glob("*.gguf")}


def test_all_quants_of_a_repo_are_told_from_one_header(
    hub: HubServer, store: Store, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.add(Repo("maker/tiny", files))
    report = fit_model("maker/tiny", store=store)
    assert [(row.label, row.is_exact, row.verdict) for row in report.rows] == [
        ("Q4_0", False, "fits"),
        ("Q8_0", True, "fits"),
        ("F32", False, "fits"),
    ]
    for row in report.rows:
        name = f"tiny-{row.label}.gguf"
        (tmp_path / name).write_bytes(files[name])
        [own] = fit_model(tmp_path / name, store=store).rows
        assert row.need is not None
        assert own.need is not None
        assert row.need.allocated_bytes == pytest.approx(own.need.allocated_bytes, rel=0.01)
    assert report.chosen is not None
    assert report.chosen.label == "Q8_0"
    assert not list(store.hub.rglob("*.gguf"))
    assert not list((store.home / "models").rglob("*"))


def test_a_quant_that_is_named_is_the_only_row(hub: HubServer, store: Store, files: dict[str, bytes]) -> None:
    hub.add(Repo("maker/tiny", files))
    assert [row.label for row in fit_model("maker/tiny:Q4_0", store=store).rows] == ["Q4_0"]
    quick = fit_offer(plan_pull("maker/tiny:F32", store=store), store=store, deadline_seconds=60)
    assert [(row.label, row.is_exact) for row in quick.rows] == [("F32", True)]


def test_of_a_stored_model_the_stored_quants_are_shown_without_a_network(store: Store, files: dict[str, bytes]) -> None:
    for label in ("Q8_0", "Q4_0"):
        put_model(store, "maker/tiny", label, content=files[f"tiny-{label}.gguf"])
    report = fit_model("maker/tiny", store=store)
    assert [(row.label, row.is_stored, row.is_exact) for row in report.rows] == [
        ("Q4_0", True, True),
        ("Q8_0", True, True),
    ]
    assert report.reason == "Q8_0 is stored already"
    assert [row.label for row in fit_model("maker/tiny:Q4_0", store=store).rows] == ["Q4_0"]


def test_a_model_that_has_no_room_says_with_which_context_it_has(
    fit: Callable[..., Output], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny-F32.gguf", n_embd=256, n_ctx_train=65536)
    [whole] = fit_model(path, n_ctx=65536).rows
    assert whole.need is not None
    least = whole.need.process_bytes + whole.need.allocated_bytes - whole.need.cpu.kv_bytes // 2
    monkeypatch.setattr("owm.fit.fit.room", lambda: Room(int(least / 0.9)))
    done = fit(path, "--ctx-size", "65536", "--json")
    [row] = json.loads(done)["quants"]
    assert row["verdict"] == "partly"
    assert 16384 < row["n_ctx_fitting"] <= 49152
    assert "ctx " in fit(path, "--ctx-size", "65536")
    monkeypatch.setattr("owm.fit.fit.room", lambda: Room(1 << 20))
    assert "does not fit this machine" in fit(path).stderr


def test_a_kind_of_model_that_llama_does_not_know_has_a_row_and_a_note(
    fit: Callable[..., Output], tmp_path: Path
) -> None:
    path = write_tiny_gguf(tmp_path / "new-F32.gguf", metadata={"general.architecture": "nonesuch"})
    done = fit(path)
    assert done.exit_code == 0
    assert done.splitlines()[1].endswith("?")
    assert "the installed llama.cpp does not know the architecture nonesuch, and cannot run it" in done.stderr


def test_original_weights_are_planned_in_common_types_before_any_is_fetched(
    hub: HubServer, store: Store, tmp_path: Path
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny", n_shards=2)
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add(Repo("maker/tiny", contents))
    report = fit_model("maker/tiny", store=store)
    assert report.notes == ()
    here = fit_model(folder, store=store)
    assert [(row.label, row.size_bytes) for row in report.rows] == [(row.label, row.size_bytes) for row in here.rows]
    assert all(row.verdict == "fits" for row in report.rows)
    assert report.chosen is not None
    assert report.chosen.label == "Q4_K_M"
    assert not list(store.hub.rglob("*.safetensors"))


def test_a_header_that_cannot_be_looked_at_leaves_sizes(hub: HubServer, store: Store) -> None:
    hub.add(Repo("maker/tiny", {"tiny-Q4_K_M.gguf": b"no model", "tiny-Q8_0.gguf": b"no model at all"}))
    report = fit_offer(plan_pull("maker/tiny", store=store), store=store, deadline_seconds=60)
    assert [(row.label, row.need, row.verdict) for row in report.rows] == [
        ("Q4_K_M", None, None),
        ("Q8_0", None, None),
    ]
    assert report.chosen is not None
    assert report.chosen.label == "Q4_K_M"
    assert "header cannot be looked at" in report.notes[0]


def test_what_takes_too_long_is_left_out(hub: HubServer, store: Store, files: dict[str, bytes]) -> None:
    hub.add(Repo("maker/tiny", files))
    plan = plan_pull("maker/tiny", store=store)
    hub.fail("tiny-Q8_0", method=None, hang=True, times=None)
    hub.fail(server="cdn", method=None, hang=True, times=None)
    report = fit_offer(plan, store=store, deadline_seconds=0.3)
    assert [row.label for row in report.rows] == ["Q4_0", "Q8_0", "F32"]
    assert report.notes == ("there was no time to look at its header",)
