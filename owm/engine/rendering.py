"""A chat template that nobody vouches for, run in a process of its own that can be ended.

The limits of the sandbox hold there too. What they would miss is held by the system: memory, time, and no further file
or socket. The process is believed nothing but the text it hands back, and it ends with the one that started it.
"""

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from owm.engine.bounds import HINT, MAX_CHARS, MAX_SECONDS
from owm.errors import TemplateError, TemplateRefusal

START_SECONDS = 60.0  # until it has imported what it needs, however busy the machine is
KILL_SECONDS = 2.0  # after the time that the sandbox allows itself
MAX_MESSAGE_BYTES = 4096
PIPE_BYTES = 1 << 14  # what a pipe takes though nobody reads it yet

_CHILD = ("-P", "-m", "owm.engine.rendering_child")
# Nothing else of the environment is there: it can hold tokens.
_KEPT = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ", "LANG", "LC_ALL", "LC_TIME")
_PROBLEMS = {"refusal": TemplateRefusal, "error": TemplateError}


class Rendering:
    """The process of one template. It starts at once and gets ready while its caller does something else.

    After it was ended, or died, it is started again when it is asked.
    """

    def __init__(self, source: str) -> None:
        """Start it, and let it compile the template."""
        self._source = source.encode("utf-8", "surrogatepass")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        self._is_ready = False
        self._process = process = subprocess.Popen(
            [sys.executable, *_CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            start_new_session=True,  # Ctrl-C is its caller's to handle
        )
        self._end = weakref.finalize(self, _end, process)
        self._is_told = len(self._source) <= PIPE_BYTES
        if self._is_told:
            self._send(self._source)

    def check(self) -> None:
        """Wait until the template is compiled.

        Raises:
            TemplateError: it does not compile, or its process came to an end.
        """
        with self._lock:
            self._get_ready()

    def render(self, names: Mapping[str, Any]) -> str:
        """Run the template with these names, which cross over as JSON.

        Raises:
            TemplateRefusal: the template itself refuses what it is given (`raise_exception`).
            TemplateError: it fails, exceeds a limit, or its process was ended or died.
        """
        request = json.dumps(names, default=_plain).encode()
        with self._lock:
            self._get_ready()
            with self._whole(MAX_SECONDS + len(request) / 1e6 + KILL_SECONDS):
                self._send(request)
                word, text = self._read(4 * (MAX_CHARS + 4 * len(request)))
        if word in _PROBLEMS:
            raise _PROBLEMS[word](text, hint=HINT)
        return text

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process = None
        self._end()

    def _get_ready(self) -> None:
        """Have a process that has compiled the template."""
        if self._process is None:
            self._start()
        if self._is_ready:
            return
        with self._whole(START_SECONDS):
            self._read(0)
        with self._whole(MAX_SECONDS + KILL_SECONDS):
            if not self._is_told:
                self._send(self._source)
            word, text = self._read(0)
        if word in _PROBLEMS:
            self.close()
            raise TemplateError(text, hint=HINT)
        self._is_ready = True

    def _send(self, request: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the reading says why
            self._process.stdin.write(b"%d\n%b" % (len(request), request))
            self._process.stdin.flush()

    def _read(self, max_bytes: int) -> tuple[str, str]:
        """Read a word and a text from the process, of which anything may be a lie.

        Raises:
            EOFError: they are not there, or longer than an honest answer.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout
        word, _, size = pipe.readline(64).decode("ascii", "replace").rstrip("\n").partition(" ")
        if word not in ("text", *_PROBLEMS) or not (size.isascii() and size.isdecimal()):
            raise EOFError
        if int(size) > (max_bytes if word == "text" else MAX_MESSAGE_BYTES):
            raise EOFError
        content = pipe.read(int(size))
        if len(content) < int(size):
            raise EOFError
        return word, content.decode("utf-8", "surrogatepass")

    @contextmanager
    def _whole(self, seconds: float) -> Iterator[None]:
        """End the process after that time, and if its answer does not arrive whole: the next would be taken for it.

        Raises:
            TemplateError: there is no answer.
        """
        process = self._process
        assert process is not None
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (EOFError, UnicodeDecodeError) as error:
            self.close()
            raise _stopped(process.returncode, seconds if is_late.is_set() else None) from error
        except BaseException:  # Ctrl-C
            self.close()
            raise
        finally:
            timer.cancel()


def _stopped(code: int, seconds: float | None) -> TemplateError:
    if seconds is not None:
        why = f"it did not come to an end in {seconds:.0f} s"
    elif code < 0:
        why = f"its process was ended by signal {-code}"
    else:
        why = "its process came to an end without an answer"
    return TemplateError(f"the model's chat template was stopped: {why}", hint=HINT)


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # it died with a request unread
                pipe.close()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) else str(value)
