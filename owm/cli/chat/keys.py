"""The keys of the editor of `owm chat`, beside those of Emacs and readline that prompt_toolkit has."""

from collections.abc import Callable
from typing import Protocol

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer
from prompt_toolkit.filters import Condition, has_completions, has_focus, has_selection
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.search import stop_search
from prompt_toolkit.utils import suspend_to_background_supported

from owm.cli.chat.commands import is_open

INDENT = "    "


class Modes(Protocol):
    """What the keys need to know of the editor."""

    is_multi: bool
    is_elsewhere: bool


def keys_of(
    text: Buffer, completer: Completer, modes: Modes, write_elsewhere: Callable[[], None], hold: Callable[[str], None]
) -> KeyBindings:
    """Return the bindings.

    Args:
        write_elsewhere: opens the external editor.
        hold: keeps a text that was cleared where Up finds it.
    """
    bindings = KeyBindings()
    is_typing = has_focus(text)

    @bindings.add("enter", filter=is_typing)
    def enter(event: KeyPressEvent) -> None:
        if text.complete_state is not None and text.complete_state.current_completion is not None:
            text.complete_state = None
        elif _makes_lines(text, modes):
            text.insert_text("\n")
        else:
            send(event.app, text)

    @bindings.add("escape", "enter", filter=is_typing)
    @bindings.add("escape", "c-j", filter=is_typing)
    def alt_enter(event: KeyPressEvent) -> None:
        text.complete_state = None
        if modes.is_multi:
            send(event.app, text)
        else:
            text.insert_text("\n")

    @bindings.add("c-d", filter=is_typing)
    def leave(event: KeyPressEvent) -> None:
        if not text.text:
            event.app.exit(exception=EOFError)
        elif modes.is_multi and not text.document.text_after_cursor:
            send(event.app, text)
        else:
            text.delete()

    @bindings.add("c-c", filter=is_typing)
    def clear(event: KeyPressEvent) -> None:
        if text.complete_state is not None:
            text.cancel_completion()
        elif text.text:
            hold(text.text)
            text.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    @bindings.add("<sigint>")
    def interrupt(event: KeyPressEvent) -> None:
        if modes.is_elsewhere:
            return  # it is meant for the program that is open
        if not event.app.layout.has_focus(text):
            stop_search()
        else:
            clear(event)

    @bindings.add("tab", filter=is_typing & ~has_completions & ~has_selection)
    def complete(event: KeyPressEvent) -> None:
        before = text.document.current_line_before_cursor
        if not before.strip() and (modes.is_multi or "\n" in text.text or is_open(text.text)):
            text.insert_text(INDENT)
            return
        found = list(completer.get_completions(text.document, CompleteEvent(completion_requested=True)))
        if len(found) == 1:
            text.apply_completion(found[0])
        elif found:
            text.start_completion(insert_common_part=True)

    @bindings.add("s-tab", filter=is_typing & ~has_completions)
    @bindings.add(Keys.Vt100MouseEvent)  # what only looks like one fails in prompt_toolkit
    def nothing(event: KeyPressEvent) -> None:
        return

    @bindings.add("c-x", "c-e", filter=is_typing)
    def elsewhere(event: KeyPressEvent) -> None:
        text.complete_state = None
        write_elsewhere()

    @bindings.add("c-z", filter=Condition(suspend_to_background_supported))
    def suspend(event: KeyPressEvent) -> None:
        event.app.suspend_to_background()

    @bindings.add(Keys.BracketedPaste, filter=is_typing)
    def paste(event: KeyPressEvent) -> None:
        text.complete_state = None
        text.insert_text(event.data.replace("\r\n", "\n").replace("\r", "\n"))

    return bindings


def send(app: "Application[str]", text: Buffer) -> None:
    """End the reading with the text; a blank one is cleared instead."""
    if not text.text.strip():
        text.reset()
        return
    text.cursor_position = len(text.text)
    text.append_to_history()
    app.exit(result=text.text)


def _makes_lines(text: Buffer, modes: Modes) -> bool:
    """Tell whether Enter begins a new line; a command on a line of its own is sent by it in every mode."""
    if is_open(text.text):
        return True
    is_command = text.text.startswith("/") and not text.text.startswith("//") and "\n" not in text.text
    return modes.is_multi and not is_command
