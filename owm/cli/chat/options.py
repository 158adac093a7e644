"""Options of `owm chat`, each declared once; what it shares with other commands is in `options`."""

from typing import Annotated

import typer

from owm.cli import options as o

CONVERSATION = "Conversation"


def complete_sessions(incomplete: str) -> list[str]:
    """Offer the ids of sessions to the shell."""
    from owm.chat.sessions import open_sessions
    from owm.cli.completing import offered

    return offered((summary.id for summary in open_sessions().summaries()), incomplete)


ChatModelArg = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A short name (`smollm2`, `llama3.2:3b:Q8_0`), `owner/repo[:QUANT]`, a path, or a web address"
        " (default: the last one used).",
        show_default=False,
        autocompletion=o.complete_models,
    ),
]
ContinueOpt = Annotated[
    bool, typer.Option("--continue", help="Go on with the last conversation.", rich_help_panel=CONVERSATION)
]
SessionOpt = Annotated[
    str | None,
    typer.Option(
        "--session",
        metavar="NAME|ID",
        help="Go on with a conversation: its id, its title, or the beginning of one (`owm sessions`).",
        rich_help_panel=CONVERSATION,
        show_default=False,
        autocompletion=complete_sessions,
    ),
]
PrivateOpt = Annotated[
    bool, typer.Option("--private", help="Keep nothing of this conversation.", rich_help_panel=CONVERSATION)
]
ChatFileOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Send a file's text with the first turn: text, source code, PDF; may be repeated. `@FILE` in a prompt"
        " does so too.",
        rich_help_panel=o.INPUT,
        show_default=False,
    ),
]
ChatOverflowOpt = Annotated[
    str | None,
    typer.Option(
        "--overflow",
        metavar="ask|compact|drop|error",
        help="What to do when the context is full: ask, let a summary stand for the oldest turns, leave them out, or"
        " send nothing (default: ask).",
        rich_help_panel=CONVERSATION,
        show_default=False,
    ),
]
ChatThinkOpt = Annotated[
    str | None,
    typer.Option(
        "--think",
        metavar="on|off|show|hide",
        help="Whether a model that can think does so, and what is seen of it (default: live, one line in the end).",
        rich_help_panel=o.THINKING,
        show_default=False,
    ),
]
ChatRawOpt = Annotated[
    bool, typer.Option("--raw", help="Show answers as the model writes them, not rendered.", rich_help_panel=o.OUTPUT)
]
PlainOpt = Annotated[
    bool,
    typer.Option(
        "--plain",
        help="Lines in and out, for scripts and screen readers: each line is a turn, answers go to stdout as they are.",
        rich_help_panel=o.OUTPUT,
    ),
]
ChatJsonOpt = Annotated[
    bool,
    typer.Option("--json", help="As `--plain`, each answer as a line of JSON on stdout.", rich_help_panel=o.OUTPUT),
]
