"""The child's side of `owm.engine.rendering`: a template is compiled, then rendered as often as it is asked.

A request is its size in bytes on a line, and the bytes: first the template, then the names of each rendering as JSON.
An answer is a word (`text`, `refusal`, `error`) and a size on a line, and the bytes.
"""

import json
import math
import sys
from collections.abc import Callable
from contextlib import suppress

from owm.engine.bounds import MAX_SECONDS
from owm.engine.program import Program
from owm.errors import TemplateError, TemplateRefusal

BASE_BYTES = 48 << 20  # what the process holds before it is asked for anything, generously
MEMORY_BYTES = 256 << 20
BYTES_PER_BYTE = 32  # a conversation as JSON, as text, as objects, and what may be made of them
SPARE_SECONDS = 3.0
_WARMING = "{{ strftime_now('%Y') }}{{ messages|tojson }}{{ '\\N{LOW LINE}' }}{{ raise_exception('') }}"


def main() -> None:
    """Serve requests from stdin until it ends."""
    import jinja2.debug  # noqa: F401 (Jinja imports it at the first error)

    with suppress(TemplateError):  # this imports what else is imported late, while files can still be opened
        Program(_WARMING).render({"messages": []})
    _shut_in()
    _say("text", "")
    if (request := _receive()) is None:
        return
    program: Program | None = None
    source = request.decode("utf-8", "surrogatepass")

    def compile_source() -> str:
        nonlocal program
        program = Program(source)
        return ""

    _answer(compile_source)
    while program is not None and (request := _receive()) is not None:
        _answer(lambda: program.render(json.loads(request)))


def _receive() -> bytes | None:
    """Read a request and allow what it needs; None at the end."""
    line = sys.stdin.buffer.readline()
    if not line:
        return None
    _allow(int(line))
    return sys.stdin.buffer.read(int(line))


def _answer(work: Callable[[], str]) -> None:
    try:
        _say("text", work())
    except TemplateRefusal as error:
        _say("refusal", str(error))
    except TemplateError as error:
        _say("error", str(error))


def _say(word: str, text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    sys.stdout.buffer.write(b"%b %d\n%b" % (word.encode(), len(content), content))
    sys.stdout.buffer.flush()


def _shut_in() -> None:
    """Let the system refuse this process new files, sockets and processes, whatever runs in it."""
    if sys.platform == "win32":
        return
    import resource

    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))


def _allow(n_bytes: int) -> None:
    """Set the memory, and the time even without a parent that looks at the clock, for a request of that size."""
    if sys.platform == "win32":
        return
    import resource

    memory = BASE_BYTES + MEMORY_BYTES + BYTES_PER_BYTE * n_bytes
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, most))
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime + MAX_SECONDS + n_bytes / 1e6 + SPARE_SECONDS
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), most))


if __name__ == "__main__":
    main()
