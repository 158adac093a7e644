"""Which bytes of a file are here: disjoint ranges in order, each from a first byte to one before another."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator


class Extents:
    """A set of positions, kept as ranges that neither overlap nor touch."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for begin, end in ranges:
            self.add(begin, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._begins, self._ends, strict=True)))

    @property
    def n_bytes(self) -> int:
        """Positions in the set."""
        return sum(self._ends) - sum(self._begins)

    @property
    def reach(self) -> int:
        """How far the file is here without a gap, from its beginning."""
        return self._ends[0] if self._begins and self._begins[0] == 0 else 0

    @property
    def is_contiguous(self) -> bool:
        """Whether there is nothing beyond the first gap."""
        return not self._begins or (len(self._begins) == 1 and self._begins[0] == 0)

    def add(self, begin: int, end: int) -> None:
        """Put a range into the set."""
        if begin >= end:
            return
        first = bisect_left(self._ends, begin)
        last = first
        while last < len(self._begins) and self._begins[last] <= end:
            begin, end = min(begin, self._begins[last]), max(end, self._ends[last])
            last += 1
        self._begins[first:last] = [begin]
        self._ends[first:last] = [end]

    def cut(self, position: int) -> None:
        """Remove all that lies at `position` or beyond."""
        kept = [(begin, min(end, position)) for begin, end in self if begin < position]
        self._begins = [begin for begin, _ in kept]
        self._ends = [end for _, end in kept]

    def first_gap(self, size: int | None) -> tuple[int, int | None] | None:
        """Return the first range that is not in the set, up to `size`; None if there is none."""
        begin = self.reach
        if size is not None and begin >= size:
            return None
        at = bisect_left(self._begins, begin)
        if at < len(self._begins) and self._begins[at] == 0:
            at += 1
        return begin, self._begins[at] if at < len(self._begins) else size
