"""Options of `owm bench`. Flags are llama-bench's; each takes lists and ranges, and may be repeated."""

from pathlib import Path
from typing import Annotated

import typer

from owm.cli.options import INPUT, OUTPUT, RESOURCES, complete_models

COMPARING = "Comparing"
TUNING = "Tuning"
QUALITY = "Quality"


def _numbers(*flags: str, help: str, panel: str = RESOURCES) -> typer.models.OptionInfo:  # noqa: A002
    found: typer.models.OptionInfo = typer.Option(
        *flags, metavar="N,…", help=help, rich_help_panel=panel, show_default=False
    )
    return found


BenchModelsArg = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL…",
        help="Models, as `owm run` takes them; with `--compare`, also a second set of results.",
        show_default=False,
        autocompletion=complete_models,
    ),
]
PromptTokensOpt = Annotated[
    list[str] | None,
    _numbers("--n-prompt", "-p", help="Tokens to read (default: 512; `1,2,4`, `1-8`, `128-1024*2`).", panel=INPUT),
]
GenOpt = Annotated[list[str] | None, _numbers("--n-gen", "-n", help="Tokens to make (default: 128).", panel=INPUT)]
PairOpt = Annotated[
    list[str] | None,
    typer.Option("-pg", metavar="PP,TG", help="Read, then make, in one go.", rich_help_panel=INPUT, show_default=False),
]
DepthOpt = Annotated[
    list[str] | None,
    _numbers("--n-depth", "--depth", "-d", help="Tokens in the context before, not timed (default: 0).", panel=INPUT),
]
BenchPromptOpt = Annotated[
    Path | None,
    typer.Option(
        "--prompt",
        metavar="FILE",
        help="A real prompt instead of random tokens; answers are sampled, greedily.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
BenchParallelOpt = Annotated[
    list[str] | None,
    _numbers("--parallel", "-np", help="Answers side by side, as `owm batch` makes them (default: 1).", panel=INPUT),
]
RepetitionsOpt = Annotated[int, typer.Option("--repetitions", "-r", min=1, help="Times to measure each.")]
NoWarmupOpt = Annotated[
    bool, typer.Option("--no-warmup", help="Measure at once, without a first run that is left out.")
]
BenchThreadsOpt = Annotated[
    list[str] | None, _numbers("--threads", "-t", help="CPU threads (default: as `owm run`, performance cores).")
]
BatchSizeOpt = Annotated[
    list[str] | None, _numbers("--batch-size", "-b", help="Tokens in one call of llama.cpp (default: 2048).")
]
UbatchSizeOpt = Annotated[
    list[str] | None, _numbers("--ubatch-size", "-ub", help="Tokens computed at once (default: 512).")
]
BenchGpuLayersOpt = Annotated[
    list[str] | None,
    _numbers("--gpu-layers", "--n-gpu-layers", "-ngl", help="Layers on the GPU, -1 is all (default: as many as fit)."),
]
FlashAttnOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--flash-attn",
        "-fa",
        metavar="on|off|auto,…",
        help="Attention in little memory (default: auto).",
        rich_help_panel=RESOURCES,
        show_default=False,
    ),
]
CacheTypeKOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--cache-type-k",
        "-ctk",
        metavar="TYPE,…",
        help="Type of the KV cache's keys (default: f16).",
        rich_help_panel=RESOURCES,
        show_default=False,
    ),
]
CacheTypeVOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--cache-type-v",
        "-ctv",
        metavar="TYPE,…",
        help="Type of the KV cache's values (default: f16).",
        rich_help_panel=RESOURCES,
        show_default=False,
    ),
]
FormOpt = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="table|md|csv|json|jsonl|sql",
        help="Form of the results (default: a table on a terminal, md in a pipe).",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
QualityOpt = Annotated[
    bool,
    typer.Option(
        "--quality",
        help="Measure KL divergence, perplexity and top-1 agreement, too, against the model with the most bits.",
        rich_help_panel=QUALITY,
    ),
]
ReferenceOpt = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="MODEL",
        help="What quality is measured against, best the original weights.",
        rich_help_panel=QUALITY,
        show_default=False,
        autocompletion=complete_models,
    ),
]
BenchPlotOpt = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw size, speed and quality (`.svg`, `.png`).",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
ChartOpt = Annotated[bool, typer.Option("--chart", help="Draw bars, too.", rich_help_panel=OUTPUT)]
NoHistoryOpt = Annotated[bool, typer.Option("--no-history", help="Do not keep the results.", rich_help_panel=OUTPUT)]
CompareOpt = Annotated[
    str | None,
    typer.Option(
        "--compare",
        metavar="last|DATE|FILE",
        help="Compare with earlier results; `--compare A B` compares two sets and measures nothing.",
        rich_help_panel=COMPARING,
        show_default=False,
    ),
]
FailOnRegressionOpt = Annotated[
    str | None,
    typer.Option(
        "--fail-on-regression",
        metavar="SHARE",
        help="Exit with 1 if something is slower by this or more, beyond the noise: `5%`.",
        rich_help_panel=COMPARING,
        show_default=False,
    ),
]
TuneOpt = Annotated[
    bool,
    typer.Option("--tune", help="Search the fastest settings for this machine, and keep them.", rich_help_panel=TUNING),
]
BudgetOpt = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="TIME", help="Time for `--tune` (default: 60s).", rich_help_panel=TUNING, show_default=False
    ),
]
