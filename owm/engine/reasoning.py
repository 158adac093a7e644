"""The text of one answer, cut into what the model thought and what it answered, as it comes."""

import functools
import re
from dataclasses import dataclass
from typing import Literal

from owm.engine.marks import CONTROL, ReasoningFormat, closing_text, control_texts, detect

__all__ = ["Parts", "ReasoningFormat", "ReasoningStream", "closing_text", "detect", "split"]


def split(reasoning: ReasoningFormat, text: str, *, starts_inside: bool = False) -> "Parts":
    """Cut a whole answer, in which control tokens are written out, apart."""
    stream = ReasoningStream(reasoning, starts_inside=starts_inside)
    names = "|".join(map(re.escape, reasoning.control_texts))
    pieces = re.split(f"({names})", text) if names else [text]
    parts = [stream.push(piece, is_token=bool(i % 2)) for i, piece in enumerate(pieces)] + [stream.finish()]
    return Parts("".join(part.reasoning for part in parts), "".join(part.answer for part in parts))


@dataclass(frozen=True, slots=True)
class Parts:
    """What has become certain of an answer: more of the thought, more of the answer."""

    reasoning: str = ""
    answer: str = ""


class ReasoningStream:
    """The text of one answer, cut into thought and answer. What may be a mark is held back until it is known.

    Only what stands before the answer is a thought: an answer that quotes a mark later is text. White space around
    thoughts, and between them and the answer, is dropped; several thoughts are joined by an empty line. Where a thought
    has quoted its own opening, what follows the first closing mark is held until the turn ends or it closes again.
    """

    def __init__(self, reasoning: ReasoningFormat, *, starts_inside: bool = False) -> None:
        """Begin a turn; `starts_inside` says that the prompt ends within an open thought."""
        self._format = reasoning
        self._state: Literal["gap", "thought", "unsure", "answer", "over"] = "thought" if starts_inside else "gap"
        self._text = ""  # not yet decided
        self._reasoning: list[str] = []
        self._answer: list[str] = []
        self._has_thought = starts_inside
        self._is_begun = False  # this thought has said something
        self._n_begun = 0
        self._spaces = ""  # at the end of what is known of a thought
        self._depth = 0  # openings that a thought quoted
        self._unsure_mark = ""
        self._is_answer_open = False
        self._drops_space = False  # before the answer's first word

    @property
    def is_thinking(self) -> bool:
        """The next token belongs to a thought."""
        return self._state == "thought"

    @property
    def is_undecided(self) -> bool:
        """Neither a thought nor the answer is under way."""
        return self._state in ("gap", "unsure")

    @property
    def is_finished(self) -> bool:
        """The answer has ended by its own mark: nothing that comes now belongs to it."""
        return self._state == "over"

    @property
    def lead(self) -> str:
        """What has to be fed before an answer can begin at once; nothing where the model has begun to write it."""
        return self._format.lead if self._state == "gap" and self._has_thought and not self._text else ""

    def push(self, text: str, *, is_token: bool = False) -> Parts:
        """Take the next text; return what is certain now.

        Args:
            is_token: it is one of the format's own tokens (`ReasoningFormat.tokens`), by itself.
        """
        self._text += CONTROL + text if is_token and self._format.is_framed else text
        return self._advance()

    def begin_answer(self) -> Parts:
        """Decide that whatever comes from here on is the answer (it is constrained, or was given)."""
        if self._state in ("gap", "unsure"):
            self._state, self._text = "answer", self._text.lstrip() if self._has_thought else self._text
        return self._advance()

    def finish(self) -> Parts:
        """Return what was held back, at the end of the turn."""
        return self._advance(is_end=True)

    def _advance(self, *, is_end: bool = False) -> Parts:
        steps = {
            "gap": self._in_header if self._format.header_end else self._in_gap,
            "thought": self._in_framed_thought if self._format.is_framed else self._in_thought,
            "unsure": self._while_unsure,
            "answer": self._in_framed_answer if self._format.is_framed else self._in_answer,
        }
        before = None
        while self._text and self._state != "over" and before != (self._state, self._text):
            before = self._state, self._text
            steps[self._state](is_end)
        parts = Parts("".join(self._reasoning), "".join(self._answer))
        self._reasoning, self._answer = [], []
        return parts

    # -- before, between and after thoughts --------------------------------------------------------------------------

    def _in_gap(self, is_end: bool) -> None:
        own, text = self._format, self._text.lstrip()
        if not is_end and own.may_begin(text):
            return
        mark = max((mark for mark in own.marks if text.startswith(mark)), key=len, default="")
        if mark in own.openings:
            self._begin_thought(text[len(mark) :])
        elif mark in own.answer_openings:
            self._state, self._text, self._is_answer_open, self._drops_space = "answer", text[len(mark) :], True, True
        elif mark:
            self._text, self._has_thought = text[len(mark) :], True
        elif text.startswith(CONTROL):
            self._text = self._without_control(text)
        else:
            self._state, self._text = "answer", text if self._has_thought else self._text

    def _in_header(self, is_end: bool) -> None:
        own = self._format
        header, found, rest = self._text.partition(own.header_end)
        if not found and not is_end:
            return
        bare = functools.reduce(lambda text, frame: text.replace(frame, ""), own.frames, header)
        if not found and CONTROL in header:  # cut off in a header
            self._text = ""
        elif not found:
            self._state = "answer"
        elif not bare.strip() or re.search(own.answer_header, header.replace(CONTROL, "")):
            self._state, self._text = "answer", rest
        else:
            self._begin_thought(rest)

    def _begin_thought(self, text: str) -> None:
        self._state, self._text, self._has_thought = "thought", text, True
        self._is_begun, self._spaces, self._depth = False, "", 0

    # -- thoughts ----------------------------------------------------------------------------------------------------

    def _in_thought(self, is_end: bool) -> None:
        own, text = self._format, self._text
        marks = (*own.closings, *own.openings)
        if not self._is_begun:  # the prompt may have opened the thought already
            bare = text.lstrip()
            if bare and not is_end and any(mark.startswith(bare) and mark != bare for mark in own.openings):
                return
            if again := next((mark for mark in own.openings if bare.startswith(mark)), ""):
                self._text = bare[len(again) :]
                return
        position, mark = _first(text, marks)
        if not mark:
            certain = len(text) - (0 if is_end else _overlap(text, marks))
            self._think(text[:certain])
            self._text = text[certain:]
        elif mark in own.openings:
            self._depth += 1
            self._think(text[: position + len(mark)])
            self._text = text[position + len(mark) :]
        else:
            self._think(text[:position])
            self._text = text[position + len(mark) :]
            self._state, self._unsure_mark = "unsure" if self._depth else "gap", mark

    def _while_unsure(self, is_end: bool) -> None:
        """After a closing mark that may belong to an opening which the thought quoted."""
        own, text = self._format, self._text
        begin = depth = 0
        while (found := _first(text[begin:], (*own.closings, *own.openings)))[1]:
            position = begin + found[0]
            if found[1] in own.closings and depth == 0:
                self._think(self._unsure_mark + text[:position])
                self._state, self._text, self._depth = "thought", text[position:], self._depth - 1
                return
            depth += 1 if found[1] in own.openings else -1
            begin = position + len(found[1])
        if is_end:
            self._state = "gap"

    def _in_framed_thought(self, is_end: bool) -> None:
        own = self._format
        body, control, rest = self._text.partition(CONTROL)
        self._think(body)
        self._text = text = control + rest
        if closing := next((mark for mark in own.closings if text.startswith(mark)), ""):
            self._state, self._text = "gap", text[len(closing) :]
        elif text.startswith(self._begins_part):
            self._state = "gap"
        elif text and (is_end or not own.may_begin(text)):
            self._text = self._without_control(text)

    def _think(self, text: str) -> None:
        """Put out a thought's next words, without white space at its ends."""
        if not self._is_begun:
            text = text.lstrip()
            if not text:
                return
            self._is_begun = True
            self._spaces = "\n\n" if self._n_begun else ""
            self._n_begun += 1
        text = self._spaces + text
        body = text.rstrip()
        self._spaces = text[len(body) :]
        self._reasoning.append(body)

    # -- the answer --------------------------------------------------------------------------------------------------

    def _in_answer(self, is_end: bool) -> None:
        own, text = self._format, self._after_space(self._text)
        if not own.answer_closings or (own.answer_openings and not self._is_answer_open):
            self._answer.append(text)
            self._text = ""
            return
        # A closing mark is one only at the very end.
        body = text.rstrip()
        closing = next((mark for mark in own.answer_closings if body.endswith(mark)), "")
        if is_end:
            certain, left = body.removesuffix(closing).rstrip() if closing else text, ""
        else:
            held = len(closing) or _overlap(body, own.answer_closings)
            certain = body[: len(body) - held].rstrip()
            left = text[len(certain) :]
        self._answer.append(certain)
        self._text = left

    def _in_framed_answer(self, is_end: bool) -> None:
        body, control, rest = self._after_space(self._text).partition(CONTROL)
        self._answer.append(body)
        self._text = text = control + rest
        if text.startswith(self._format.answer_closings):
            self._state = "over"
        elif text.startswith(self._begins_part):
            self._state = "gap"
        elif text and (is_end or not self._format.may_begin(text)):
            self._text = self._without_control(text)

    def _after_space(self, text: str) -> str:
        text = text.lstrip() if self._drops_space else text
        self._drops_space = self._drops_space and not text
        return text

    @property
    def _begins_part(self) -> tuple[str, ...]:
        marks = (*self._format.openings, *self._format.frames)
        return tuple(CONTROL + control_texts(mark)[0] for mark in marks)

    def _without_control(self, text: str) -> str:
        """Drop the control token with which a text begins."""
        known = (token for token in self._format.control_texts if text.startswith(token, 1))
        return text[1 + max(map(len, known), default=0) :]


def _first(text: str, marks: tuple[str, ...]) -> tuple[int, str]:
    """Return where the first mark in a text begins, and which it is; the longest of several."""
    found = [(text.find(mark), -len(mark), mark) for mark in marks if mark in text]
    return (min(found)[0], min(found)[2]) if found else (-1, "")


def _overlap(text: str, marks: tuple[str, ...]) -> int:
    """Return the length of the longest unfinished mark with which a text ends."""
    longest = min(max(map(len, marks), default=1) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if any(mark.startswith(text[-n:]) for mark in marks)), 0)
