"""The table of commands is true, every command has help, and starting imports nothing heavy."""

import subprocess
import sys
from importlib import import_module

import pytest

from owm.cli.app import COMMANDS
from support.run import environment, run

HEAVY = ("llama_cpp", "numpy", "huggingface_hub", "gguf", "jinja2", "requests", "httpx2", "psutil", "owm.engine")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_line_of_a_command_is_the_first_of_its_docstring(name: str) -> None:
    module = import_module(f"owm.cli.{COMMANDS[name].module}")
    assert (module.command.__doc__ or "").splitlines()[0] == COMMANDS[name].help


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.is_hidden])
def test_every_command_takes_json_quiet_and_verbose(name: str) -> None:
    shown = run(["-m", "owm", name, "--help"])
    assert shown.exit_code == 0
    assert shown.stderr == ""
    for flag in ("--json", "--quiet", "--verbose"):
        assert flag in shown


def _imported(*argv: str, env: dict[str, str] | None = None) -> set[str]:
    script = (
        "import sys, io\n"
        "sys.argv = ['owm', *sys.argv[1:]]\n"
        "from owm.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *argv],
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.split())


def test_the_version_imports_not_even_typer() -> None:
    assert not {"typer", "rich", *HEAVY} & _imported("--version")


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"]])
def test_help_imports_typer_and_rich_only(argv: list[str]) -> None:
    assert not set(HEAVY) & _imported(*argv)


def test_completion_imports_nothing_heavy() -> None:
    env = {"_OWM_COMPLETE": "complete_bash", "COMP_WORDS": "owm run sm", "COMP_CWORD": "2"}
    assert not (set(HEAVY) | {"rich"}) & _imported(env=env)


def test_listing_needs_no_engine() -> None:
    assert not {"llama_cpp", "numpy", "huggingface_hub", "owm.engine"} & _imported("list")


def test_the_shell_is_offered_short_names() -> None:
    env = {"_OWM_COMPLETE": "complete_bash", "COMP_WORDS": "owm run smol", "COMP_CWORD": "2"}
    assert "smollm2" in run(["-m", "owm"], env).split()


@pytest.mark.parametrize("argv", [["--version"], ["--version", "--help"]])
def test_the_version_is_said(argv: list[str]) -> None:
    from owm import __version__

    assert run(["-m", "owm", *argv]).startswith(f"owm {__version__}")


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["rn"], "no such command 'rn'. Did you mean 'run'?", "`owm --help`"),
        (["run", "smollm2", "hi", "--tmp", "1"], "no such option: --tmp", "`owm run --help`"),
        (["run"], "missing argument 'MODEL'", "`owm run --help`"),
        (["run", "m", "p", "-n", "many"], "invalid value for '--max-tokens'", "`owm run --help`"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_a_hint(argv: list[str], message: str, hint: str) -> None:
    done = run(["-m", "owm", *argv])
    assert done.exit_code == 2
    assert done == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert hint in second
