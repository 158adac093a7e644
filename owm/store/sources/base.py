"""What a source must do: say what it offers for a reference, and bring chosen files into the store."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from owm.events import Sink
from owm.store.card import Card
from owm.store.limits import DEFAULT, Limits
from owm.store.manifest import Role
from owm.store.refs import ModelRef


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at a source, known from metadata alone; `validator` is its ETag, if nothing tells more."""

    path: str
    size_bytes: int | None = None
    sha256: str | None = None
    validator: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Extra:
    """A small file that comes along with a model, which is whole without it."""

    file: RemoteFile
    role: Role


@dataclass(frozen=True, slots=True)
class Offer:
    """What a source has for a reference. `source` and `name` say where the model lies in the store,
    `card` what its page says where there is one."""

    ref: ModelRef
    source: str
    name: str
    revision: str | None
    commit: str | None
    files: tuple[RemoteFile, ...]
    licence: str | None = None
    gated: bool = False
    extras: tuple[Extra, ...] = ()
    card: Card | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that has arrived, verified and under its final name."""

    path: Path
    size_bytes: int
    sha256: str


class Check(Protocol):
    """Looks at a whole file before it is published; raises if it must not be."""

    def __call__(self, path: Path, name: str) -> None: ...


class Source(Protocol):
    """One place that models come from."""

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """Look at headers and listings only.

        Args:
            deadline: seconds after which an unreachable source is given up.

        Raises:
            SourceUnreachable, AccessDenied, ModelNotFound.
        """

    def free_space_folder(self, offer: Offer, folder: Path) -> Path:
        """Return the folder whose disk must have room for the files."""

    def partial_bytes(self, offer: Offer, files: Sequence[RemoteFile], folder: Path) -> int:
        """Return how many of the bytes of `files` are here already."""

    def fetch(
        self,
        offer: Offer,
        files: Sequence[RemoteFile],
        folder: Path,
        *,
        check: Check,
        sink: Sink,
        limits: Limits = DEFAULT,
    ) -> list[Fetched]:
        """Bring files into `folder` (or wherever this source keeps them), verified, in the order given."""

    def read(self, offer: Offer, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
        """Read a part of a file where it is, by a ranged request; fewer bytes come only at the end of the file.

        Raises:
            SourceUnreachable, TransferFailed, AccessDenied, ModelNotFound.
            Unsupported: this source, or its server, can give whole files only.
        """
