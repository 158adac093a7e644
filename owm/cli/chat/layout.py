"""How the editor of `owm chat` looks: prompt, text, menu of completions, search line and toolbar, under each other.

The toolbar follows the text directly, and the terminal is never asked where its cursor stands: not all answer, and what
they answer late would be taken for typing.
"""

import re
from collections.abc import Callable

from prompt_toolkit.application import get_app
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition, has_arg, has_completions, has_focus, is_done
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.layout import ConditionalContainer, Dimension, HSplit, Layout, ScrollOffsets, Window
from prompt_toolkit.layout.containers import VerticalAlign
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.menus import CompletionsMenuControl
from prompt_toolkit.layout.processors import (
    HighlightIncrementalSearchProcessor,
    HighlightSelectionProcessor,
    Processor,
    Transformation,
    TransformationInput,
)
from prompt_toolkit.layout.utils import explode_text_fragments
from prompt_toolkit.styles import Style
from prompt_toolkit.widgets import SearchToolbar

from owm.cli.terminal import visible

PROMPT = "> "

_MENU_ROWS = 8
_ROWS_FOR_TOOLBAR = 4
_TAB_COLUMNS = 4
_STRANGE = re.compile("[^\x20-\x7e]")


class Visible(Processor):
    """Show what would steer the terminal by its number, and tabs as blanks; the text itself stays as it is."""

    def apply_transformation(self, transformation_input: TransformationInput) -> Transformation:
        """Return a line as it is shown, and which of its places is which."""
        fragments = transformation_input.fragments
        if not any(_STRANGE.search(fragment[1]) for fragment in fragments):
            return Transformation(fragments)
        shown: StyleAndTextTuples = []
        places = [0]
        for style, character, *_ in explode_text_fragments(fragments):
            if character == "\t":
                text = " " * (_TAB_COLUMNS - places[-1] % _TAB_COLUMNS)
            else:
                text = "\N{REPLACEMENT CHARACTER}" if "\ud800" <= character <= "\udfff" else visible(character)
            shown.append((style if len(text) == 1 or text.isspace() else f"{style} class:control-character", text))
            places.append(places[-1] + len(text))

        def to_shown(place: int) -> int:
            return places[place] if place < len(places) else places[-1] + place - len(places) + 1

        def to_source(place: int) -> int:
            from bisect import bisect_right

            return bisect_right(places, place) - 1

        return Transformation(shown, source_to_display=to_shown, display_to_source=to_source)


def style_of(*, has_color: bool) -> Style:
    """Return the styles of all parts: the terminal's own colours, or none."""
    rules = {
        "prompt": "bold",
        "search": "underline",
        "search.current": "reverse",
        "toolbar": "dim",
        "control-character": "underline",
        "completion-menu": "bg:default fg:default",
        "completion-menu.completion.current": "noinherit reverse",
        "completion-menu.meta.completion": "noinherit dim",
        "completion-menu.meta.completion.current": "noinherit reverse",
        "scrollbar.background": "noinherit dim",
        "scrollbar.button": "noinherit reverse",
        "question": "bold",
    }
    if has_color:
        rules |= {"prompt": "bold ansicyan", "control-character": "ansiyellow", "search": "ansiyellow"}
    return Style(list(rules.items()))


def layout_of(text: Buffer, search: Buffer, toolbar: Callable[[int], str]) -> Layout:
    """Return the layout of the editor.

    Args:
        toolbar: makes the line of as many columns, or "" for none.
    """
    search_line = SearchToolbar(search, forward_search_prompt="search: ", backward_search_prompt="search back: ")
    typed = Window(
        BufferControl(
            text,
            input_processors=[HighlightIncrementalSearchProcessor(), HighlightSelectionProcessor(), Visible()],
            include_default_input_processors=False,
            search_buffer_control=search_line.control,
            preview_search=True,
        ),
        height=Dimension(min=1),
        wrap_lines=True,
        dont_extend_height=True,
        get_line_prefix=prefix,
    )
    menu = Window(
        CompletionsMenuControl(),
        height=Dimension(min=1, max=_MENU_ROWS),
        scroll_offsets=ScrollOffsets(top=1, bottom=1),
        dont_extend_width=True,
        dont_extend_height=True,
        style="class:completion-menu",
    )
    repeats = Window(FormattedTextControl(lambda: f"repeat: {get_app().key_processor.arg}"), height=1)
    rows = HSplit(
        [
            typed,
            ConditionalContainer(menu, has_completions & has_focus(text) & ~is_done),
            ConditionalContainer(repeats, has_arg & ~is_done),
            ConditionalContainer(search_line, ~is_done),
            _toolbar_line(toolbar),
        ],
        align=VerticalAlign.TOP,
    )
    return Layout(rows, typed)


def _toolbar_line(toolbar: Callable[[int], str]) -> ConditionalContainer:
    """Return the line under everything; a window of few rows has none."""

    def line() -> str:
        return toolbar(get_app().output.get_size().columns)

    return ConditionalContainer(
        Window(FormattedTextControl(line), height=Dimension.exact(1), dont_extend_height=True, style="class:toolbar"),
        Condition(lambda: get_app().output.get_size().rows >= _ROWS_FOR_TOOLBAR and bool(line())) & ~is_done,
    )


def prefix(line: int, wrap: int) -> StyleAndTextTuples:
    """Return what stands before a row of what is typed."""
    return [("class:prompt", PROMPT if line == 0 and wrap == 0 else " " * len(PROMPT))]
