"""`owm pull` before the first byte: a row for each quant, the choice and its reason, licence, memory; and its flags."""

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from owm.errors import NotEnoughMemory
from owm.fit.fit import Fit, Room
from owm.fit.memory import Buffers, Need
from owm.library import plan_pull, pulling
from owm.library.fitting import FitReport, fit_offer
from owm.store.local import Store
from owm.store.refs import parse
from support.hub_server import HubServer, Repo
from support.run import Output, run_here
from support.terminal import Terminal
from support.tiny_gguf import tiny_gguf

DRY_RUN_KEYS = {
    "name", "source", "commit", "licence", "licence_terms", "is_gated", "size_bytes", "files", "is_checkpoint",
    "is_stored", "quants", "chosen", "reason", "n_ctx", "notes",
}  # fmt: skip
SMALL = tiny_gguf()
LARGE = tiny_gguf(n_blocks=4)

Owm = Callable[..., Output]


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str]) -> Owm:
    return lambda *args: run_here(capsys, *args)


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    files = {"t-Q4_K_M.gguf": SMALL, "t-Q8_0.gguf": LARGE, "t-Q2_K.gguf": SMALL[:-32] + bytes(32)}
    return hub.add(Repo("acme/tiny-GGUF", files, licence="mit"))


# -- the plan --------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_each_quant_and_the_choice_with_its_reason(repo: Repo, hub: HubServer, owm: Owm) -> None:
    done = owm("pull", "acme/tiny-GGUF", "--dry-run")
    assert done.exit_code == 0, done.stderr
    rows = [line.split() for line in done.splitlines()]
    assert rows[0][:4] == ["QUANT", "SIZE", "BPW", "MEMORY"]
    assert sorted(row[0] for row in rows[1:4]) == ["Q2_K", "Q4_K_M", "Q8_0"]
    assert [row[0] for row in rows[1:4] if "*" in row] == ["Q4_K_M"]
    assert re.search(r"^would pull acme/tiny-GGUF:Q4_K_M: [\d.]+ KiB, licence mit$", done, re.MULTILINE)
    assert "Q4_K_M is the usual choice" in done.stderr
    assert "licence: MIT License: any use" in done.stderr
    assert all(request.range for request in hub.transfers()), "a plan fetches no more than parts"
    assert owm("list", "--json").json == []


def test_the_json_of_a_dry_run_has_the_keys_that_programs_rely_on(repo: Repo, owm: Owm) -> None:
    [plan] = owm("pull", "acme/tiny-GGUF", "--dry-run", "--json").json
    assert set(plan) == DRY_RUN_KEYS
    assert (plan["name"], plan["chosen"], plan["is_stored"]) == ("acme/tiny-GGUF:Q4_K_M", "Q4_K_M", False)
    assert plan["files"] == [
        {"path": "t-Q4_K_M.gguf", "size_bytes": len(SMALL), "sha256": hashlib.sha256(SMALL).hexdigest()}
    ]
    assert {row["quant"] for row in plan["quants"]} == {"Q2_K", "Q4_K_M", "Q8_0"}
    assert plan["licence_terms"]["commercial_use"] == "yes"


def test_a_pull_says_the_same_first_and_takes_the_choice(repo: Repo, owm: Owm) -> None:
    done = owm("pull", "acme/tiny-GGUF")
    assert done.exit_code == 0, done.stderr
    assert str(done) == "", "what is said about a pull is talk"
    lines = done.stderr.splitlines()
    assert lines[0].split()[0] == "QUANT"
    assert any(line.startswith("pulling acme/tiny-GGUF:Q4_K_M: ") for line in lines)
    assert any(line.startswith("licence: MIT License: ") for line in lines)
    assert lines[-1].startswith("stored acme/tiny-GGUF:Q4_K_M")


def test_the_licence_is_explained_with_the_first_model_of_a_repo_only(repo: Repo, owm: Owm) -> None:
    assert "licence: MIT" in owm("pull", "acme/tiny-GGUF:Q8_0").stderr
    assert "licence: MIT" not in owm("pull", "acme/tiny-GGUF:Q2_K").stderr


def test_quiet_says_nothing_of_it(repo: Repo, owm: Owm) -> None:
    done = owm("pull", "acme/tiny-GGUF", "-q")
    assert (done.exit_code, str(done), done.stderr) == (0, "", "")


def test_one_model_needs_no_table(hub: HubServer, owm: Owm) -> None:
    hub.add(Repo("acme/one", {"one-Q4_0.gguf": SMALL}, licence="mit"))
    for args in (["acme/one", "--dry-run"], ["acme/one"]):
        done = owm("pull", *args)
        assert "QUANT" not in done + done.stderr
        assert "Q4_0 takes" in done.stderr


def test_a_named_quant_is_taken_whatever_would_be_chosen(repo: Repo, owm: Owm) -> None:
    done = owm("pull", "acme/tiny-GGUF:q8_0")
    assert "QUANT" not in done.stderr
    assert owm("list", "--json").json[0]["quant"] == "Q8_0"


def test_a_stored_quant_is_taken_before_any_download(repo: Repo, hub: HubServer, owm: Owm) -> None:
    owm("pull", "acme/tiny-GGUF:Q2_K")
    hub.requests.clear()
    assert "is here already" in owm("pull", "acme/tiny-GGUF").stderr
    assert hub.requests == []


def test_a_dry_run_of_what_is_stored_has_the_same_keys_and_fetches_nothing(
    sees: Repo, hub: HubServer, owm: Owm
) -> None:
    assert owm("pull", "acme/sees", "-q").exit_code == 0
    hub.requests.clear()
    [plan] = owm("pull", "acme/sees", "--dry-run", "--json").json
    assert set(plan) >= DRY_RUN_KEYS
    assert (plan["is_stored"], plan["is_gated"], plan["licence_terms"]["commercial_use"]) == (True, False, "yes")
    assert hub.requests == []
    done = owm("pull", "acme/sees", "--dry-run", "--mmproj")
    assert "would pull its projector mmproj-t-f16.gguf: " in done
    assert hub.transfers("") == []
    assert owm("show", "acme/sees", "--json").json["projector"] is None


def test_a_dry_run_names_the_projector_that_would_come_along(sees: Repo, hub: HubServer, owm: Owm) -> None:
    assert "would pull its projector mmproj-t-f16.gguf: " in owm("pull", "acme/sees", "--dry-run", "--mmproj")
    [plan] = owm("pull", "acme/sees", "--dry-run", "--mmproj", "--json").json
    assert [file["path"] for file in plan["files"]] == ["t-Q4_K_M.gguf", "mmproj-t-f16.gguf"]


def test_measuring_the_machine_takes_no_time_from_looking_at_memory(
    repo: Repo, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_by: list[threading.Thread] = []
    monkeypatch.setattr(
        "owm.library.fit_speeds.Speeds.of", lambda *args, **kwargs: measured_by.append(threading.current_thread())
    )
    report = fit_offer(plan_pull("acme/tiny-GGUF", store=store), store=store, measures=True, deadline_seconds=60)
    assert [row.verdict for row in report.rows] == ["fits"] * 3
    assert set(measured_by) == {threading.main_thread()}, "not by the one that has a deadline"


def test_an_alias_of_a_quant_names_that_quant(repo: Repo, owm: Owm) -> None:
    assert owm("alias", "mine", "acme/tiny-GGUF:Q8_0").exit_code == 0
    [plan] = owm("pull", "mine", "--dry-run", "--json").json
    assert ([row["quant"] for row in plan["quants"]], plan["chosen"]) == (["Q8_0"], "Q8_0")


def test_a_kind_of_model_that_cannot_be_run_is_a_warning_before_the_download(hub: HubServer, owm: Owm) -> None:
    strange = tiny_gguf(metadata=(("general.architecture", "nonesuch"),))
    hub.add(Repo("acme/new", {"n-Q4_K_M.gguf": strange, "n-Q8_0.gguf": strange + bytes(32)}))
    done = owm("pull", "acme/new", "--dry-run")
    assert done.exit_code == 0
    assert "warning: the installed llama.cpp does not know the architecture nonesuch" in done.stderr
    assert [row["speed"] for row in owm("pull", "acme/new", "--dry-run", "--json").json[0]["quants"]] == [None, None]


def test_what_is_larger_than_all_memory_is_refused_though_its_header_says_nothing(hub: HubServer, owm: Owm) -> None:
    sizes = {"h-Q4_K_M.gguf": 900 << 40, "h-Q8_0.gguf": 1800 << 40}
    hub.add(Repo("acme/huge", {"h-Q4_K_M.gguf": b"no model", "h-Q8_0.gguf": b"none"}, sizes=sizes))
    refused = owm("pull", "acme/huge")
    assert (refused.exit_code, hub.transfers("huge")) == (6, [])
    assert "nothing of acme/huge fits the memory of this machine" in refused.stderr
    one = owm("pull", "acme/huge:Q4_K_M", "--dry-run")
    assert "Q4_K_M is larger than the memory that this machine has for it" in one.stderr


def test_quants_whose_headers_are_nonsense_are_planned_all_the_same(hub: HubServer, owm: Owm) -> None:
    hub.add(Repo("acme/odd", {"a-Q4_K_M.gguf": b"GGUF" + bytes(500), "a-Q8_0.gguf": b"GGUF\3\0\0\0" + b"\xff" * 500}))
    done = owm("pull", "acme/odd", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "would pull acme/odd:Q4_K_M" in done
    assert "Traceback" not in done.stderr


def test_parts_that_are_refused_leave_the_plan_as_it_would_be_without(repo: Repo, hub: HubServer, owm: Owm) -> None:
    hub.fail("/lfs/", status=403, times=None)
    done = owm("pull", "acme/tiny-GGUF", "--dry-run")
    assert done.exit_code == 0
    assert "would pull acme/tiny-GGUF:Q4_K_M" in done


def test_a_checkpoint_shows_what_it_can_be_made_into(hub: HubServer, owm: Owm) -> None:
    hub.add(Repo("o/base", {"config.json": b"{}", "model.safetensors": b"x" * 5000}, licence="mit"))
    done = owm("pull", "o/base", "--dry-run")
    assert done.exit_code == 0
    assert "would pull the original weights of o/base" in done
    assert "and quantize them" in done


@pytest.mark.parametrize("columns", [60, 100])
def test_the_plan_fits_the_screen(repo: Repo, columns: int) -> None:
    with Terminal(["pull", "acme/tiny-GGUF", "--dry-run"], columns=columns) as terminal:
        assert terminal.wait_for_end() == 0
        shown = terminal.text().splitlines()
    assert [line.split()[0] for line in shown[:1]] == ["QUANT"]
    assert len([line for line in shown if re.match(r"Q\d_", line) and "yes" in line]) == 3


# -- what does not fit -----------------------------------------------------------------------------------------------


def report_of(verdict: str) -> FitReport:
    buffers = Buffers(weights_bytes=1 << 40)
    row = Fit("Q4_K_M", 1 << 40, 4.5, Need(8192, 1, buffers, Buffers(), 0, 0), verdict, 8192)  # type: ignore[arg-type]
    return FitReport("acme/tiny-GGUF", Room(1 << 30), 8192, 1, (row, replace(row, label="Q8_0")), row, "why")


def test_what_owm_would_choose_and_cannot_run_is_refused_by_name(repo: Repo, hub: HubServer, store: Store) -> None:
    choice = pulling.plan_choice(parse("acme/tiny-GGUF"), store=store)
    choice.check_memory()
    with pytest.raises(NotEnoughMemory) as caught:
        replace(choice, report=report_of("no")).check_memory()
    assert "nothing of acme/tiny-GGUF fits" in str(caught.value)
    assert "`owm pull acme/tiny-GGUF:Q4_K_M`" in (caught.value.hint or "")
    replace(choice, report=report_of("partly")).check_memory()
    replace(choice, report=report_of("no"), is_chosen=False).check_memory()
    replace(choice, report=None).check_memory()


def test_nothing_is_fetched_that_does_not_fit_unless_that_is_said(
    repo: Repo, hub: HubServer, owm: Owm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("owm.library.fitting.fit_offer", lambda *args, **kwargs: report_of("no"))
    refused = owm("pull", "acme/tiny-GGUF")
    assert refused.exit_code == 6
    assert hub.transfers() == []
    assert owm("pull", "acme/tiny-GGUF", "--yes").exit_code == 0
    assert owm("pull", "acme/tiny-GGUF:Q8_0").exit_code == 0, "a quant that was named is the user's choice"


def test_room_for_a_context_can_be_asked_for(repo: Repo, owm: Owm) -> None:
    [plan] = owm("pull", "acme/tiny-GGUF", "--dry-run", "--json", "--ctx-size", "256").json
    assert plan["n_ctx"] == 256
    assert owm("pull", "acme/tiny-GGUF", "--ctx-size", "0").exit_code == 2


# -- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["o/r", "--limit-rate", "fast"], "not a rate: fast"),
        (["o/r", "--limit-rate", "0"], "a rate is more than nothing"),
        (["o/r", "--limit-rate", "-5M"], "not a rate"),
        (["o/r", "--jobs", "0"], "not a number of connections: 0"),
        (["o/r", "--jobs", "1000"], "not a number of connections: 1000"),
        (["o/r", "--mirror", "https://host/m.gguf"], "mirrors are for a web address"),
        (["o/r", "--sha256", "0" * 64], "a sha256 is for a web address"),
        (["https://h/m.gguf", "--sha256", "abc"], "64 hexadecimal digits"),
        (["https://h/m.gguf", "https://h/n.gguf", "--sha256", "0" * 64], "--sha256 goes with one model only"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_anybody_is_asked(
    hub: HubServer, owm: Owm, args: list[str], words: str
) -> None:
    done = owm("pull", *args)
    assert done.exit_code == 2
    assert words in done.stderr
    assert hub.requests == []


def test_a_rate_counts_in_thousands() -> None:
    from owm.cli.pull import _limits

    assert _limits("10M", None).bytes_per_second == 10_000_000
    assert _limits("500k", 2).bytes_per_second == 500_000
    assert _limits("1MiB/s", None).bytes_per_second == 1 << 20
    assert _limits("2000", None).bytes_per_second == 2000
    assert (_limits(None, 9).bytes_per_second, _limits(None, 9).n_connections) == (None, 9)


def test_a_pull_over_one_slow_connection_arrives_whole(repo: Repo, owm: Owm) -> None:
    done = owm("pull", "acme/tiny-GGUF:Q8_0", "--limit-rate", "20M", "--jobs", "1")
    assert done.exit_code == 0, done.stderr
    assert owm("verify", "acme/tiny-GGUF:Q8_0", "--full").exit_code == 0


def test_a_mirror_stands_in_for_an_address_that_does_not_answer(hub: HubServer, owm: Owm) -> None:
    hub.plain["b/m.gguf"] = SMALL
    right = hashlib.sha256(SMALL).hexdigest()
    gone, mirror = hub.url("a/m.gguf"), hub.url("b/m.gguf")
    done = owm("pull", gone, "--mirror", mirror, "--sha256", right)
    assert done.exit_code == 0, done.stderr
    assert owm("list", "--json").json[0]["files"][0]["sha256"] == right


def test_a_file_that_is_not_what_it_must_be_is_not_kept(hub: HubServer, owm: Owm, clean_environment: Path) -> None:
    hub.plain["m.gguf"] = SMALL
    done = owm("pull", hub.url("m.gguf"), "--sha256", "0" * 64)
    assert done.exit_code == 7
    assert owm("list", "--json").json == []


# -- projectors ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sees(hub: HubServer) -> Repo:
    projector = tiny_gguf(metadata=(("general.architecture", "clip"), ("general.type", "mmproj")))
    files = {
        "t-Q4_K_M.gguf": SMALL,
        "mmproj-t-f16.gguf": projector,
        "mmproj-t-f32.gguf": projector + bytes(32),
        "mmproj-t-Q8_0.gguf": projector + bytes(64),
    }
    return hub.add(Repo("acme/sees", files, licence="mit"))


def test_a_projector_is_left_out_unless_asked_for(sees: Repo, hub: HubServer, owm: Owm) -> None:
    assert owm("pull", "acme/sees").exit_code == 0
    assert hub.asked("mmproj", "GET") == []
    assert owm("show", "acme/sees", "--json").json["projector"] is None


def test_a_projector_comes_along_in_half_precision(sees: Repo, owm: Owm) -> None:
    done = owm("pull", "acme/sees", "--mmproj")
    assert done.exit_code == 0, done.stderr
    path = Path(owm("show", "acme/sees", "--json").json["projector"])
    assert path.name == "mmproj-t-f16.gguf"
    assert path.read_bytes() == sees.files["mmproj-t-f16.gguf"]
    assert owm("verify", "acme/sees", "--full").exit_code == 0
    assert "is here already" in owm("pull", "acme/sees", "--mmproj").stderr


def test_a_projector_can_be_fetched_for_a_model_that_is_stored(sees: Repo, owm: Owm) -> None:
    assert owm("pull", "acme/sees").exit_code == 0
    assert owm("pull", "acme/sees", "--mmproj").exit_code == 0
    assert owm("show", "acme/sees", "--json").json["projector"] is not None


def test_a_repo_without_a_projector_is_said_before_anything_is_fetched(repo: Repo, hub: HubServer, owm: Owm) -> None:
    done = owm("pull", "acme/tiny-GGUF:Q8_0", "--mmproj")
    assert done.exit_code == 5
    assert "has no projector" in done.stderr
    assert owm("list", "--json").json == []


def test_a_model_that_claims_to_be_a_projector_is_refused(hub: HubServer, owm: Owm) -> None:
    hub.add(Repo("acme/lies", {"t-Q4_K_M.gguf": SMALL, "mmproj-f16.gguf": LARGE}))
    done = owm("pull", "acme/lies", "--mmproj")
    assert done.exit_code == 7
    assert "not a usable projector" in done.stderr
    assert owm("list", "--json").json[0]["quant"] == "Q4_K_M", "the model itself is whole"
