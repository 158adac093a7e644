"""Chat templates: what turns a conversation into the text that a model was trained on.

A template is a program that comes with the model; `owm.engine.sandbox` runs it. Here its errors become ours.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2

from owm.engine.limits import LimitExceeded, Limits, check, measure
from owm.engine.sandbox import Sandbox, TemplateRefusal
from owm.errors import TemplateError

__all__ = ["ChatTemplate", "Message", "TemplateRefusal"]

MAX_SOURCE_CHARS = 1 << 16
_HINT = "`--raw` sends the prompt without a template"

Message = Mapping[str, Any]


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
