"""The context of one conversation, which lives as long as that is on the screen: only what is new is ever read.

A prompt is the whole conversation as tokens. Going on, undoing, trying again, editing, forking and switching are all
the same here: another prompt that begins as something did which was read before, in this process or, by a snapshot, in
another one. What was read is always what the prompt says, token for token.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from owm.engine.generate import Generation, decoded
from owm.engine.growing import GrowingScheduler
from owm.engine.request import Chunk, Request
from owm.engine.retained import Retained, common_length
from owm.engine.running import Prefix
from owm.engine.snapshots import Fingerprint, Snapshots
from owm.engine.tuning import DEFAULT, Tuning
from owm.errors import EngineError
from owm.native import state
from owm.native.llama import library_build

if TYPE_CHECKING:
    from pathlib import Path

    from owm.engine.model import Model
    from owm.native.llama import Context

LEAST_GAIN = 32  # tokens: for fewer, reading them is quicker than a file
MARGIN = 64  # tokens before the end of the context, at which a larger one is made: a step can give several


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where the snapshots of a conversation are kept, and what for.

    Attributes:
        model: the sha256 of the model's files.
        label: the model's name, for people who look at the snapshots.
        adapters: the sha256 of each adapter that the model computes with and its scale, in order.
    """

    snapshots: Snapshots
    model: str
    label: str = ""
    adapters: tuple[tuple[str, float], ...] = ()


@contextmanager
def open_dialogue(
    model: "Model",
    n_ctx: int,
    *,
    n_ctx_most: int | None = None,
    n_drafts: int = 1,
    tuning: Tuning = DEFAULT,
    keeping: Keeping | None = None,
) -> Iterator["Dialogue"]:
    """Make a context of `n_ctx` tokens for one conversation.

    Args:
        n_ctx_most: what the context may grow to while an answer is made; by default it does not.
        n_drafts: the most answers that will be made side by side; they share the context's tokens.
        keeping: where snapshots are read and written, None for a conversation that leaves nothing on disk.

    Raises:
        Unsupported, UsageError, EngineError: as `Model.scheduler`.
    """
    n_shared = n_ctx if n_drafts > 1 else 0
    with model.scheduler(
        n_ctx, n_sequences=n_drafts, n_shared=n_shared, tuning=tuning, isolates_failures=True, retains=True
    ) as scheduler:
        yield Dialogue(model, scheduler, keeping, n_ctx_most=n_ctx_most)


class Dialogue:
    """Answers one prompt after the other; use it from one thread at a time, `cancel` of what it returns from any."""

    def __init__(
        self,
        model: "Model",
        scheduler: GrowingScheduler,
        keeping: Keeping | None = None,
        *,
        n_ctx_most: int | None = None,
    ) -> None:
        """Take a scheduler that retains what it reads."""
        if scheduler.retained is None:
            raise EngineError("a dialogue needs a scheduler that retains what it reads")
        self._model = model
        self._scheduler = scheduler
        self._retained: Retained = scheduler.retained
        self._keeping = keeping
        self._saved: Prefix = ()
        self._n_ctx_most = n_ctx_most or 0

    @property
    def n_ctx(self) -> int:
        """The most tokens that prompt and answer may have now."""
        return self._scheduler.n_ctx_limit

    @property
    def n_drafts(self) -> int:
        """The most answers to one prompt."""
        return self._scheduler.n_slots

    @property
    def n_decoded(self) -> int:
        """Tokens that were read or made, in all."""
        return self._scheduler.n_decoded

    @property
    def can_cut(self) -> bool:
        """The model can go back to any earlier token; others go back to the checkpoints of prompts."""
        return self._retained.can_cut

    def held(self, draft: int = 0) -> Prefix:
        """Return the tokens that are in memory, after drafts those of one of them, the numbers in no order."""
        return self._retained.held(draft)

    def longest(self) -> Prefix:
        """Return the tokens that are in memory, of drafts those of the longest."""
        return max((self.held(draft) for draft in range(self.n_drafts)), key=len)

    def n_held(self, prompt: Sequence[int]) -> int:
        """Return how many tokens of a prompt need not be read, from what is in memory."""
        return max(self._retained.usable(slot, prompt) for slot in range(self._scheduler.n_slots))

    def answer(self, request: Request) -> Generation:
        """Begin the answer to a prompt; of it, only what is new is read.

        A request may name in its `splits` beginnings to which the conversation is likely to go back: of these there are
        checkpoints for models that cannot be cut, beside the one at the end of each prompt.

        An answer that was not waited for to its end, or failed, is over with this.

        Raises:
            EngineError, UsageError: as `Scheduler.submit`.
        """
        return self.answers(request, 1)[0]

    def answers(self, request: Request, n: int) -> tuple[Generation, list[int]]:
        """Begin `n` answers to one prompt, side by side; return their chunks, and their ids in order.

        The next prompt goes on from whichever of them it has in it.

        Raises:
            EngineError, UsageError: as `Scheduler.submit_drafts`.
        """
        self._scheduler.resume()
        self.prepare(request.prompt)
        splits: tuple[int, ...] = ()
        if not self.can_cut:
            # The last token is read by itself: to try again, something has to be left that gives logits.
            splits = tuple(sorted({*request.splits, len(request.prompt) - 1}))
        request = replace(request, splits=splits)
        ids = self._scheduler.submit_drafts(request, n) if n > 1 else [self._scheduler.submit(request)]
        can_grow = n == 1 and self.n_ctx < self._n_ctx_most
        return Generation(self._scheduler, self._make_room if can_grow else None), ids

    def grow(self, n_ctx: int) -> bool:
        """Go on in a larger context with what is in memory; return whether there was room for that.

        Raises:
            EngineError: an answer is being made, or llama.cpp fails; then the dialogue is over.
        """
        with self._scheduler.pause():
            pass
        return decoded(lambda: self._grow(n_ctx), lambda: None)  # an interrupt in its midst would end the dialogue

    def prepare(self, prompt: Sequence[int]) -> int:
        """Load the snapshot, if there is one, of which a prompt has clearly more than is in memory.

        Returns:
            How many tokens of the prompt need not be read.

        Raises:
            EngineError: an answer is being made.
        """
        with self._scheduler.pause() as context:
            n_held = self.n_held(prompt)
            if self._keeping is None or len(prompt) - 1 - n_held < LEAST_GAIN:
                return n_held
            snapshots, fingerprint = self._keeping.snapshots, self._fingerprint(context, self._keeping)

            def usable(tokens: Sequence[int]) -> int:
                n = self._usable(tokens, prompt)
                return n if n >= n_held + LEAST_GAIN else 0

            while (found := snapshots.find(fingerprint, usable)) is not None:
                saved = snapshots.load(found)
                if saved is None:
                    if found.path.exists():
                        return n_held
                    continue
                if self._retained.load(0, found.tokens, saved):
                    self._saved = tuple(found.tokens)
                return self.n_held(prompt)
            return n_held

    def save(self, prompt: Sequence[int] | None = None) -> "Path | None":
        """Write a snapshot of what is in memory; callable from another thread while nothing is being answered.

        Args:
            prompt: go back first to what it has in common with what is in memory, for models that cannot be cut when
                a snapshot is loaded: the next prompt may not have the last answer as it was made.

        Returns:
            Its path, None if there is nothing new to keep or it could not be written, which `Snapshots` tells.

        Raises:
            EngineError: an answer is being made, or llama.cpp fails.
        """
        if self._keeping is None:
            return None
        with self._scheduler.pause() as context:
            slots = range(self._scheduler.n_slots)
            slot = max(slots, key=lambda slot: len(self._retained.held(slot)))
            if prompt is not None:
                slot = self._retained.best(slots, prompt)
                self._retained.end(slot, prompt[: self._retained.begin(slot, prompt)])
            tokens = self._retained.held(slot)
            if not tokens or tokens == self._saved:
                return None
            if not self._keeping.snapshots.has_room(state.state_size(context, slot)):
                return None
            saved = state.save_state(context, slot)
            fingerprint = self._fingerprint(context, self._keeping)
        path = self._keeping.snapshots.save(
            fingerprint,
            tokens,
            saved,
            label=self._keeping.label,
            replaces_beginnings=self.can_cut and not state.window(self._model.native),
        )
        if path is not None:
            self._saved = tokens
        return path

    def _make_room(self) -> list[Chunk] | None:
        """Grow where an answer comes to the end of its context; None when there is nothing more to do."""
        if self._scheduler.is_idle or self.n_ctx >= self._n_ctx_most:
            return None
        if self._scheduler.n_left <= MARGIN and not self._grow(min(2 * self.n_ctx, self._n_ctx_most)):
            self._n_ctx_most = self.n_ctx
        return []

    def _grow(self, n_ctx: int) -> bool:
        return self._scheduler.grow(n_ctx, carries=self._is_long(n_ctx) == self._is_long(self.n_ctx))

    def _is_long(self, n_ctx: int) -> bool:
        """Some models turn positions otherwise in contexts that are longer than what they were first trained for."""
        trained = self._model.header.integer("rope.scaling.original_context_length")
        return trained is not None and n_ctx > trained

    def _usable(self, tokens: Sequence[int], prompt: Sequence[int]) -> int:
        """Return how many tokens of a prompt there would be after a snapshot of `tokens` was loaded."""
        n_most = len(prompt) - 1
        if len(tokens) > self._scheduler.n_ctx_limit:
            return 0
        n = min(common_length(tokens, prompt), n_most)
        is_whole = n == len(tokens)
        if not self.can_cut:
            return n if is_whole else 0
        window = state.window(self._model.native)
        # Of a window that slides, a snapshot has no more than the last token saw.
        return n if is_whole or not window or len(tokens) - n <= 1 or len(tokens) <= window else 0

    def _fingerprint(self, context: "Context", keeping: Keeping) -> Fingerprint:
        settings = dict(context.cache_settings)
        settings["is_long"] = float(self._is_long(context.n_ctx_sequence))
        return Fingerprint(keeping.model, library_build(), tuple(settings.items()), keeping.adapters)
