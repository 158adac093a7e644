"""Names that are offered to the shell, which puts them on its command line as they are."""

import re
from collections.abc import Iterable

# Nothing that a shell reads as anything but a letter: a name of a stranger's is typed for the user, who presses Enter.
_TYPEABLE = re.compile(r"[\w./:@+=,%][\w./:@+=,%-]*", re.ASCII)


def offered(names: Iterable[str], incomplete: str) -> list[str]:
    """Return the names that begin so, and that a shell takes as they are."""
    return [name for name in names if name.startswith(incomplete) and _TYPEABLE.fullmatch(name)]
