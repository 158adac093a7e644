"""The editor of `owm chat` with a screen and a keyboard of its own: keys go in, and what a person would see is kept."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pyte
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

from owm.cli.chat.completion import Facts
from owm.cli.chat.editor import Editor
from owm.cli.chat.toolbar import Status
from owm.cli.look import Look

PATIENCE = 20.0


class _Sink:
    """What the editor takes for the terminal's stream."""

    encoding = "utf-8"

    def __init__(self, show: Callable[[str], None]) -> None:
        self.write = show

    def flush(self) -> None:
        """Do nothing: all is shown at once."""

    def isatty(self) -> bool:
        """Be a terminal."""
        return True


class Desk:
    """An editor that reads in a thread, so that the test can type, look and wait like a person.

    Attributes:
        raw: all that was written to the terminal.
    """

    def __init__(
        self,
        facts: Facts | None = None,
        *,
        history: Path | None = None,
        status: Callable[[], Status] = Status,
        columns: int = 80,
        rows: int = 24,
        has_color: bool = True,
        is_multi: bool = False,
    ) -> None:
        self.raw = ""
        self._lock = threading.Lock()
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)
        self._pipe = create_pipe_input()
        self._keys = self._pipe.__enter__()
        output = Vt100_Output(
            _Sink(self._show),  # type: ignore[arg-type]
            lambda: Size(rows=self._screen.lines, columns=self._screen.columns),
            term="xterm-256color",
            enable_cpr=False,
        )
        self.editor = Editor(
            facts or Facts(),
            history=history,
            status=status,
            look=Look(has_color=has_color),
            is_multi=is_multi,
            keys=self._keys,
            screen=output,
        )
        self._thread: threading.Thread | None = None
        self._result: str | BaseException | None = None

    def __enter__(self) -> "Desk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keys.close()
        if self._thread is not None:
            self._thread.join(PATIENCE)
        self._pipe.__exit__(kind, error, trace)

    def begin(self, action: Callable[..., str | None] | None = None, *args: Any, **options: Any) -> "Desk":
        """Let the editor read, or do something else that waits for keys, and come back when it is drawn."""

        def run() -> None:
            try:
                self._result = (action or self.editor.read)(*args, **options)
            except BaseException as error:
                self._result = error

        n_before = len(self.raw)
        self._result = None
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        self.wait_until(lambda: "\x1b[?2004h" in self.raw[n_before:] or not self._is_running())
        return self

    def type(self, keys: str | bytes) -> "Desk":
        """Press keys."""
        if isinstance(keys, str):
            self._keys.send_text(keys)
        else:
            self._keys.send_bytes(keys)
        return self

    def paste(self, text: str) -> "Desk":
        """Paste as a terminal does that tells pasting from typing."""
        return self.type(f"\x1b[200~{text}\x1b[201~")

    def end(self) -> str | None:
        """Wait for what was read; an exception is raised here."""
        assert self._thread is not None
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), f"the editor still reads:\n{self.text()}"
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def read(self, keys: str | bytes, *, text: str = "") -> str | None:
        """Begin to read, press keys, and return what was read."""
        return self.begin(text=text).type(keys).end()

    def wait_for(self, text: str) -> "Desk":
        """Wait until the screen shows a text."""
        self.wait_until(lambda: text in self.text(), text)
        return self

    def wait_until(self, is_so: Callable[[], bool], what: str = "it") -> None:
        """Wait for something to be so."""
        end = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < end, f"waited in vain for {what}:\n{self.text()}"
            time.sleep(0.002)

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        with self._lock:
            self._screen.resize(rows, columns)
        self.editor._in_loop(self.editor._app._on_resize)

    def text(self) -> str:
        """Return the screen as lines without trailing blanks."""
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def has_cursor(self) -> bool:
        """Tell whether the cursor is shown."""
        return not self._screen.cursor.hidden

    def buffer(self) -> str:
        """Return what stands in the editor."""
        return self.editor._text.text

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _show(self, text: str) -> int:
        with self._lock:
            self.raw += text
            self._stream.feed(text)
        return len(text)
