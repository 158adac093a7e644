"""`owm run --each`: one prompt a line from stdin, one answer a line to stdout."""

from collections.abc import Mapping, Sequence
from typing import Any

from owm.batch.pattern import Pattern
from owm.cli.asking import text_of
from owm.cli.batch_job import BatchJob, Shape
from owm.cli.output import Output
from owm.errors import UsageError
from owm.library.batching import Batch


def check_alone(flags: Mapping[str, object]) -> None:
    """Refuse flags that mean nothing where each line is a prompt.

    Raises:
        UsageError: one of them was given.
    """
    if given := [flag for flag, value in flags.items() if value]:
        raise UsageError(f"--each takes its prompts from stdin, {given[0]} has no place beside it")


def line_prompt(prompt: str | None) -> str | None:
    """Return what becomes of a line: it fills `{line}`, or stands above the prompt as text from a pipe does.

    Raises:
        UsageError: a placeholder is another.
    """
    if prompt is None or not text_of(prompt, "PROMPT").strip():
        return None
    if "{line}" in prompt or "{input}" in prompt:
        return Pattern(prompt).text
    return "{line}\n\n" + prompt.replace("{", "{{").replace("}", "}}")


def lines_job(
    out: Output,
    flags: Mapping[str, Any],
    *,
    template: str | None,
    raw: bool,
    stop: Sequence[str],
    shape: Shape,
    answer_prefix: str | None,
    logprobs: int | None,
    think_budget: int | None,
    lora: Sequence[str],
    system: str | None,
    stats: bool,
) -> BatchJob:
    """Make a batch of the lines of stdin; with `--json`, answers are JSONL.

    Raises:
        UsageError: flags contradict each other.
    """
    if logprobs and not out.as_json:
        raise UsageError("--logprobs has a place in JSON only", hint="add `--json`")
    batch = Batch(
        source=None,
        output=None,
        input_form="lines",
        output_form="jsonl" if out.as_json else "lines",
        template=template,
        is_raw=raw,
        seed=flags["seed"],
    )
    return BatchJob(
        batch,
        Output(quiet=out.quiet, verbose=out.verbose),
        flags,
        stop=stop,
        shape=shape,
        answer_prefix=answer_prefix,
        logprobs=logprobs,
        think_budget=think_budget,
        lora=lora,
        system=system,
        summarizes=stats,
    )
