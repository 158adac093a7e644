"""One connection of a download: it asks for parts, one after the other, and puts what comes where it belongs."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from owm.errors import Damaged, SourceUnreachable, TransferFailed
from owm.store.transfers.http import Head, ask, host_of, is_same_host, read_head

if TYPE_CHECKING:
    import requests

READ_BYTES = 1 << 20
FIRST_READ_BYTES = 1 << 16  # while it is not known how fast a line is
FAST_BYTES_PER_SECOND = 16e6  # from which on it is better to wait for a whole chunk than to take what is there
FAST_AFTER_BYTES = 4 << 20


@dataclass(slots=True)
class Origin:
    """An address that the file can be had from; `resolved` is where it redirected to, `is_left` whether past others."""

    url: str
    headers: Mapping[str, str]
    is_first: bool
    resolved: str | None = None
    is_left: bool = False

    @property
    def host(self) -> str:
        """The host, for messages."""
        return host_of(self.url)

    def address(self) -> tuple[str, dict[str, str]]:
        """Return the address to ask and the headers that may be sent there."""
        if self.resolved is None:
            return self.url, dict(self.headers)
        return self.resolved, {} if self.is_left else dict(self.headers)  # each of them may be a token, or hold one

    def lead(self, hops: Sequence[str]) -> None:
        """Take the last of some addresses for where the file is; whoever was led past another host gets no token."""
        self.resolved = hops[-1]
        self.is_left = not all(is_same_host(self.url, hop) for hop in hops)


@dataclass(slots=True)
class Part:
    """A range of the file: `position` is what comes next, `end` is None for the end of a file of unknown length."""

    position: int
    end: int | None


class Assembly(Protocol):
    """What a connection knows of the whole."""

    changed: threading.Condition

    def ranged(self, part: Part) -> dict[str, str]:
        """Return the headers that ask for a part."""

    def accept(self, connection: "Connection", head: Head) -> None:
        """Look at an answer before its body is taken."""

    def arrived(self, begin: int, chunk: bytes) -> None:
        """Note bytes that are in the file; `changed` is held."""

    def ended(self, part: Part) -> None:
        """Note that a body of unknown length is over."""

    def pause(self, n_bytes: int, connection: "Connection") -> None:
        """Wait where the pace or the hash asks for it."""

    def step(self, usual: int) -> int:
        """Return how many bytes to read at once."""

    def next_part(self, connection: "Connection") -> Part | None:
        """Return what to ask for next."""


class Connection:
    """A thread that fetches parts until there are none, or until something goes wrong.

    Attributes:
        is_left: nothing that it does counts any more; set with `changed` held.
        is_writing: bytes are on their way into the file.
        n_skipped: bytes at the beginning of a body that are here already.
        answered_at, heard_at: when the body began and when bytes came last, None before.
    """

    def __init__(
        self,
        assembly: Assembly,
        session: "requests.Session",
        descriptor: int,
        origin: Origin,
        part: Part,
        label: str,
        timeout: tuple[float, float],
    ) -> None:
        self.origin = origin
        self.part: Part | None = part
        self.problem: BaseException | None = None
        self.is_left = self.is_writing = self.is_done = False
        self.n_skipped = 0
        self.n_bytes = 0
        self.asked_at = time.monotonic()
        self.answered_at: float | None = None
        self.heard_at: float | None = None
        self.mark = (self.asked_at, 0)  # looked at by whoever watches
        self._assembly = assembly
        self._session = session
        self._descriptor = descriptor
        self._label = label
        self._timeout = timeout
        self._response: requests.Response | None = None
        self.thread = threading.Thread(target=self._run, name="owm-fetch", daemon=True)

    def hang_up(self) -> None:
        """Wake the thread if it waits for bytes."""
        response = self._response
        if response is not None:
            try:
                response.raw.shutdown()
            except (ValueError, RuntimeError, OSError, AttributeError):
                return  # it is over already, or the library is too old: the thread ends with its timeout

    def rate(self, now: float) -> float:
        """Return the bytes per second since the first answer."""
        return self.n_bytes / max(now - (self.answered_at or now), 1e-3)

    def _is_fast(self) -> bool:
        return self.n_bytes > FAST_AFTER_BYTES and self.rate(time.monotonic()) > FAST_BYTES_PER_SECOND

    def _run(self) -> None:
        try:
            while self.part is not None and not self.is_left:
                begin = self.part.position
                self._fetch(self.part)
                is_short = self.part.end is not None and begin < self.part.position < self.part.end
                if not is_short:  # a server may send less than it was asked for
                    self.part = self._assembly.next_part(self)
        except BaseException as error:
            self.problem = error
        with self._assembly.changed:
            self.is_done = True
            self._assembly.changed.notify_all()

    def _fetch(self, part: Part) -> None:
        self.asked_at, self.heard_at = time.monotonic(), None
        response = self._ask(part)
        with response:
            self._response = response
            try:
                head = read_head(response, self._label, self.origin.host)
                with self._assembly.changed:
                    if self.is_left:
                        return
                    self._assembly.accept(self, head)
                    if response.history:
                        self.origin.lead([*(each.url for each in response.history), response.url])
                    self.answered_at = self.answered_at or time.monotonic()
                self._take(response, part, head)
            finally:
                self._response = None

    def _ask(self, part: Part) -> "requests.Response":
        for is_last in (self.n_bytes == 0, True):
            url, headers = self.origin.address()
            try:
                return ask(self._session, url, headers | self._assembly.ranged(part), self._label, self._timeout)
            except SourceUnreachable:
                if is_last:
                    raise
                # A kept connection that the server has closed meanwhile is no failure.
        raise AssertionError("unreachable")

    def _take(self, response: "requests.Response", part: Part, head: Head) -> None:
        import urllib3

        raw = response.raw
        begin = part.position - self.n_skipped
        body_end = None if head.length is None else begin + head.length
        skipped, self.n_skipped = self.n_skipped, 0
        while not self.is_left:
            left = None if part.end is None else part.end - part.position + skipped
            if left == 0:
                break
            beyond = 1 if body_end is None else 0  # without a length, only what follows tells of too much
            is_fast = self._is_fast()
            step = self._assembly.step(READ_BYTES if is_fast else FIRST_READ_BYTES)
            try:
                chunk = (raw.read if is_fast else raw.read1)(
                    step if left is None else min(step, left + beyond), decode_content=False
                )
            except (urllib3.exceptions.HTTPError, OSError, ValueError):
                raise self._broken() from None
            self.heard_at = time.monotonic()
            if not chunk:
                if body_end is not None and part.position != body_end:
                    raise self._broken()
                if part.end is None:
                    self._assembly.ended(part)
                elif body_end is None or part.position == begin:
                    raise self._broken()
                return
            if left is not None and len(chunk) > left:
                raise Damaged(f"the server sent more bytes of {self._label} than it announced")
            if skipped:
                dropped = min(skipped, len(chunk))
                skipped -= dropped
                chunk = chunk[dropped:]
            if chunk and not self._put(part, chunk):
                return
            self._assembly.pause(len(chunk), self)
        if not self.is_left and body_end == part.end:
            try:
                raw.read(1, decode_content=False)  # sees the end, so that the connection can be used again
            except (urllib3.exceptions.HTTPError, OSError, ValueError):
                return  # all bytes are here

    def _put(self, part: Part, chunk: bytes) -> bool:
        """Write bytes where they belong; False if this connection has been left meanwhile."""
        changed = self._assembly.changed
        with changed:
            if self.is_left:
                return False
            self.is_writing = True
        try:
            _write(self._descriptor, chunk, part.position)
        except BaseException:
            with changed:
                self.is_writing = False
                changed.notify_all()
            raise
        with changed:
            self.is_writing = False
            if self.is_left:
                changed.notify_all()
                return False
            if part.end is not None:  # somebody else may have been given the end of this part
                chunk = chunk[: part.end - part.position]
            begin = part.position
            part.position += len(chunk)
            self.n_bytes += len(chunk)
            self._assembly.arrived(begin, chunk)
        return True

    def _broken(self) -> TransferFailed:
        return TransferFailed(f"the connection to {self.origin.host} broke off")


def _write(descriptor: int, chunk: bytes, position: int) -> None:
    """Write all of it: a disk that is nearly full takes a part and refuses the rest with the next call."""
    view = memoryview(chunk)
    while view:
        n_written = os.pwrite(descriptor, view, position)
        view = view[n_written:]
        position += n_written
