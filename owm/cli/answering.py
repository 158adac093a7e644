"""An answer on its way out: live on stdout with its thought apart, or kept whole for JSON, a log or a code block."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TextIO

from owm.cli.output import talk
from owm.cli.terminal import is_terminal, visible
from owm.engine.answer import Answer as BareAnswer
from owm.engine.request import Chunk, Timings
from owm.units import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    from owm.engine.generate import Generation
    from owm.engine.scoring import ChoiceScore

Shown = Literal["show", "hide", "only"]

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Answer(BareAnswer):
    """An answer, with what a command says about it."""

    def choose(self, scores: "Sequence[ChoiceScore]", *, n_prompt: int, seconds: float) -> None:
        """Take the likeliest of some labels for the answer."""
        best = max(scores, key=lambda score: score.probability)
        self.text, self.finish_reason = best.text, "stop"
        self.timings = Timings(n_prompt, self.n_thought + best.n_tokens, self.n_thought, seconds)

    def timings_json(self, load_seconds: float) -> dict[str, float | int | None]:
        """Seconds and rates; the first token is counted from the loaded model on."""
        t = self.timings
        return {
            "load_seconds": round(load_seconds, 4),
            "ttft_seconds": round(t.prefill_seconds, 4) if t else None,
            "decode_seconds": round(t.decode_seconds, 4) if t else None,
            "prompt_per_second": _rounded(t.prompt_per_second) if t else None,
            "decode_per_second": _rounded(t.decode_per_second) if t else None,
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def summary(self, load_seconds: float) -> str:
        """The same in one line for people."""
        t = self.timings
        if t is None:
            return f"load {format_seconds(load_seconds)}, nothing answered"
        rate = f" at {format_rate(t.decode_per_second)}" if t.decode_per_second else ""
        pp = f" at {format_rate(t.prompt_per_second)}" if t.prompt_per_second else ""
        thought = f", {t.n_reasoning} of them thought" if t.n_reasoning else ""
        return (
            f"load {format_seconds(load_seconds)}, first token after {format_seconds(t.prefill_seconds)},"
            f" prompt {t.n_prompt} tokens{pp}, answer {t.n_generated} tokens{rate}{thought},"
            f" peak memory {format_bytes(peak_memory_bytes())}"
        )


class Screen:
    """Writes answers to stdout as they come; what is no answer never gets there, unless it was asked for alone."""

    def __init__(self, shown: Shown | None) -> None:
        """Decide where thoughts go: None shows them on a terminal only."""
        on_terminal = is_terminal(sys.stdout)
        self._escape: Callable[[str], str] = visible if on_terminal else lambda text: text
        self._answers = shown != "only"
        self._thoughts: TextIO | None = None
        self._dims = False
        if shown == "only":
            self._thoughts = sys.stdout
        elif shown == "show" or (shown is None and on_terminal):
            self._thoughts = sys.stdout if on_terminal else sys.stderr
            has_colours = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
            self._dims = is_terminal(self._thoughts) and has_colours
        self._last: dict[int, str] = {}  # the last character that a stream got
        self._is_in_thought = False

    def take(self, chunk: Chunk) -> None:
        """Write what a step gave."""
        if chunk.reasoning and self._thoughts is not None:
            text = plain(chunk.reasoning, self._thoughts)
            self._write(self._thoughts, f"{_DIM}{text}{_PLAIN}" if self._dims else text, text[-1:])
            self._is_in_thought = True
        if chunk.text and self._answers:
            if self._is_in_thought and self._thoughts is not None:
                self.end_line(self._thoughts, n_empty=1)
                self._is_in_thought = False
            self._write(sys.stdout, self._escape(chunk.text), chunk.text[-1:])

    def write(self, answer: str) -> None:
        """Write an answer that is known whole."""
        self.take(Chunk(0, answer, None))

    def end(self) -> None:
        """End the line of an answer, or of a thought that had none."""
        if self._is_in_thought and self._thoughts is not None:
            self.end_line(self._thoughts)
        if id(sys.stdout) in self._last:
            self.end_line(sys.stdout)
        self._is_in_thought = False
        self._last.clear()

    def end_line(self, stream: TextIO, n_empty: int = 0) -> None:
        """Go to a new line, unless one has begun, and leave some empty."""
        more = ("" if self._last.get(id(stream)) == "\n" else "\n") + "\n" * n_empty
        if more:
            self._write(stream, more, "\n")

    def _write(self, stream: TextIO, text: str, last: str) -> None:
        if stream is sys.stderr:
            talk(text)
        else:
            stream.write(text)
            stream.flush()
        self._last[id(stream)] = last


def consume(generation: "Generation", answers: Mapping[int, Answer], screen: Screen | None) -> None:
    """Take the chunks of all requests to their end, or to Ctrl-C. On a screen the answers follow each other.

    Args:
        answers: by request, in the order in which they are shown.
    """
    order = list(answers)
    waiting: dict[int, list[Chunk]] = {number: [] for number in order}

    def take(chunk: Chunk) -> None:
        answers[chunk.request_id].take(chunk)
        if screen is None:
            return
        waiting[chunk.request_id].append(chunk)
        while order and waiting[order[0]]:
            first = waiting[order[0]].pop(0)
            screen.take(first)
            if first.finish_reason is not None:
                screen.end()
                order.pop(0)
                if order:
                    sys.stdout.write(DRAFT_BREAK)

    try:
        for chunk in generation:
            take(chunk)
    except KeyboardInterrupt:
        for chunk in generation.rest():
            take(chunk)


def consume_thought(generation: "Generation", answer: Answer, screen: Screen | None) -> list[int]:
    """Take the thought of an answer alone; return its tokens, up to where the answer itself begins."""
    tokens: list[int] = []
    try:
        for chunk in generation:
            if chunk.is_answer and chunk.finish_reason != "cancelled":
                break
            answer.take(chunk)
            if screen is not None:
                screen.take(chunk)
            if chunk.token is not None:
                tokens.append(chunk.token)
    except KeyboardInterrupt:
        for chunk in generation.rest():
            answer.take(replace(chunk, text=""))
    answer.n_thought = len(tokens)
    return tokens


DRAFT_BREAK = "---\n"  # between drafts, as between documents of YAML


def plain(text: str, stream: TextIO) -> str:
    """Return a model's text as it may be written to a stream: as it is only where that is data, in a pipe."""
    return visible(text) if stream is sys.stderr or is_terminal(stream) else text


def peak_memory_bytes() -> int:
    """Return the most memory this process has had resident, mapped file pages included."""
    try:
        import resource
    except ImportError:
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)
