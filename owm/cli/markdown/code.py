"""The lines of a code block, coloured one by one as they come, each at a cost that does not grow with the block."""

from typing import Any

from rich.text import Text

Token = tuple[int, Any, str]  # where it begins, its type, a tuple of names, and its text

CUT_LINES = 8  # of code that a line is read with, where the code before can be forgotten
MAX_LINES = 60  # where it cannot: inside of a long comment, say
MAX_LINE = 1000  # characters; a longer line is no code that people read
_N_SURE = 3  # lines after a cut that have to come out as without it


class CodeColors:
    """The colours of one code block: pygments' lexers know whole texts only, so a line is read with some before it."""

    def __init__(self, language: str, theme: str) -> None:
        from rich.syntax import Syntax

        self._lexer: Any = Syntax("", language).lexer if language else None
        self._theme = Syntax.get_theme(theme)
        self._lines: tuple[str, ...] = ()
        self._next_cut = CUT_LINES

    def fork(self) -> "CodeColors":
        """Return a copy that goes on from here on its own."""
        copy = object.__new__(CodeColors)
        copy._lexer, copy._theme = self._lexer, self._theme
        copy._lines, copy._next_cut = self._lines, self._next_cut
        return copy

    def color(self, line: str) -> Text:
        """Return the next line of the block with its colours."""
        text = Text(line)
        if self._lexer is None or len(line) > MAX_LINE:
            return text
        self._lines = (*self._lines, line)
        source = "\n".join(self._lines) + "\n"
        begin = len(source) - len(line) - 1
        try:
            tokens = _lex(self._lexer, source)
        except Exception:  # there are hundreds of lexers; one that fails on a text costs no more than its colours
            self._lexer = None
            return text
        for at, kind, value in tokens:
            if at + len(value) > begin and not value.isspace():
                style = self._theme.get_style_for_token(kind)
                if style:
                    text.stylize(style, max(at - begin, 0), at + len(value) - begin)
        if len(self._lines) >= self._next_cut:
            self._cut(self._lexer, tokens)
        return text

    def _cut(self, lexer: Any, tokens: list[Token]) -> None:
        """Forget lines at the beginning, if those after them come out as before."""
        lines = self._lines
        for n in range(len(lines) - _N_SURE - 1, len(lines) // 2 - 1, -1):
            if lines[n].strip():
                begin = len("\n".join(lines[:n])) + 1
                kept = [(at - begin, kind, value) for at, kind, value in tokens if at >= begin]
                if kept == _lex(lexer, "\n".join(lines[n:]) + "\n"):
                    self._lines, self._next_cut = lines[n:], CUT_LINES
                    return
                break
        if len(lines) >= MAX_LINES:
            self._lines = lines[-CUT_LINES:]
        self._next_cut = len(self._lines) + CUT_LINES


def _lex(lexer: Any, source: str) -> list[Token]:
    """Return the tokens of a source whose end may be missing."""
    tokens = list(lexer.get_tokens_unprocessed(source))
    # Some lexers know a comment by its end only.
    at = source.rfind("/*")
    if at < 0 or "*/" in source[at + 2 :] or _is_comment(tokens, at):
        return tokens
    closed = list(lexer.get_tokens_unprocessed(source + "*/"))
    return closed if _is_comment(closed, at) else tokens


def _is_comment(tokens: list[Token], at: int) -> bool:
    return any(begin == at and "Comment" in kind for begin, kind, _ in tokens)
