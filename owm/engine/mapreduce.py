"""Material too long for one context, read in parts: each part answered by itself, then all those answers together.

`plan` cuts the material into parts of about equal size, token-exact and where it can at the end of a paragraph or a
line: put together again they are the material, character for character. `execute` answers them, several at once in one
scheduler where memory allows, and returns the last question: the labelled answers, with the instruction of the whole.
Where those do not fit one context, groups of them are answered with that same instruction, in as many levels as needed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from owm.engine import context
from owm.engine.asked import Asked
from owm.engine.generate import Generation
from owm.engine.overflow import Render, ceiling_of
from owm.engine.request import Chunk, FinishReason, Request
from owm.engine.tokenized import TokenizedText, tokenize
from owm.engine.tuning import DEFAULT, Tuning
from owm.errors import NotEnoughMemory, PromptTooLong, UsageError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.hardware import probe

if TYPE_CHECKING:
    from owm.engine.model import Model, Prompt

PART_CONTEXT = context.DEFAULT_CONTEXT  # larger ones are slower, and small models lose the thread in them
PART_ANSWER = 1024  # tokens; at most a quarter of the context, so that a few answers fit one
MAX_PARALLEL = 4  # wider gains little on few cores
MIN_PART = 16

MakeRequest = Callable[["Prompt", int], Request]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the material, and the prompt that asks about it."""

    text: str
    n_tokens: int
    prompt: "Prompt"


@dataclass(frozen=True, slots=True)
class Plan:
    """How the material is read. `n_ctx` is the context of one part, `n_answer` the most tokens of its answer."""

    asked: Asked
    parts: tuple[Part, ...]
    n_ctx: int
    n_answer: int
    n_parallel: int

    @property
    def summary(self) -> str:
        """The plan in one sentence."""
        n_tokens = sum(part.n_tokens for part in self.parts)
        most = max(part.n_tokens for part in self.parts)
        if len(self.parts) == 1:
            return f"reading {n_tokens} tokens of material in 1 part"
        at_once = f", {self.n_parallel} at once" if self.n_parallel > 1 else ""
        return f"reading {n_tokens} tokens of material in {len(self.parts)} parts of at most {most}{at_once}"


@dataclass(frozen=True, slots=True)
class Reduced:
    """The question that is left. `n_prompt` and `n_generated` count the tokens that the parts took."""

    asked: Asked
    answers: tuple[str, ...]
    n_levels: int
    n_prompt: int
    n_generated: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Labelled:
    """An answer and the parts that it stands for, numbered from 1."""

    first: int
    last: int
    text: str

    def label(self, n_parts: int) -> str:
        which = f"part {self.first}" if self.first == self.last else f"parts {self.first} to {self.last}"
        return f"{which} of {n_parts}"


def plan(
    model: "Model",
    asked: Asked,
    instruction: str,
    *,
    render: Render,
    asked_ctx: int | None,
    n_answer: int | None = None,
) -> Plan:
    """Cut the material into parts, each of which fits a context with `instruction` below it.

    Args:
        asked: the question; its own instruction is for the parts' answers.
        render: turns messages into a prompt.
        asked_ctx: `--ctx-size`, None for 8192 tokens or less.
        n_answer: the most tokens of a part's answer, None for 1024 or a quarter of the context (the quarter where the
            model thinks before it answers).

    Raises:
        UsageError: there is no material, or nothing is asked of the parts or of their answers.
        PromptTooLong: the instructions alone leave no room, or `n_answer` is too much of the context.
        NotEnoughMemory: the same, and memory is the limit.
        Unsupported: the model's vocabulary does not keep texts as they are.
    """
    _check(asked, instruction)
    top = ceiling_of(model, asked_ctx)
    n_ctx = min(top.n_ctx, asked_ctx or PART_CONTEXT)
    question = replace(asked, instruction=instruction, around=())
    frame = render(replace(question, material="").messages)
    n_answer = n_answer or min(PART_ANSWER if frame.reasoning is None else n_ctx, n_ctx // 4)
    n_frame = max(len(frame.tokens), len(render(_with_answers(asked, [_Labelled(1, 2, "")], 2).messages).tokens))
    n_most = n_ctx - n_answer - n_frame
    if n_most < 2 * (n_answer + MIN_PART):
        raise _no_room(model, top, n_frame, n_answer)
    material = tokenize(model.native, asked.material)
    while True:
        parts = [
            Part(text, n_tokens, render(replace(question, material=text).messages))
            for text, n_tokens in _split(material, n_most)
        ]
        n_longest = max(len(part.prompt.tokens) for part in parts)
        n_excess = n_longest - (n_ctx - n_answer)  # a part by itself can have other tokens at its ends
        if n_excess <= 0:
            break
        n_most -= n_excess
        if n_most < MIN_PART:
            raise _no_room(model, top, n_frame, n_answer)
    return Plan(asked, tuple(parts), n_ctx, n_answer, _n_parallel(model, len(parts), n_longest + n_answer))


def execute(
    model: "Model",
    plan: Plan,
    *,
    request: MakeRequest,
    render: Render,
    max_tokens: int | None,
    asked_ctx: int | None,
    tuning: Tuning = DEFAULT,
    sink: Sink = ignore,
) -> Reduced:
    """Answer all parts, and their answers in levels until one context holds what is left.

    Args:
        request: makes the request for a prompt and the most tokens of its answer.
        max_tokens: of the answer to come, which the last context has room for.
        asked_ctx: `--ctx-size`.

    Raises:
        PromptTooLong: not even two of the answers fit a context.
        EngineError: llama.cpp failed.
    """
    run = _Run(model, request, tuning, sink)
    answers = run.answer(
        [part.prompt for part in plan.parts],
        [_Labelled(i, i, "") for i in range(1, len(plan.parts) + 1)],
        plan.n_answer,
    )
    first = tuple(answer.text for answer in answers)
    top = ceiling_of(model, asked_ctx)
    n_last = top.n_ctx - top.room_for_answer(max_tokens)
    n_levels = 1
    while len(render(_with_answers(plan.asked, answers, len(first)).messages).tokens) > n_last and len(answers) > 1:
        groups = list(_groups(answers, plan, render))
        prompts = [render(_with_answers(plan.asked, group, len(first)).messages) for group in groups if len(group) > 1]
        labels = [_Labelled(group[0].first, group[-1].last, "") for group in groups if len(group) > 1]
        alone = [group[0] for group in groups if len(group) == 1]
        answers = sorted([*run.answer(prompts, labels, plan.n_answer), *alone], key=lambda answer: answer.first)
        n_levels += 1
    return Reduced(
        _with_answers(plan.asked, answers, len(first)), first, n_levels, run.n_prompt, run.n_generated, run.notes()
    )


class _Run:
    """Answers prompts together, and counts what they take."""

    def __init__(self, model: "Model", request: MakeRequest, tuning: Tuning, sink: Sink) -> None:
        self._model = model
        self._request = request
        self._tuning = tuning
        self._sink = sink
        self._n_answers = self._n_cut = self._n_silent = self._n_answer = 0
        self.n_prompt = self.n_generated = 0

    def answer(self, prompts: "Sequence[Prompt]", labels: Sequence[_Labelled], n_answer: int) -> list[_Labelled]:
        """Return the answers under their labels, in the order of the prompts."""
        began = time.perf_counter()
        stage = "reading the parts" if not self._n_answers else "reading the parts' answers"
        self._sink(Started(stage, len(prompts), "parts"))
        self._sink(Advanced(stage, 0))
        n_ctx = max(len(prompt.tokens) for prompt in prompts) + n_answer
        n_parts = max(label.last for label in labels)
        texts: dict[int, list[str]] = {}
        n_done = 0
        with self._model.scheduler(
            n_ctx, n_sequences=_n_parallel(self._model, len(prompts), n_ctx), tuning=self._tuning
        ) as scheduler:
            names: dict[int, str] = {}
            for prompt, label in zip(prompts, labels, strict=True):
                number = scheduler.submit(self._request(prompt, n_answer))
                names[number], texts[number] = label.label(n_parts), []
            for chunk in Generation(scheduler):
                texts[chunk.request_id].append(chunk.text)
                if chunk.finish_reason is not None:
                    n_done += 1
                    self._count(chunk)
                    self._sink(Advanced(stage, n_done, names[chunk.request_id]))
        self._n_answers += len(prompts)
        self._n_answer = n_answer
        self._sink(Finished(stage, time.perf_counter() - began))
        joined = ["".join(text).strip() for text in texts.values()]
        self._n_silent += joined.count("")
        return [replace(label, text=text) for label, text in zip(labels, joined, strict=True)]

    def notes(self) -> tuple[str, ...]:
        """Say what the reader of the last answer should know of those before."""
        said = []
        if self._n_cut:
            limit = f"ended at their limit of {self._n_answer} tokens"
            said.append(f"{self._n_cut} of {self._n_answers} answers to parts {limit}")
        if self._n_silent:
            said.append(f"{self._n_silent} of {self._n_answers} parts got no answer")
        return tuple(said)

    def _count(self, chunk: Chunk) -> None:
        self._n_cut += chunk.finish_reason is FinishReason.LENGTH
        if chunk.timings is not None:
            self.n_prompt += chunk.timings.n_prompt
            self.n_generated += chunk.timings.n_generated


def _check(asked: Asked, instruction: str) -> None:
    if not instruction.strip():
        raise UsageError("--chunk needs an instruction for the parts")
    if not asked.material.strip():
        raise UsageError("--chunk has nothing to read in parts", hint="pipe a text, or name files with `-f`")
    if not asked.instruction.strip() and not "".join(asked.around).strip():
        raise UsageError(
            "--chunk needs a PROMPT too", hint="the PROMPT says what to make of the answers to all the parts"
        )


def _no_room(model: "Model", top: context.Ceiling, n_frame: int, n_answer: int) -> PromptTooLong | NotEnoughMemory:
    message = (
        f"the instructions have {n_frame} tokens and each answer may have {n_answer}, a context of {top.n_ctx} tokens"
        " has too little room for parts beside them"
    )
    if top.limit == "memory":
        needed = (n_frame + 3 * n_answer + 2 * MIN_PART) * context.kv_bytes_per_token(model.header)
        return NotEnoughMemory(
            f"{message}: that is all that memory allows",
            needed=model.weights_bytes + context.COMPUTE_BYTES + needed,
            free=probe.memory().total,
            hint="take a smaller model or quant",
        )
    hint = "shorten them, or ask for a larger `--ctx-size`" if top.limit == "asked" else "shorten them"
    return PromptTooLong(message, n_prompt=n_frame, n_ctx=top.n_ctx, hint=hint)


def _split(material: TokenizedText, n_most: int) -> Iterator[tuple[str, int]]:
    """Cut a text into parts of at most `n_most` tokens and about equal size; yield each with its tokens' number."""
    begin, n = 0, material.n_tokens
    while begin < n:
        n_left = n - begin
        n_parts = -(-n_left // n_most)
        wanted = begin + -(-n_left // n_parts)
        end = n
        if n_parts > 1:
            slack = max((wanted - begin) // 8, 4)  # a character has up to four tokens
            last = min(wanted + slack, begin + n_most, n)
            end = material.natural(max(wanted - slack, begin + 1), last, wanted) or material.at_or_after(last)
        yield material.between(begin, end), end - begin
        begin = end


def _with_answers(asked: Asked, answers: Sequence[_Labelled], n_parts: int) -> Asked:
    """Put answers, each under its label, in the place of the material."""
    texts = [f"{answer.label(n_parts)}:\n{answer.text or '(no answer)'}" for answer in answers]
    return replace(asked, material="\n\n".join(texts))


def _groups(answers: Sequence[_Labelled], plan: Plan, render: Render) -> Iterator[list[_Labelled]]:
    """Gather neighbouring answers, as many as fit the context of a part.

    Raises:
        PromptTooLong: there are two that do not fit together.
    """
    n_parts = answers[-1].last
    group: list[_Labelled] = []
    for answer in answers:
        n_tokens = len(render(_with_answers(plan.asked, [*group, answer], n_parts).messages).tokens)
        if n_tokens > plan.n_ctx - plan.n_answer and group:
            if len(group) == 1:
                raise PromptTooLong(
                    f"two answers to parts have {n_tokens} tokens with the instruction,"
                    f" a context of {plan.n_ctx} has room for {plan.n_ctx - plan.n_answer}",
                    n_prompt=n_tokens,
                    n_ctx=plan.n_ctx,
                    hint="ask for a larger `--ctx-size`, or for shorter answers in `--chunk`",
                )
            yield group
            group = []
        group.append(answer)
    yield group


def _n_parallel(model: "Model", n_prompts: int, n_ctx: int) -> int:
    """Return how many parts to answer at once: as many as memory has contexts for, within reason."""
    n_memory = context.tokens_in_memory(
        model.header, weights_bytes=model.weights_bytes, memory_bytes=probe.memory().total
    )
    return max(1, min(MAX_PARALLEL, n_prompts, MAX_PARALLEL if n_memory is None else n_memory // n_ctx))
