"""Whether the disk has room, before the first byte."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from owm.errors import NotEnoughDisk
from owm.store.sources.base import Offer, RemoteFile, Source
from owm.units import format_bytes

RESERVE_BYTES = 64 << 20  # left free on the disk


def check_space(name: str, source: Source, offer: Offer, files: Sequence[RemoteFile], folder: Path) -> None:
    """Refuse a download for which the disk has no room; what is here already needs none.

    Raises:
        NotEnoughDisk: with what is needed and what is free.
    """
    if any(file.size_bytes is None for file in files):
        return
    at = source.free_space_folder(offer, folder)
    while not at.exists():
        at = at.parent
    free = shutil.disk_usage(at).free
    missing = sum(file.size_bytes or 0 for file in files) - source.partial_bytes(offer, files, folder)
    needed = missing + RESERVE_BYTES
    if missing > 0 and needed > free:
        raise NotEnoughDisk(
            f"{name} needs {format_bytes(needed)} ({format_bytes(RESERVE_BYTES)} of it to spare), "
            f"{format_bytes(free)} are free on the disk of {at}",
            needed=needed,
            free=free,
            hint="free some space, take a smaller quant, or move the store (OWM_HOME, HF_HOME)",
        )
