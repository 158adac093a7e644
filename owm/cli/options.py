"""Options and arguments of the commands, each declared once. Flags are llama.cpp's where it has one.

Those of commands that make model files are in `weight_options`.
"""

from pathlib import Path
from typing import Annotated

import typer

INPUT = "Input"
SHAPE = "Shape of the answer"
THINKING = "Thinking"
SAMPLING = "Sampling"
RESOURCES = "Resources"
OUTPUT = "Output"

MAX_DRAFTS = 64


def complete_models(incomplete: str) -> list[str]:
    """Offer stored models, aliases and short names to the shell."""
    from owm.cli.completing import offered
    from owm.library import open_store
    from owm.store import catalog

    store = open_store()
    models = store.models()
    names = [store.shown_name(model, models) for model in models]
    return offered(sorted({*names, *store.aliases.load(), *catalog.load().entries}), incomplete)


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


def _go_offline(is_asked: bool) -> bool:
    if is_asked:
        from owm.store import offline

        offline.switch_on()
    return is_asked


OfflineOpt = Annotated[
    bool,
    typer.Option("--offline", help="Leave the network alone: what is not stored is an error.", callback=_go_offline),
]


def _go_trusting(is_asked: bool) -> bool:
    if is_asked:
        from owm.library import gate

        gate.trust()
    return is_asked


TrustOpt = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Trust the model: neither its file nor its template gets a process of its own first.",
        callback=_go_trusting,
    ),
]

PromptArg = Annotated[
    str | None,
    typer.Argument(metavar="PROMPT", help="What to ask. Text from a pipe comes before it.", show_default=False),
]
SystemOpt = Annotated[str | None, typer.Option("--system", help="System prompt.", show_default=False)]
FileOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Put a file's text before the prompt: text, source code, PDF; may be repeated. `@FILE` in the prompt"
        " does so too.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
PromptFileOpt = Annotated[
    Path | None,
    typer.Option(
        "--prompt-file", metavar="FILE", help="Read the prompt from a file.", rich_help_panel=INPUT, show_default=False
    ),
]
MessagesOpt = Annotated[
    Path | None,
    typer.Option(
        "--messages",
        metavar="FILE",
        help="Go on with a conversation: a JSON list of turns with `role` and `content`.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
EachOpt = Annotated[
    bool,
    typer.Option(
        "--each",
        help="Take each line from stdin for a prompt of its own, many at a time; PROMPT says what to do with a line.",
        rich_help_panel=INPUT,
    ),
]
PromptTemplateOpt = Annotated[
    str | None,
    typer.Option(
        "--prompt-template",
        metavar="NAME",
        help="Take a saved prompt (`owm prompts`), its `{placeholders}` filled by `--var`.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
VarOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--var",
        metavar="KEY=VALUE",
        help="Fill a placeholder of `--prompt-template`; may be repeated.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
AnswerPrefixOpt = Annotated[
    str | None,
    typer.Option(
        "--answer-prefix",
        metavar="TEXT",
        help="The answer begins with this.",
        rich_help_panel=SHAPE,
        show_default=False,
    ),
]
OverflowOpt = Annotated[
    str,
    typer.Option(
        "--overflow",
        metavar="error|head|tail|middle",
        help="Where to cut a text that is too long for the context, and say so; `error` cuts nothing.",
        rich_help_panel=INPUT,
    ),
]
ChunkOpt = Annotated[
    str | None,
    typer.Option(
        "--chunk",
        metavar="INSTRUCTION",
        help="Read a long text in parts: each is answered with this, and the prompt with all those answers.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
SchemaOpt = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="SCHEMA",
        help="Answer in JSON of this JSON Schema: a file, the schema itself, or `name, age int, tags: list`.",
        rich_help_panel=SHAPE,
        show_default=False,
    ),
]
ChoiceOpt = Annotated[
    str | None,
    typer.Option(
        "--choice",
        metavar="A,B,…",
        help="Answer with the likeliest of these; `--json` has the probability of each.",
        rich_help_panel=SHAPE,
        show_default=False,
    ),
]
RegexOpt = Annotated[
    str | None,
    typer.Option(
        "--regex", metavar="REGEX", help="Answer what fits this whole.", rich_help_panel=SHAPE, show_default=False
    ),
]
GrammarOpt = Annotated[
    Path | None,
    typer.Option(
        "--grammar",
        metavar="FILE",
        help="Answer by this grammar, GBNF or Lark.",
        rich_help_panel=SHAPE,
        show_default=False,
    ),
]
ExtractOpt = Annotated[
    bool, typer.Option("--extract", help="Print the answer's first fenced code block only.", rich_help_panel=SHAPE)
]
DraftsOpt = Annotated[
    int | None,
    typer.Option(
        "--drafts",
        metavar="K",
        min=1,
        max=MAX_DRAFTS,
        help="Make K answers at once, each with its own seed.",
        rich_help_panel=SHAPE,
        show_default=False,
    ),
]
LogprobsOpt = Annotated[
    int | None,
    typer.Option(
        "--logprobs",
        metavar="K",
        min=1,
        max=100,
        help="With `--json`: the K likeliest tokens at each place.",
        rich_help_panel=SHAPE,
        show_default=False,
    ),
]
ThinkOpt = Annotated[
    str | None,
    typer.Option(
        "--think",
        metavar="show|hide|only|off",
        help="What becomes of a thought: shown (dim; into a pipe: on stderr), hidden, alone, or not made at all"
        " (default: shown on a terminal, hidden in a pipe).",
        rich_help_panel=THINKING,
        show_default=False,
    ),
]
EffortOpt = Annotated[
    str | None,
    typer.Option(
        "--effort",
        metavar="low|medium|high",
        help="How much to think, for models that know levels.",
        rich_help_panel=THINKING,
        show_default=False,
    ),
]
ThinkBudgetOpt = Annotated[
    int | None,
    typer.Option(
        "--think-budget",
        metavar="N",
        min=0,
        help="Close a thought after N tokens.",
        rich_help_panel=THINKING,
        show_default=False,
    ),
]
RunLoraOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[=SCALE]",
        help="Apply an adapter (GGUF); may be repeated.",
        rich_help_panel=RESOURCES,
        show_default=False,
    ),
]
ShowSettingsOpt = Annotated[
    bool,
    typer.Option(
        "--show-settings",
        help="Show every setting and where it comes from, and answer nothing.",
        rich_help_panel=OUTPUT,
    ),
]
LogOpt = Annotated[
    bool, typer.Option("--log", help="Keep prompt and answer in the log (`owm logs`).", rich_help_panel=OUTPUT)
]
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

EmbedTextArg = Annotated[
    str | None,
    typer.Argument(metavar="TEXT", help="The text to embed. Without one it comes from a pipe.", show_default=False),
]
EmbedFileOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Embed a file's text: text, source code, PDF; `-` is the pipe; may be repeated.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
LinesOpt = Annotated[
    bool, typer.Option("--lines", help="Each line of the pipe or the files is a text.", rich_help_panel=INPUT)
]
JsonlOpt = Annotated[
    bool,
    typer.Option(
        "--jsonl",
        help="Each line is a JSON object with a `text` (or `input`); its `id` is kept.",
        rich_help_panel=INPUT,
    ),
]
PrefixOpt = Annotated[
    str,
    typer.Option(
        "--prefix",
        metavar="TEXT",
        help="Put this before every text, as the model wants it (`query: `).",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
PoolingOpt = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        metavar="mean|cls|last",
        help="How the vectors of the tokens become one (default: as the model's file says).",
        show_default=False,
    ),
]
NoNormalizeOpt = Annotated[bool, typer.Option("--no-normalize", help="Leave the vectors as long as they are.")]
VectorsOutputOpt = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.npy",
        help="Write the vectors as a matrix that numpy reads, and print the file's name.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
EmbedJsonOpt = Annotated[
    bool, typer.Option("--json", help="Write one JSON object for all texts.", rich_help_panel=OUTPUT)
]
