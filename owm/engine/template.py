"""Chat templates: what turns a conversation into the text that a model was trained on.

A template is a program that comes with the model. Where nobody vouches for it, it runs in a process of its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from owm.engine import published
from owm.engine.bounds import HINT, MAX_SOURCE_CHARS
from owm.errors import TemplateError, UsageError

if TYPE_CHECKING:
    from owm.engine.program import Program
    from owm.engine.rendering import Rendering

Message = Mapping[str, Any]
Effort = Literal["low", "medium", "high"]

# What templates call the switch for thinking, and what they want to hear for on and off. ref: the models' own templates
_SWITCHES: dict[str, dict[str, Any]] = {
    "enable_thinking": {"on": True, "off": False},
    "thinking": {"on": True, "off": False},
    "reasoning": {"on": True, "off": False},
    "thinking_mode": {"on": "enabled", "off": "disabled"},
    "thinking_budget": {"off": 0},
}
_EFFORTS = ("reasoning_effort", "reasoning_strength", "thinking_effort")


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether a model is to think before it answers, and how much; `auto` and None leave it to its template."""

    mode: Literal["auto", "on", "off"] = "auto"
    effort: Effort | None = None

    def __post_init__(self) -> None:
        """Refuse what is no wish, or two that contradict each other.

        Raises:
            UsageError: it is one of these.
        """
        if self.mode not in ("auto", "on", "off"):
            raise UsageError(f"thinking must be auto, on or off: {self.mode}")
        if self.effort not in (None, "low", "medium", "high"):
            raise UsageError(f"--effort must be low, medium or high: {self.effort}")
        if self.mode == "off" and self.effort is not None:
            raise UsageError(
                "without a thought there is no effort to choose", hint="leave out `--effort` or `--think off`"
            )


class ChatTemplate:
    """A compiled chat template. `bos` and `eos` are the texts of the model's tokens."""

    def __init__(
        self,
        source: str,
        *,
        bos: str = "",
        eos: str = "",
        is_trusted: bool = False,
        program: "Program | Rendering | None" = None,
    ) -> None:
        """Compile a template.

        Args:
            is_trusted: the user vouches for it, so it needs no process of its own.
            program: what `start` gave for the same source.

        Raises:
            TemplateError: it does not parse, or is absurdly long.
        """
        self.source = source
        self._bos, self._eos = bos, eos
        self._program = program or start(source, is_trusted=is_trusted)
        self._program.check()

    def close(self) -> None:
        """End the process that it runs in, if it has one."""
        self._program.close()

    def switch(self, mode: str) -> dict[str, Any]:
        """Return the variables by which this template turns thinking on or off, as far as it seems to have any."""
        return {name: values[mode] for name, values in _SWITCHES.items() if mode in values and self._mentions(name)}

    def effort(self, level: str) -> dict[str, Any]:
        """Return the variables by which this template takes an effort, as far as it seems to have any."""
        return {name: level for name in _EFFORTS if self._mentions(name)}

    def _mentions(self, variable: str) -> bool:
        return re.search(rf"""(?<![\w.'"]){variable}(?![\w'"])""", self.source) is not None

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: Any) -> str:
        """Render a conversation as the text that the model was trained on.

        Args:
            messages: dicts with `role` and `content`, oldest first.
            add_generation_prompt: end with the opening of the assistant's turn.
            variables: further names for the template (`tools`, `enable_thinking`, …).

        Raises:
            TemplateRefusal: the template itself refuses the conversation (`raise_exception`).
            TemplateError: it fails, or exceeds a limit.
        """
        names = {
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self._bos,
            "eos_token": self._eos,
            "tools": None,
            **variables,
        }

        return self._program.render(names)


def start(source: str, *, is_trusted: bool = False) -> "Program | Rendering":
    """Begin to compile a template: here if it is trusted or published with a well-known model, else in a process.

    Raises:
        TemplateError: it is absurdly long, or it is compiled here and does not parse.
    """
    if len(source) > MAX_SOURCE_CHARS:
        raise TemplateError(f"the model's chat template is {len(source)} characters long", hint=HINT)
    if is_trusted or published.is_published(source):
        from owm.engine.program import Program

        return Program(source)
    from owm.engine.rendering import Rendering

    return Rendering(source)
