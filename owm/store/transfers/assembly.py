"""One file being put together: which bytes are here, which connections fetch the rest, and what to do when one fails.

It begins with one connection, which a fast line needs no more than. Where the rest would take longer, connections
fetch parts side by side, the lowest first, so that the hash follows from memory. All decisions are made in one thread,
the caller's, which also tells the sink.
"""

import hashlib
import os
import time

from owm.errors import (
    AccessDenied,
    ChecksumMismatch,
    Damaged,
    ModelNotFound,
    NetworkError,
    StoreError,
    TransferFailed,
)
from owm.events import Advanced, Started, Warned
from owm.publishing import open_partial
from owm.store.transfers import note
from owm.store.transfers.connection import READ_BYTES, Connection
from owm.store.transfers.flusher import Flusher
from owm.store.transfers.hashing import Hasher, StreamHash
from owm.store.transfers.http import Busy, Changed, NoRanges
from owm.store.transfers.intake import Intake
from owm.units import format_bytes

TICK_SECONDS = 0.05
LONG_WAIT_SECONDS = 5.0  # worth a word
MAX_CHANGES = 3  # of the file at its source, during one download
GROW_SECONDS = 10.0  # without a failure, after which one more connection is tried


class Assembly(Intake):
    """One running transfer. Connections see only the `Intake` of it."""

    # -- the caller's thread -------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Bring the file; return its sha256.

        Raises:
            OSError: it cannot be written. OwmError: see `download`.
        """
        self._descriptor = open_partial(self._partial)
        self._flusher = Flusher(self._descriptor)
        try:
            self.size = self._told_size = self._ledger.take_up(self._descriptor, self.size)
            self._start_hashes()
            self._sink(Started(self._transfer.label, self.size, "bytes"))
            self._fetch_all()
            self._finish_hashes()
            os.fsync(self._descriptor)
            self._check_still_there()
        finally:
            self._close()
        return self._verify()

    def _fetch_all(self) -> None:
        while True:
            with self.changed:
                ended = [connection for connection in self.connections if connection.is_done]
                self.connections = [connection for connection in self.connections if not connection.is_done]
            self._report()
            if self._is_complete():
                return
            self._settle(ended)
            now = time.monotonic()
            self._start_connections(now)
            if self._watch.is_worth_more(now):
                self._go_parallel(now)
            for connection, problem in self._watch.hopeless(now):
                self._leave(connection)
                if problem is not None:
                    self._settle_problem(connection, problem)
            if self._is_parallel and now - self._failed_at > GROW_SECONDS:
                self._failed_at = now
                self._n_allowed = min(self._n_allowed + 1, self._limits.n_connections)
            self._write_note()
            with self.changed:
                if not any(connection.is_done for connection in self.connections):
                    self.changed.wait(TICK_SECONDS)

    def _is_complete(self) -> bool:
        with self.changed:
            return self._is_over or (self.size is not None and self._ledger.extents.reach >= self.size)

    def _report(self) -> None:
        with self.changed:
            size, done = self.size, self._ledger.extents.n_bytes
        if size != self._told_size:
            self._told_size = size
            self._sink(Started(self._transfer.label, size, "bytes"))
        if done > self._reported:
            self._reported = done
            self._sink(Advanced(self._transfer.label, done))

    def _start_connections(self, now: float) -> None:
        while now >= self._start_at:
            with self.changed:
                if len(self.connections) >= self._n_allowed:
                    return
                part = self._free_part() or (self._watch.split(None) if self._is_parallel else None)
                if part is None:
                    return
                if part.position and not self._ledger.can_resume:
                    part = None
                else:
                    origin = self._origins[0]
                    connection = Connection(
                        self,
                        self._session,
                        self._descriptor,
                        origin,
                        part,
                        self._transfer.label,
                        (self.patience.connect_seconds, self.patience.stall_seconds),
                    )
                    self.connections.append(connection)
            if part is None:
                self._start_again()  # nothing would tell if the file has changed since
                continue
            connection.thread.start()

    def _go_parallel(self, now: float) -> None:
        with self.changed:
            (first,) = self.connections
            part = first.part
            if part is None or self.size is None:
                return
            n_bytes = max(self._part_bytes(first.rate(now)), 2 * READ_BYTES)
            part.end = min(self.size, part.position + n_bytes)
            self._is_parallel = self._ledger.has_gaps = True
            self._n_allowed = self._limits.n_connections
        self._flusher.start(self._snapshot)
        self._write_note(is_due=True)  # from now on the file may have gaps

    def _settle(self, ended: list[Connection]) -> None:
        n_changes = self._n_changes
        for connection in ended:
            if self._n_changes > n_changes:
                return  # all has begun again: the others failed with what is forgotten
            if connection.problem is not None and not connection.is_left:
                self._settle_problem(connection, connection.problem)

    def _settle_problem(self, connection: Connection, problem: BaseException) -> None:
        """Decide what becomes of the download when a connection has failed."""
        self._failed_at = time.monotonic()
        if isinstance(problem, Damaged) and not connection.origin.is_first and len(self._origins) > 1:
            self._origins = [origin for origin in self._origins if origin is not connection.origin]
            return
        if isinstance(problem, (AccessDenied, ModelNotFound)):
            # A host that has answered before may only want fewer connections, or a fresh address.
            if not self._n_fetched:
                if len(self._origins) == 1:
                    raise problem
                self._origins = [origin for origin in self._origins if origin is not connection.origin]
                return
        elif not isinstance(problem, NetworkError):
            raise problem
        connection.origin.resolved = None
        if isinstance(problem, Changed):
            self._n_changes += 1
            if self._n_changes > MAX_CHANGES:
                raise TransferFailed(
                    f"{self._transfer.label} keeps changing at {connection.origin.host}",
                    hint="it may be being uploaded; try again later",
                ) from problem
            self._start_again()
        elif isinstance(problem, NoRanges):
            self._has_ranges = self._is_parallel = False
            self._n_allowed = 1
        elif self.connections:
            self._n_allowed = max(1, len(self.connections))
        wait = self._wait_after(problem)
        if self.connections and not (isinstance(problem, Busy) and problem.wait_seconds):
            return
        if wait >= LONG_WAIT_SECONDS and isinstance(problem, Busy):
            self._sink(Warned(self._transfer.label, f"{problem}, trying again in {wait:.0f} s"))
        self._start_at = time.monotonic() + wait

    def _wait_after(self, problem: BaseException) -> float:
        """Return how long to wait before the next try.

        Raises:
            TransferFailed: it was the last one.
        """
        n_origins = len(self._origins)
        wait = self._setbacks.wait_after(
            problem,
            n_bytes=self._n_fetched,
            heard_at=self._heard_at,
            n_origins=n_origins,
            is_alone=not self.connections,
        )
        if wait is None:
            if isinstance(problem, (AccessDenied, ModelNotFound)):
                raise problem
            with self.changed:
                kept = self._ledger.extents.n_bytes
            raise TransferFailed(
                f"{self._transfer.label} could not be fetched whole: {problem}",
                hint=f"{format_bytes(kept)} are kept, the same command goes on from there",
            ) from problem
        if not self.connections:
            self._origins.append(self._origins.pop(0))
        return wait

    def _leave(self, connection: Connection) -> None:
        """Give a connection up. What it is just writing is waited for: nothing comes later."""
        with self.changed:
            connection.is_left = True
            self.connections = [other for other in self.connections if other is not connection]
            connection.hang_up()
            while connection.is_writing:
                self.changed.wait(TICK_SECONDS)

    def _start_again(self) -> None:
        """Forget all that is here of the file."""
        for connection in list(self.connections):
            self._leave(connection)
        self._hash.stop()
        with self.changed:
            self._ledger.cut(self._descriptor, 0)
            self.size = self._transfer.size_bytes
            self._is_parallel = False
            self._has_ranges = True
            self._n_allowed = 1
        self._flusher.forget()
        self._start_hashes()

    def _snapshot(self) -> note.Ranges:
        with self.changed:
            return tuple(self._ledger.extents)

    def _write_note(self, *, is_due: bool = False) -> None:
        parts = self._snapshot() if self._ledger.has_gaps else ()
        self._ledger.write(time.monotonic(), self.size, self._flusher, parts, is_due=is_due)

    # -- hashes --------------------------------------------------------------------------------------------------------

    def _start_hashes(self) -> None:
        if self._ledger.has_gaps:
            self._flusher.start(self._snapshot)
        self._sha256: Hasher = hashlib.sha256()
        self._hashers: list[Hasher] = [self._sha256]
        digest = self._transfer.digest
        if digest is not None and digest.algorithm == "git-sha1":
            self._hashers.append(hashlib.sha1(b"blob %d\0" % (self.size or 0), usedforsecurity=False))
        self._hash = StreamHash(self._descriptor, self._hashers, self._ledger.extents.reach)

    def _finish_hashes(self) -> None:
        while not self._hash.wait_for(self._ledger.extents.reach, TICK_SECONDS):
            pass

    def _verify(self) -> str:
        digest = self._transfer.digest
        if digest is not None:
            actual = self._hashers[0 if digest.algorithm == "sha256" else 1].hexdigest()
            if actual != digest.hex.lower():
                raise ChecksumMismatch(
                    f"{self._transfer.label} is damaged: its {digest.algorithm} is not the published one",
                    expected=digest.hex,
                    actual=actual,
                    hint="nothing was kept; try again, and if it happens again the source or a proxy is at fault",
                )
        return self._sha256.hexdigest()

    def _check_still_there(self) -> None:
        try:
            is_there = os.path.samestat(os.stat(self._partial), os.fstat(self._descriptor))
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise StoreError(
                f"{self._partial.name} was removed while it was being fetched", hint="run the same command again"
            )

    def _close(self) -> None:
        with self.changed:
            self._is_closing = True
            connections = list(self.connections)
        for connection in connections:
            self._leave(connection)
        if hasattr(self, "_hash"):
            self._hash.stop()
        self._flusher.stop()
        try:
            if not self._is_complete():
                self._write_note(is_due=True)
        except OSError:
            pass  # a full disk: the note before it holds
        finally:
            os.close(self._descriptor)
        for connection in connections:
            connection.thread.join(0.2)  # one that looks up a name cannot be woken, and touches nothing any more
