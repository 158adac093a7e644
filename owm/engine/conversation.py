"""Conversations on their way to a model: what it is told of earlier turns, and whether it thinks before it answers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from owm.engine.marks import CONTROL, FORMATS, THINK, ReasoningFormat, detect
from owm.engine.reasoning import split
from owm.engine.template import ChatTemplate, Message, Thinking
from owm.errors import TemplateError, TemplateRefusal

LEVELS = ("low", "medium", "high")
# What chats in files, and templates, call the thought of a turn.
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, slots=True)
class Composed:
    """A conversation as text; `notes` are sentences about how it was made that the user should know."""

    text: str
    reasoning: ReasoningFormat | None = None
    thinks_at_start: bool = False
    notes: tuple[str, ...] = ()


class Conversation:
    """The turns of a conversation, for one template."""

    def __init__(self, template: ChatTemplate, messages: Sequence[Message], *, takes_system: bool = True) -> None:
        """Prepare the turns: thoughts of earlier ones are dropped, system prompts go where the model looks for them."""
        self._template = template
        self._format = detect(template.source)
        self._notes: list[str] = []
        self._messages = without_thoughts(messages, self._format)
        if self._format is not None and self._format.name == "harmony":
            self._messages = _instructions_first(self._messages, template.source)
        if not takes_system:
            self._fold("this model is made for no system prompt, so it was put before the first message")

    def compose(self, thinking: Thinking, *, is_open: bool = True, is_shaped: bool = False) -> Composed:
        """Render the conversation.

        Args:
            is_open: the assistant's turn is next; otherwise the conversation ends as it is.
            is_shaped: the answer is constrained or its beginning is given; then a thought is only looked for where one
                is to be expected, so that what begins like one (`<`) can be the answer.

        Raises:
            TemplateError: the template fails or refuses the conversation.
        """
        own = self._format
        self._settle_system(is_open)
        variables = self._effort(thinking.effort) if thinking.effort else {}
        if not is_open:
            return self._composed(_ended(self._render(variables, is_open=False)), own)
        if own is None:
            return self._of_unknown_format(self._render(variables), thinking, is_shaped=is_shaped)
        if thinking.mode == "off":
            text = self._without_thought(own)
            return self._settled(text, own) if is_shaped and own.can_skip else self._composed(text, own)
        if thinking.mode == "on":
            variables |= self._template.switch("on")
        text = self._render(variables)
        end = self._end(text, own, variables)
        if thinking.mode == "on" and end == "closed":
            levels = [self._template.effort(level) for level in reversed(LEVELS)]
            if found := self._first_that_ends("open", own, [variables | level for level in levels if level]):
                text, end = found, "open"
        off = self._template.switch("off")
        if is_shaped and (end == "closed" or (end == "bare" and off and text == self._render(variables | off))):
            return self._settled(text, own)
        return self._composed(text, own, inside=end == "open")

    def _settled(self, text: str, own: ReasoningFormat) -> Composed:
        """Let the answer begin where the prompt ends."""
        if own.answer_openings and own.is_framed:
            text += next(own.lead[n:] for n in range(len(own.lead), -1, -1) if text.endswith(own.lead[:n]))
        return self._composed(text, None)

    def _of_unknown_format(self, text: str, thinking: Thinking, *, is_shaped: bool) -> Composed:
        """Judge by the prompt itself whether a template that does not name all of a format's marks opens a thought."""
        end = text.rstrip()
        opened = next((row for row in reversed(FORMATS) if any(end.endswith(_plain(m)) for m in row.openings)), None)
        if opened is not None:
            if thinking.mode == "off" and opened.can_skip:
                return self._composed(text + opened.closes, opened)
            return self._composed(text, opened, inside=True)
        if thinking.mode == "on":
            self._note("this model's chat template knows of no thoughts, so it may have none")
        return self._composed(text, None if is_shaped else THINK)

    def _composed(self, text: str, own: ReasoningFormat | None, *, inside: bool = False) -> Composed:
        return Composed(text, own, inside, tuple(self._notes))

    def _note(self, sentence: str) -> None:
        if sentence not in self._notes:
            self._notes.append(sentence)

    def _render(
        self, variables: Mapping[str, Any], *, is_open: bool = True, messages: Sequence[Message] | None = None
    ) -> str:
        return self._template.render(messages or self._messages, add_generation_prompt=is_open, **variables)

    def _settle_system(self, is_open: bool) -> None:
        """Find out whether the template takes the system prompt; one that it refuses or leaves out is moved."""
        if not self._messages or self._messages[0]["role"] != "system":
            return
        note = "this model knows no system prompt, so it was put before the first message"
        try:
            text = self._render({}, is_open=is_open)
        except TemplateRefusal:
            if not self._fold(note):
                raise
        else:
            lines = str(self._messages[0]["content"]).split("\n")
            if max((line.strip() for line in lines), key=len) not in text:
                self._fold(note)

    def _fold(self, note: str) -> bool:
        """Put a system prompt before the first message; return whether there was one."""
        if len(self._messages) < 2 or self._messages[0]["role"] not in ("system", "developer"):
            return False
        first, second, *rest = self._messages
        self._messages = [{**second, "content": f"{first['content']}\n\n{second['content']}"}, *rest]
        self._note(note)
        return True

    # -- thinking ----------------------------------------------------------------------------------------------------

    def _effort(self, level: str) -> dict[str, Any]:
        """Return the variables for an effort; where they change nothing that is said."""
        texts = {}
        for each in LEVELS if self._template.effort(level) else ():
            try:
                texts[each] = self._render(self._template.effort(each))
            except TemplateRefusal:
                continue
        if len(set(texts.values())) < 2:
            self._note(f"this model knows no levels of effort, so `--effort {level}` changes nothing")
        elif level not in texts:
            self._note(f"this model knows no effort `{level}`, only {' and '.join(texts)}, so it chooses its own")
        else:
            return self._template.effort(level)
        return {}

    def _without_thought(self, own: ReasoningFormat) -> str:
        """Render with thinking turned off: by the template's own switch, or by a thought that is closed already."""
        if not own.can_skip:
            self._note("this model always thinks, so it was told to think little, and the thought is hidden")
            return self._render(self._template.effort("low"))
        off = self._template.switch("off")
        text = self._render(off)
        end = self._end(text, own, off)
        if end == "closed" or (end == "bare" and self._is_told(own, off)):
            return text
        levels = [self._template.effort(level) for level in ("none", "no_think", "low")]
        if found := self._first_that_ends("closed", own, [off | level for level in levels if level]):
            return found
        last = self._messages[-1]
        if "/no_think" in self._template.source and last["role"] == "user":
            asking = [*self._messages[:-1], {**last, "content": f"{last['content']} /no_think"}]
            asked = self._render(off, messages=asking)
            if self._end(asked, own, off, messages=asking) == "closed":
                return asked
        return text + (own.closes if end == "open" else own.empty)

    def _is_told(self, own: ReasoningFormat, off: Mapping[str, Any]) -> bool:
        """Tell whether the template's switch works by what it tells the model, not by a thought that is closed."""
        plain = [{"role": "user", "content": "Why?"}]
        try:
            text = self._render(off, messages=plain)
            return text != self._render(self._template.switch("on"), messages=plain) and (
                self._end(text, own, off, messages=plain) == "bare"
            )
        except TemplateError:
            return False

    def _first_that_ends(self, end: str, own: ReasoningFormat, attempts: Sequence[Mapping[str, Any]]) -> str | None:
        for variables in attempts:
            try:
                text = self._render(variables)
            except TemplateRefusal:
                continue
            if self._end(text, own, variables) == end:
                return text
        return None

    def _end(
        self,
        text: str,
        own: ReasoningFormat,
        variables: Mapping[str, Any],
        *,
        messages: Sequence[Message] | None = None,
    ) -> Literal["open", "closed", "bare"]:
        """Tell whether the assistant's turn begins inside a thought, after one, or with nothing of the kind."""
        try:
            before = self._render(variables, is_open=False, messages=messages)
        except TemplateError:
            before = text[: -max(map(len, own.marks)) - 1]
        opened = text[_common(text, before) :]
        opening = max((opened.rfind(_plain(mark)) for mark in own.openings), default=-1)
        closing = max(opened.rfind(_plain(mark)) for mark in own.closings)
        if opening > closing:
            return "open"
        return "closed" if closing >= 0 else "bare"


# -- earlier turns ----------------------------------------------------------------------------------------------------


def without_thoughts(messages: Sequence[Message], own: ReasoningFormat | None) -> list[Message]:
    """Drop what the assistant thought in earlier turns, whether it has a key of its own or stands in the text.

    In the turn that is under way (calls of tools and what they gave) thoughts stay, for the templates that want them.
    """
    last_user = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    turns: list[Message] = []
    for i, message in enumerate(messages):
        content = message.get("content")
        if message["role"] != "assistant" or not isinstance(content, str):
            turns.append(message)
            continue
        is_past = i < last_user
        thought = next((str(message[key]) for key in THOUGHT_KEYS if message.get(key)), "")
        if is_past or (own is not None and own.header_end):
            said, content = _thought_and_answer(content, own)
            thought = thought or said
        turn = {key: value for key, value in message.items() if key not in THOUGHT_KEYS} | {"content": content}
        if thought and not is_past and not (content and message.get("tool_calls")):  # templates take one or the other
            turn |= dict.fromkeys(THOUGHT_KEYS, thought)
        turns.append(turn)
    return turns


def _thought_and_answer(content: str, own: ReasoningFormat | None) -> tuple[str, str]:
    """Cut what an assistant said apart; text without a thought before it stays as it is."""
    for form in dict.fromkeys((own or THINK, THINK)):
        begins = (*form.openings, *form.frames, form.header_end) if form.header_end else form.openings
        if content.lstrip().startswith(tuple(_plain(mark) for mark in begins)):
            parts = split(form, content)
            return parts.reasoning, parts.answer
    # Where the template had opened the thought, only its end was said; it has a line of its own then.
    marks = "|".join(re.escape(_plain(mark)) for mark in own.closings) if own else "(?!)"
    if own and re.search(rf"(?:^|\n)(?:{marks})|(?:{marks})\n", content):
        parts = split(own, content, starts_inside=True)
        return parts.reasoning, parts.answer
    return "", content


def _instructions_first(messages: Sequence[Message], template: str) -> list[Message]:
    """Put all system prompts into one developer message, the only one that harmony's templates look at."""
    told = [str(message["content"]) for message in messages if message["role"] in ("system", "developer")]
    rest = [message for message in messages if message["role"] not in ("system", "developer")]
    role = "developer" if '"developer"' in template or "'developer'" in template else "system"
    return [{"role": role, "content": "\n\n".join(told)}, *rest] if told else rest


def _ended(text: str) -> str:
    """In training harmony's last turn ends with a mark that no prompt should have."""
    return text.removesuffix("<|return|>") + "<|end|>" if text.endswith("<|return|>") else text


def _plain(mark: str) -> str:
    return mark.replace(CONTROL, "").strip()


def _common(left: str, right: str) -> int:
    """Return the length of the longest common beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[:middle] == right[:middle] else (low, middle - 1)
    return low
