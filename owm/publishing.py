"""Publishing files: whoever reads one, also after a crash or a power cut, finds the old content or the new."""

import os
from pathlib import Path


def publish_text(path: Path, text: str) -> None:
    """Write a small file so that a reader, a crash or a power cut finds either the old or the new content."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.incomplete")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the platform can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
