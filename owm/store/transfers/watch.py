"""Watching connections: when more of them are worth it, which one is hopeless, and what to take off a slow one."""

from statistics import median
from typing import TYPE_CHECKING

from owm.errors import NetworkError, TransferFailed
from owm.store.transfers.connection import READ_BYTES, Connection, Part

if TYPE_CHECKING:
    from owm.store.transfers.intake import Intake

LOOK_SECONDS = 0.15  # of the first connection, before others join it
WORTH_SECONDS = 1.0  # a rest that takes less is left to one connection
ENOUGH_BYTES_PER_SECOND = 400e6  # no line: the disk and the processor are the limit
MIN_BYTES_PER_SECOND = 512.0  # less is as good as nothing
SLOW_SHARE = 0.2  # of what the others bring
SLOW_SECONDS = 3.0  # that a slow part must still take, to be asked for again
MIN_SPLIT_BYTES = 4 * READ_BYTES  # what a connection has in hand never reaches the other half


class Watch:
    """Looks at the connections of an assembly, in the thread that makes its decisions."""

    def __init__(self, assembly: "Intake") -> None:
        self._assembly = assembly
        self._took_over_at = 0.0
        self._usual = (
            0.0  # bytes per second of a connection when there were several: the last one is held against it, once
        )

    def is_worth_more(self, now: float) -> bool:
        """Tell whether more connections would shorten what is left."""
        assembly = self._assembly
        if not assembly.could_be_parallel or assembly.limits.n_connections == 1 or len(assembly.connections) != 1:
            return False
        (connection,) = assembly.connections
        missing = assembly.n_missing
        if connection.answered_at is None or missing is None or connection.part is None:
            return False
        elapsed = now - connection.answered_at
        if elapsed < LOOK_SECONDS:
            return False
        rate = connection.rate(now)
        limit = assembly.limits.bytes_per_second
        if limit is not None and rate > 0.8 * limit:
            return False
        return rate < ENOUGH_BYTES_PER_SECOND and missing > 2 * MIN_SPLIT_BYTES and missing > rate * WORTH_SECONDS

    def hopeless(self, now: float) -> list[tuple[Connection, NetworkError | None]]:
        """Return connections to be given up; with a problem where that counts as a failure of the line."""
        patience = self._assembly.patience
        found: list[tuple[Connection, NetworkError | None]] = []
        for connection in list(self._assembly.connections):
            if connection.is_done:
                continue
            host = connection.origin.host
            if connection.heard_at is None and now - connection.asked_at > (
                patience.connect_seconds + patience.stall_seconds + 1
            ):
                found.append((connection, TransferFailed(f"{host} did not answer")))
            elif self._is_trickling(connection, now):
                found.append((connection, TransferFailed(f"{host} sends next to nothing")))
        if not found and self._assembly.is_parallel and (slow := self._slow(now)) is not None:
            self._took_over_at = now
            self._usual = 0.0
            found.append((slow, None))
        return found

    def split(self, connection: Connection | None) -> Part | None:
        """Take the second half of the part that has the most left; the assembly's lock is held."""
        longest: Part | None = None
        for other in self._assembly.connections:
            part = other.part
            if other is connection or part is None or part.end is None or other.is_done:
                continue
            if longest is None or part.end - part.position > longest.end - longest.position:  # type: ignore[operator]
                longest = part
        if longest is None or longest.end is None or longest.end - longest.position < 2 * MIN_SPLIT_BYTES:
            return None
        middle = (longest.position + longest.end) // 2
        part = Part(middle, longest.end)
        longest.end = middle
        return part

    def _is_trickling(self, connection: Connection, now: float) -> bool:
        """Look once in a while at what came since the last look."""
        since, n_bytes = connection.mark
        window = 2 * self._assembly.patience.stall_seconds
        if connection.heard_at is None or since < connection.asked_at:
            connection.mark = (now, connection.n_bytes)
            return False
        if now - since < window:
            return False
        limit = self._assembly.limits.bytes_per_second
        least = MIN_BYTES_PER_SECOND if limit is None else min(MIN_BYTES_PER_SECOND, limit / 100)
        came = connection.n_bytes - n_bytes
        connection.mark = (now, connection.n_bytes)
        return came < least * window

    def _slow(self, now: float) -> Connection | None:
        """Return a connection that holds the others up: far slower than they are, or silent."""
        assembly = self._assembly
        connections = [c for c in assembly.connections if not c.is_done and c.part is not None]
        if not connections or assembly.limits.bytes_per_second is not None:
            return None
        if now - self._took_over_at < SLOW_SECONDS:
            return None
        lag_seconds = assembly.patience.stall_seconds / 6
        rates = {id(c): c.rate(now) for c in connections}
        for connection in connections:
            part = connection.part
            heard = connection.heard_at or connection.asked_at
            others = median([rates[id(c)] for c in connections if c is not connection] or [self._usual])
            if part is None or part.end is None or others <= 0:
                continue
            if now - heard > lag_seconds and now - connection.asked_at > lag_seconds:
                return connection
            if connection.answered_at is None or now - connection.answered_at < SLOW_SECONDS:
                continue
            rate = rates[id(connection)]
            if rate < SLOW_SHARE * others and (part.end - part.position) > rate * SLOW_SECONDS:
                return connection
        if len(connections) > 1:
            self._usual = median(rates.values())
        return None
