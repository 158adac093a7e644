"""`python -m support.pull_model REF [plan]`: the store's pull in a process of its own, one JSON object on stdout.

What the user would set in the environment (`HF_ENDPOINT`, `OWM_HOME`, a proxy, …) counts here as it does for owm itself.
"""

import json
import resource
import sys
import time

from support.facts import inspect

from owm.errors import OwmError
from owm.events import Advanced, Event, Warned
from owm.paths import hub_cache, owm_home
from owm.store import pull, refs
from owm.store.local import Store


def main() -> int:
    """Pull, or plan only; print what came of it and how long it took."""
    said: list[str] = []

    def sink(event: Event) -> None:
        if isinstance(event, Warned):
            said.append(event.message)
            print("warned:", event.message, file=sys.stderr, flush=True)
        elif isinstance(event, Advanced):
            print("advanced:", event.done, file=sys.stderr, flush=True)

    began = time.monotonic()
    found: dict[str, object] = {}
    if "limit" in sys.argv:
        limit = int(sys.argv[sys.argv.index("limit") + 1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        store = Store(owm_home(), hub_cache())
        plan = pull.plan(refs.parse(sys.argv[1]), store, sink=sink)
        found["source"] = plan.offer.source
        found["label"] = plan.variant.label
        if "plan" not in sys.argv:
            model = pull.execute(plan, store, inspect=inspect, sink=sink)
            found["files"] = [str(path) for path in model.files]
    except OwmError as error:
        found |= {"error": type(error).__name__, "message": str(error), "hint": error.hint}
    found |= {"warned": said, "seconds": time.monotonic() - began}
    print(json.dumps(found))
    return 1 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main())
