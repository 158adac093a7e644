"""Options and arguments of the commands, each declared once. Flags are llama.cpp's where it has one.

Those of commands that make model files are in `weight_options`.
"""

from typing import Annotated

import typer

SAMPLING = "Sampling"
RESOURCES = "Resources"
OUTPUT = "Output"


def complete_models(incomplete: str) -> list[str]:
    """Offer stored models, aliases and short names to the shell."""
    from owm.library import open_store
    from owm.store import catalog

    store = open_store()
    models = store.models()
    names = [store.shown_name(model, models) for model in models]
    return [
        name for name in sorted({*names, *store.aliases.load(), *catalog.load().entries}) if name.startswith(incomplete)
    ]


ModelArg = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A short name (`smollm2`, `llama3.2:3b:Q8_0`), `owner/repo[:QUANT]`, a path, or a web address.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
StoredArg = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A stored model, by its name or the beginning of it, or a path.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.", rich_help_panel=OUTPUT)]
ModelsArg = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL…",
        help="Short names, `owner/repo[:QUANT]`, or web addresses.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
StoredModelsArg = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL…", help="Stored models, by their full names.", show_default=False, autocompletion=complete_models
    ),
]
QuietOpt = Annotated[bool, typer.Option("--quiet", "-q", help="Say only warnings and errors.", rich_help_panel=OUTPUT)]
VerboseOpt = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say what is done and where it runs.", rich_help_panel=OUTPUT)
]
YesOpt = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]

PromptArg = Annotated[
    str | None,
    typer.Argument(metavar="PROMPT", help="What to ask. Text from a pipe comes before it.", show_default=False),
]
SystemOpt = Annotated[str | None, typer.Option("--system", help="System prompt.", show_default=False)]
RawOpt = Annotated[bool, typer.Option("--raw", help="Complete the prompt as it is, without the chat template.")]
MaxTokensOpt = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        "-n",
        help="Most tokens in the answer (default: to its own end, or the context's).",
        show_default=False,
    ),
]
StopOpt = Annotated[
    list[str] | None,
    typer.Option("--stop", help="Stop before this text; may be given several times.", show_default=False),
]
IgnoreEosOpt = Annotated[bool, typer.Option("--ignore-eos", help="Go on past the end of the turn.")]

TempOpt = Annotated[
    float | None,
    typer.Option(
        "--temp", help="Temperature, 0 is greedy (default: 0.8).", rich_help_panel=SAMPLING, show_default=False
    ),
]
TopKOpt = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        help="Draw from the K likeliest, 0 is all (default: 40).",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]
TopPOpt = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        help="Draw from the likeliest that sum to P (default: 0.95).",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]
MinPOpt = Annotated[
    float | None,
    typer.Option(
        "--min-p",
        help="Leave out what is less likely than P times the likeliest (default: 0.05).",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]
RepeatPenaltyOpt = Annotated[
    float | None,
    typer.Option(
        "--repeat-penalty",
        help="Above 1, repeating is less likely (default: 1).",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]
SeedOpt = Annotated[
    int | None,
    typer.Option(
        "--seed", help="Makes an answer repeatable (default: random).", rich_help_panel=SAMPLING, show_default=False
    ),
]

CtxSizeOpt = Annotated[
    int | None,
    typer.Option(
        "--ctx-size",
        "-c",
        help="Tokens in the context (default: what prompt and answer need).",
        rich_help_panel=RESOURCES,
        show_default=False,
    ),
]
ThreadsOpt = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-t",
        help="CPU threads (default: performance cores).",
        rich_help_panel=RESOURCES,
        show_default=False,
    ),
]
GpuLayersOpt = Annotated[
    int | None,
    typer.Option(
        "--gpu-layers",
        "-ngl",
        help="Layers on the GPU, -1 is all (default: as many as fit).",
        rich_help_panel=RESOURCES,
        show_default=False,
    ),
]
StatsOpt = Annotated[
    bool, typer.Option("--stats", help="Say load time, rates and memory on stderr.", rich_help_panel=OUTPUT)
]
