"""Chat templates: a program from a stranger, run in Jinja's immutable sandbox with limits of our own.

Jinja's sandbox guards attributes; it lets `{{ 'a' * 10**9 }}` render a gigabyte inside one C call. So every operation
that can make something large from something small is checked before it runs, every loop turn is counted, and only
the methods and filters that chat templates need are there at all.
"""

import json
import math
import re
import string
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from owm.errors import TemplateError

MAX_CHARS = 8 << 20  # of any one text or of the whole result
MAX_ITEMS = 1 << 18  # of any one list, or weighed in any one value
MAX_TURNS = 200_000  # of all loops and macros together
MAX_SECONDS = 10.0
MAX_INT_BITS = 4096
MAX_SOURCE_CHARS = 1 << 20
_TEMPLATE_NAME = "chat template"

_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold center count endswith find format index isalnum isalpha isascii isdecimal isdigit islower"
        " isnumeric isspace istitle isupper join ljust lower lstrip partition removeprefix removesuffix replace rfind"
        " rindex rjust rpartition rsplit rstrip split splitlines startswith strip swapcase title upper zfill".split()
    ),
    list: frozenset(["count", "index"]),
    tuple: frozenset(["count", "index"]),
    dict: frozenset(["get", "items", "keys", "values"]),
    datetime: frozenset(["strftime"]),
}
_FILTERS = frozenset(
    "abs attr batch capitalize center count d default dictsort e escape first float format groupby indent int items"
    " join last length list lower map max min reject rejectattr replace reverse round safe select selectattr slice sort"
    " string sum title tojson trim truncate unique upper".split()
)

Message = Mapping[str, Any]


class _LimitExceeded(Exception):
    """A template asked for more than any chat needs."""


class ChatTemplate:
    """A compiled chat template. `bos` and `eos` are the texts of the model's tokens."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Compile a template.

        Raises:
            TemplateError: it does not parse, or is absurdly long.
        """
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateError(f"the model's chat template is {len(source)} characters long")
        self.source = source
        self._bos, self._eos = bos, eos
        self._environment = _Environment()
        self._template = self._guarded(lambda: self._environment.from_string(source))

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
            self._environment.begin()
            chunks, total = [], 0
            for chunk in self._template.root_render_func(self._template.new_context(names)):
                total += len(chunk)
                _check(total <= MAX_CHARS, "the result is too long")
                chunks.append(chunk)
            return "".join(chunks)

        return str(self._guarded(run))

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """Run anything of Jinja's; whatever a template can make it raise becomes a TemplateError."""
        try:
            return call()
        except TemplateError:
            raise
        except _LimitExceeded as error:
            raise TemplateError(
                f"the model's chat template was stopped: {error}", hint="`--raw` sends the prompt without a template"
            ) from error
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"the model's chat template has an error in line {error.lineno}: {error.message}",
                hint="`--raw` sends the prompt without a template",
            ) from error
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TemplateError(
                f"the model's chat template fails: {message[:300]}", hint="`--raw` sends the prompt without a template"
            ) from error
        except (RecursionError, MemoryError) as error:
            raise TemplateError("the model's chat template was stopped: it is nested too deeply") from error


class TemplateRefusal(TemplateError):
    """The template refuses this conversation, in its own words (a role it does not know, turns out of order)."""


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox: bounded operators, methods and filters; counted loops."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], finalize=self._finalize)
        self.filters = {name: function for name, function in self.filters.items() if name in _FILTERS}
        self.filters |= {
            "tojson": _to_json, "join": self._filter_join, "replace": _replace_filter, "center": _center,
            "format": lambda value, *a, **k: self.call_binop(None, "%", value, k or a), "indent": _indent,
            "string": self._text, "batch": _batch, "slice": _slice, "list": _take,
            "sum": _sum, "round": _round,
        }  # fmt: skip
        self.globals = {
            "range": self._range,
            "dict": dict,
            "namespace": self.globals["namespace"],
            "raise_exception": _refuse,
            "strftime_now": lambda pattern: datetime.now().strftime(pattern[:200]),
        }
        self.begin()

    def begin(self) -> None:
        """Start counting anew."""
        self._turns = 0
        self._deadline = time.monotonic() + MAX_SECONDS

    # -- counted loops, bounded concatenation: rewritten in the syntax tree ------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        looping: list[Any] = [*tree.find_all(nodes.For), *tree.find_all(nodes.Macro), *tree.find_all(nodes.CallBlock)]
        for node in looping:
            node.body.insert(0, nodes.ExprStmt(_call("tick", [], node.lineno)).set_lineno(node.lineno))
        _rewrite_concat(tree)
        tree.set_environment(self)
        return tree

    def tick(self) -> str:
        """Count one turn of a loop or one call of a macro."""
        self._turns += 1
        _check(self._turns <= MAX_TURNS, "its loops do not end")
        _check(self._turns % 256 != 0 or time.monotonic() < self._deadline, "it takes too long")
        return ""

    def joined(self, *parts: Any) -> str:
        """`a ~ b`."""
        return self._bounded_join("", [self._text(part) for part in parts])

    def concat(self, parts: Iterable[str]) -> str:
        """Join what a block or macro put out."""
        return self._bounded_join("", list(parts))

    # -- values ------------------------------------------------------------------------------------------------------

    def _finalize(self, value: Any) -> Any:
        if not isinstance(value, str):
            _weigh(value)
        return value

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        _weigh(value)
        return str(value)

    def _bounded_join(self, separator: str, parts: list[str]) -> str:
        total = sum(map(len, parts)) + len(separator) * max(0, len(parts) - 1)
        _check(total <= MAX_CHARS, "a text is too long")
        return separator.join(parts)

    def _filter_join(self, value: Any, d: Any = "", attribute: Any = None) -> str:
        items = _take(value)
        if attribute is not None:
            items = [self.getitem(item, attribute) for item in items]
        return self._bounded_join(self._text(d), [self._text(item) for item in items])

    def _range(self, *arguments: int) -> range:
        numbers = range(*arguments)
        _check(len(numbers) <= MAX_ITEMS, "a range is too long")
        return numbers

    # -- operators and calls -----------------------------------------------------------------------------------------

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Check the size of a result before it is made."""
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int):
                _check(abs(right) * max(left.bit_length(), 1) <= MAX_INT_BITS, "a number is too large")
        elif operator == "*":
            if isinstance(left, int) and isinstance(right, int):
                _check(left.bit_length() + right.bit_length() <= MAX_INT_BITS, "a number is too large")
            else:
                for thing, times in ((left, right), (right, left)):
                    if isinstance(thing, str | list | tuple) and isinstance(times, int):
                        limit = MAX_CHARS if isinstance(thing, str) else MAX_ITEMS
                        _check(len(thing) * max(times, 0) <= limit, "a repeated text or list is too long")
        elif operator == "+":
            if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
                limit = MAX_CHARS if isinstance(left, str) else MAX_ITEMS
                _check(len(left) + len(right) <= limit, "a text or list is too long")
        elif operator == "%" and isinstance(left, str):
            self._check_percent(left, right)
        return super().call_binop(context, operator, left, right)

    def _check_percent(self, pattern: str, values: Any) -> None:
        specs = re.findall(r"%(?:\([^)]*\))?[^a-zA-Z%]*", pattern)
        _check(not any("*" in spec for spec in specs), "a format takes its width from a value")
        _check_widths(specs)
        _check(len(specs) * max(_weigh(values), 1) <= MAX_CHARS, "a formatted text is too long")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of built-in values only the methods that templates need; of anything else what Jinja allows."""
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed
        if isinstance(obj, int | float | bytes) or obj is None:
            return False
        return bool(super().is_safe_attribute(obj, attr, value))

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
        """Check the methods that can make something large."""
        owner = getattr(function, "__self__", None)
        name = getattr(function, "__name__", "")
        if isinstance(owner, str):
            if name == "join" and arguments:
                return self._bounded_join(owner, [self._text(item) for item in _take(arguments[0])])
            if name == "replace" and len(arguments) >= 2:
                return _replace(owner, *arguments, **named)
            if name in ("center", "ljust", "rjust", "zfill") and arguments:
                _check(isinstance(arguments[0], int) and arguments[0] <= MAX_CHARS, "a padded text is too long")
            if name == "format":
                return _Formatter(self).vformat(owner, arguments, named)
        return super().call(context, function, *arguments, **named)

    def wrap_str_format(self, value: Any) -> Any:
        """Leave `str.format` to `call`, which runs the bounded formatter."""
        return None


class _Formatter(string.Formatter):
    """`str.format` with the sandbox's view of attributes, and bounded widths and result."""

    def __init__(self, environment: _Environment) -> None:
        self._environment = environment
        self._total = 0

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        _check(not re.search(r"[.\[]", field_name), "a format reaches inside its values")
        return super().get_field(field_name, args, kwargs)

    def format_field(self, value: Any, format_spec: str) -> str:
        _check_widths([format_spec])
        _weigh(value)
        text = super().format_field(value, format_spec)
        self._total += len(text)
        _check(self._total <= MAX_CHARS, "a formatted text is too long")
        return str(text)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise _LimitExceeded(message)


def _check_widths(specs: Iterable[str]) -> None:
    numbers = [int(n) if len(n) < 9 else MAX_CHARS + 1 for spec in specs for n in re.findall(r"\d+", spec)]
    _check(sum(numbers) <= MAX_CHARS, "a padded text is too long")


def _take(values: Any) -> list[Any]:
    """Turn anything iterable into a list of bounded length."""
    items = []
    for item in values:
        items.append(item)
        _check(len(items) <= MAX_ITEMS, "a list is too long")
    return items


def _weigh(value: Any) -> int:
    """Count what a value would be as text, roughly, and stop early: nested lists can hide a giant in few objects."""
    chars = items = 0
    stack = [value]
    while stack:
        item = stack.pop()
        items += 1
        chars += len(item) if isinstance(item, str) else 1
        if isinstance(item, Mapping):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            stack.extend(item)
        _check(chars <= MAX_CHARS and items + len(stack) <= MAX_ITEMS, "a value is too large")
    return chars


def _replace(text: str, old: Any, new: Any, count: int = -1) -> str:
    old, new = str(old), str(new)
    times = text.count(old) if old else len(text) + 1
    times = min(times, count) if count >= 0 else times
    _check(len(text) + times * max(0, len(new) - len(old)) <= MAX_CHARS, "a text is too long")
    return text.replace(old, new, count)


def _replace_filter(value: Any, old: str, new: str, count: int | None = None) -> str:
    _weigh(value)
    return _replace(str(value), old, new, -1 if count is None else count)


def _center(value: Any, width: int = 80) -> str:
    _check(width <= MAX_CHARS, "a padded text is too long")
    _weigh(value)
    return str(value).center(width)


def _indent(value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(width, 1000)
    lines = str(value).split("\n")
    _check(len(value) + len(margin) * len(lines) <= MAX_CHARS, "an indented text is too long")
    rest = [margin + line if line or blank else line for line in lines[1:]]
    return "\n".join([margin + lines[0] if first else lines[0], *rest])


def _batch(value: Any, linecount: int, fill_with: Any = None) -> list[list[Any]]:
    items = _take(value)
    _check(0 < linecount <= MAX_ITEMS, "a batch is too long")
    rows = [items[i : i + linecount] for i in range(0, len(items), linecount)]
    if rows and fill_with is not None:
        rows[-1] += [fill_with] * (linecount - len(rows[-1]))
    return rows


def _slice(value: Any, slices: int, fill_with: Any = None) -> list[list[Any]]:
    items = _take(value)
    _check(0 < slices <= MAX_ITEMS, "there are too many slices")
    size, longer = divmod(len(items), slices)
    rows, begin = [], 0
    for index in range(slices):
        end = begin + size + (index < longer)
        row = items[begin:end]
        rows.append([*row, fill_with] if fill_with is not None and index >= longer and longer else row)
        begin = end
    return rows


def _sum(value: Any, start: float = 0) -> Any:
    items = _take(value)
    _check(all(isinstance(item, int | float) for item in [*items, start]), "only numbers can be summed")
    return sum(items, start)


def _round(value: float, precision: int = 0, method: str = "common") -> float:
    if method == "common":
        return round(value, min(precision, 300))
    _check(abs(precision) <= 300, "a number is too large")
    scale = 10.0**precision
    return (math.ceil if method == "ceil" else math.floor)(value * scale) / scale


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """`tojson` as chat templates expect it: no HTML escapes."""
    total = _weigh(value)
    _check((indent or 0) <= 16 and total * max(indent or 1, 1) <= MAX_CHARS, "a JSON text is too long")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=tuple(separators) if separators else None,
        sort_keys=sort_keys,
    )


def _refuse(message: Any) -> None:
    raise TemplateRefusal(f"the model's chat template refuses: {str(message)[:300]}")


def _call(name: str, arguments: list[nodes.Expr], lineno: int) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)
    call.set_lineno(lineno, override=True)
    return call


def _rewrite_concat(node: nodes.Node) -> None:
    """Replace every `a ~ b` below `node` by a call of the bounded join."""
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Concat):
            setattr(node, field, _call("joined", value.nodes, value.lineno))
        elif isinstance(value, list):
            value[:] = [
                _call("joined", item.nodes, item.lineno) if isinstance(item, nodes.Concat) else item for item in value
            ]
    for child in node.iter_child_nodes():
        _rewrite_concat(child)
