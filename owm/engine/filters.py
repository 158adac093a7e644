"""The methods of texts and the filters that a chat template has, each bounded before it runs."""

import json
import math
import re
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2.filters import FILTERS

from owm.engine.bounds import MAX_DIGITS, MAX_SEARCH
from owm.engine.limits import Limits, check

if TYPE_CHECKING:
    from owm.engine.sandbox import Sandbox

# Filters that turn what they get into text, compare it or hash it, and those that only pass it on.
DEEP = (
    "abs attr capitalize center dictsort e escape float format groupby indent int join lower max min replace round"
    " safe sort string sum title tojson trim truncate unique upper".split()
)
SHALLOW = (
    "batch count d default first items last length list map reject rejectattr reverse select selectattr slice".split()
)
_PADDING = frozenset(["center", "ljust", "rjust", "zfill"])
_SLOW_SEARCH = frozenset(["lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip"])
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


class Filters:
    """Filters that Jinja has no bounds for, or that chat templates expect otherwise. Values come in weighed."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox

    @property
    def _limits(self) -> Limits:
        return self._sandbox.limits

    def do_join(self, value: Any, d: Any = "", attribute: Any = None) -> str:
        limits = self._limits
        items = limits.take(value)
        if attribute is not None:
            items = [self._sandbox.getitem(item, attribute) for item in items]
        return limits.join(limits.text(d), [limits.text(item) for item in items])

    def do_string(self, value: Any) -> str:
        return self._limits.text(value)

    def do_list(self, value: Any) -> list[Any]:
        return self._limits.take(value)

    def do_replace(self, value: Any, old: Any, new: Any, count: int | None = None) -> str:
        return replaced(self._limits, str(value), old, new, -1 if count is None else count)

    def do_format(self, value: Any, *arguments: Any, **named: Any) -> Any:
        return self._sandbox.call_binop(None, "%", str(value), named or arguments)

    def do_trim(self, value: Any, chars: str | None = None) -> str:
        return str(TextMethod(self._sandbox, str(value), "strip")(chars))

    def do_center(self, value: Any, width: int = 80) -> str:
        return str(TextMethod(self._sandbox, str(value), "center")(width))

    def do_indent(self, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = str(value)
        check(not isinstance(width, int) or width <= self._limits.chars, "an indented text is too long")
        margin = width if isinstance(width, str) else " " * width
        check(len(text) + len(margin) * (text.count("\n") + 1) <= self._limits.chars, "an indented text is too long")
        lines = text.split("\n")
        rest = [margin + line if line or blank else line for line in lines[1:]]
        return "\n".join([margin + lines[0] if first else lines[0], *rest])

    def do_batch(self, value: Any, linecount: int, fill_with: Any = None) -> list[list[Any]]:
        items = self._limits.take(value)
        check(0 < linecount <= self._limits.items, "a batch is too long")
        rows = [items[i : i + linecount] for i in range(0, len(items), linecount)]
        if rows and fill_with is not None:
            rows[-1] += [fill_with] * (linecount - len(rows[-1]))
            self._limits.charge(rows[-1])
        return rows

    def do_slice(self, value: Any, slices: int, fill_with: Any = None) -> list[list[Any]]:
        items = self._limits.take(value)
        check(0 < slices <= self._limits.items, "there are too many slices")
        size, longer = divmod(len(items), slices)
        rows, begin = [], 0
        for index in range(slices):
            end = begin + size + (index < longer)
            row = items[begin:end]
            rows.append([*row, fill_with] if fill_with is not None and index >= longer and longer else row)
            begin = end
        return rows

    def do_sum(self, value: Any, attribute: Any = None, start: float = 0) -> Any:
        items = self._limits.take(value)
        if attribute is not None:
            items = [self._sandbox.getitem(item, attribute) for item in items]
        check(all(isinstance(item, int | float) for item in [*items, start]), "only numbers can be summed")
        return sum(items, start)

    def do_round(self, value: float, precision: int = 0, method: str = "common") -> float:
        check(abs(precision) <= MAX_DIGITS, "a number is too large")
        if method == "common":
            return round(value, precision)
        scale = 10.0**precision
        return (math.ceil if method == "ceil" else math.floor)(value * scale) / scale

    def do_int(self, value: Any, default: int = 0, base: int = 10) -> Any:
        check(not isinstance(value, str) or len(value) <= MAX_DIGITS, "a number is too large")
        return FILTERS["int"](value, default, base)

    def do_tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Sequence[str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """`tojson` as chat templates expect it: no HTML escapes."""
        width = max(indent or 0, *map(len, separators or [""]), 1)
        check(width <= 16 and self._limits.weigh(value) * width <= self._limits.chars, "a JSON text is too long")
        pair = (separators[0], separators[1]) if separators else None
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)


def replaced(limits: Limits, text: str, old: Any, new: Any, count: int = -1) -> str:
    """`text.replace(old, new, count)` if the result is not too long."""
    old, new = str(old), str(new)
    times = text.count(old) if old else len(text) + 1
    times = min(times, count) if count >= 0 else times
    check(len(text) + times * max(0, len(new) - len(old)) <= limits.chars, "a text is too long")
    return text.replace(old, new, count)


class TextMethod:
    """A method of a text, checked before it is called."""

    def __init__(self, sandbox: "Sandbox", text: str, name: str) -> None:
        self._sandbox, self._limits, self._text, self._name = sandbox, sandbox.limits, text, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        limits, text, name = self._limits, self._text, self._name
        first = arguments[0] if arguments else None
        if name == "format":
            return _Formatter(self._sandbox).vformat(text, arguments, named)
        if name == "join" and arguments:
            return limits.join(text, [limits.text(item) for item in limits.take(arguments[0])])
        if name == "replace" and len(arguments) >= 2:
            return replaced(limits, text, *arguments, **named)
        if name in _PADDING:
            check(not isinstance(first, int) or first <= limits.chars, "a padded text is too long")
        if name in _SLOW_SEARCH and isinstance(first, str):
            check(len(text) * len(first) <= MAX_SEARCH, "a search takes too long")
        if name in ("split", "rsplit"):
            return self._split(*arguments, **named)
        if name == "splitlines":
            check(sum(map(text.count, _LINE_ENDS)) <= limits.items, "a list is too long")
        return getattr(text, name)(*arguments, **named)

    def _split(self, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        most = self._limits.items if maxsplit < 0 else min(maxsplit, self._limits.items)
        parts: list[str] = getattr(self._text, self._name)(sep, most)
        return parts


class _Formatter(string.Formatter):
    """`str.format` that never reaches inside its values, with bounded widths and result."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox
        self._total = 0

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        check(not re.search(r"[.\[]", field_name), "a format reaches inside its values")
        return super().get_field(field_name, args, kwargs)

    def format_field(self, value: Any, format_spec: str) -> str:
        limits = self._sandbox.limits
        limits.step()
        self._sandbox.check_widths(format_spec)
        limits.weigh(value)
        text = str(super().format_field(value, format_spec))
        self._total += len(text)
        check(self._total <= limits.chars, "a formatted text is too long")
        return text
