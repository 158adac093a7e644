"""What the connections of a download ask for and where what they bring goes: the state that its threads share."""

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from owm.errors import Damaged, TransferFailed
from owm.events import Sink
from owm.store.limits import Limits
from owm.store.transfers.connection import Connection, Origin, Part
from owm.store.transfers.extents import Extents
from owm.store.transfers.hashing import MEMORY_BYTES, StreamHash
from owm.store.transfers.http import Changed, Head, NoRanges, is_same_host
from owm.store.transfers.ledger import Ledger
from owm.store.transfers.pace import Pace
from owm.store.transfers.setbacks import Setbacks
from owm.store.transfers.transfer import Patience, Transfer
from owm.store.transfers.watch import Watch

if TYPE_CHECKING:
    import requests

MIN_PART_BYTES = 1 << 20
PART_SECONDS = 2.0  # how long a part should take


class Intake:
    """The side of an assembly that its connections see. What changes is changed with `changed` held."""

    _descriptor: int
    _hash: StreamHash

    def __init__(
        self,
        transfer: Transfer,
        partial: Path,
        *,
        sink: Sink,
        session: "requests.Session",
        limits: Limits,
        patience: Patience,
    ) -> None:
        """Prepare a transfer."""
        self.changed = threading.Condition()
        self.size = transfer.size_bytes
        self.connections: list[Connection] = []
        self.patience = patience
        self._transfer = transfer
        self._partial = partial
        self._sink = sink
        self._session = session
        self._limits = limits
        self._pace = Pace(limits.bytes_per_second)
        self._origins = _origins(transfer)
        self.used_urls: set[str] = set()
        self._ledger = Ledger(partial, transfer.digest)
        self._setbacks = Setbacks(patience)
        self._reported = 0
        self._told_size = self.size
        self._is_over = self._is_closing = False
        self._is_parallel = self._may_be_parallel = False
        self._has_ranges = True
        self._n_allowed = 1
        self._n_fetched = 0
        self._n_changes = 0
        self._failed_at = time.monotonic()
        self._heard_at = time.monotonic()
        self._start_at = 0.0
        self._watch = Watch(self)

    # -- what connections ask ------------------------------------------------------------------------------------------

    def ranged(self, part: Part) -> dict[str, str]:
        """Return the headers that ask for a part."""
        with self.changed:
            if not self._has_ranges or (part.position == 0 and part.end in (None, self.size)):
                return {}
            is_open = part.end is None or part.end == self.size
            headers = {"Range": f"bytes={part.position}-{'' if is_open else part.end - 1}"}  # type: ignore[operator]
            if self._ledger.validator is not None and self._transfer.digest is None:
                headers["If-Range"] = self._ledger.validator
            return headers

    def accept(self, connection: Connection, head: Head) -> None:
        """Look at an answer before its body is taken; `changed` is held."""
        part, origin, label = connection.part, connection.origin, self._transfer.label
        assert part is not None
        is_vouched = self._transfer.digest is not None
        is_mirror = not origin.is_first and self._ledger.validator is not None
        if not is_vouched and is_mirror and head.validator != self._ledger.validator:
            raise Damaged(f"{origin.host} has another {label}")
        if self._is_something_else(head):
            what = f"{label} should be {self.size} bytes, {origin.host} sends something else"
            raise TransferFailed(what) if origin.is_first or len(self._origins) == 1 else Damaged(what)
        if head.is_part:
            if head.begin != part.position:
                raise NoRanges(f"{origin.host} sent another part than was asked for")
            if not is_vouched and head.validator is not None and head.validator != self._ledger.validator:
                raise Changed(f"{label} has changed at {origin.host}")
        elif part.position:
            if not is_vouched and (self._ledger.validator is None or head.validator != self._ledger.validator):
                raise Changed(f"{label} has changed at {origin.host}")
            if len(self.connections) > 1:
                raise NoRanges(f"{origin.host} gives no parts of {label}")
            self._take_all_from(connection, part)
        self.used_urls.add(origin.url)
        if self.size is None:
            self.size = part.end = head.total
        elif head.total is not None and head.total != self.size:
            raise Damaged(f"{label} should be {self.size} bytes, the server has {head.total}")
        self._may_be_parallel = head.takes_ranges and self._has_ranges and self.size is not None
        if not is_vouched and head.validator != self._ledger.validator:
            self._ledger.validator = head.validator
            self._ledger.write_validator()

    def _is_something_else(self, head: Head) -> bool:
        """Tell whether a page came instead of the rest of the file: what is here must not be thrown away for it."""
        if not self._ledger.extents.n_bytes or self.size is None or head.total == self.size:
            return False
        is_told = self._transfer.digest is not None or self._transfer.size_bytes is not None
        return head.is_page or (is_told and head.total is not None)

    def _take_all_from(self, connection: Connection, part: Part) -> None:
        """Let a body that holds the whole file come: what is here is dropped from it, what lies beyond comes again."""
        connection.n_skipped = part.position
        part.end = self.size
        self._has_ranges = self._is_parallel = False
        self._n_allowed = 1
        self._hash.forget_beyond(part.position)
        self._ledger.cut(self._descriptor, part.position)

    def arrived(self, begin: int, chunk: bytes) -> None:
        """Note bytes that are in the file; `changed` is held."""
        self._ledger.extents.add(begin, begin + len(chunk))
        self._n_fetched += len(chunk)
        self._heard_at = time.monotonic()
        self._hash.give(begin, chunk, self._ledger.extents.reach)

    def ended(self, part: Part) -> None:
        """Note that a body of unknown length is over."""
        with self.changed:
            self.size = part.end = part.position
            self._is_over = True

    def pause(self, n_bytes: int, connection: Connection) -> None:
        """Wait where the pace or the hash asks for it."""
        wait = self._pace.take(n_bytes)
        until = time.monotonic() + wait
        while wait > 0 and not connection.is_left:
            time.sleep(min(wait, 0.1))
            wait = until - time.monotonic()
        while not connection.is_left and not self._hash.wait_for_room(0.1):
            connection.heard_at = time.monotonic()

    def step(self, usual: int) -> int:
        """Return how many bytes to read at once."""
        return self._pace.step(usual)

    def next_part(self, connection: Connection) -> Part | None:
        """Return what to ask for next; None lets the connection end."""
        with self.changed:
            if connection.is_left or self._is_closing or len(self.connections) > self._n_allowed:
                return None
            part = self._free_part(connection)
            if part is None and self._is_parallel:
                part = self._watch.split(connection)
            return part

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _free_part(self, connection: Connection | None = None) -> Part | None:
        """Return the first range that is neither here nor under way; `changed` is held."""
        taken = Extents(self._ledger.extents)
        for other in self.connections:
            if other is not connection and other.part is not None:
                if other.part.end is None:
                    return None
                taken.add(other.part.position, other.part.end)
        gap = taken.first_gap(self.size)
        if gap is None:
            return None
        begin, end = gap
        if self._is_parallel and end is not None:
            rate = connection.rate(time.monotonic()) if connection else 0.0
            end = min(end, begin + self._part_bytes(rate))
        return Part(begin, end)

    def _part_bytes(self, rate: float) -> int:
        n = self._limits.n_connections
        most = max(MIN_PART_BYTES, min(MEMORY_BYTES // n, (self.n_missing or 0) // (2 * n)))
        return int(min(most, max(MIN_PART_BYTES, rate * PART_SECONDS)))

    # -- what the watch looks at ---------------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """How much of the network may be taken."""
        return self._limits

    @property
    def n_missing(self) -> int | None:
        """Bytes that are still to come, None if that is not known."""
        return None if self.size is None else self.size - self._ledger.extents.n_bytes

    @property
    def is_parallel(self) -> bool:
        """Whether parts are fetched side by side."""
        return self._is_parallel

    @property
    def could_be_parallel(self) -> bool:
        """Whether the server and what is known of the file permit it."""
        return self._may_be_parallel and not self._is_parallel and self._ledger.can_resume


def _origins(transfer: Transfer) -> list[Origin]:
    origins = [Origin(transfer.url, transfer.headers, is_first=True)]
    for url in dict.fromkeys(transfer.mirrors):
        is_same = is_same_host(transfer.url, url)
        headers = transfer.headers if is_same else {}
        if url != transfer.url:
            origins.append(Origin(url, headers, is_first=False))
    return origins
