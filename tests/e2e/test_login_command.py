"""`owm login` and `owm logout`: the Hub's own token store, and a token that shows up nowhere else."""

import stat
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from support.facts import model_bytes
from support.hub_server import HubServer, Repo, refused_endpoint
from support.run import Output, environment, run
from support.terminal import Terminal

TOKEN = "hf_aVeryGoodTokenOfAda"
OTHER = "hf_aTokenThatNobodyKnows"


def login(stdin: str, *args: str, **env: str | None) -> Output:
    done = subprocess.run(
        [sys.executable, "-m", "owm", "login", *args],
        input=stdin.encode(),
        env=environment(env),
        capture_output=True,
        timeout=60,
    )
    output = Output(done.stdout.decode())
    output.stderr, output.exit_code = done.stderr.decode(), done.returncode
    assert TOKEN not in output + output.stderr
    assert OTHER not in output + output.stderr
    return output


@pytest.fixture
def home(hub: HubServer, clean_environment: Path) -> Path:
    hub.accounts[TOKEN] = "ada"
    return clean_environment / "hf"


def holds_token(folder: Path, token: str = TOKEN) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and token.encode() in path.read_bytes()
    )


def test_a_token_from_a_pipe_is_checked_and_kept_where_the_hub_s_tools_look(home: Path) -> None:
    done = login(f"{TOKEN}\n")
    assert (done.exit_code, str(done), done.stderr) == (0, "", "logged in as ada\n")
    assert holds_token(home.parent) == ["hf/stored_tokens", "hf/token"]
    assert huggingface_hub.get_token() == TOKEN
    for name in ("token", "stored_tokens"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600


def test_a_gated_model_is_pulled_after_logging_in(home: Path, hub: HubServer) -> None:
    hub.add(Repo("o/gated", {"m-Q4_K_M.gguf": model_bytes(5000)}, gated=True, tokens=(TOKEN,)))
    before = run(["-m", "owm", "pull", "o/gated"])
    assert before.exit_code == 4
    assert "then run `owm login` or set HF_TOKEN" in before.stderr
    assert login(TOKEN).exit_code == 0
    dry = run(["-m", "owm", "pull", "o/gated", "--verbose"])
    assert "gated" in dry.stderr
    assert "licence must be accepted" not in dry.stderr
    assert TOKEN not in dry.stderr + dry


def test_a_token_that_the_hub_refuses_is_not_kept(home: Path) -> None:
    done = login(OTHER)
    assert done.exit_code == 4
    assert "does not accept this token" in done.stderr
    assert "/settings/tokens" in done.stderr
    assert holds_token(home.parent, OTHER) == []


@pytest.mark.parametrize(
    ("stdin", "words"),
    [
        ("", "no token was given"),
        ("  \n", "no token was given"),
        ("two words\n", "that is no token"),
        ("short\n", "that is no token"),
        ("hf_with\x1bescape\n", "that is no token"),
        ("api_org_abcdefgh\n", "the token of an organization"),
    ],
)
def test_what_cannot_be_a_token_is_refused_before_anybody_is_asked(
    home: Path, hub: HubServer, stdin: str, words: str
) -> None:
    done = login(stdin)
    assert done.exit_code == 2
    assert words in done.stderr
    assert hub.asked("whoami") == []
    assert not (home / "token").exists()


def test_the_command_line_takes_no_token(home: Path) -> None:
    done = login("", TOKEN[:-1] + "X")
    assert done.exit_code == 2
    assert not (home / "token").exists()


def test_offline_the_token_is_kept_unchecked_and_that_is_said(home: Path, hub: HubServer) -> None:
    done = login(TOKEN, "--offline")
    assert done.exit_code == 0
    assert "was not asked" in done.stderr
    assert hub.requests == []
    assert (home / "token").read_text() == TOKEN
    assert stat.S_IMODE((home / "token").stat().st_mode) == 0o600
    assert not list(home.glob("*.incomplete"))


def test_a_hub_that_is_not_there_keeps_nothing(home: Path) -> None:
    done = login(TOKEN, HF_ENDPOINT=refused_endpoint())
    assert done.exit_code == 4
    assert "cannot be reached" in done.stderr
    assert holds_token(home.parent) == []


def test_the_environment_counts_first_and_that_is_said(home: Path) -> None:
    done = login(TOKEN, HF_TOKEN=OTHER)
    assert done.exit_code == 0
    assert done.stderr.count("HF_TOKEN") == 1
    assert "counts before" in done.stderr
    assert "is still sent" in run(["-m", "owm", "logout"], {"HF_TOKEN": OTHER}).stderr


def test_who_is_logged_in_can_be_asked(home: Path) -> None:
    nobody = login("", "--status")
    assert (nobody.exit_code, str(nobody)) == (1, "")
    assert login("", "--status", "--json").json == {"is_logged_in": False, "user": None, "token_from": None}
    login(TOKEN)
    assert login("", "--status") == "logged in as ada\n"
    assert login("", "--status", "--json").json == {"is_logged_in": True, "user": "ada", "token_from": "store"}
    assert "not checked" in login("", "--status", "--offline")
    assert login("", "--status", HF_TOKEN=OTHER).exit_code == 4


def test_logging_out_removes_every_trace(home: Path) -> None:
    login(TOKEN)
    assert run(["-m", "owm", "logout", "--json"]).json == {"was_logged_in": True, "token_from": None}
    assert holds_token(home.parent) == []
    assert "was not logged in" in run(["-m", "owm", "logout"]).stderr


def test_on_a_terminal_the_token_is_asked_for_and_not_shown(home: Path) -> None:
    with Terminal(["login"]) as terminal:
        terminal.wait_for("token (not shown):")
        terminal.process.sendline(TOKEN.encode())
        assert terminal.wait_for_end() == 0
        assert "logged in as ada" in terminal.text()
        assert TOKEN.encode() not in terminal.raw
    with Terminal(["login"]) as terminal:
        terminal.wait_for("token (not shown):")
        terminal.interrupt()
        assert terminal.wait_for_end() == 130
