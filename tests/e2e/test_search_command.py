"""`owm search` against a local Hub: what is asked, what is filtered here, and what is shown."""

from collections.abc import Callable
from typing import Any

import pytest

from owm.errors import UsageError
from owm.library.finding import size_range
from support.facts import model_bytes
from support.hub_server import HubServer, Repo, refused_endpoint
from support.run import Output, run, run_here
from support.terminal import Terminal

JSON_KEYS = {
    "name", "author", "licence", "commercial_use", "is_gated", "architecture", "n_params", "n_ctx_train", "task",
    "base_models", "n_downloads", "n_likes", "modified",
}  # fmt: skip
FILE = {"m-Q4_K_M.gguf": model_bytes(100)}

Owm = Callable[..., Output]


@pytest.fixture
def owm(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> Owm:
    def facts(n_params: int, architecture: str, n_downloads: int) -> dict[str, Any]:
        gguf = {"total": n_params, "architecture": architecture, "context_length": 4096}
        return {"gguf": gguf, "downloads": n_downloads, "lastModified": "2025-03-04T10:00:00.000Z"}

    hub.add(Repo("acme/Tiny-1B-GGUF", FILE, licence="apache-2.0", facts=facts(1_240_000_000, "llama", 500)))
    hub.add(Repo("acme/Mid-8B-GGUF", FILE, licence="llama3.1", facts=facts(8_030_000_000, "llama", 90)))
    hub.add(Repo("o/Qwen-8B-GGUF", FILE, licence="apache-2.0", gated=True, facts=facts(8_190_000_000, "qwen3", 900)))
    hub.add(Repo("o/Qwen-8B", {"m.safetensors": b"x"}, licence="apache-2.0", facts={"downloads": 9000}))
    hub.add(Repo("o/unsaid-GGUF", FILE, licence=None))
    hub.add(Repo("o/secret-GGUF", FILE, private=True))
    return lambda *args: run_here(capsys, "search", *args)


def names(found: Output) -> list[str]:
    assert found.exit_code == 0, found.stderr
    return [each["name"] for each in found.json]


def test_words_find_repos_of_model_files_the_most_used_first(owm: Owm) -> None:
    assert names(owm("8b", "--json")) == ["o/Qwen-8B-GGUF", "acme/Mid-8B-GGUF"]
    assert names(owm("qwen", "8b", "--json")) == ["o/Qwen-8B-GGUF"]
    assert names(owm("--limit", "1", "--json")) == ["o/Qwen-8B-GGUF"]


def test_original_weights_are_found_when_asked_for(owm: Owm) -> None:
    assert names(owm("qwen", "--checkpoints", "--json")) == ["o/Qwen-8B"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--arch", "llama"], ["acme/Tiny-1B-GGUF", "acme/Mid-8B-GGUF"]),
        (["--arch", "Qwen3"], ["o/Qwen-8B-GGUF"]),
        (["--size", "8B"], ["o/Qwen-8B-GGUF", "acme/Mid-8B-GGUF"]),
        (["--size", "1B"], ["acme/Tiny-1B-GGUF"]),
        (["--size", "<2B"], ["acme/Tiny-1B-GGUF"]),
        (["--size", "8.1B-9B"], ["o/Qwen-8B-GGUF"]),
        (["--license", "apache-2.0"], ["o/Qwen-8B-GGUF", "acme/Tiny-1B-GGUF"]),
        (["--licence", "llama3.1", "--size", ">=8B"], ["acme/Mid-8B-GGUF"]),
    ],
)
def test_bounds_hold_even_where_the_hub_does_not_filter(owm: Owm, flags: list[str], expected: list[str]) -> None:
    assert names(owm(*flags, "--json")) == expected


def test_the_hub_is_asked_for_what_it_can_filter(owm: Owm, hub: HubServer) -> None:
    owm("tiny", "--size", "1B-2.5B", "--license", "mit", "--sort", "likes", "--json")
    asked = hub.asked("/api/models")[-1].path
    for part in ("search=tiny", "num_parameters=min%3A1000M%2Cmax%3A2500M", "license%3Amit", "sort=likes"):
        assert part in asked


def test_the_json_has_the_keys_that_programs_rely_on(owm: Owm) -> None:
    found = owm("qwen", "--json").json[0]
    assert set(found) == JSON_KEYS
    assert (found["is_gated"], found["commercial_use"], found["n_ctx_train"]) == (True, "yes", 4096)


def test_a_table_says_what_is_needed_to_choose(owm: Owm) -> None:
    shown = owm("8b")
    assert shown.splitlines()[0].split() == ["NAME", "PARAMS", "ARCH", "LICENCE", "DOWNLOADS", "MODIFIED"]
    assert shown.splitlines()[1].split() == [
        "o/Qwen-8B-GGUF",
        "8.19B",
        "qwen3",
        "apache-2.0,",
        "gated",
        "900",
        "2025-03-04",
    ]
    assert "not stated" in owm("unsaid")


def test_nothing_found_is_said_and_is_no_error(owm: Owm) -> None:
    done = owm("nonesuch")
    assert (done.exit_code, str(done)) == (0, "")
    assert "no models found for nonesuch" in done.stderr
    assert names(owm("nonesuch", "--json")) == []


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--size", "big"], 2, "not a number of parameters: big"),
        (["--size", "9B-3B"], 2, "the smaller number comes first"),
        (["--sort", "beauty"], 2, "no such order: beauty"),
        (["--limit", "0"], 2, "not a number of results: 0"),
        (["--offline"], 4, "offline: the Hub is not searched"),
    ],
)
def test_what_cannot_be_searched_is_said(hub: HubServer, args: list[str], code: int, words: str) -> None:
    done = run(["-m", "owm", "search", "x", *args])
    assert done.exit_code == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert hub.requests == []


def test_a_hub_that_is_not_there_is_said_in_one_sentence() -> None:
    done = run(["-m", "owm", "search", "x"], {"HF_ENDPOINT": refused_endpoint(), "HF_HUB_OFFLINE": "0"})
    assert done.exit_code == 4
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "answer",
    [b"<html>portal</html>", b'{"a": 1}', b'[{"id": 5}]', b'[{"x": 1}]', b'[{"id": "a/b", "tags": 3}]', b"[null]"],
)
def test_an_answer_that_is_none_of_a_hub_is_no_crash(owm: Owm, hub: HubServer, answer: bytes) -> None:
    hub.fail("/api/models", status=200, body=answer, times=None)
    done = owm("x")
    assert done.exit_code in (0, 4)
    assert "Traceback" not in done.stderr


def test_a_name_from_a_stranger_does_not_steer_the_terminal(owm: Owm, hub: HubServer) -> None:
    hub.fail("/api/models", status=200, body=b'[{"id": "a/\\u001b]0;evil\\u0007b", "tags": ["gguf"]}]', times=None)
    with Terminal(["search", "x"]) as terminal:
        assert terminal.wait_for_end() == 0
        assert b"\x1b]0" not in terminal.raw
        assert "evil" in terminal.text()


@pytest.mark.parametrize("columns", [60, 100])
def test_the_table_fits_the_screen(owm: Owm, columns: int) -> None:
    with Terminal(["search", "8b"], columns=columns) as terminal:
        assert terminal.wait_for_end() == 0
        assert "o/Qwen-8B-GGUF" in terminal.text()
        assert "8.19B" in terminal.text()


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("8B", 6_000_000_000, 10_000_000_000),
        ("500M", 375_000_000, 625_000_000),
        ("3B-9B", 3_000_000_000, 9_000_000_000),
        ("3b..9b", 3_000_000_000, 9_000_000_000),
        ("<4B", None, 3_999_999_999),
        ("<= 4B", None, 4_000_000_000),
        (">30B", 30_000_000_001, None),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, least: int | None, most: int | None) -> None:
    assert size_range(text) == (least, most)


@pytest.mark.parametrize("text", ["", "B", "-", "8X", "1B-2B-3B", "<", "1e9", "-3B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        size_range(text)
