"""A folder of somebody else's, links to it where owm is about to write, and a thread that exchanges the two."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Victim:
    """A folder of somebody else's, of which nothing may change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sub").mkdir(parents=True)
        for name in ("precious", "manifest.json", "model-Q8_0.gguf", "sub/deep"):
            (folder / name).write_text(f"mine: {name}")
        self._before = self._state()

    @property
    def file(self) -> Path:
        return self.folder / "precious"

    def _state(self) -> dict[str, object]:
        return {
            str(path.relative_to(self.folder)): (path.lstat().st_mode, path.is_file() and path.read_bytes())
            for path in sorted(self.folder.rglob("*"))
        }

    def is_unharmed(self) -> bool:
        return self._state() == self._before


def plant(kind: str, path: Path, victim: Victim) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(victim.file)
    elif kind == "dangling link":
        path.symlink_to(victim.folder / "new")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "second name":
        os.link(victim.file, path)
    else:
        os.mkfifo(path)


@contextmanager
def swapping(path: Path, victim: Path) -> Iterator[None]:
    """Exchange a folder or file and a link to somebody else's, again and again."""
    stop = threading.Event()
    link, aside = path.with_name(f"{path.name}.link"), path.with_name(f"{path.name}.aside")

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):
                link.symlink_to(victim)
                os.rename(path, aside)
                os.rename(link, path)
            with suppress(OSError):
                if path.is_symlink():
                    path.unlink()
                os.rename(aside, path)
            with suppress(OSError):
                link.unlink()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
