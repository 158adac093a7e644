"""How much of the network a download may take: what `--limit-rate` and `--jobs` say."""

from dataclasses import dataclass

from owm.errors import UsageError

MAX_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one download.

    Attributes:
        bytes_per_second: over all connections together, None for as fast as it goes.
        n_connections: that fetch parts of one file at once.
    """

    bytes_per_second: float | None = None
    n_connections: int = 4

    def __post_init__(self) -> None:
        if self.bytes_per_second is not None and not self.bytes_per_second > 0:
            raise UsageError("a rate is more than nothing", hint="`--limit-rate 10M` is ten million bytes a second")
        if not 1 <= self.n_connections <= MAX_CONNECTIONS:
            raise UsageError(f"not a number of connections: {self.n_connections}", hint=f"1 to {MAX_CONNECTIONS}")


DEFAULT = Limits()
