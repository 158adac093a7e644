"""A chat template as a program: compiled in the sandbox, run within its limits, its errors made ours."""

from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from owm.engine.bounds import HINT
from owm.engine.limits import LimitExceeded, Limits, check, measure
from owm.engine.sandbox import Sandbox
from owm.errors import TemplateError


class Program:
    """A compiled template, in this process."""

    def __init__(self, source: str) -> None:
        """Compile it.

        Raises:
            TemplateError: it does not parse.
        """
        self._sandbox = Sandbox()
        self._template = _guarded(lambda: self._sandbox.from_string(source))

    def check(self) -> None:
        """Do nothing: a template that does not compile has said so already."""

    def render(self, names: Mapping[str, Any]) -> str:
        """Run it with these names.

        Raises:
            TemplateRefusal: the template itself refuses what it is given (`raise_exception`).
            TemplateError: it fails, or exceeds a limit.
        """

        def run() -> str:
            limits = self._sandbox.limits = Limits(*measure(names), len(names["messages"]))
            chunks, total = [], 0
            for chunk in self._template.root_render_func(self._template.new_context(dict(names))):
                total += len(chunk)
                check(total <= limits.chars, "the result is too long")
                chunks.append(chunk)
            return "".join(chunks)

        return str(_guarded(run))

    def close(self) -> None:
        """Do nothing: it holds nothing but memory."""


def _guarded(call: Callable[[], Any]) -> Any:
    """Run anything of Jinja's; whatever a template can make it raise becomes a TemplateError."""
    try:
        return call()
    except TemplateError:
        raise
    except LimitExceeded as error:
        raise TemplateError(f"the model's chat template was stopped: {error}", hint=HINT) from error
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            f"the model's chat template has an error in line {error.lineno}: {_sentence(error.message or '')}",
            hint=HINT,
        ) from error
    except RecursionError as error:
        raise TemplateError("the model's chat template was stopped: it is nested too deeply", hint=HINT) from error
    except MemoryError as error:
        raise TemplateError("the model's chat template was stopped: it needs too much memory", hint=HINT) from error
    except Exception as error:  # a stranger's program can raise anything; none of it is a bug of owm
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise TemplateError(
            f"the model's chat template fails: {_sentence(message) or type(error).__name__}", hint=HINT
        ) from error


def _sentence(message: str) -> str:
    """Return the first sentence of another program's message, without its full stop."""
    return message.partition("\n")[0].partition(". ")[0].rstrip(".")[:300]
