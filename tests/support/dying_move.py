"""Moves the store again and again, killed before the n-th change to the disk; then the same move is ended.

A script of its own: `STEP PLACE PLACE`; prints how many moves were killed and where the models are at last.
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

from owm.library import moving, open_store

CHANGES = (
    "open", "ctypes.dlsym", "os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.truncate",
    "os.utime", "os.chmod",
)  # fmt: skip
STORE = open_store()


def main() -> None:
    """Move to and fro until a move has no n-th change."""
    step, *places = sys.argv[1:]
    before = _hashes()
    number = n_killed = 0
    was_killed = True
    while was_killed:
        place = Path(places[n_killed % len(places)])
        was_killed = _move(place, number)
        assert _hashes() == before, f"killed before change {number}"
        if was_killed:
            assert not _move(place, sys.maxsize)
            assert _hashes() == before, f"killed before change {number}, then ended"
            n_killed += 1
        number += int(step)
    print(json.dumps({"n_killed": n_killed, "place": str(place)}))


def _move(place: Path, n_changes: int) -> bool:
    """Move in a process of its own, which dies before its next change after so many; tell whether it did."""
    child = os.fork()
    if child == 0:
        left = n_changes

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in CHANGES:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            moving.execute(moving.plan(STORE, place))
        except BaseException as error:
            print(f"{place}: {error!r}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or status == 0, "the move failed"
    return os.WIFSIGNALED(status)


def _hashes() -> dict[str, str]:
    return {
        model.name: hashlib.sha256(b"".join(path.read_bytes() for path in model.files)).hexdigest()
        for model in STORE.models()
    }


if __name__ == "__main__":
    main()
