"""Where prompts are typed: a line editor of several lines with history, completion, a toolbar and an external editor.

Prompt_toolkit is imported when an editor is made, so that this module costs nothing.
"""

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.cli.chat.commands import QUOTES, is_open, unquoted
from owm.cli.chat.completion import Facts
from owm.cli.chat.history import HistoryFile, whole
from owm.cli.chat.toolbar import Status, toolbar_text
from owm.cli.look import Look
from owm.cli.terminal import visible
from owm.errors import OwmError

if TYPE_CHECKING:
    from prompt_toolkit.application import Application
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.layout import Layout
    from prompt_toolkit.output import Output


class Editor:
    """One for a whole chat; to be used from the main thread, but for `note` and `refresh`.

    Attributes:
        is_multi: Enter begins a new line, and Alt-Enter (or Ctrl-D at the end) sends.
        is_elsewhere: the external editor is open.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        history: Path | None,
        status: Callable[[], Status],
        look: Look,
        is_multi: bool = False,
        keys: "Input | None" = None,
        screen: "Output | None" = None,
    ) -> None:
        """Make an editor; nothing is drawn and nothing read yet.

        Args:
            history: the file of what was typed; None to keep nothing beyond this editor.
            status: asked whenever the toolbar is drawn.
            keys, screen: where typing comes from and where it is shown; None for the terminal.
        """
        from prompt_toolkit.buffer import Buffer

        from owm.cli.chat.bridges import Offers, Typed
        from owm.cli.chat.keys import keys_of
        from owm.cli.chat.layout import layout_of

        self.is_multi = is_multi
        self.is_elsewhere = False
        self._status = status
        self._look = look
        self._is_terminal = keys is None
        self._keys = keys or _terminal_input()
        self._screen = screen or _terminal_output()
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self._history = Typed(HistoryFile(history), self.note)
        completer = Offers(facts)
        self._text = Buffer(completer=completer, history=self._history, multiline=True)
        layout = layout_of(self._text, Buffer(), self._toolbar)
        bindings = keys_of(self._text, completer, self, self._write_elsewhere, self._history.hold)
        self._app: Application[str] = self._application(layout, bindings)

    def read(self, *, text: str = "") -> str:
        '''Read a prompt or a command, never blank; `text` is there to begin with.

        What was typed in `"""` comes without them and is never a command for `parse`. Halves of characters, as a
        terminal of another encoding sends them, become replacement characters.

        Raises:
            EOFError: Ctrl-D with nothing typed, or the terminal is gone.
            KeyboardInterrupt: Ctrl-C with nothing typed.
        '''
        from prompt_toolkit.document import Document

        self._write_notes()
        self._text.reset(Document(text))
        return unquoted(whole(self._run(self._app)))

    def choose(self, question: str, answers: Mapping[str, str]) -> str | None:
        """Ask a question until it is answered; return which of `answers` (as typed -> what it means) it is.

        What was typed before the question came is no answer to it; the next `read` finds that.

        Returns:
            None for Ctrl-C and Ctrl-D.
        """
        from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead

        from owm.cli.chat.choice import choice

        self._write_notes()
        early = []
        if self._is_terminal:
            early = get_typeahead(self._keys)
            with self._keys.raw_mode():
                while found := self._keys.read_keys():
                    early += found
        layout, bindings = choice(question, answers)
        try:
            return self._run(self._application(layout, bindings))
        except (EOFError, KeyboardInterrupt):
            return None
        finally:
            store_typeahead(self._keys, early)

    def note(self, text: str) -> None:
        """Write a line above what is typed; while nothing is being read, before the next reading. From any thread."""
        with self._lock:
            self._notes.append(text)
        self._in_loop(self._write_notes_above)

    def refresh(self) -> None:
        """Draw the toolbar anew. From any thread."""
        self._in_loop(self._app.invalidate)

    def _application(self, layout: "Layout", bindings: "KeyBindings") -> "Application[str]":
        from prompt_toolkit.application import Application
        from prompt_toolkit.output import ColorDepth

        from owm.cli.chat.layout import style_of

        return Application(
            layout,
            style=style_of(has_color=self._look.has_color),
            include_default_pygments_style=False,
            key_bindings=bindings,
            color_depth=None if self._look.has_color else ColorDepth.DEPTH_1_BIT,
            input=self._keys,
            output=self._screen,
        )

    def _run(self, app: "Application[str]") -> str:
        """Run to the end; what fails meanwhile ends it too, instead of being printed over the screen."""
        import asyncio

        def fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception") or RuntimeError(context["message"])
            if app.future is not None and not app.future.done():
                app.exit(exception=error)

        try:
            return app.run(
                pre_run=lambda: asyncio.get_running_loop().set_exception_handler(fail), set_exception_handler=False
            )
        except BaseException:
            app.renderer.reset()  # a first drawing that failed has left its modes on
            raise

    def _toolbar(self, width: int) -> str:
        if is_open(self._text.text):
            return f"{QUOTES} ends it"[:width]
        if self.is_multi and self._text.text:
            return "Alt-Enter sends"[:width]
        return toolbar_text(self._status(), width)

    def _in_loop(self, call: Callable[[], None]) -> None:
        loop, context = self._app.loop, self._app.context
        if loop is not None and context is not None:
            try:
                loop.call_soon_threadsafe(call, context=context.copy())
            except RuntimeError:  # it has just ended
                return

    def _write_notes_above(self) -> None:
        from prompt_toolkit.application import run_in_terminal

        run_in_terminal(self._write_notes)

    def _write_notes(self) -> None:
        with self._lock:
            notes, self._notes = self._notes, []
        for note in notes:
            self._screen.write_raw(visible(note).replace("\n", "\r\n") + "\r\n")
        self._screen.flush()

    def _write_elsewhere(self) -> None:
        self._app.create_background_task(self._edit_elsewhere())

    async def _edit_elsewhere(self) -> None:
        from prompt_toolkit.application import run_in_terminal
        from prompt_toolkit.document import Document

        from owm.cli.chat.external import edit

        self.is_elsewhere = True
        try:
            text = await run_in_terminal(lambda: edit(whole(self._text.text)), in_executor=True)
        except OwmError as error:
            self.note(f"{error} ({error.hint})" if error.hint else str(error))
            return
        finally:
            self.is_elsewhere = False
        if text is None:
            self.note("the editor has failed, so nothing has changed")
            return
        self._text.save_to_undo_stack()
        self._text.document = Document(text)


def _terminal_input() -> "Input":
    from prompt_toolkit.input import create_input

    return create_input(sys.stdin)


def _terminal_output() -> "Output":
    import os

    from prompt_toolkit.output.vt100 import Vt100_Output

    output = Vt100_Output.from_pty(sys.stdout, term=os.environ.get("TERM"))
    output.enable_cpr = False
    return output
