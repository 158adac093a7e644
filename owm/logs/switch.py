"""Where the log lies, and whether it is on."""

import os
from dataclasses import dataclass
from pathlib import Path

from owm.errors import StoreError
from owm.publishing import make_private


@dataclass(frozen=True, slots=True)
class Log:
    """The log in a folder; it is on while a file named `on` is in there. Only its owner may look into the folder."""

    folder: Path

    @property
    def path(self) -> Path:
        """Where the database is or would be."""
        return self.folder / "log.db"

    @property
    def is_on(self) -> bool:
        """Every answer is logged."""
        return os.path.exists(self._switch)  # False too where the folder may not be looked into

    def turn_on(self) -> None:
        """Log every answer from now on.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            keep_private(self.folder)
            self._switch.touch(mode=0o600)
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error.strerror or error}") from error

    def turn_off(self) -> None:
        """Log no answers any more; what is logged stays.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            self._switch.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {error.strerror or error}") from error

    @property
    def _switch(self) -> Path:
        return self.folder / "on"


def keep_private(folder: Path) -> None:
    """Have a folder that nobody else may look into."""
    make_private(folder)
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
