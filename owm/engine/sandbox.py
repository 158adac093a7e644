"""A stranger's program in Jinja's immutable sandbox, with limits of our own.

Jinja's sandbox guards attributes; it lets `{{ 'a' * 10**9 }}` render a gigabyte inside one C call. So what can be
large is weighed before it is made, what is made is charged to one budget of the rendering, every step looks at the
clock, and of built-in values only the methods and filters that chat templates need are there at all. What Jinja
compiles straight to Python (comparisons, slices, `~`, loops) is rewritten in the syntax tree to ask here first.
"""

import functools
import math
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import datetime
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from owm.engine import filters
from owm.engine.bounds import MAX_FORMAT_CHARS, MAX_INT_BITS, MAX_NODES
from owm.engine.limits import LimitExceeded, Limits, check
from owm.errors import TemplateRefusal

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


class _Namespace(Namespace):
    """`namespace()`, which never shows what is inside: it can hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class _Generator(CodeGenerator):
    """Jinja's compiler, which looks at the clock."""

    environment: "Sandbox"

    def visit(self, node: nodes.Node, *arguments: Any, **named: Any) -> Any:
        self.environment.limits.look()
        return super().visit(node, *arguments, **named)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment: bounded operators, methods and filters; counted steps."""

    code_generator_class = _Generator

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "**", "%"])
    limits: Limits

    def __init__(self) -> None:
        # Not optimized: the optimizer evaluates constant expressions while it compiles, before any limit counts.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[loopcontrols, Generation],
            finalize=_finalize,
        )
        self.limits = Limits()
        known: dict[str, Any] = {**FILTERS}
        tests: dict[str, Any] = {**self.tests}
        own = filters.Filters(self)
        self.filters = {
            name: self._bounded(getattr(own, f"do_{name}", known[name]), name in filters.DEEP)
            for name in (*filters.DEEP, *filters.SHALLOW)
        }
        self.tests = {name: self._bounded(test, True) for name, test in tests.items()}
        self.globals = {
            "range": self._range,
            "dict": lambda *pairs, **named: self._dict(*pairs, **named),
            "namespace": lambda *pairs, **named: _Namespace(self._dict(*pairs, **named)),
            "raise_exception": _refuse,
            "strftime_now": self._strftime_now,
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        check(sum(1 for _ in tree.find_all(nodes.Node)) <= MAX_NODES, "it is too long")
        _rewrite(tree)
        tree.set_environment(self)
        return tree

    def _bounded(self, function: Callable[..., Any], is_deep: bool) -> Callable[..., Any]:
        """Wrap a filter or test: a step each; what it looks into is weighed before, what it makes is charged."""

        @functools.wraps(function)
        def bounded(*arguments: Any, **named: Any) -> Any:
            self.limits.step()
            if is_deep:
                arguments = tuple(map(self.limits.weighed, arguments))
                named = {key: self.limits.weighed(value) for key, value in named.items()}
            made = function(*arguments, **named)
            # At once, not when it is asked for: then it could be by C code, or hold others that hold others.
            return iter(self.limits.take(made)) if isinstance(made, Generator) else self.limits.charge(made)

        return bounded

    def _dict(self, *pairs: Any, **named: Any) -> dict[Any, Any]:
        """`dict(…)`; numbers can be chosen so that each new key takes longer."""
        check(len(pairs) <= 1, "dict takes one list of pairs")
        made = {}
        for given in pairs:
            for key, value in given.items() if isinstance(given, Mapping) else self.limits.take(given):
                self.limits.look()
                made[key] = value
        return self.limits.charge(made | named)

    def _range(self, *arguments: int) -> range:
        numbers = range(*arguments)
        check(len(numbers) <= self.limits.items, "a range is too long")
        return numbers

    def _strftime_now(self, pattern: str) -> str:
        self.check_widths(pattern)
        return datetime.now().strftime(pattern)

    # -- called by the rewritten tree --------------------------------------------------------------------------------

    def tick(self, value: Any = "") -> Any:
        """Count one turn of a loop or one call of a macro."""
        self.limits.step()
        return value

    def operand(self, value: Any) -> Any:
        """One side of a comparison, or a key."""
        self.limits.step()
        return value if isinstance(value, str | int) else self.limits.weighed(value)

    def joined(self, *parts: Any) -> str:
        """`a ~ b`."""
        self.limits.step()
        return self.limits.join("", [self.limits.text(part) for part in parts])

    def sliced(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """`value[start:stop:step]`."""
        self.limits.step()
        return self.limits.charge(value[start:stop:step])

    def concat(self, parts: Iterable[str]) -> str:
        """Join what a block or macro put out."""
        return self.limits.join("", list(parts))

    # -- operators, attributes and calls -----------------------------------------------------------------------------

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Check the size of a result before it is made."""
        limits = self.limits
        limits.step()
        for number in (left, right):
            check(not isinstance(number, int) or number.bit_length() <= MAX_INT_BITS, "a number is too large")
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            check(abs(right) * max(left.bit_length(), 1) <= MAX_INT_BITS, "a number is too large")
        elif operator == "*":
            for thing, times in ((left, right), (right, left)):
                if isinstance(thing, str | list | tuple) and isinstance(times, int):
                    most = limits.chars if isinstance(thing, str) else limits.items
                    check(len(thing) * times <= most, "a repeated text or list is too long")
        elif operator == "%" and isinstance(left, str):
            self._check_percent(left, right)
        return limits.charge(super().call_binop(context, operator, left, right))

    def _check_percent(self, pattern: str, values: Any) -> None:
        check(len(pattern) <= MAX_FORMAT_CHARS, "a format is too long")
        specs = re.findall(r"%(?:\([^)]*\))?[^a-zA-Z%]*", pattern)
        check(not any("*" in spec for spec in specs), "a format takes its width from a value")
        self.check_widths(pattern)
        check(len(specs) * max(self.limits.weigh(values), 1) <= self.limits.chars, "a formatted text is too long")

    def check_widths(self, spec: str) -> None:
        """Refuse a format specification whose numbers would pad a text beyond the limit."""
        check(len(spec) <= MAX_FORMAT_CHARS, "a format is too long")
        numbers = [int(n) if len(n) < 9 else self.limits.chars for n in re.findall(r"\d+", spec)]
        check(sum(numbers) < self.limits.chars, "a padded text is too long")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of built-in values only the methods that templates need; of Jinja's own what Jinja allows; else nothing."""
        for kind, allowed in _METHODS.items():
            if isinstance(obj, kind):
                return attr in allowed or attr in getattr(obj, "_fields", ())  # the fields of `groupby`'s tuples
        return isinstance(obj, Namespace | LoopContext | Macro) and bool(super().is_safe_attribute(obj, attr, value))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`obj[argument]`; a key is weighed before it is hashed. Filters walk along paths of them."""
        self.limits.look()
        if not isinstance(argument, str | int):
            self.limits.weigh(argument)
        return super().getitem(obj, argument)

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
        """Count a call, and check the methods that can make something large or take long."""
        owner = getattr(function, "__self__", None)
        if owner is self:
            return function(*arguments)
        self.limits.step()
        if isinstance(function, Macro):
            return super().call(context, function, *arguments, **named)
        for name in ("_loop_vars", "_block_vars"):  # Jinja's own, for functions that want the context
            named.pop(name, None)
        for value in (*arguments, *named.values(), *([owner] if isinstance(owner, list | tuple) else [])):
            self.limits.weigh(value)
        if isinstance(owner, str):
            function = filters.TextMethod(self, owner, function.__name__)
        result = super().call(context, function, *arguments, **named)
        return self.limits.charge(result) if isinstance(owner, str) else result

    def wrap_str_format(self, value: Any) -> Any:
        """Leave `str.format` to `call`, which runs the bounded formatter."""
        return None


class Generation(Extension):
    """`{% generation %}`, by which some templates mark the assistant's part for training; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _rewrite(node: Any) -> Any:
    """Let the sandbox be asked before everything that Jinja compiles straight to Python."""
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            setattr(node, field, _rewrite(value))
        elif isinstance(value, list):
            value[:] = [_rewrite(item) if isinstance(item, nodes.Node) else item for item in value]
    match node:
        case nodes.For() | nodes.Macro() | nodes.CallBlock() | nodes.Block():
            node.body.insert(0, nodes.ExprStmt(_ask("tick", lineno=node.lineno), lineno=node.lineno))
            if isinstance(node, nodes.For) and node.test is not None:
                node.test = _ask("tick", node.test, lineno=node.lineno)
        case nodes.Concat():
            return _ask("joined", *node.nodes, lineno=node.lineno)
        case nodes.Compare():
            node.expr = _operand(node.expr)
        case nodes.Operand():
            node.expr = _operand(node.expr)
        case nodes.Pair():
            node.key = _operand(node.key)
        case nodes.Getitem(arg=nodes.Slice() as ends):
            parts = [part or nodes.Const(None, lineno=node.lineno) for part in (ends.start, ends.stop, ends.step)]
            return _ask("sliced", node.node, *parts, lineno=node.lineno)
        case nodes.Include() | nodes.Import() | nodes.FromImport() | nodes.Extends():
            raise LimitExceeded("it asks for another template")
        case nodes.ScopedEvalContextModifier():
            raise LimitExceeded("it is meant for web pages")
        case nodes.Const(value=float() as number) if math.isinf(number):  # Jinja compiles it to a name, `inf`
            raise LimitExceeded("a number is too large")
    return node


def _ask(name: str, *arguments: Any, lineno: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name, lineno=lineno), list(arguments), [], None, None, lineno=lineno)


def _operand(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _ask("operand", node, lineno=node.lineno)


@pass_context  # with a context argument Jinja does not call it while it compiles
def _finalize(context: Any, value: Any) -> Any:
    limits = context.environment.limits
    limits.step()
    return value if isinstance(value, str) else limits.text(value)


def _refuse(message: Any) -> None:
    raise TemplateRefusal(
        f"the model's chat template refuses: {str(message)[:300]}", hint="`--raw` sends the prompt without a template"
    )
