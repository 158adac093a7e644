"""The state of the terminal: kept over a chat, put back whatever happens, and quiet while an answer is written."""

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# Bracketed paste off, styles off, lines wrap, the cursor is seen.
_SANE = b"\x1b[?2004l\x1b[0m\x1b[?7h\x1b[?25h"


@contextmanager
def kept_terminal() -> Iterator[None]:
    """Put the terminal back as it was when this ends, whatever ends it: an exception, the exit, SIGTERM, SIGHUP."""
    import termios

    descriptor = _terminal()
    if descriptor is None:
        yield
        return
    before = termios.tcgetattr(descriptor)
    owner = os.getpid()

    def restore() -> None:
        if os.getpid() != owner:  # a forked child ends
            return
        with _unstopped(), suppress(OSError, termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
        with suppress(OSError, ValueError):
            if os.isatty(1):
                os.write(1, _SANE)

    atexit.register(restore)
    try:
        with _before_dying(restore):
            yield
    finally:
        restore()
        atexit.unregister(restore)


@contextmanager
def quiet_typing() -> Iterator[None]:
    """Show nothing of what is typed meanwhile; it waits in the terminal for the editor. Ctrl-C still interrupts."""
    import termios

    descriptor = _terminal()
    if descriptor is None:
        yield
        return
    before = termios.tcgetattr(descriptor)
    quiet = termios.tcgetattr(descriptor)
    # Without line mode, keys of the editor (backspace, escapes, a paste) come to it as they are.
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    quiet[3] |= termios.NOFLSH  # what was typed before Ctrl-C stays
    quiet[0] &= ~termios.ICRNL
    quiet[6][termios.VMIN], quiet[6][termios.VTIME] = 1, 0
    with _unstopped(), suppress(termios.error):
        termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with _unstopped(), suppress(OSError, termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _terminal() -> int | None:
    """Return stdin's descriptor if it is a terminal."""
    try:
        descriptor = sys.stdin.fileno()
        return descriptor if os.isatty(descriptor) else None
    except (AttributeError, OSError, ValueError):
        return None


@contextmanager
def _unstopped() -> Iterator[None]:
    """Let a program in the background set the terminal without being stopped."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _before_dying(restore: Callable[[], None]) -> Iterator[None]:
    """Call `restore` before a signal ends the process, where nobody else has a say about that signal."""

    def die(number: int, frame: FrameType | None) -> Any:
        restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    taken = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, die)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
