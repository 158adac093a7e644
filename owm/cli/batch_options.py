"""Options of `owm batch`, each declared once; those that it shares with `owm run` are in `options`."""

from pathlib import Path
from typing import Annotated

import typer

from owm.cli.options import INPUT, OUTPUT, RESOURCES, SHAPE, THINKING, complete_models

SAFETY = "What is there already"
FAILURES = "Failed rows"

RowsArg = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="Rows: JSONL (with `prompt` or `messages`, or OpenAI batch rows), CSV, TSV or plain lines; `-` is stdin.",
        show_default=False,
        allow_dash=True,
    ),
]
ModelsOpt = Annotated[
    list[str],
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="The model that answers; several give an answer each.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
AnswersOpt = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Write the answers here, with a journal beside it, so that nothing is lost; `-` or none is stdout.",
        show_default=False,
        allow_dash=True,
    ),
]
RowPromptOpt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="The prompt of each row, with a `{column}` for each of its fields (`{line}` for plain lines).",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
InputFormOpt = Annotated[
    str | None,
    typer.Option(
        "--input-format",
        metavar="jsonl|csv|tsv|lines",
        help="Form of the rows (default: by the name's ending, else by the first line).",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
OutputFormOpt = Annotated[
    str | None,
    typer.Option(
        "--output-format",
        metavar="jsonl|openai|csv|tsv|lines",
        help="Form of the answers (default: by the name's ending, else that of the rows).",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
OrderOpt = Annotated[
    str,
    typer.Option(
        "--order",
        metavar="input|done",
        help="Order of the answers: that of the rows, or that in which they were done.",
        rich_help_panel=OUTPUT,
    ),
]
ParallelOpt = Annotated[
    str,
    typer.Option(
        "--parallel",
        "-np",
        metavar="auto|N",
        help="Rows at a time; `auto` measures for a second or two what is best here.",
        rich_help_panel=RESOURCES,
    ),
]
DeterministicOpt = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="One row at a time, computed in a way that depends on it alone: the same bytes on every run.",
        rich_help_panel=RESOURCES,
    ),
]
RowLogprobsOpt = Annotated[
    int | None,
    typer.Option(
        "--logprobs",
        metavar="K",
        min=1,
        max=100,
        help="In JSONL: the K likeliest tokens at each place.",
        rich_help_panel=SHAPE,
        show_default=False,
    ),
]
RowThinkOpt = Annotated[
    str | None,
    typer.Option(
        "--think",
        metavar="show|hide|off",
        help="Whether to think before answering: surely, as the model is used to, or not at all. Thoughts stand apart"
        " from answers, as `reasoning`.",
        rich_help_panel=THINKING,
        show_default=False,
    ),
]
RestartOpt = Annotated[
    bool, typer.Option("--restart", help="Forget what was answered before, and begin anew.", rich_help_panel=SAFETY)
]
AppendOpt = Annotated[
    bool,
    typer.Option(
        "--append",
        help="Keep what was answered with another model or other settings, and go on with these.",
        rich_help_panel=SAFETY,
    ),
]
ErrorsOpt = Annotated[
    Path | None,
    typer.Option(
        "--errors",
        metavar="FILE",
        help="Write failed rows here (JSONL) instead of among the answers.",
        rich_help_panel=FAILURES,
        show_default=False,
    ),
]
MaxErrorsOpt = Annotated[
    int | None,
    typer.Option(
        "--max-errors",
        metavar="N",
        min=1,
        help="Stop once N rows have failed.",
        rich_help_panel=FAILURES,
        show_default=False,
    ),
]
StrictOpt = Annotated[bool, typer.Option("--strict", help="Stop at the first failed row.", rich_help_panel=FAILURES)]
