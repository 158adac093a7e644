"""How text can look on this terminal: Rich texts made into what is written, with the escapes that it understands."""

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from rich.color import ColorSystem
from rich.style import Style

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


@dataclass(frozen=True, slots=True)
class Look:
    """Whether there are colours, and whether there are escapes at all; `code_theme` is one of Rich's ANSI themes."""

    has_color: bool = True
    is_plain: bool = False
    code_theme: str = "ansi_dark"  # the terminal's own colours, so both backgrounds are its own affair

    def paint(self, text: "Text") -> str:
        """Return the text with the escapes for its styles."""
        if self.is_plain:
            return text.plain
        if not text.spans:  # Rich gives no style then, though the text may have one
            style = text.style
            return self._paint(text.plain, style if isinstance(style, Style) else None)
        return "".join(self._paint(segment.text, segment.style) for segment in text.render(_console()))

    def _paint(self, text: str, style: Style | None) -> str:
        if not style:
            return text
        style = style if self.has_color else style.without_color
        return style.render(text, color_system=ColorSystem.STANDARD)


def look_of_terminal() -> Look:
    """Return what the environment says: `NO_COLOR` takes colours away, `TERM=dumb` all escapes."""
    is_plain = os.environ.get("TERM", "") in ("dumb", "unknown")
    return Look(has_color=not os.environ.get("NO_COLOR") and not is_plain, is_plain=is_plain)


@cache
def _console() -> "Console":
    """Return the console that Rich wants for looking up styles; nothing is ever written to it."""
    import io

    from rich.console import Console

    return Console(file=io.StringIO(), width=80, highlight=False, markup=False, emoji=False)
