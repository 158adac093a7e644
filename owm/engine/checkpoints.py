"""States of a sequence at earlier points, for models that cannot be cut back to them: in memory, within a limit."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from owm.engine.running import Prefix

ROOM_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state after `tokens`.

    Attributes:
        is_whole: nothing else is needed; otherwise it goes with what attention keeps of the same tokens.
    """

    tokens: Prefix
    state: bytearray
    is_whole: bool


class Checkpoints:
    """The checkpoints of one context. Where their room ends, the one that was used least lately gives way."""

    def __init__(self, room_bytes: int = ROOM_BYTES) -> None:
        self._room_bytes = room_bytes
        self._kept: OrderedDict[Prefix, Checkpoint] = OrderedDict()
        self._n_bytes = 0

    def __contains__(self, tokens: Prefix) -> bool:
        return tokens in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; the newest always stays."""
        self._drop(checkpoint.tokens)
        self._kept[checkpoint.tokens] = checkpoint
        self._n_bytes += len(checkpoint.state)
        while self._n_bytes > self._room_bytes and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def find(self, prompt: Sequence[int], n_most: int, n_kept: int) -> Checkpoint | None:
        """Return the checkpoint from which most of a prompt need not be read.

        Args:
            n_most: the most tokens that it may have.
            n_kept: so many tokens of the prompt are still there for attention.
        """
        best: Checkpoint | None = None
        for checkpoint in self._kept.values():
            n = len(checkpoint.tokens)
            if n > n_most or (best is not None and n <= len(best.tokens)):
                continue
            if (checkpoint.is_whole or n <= n_kept) and checkpoint.tokens == tuple(prompt[:n]):
                best = checkpoint
        return best

    def use(self, checkpoint: Checkpoint) -> None:
        """Note that a checkpoint was of use."""
        self._kept.move_to_end(checkpoint.tokens)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self._n_bytes = 0

    def _drop(self, tokens: Prefix) -> None:
        if (old := self._kept.pop(tokens, None)) is not None:
            self._n_bytes -= len(old.state)
