"""`python -m support.pull_model REF`: the store's pull in a process of its own, one JSON object on stdout.

What the user sets in the environment (`HF_ENDPOINT`, `OWM_HOME`, a proxy, …) counts here as it does for owm itself.
"""

import argparse
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from owm.errors import OwmError
from owm.events import Advanced, Event, Finished, Warned
from owm.paths import hub_cache, owm_home
from owm.store import pull, refs
from owm.store.local import Store
from owm.store.manifest import ModelFacts
from support.facts import inspect


def main() -> int:
    """Pull, or plan only; print what came of it and how long it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("ref")
    parser.add_argument("--plan", action="store_true", help="stop after the plan")
    parser.add_argument("--limit", type=int, help="the largest file that can be written, as if the disk were full")
    parser.add_argument("--die-when", choices=("transferred", "checked"), help="kill -9 this process at that point")
    parser.add_argument("--patience", type=float, help="seconds for a source that has another after it")
    asked = parser.parse_args()
    said: list[str] = []

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def look(path: Path) -> ModelFacts:
        facts = inspect(path)
        if asked.die_when == "checked":
            die()
        return facts

    def sink(event: Event) -> None:
        if asked.die_when == "transferred" and isinstance(event, Finished):
            die()
        if isinstance(event, Warned):
            said.append(event.message)
            print("warned:", event.message, file=sys.stderr, flush=True)
        elif isinstance(event, Advanced):
            print("advanced:", event.done, file=sys.stderr, flush=True)

    began = time.monotonic()
    found: dict[str, object] = {}
    if asked.patience is not None:
        pull.FALLBACK_SECONDS = asked.patience
    if asked.limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked.limit, asked.limit))
    try:
        store = Store(owm_home(), hub_cache())
        plan = pull.plan(refs.parse(asked.ref), store, sink=sink)
        found["source"] = plan.offer.source
        found["label"] = plan.variant.label
        if not asked.plan:
            model = pull.execute(plan, store, inspect=look, sink=sink)
            found["files"] = [str(path) for path in model.files]
    except OwmError as error:
        found |= {"error": type(error).__name__, "message": str(error), "hint": error.hint}
    found |= {"warned": said, "seconds": time.monotonic() - began}
    print(json.dumps(found))
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main())
