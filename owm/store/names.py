"""Names from strangers made safe as names of files: nothing leaves its folder, nothing surprises a terminal."""

import hashlib
import re
from pathlib import PurePosixPath

from owm.errors import Damaged

MAX_COMPONENT = 120
MAX_PART_BYTES, MAX_PATH_BYTES = 255, 1024  # of a path at its source; file systems take no longer names
SHOWN = 200  # characters of a name that cannot be one


def safe_component(name: str) -> str:
    """Turn any text into one path component that every file system takes; distinct texts stay distinct."""
    cleaned = re.sub(r"[^A-Za-z0-9._+=@-]", "_", name).strip(".")
    if cleaned == name and 0 < len(name) <= MAX_COMPONENT:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return f"{cleaned[: MAX_COMPONENT - 11]}-{digest}".lstrip("-")


def safe_gguf_name(name: str) -> str:
    """Turn a file name that ends in `.gguf` into a safe one that still does."""
    return safe_component(name[: -len(".gguf")]) + ".gguf"


def safe_path(path: str) -> PurePosixPath:
    """Turn a file's path inside a repo into one of which every part is safe; a `.gguf` stays one."""
    *folders, name = PurePosixPath(path).parts
    is_gguf = name.lower().endswith(".gguf")
    return PurePosixPath(*map(safe_component, folders), safe_gguf_name(name) if is_gguf else safe_component(name))


def check_repo_path(path: str) -> str:
    """Return a path from a source's listing unchanged if it stays inside its repo.

    Raises:
        Damaged: the path is absolute, climbs out, or holds control characters.
    """
    pure = PurePosixPath(path)
    if (
        not path
        or pure.is_absolute()
        or "\\" in path
        or re.match(r"[A-Za-z]:", path)
        or any(part in ("..", ".", "") for part in path.split("/"))
        or not path.isprintable()  # control characters, and those that turn the direction of what follows
        or any(len(part.encode()) > MAX_PART_BYTES for part in pure.parts)
        or len(path.encode()) > MAX_PATH_BYTES
    ):
        raise Damaged(f"the source lists a file with an unsafe name: {path[:SHOWN]!r}{'…' * (len(path) > SHOWN)}")
    return path
