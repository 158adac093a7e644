"""Chat templates: what turns a conversation into the text that a model was trained on.

A template is a program that comes with the model; `owm.engine.sandbox` runs it. Here its errors become ours.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jinja2

from owm.engine.limits import LimitExceeded, Limits, check, measure
from owm.engine.sandbox import Sandbox, TemplateRefusal
from owm.errors import TemplateError, UsageError

__all__ = ["ChatTemplate", "Message", "TemplateRefusal", "Thinking"]

MAX_SOURCE_CHARS = 1 << 16
_HINT = "`--raw` sends the prompt without a template"

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

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Compile a template.

        Raises:
            TemplateError: it does not parse, or is absurdly long.
        """
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateError(f"the model's chat template is {len(source)} characters long", hint=_HINT)
        self.source = source
        self._bos, self._eos = bos, eos
        self._sandbox = Sandbox()
        self._template = _guarded(lambda: self._sandbox.from_string(source))

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

        def run() -> str:
            limits = self._sandbox.limits = Limits(*measure(names), len(messages))
            chunks, total = [], 0
            for chunk in self._template.root_render_func(self._template.new_context(names)):
                total += len(chunk)
                check(total <= limits.chars, "the result is too long")
                chunks.append(chunk)
            return "".join(chunks)

        return str(_guarded(run))


def _guarded(call: Callable[[], Any]) -> Any:
    """Run anything of Jinja's; whatever a template can make it raise becomes a TemplateError."""
    try:
        return call()
    except TemplateError:
        raise
    except LimitExceeded as error:
        raise TemplateError(f"the model's chat template was stopped: {error}", hint=_HINT) from error
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            f"the model's chat template has an error in line {error.lineno}: {_sentence(error.message or '')}",
            hint=_HINT,
        ) from error
    except (RecursionError, MemoryError) as error:
        raise TemplateError("the model's chat template was stopped: it is nested too deeply", hint=_HINT) from error
    except Exception as error:  # a stranger's program can raise anything; none of it is a bug of owm
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise TemplateError(
            f"the model's chat template fails: {_sentence(message) or type(error).__name__}", hint=_HINT
        ) from error


def _sentence(message: str) -> str:
    """Return the first sentence of another program's message, without its full stop."""
    return message.partition("\n")[0].partition(". ")[0].rstrip(".")[:300]
