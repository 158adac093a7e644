"""Answering what is asked, with all that can be wished of an answer: its shape, thought, length and number."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from owm.engine import context, mapreduce, overflow
from owm.engine.asked import Asked
from owm.engine.generate import Generation
from owm.engine.overflow import Fitted
from owm.engine.sampling import Sampling
from owm.engine.wishes import Wishes
from owm.errors import UsageError
from owm.events import Sink, ignore
from owm.hardware import probe

if TYPE_CHECKING:
    from owm.engine.model import Model
    from owm.engine.request import Chunk
    from owm.engine.scoring import ChoiceScore


def fit(model: "Model", asked: Asked, wishes: Wishes, *, n_drafts: int = 1, labels: Sequence[str] = ()) -> Fitted:
    """Make the prompt and choose its context; see `owm.engine.overflow.fit_prompt`.

    Args:
        labels: among which the answer is to be chosen, at the end of it.

    Raises:
        PromptTooLong, NotEnoughMemory, TemplateError: it cannot be.
    """
    prefix = len(model.native.continuation(wishes.answer_prefix)) if wishes.answer_prefix else 0
    length = None if wishes.max_tokens is None else wishes.max_tokens + prefix
    if labels and (length is not None or wishes.prompt(model, asked.messages).reasoning is None):
        length = (length or 0) + max(len(model.native.continuation(label)) for label in labels)
    fitted = overflow.fit_prompt(
        model,
        asked,
        mode=wishes.overflow,
        max_tokens=length,
        asked_ctx=wishes.n_ctx,
        render=lambda messages: wishes.prompt(model, messages),
    )
    if n_drafts == 1:
        return fitted
    # Every draft has an end of its own in the cache: all of them have to fit memory.
    n_prompt = len(fitted.prompt.tokens)
    size = context.choose_for_drafts(
        model.header,
        fitted.size,
        n_prompt=n_prompt,
        n_drafts=n_drafts,
        max_tokens=length,
        asked=wishes.n_ctx,
        weights_bytes=model.weights_bytes,
        memory_bytes=probe.memory().total,
    )
    return replace(fitted, size=size)


@contextmanager
def generation(
    model: "Model", fitted: Fitted, wishes: Wishes, *, n_drafts: int = 1
) -> Iterator[tuple[Generation, list[int]]]:
    """Begin `n_drafts` answers to one prompt, which is read once; yields their chunks, and their ids in order.

    Raises:
        EngineError: llama.cpp failed.
        UsageError: the constraint cannot be met by this model's tokens.
    """
    n_shared = len(fitted.prompt.tokens) if n_drafts > 1 else 0
    with model.scheduler(fitted.size.n_ctx, n_sequences=n_drafts, n_shared=n_shared, tuning=wishes.tuned) as scheduler:
        request = wishes.request(fitted.prompt)
        ids = scheduler.submit_drafts(request, n_drafts) if n_drafts > 1 else [scheduler.submit(request)]
        yield Generation(scheduler), ids


def plan_parts(model: "Model", asked: Asked, instruction: str, wishes: Wishes) -> mapreduce.Plan:
    """Plan to read the material in parts, each answered with `instruction`; see `owm.engine.mapreduce.plan`.

    Raises:
        UsageError, PromptTooLong, NotEnoughMemory: as that does.
    """
    plain = wishes.without_shape()
    return mapreduce.plan(
        model,
        asked,
        instruction,
        render=lambda messages: plain.prompt(model, messages),
        asked_ctx=wishes.n_ctx,
    )


def read_parts(model: "Model", plan: mapreduce.Plan, wishes: Wishes, *, sink: Sink = ignore) -> mapreduce.Reduced:
    """Answer the parts, freely: the wished shape is for the last answer. See `owm.engine.mapreduce.execute`."""
    plain = wishes.without_shape()
    return mapreduce.execute(
        model,
        plan,
        request=lambda prompt, n_answer: replace(plain, max_tokens=n_answer).request(prompt),
        render=lambda messages: plain.prompt(model, messages),
        max_tokens=wishes.max_tokens,
        asked_ctx=wishes.n_ctx,
        tuning=wishes.tuned,
        sink=sink,
    )


def choose(model: "Model", prompt: Sequence[int], labels: Sequence[str], wishes: Wishes) -> "list[ChoiceScore]":
    """Score labels as answers to a prompt (after its thought, if there is one); see `owm.engine.scoring`."""
    from owm.engine.scoring import score_choices

    return score_choices(model, prompt, labels, n_ctx=wishes.n_ctx, n_threads=wishes.tuned.n_threads)


def answer(
    model: "Model",
    prompt: "str | Sequence[Mapping[str, Any]]",
    *,
    system: str | None = None,
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    stops: str | Sequence[str] = (),
    n_ctx: int | None = None,
    wishes: Wishes | None = None,
) -> "Iterator[Chunk]":
    """Answer a prompt, or a list of turns; the last chunk has the finish reason and the timings.

    Leaving the iteration cancels it. All other wishes (a constraint, logprobs, thinking, …) are in `wishes`, over which
    the other arguments go where they are given.

    Raises:
        PromptTooLong, NotEnoughMemory, TemplateError, EngineError.
        UsageError: the wishes contradict each other.
    """
    wishes = wishes or Wishes()
    changes: dict[str, Any] = {"sampling": sampling, "max_tokens": max_tokens, "n_ctx": n_ctx}
    wishes = replace(wishes, **{name: value for name, value in changes.items() if value is not None})
    if stops:
        wishes = replace(wishes, stops=(stops,) if isinstance(stops, str) else tuple(stops))
    turns: tuple[Mapping[str, Any], ...] = ({"role": "system", "content": system},) if system else ()
    if isinstance(prompt, str):
        asked = Asked(instruction=prompt, turns=turns)
    else:
        asked = Asked(turns=(*turns, *prompt))
    if not asked.messages:
        raise UsageError("there is nothing to answer")
    with generation(model, fit(model, asked, wishes), wishes) as (chunks, _):
        yield from chunks
