"""How fast bytes may come: one bucket for all connections of a download."""

import threading
import time

BURST_SECONDS = 0.2  # what was not used may be caught up for that long


class Pace:
    """Keeps the sum of what is taken at a rate; None is as fast as it goes. For several threads."""

    def __init__(self, bytes_per_second: float | None) -> None:
        self.bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._paid_until = time.monotonic()

    def take(self, n_bytes: int) -> float:
        """Note bytes that have come; return the seconds to wait before more are asked for."""
        if self.bytes_per_second is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now - BURST_SECONDS) + n_bytes / self.bytes_per_second
            return max(0.0, self._paid_until - now)

    def step(self, usual: int) -> int:
        """Return how many bytes to read at once, so that a slow pace is an even one."""
        if self.bytes_per_second is None:
            return usual
        return int(max(1, min(usual, self.bytes_per_second / 20)))
