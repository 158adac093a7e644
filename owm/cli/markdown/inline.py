"""What stands inside a paragraph, heading or cell: emphasis, code, links, made into a Rich text."""

import re
from functools import cache
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

from owm.cli.terminal import visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

MAX_MARKED = 10_000  # characters; a longer text without an end of line is shown as it is

STRONG = Style(bold=True)
EMPHASIS = Style(italic=True)
STRUCK = Style(strike=True)
CODE = Style(color="cyan")
LINK = Style(underline=True)
FAINT = Style(dim=True)

_STYLES = {"strong": STRONG, "em": EMPHASIS, "s": STRUCK, "link": LINK}
_LINE_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
_INDENT = re.compile("(?<=\n) +")
_MATH_ENDS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}


def styled(text: str, *, has_color: bool = True, is_plain: bool = False) -> Text:
    """Return the text with its marks made styles; without colour inline code keeps its marks, in plain text all do."""
    if len(text) > MAX_MARKED:
        return Text(visible(text))
    # A paragraph's lines keep their indentation; the parser takes spaces away.
    kept = _INDENT.sub(lambda spaces: "\u00a0" * len(spaces[0]), text)
    writer = _Writer(has_color=has_color, is_plain=is_plain)
    for token in _parser().parseInline(kept)[0].children or ():
        writer.write(token)
    return writer.text


def completed(text: str) -> str:
    """Close what is open at the end of an unfinished text, so that it looks as it will when it goes on."""
    bare = text.rstrip()
    if bare.count("`") % 2:
        return bare + "`" if not bare.endswith("`") else bare[:-1]
    if bare.count("**") % 2:
        return bare + "**" if not bare.endswith("*") else bare.rstrip("*")
    return text


class _Writer:
    """Puts tokens into one text, with the styles and the address that are open."""

    def __init__(self, *, has_color: bool, is_plain: bool) -> None:
        self.text = Text()
        self._is_line_begun = False
        self._has_color = has_color
        self._is_plain = is_plain
        self._styles: list[Style] = []
        self._links: list[tuple[int, str]] = []

    def write(self, token: "Token") -> None:
        kind = token.type
        if kind in ("softbreak", "hardbreak"):
            self._put("\n")
        elif kind == "code_inline":
            self._put(token.content if self._has_color else f"`{token.content}`", CODE)
        elif kind == "image":
            self._put(token.content, LINK)
            self._put_address(str(token.attrs.get("src", "")), token.content)
        elif kind.endswith("_open"):
            self._open(kind.removesuffix("_open"), token)
        elif kind.endswith("_close"):
            self._close(kind.removesuffix("_close"), token)
        else:
            self._put(_LINE_BREAK.sub("\n", token.content) if kind == "text" else token.content)

    def _open(self, kind: str, token: "Token") -> None:
        if kind == "link":
            self._links.append((len(self.text), str(token.attrs.get("href", ""))))
        elif self._is_plain:
            self._put(token.markup)
        self._styles.append(_STYLES.get(kind, Style.null()))

    def _close(self, kind: str, token: "Token") -> None:
        self._styles.pop()
        if kind == "link":
            begin, address = self._links.pop()
            self._put_address(address, self.text.plain[begin:])
        elif self._is_plain:
            self._put(token.markup)

    def _put_address(self, address: str, shown: str) -> None:
        from urllib.parse import unquote

        if address and shown not in (address, unquote(address), address.removeprefix("mailto:")):
            self._put(f" ({address})", FAINT)

    def _put(self, text: str, style: Style | None = None) -> None:
        # Entities can stand for any character: what the source shows is not all that has to be made visible.
        shown = visible(text)
        if not self._is_line_begun:
            bare = shown.lstrip("\u00a0")
            shown = " " * (len(shown) - len(bare)) + bare
        if self._styles:
            style = Style.combine([*self._styles, style or Style.null()])
        self.text.append(shown, style or None)
        self._is_line_begun = not shown.endswith("\n") if shown else self._is_line_begun


def _math(state: "StateInline", silent: bool) -> bool:
    """Take formulas as they are: their backslashes, stars and underscores are no marks."""
    begin = state.pos
    if (mark := _MATH_ENDS.get(state.src[begin : begin + 2])) is None:
        return False
    end = state.src.find(mark, begin + 2, state.posMax)
    if end < 0:
        return False
    if not silent:
        state.push("math", "", 0).content = state.src[begin : end + 2]
    state.pos = end + 2
    return True


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20}).enable("strikethrough")
    parser.inline.ruler.before("escape", "math", _math)
    return parser
