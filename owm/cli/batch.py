"""`owm batch`: thousands of prompts through one file, side by side, safe to kill."""

import sys
from typing import TYPE_CHECKING, Any, cast, get_args

from owm.cli import batch_options as b
from owm.cli import options as o
from owm.cli.output import Output
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.batch.reading import InputForm
    from owm.batch.writing import OutputForm
    from owm.library.batching import Order


def command(
    rows: b.RowsArg,
    model: b.ModelsOpt,
    output: b.AnswersOpt = None,
    prompt: b.RowPromptOpt = None,
    input_format: b.InputFormOpt = None,
    system: o.SystemOpt = None,
    raw: o.RawOpt = False,
    max_tokens: o.MaxTokensOpt = None,
    stop: o.StopOpt = None,
    ignore_eos: o.IgnoreEosOpt = False,
    schema: o.SchemaOpt = None,
    choice: o.ChoiceOpt = None,
    regex: o.RegexOpt = None,
    grammar: o.GrammarOpt = None,
    answer_prefix: o.AnswerPrefixOpt = None,
    logprobs: b.RowLogprobsOpt = None,
    think: b.RowThinkOpt = None,
    effort: o.EffortOpt = None,
    think_budget: o.ThinkBudgetOpt = None,
    temp: o.TempOpt = None,
    top_k: o.TopKOpt = None,
    top_p: o.TopPOpt = None,
    min_p: o.MinPOpt = None,
    repeat_penalty: o.RepeatPenaltyOpt = None,
    seed: o.SeedOpt = None,
    parallel: b.ParallelOpt = "auto",
    deterministic: b.DeterministicOpt = False,
    lora: o.RunLoraOpt = None,
    ctx_size: o.CtxSizeOpt = None,
    threads: o.ThreadsOpt = None,
    gpu_layers: o.GpuLayersOpt = None,
    trust: o.TrustOpt = False,
    restart: b.RestartOpt = False,
    append: b.AppendOpt = False,
    errors: b.ErrorsOpt = None,
    max_errors: b.MaxErrorsOpt = None,
    strict: b.StrictOpt = False,
    order: b.OrderOpt = "input",
    output_format: b.OutputFormOpt = None,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Answer all prompts of a file, many at a time; killed or stopped, the same command goes on.

    `owm batch tickets.jsonl -m qwen3 -o answers.jsonl` answers each row, and says how it goes on stderr. Rows are
    JSONL, CSV, TSV or plain lines. Fields of a row pass through to its answer; `temp`, `max_tokens`, `schema`,
    `system`, `seed` and others hold for that row alone.
    """
    from owm.batch.reading import InputForm
    from owm.batch.writing import OutputForm
    from owm.cli.batch_job import BatchJob
    from owm.library.batching import Batch, Order

    out = Output(json, quiet, verbose)
    flags: dict[str, Any] = {
        "temp": temp,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repeat_penalty": repeat_penalty,
        "seed": seed,
        "ctx_size": ctx_size,
        "max_tokens": max_tokens,
        "threads": threads,
        "gpu_layers": gpu_layers,
        "think": think,
        "effort": effort,
        "ignore_eos": ignore_eos or None,
    }
    target = None if output is None or str(output) == "-" else output.expanduser()
    n_parallel = _parallel(parallel, is_deterministic=deterministic)
    _check_together(
        to_stdout=target is None, json=json, n_models=len(model), restart=restart, append=append, think=think
    )
    batch = Batch(
        source=None if str(rows) == "-" else rows.expanduser(),
        output=target,
        input_form=cast("InputForm | None", _one_of(input_format, InputForm, "--input-format")),
        output_form=cast("OutputForm | None", _one_of(output_format, OutputForm, "--output-format")),
        template=prompt,
        is_raw=raw,
        seed=seed,
        n_parallel=n_parallel,
        is_deterministic=deterministic,
        order=cast("Order", _one_of(order, Order, "--order")),
        errors=None if errors is None else errors.expanduser(),
        max_errors=1 if strict else max_errors,
        restarts=restart,
        appends=append,
    )
    job = BatchJob(
        batch,
        out,
        flags,
        stop=stop or (),
        shape=(schema, choice, regex, grammar),
        answer_prefix=answer_prefix,
        logprobs=logprobs,
        think_budget=think_budget,
        lora=lora or (),
        system=system,
    )
    return job.run(model, sys.stdin)


def _parallel(text: str, *, is_deterministic: bool) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--parallel must be auto or a positive number: {text}")
    if is_deterministic and int(text) > 1:
        raise UsageError("--deterministic answers one row at a time", hint="leave out `--parallel`")
    return int(text)


def _one_of(text: str | None, kind: Any, flag: str) -> str | None:
    choices = get_args(kind)
    if text is not None and text not in choices:
        raise UsageError(f"{flag} must be one of {', '.join(choices)}: {text}")
    return text


def _check_together(
    *, to_stdout: bool, json: bool, n_models: int, restart: bool, append: bool, think: str | None
) -> None:
    """Refuse flags that contradict each other."""
    if think == "only":
        raise UsageError("a batch is for answers, --think only has no place in it")
    if restart and append:
        raise UsageError("--restart forgets what was answered, --append keeps it", hint="leave one of them out")
    if not to_stdout:
        return
    if json:
        raise UsageError("--json is for the summary, and stdout is taken by the answers", hint="name a file with `-o`")
    if restart or append:
        raise UsageError("without a file there is nothing to go on from", hint="name one with `-o`")
    if n_models > 1:
        raise UsageError("several models need a file to write to", hint="name one with `-o`")
