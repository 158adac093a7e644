"""The tokens of one decode, in llama.cpp's own arrays."""

from collections.abc import Sequence

from owm.native.binding import llama as c


class Batch:
    """Tokens for one decode, reused from call to call."""

    def __init__(self, capacity: int, n_shared: int = 1) -> None:
        """Make room for `capacity` tokens, each of which may belong to `n_shared` sequences."""
        self.capacity = capacity
        self.raw = c.llama_batch_init(capacity, 0, n_shared)
        self.n_tokens = 0
        # Reading a pointer field makes a new Python object each time: keep them.
        raw = self.raw
        self._token, self._pos, self._n_seq_id, self._logits = raw.token, raw.pos, raw.n_seq_id, raw.logits
        self._seq_id = [raw.seq_id[i] for i in range(capacity)]

    def clear(self) -> None:
        """Forget the tokens."""
        self.n_tokens = 0

    def add(self, token: int, position: int, sequence: int, *, wants_logits: bool) -> int:
        """Append a token; return its index, by which its logits are asked for."""
        i = self.n_tokens
        self._token[i] = token
        self._pos[i] = position
        self._n_seq_id[i] = 1
        self._seq_id[i][0] = sequence
        self._logits[i] = wants_logits
        self.n_tokens = i + 1
        return i

    def want_logits(self, index: int) -> None:
        """Ask for the logits after a token that was added without."""
        self._logits[index] = True

    def add_shared(self, token: int, position: int, sequences: Sequence[int], *, wants_logits: bool) -> int:
        """Append a token that is part of several sequences, in a context with one cache for all; return its index."""
        i = self.add(token, position, sequences[0], wants_logits=wants_logits)
        self._n_seq_id[i] = len(sequences)
        for place, sequence in enumerate(sequences):
            self._seq_id[i][place] = sequence
        return i

    def close(self) -> None:
        """Free the arrays."""
        c.llama_batch_free(self.raw)
