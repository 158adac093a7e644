"""`python -m support.render_all FILE`: render each template of a JSON list, each in a fork; one JSON list on stdout.

Each is a fork of this small process, so its peak memory is its own, and limits of the system end what ours do not.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from owm.engine import limits
from owm.engine.template import ChatTemplate
from owm.errors import OwmError

MESSAGES = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "Why is the sky blue?"},
]
CPU_SECONDS, ADDRESS_BYTES = 10, 4 << 30
limits.MAX_SECONDS = 0.25  # a quarter of what they have, to save time


def main() -> None:
    """Render all, say what came of each."""
    ChatTemplate("{{ strftime_now('%Y') }}{{ messages|tojson }}", is_trusted=True).render(
        MESSAGES
    )  # import what is imported late
    print(json.dumps([_render_in_fork(source) for source in json.loads(Path(sys.argv[1]).read_text("utf-8"))]))


def _render_in_fork(source: str) -> dict[str, Any]:
    """Return `text` or `error` (its type) and `message`, its processor `seconds`, and by how many `bytes` it grew."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as answer:
            json.dump(_render(source), answer)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    return (
        json.loads(text) if text else {"error": f"ended with status {status}", "message": "", "seconds": 0, "bytes": 0}
    )


def _render(source: str) -> dict[str, Any]:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    before, began = _peak_bytes(), time.thread_time()
    found: dict[str, Any] = {}
    try:
        found["text"] = ChatTemplate(source, bos="<s>", eos="</s>", is_trusted=True).render(MESSAGES)[:1000]
    except OwmError as error:
        found |= {"error": type(error).__name__, "message": str(error), "hint": error.hint}
    except BaseException as error:
        found |= {"error": f"not caught: {type(error).__name__}", "message": str(error)[:300]}
    return found | {"seconds": time.thread_time() - began, "bytes": _peak_bytes() - before}


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
