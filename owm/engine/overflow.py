"""Prompts that are too long: an error with all the counts, or material cut at its tokens and said so, never in silence.

`head`, `tail` and `middle` name what is dropped: the beginning, the end, or the middle of the material. In the middle a
line says how much is left out, for the two ends would read as one text. The answer keeps `max_tokens` of the context,
or, where its length is open, the smaller of 2048 tokens and a quarter of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from owm.engine import context
from owm.engine.asked import Asked
from owm.engine.context import Ceiling, ContextSize
from owm.engine.tokenized import TokenizedText, tokenize
from owm.errors import NotEnoughMemory, PromptTooLong, UsageError
from owm.hardware import probe

if TYPE_CHECKING:
    from owm.engine.model import Model, Prompt

Mode = Literal["error", "head", "tail", "middle"]
Render = Callable[[list[dict[str, Any]]], "Prompt"]

MAX_TRIES = 40  # a handful is usual: cut text has other tokens at the cut, so each try is counted anew


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits its context. `notes` say what was dropped; `n_dropped` counts tokens of what was given."""

    prompt: "Prompt"
    size: ContextSize
    notes: tuple[str, ...] = ()
    n_dropped: int = 0


def read_mode(text: str) -> Mode:
    """Read `--overflow`.

    Raises:
        UsageError: there is no such mode.
    """
    for mode in get_args(Mode):
        if text == mode:
            return mode  # type: ignore[no-any-return]
    raise UsageError(f"--overflow must be error, head, tail or middle: {text}")


def fit_prompt(
    model: "Model", asked: Asked, *, mode: Mode, max_tokens: int | None, asked_ctx: int | None, render: Render
) -> Fitted:
    """Make the prompt and choose its context; where they are too large for each other, do as `mode` says.

    Args:
        max_tokens: of the answer, None for an open end.
        asked_ctx: `--ctx-size`.
        render: turns messages into a prompt.

    Raises:
        PromptTooLong: it does not fit the model's or the asked-for context, and nothing may be cut or not enough.
        NotEnoughMemory: the same, and memory is the limit.
        Unsupported: it would have to be cut, and the model's vocabulary does not keep texts as they are.
    """
    prompt = render(asked.messages)
    try:
        return Fitted(prompt, model.choose_context(len(prompt.tokens), max_tokens=max_tokens, asked=asked_ctx))
    except (PromptTooLong, NotEnoughMemory) as error:
        top = ceiling_of(model, asked_ctx)
        n_room = top.room_for_answer(max_tokens)
        cut = None if mode == "error" else _Cutter(model, asked, mode, render).cut_to(top.n_ctx - n_room, prompt)
        if cut is None:
            raise _with_counts(error, model, asked, prompt, max_tokens, is_cut=mode != "error") from error
    prompt, dropped, n_tokens = cut
    size = model.choose_context(len(prompt.tokens), max_tokens=max_tokens, asked=asked_ctx)
    note = (
        f"dropped {len(dropped)} of {n_tokens} tokens, numbers {dropped.start + 1} to {dropped.stop} of the"
        f" {asked.what_may_be_cut}: {_limit_name(top)} holds {top.n_ctx}, of which {n_room} are kept for the answer"
    )
    return Fitted(prompt, size, (note,), len(dropped))


def ceiling_of(model: "Model", asked_ctx: int | None) -> Ceiling:
    """Return the largest context that there can be for a model on this machine."""
    return context.ceiling(
        model.header,
        asked=asked_ctx,
        weights_bytes=model.weights_bytes,
        memory_bytes=probe.memory().total,
    )


def marker(n_tokens: int) -> str:
    """Return the line that stands for what is left out in the middle of a text."""
    return f"\n[… {n_tokens} tokens left out …]\n"


class _Cutter:
    """Drops as few tokens of a question's texts as will make its prompt fit."""

    def __init__(self, model: "Model", asked: Asked, mode: Mode, render: Render) -> None:
        self._asked = asked
        self._mode = mode
        self._render = render
        self._texts = [tokenize(model.native, text) for text in asked.cuttable]
        self._n_tokens = sum(text.n_tokens for text in self._texts)

    def cut_to(self, limit: int, prompt: "Prompt") -> "tuple[Prompt, range, int] | None":
        """Return a prompt of at most `limit` tokens, what it dropped, of how many; None if no cut is enough."""
        best: tuple[Prompt, range, int] | None = None
        too_few, enough = 0, self._n_tokens  # dropping all of it is no answer to the question
        wanted = len(prompt.tokens) - limit
        for _ in range(MAX_TRIES):
            if too_few + 1 >= enough:
                break
            wanted = min(max(wanted, too_few + 1), enough - 1)
            dropped = self._dropped(wanted)
            prompt = self._render(self._asked.with_cut(self._without(dropped)).messages)
            excess = len(prompt.tokens) - limit
            if excess > 0:
                too_few = wanted
            else:
                enough = wanted
                if len(dropped) < self._n_tokens:
                    best = prompt, dropped, self._n_tokens
            if excess == 0:
                break
            wanted += excess
        return best

    def _dropped(self, n: int) -> range:
        """Return the tokens that go if at least `n` have to, numbered through all texts."""
        n_kept = self._n_tokens - n
        if self._mode == "head":
            return range(self._at_or_after(n))
        if self._mode == "tail":
            return range(self._at_or_before(n_kept), self._n_tokens)
        begin = self._at_or_before((n_kept + 1) // 2)
        return range(begin, self._at_or_after(begin + n))

    def _without(self, dropped: range) -> list[str]:
        """Return the texts without those tokens; in the middle, a line says so where they were."""
        texts = []
        is_marked = self._mode != "middle"
        for text, first in zip(self._texts, self._firsts(), strict=True):
            begin, end = (min(max(k - first, 0), text.n_tokens) for k in (dropped.start, dropped.stop))
            if begin == end:
                texts.append(text.text)
                continue
            line = "" if is_marked else marker(len(dropped))
            is_marked = True
            texts.append(f"{text.between(0, begin)}{line}{text.between(end, text.n_tokens)}")
        return texts

    def _firsts(self) -> Sequence[int]:
        firsts = [0]
        for text in self._texts:
            firsts.append(firsts[-1] + text.n_tokens)
        return firsts[:-1]

    def _at_or_before(self, boundary: int) -> int:
        text, first = self._text_at(boundary)
        return first + text.at_or_before(boundary - first)

    def _at_or_after(self, boundary: int) -> int:
        text, first = self._text_at(boundary)
        return first + text.at_or_after(boundary - first)

    def _text_at(self, boundary: int) -> tuple[TokenizedText, int]:
        return next(
            (text, first)
            for text, first in zip(self._texts, self._firsts(), strict=True)
            if boundary <= first + text.n_tokens
        )


def _limit_name(top: Ceiling) -> str:
    names = {
        "asked": "the asked-for context",
        "model": "the model's context",
        "memory": "the context that memory allows",
    }
    return names[top.limit]


def _with_counts(
    error: PromptTooLong | NotEnoughMemory,
    model: "Model",
    asked: Asked,
    prompt: "Prompt",
    max_tokens: int | None,
    *,
    is_cut: bool,
) -> PromptTooLong | NotEnoughMemory:
    """Add to an error what the prompt's tokens are, so that they sum up, and what the answer is kept."""
    counts = _counts(model, asked, prompt)
    what = asked.what_may_be_cut
    kept = f"{max_tokens} more" if max_tokens is not None else "at least 1 more"
    message = f"{error} ({', '.join(f'{n} {name}' for name, n in counts.items() if n)}; {kept} for the answer)"
    if is_cut:
        hint = f"leaving out all of the {what} would not be enough: shorten the rest, or ask for a larger context"
    else:
        more = f"; `--overflow head`, `tail` or `middle` cuts the {what}"
        chunks = ", `--chunk` reads it in parts" if what == "material" else ""
        hint = f"{error.hint or 'nothing was cut'}{more}{chunks}"
    if isinstance(error, PromptTooLong):
        return PromptTooLong(message, n_prompt=error.n_prompt, n_ctx=error.n_ctx, hint=hint)
    return NotEnoughMemory(message, needed=error.needed, free=error.free, hint=hint)


def _counts(model: "Model", asked: Asked, prompt: "Prompt") -> dict[str, int]:
    """Count a prompt's tokens by where they come from; what the template adds is the rest."""

    def count(*texts: str) -> int:
        return sum(len(model.native.tokenize(text, add_special=False, parse_special=True)) for text in texts)

    counts = {
        "of material": count(asked.material) * max(1, len(asked.around) - 1),
        "of instruction": count(*(asked.around or (asked.instruction,))),
        "of earlier turns": count(*(turn["content"] for turn in asked.turns)),
    }
    rest = len(prompt.tokens) - sum(counts.values())
    if rest < 0:  # texts that stand together can have fewer tokens
        counts[max(counts, key=lambda name: counts[name])] += rest
    return {**counts, "of the chat template": max(rest, 0)}
