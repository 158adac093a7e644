"""`owm show` of a model that is not stored: its card, its licence in words, what is open, its quants; no download."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.hub_server import MAIN_COMMIT, HubServer, Repo, refused_endpoint
from support.run import Output, run, run_here
from support.terminal import Terminal
from support.tiny_gguf import tiny_gguf

JSON_KEYS = {
    "name", "is_stored", "source", "revision", "commit", "licence", "licence_link", "licence_terms", "is_gated",
    "is_private", "architecture", "n_params", "n_ctx_train", "task", "languages", "base_models", "base_model_relation",
    "datasets", "n_downloads", "n_likes", "modified", "files", "quants", "chosen", "reason", "n_ctx", "notes",
}  # fmt: skip

Owm = Callable[..., Output]


@pytest.fixture
def repo(hub: HubServer) -> Repo:
    files = {"t-Q4_K_M.gguf": tiny_gguf(), "t-Q8_0.gguf": tiny_gguf(n_blocks=4), "README.md": b"# t"}
    return hub.add(
        Repo(
            "acme/tiny-GGUF",
            files,
            licence="llama3.2",
            card={"base_model": "acme/tiny", "base_model_relation": "quantized", "language": "en"},
            facts={
                "gguf": {"total": 1_240_000_000, "architecture": "llama", "context_length": 131072},
                "downloads": 1234,
                "likes": 5,
                "lastModified": "2025-03-04T10:00:00.000Z",
                "pipeline_tag": "text-generation",
            },
        )
    )


@pytest.fixture
def owm(capsys: pytest.CaptureFixture[str]) -> Owm:
    return lambda *args: run_here(capsys, *args)


def facts_of(shown: str) -> dict[str, str]:
    top = shown.partition("\n\n")[0]
    return {m[1].strip(): m[2] for m in re.finditer(r"^( *[a-z][a-z ]*?)  +(\S.*)$", top, re.MULTILINE)}


def test_everything_that_is_said_of_a_model_is_shown_before_any_download(
    repo: Repo, hub: HubServer, owm: Owm, clean_environment: Path
) -> None:
    done = owm("show", "acme/tiny-GGUF")
    assert done.exit_code == 0, done.stderr
    facts = facts_of(done)
    assert facts["name"] == "acme/tiny-GGUF"
    assert facts["source"] == "the Hugging Face Hub, not stored"
    assert facts["commit"] == MAIN_COMMIT
    assert facts["made from"] == "acme/tiny (quantized)"
    assert (facts["architecture"], facts["parameters"], facts["context"]) == ("llama", "1.24B", "131072 tokens")
    assert facts["licence"] == "Llama 3.2 Community License (llama3.2)"
    assert "700 million" in facts["commercial use"]
    assert facts["access"] == "open to everybody"
    assert facts["weights"] == "2 model files (GGUF) published"
    assert (facts["code"], facts["data"]) == ("the card does not say", "the card does not say")
    assert facts["used"] == "1,234 downloads in 30 days, 5 likes"
    assert "owm pull acme/tiny-GGUF" in done.stderr
    whole = sum(len(content) for content in repo.files.values())
    assert all(request.range is not None for request in hub.transfers()), "only parts of files are read"
    assert not list(clean_environment.rglob("blobs")), whole


def test_the_quants_are_shown_with_how_they_fit_and_the_choice(repo: Repo, owm: Owm) -> None:
    done = owm("show", "acme/tiny-GGUF")
    rows = [line.split() for line in done.partition("\n\n")[2].splitlines()]
    assert rows[0][:2] == ["QUANT", "SIZE"]
    assert [row[0] for row in rows[1:]] == ["Q4_K_M", "Q8_0"]
    assert "*" in rows[1]
    assert "Q4_K_M" in done.stderr


def test_the_json_has_the_keys_that_programs_rely_on(repo: Repo, owm: Owm) -> None:
    found = owm("show", "acme/tiny-GGUF", "--json").json
    assert set(found) == JSON_KEYS
    assert (found["is_stored"], found["commit"], found["chosen"]) == (False, MAIN_COMMIT, "Q4_K_M")
    assert [row["quant"] for row in found["quants"]] == ["Q4_K_M", "Q8_0"]
    assert found["licence_terms"]["commercial_use"] == "conditions"
    assert {file["path"] for file in found["files"]} == set(repo.files)


def test_a_gated_model_says_where_its_terms_are_accepted(hub: HubServer, owm: Owm) -> None:
    hub.add(Repo("o/gated", {"m-Q4_K_M.gguf": tiny_gguf()}, licence="gemma", gated=True))
    done = owm("show", "o/gated")
    assert done.exit_code == 0, done.stderr
    assert f"gated: accept its terms at {hub.endpoint}/o/gated (at once), then `owm login`" in done
    hub.add(Repo("o/asked", {"m-Q4_K_M.gguf": tiny_gguf()}, gated=True, facts={"gated": "manual"}))
    assert "one by one" in owm("show", "o/asked")


def test_what_the_card_names_is_open_and_nothing_is_guessed(hub: HubServer, owm: Owm) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"x" * 1000, "modeling_x.py": b"import os"}
    hub.add(Repo("o/base", files, licence=None, card={"datasets": ["o/corpus", "p/web"]}))
    facts = facts_of(owm("show", "o/base"))
    assert facts["data"] == "the card names o/corpus, p/web"
    assert facts["code"] == "1 Python file in the repo, which owm never runs"
    assert facts["weights"] == "1 file of original weights (safetensors) published"
    assert facts["licence"] == "not stated, so nothing is known to be permitted"
    assert facts["architecture"] == "the card does not say"


def test_an_unknown_licence_is_said_to_be_unknown_with_its_address(hub: HubServer, owm: Owm) -> None:
    card = {"license_name": "acme-own-1.0", "license_link": "https://acme.example/LICENSE"}
    hub.add(Repo("o/own", {"m-Q4_K_M.gguf": tiny_gguf()}, licence="other", card=card))
    assert "acme-own-1.0: unknown to owm, read it at https://acme.example/LICENSE before you use the model" in owm(
        "show", "o/own"
    )


def test_a_repo_with_nothing_to_run_is_shown_all_the_same(hub: HubServer, owm: Owm) -> None:
    hub.add(Repo("o/docs", {"README.md": b"# x", "m.bin": b"x"}, licence="mit"))
    done = owm("show", "o/docs")
    assert done.exit_code == 0
    assert facts_of(done)["weights"] == "none that owm can use"
    assert "no GGUF file to run" in done.stderr
    assert owm("show", "o/docs", "--json").json["quants"] == []


def test_a_source_says_what_of_it_is_stored_and_that_counts_as_the_choice(repo: Repo, owm: Owm) -> None:
    rows = owm("show", repo.name, "--json").json["quants"]
    other = next(row["quant"] for row in rows if row["quant"] != "Q4_K_M")
    assert owm("pull", f"{repo.name}:{other}", "-q").exit_code == 0
    done = owm("show", repo.name, "--remote")
    assert f"{repo.name}:{other}" in next(line for line in done.splitlines() if line.startswith("stored "))
    assert f"{other} is stored already" in done.stderr
    assert "fetches it" not in done.stderr
    found = owm("show", repo.name, "--remote", "--json").json
    assert (found["is_stored"], found["chosen"]) == (True, other)
    assert [row["quant"] for row in found["quants"] if row["is_stored"]] == [other]
    assert owm("show", f"{repo.name}:Q4_K_M", "--json").json["is_stored"] is False


def test_a_stored_model_is_shown_as_it_is_stored_and_its_source_on_demand(repo: Repo, hub: HubServer, owm: Owm) -> None:
    assert owm("pull", "acme/tiny-GGUF:Q8_0").exit_code == 0
    hub.requests.clear()
    stored = owm("show", "acme/tiny-GGUF", "--json").json
    assert hub.requests == []
    assert stored["quant"] == "Q8_0"
    assert "llama3.2: commercial use not for services" in owm("show", "acme/tiny")
    assert owm("show", "acme/tiny-GGUF", "--remote", "--json").json["is_stored"] is True


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["nonesuch"], 3, "no model named nonesuch"),
        (["acme/nothing"], 3, "no repo acme/nothing"),
        (["./none.gguf"], 3, "no such file"),
        (["acme/tiny-GGUF", "--template"], 3, "acme/tiny-GGUF is not stored"),
        (["acme/tiny-GGUF", "--offline"], 4, "offline: acme/tiny-GGUF is not stored"),
        (["acme/tiny-GGUF@v9"], 3, "no revision v9"),
    ],
)
def test_what_cannot_be_shown_is_said(repo: Repo, args: list[str], code: int, words: str) -> None:
    done = run(["-m", "owm", "show", *args])
    assert done.exit_code == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_is_not_there_is_said(repo: Repo) -> None:
    done = run(["-m", "owm", "show", "o/r"], {"HF_ENDPOINT": refused_endpoint()})
    assert done.exit_code == 4
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize("columns", [60, 100])
def test_facts_and_table_fit_the_screen(repo: Repo, columns: int) -> None:
    with Terminal(["show", "acme/tiny-GGUF"], columns=columns, rows=60) as terminal:
        assert terminal.wait_for_end() == 0
        lines = terminal.text().splitlines()
    at = next(i for i, line in enumerate(lines) if "commercial use" in line)
    if columns == 60:
        assert lines[at + 1].startswith(" " * 18 + "million"), "what is wrapped goes under its own column"
    assert any(line.startswith("QUANT") for line in lines)
    assert any(line.startswith("Q4_K_M") and "yes" in line for line in lines)


def test_a_card_from_a_stranger_does_not_steer_the_terminal(hub: HubServer) -> None:
    evil = "x\x1b]0;title\x07\x1b[2J"
    card = {"license_name": evil, "datasets": [evil], "base_model": evil, "language": [evil]}
    hub.add(Repo("o/evil", {"m-Q4_K_M.gguf": tiny_gguf()}, licence="other", card=card, facts={"pipeline_tag": evil}))
    with Terminal(["show", "o/evil"]) as terminal:
        assert terminal.wait_for_end() == 0
        assert b"\x1b]0" not in terminal.raw
        assert b"\x1b[2J" not in terminal.raw
