"""Target of fuzzing: chat templates, compiled and rendered in this process, where a published one runs too."""

import random
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lib.fuzz_case import Target
from lib.inside import ROOT
from lib.mutation import INTEGERS, mutate_text

sys.path.insert(0, str(ROOT / "tests"))

_TOKEN = re.compile(r"\{%-?|-?%\}|\{\{-?|-?\}\}|\{#|#\}|'[^']*'|\"[^\"]*\"|\w+|\s+|.", re.DOTALL)
_STATEMENT = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|[^{]+|\{", re.DOTALL)
_NAMES = (
    "messages", "message", "loop", "loop.index", "loop.last", "loop.previtem", "ns.x", "ns", "tools", "bos_token",
    "eos_token", "add_generation_prompt", "missing", "messages[0]", "messages[-1]", "messages[1:]", "messages[::-1]",
    "messages[0].role", "message['content']", "messages[0]['content'].split('x')", "range(9)", "namespace(x=1)",
    "dict(a=1)", "[]", "{}", "none", "true", "''", "'a'", "[1, 'a', none]", "{'a': [1]}", "1.5", "-1",
    "strftime_now('%Y')", "self", "caller()", "varargs", "kwargs",
)  # fmt: skip
_FILTERS = (
    "upper", "trim", "length", "tojson", "tojson(indent=2)", "string", "int", "float", "first", "last", "list",
    "join(', ')", "items", "default('x')", "replace('a', 'bb')", "map(attribute='role')|list",
    "selectattr('role', 'equalto', 'user')|list", "sort", "unique|list", "groupby('role')", "reverse|list", "sum",
    "batch(2)|list", "slice(3)|list", "indent(4)", "center(9)", "truncate(9)", "wordcount", "abs", "round(2)",
    "dictsort", "safe", "e", "capitalize", "reject('none')|list", "min", "max", "random", "xmlattr", "attr('x')",
    "format(1)", "filesizeformat", "pprint", "striptags", "urlize", "wordwrap(5)", "select('string')|list",
    "map('upper')|list",
)  # fmt: skip
_METHODS = (
    "split()", "strip()", "startswith('a')", "endswith('')", "rfind('a')", "replace('', 'x')", "title()",
    "join(['a', 'b'])", "zfill(9)", "partition(' ')", "splitlines()", "get('role')", "items()", "keys()", "format(1)",
    "count('a')", "index('a')", "lstrip('a')", "x", "role", "__class__", "append(1)", "pop()", "update(a=1)",
    "encode()", "ljust(99)",
)  # fmt: skip
_TESTS = (
    "defined", "none", "string", "mapping", "iterable", "sequence", "number", "sameas(1)", "in [1]", "divisibleby(0)",
    "eq 1", "undefined", "callable",
)  # fmt: skip
_OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">", "and", "or", "in", "not in")
_BODIES = (
    "{{ X }}", "{{ X }}{{ X }}", "{% if X %}{{ X }}{% elif X %}a{% else %}{{ X }}{% endif %}",
    "{% for message in messages %}{{ X }}{% endfor %}",
    "{% for a, b in X %}{{ a }}{{ X }}{% else %}{{ X }}{% endfor %}",
    "{% for a in X recursive %}{{ loop(a) }}{% endfor %}",
    "{% for a in X if X %}{{ a }}{{ loop.cycle(1, 2) }}{% endfor %}",
    "{% set ns = namespace(x=X) %}{% for a in range(3) %}{% set ns.x = X %}{% endfor %}{{ ns.x }}",
    "{% set a = X %}{{ a }}{{ a }}", "{% set a %}{{ X }}{% endset %}{{ a|length }}",
    "{% macro m(a, b=X) %}{{ a }}{{ X }}{% endmacro %}{{ m(X) }}{{ m(X, b=X) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ X }}{% endcall %}",
    "{% filter upper %}{{ X }}{% endfilter %}", "{% generation %}{{ X }}{% endgeneration %}",
    "{% with a = X %}{{ a }}{% endwith %}", "{% raw %}{{ X }}{% endraw %}",
    "{% for a in range(9) %}{% if X %}{% break %}{% endif %}{% continue %}{% endfor %}", "{{ raise_exception(X) }}",
    "{% block b %}{{ X }}{% endblock %}{{ self.b() }}", "{%- if X is T -%} x {%- endif -%}", "{{ X if X else X }}",
    "{# X #}", "{% autoescape X %}{{ X }}{% endautoescape %}",
)  # fmt: skip


class Templates(Target):
    """Chat templates: real ones with other parts, made ones, and attacks."""

    name = "templates"

    @cached_property
    def texts(self) -> list[str]:
        """Real templates."""
        from support.hostile_templates import BOMBS, ESCAPES
        from support.tiny_gguf import CHATML

        real = [path.read_text("utf-8") for path in sorted((ROOT / "tests/support/templates").glob("*.jinja"))]
        self.attacks = [*ESCAPES.values(), *(text for text in BOMBS.values() if len(text) < 2000)]
        return [CHATML, *real]

    @cached_property
    def parts(self) -> list[str]:
        """Statements and expressions of real templates."""
        return [part for text in self.texts for part in _STATEMENT.findall(text)]

    @cached_property
    def words(self) -> list[str]:
        """Words and marks of real templates."""
        return sorted({word for text in self.texts for word in _TOKEN.findall(text) if len(word) < 40})

    @cached_property
    def seeds(self) -> list[bytes]:
        return [text.encode() for text in self.texts]

    def mutate(self, dice: random.Random, kept: Sequence[bytes]) -> bytes:
        roll = dice.random()
        if roll < 0.5:
            text = "".join(_body(dice) for _ in range(dice.choice((1, 1, 2, 4))))
        elif roll < 0.75:
            at = dice.randrange(len(self.parts))
            text = "".join(self.parts[at : at + dice.choice((3, 9, 30))])
        elif roll < 0.8:
            text = dice.choice(self.texts)
        elif roll < 0.83:
            text = dice.choice(self.attacks)
        else:
            text = dice.choice(kept).decode("utf-8", "replace")[:4000]
        if dice.random() < 0.6:
            text = mutate_text(dice, text, (*self.words, *_NAMES, *_FILTERS, *_BODIES), self.texts)
        return text.encode("utf-8", "surrogatepass")

    def drive(self, case: bytes, folder: Path) -> None:
        from owm.engine.template import ChatTemplate

        source = case.decode("utf-8", "surrogatepass")
        template = ChatTemplate(source, bos="<s>", eos="</s>", is_trusted=True)
        template.switch("off"), template.effort("low")
        # One rendering: each may take a second.
        conversation, variables = _CONVERSATIONS[len(case) % len(_CONVERSATIONS)]
        template.render(conversation, **variables)


def _expression(dice: random.Random, depth: int = 0) -> str:
    kind = dice.randrange(8 if depth < 3 else 3)
    if kind == 0:
        return str(dice.choice(INTEGERS))
    if kind < 3:
        return dice.choice(_NAMES)
    if kind == 3:
        return f"{_expression(dice, depth + 1)}|{dice.choice(_FILTERS)}"
    if kind == 4:
        return f"({_expression(dice, depth + 1)}).{dice.choice(_METHODS)}"
    if kind == 5:
        return f"({_expression(dice, depth + 1)} {dice.choice(_OPERATORS)} {_expression(dice, depth + 1)})"
    if kind == 6:
        return f"({_expression(dice, depth + 1)})[{_expression(dice, depth + 1)}{dice.choice(('', ':', ':2', '::-1'))}]"
    return f"[{_expression(dice, depth + 1)}, {_expression(dice, depth + 1)}]"


def _body(dice: random.Random) -> str:
    text = dice.choice(_BODIES)
    return re.sub(r"\b[XT]\b", lambda found: _expression(dice) if found[0] == "X" else dice.choice(_TESTS), text)


_CONVERSATIONS: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    (
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a b"},
            {"role": "assistant", "content": "<think>x</think>y"},
            {"role": "user", "content": "\x1b[2J{{ 7 }}"},
        ],
        {"enable_thinking": False},
    ),
    (
        [{"role": "user", "content": "é\ud7ff " * 40}],
        {
            "add_generation_prompt": False,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
    ),
]
