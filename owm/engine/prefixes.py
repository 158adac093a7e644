"""Which beginnings of prompts are worth reading once for several: a plan over the prompts that are known now.

Prompts in the order of their tokens form a tree, whose inner nodes are beginnings that some of them have in common.
A node is taken if reading it once saves more than the copying costs.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat

LEAST_TOKENS = 8  # beyond what is shared already
LEAST_SAVED = 64  # tokens that need not be read

Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class PrefixPlan:
    """What prompts share.

    Attributes:
        splits: for each prompt, lengths of its beginnings to read apart, ascending.
        order: of the prompts (indices), in which those that share much are neighbours; else as they came.
    """

    splits: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]


def plan_prefixes(
    prompts: Sequence[Tokens], held: Collection[Tokens] = (), *, least: int = LEAST_TOKENS, piece: int | None = None
) -> PrefixPlan:
    """Find what prompts share.

    Args:
        held: beginnings that were read already and can be had for nothing.
        least: tokens that a beginning has beyond the one before it.
        piece: lengths are multiples of it.
    """
    splits = _Tree(prompts, held, max(least, LEAST_TOKENS), piece).splits()
    first: dict[tuple[int, ...], int] = {}  # the first prompt with a beginning
    places = []
    for i, (prompt, lengths) in enumerate(zip(prompts, splits, strict=True)):
        places.append((*(first.setdefault(tuple(prompt[:length]), i) for length in lengths), i))
    return PrefixPlan(tuple(splits), tuple(sorted(range(len(prompts)), key=places.__getitem__)))


class _Tree:
    """Prompts in the order of their tokens, and how much each has in common with the one before it."""

    def __init__(self, prompts: Sequence[Tokens], held: Collection[Tokens], least: int, piece: int | None) -> None:
        self._prompts = [list(prompt) for prompt in prompts]
        self._held = sorted((list(prefix) for prefix in held), key=len)
        self._least = least
        self._piece = piece
        self._sorted = sorted(range(len(prompts)), key=self._prompts.__getitem__)
        ordered = [self._prompts[i] for i in self._sorted]
        self._common = [0, *(_common(one, other) for one, other in pairwise(ordered))]

    def splits(self) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = [()] * len(self._prompts)
        everything: tuple[int, int, tuple[int, ...]] = (0, len(self._prompts), ())
        groups = [everything] if self._prompts else []  # begin, end, lengths so far
        while groups:
            begin, end, before = groups.pop()
            shared, lengths = self._shared(begin, end, before)
            if end - begin == 1:
                found[self._sorted[begin]] = lengths
                continue
            borders = [place for place in range(begin + 1, end) if self._common[place] == shared]
            groups += zip([begin, *borders], [*borders, end], repeat(lengths), strict=False)
        return found

    def _shared(self, begin: int, end: int, lengths: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Return how much a group has in common, and the lengths of its beginnings that are worth it."""
        prompt = self._prompts[self._sorted[begin]]  # the shortest comes first among those that it begins
        shared = min(self._common[begin + 1 : end], default=len(prompt))
        usable = min(shared, len(prompt) - 1)  # something has to be left that gives logits
        for prefix in self._held:
            is_longer = len(prefix) > (lengths[-1] if lengths else 0)
            if is_longer and len(prefix) <= usable and prompt[: len(prefix)] == prefix:
                lengths = (*lengths, len(prefix))
        if self._piece is not None:
            usable -= usable % self._piece
        more = usable - (lengths[-1] if lengths else 0)
        if more >= self._least and more * (end - begin - 1) >= LEAST_SAVED:
            lengths = (*lengths, usable)
        return shared, lengths


def _common(one: list[int], other: list[int]) -> int:
    """Return the length of the beginning that two prompts have in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # comparing slices is many times faster than comparing tokens
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
