"""`owm sessions`: the conversations that `owm chat` keeps."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.subcommands import output, with_subcommands

if TYPE_CHECKING:
    from datetime import datetime

    from owm.chat.conversation import Branch
    from owm.chat.session import Session
    from owm.chat.sessions import Summary
    from owm.chat.turn import Turn

MAX_HITS = 3


def command(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """List, show, search, export and remove kept conversations; without a subcommand, list them.

    `owm chat --session ID` goes on with one, `owm chat --continue` with the last.
    """
    out = output(context, json, quiet, verbose)
    if context.invoked_subcommand is None:
        _list(out)


subcommands = with_subcommands(command)


def complete_sessions(incomplete: str) -> list[str]:
    """Offer the ids of sessions to the shell."""
    from owm.chat.sessions import open_sessions
    from owm.cli.completing import offered

    return offered((summary.id for summary in open_sessions().summaries()), incomplete)


SessionArg = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        help="A session: its id, its title, or the beginning of one.",
        show_default=False,
        autocompletion=complete_sessions,
    ),
]
WholeSessionsArg = Annotated[
    list[str],
    typer.Argument(
        metavar="SESSION…",
        help="Sessions, by their whole ids or titles.",
        show_default=False,
        autocompletion=complete_sessions,
    ),
]
BranchOpt = Annotated[
    str | None,
    typer.Option(
        "--branch",
        metavar="NAME|N",
        help="Another branch than the one it stands on, by name or number.",
        show_default=False,
    ),
]


@subcommands.command("list")
def list_sessions(
    context: typer.Context, json: o.JsonOpt = False, quiet: o.QuietOpt = False, verbose: o.VerboseOpt = False
) -> None:
    """List the sessions, the last used first."""
    _list(output(context, json, quiet, verbose))


@subcommands.command("show")
def show_session(
    context: typer.Context,
    session: SessionArg,
    branch: BranchOpt = None,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Show a conversation; `--json` has all of its branches and what is known of each turn."""
    out = output(context, json, quiet, verbose)
    shown = _read(session, out)
    at = shown.find_branch(branch).turn if branch is not None else shown.head
    branches = shown.branches()
    if out.as_json:
        out.data(_whole(shown, branches))
        return
    turns = shown.path(at) if at is not None else []
    _print("\n".join([_headline(shown), *map(_readable, turns)]))
    if len(branches) > 1:
        names = ", ".join(
            f"{each.number} ({each.name or each.begins}, {_count(each.n_turns, 'turn')})" for each in branches
        )
        out.note(f"it has {len(branches)} branches: {names}; `--branch N` shows one")


@subcommands.command("search")
def search_sessions(
    context: typer.Context,
    text: Annotated[
        list[str],
        typer.Argument(metavar="WORD…", help="Words that all are in one turn, in any order and case."),
    ],
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Search in all that was said, on all branches, and in titles."""
    from dataclasses import asdict

    from owm.chat.sessions import open_sessions
    from owm.cli.terminal import one_line

    out = output(context, json, quiet, verbose)
    found = open_sessions().search(" ".join(text))
    if out.as_json:
        out.data([{**_row(each.summary), "hits": [asdict(hit) for hit in each.hits]} for each in found])
        return
    if not found:
        out.note("no session has these words")
        return
    blocks = []
    for each in found:
        summary = each.summary
        lines = [f"{summary.id}  {_when(summary.updated)}  {summary.title or ''}"]
        lines += [f"  [{hit.turn}] {_side(hit.role)}: {hit.excerpt}" for hit in each.hits[:MAX_HITS]]
        if len(each.hits) > MAX_HITS:
            lines.append(f"  … (in {len(each.hits) - MAX_HITS} turns more)")
        blocks.append("".join(one_line(line.rstrip()) + "\n" for line in lines))
    _print("\n".join(blocks))


@subcommands.command("export")
def export_session(
    context: typer.Context,
    session: SessionArg,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="md|json|html", help="Its form (default: as FILE ends, or md).", show_default=False
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write it to a file.", rich_help_panel=o.OUTPUT, show_default=False
        ),
    ] = None,
    branch: BranchOpt = None,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Write a conversation as Markdown, as JSON that `owm run --messages` takes, or as a page of HTML.

    Without `-o FILE`, it goes to stdout.
    """
    from json import dumps

    from owm.chat import export
    from owm.cli.terminal import is_terminal, visible
    from owm.errors import UsageError

    out = output(context, json, quiet, verbose)
    ending = file.suffix.lower().lstrip(".") if file is not None else ""
    if form is None:
        form = "json" if out.as_json and file is None else {"htm": "html", "html": "html", "json": "json"}.get(ending)
        form = form or "md"
    if form not in export.FORMATS:
        raise UsageError(f"no such form: {form}", hint=f"there are: {', '.join(export.FORMATS)}")
    if out.as_json and file is None and form != "json":
        raise UsageError(f"--json is another form than --format {form}")
    shown = _read(session, out)
    end = shown.find_branch(branch).turn if branch is not None else None
    if form == "json":
        if file is None:
            Output(as_json=True).data(export.as_json(shown, end))
            return
        text = dumps(export.as_json(shown, end), ensure_ascii=False, indent=2) + "\n"
        text = _whole_characters(text)
    else:
        text = export.as_html(shown, end) if form == "html" else export.as_markdown(shown, end)
    if file is None:
        sys.stdout.write(visible(text) if is_terminal(sys.stdout) else text)
        return
    _write(file, text)
    out.note(f"wrote {file}")
    if out.as_json:
        out.data({"id": shown.id, "path": str(file.absolute()), "format": form})


@subcommands.command("rm")
def remove_sessions(
    context: typer.Context,
    sessions: WholeSessionsArg,
    yes: o.YesOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Remove conversations for good."""
    from owm.chat.sessions import open_sessions
    from owm.cli.output import confirm
    from owm.cli.terminal import is_terminal
    from owm.errors import UsageError

    out = output(context, json, quiet, verbose)
    folder = open_sessions()
    found = list(dict.fromkeys(folder.find(name, is_exact=True) for name in sessions))
    if not yes:
        what = ", ".join(path.stem for path in found)
        if not is_terminal(sys.stdin):
            raise UsageError(f"this removes {_count(len(found), 'session')}", hint="`owm sessions rm --yes …` does")
        if not confirm(f"remove {_count(len(found), 'session')} for good: {what}?"):
            found = []
    for path in found:
        folder.remove(path)
        out.note(f"removed the session {path.stem}")
    if out.as_json:
        out.data([{"id": path.stem} for path in found])


def _list(out: Output) -> None:
    from owm.chat.sessions import open_sessions

    summaries = open_sessions().summaries()
    for summary in summaries:
        if summary.damage is not None:
            out.warn(summary.damage)
    if out.as_json:
        out.data([_row(summary) for summary in summaries])
        return
    if not summaries:
        out.note("no conversations are kept; `owm chat` begins one")
        return
    lines = [
        {
            "id": summary.id,
            "title": _whole_characters(summary.title or ""),
            "model": summary.model,
            "turns": summary.n_turns,
            "used": _when(summary.updated),
        }
        for summary in summaries
    ]
    columns = {"id": "ID", "title": "TITLE", "model": "MODEL", "turns": "TURNS", "used": "USED"}
    out.table(lines, columns, right=("turns",))


def _row(summary: "Summary") -> dict[str, Any]:
    from owm.chat.turn import written_time

    return {
        "id": summary.id,
        "title": summary.title,
        "model": summary.model,
        "n_turns": summary.n_turns,
        "n_branches": summary.n_branches,
        "created": written_time(summary.created),
        "updated": written_time(summary.updated),
        "size_bytes": summary.size_bytes,
        "path": str(summary.path),
        "damage": summary.damage,
    }


def _read(name: str, out: Output) -> "Session":
    """Read a session, and say what of it is lost."""
    from owm.chat.session import Session
    from owm.chat.sessions import open_sessions

    session = Session.read(open_sessions().find(name))
    if session.damage is not None:
        out.warn(session.damage)
    return session


def _whole(session: "Session", branches: "list[Branch]") -> dict[str, Any]:
    from owm.chat.turn import written_time

    return {
        "id": session.id,
        "path": str(session.file),
        "title": session.title,
        "model": session.model,
        "model_sha256": session.model_sha256,
        "created": written_time(session.created),
        "system": session.system,
        "settings": dict(session.settings),
        "head": session.head,
        "branches": [
            {"number": each.number, "name": each.name, "turn": each.turn, "is_current": each.is_current}
            for each in branches
        ],
        "turns": [turn.members() for turn in session.turns.values()],
        "damage": session.damage,
    }


def _headline(session: "Session") -> str:
    from owm.cli.terminal import one_line, visible

    about = ", ".join(filter(None, (session.id, session.model, f"begun {_when(session.created)}")))
    lines = [one_line(session.title or "(no title)"), one_line(about)]
    if session.system is not None:
        lines.append(visible(f"system: {session.system}"))
    return "\n".join(lines) + "\n"


def _readable(turn: "Turn") -> str:
    """Return a turn as people read it: what steers a terminal is made visible, in a pipe too (`| less -R`)."""
    from owm.cli.terminal import one_line, visible

    who = turn.model or "model" if turn.role == "assistant" else _side(turn.role)
    lines = [one_line(f"[{turn.id}] {_when(turn.at)}  {who}")]
    if turn.attachments:
        lines.append(one_line(f"attached: {', '.join(turn.attachments)}"))
    if turn.reasoning:
        lines.append(f"(a thought of {_count(len(turn.reasoning), 'character')}, in `--json` and exports)")
    mark = "" if turn.role == "assistant" else "> "
    lines += [visible(f"{mark}{line}") for line in turn.words.strip("\n").split("\n")]
    if turn.finish_reason not in (None, "stop"):
        lines.append(one_line(f"({turn.finish_reason})"))
    return "\n".join(lines) + "\n"


def _print(text: str) -> None:
    sys.stdout.write(_whole_characters(text))


def _whole_characters(text: str) -> str:
    """Write halves of characters, which JSON can hold and stdout cannot, as JSON does."""
    return text.encode("utf-8", "backslashreplace").decode()


def _side(role: str) -> str:
    return {"user": "you", "assistant": "model"}.get(role, role)


def _when(time: "datetime") -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _write(file: Path, text: str) -> None:
    from owm.errors import StoreError
    from owm.publishing import save_text

    try:
        save_text(file, text)
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror or error}", hint="choose another file") from error
