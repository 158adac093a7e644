"""The places of the store: where its folders lie, on which disks, and moving them to another one."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from owm import paths
from owm.events import Sink, ignore
from owm.store import moving, trees
from owm.store.moving import MovePlan

if TYPE_CHECKING:
    from owm.store.local import Store

_HUB_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of the store.

    Attributes:
        path: the well-known one; `place` is where it leads if it was moved.
        set_by: the environment variable that says so, None for the default.
        is_there: False if nothing is there yet, or its disk is not.
        unfinished: where a move that was cut off was to, or leads.
    """

    name: str
    path: Path
    place: Path
    set_by: str | None
    is_there: bool
    size_bytes: int
    free_bytes: int | None
    unfinished: Path | None = None


def places(store: "Store", environ: Mapping[str, str] | None = None) -> list[Place]:
    """Look at all places that owm writes to.

    Raises:
        StoreError: the note about an unfinished move cannot be read.
    """
    environ = os.environ if environ is None else environ
    home_by = "OWM_HOME" if environ.get("OWM_HOME") else None
    hub_by = next((name for name in _HUB_VARIABLES if environ.get(name)), None)
    found = []
    for name, path, set_by, tree in (
        ("models", store.home / "models", home_by, trees.models_of(store.home)),
        ("Hugging Face cache", store.hub, hub_by, trees.hub_of(store.home, store.hub)),
        ("owm's own files", store.home, home_by, None),
        ("settings", paths.config_home(environ), home_by, None),
    ):
        if name == "settings" and path == store.home:
            continue  # they are among owm's own files
        begun = tree.begun() if tree is not None else None
        place = Path(os.path.realpath(path))
        skipped = (store.home / "models", store.hub) if tree is None else ()
        found.append(
            Place(
                name=name,
                path=path,
                place=place,
                set_by=set_by,
                is_there=path.exists(),
                size_bytes=size_of(place, skipped),
                free_bytes=_free(place),
                unfinished=begun.target.parent if begun else None,
            )
        )
    return found


def plan(store: "Store", folder: Path, *, with_hub: bool = False) -> list[MovePlan]:
    """Look at what a move of the models (and of the Hugging Face cache) will do; see `owm.store.moving.plan_move`."""
    wanted = [trees.models_of(store.home), *([trees.hub_of(store.home, store.hub)] if with_hub else [])]
    return [moving.plan_move(tree, folder) for tree in wanted]


def execute(plans: list[MovePlan], *, sink: Sink = ignore) -> None:
    """Move what was planned, one after the other; see `owm.store.moving.execute_move`."""
    for each in plans:
        moving.execute_move(each, sink=sink)


def size_of(folder: Path, skipped: tuple[Path, ...] = ()) -> int:
    """Return the bytes of all files below a folder; a file under two names counts once, links count nothing."""
    n_bytes, seen = 0, set[tuple[int, int]]()
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(top, name) not in skipped]
        for name in files:
            try:
                status = os.lstat(os.path.join(top, name))
            except OSError:
                continue
            if (status.st_dev, status.st_ino) not in seen and not os.path.islink(os.path.join(top, name)):
                seen.add((status.st_dev, status.st_ino))
                n_bytes += status.st_size
    return n_bytes


def _free(path: Path) -> int | None:
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None
