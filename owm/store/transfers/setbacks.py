"""Failures in a row: how long to wait after each, and when it has been enough."""

import time

from owm.errors import SourceUnreachable
from owm.store.transfers.transfer import Patience

PROGRESS_BYTES = 1 << 14  # a try that brought less has not come further


class Setbacks:
    """Counts the tries that came no further than one before them."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._n_tries = 0
        self._n_bytes_before = 0

    def wait_after(
        self, problem: BaseException, *, n_bytes: int, heard_at: float, n_origins: int, is_alone: bool
    ) -> float | None:
        """Count a failure; return the seconds to wait before the next try, None when there shall be none.

        Args:
            n_bytes: that have come in all.
            heard_at: when bytes came last.
            n_origins: addresses that are asked in turn.
            is_alone: no other connection is at work; otherwise it does not count.
        """
        if n_bytes - self._n_bytes_before >= PROGRESS_BYTES:
            self._n_tries = 0
        self._n_bytes_before = n_bytes
        patience = self._patience
        if not is_alone:
            return patience.first_wait_seconds
        self._n_tries += 1
        is_outage = (
            isinstance(problem, SourceUnreachable)
            and n_bytes > 0
            and time.monotonic() - heard_at < patience.outage_seconds
        )
        if self._n_tries >= patience.max_tries * n_origins and not is_outage:
            return None
        wait = patience.wait_after((self._n_tries - 1) // n_origins + 1)
        if n_origins > 1:  # the next address is asked at once, all of them after a while
            return 0.0 if self._n_tries % n_origins else wait
        asked = getattr(problem, "wait_seconds", None)
        return wait if asked is None else min(float(asked), patience.max_wait_seconds)
