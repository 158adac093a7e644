"""What is to be brought: one file, what is known of it beforehand, and how long to be patient."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Digest:
    """An expected content: a plain sha256, or git's blob hash (sha1 over `blob SIZE\\0` and the content)."""

    algorithm: Literal["sha256", "git-sha1"]
    hex: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file to bring. Addresses and headers may hold a token and are kept out of every message.

    Attributes:
        headers: sent to `url`, and to mirrors on the same host; a token never goes to another host.
        mirrors: further addresses of the same file, asked when `url` fails. What comes from them has the same digest
            or, where none is known, the same strong ETag and length.
    """

    url: str = field(repr=False)
    label: str
    size_bytes: int | None = None
    digest: Digest | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    mirrors: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a transfer waits, and how often it tries again.

    Attributes:
        stall_seconds: without a byte, after which a connection counts as broken.
        max_tries: in a row that come no further than one before them.
        first_wait_seconds: before the second try, doubled for each further one.
        outage_seconds: for how long a host that has sent something may be out of reach.
    """

    connect_seconds: float
    stall_seconds: float
    max_tries: int
    first_wait_seconds: float
    max_wait_seconds: float
    outage_seconds: float

    def wait_after(self, n_tries: int) -> float:
        """Return the seconds to wait after that many failed tries in a row."""
        return min(self.first_wait_seconds * 2.0 ** min(n_tries - 1, 16), self.max_wait_seconds)
