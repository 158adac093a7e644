"""`owm run`: one prompt in, one answer out, or several, in the shape that was asked for."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.cli import options as o
from owm.cli.output import Output, talk
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.engine.asked import Asked
    from owm.settings.layers import Setting


def command(
    model: o.ModelArg,
    prompt: o.PromptArg = None,
    system: o.SystemOpt = None,
    file: o.FileOpt = None,
    prompt_file: o.PromptFileOpt = None,
    messages: o.MessagesOpt = None,
    each: o.EachOpt = False,
    prompt_template: o.PromptTemplateOpt = None,
    var: o.VarOpt = None,
    overflow: o.OverflowOpt = "error",
    chunk: o.ChunkOpt = None,
    raw: o.RawOpt = False,
    max_tokens: o.MaxTokensOpt = None,
    stop: o.StopOpt = None,
    ignore_eos: o.IgnoreEosOpt = False,
    schema: o.SchemaOpt = None,
    choice: o.ChoiceOpt = None,
    regex: o.RegexOpt = None,
    grammar: o.GrammarOpt = None,
    answer_prefix: o.AnswerPrefixOpt = None,
    extract: o.ExtractOpt = False,
    drafts: o.DraftsOpt = None,
    logprobs: o.LogprobsOpt = None,
    think: o.ThinkOpt = None,
    effort: o.EffortOpt = None,
    think_budget: o.ThinkBudgetOpt = None,
    temp: o.TempOpt = None,
    top_k: o.TopKOpt = None,
    top_p: o.TopPOpt = None,
    min_p: o.MinPOpt = None,
    repeat_penalty: o.RepeatPenaltyOpt = None,
    seed: o.SeedOpt = None,
    lora: o.RunLoraOpt = None,
    ctx_size: o.CtxSizeOpt = None,
    threads: o.ThreadsOpt = None,
    gpu_layers: o.GpuLayersOpt = None,
    trust: o.TrustOpt = False,
    show_settings: o.ShowSettingsOpt = False,
    log: o.LogOpt = False,
    stats: o.StatsOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Answer a prompt: from the argument, from a pipe, or both.

    Text from a pipe is the material, the argument the instruction: `git diff | owm run MODEL "write a commit message"`.
    The answer, and nothing else, goes to stdout. A model that is not stored is pulled first.
    """
    from owm.cli.asking import AskOptions, gather, text_of
    from owm.cli.fetching import find_or_pull
    from owm.cli.shape import read_shape
    from owm.engine.adapter import read_adapter
    from owm.engine.overflow import read_mode
    from owm.settings import config, keys, layers

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
    if each:
        from owm.cli.each import check_alone, line_prompt, lines_job

        check_alone(
            {
                "--file": file,
                "--prompt-file": prompt_file,
                "--messages": messages,
                "--prompt-template": prompt_template,
                "--var": var,
                "--chunk": chunk,
                "--overflow": overflow != "error",
                "--extract": extract,
                "--drafts": drafts,
                "--show-settings": show_settings,
                "--log": log,
            }
        )
        job = lines_job(
            out,
            flags,
            template=line_prompt(prompt),
            raw=raw,
            stop=stop or (),
            shape=(schema, choice, regex, grammar),
            answer_prefix=answer_prefix,
            logprobs=logprobs,
            think_budget=think_budget,
            lora=lora or (),
            system=system,
            stats=stats,
        )
        return job.run([model], sys.stdin)
    keys.check_flags(flags)  # refuse before any work
    layers.environment()
    config.load(config.default_path())
    mode = read_mode(overflow)
    adapters = [read_adapter(text) for text in lora or ()]
    constraint, labels = read_shape(schema, choice, regex, grammar)
    _check_together(
        stop=stop or (),
        json=json,
        drafts=drafts,
        logprobs=logprobs,
        extract=extract,
        has_shape=constraint is not None,
        labels=labels,
        answer_prefix=answer_prefix,
        raw=raw,
        think=think,
        effort=effort,
        think_budget=think_budget,
    )
    _check_thinking(think, think_budget, extract=extract)
    asked = None
    if not show_settings:
        ask = AskOptions(
            model,
            prompt,
            system,
            tuple(file or ()),
            _text(prompt_file),
            _text(messages),
            prompt_template,
            tuple(var or ()),
            raw,
        )
        asked = gather(ask, sys.stdin, note=out.note)
        for note in asked.notes:
            out.note(note)
    stored = find_or_pull(model, out)

    from owm.cli.opening import open_model
    from owm.cli.run_job import RunJob
    from owm.cli.wishing import make_wishes
    from owm.engine.family import sampling_defaults
    from owm.library import open_store
    from owm.library.configuring import effective, said_tuned

    _, early = effective(stored, open_store(), flags, note=out.note)
    if said := said_tuned(early):
        out.detail(said)
    with open_model(stored, out, gpu_layers=early["gpu_layers"].value, adapters=adapters) as opened:
        sampling, settings = effective(
            stored, open_store(), flags, header=opened.header, family=sampling_defaults(opened.header)
        )
        opened.check_makes_text()
        if asked is None:
            from owm.cli.settings_table import show_settings as show

            show(settings if system is None else settings | _said_system(system), out)
            return 0
        value = {name: setting.value for name, setting in settings.items()}
        _check_thinking(value["think"], think_budget, extract=extract)
        if not raw and value["system"] and not _has_system(asked):
            asked = replace(asked, turns=({"role": "system", "content": value["system"]}, *asked.turns))
        wishes = make_wishes(
            value,
            sampling.with_seed(),
            stop=stop,
            constraint=constraint,
            answer_prefix=answer_prefix,
            logprobs=logprobs,
            think_budget=think_budget,
            is_effort_asked=effort is not None,
            raw=raw,
            overflow=mode,
        )
        run_job = RunJob(opened, stored, wishes, out, asked, labels=labels, shown=value["think"])
        if chunk is not None:
            run_job.read_parts(text_of(chunk, "--chunk"))
        answers = run_job.answer(drafts or 1, is_live=not (json or extract))
        code = run_job.report(answers, drafts, extract=extract)
        if stats:
            for answer in answers:
                talk(answer.summary(opened.load_seconds) + "\n")
        run_job.log(answers, settings, is_forced=log)
    return code


def _check_together(
    *,
    stop: Sequence[str],
    json: bool,
    drafts: int | None,
    logprobs: int | None,
    extract: bool,
    has_shape: bool,
    labels: Sequence[str],
    answer_prefix: str | None,
    raw: bool,
    think: str | None,
    effort: str | None,
    think_budget: int | None,
) -> None:
    """Refuse flags that contradict each other."""
    if any(not text for text in stop):
        raise UsageError("--stop needs a text", hint="an empty text would stop everything")
    if has_shape and stop:
        raise UsageError("an answer of a given shape ends by itself, --stop would cut it", hint="leave one of them out")
    if labels and drafts is not None:
        raise UsageError("--choice is scored, not drawn, so there is only one answer", hint="leave out `--drafts`")
    if logprobs and not json:
        raise UsageError("--logprobs has a place in JSON only", hint="add `--json`")
    if extract and has_shape:
        raise UsageError("--extract looks for a code block, which an answer of a given shape has not")
    if raw and (think or effort or think_budget is not None):
        raise UsageError("--raw sends no template, so nothing is known of thoughts", hint="leave one of them out")
    if labels and logprobs:
        raise UsageError("--choice is scored, not drawn, so it has no --logprobs", hint="`--json` has probabilities")
    if labels and answer_prefix is not None:
        raise UsageError("--choice says all of the answer, --answer-prefix has no place in it")


def _check_thinking(think: str | None, think_budget: int | None, *, extract: bool) -> None:
    """Refuse what contradicts the effective `think`, wherever that is from."""
    if extract and think == "only":
        raise UsageError("--think only shows no answer to extract from")
    if think_budget is not None and think == "off":
        raise UsageError("--think off leaves no thought for --think-budget")


def _has_system(asked: "Asked") -> bool:
    return any(turn["role"] in ("system", "developer") for turn in asked.turns)


def _said_system(system: str) -> "dict[str, Setting]":
    from owm.settings.layers import Setting

    return {"system": Setting(system, "--system")}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
