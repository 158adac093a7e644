"""`owm tune`: listed and forgotten; and tuning a real, tiny model from settings that are plainly bad."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from owm.engine.tuning import Tuning
from owm.errors import Damaged, UsageError
from owm.hardware.machine import this_machine
from owm.library.configuring import effective, identity_of
from owm.library.tuning import tune_model
from owm.settings import tuned
from owm.settings.tuned import Tuned
from owm.store import refs
from owm.store.local import Store
from owm.store.model import StoredModel, at_path
from support.run import run_here
from support.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    return at_path(refs.parse(str(write_tiny_gguf(tmp_path / "tiny.gguf"))))


def entry(**changes: str) -> Tuned:
    machine = this_machine()
    one = Tuned(
        "a" * 64, machine.fingerprint, machine.build, "smollm2", machine.cpu, {"threads": 3}, {"prompt": 1.25},
        "2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    return replace(one, **changes)  # type: ignore[arg-type]


def test_nothing_is_tuned_at_first(capsys: Capture) -> None:
    for words in (("tune",), ("tune", "list")):
        done = run_here(capsys, *words)
        assert (done, done.exit_code) == ("", 0)
        assert done.stderr == "nothing is tuned; `owm bench --tune MODEL` finds what is fastest here\n"
    assert run_here(capsys, "tune", "--json").json == []
    assert run_here(capsys, "tune", "rm", "--all").stderr == "nothing is tuned\n"


def test_what_is_tuned_is_listed_with_what_it_is_worth(capsys: Capture) -> None:
    tuned.save(tuned.default_path(), entry())
    tuned.save(tuned.default_path(), entry(machine="0" * 12, machine_name="Other CPU"))
    done = run_here(capsys, "tune")
    lines = done.splitlines()
    assert lines[0].split() == ["MODEL", "TUNED", "GAIN", "MACHINE", "WHEN"]
    assert "smollm2  threads 3  prompt × 1.25" in lines[1]
    assert "Other CPU (another machine or build)" in lines[2]
    rows = run_here(capsys, "tune", "list", "--json").json
    assert set(rows[0]) == {
        "model", "identity", "machine", "machine_name", "build", "is_here", "values", "gain", "tuned_at",
    }  # fmt: skip
    assert [row["is_here"] for row in rows] == [True, False]


def test_a_model_is_forgotten_by_its_name_or_its_bytes(stored: StoredModel, capsys: Capture) -> None:
    path = tuned.default_path()
    tuned.save(path, entry())
    tuned.save(path, entry(model=identity_of(stored), name="tiny"))
    done = run_here(capsys, "tune", "rm", "smollm2")
    assert done.stderr.startswith("forgotten for smollm2 on ")
    assert [one.name for one in tuned.load(path)] == ["tiny"]
    assert run_here(capsys, "tune", "rm", str(stored.path), "--json").json[0]["model"] == "tiny"
    assert tuned.load(path) == []
    done = run_here(capsys, "tune", "rm", "smollm2")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (3, "error: nothing is tuned for smollm2")


def test_what_to_forget_is_named(capsys: Capture) -> None:
    for words in (("rm",), ("rm", "smollm2", "--all")):
        assert run_here(capsys, "tune", *words).exit_code == 2


def test_a_damaged_file_is_told_of_and_begun_anew(capsys: Capture) -> None:
    path = tuned.default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    done = run_here(capsys, "tune")
    assert done.exit_code == 7
    assert "hint: `owm tune rm --all` begins anew" in done.stderr
    assert run_here(capsys, "tune", "rm", "--all").exit_code == 0
    assert run_here(capsys, "tune").exit_code == 0


def test_a_real_model_is_tuned_within_the_budget_and_what_is_found_is_used(stored: StoredModel, store: Store) -> None:
    outcome = tune_model(stored, "tiny", budget_seconds=6, start={"threads": 1, "ubatch_size": 16, "temp": 0.5})
    assert outcome.found.seconds <= 7.2
    assert outcome.found.n_measured >= 5
    assert tuned.load(tuned.default_path()) == [outcome.kept]
    assert outcome.kept.values.get("ubatch_size") != 16
    assert outcome.said()[0].endswith("s)")
    _, settings = effective(stored, store, {})
    for name, value in outcome.kept.values.items():
        assert (settings[name].value, settings[name].origin) == (value, "tuned")


def test_a_budget_in_which_nothing_can_be_found_is_refused(stored: StoredModel) -> None:
    for seconds in (0, 4.9, -1, float("nan"), float("inf"), 1e6):
        with pytest.raises(UsageError, match=r"^--budget must be from 5 s to a day: "):
            tune_model(stored, "tiny", budget_seconds=seconds)


def test_a_damaged_file_is_told_of_before_the_work(stored: StoredModel) -> None:
    path = tuned.default_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    with pytest.raises(Damaged):
        tune_model(stored, "tiny")
    assert path.read_text() == "{"


def test_what_is_kept_can_be_read_by_people_and_programs(stored: StoredModel) -> None:
    tuned.save(tuned.default_path(), entry())
    raw = json.loads(tuned.default_path().read_text())
    assert raw["version"] == 1
    assert raw["tuned"][0]["values"] == {"threads": 3}
    assert Tuning().said() == {}
