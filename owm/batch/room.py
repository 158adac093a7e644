"""What context the rows at hand are answered in: its size, and what all of them begin with, if that is kept once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from owm.batch.preparation import Prepared
from owm.engine.running import Prefix

STEP_TOKENS = 256  # sizes of contexts are multiples of it in llama.cpp
LEAST_SHARED = 256  # tokens: for fewer, a copy for each sequence is computed with as quickly
USUAL_SHARE = 0.75  # of the rows that begin with something; the others get a context of their own


@dataclass(frozen=True, slots=True)
class Room:
    """A context for rows.

    Attributes:
        n_ctx: tokens of a sequence.
        shared: what all its rows begin with; it is kept once, and the sequences see the same memory.
    """

    n_ctx: int
    shared: Prefix = ()

    @property
    def n_own(self) -> int:
        """Tokens that a sequence has for itself."""
        return self.n_ctx - len(self.shared)

    def takes(self, row: Prepared) -> bool:
        """Tell whether a row can be answered here."""
        n = len(self.shared)
        request = row.request
        return row.n_tokens <= self.n_ctx and (
            not n or (n in request.splits and tuple(request.prompt[:n]) == self.shared)
        )


def room_for(rows: Sequence[Prepared], *, is_for_all: bool, can_share: bool) -> Room:
    """Choose a context for most of the rows; a few that need far more, or share nothing, are better off in another.

    Args:
        is_for_all: there is no other for the rest of them.
        can_share: sequences can see the same memory.
    """
    shared = _shared(rows, USUAL_SHARE if not is_for_all else 1.0) if can_share else ()
    sizes = [row.n_tokens for row in rows if not shared or tuple(row.request.prompt[: len(shared)]) == shared]
    largest = max(sizes)
    usual = sorted(sizes)[int(0.95 * (len(sizes) - 1))]
    size = largest if is_for_all or largest <= 2 * usual else usual
    if len(shared) < max(LEAST_SHARED, size // 4):
        shared = ()
        if len(sizes) < len(rows):
            return room_for(rows, is_for_all=is_for_all, can_share=False)
    # One memory for all sequences is as large as all that is in it, so it is not rounded for each of them.
    return Room(size if shared else -(-size // STEP_TOKENS) * STEP_TOKENS, shared)


def _shared(rows: Sequence[Prepared], share: float) -> Prefix:
    """Return the longest beginning that so many of the rows have, among those that are read apart."""
    counts = Counter(tuple(row.request.prompt[:n]) for row in rows for n in row.request.splits if n >= LEAST_SHARED)
    least = max(2, share * len(rows))
    return max((prefix for prefix, n in counts.items() if n >= least), key=len, default=())
