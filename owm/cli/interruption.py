"""Ctrl-C that comes while Python runs something from which nothing can be raised: it is not lost."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AGAIN_SECONDS = 0.01


@contextmanager
def kept_interruptions() -> Iterator[None]:
    """Send Ctrl-C once more where it ended a callback of C or a finalizer, which only print what is raised in them."""

    def rescue(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            hook(unraisable)
            return
        again = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()
        under_way.append(again)

    under_way: list[threading.Timer] = []
    hook, sys.unraisablehook = sys.unraisablehook, rescue
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for again in under_way:  # the command has ended: nothing is left to interrupt but the end itself
            again.cancel()
