"""The log of answers: off until it is switched on, on this machine only, and never a reason for a run to fail.

Whether it is on is the existence of a file; the database is imported when there is something to write or to read.
"""

from owm import paths
from owm.errors import OwmError
from owm.logs.entry import LogEntry
from owm.logs.switch import Log

__all__ = ["Log", "LogEntry", "open_log", "record"]


def open_log() -> Log:
    """Return the log of this user; nothing is created before something is logged."""
    return Log(paths.owm_home() / "logs")


def record(*entries: LogEntry, is_forced: bool) -> str | None:
    """Log answers, together or not at all, if logging is on or `is_forced`; nothing is raised.

    Returns:
        None, or one sentence on why they are not logged.
    """
    try:
        log = open_log()
        if not entries or not (is_forced or log.is_on):
            return None
        from owm.logs import database

        database.add(log.path, entries)
    except OwmError as error:
        return f"the answer is not logged: {error}" + (f"; {error.hint}" if error.hint else "")
    except Exception as error:  # the answer is out: nothing about its log may make a failure of it
        return f"the answer is not logged: {type(error).__name__}: {error}"
    return None
