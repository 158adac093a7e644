"""GBNF, the grammars of llama.cpp, as Lark grammars for llguidance.

A Lark terminal takes as much text as it can and never gives any back, which GBNF does not know: in
`root ::= word "x"`, `word ::= [a-z]+` the word may leave the last letter to the literal. So a grammar without recursion
becomes one terminal, in which every division is tried, and one with recursion is made of terminals of one character.

ref: grammars/README.md and src/llama-grammar.cpp of llama.cpp
"""

import re
from dataclasses import dataclass

from owm.errors import Unsupported, UsageError

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_HEX = {"x": 2, "u": 4, "U": 8}
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n"} | {char: char for char in '\\"[]-'}
_REPEAT = re.compile(r"[*+?]|\{\s*(\d+)\s*\}|\{\s*(\d+)\s*,\s*(\d*)\s*\}")
_REFERENCE = re.compile("\0([^\0]+)\0")
_MAX_REPEATS = 100_000
_MAX_DEPTH = 100


def is_gbnf(text: str) -> bool:
    """Tell a GBNF grammar from a Lark grammar: its rules are written with `::=`."""
    return re.search(r"^[ \t]*[a-zA-Z0-9_-]+[ \t]*::=", text, re.MULTILINE) is not None


def to_lark(text: str) -> str:
    """Translate a grammar.

    Raises:
        UsageError: it has an error; the message has its line.
        Unsupported: it names single tokens.
    """
    rules = _Reader(text).read()
    kind = "r" if _is_recursive(rules) else "T"  # Lark knows terminals by their capitals
    names = {name: f"{kind}{number}" for number, name in enumerate(rules)}
    bodies = (f"{names[name]}: {_REFERENCE.sub(lambda found: names[found[1]], body)}" for name, body in rules.items())
    return "\n".join((f"start: {names['root']}", *bodies)) + "\n"


def _is_recursive(rules: dict[str, str]) -> bool:
    """Tell whether a rule leads back to itself: whether taking away rules that lead nowhere leaves any."""
    left = {name: set(_REFERENCE.findall(body)) for name, body in rules.items()}
    while leaves := [name for name, references in left.items() if not references & left.keys()]:
        for name in leaves:
            del left[name]
    return bool(left)


@dataclass(slots=True)
class _Reader:
    """A recursive descent. It gives bodies of rules in Lark, in which names stand between NULs."""

    text: str
    at: int = 0
    depth: int = 0

    def read(self) -> dict[str, str]:
        rules: dict[str, str] = {}
        used: dict[str, int] = {}
        self._skip(_SPACE_AND_LINES)
        while self.at < len(self.text):
            begin = self.at
            name = self._name()
            self._skip(_SPACE)
            if not self.text.startswith("::=", self.at):
                raise self._error("`::=` is expected after the name of a rule")
            self.at += 3
            self._skip(_SPACE_AND_LINES)
            rules[name] = self._alternatives(_SPACE)
            if self._next not in ("", "\r", "\n"):
                raise self._error(f"`{self._next}` is not expected")
            for other in _REFERENCE.findall(rules[name]):
                used.setdefault(other, begin)
            self._skip(_SPACE_AND_LINES)
        if "root" not in rules:
            raise UsageError("the grammar has no rule `root`", hint="that is where a GBNF grammar begins")
        for name, begin in used.items():
            if name not in rules:
                raise self._error(f"no rule has the name `{name}`", begin)
        return rules

    def _alternatives(self, space: re.Pattern[str]) -> str:
        found = [self._sequence(space)]
        while self._next == "|":
            self.at += 1
            self._skip(_SPACE_AND_LINES)
            found.append(self._sequence(space))
        return " | ".join(found)

    def _sequence(self, space: re.Pattern[str]) -> str:
        items: list[str] = []
        while (first := self._next) and first not in "|)\r\n":
            if first in "*+?{":
                if not items:
                    raise self._error(f"`{first}` has nothing before it to repeat")
                items[-1] = f"({items[-1]}){self._repeat()}"
            else:
                items.append(self._item(first))
            self._skip(space)
        return " ".join(items) or '""'

    def _item(self, first: str) -> str:
        if first == '"':
            return self._literal()
        if first == "[":
            return self._class()
        if first == "(":
            return self._group()
        if first == ".":
            self.at += 1
            return "/(?s:.)/"
        if first in "<!":
            raise Unsupported(f"the grammar names a single token in line {self._line(self.at)}, which owm cannot use")
        return f"\0{self._name()}\0"

    def _group(self) -> str:
        begin = self.at
        self.at += 1
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self._error(f"more than {_MAX_DEPTH} parentheses are open")
        self._skip(_SPACE_AND_LINES)
        inner = self._alternatives(_SPACE_AND_LINES)
        if self._next != ")":
            raise self._error("a `(` is not closed", begin)
        self.at += 1
        self.depth -= 1
        return f"({inner})"

    def _literal(self) -> str:
        begin = self.at
        self.at += 1
        chars = []
        while self._next != '"':
            chars.append(f"/{self._char(begin)}/")
        self.at += 1
        return f"({' '.join(chars)})" if chars else '""'

    def _class(self) -> str:
        begin = self.at
        self.at += 1
        is_negated = self._next == "^"
        self.at += is_negated
        ranges = []
        while self._next != "]":
            low = high = self._char(begin)
            if self._next == "-" and self.text[self.at + 1 : self.at + 2] != "]":
                self.at += 1
                high = self._char(begin)
            if _code(low) > _code(high):
                raise self._error("a range in `[…]` ends before it begins", begin)
            ranges.append(f"{low}-{high}")
        self.at += 1
        if not ranges:
            raise self._error("a `[…]` has no characters", begin)
        return f"/[{'^' * is_negated}{''.join(ranges)}]/"

    def _char(self, begin: int) -> str:
        """Read a character of a literal or class that begins at `begin`; return it as a regex has it."""
        char = self._next
        if not char:
            raise self._error(f"a `{self.text[begin]}` is not closed", begin)
        self.at += 1
        if char != "\\":
            return f"\\u{{{ord(char):x}}}"
        kind = self._next
        self.at += 1
        if kind in _ESCAPED:
            return f"\\u{{{ord(_ESCAPED[kind]):x}}}"
        digits = self.text[self.at : self.at + _HEX.get(kind, 0)]
        if not re.fullmatch(r"[0-9a-fA-F]{2,8}", digits) or len(digits) != _HEX[kind]:
            raise self._error(f"`\\{kind}{digits}` is no escape that GBNF has")
        if 0xD800 <= int(digits, 16) < 0xE000 or int(digits, 16) > 0x10FFFF:
            raise self._error(f"`\\{kind}{digits}` is no character")
        self.at += len(digits)
        return f"\\u{{{int(digits, 16):x}}}"

    def _repeat(self) -> str:
        found = _REPEAT.match(self.text, self.at)
        if found is None:
            raise self._error("`{` is no number of repetitions such as `{2}`, `{2,}` or `{2,5}`")
        exact, low, high = found[1], found[2], found[3]
        if max(int(number or 0) for number in (exact, low, high)) > _MAX_REPEATS:
            raise self._error(f"more than {_MAX_REPEATS} repetitions")
        if high and int(low) > int(high):
            raise self._error(f"`{found[0]}` is at least {low} and at most {high} repetitions")
        self.at = found.end()
        return "".join(found[0].split())

    def _name(self) -> str:
        found = _NAME.match(self.text, self.at)
        if found is None:
            raise self._error(f"`{self._next}` is not expected" if self._next else "it ends too early")
        self.at = found.end()
        return found[0]

    @property
    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip(self, space: re.Pattern[str]) -> None:
        found = space.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def _error(self, problem: str, at: int | None = None) -> UsageError:
        return UsageError(f"the grammar has an error in line {self._line(self.at if at is None else at)}: {problem}")


def _code(char: str) -> int:
    return int(char[3:-1], 16)
