"""What the sequences of a context still hold after their requests have ended: where the next prompt may go on.

Attention can be cut back to any earlier token. The state of recurrent and hybrid models cannot: they go on from where
they are, or from a checkpoint. Where a window slides, what it has left behind may be gone (a state that was saved and
loaded has only the window), so cutting back takes that what the next token sees is still there.
"""

from collections.abc import Sequence

from owm.engine.checkpoints import ROOM_BYTES, Checkpoint, Checkpoints
from owm.engine.running import Prefix
from owm.native import state
from owm.native.llama import Context


class Retained:
    """Which tokens each free sequence holds, and how to make one hold the beginning of a prompt."""

    def __init__(self, context: Context, room_bytes: int = ROOM_BYTES) -> None:
        self._context = context
        self._held: dict[int, Prefix] = {}
        self._torn: set[int] = set()  # sequences of which a decode was broken off: their state is of no use
        self._checkpoints = Checkpoints(room_bytes)
        self._window = state.window(context.model)

    @property
    def can_cut(self) -> bool:
        """The model can forget the last of what it has read."""
        return not self._context.model.is_recurrent

    def held(self, slot: int) -> Prefix:
        """Return the tokens that a sequence holds."""
        return () if slot in self._torn else self._held.get(slot, ())

    def best(self, free: Sequence[int], prompt: Sequence[int]) -> int:
        """Return the sequence in which least of a prompt is to be read, the first one of several."""
        return max(free, key=lambda slot: (self.usable(slot, prompt), -slot))

    def usable(self, slot: int, prompt: Sequence[int]) -> int:
        """Return how many tokens of a prompt need not be read in a sequence; the last one always is."""
        n, checkpoint = self._find(slot, prompt)
        return len(checkpoint.tokens) if checkpoint is not None else n

    def begin(self, slot: int, prompt: Sequence[int]) -> int:
        """Make a sequence hold the longest beginning of a prompt that it can; return how many tokens that is.

        What other free sequences hold is forgotten: it would take room, and time in each step.
        """
        n, checkpoint = self._find(slot, prompt)
        is_as_it_was = n == len(self.held(slot))
        for other in [other for other in self._held if other != slot]:
            self.forget(other)
        self._held.clear()
        self._torn.clear()
        if checkpoint is not None:
            n = len(checkpoint.tokens)
            self._checkpoints.use(checkpoint)
            is_partial = not checkpoint.is_whole
            if not state.load_state(self._context, slot, checkpoint.state, is_partial=is_partial):
                return 0
        elif is_as_it_was and n:
            self.keep(slot, tuple(prompt[:n]))
            return n
        if not n or not self._context.forget(slot, n):
            self._context.forget(slot)
            return 0
        return n

    def forget(self, slot: int) -> None:
        """Empty a sequence."""
        self._held.pop(slot, None)
        self._torn.discard(slot)
        self._context.forget(slot)

    def keep(self, slot: int, tokens: Prefix) -> None:
        """Make a checkpoint of a sequence, which has read just these tokens, if the model needs such."""
        if self.can_cut or tokens in self._checkpoints:
            return
        n_whole = state.state_size(self._context, slot)
        is_whole = state.state_size(self._context, slot, is_partial=True) == n_whole
        saved = state.save_state(self._context, slot, is_partial=not is_whole)
        self._checkpoints.add(Checkpoint(tokens, saved, is_whole))

    def end(self, slot: int, tokens: Sequence[int], n_torn: int = 0) -> None:
        """Note what a sequence holds when its request has ended.

        Args:
            n_torn: so many of the tokens were in a decode that was broken off, of which llama.cpp takes back what was
                not computed, if the model can be cut.
        """
        if n_torn and not self.can_cut:
            self._torn.add(slot)
            n = len(tokens) - n_torn
        else:
            n = min(len(tokens), state.last_position(self._context, slot) + 1)
        self._held[slot] = tuple(tokens[:n])

    def load(self, slot: int, tokens: Sequence[int], saved: bytearray) -> bool:
        """Make a sequence hold these tokens, after which a state was saved; return whether that went well."""
        for other in tuple(self._held):
            self.forget(other)
        if self._window:  # what is loaded has nothing of what the window has left behind
            self._checkpoints.clear()
        if len(tokens) > self._context.n_ctx_sequence or not state.load_state(self._context, slot, saved):
            return False
        if state.last_position(self._context, slot) != len(tokens) - 1:
            self._context.forget(slot)
            return False
        self._held[slot] = tuple(tokens)
        return True

    def longest(self) -> tuple[int, Prefix]:
        """Return the sequence that holds most, and its tokens; none if nothing is held."""
        slot = max(self._held, key=lambda slot: len(self.held(slot)), default=0)
        return slot, self.held(slot)

    def move(self, context: Context, held: dict[int, Prefix], *, keeps_checkpoints: bool) -> None:
        """Go on in another context, whose sequences hold no more than is said here."""
        self._context, self._held = context, held
        self._torn.clear()
        if self._window or not keeps_checkpoints:  # where a window slides, what is loaded has nothing before it
            self._checkpoints.clear()

    def clear(self) -> None:
        """Forget everything, when all sequences are emptied."""
        self._held.clear()
        self._torn.clear()
        self._checkpoints.clear()

    def _find(self, slot: int, prompt: Sequence[int]) -> tuple[int, Checkpoint | None]:
        """Return how much of a prompt is there, and the checkpoint to go back to for it, if there has to be one."""
        tokens = self._held.get(slot, ())
        n_most = max(0, len(prompt) - 1)  # a sequence gives no logits: something has to be read
        n_common = common_length(tokens, prompt)
        n = min(n_common, n_most)
        if not self.can_cut:
            if n < len(tokens) or slot in self._torn:
                n = 0
            checkpoint = self._checkpoints.find(prompt, n_most, n_common)
            return n, checkpoint if checkpoint is not None and len(checkpoint.tokens) > n else None
        if n and n < len(tokens) and self._window:
            # The next token sees the positions after n - window.
            n_seen = max(0, n - self._window + 1)
            if not 0 <= state.first_position(self._context, slot) <= n_seen:
                return 0, None
        return n, None


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two texts begin with in common."""
    n = min(len(one), len(other))
    if tuple(one[:n]) == tuple(other[:n]):
        return n
    return next(i for i in range(n) if one[i] != other[i])
