"""The command line: which commands there are, and how one of them is run.

Only the command that is called is imported; for the others their name and one line of help are enough. So `--help` and
completion stay as quick as Typer itself.
"""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer

from owm.cli.failures import ExitCode, report, say
from owm.cli.interruption import kept_interruptions
from owm.cli.terminal import speak_utf8
from owm.errors import OwmError


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command lives, and the first line of its docstring (a test compares them)."""

    module: str
    help: str
    is_hidden: bool = False


COMMANDS = {
    "run": Command("run", "Answer a prompt: from the argument, from a pipe, or both."),
    "chat": Command(
        "chat.command",
        "Talk with a model; everything is kept as it is said, and `--continue` goes on at once.",
    ),
    "batch": Command(
        "batch", "Answer all prompts of a file, many at a time; killed or stopped, the same command goes on."
    ),
    "embed": Command("embed", "Make vectors (embeddings) of texts."),
    "pull": Command("pull", "Fetch models into the store."),
    "search": Command("search", "Search the Hub for models."),
    "import": Command(
        "import_models",
        "Use models that other tools, or you, have on this machine already; nothing is copied unless `--link` says so.",
    ),
    "convert": Command("convert", "Make a model file (GGUF) from a checkpoint: a folder, or a repo with safetensors."),
    "quantize": Command(
        "quantize", "Make a model smaller: a repo's or folder's safetensors, or a model file, in any type."
    ),
    "split": Command("split", "Split a model file (GGUF) into parts, for disks and hosts that take no large files."),
    "merge": Command("merge", "Make one model file (GGUF) of its parts."),
    "imatrix": Command("imatrix", "Compute a model's importance matrix, or show what is in one."),
    "quality": Command(
        "quality", "Measure how far a model is from a reference, most often from its own original weights."
    ),
    "fit": Command(
        "fit", "Say whether a model fits this machine, how fast it would be, and which quant owm would take."
    ),
    "list": Command("listing", "List the stored models."),
    "ls": Command("listing", "List the stored models.", is_hidden=True),
    "show": Command("show", "Show what is known of a model, stored or not: licence, size, how it would fit."),
    "path": Command("path", "Print where a model's file lies."),
    "verify": Command("verify", "Check that stored files are what was published."),
    "lock": Command(
        "lock", "Pin a project's models in `owm.lock`: commit, size and sha256 of every file, as they are stored now."
    ),
    "sync": Command(
        "sync", "Make the store match `owm.lock`: fetch what is missing, at its commit, and mend what is damaged."
    ),
    "rm": Command("rm", "Remove stored models."),
    "update": Command("update", "Bring stored models up to date with where they came from."),
    "export": Command("export", "Copy a stored model's files to a place of yours, under readable names."),
    "store": Command(
        "store", "Show where models and everything else lie; `owm store move` puts the models on another disk."
    ),
    "du": Command("du", "Show what models, caches and begun downloads take of the disk."),
    "prune": Command(
        "prune",
        "Remove begun downloads, files of no model, cached headers, working files and snapshots of conversations.",
    ),
    "alias": Command("alias", "Give a model another name, or list such names."),
    "config": Command("config", "Keep settings, for all models or for one; without a subcommand, list them."),
    "sessions": Command(
        "sessions",
        "List, show, search, export and remove kept conversations; without a subcommand, list them.",
    ),
    "prompts": Command("prompts", "Keep prompts under names; without a subcommand, list them."),
    "bench": Command("bench", "Measure how fast models run here, with the settings that `owm run` would use."),
    "tune": Command("tune", "List or forget what models were tuned to; without a subcommand, list it."),
    "doctor": Command(
        "doctor", "Show what this machine can do, what owm does with it, and what would mend what is amiss."
    ),
    "logs": Command("logs", "Log answers on this machine; without a subcommand, show the last ones."),
    "login": Command("login", "Log in to the Hub with a token, for gated and private models."),
    "logout": Command("logout", "Log out of the Hub: remove its tokens from this machine."),
    "cache": Command("cache", "Show or remove what is kept to go on with conversations at once."),
}


def build(argv: Sequence[str]) -> typer.Typer:
    """Make the app for one command line."""
    app = typer.Typer(
        name="owm",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_root)
    called = next((word for word in argv if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        if name == called:
            module = import_module(f"owm.cli.{command.module}")
            if hasattr(module, "subcommands"):
                app.add_typer(module.subcommands, name=name, hidden=command.is_hidden)
            else:
                app.command(name, hidden=command.is_hidden)(module.command)
        else:
            app.command(name, help=command.help, hidden=command.is_hidden)(_not_called)
    return app


def main(argv: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        with kept_interruptions():
            return _main(argv)
    except KeyboardInterrupt:  # a second one, while the first was being said
        return ExitCode.INTERRUPTED


def _main(argv: Sequence[str]) -> int:
    speak_utf8()
    if os.environ.get("OWM_OFFLINE"):
        from owm.store import offline

        if offline.is_offline():
            offline.guard()
    app = build(_completed_words() or argv)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = app(args=list(argv), prog_name="owm", standalone_mode=False)
    except OwmError as error:
        return report(error)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        if error.filename is not None:
            raise
        return _cannot_write(error)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):  # Typer turns it into an exit of its own
            return _reader_left()
        raise
    except typer.TyperException as error:
        return _usage_error(error, argv)
    code = int(result) if isinstance(result, int) else ExitCode.OK
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        return _cannot_write(error)
    return code


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda v: _version(v))
    ] = False,
) -> None:
    """Open-weight models, from wherever they are published to an answer in your terminal."""


def _version(is_asked: bool) -> None:
    if is_asked:
        from owm import __version__

        sys.stdout.write(f"owm {__version__}\n")
        raise typer.Exit


def _not_called() -> None:
    raise AssertionError("a command that is called is imported first")


def _completed_words() -> list[str]:
    """While the shell completes, the words are in the environment."""
    for name in ("_TYPER_COMPLETE_ARGS", "COMP_WORDS"):
        if "_OWM_COMPLETE" in os.environ and os.environ.get(name):
            return os.environ[name].split()[1:]
    return []


def _usage_error(error: Any, argv: Sequence[str]) -> int:
    message = error.format_message().strip().rstrip(".")
    if not message:  # the help has been shown instead
        return ExitCode.USAGE
    say("error", message[:1].lower() + message[1:])
    command = next((word for word in argv if word in COMMANDS), None)
    say("hint", f"`owm {command} --help`" if command else "`owm --help`")
    return ExitCode.USAGE


def _cannot_write(error: OSError) -> int:
    """Stdout takes nothing any more, most often because its disk is full."""
    say("error", f"cannot write to stdout: {error.strerror or error}")
    _reader_left()
    return ExitCode.NOT_ENOUGH if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ExitCode.FAILURE


def _reader_left() -> int:
    """The reader of stdout has gone (`| head`): end quietly, and keep Python from complaining at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return ExitCode.OK
