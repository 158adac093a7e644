"""The model that answers in a conversation, with the one context it has for that, which grows as it is needed."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from owm.engine.context import DEFAULT_CONTEXT, Ceiling
from owm.engine.dialogue import Dialogue, Keeping, open_dialogue
from owm.engine.overflow import ceiling_of
from owm.engine.retained import common_length
from owm.engine.wishes import Wishes
from owm.errors import EngineError, OwmError, PromptTooLong, TemplateError, UsageError

if TYPE_CHECKING:
    from owm.engine.generate import Generation
    from owm.engine.model import Model, Prompt
    from owm.engine.template import Message

_MAX_PROMPTS = 4  # made last: whoever asks whether one fits goes on with it
_LIMITS = {"asked": "the asked-for context", "model": "the model's context", "memory": "the context that memory allows"}


class Voice:
    """Answers prompts in one context; use it from one thread at a time, but for `save`."""

    def __init__(self, model: "Model", wishes: Wishes, *, n_drafts: int = 1, keeping: Keeping | None = None) -> None:
        """Take an open model; its context is made when it is needed.

        Args:
            n_drafts: the most answers that will be made side by side.
            keeping: where what was read is kept, None to leave nothing on disk.

        Raises:
            UsageError, NotEnoughMemory: there can be no context as it is wished.
        """
        self._model = model
        self._keeping = keeping
        self._stack = ExitStack()
        self._dialogue: Dialogue | None = None
        self._prompts: OrderedDict[object, Prompt] = OrderedDict()
        self._making = threading.Lock()
        self.n_drafts = n_drafts
        self.wishes = wishes
        self.ceiling = self._ceiling(wishes)

    @property
    def n_ctx(self) -> int:
        """The tokens that there are in the context now, 0 before it is made."""
        return self._dialogue.n_ctx if self._dialogue is not None else 0

    @property
    def n_kept(self) -> int:
        """The tokens that are kept free for an answer."""
        return self.ceiling.room_for_answer(self.wishes.max_tokens)

    @property
    def limit_name(self) -> str:
        """What keeps the context from being larger, in words."""
        return _LIMITS[self.ceiling.limit]

    def set(self, wishes: Wishes) -> None:
        """Answer as wished from now on; to compute in another way the context is made anew, and empty.

        Raises:
            UsageError, NotEnoughMemory: there can be no context as it is wished; the wishes stay what they were.
        """
        before = self.wishes
        if (wishes.n_ctx, wishes.tuned) != (before.n_ctx, before.tuned):
            ceiling = self._ceiling(wishes)
            self.close()
            self.ceiling = ceiling
        self.wishes = wishes

    def prompt(self, messages: "Sequence[Message]", wishes: Wishes | None = None, *, is_open: bool = True) -> "Prompt":
        """Make the prompt of a conversation.

        Args:
            is_open: the model's turn is next; else the conversation ends as it is.

        Raises:
            TemplateError: the model's template fails.
        """
        wishes = wishes or self.wishes
        said = tuple((message["role"], message["content"]) for message in messages)
        key = (said, is_open, wishes.thinking, wishes.constraint is None, bool(wishes.answer_prefix))
        with self._making:
            if (found := self._prompts.get(key)) is not None:
                self._prompts.move_to_end(key)
                return found
            if is_open:
                found = wishes.prompt(self._model, messages)
            else:
                found = self._model.chat_prompt(messages, thinking=wishes.thinking, is_open=False)
            self._prompts[key] = found
            while len(self._prompts) > _MAX_PROMPTS:
                self._prompts.popitem(last=False)
            return found

    def history(self, messages: "Sequence[Message]") -> Sequence[int]:
        """Return what a conversation will be as the beginning of its next prompt, and a little more.

        Raises:
            TemplateError: the model's template fails.
        """
        if not messages or messages[-1]["role"] == "assistant":
            messages = [*messages, {"role": "user", "content": "…"}]
        return self.prompt(messages).tokens

    def check(self, n_prompt: int, *, n_answers: int = 1) -> None:
        """Refuse a prompt that leaves no room for its answer.

        Raises:
            PromptTooLong: it does.
        """
        n_ctx, n_kept = self.ceiling.n_ctx, self.n_kept
        if n_answers > 1:  # each needs a place for itself; it need not be as long as one alone
            n_kept = n_answers * min(n_kept, max(1, n_ctx // (4 * n_answers)))
        if n_prompt + n_kept <= n_ctx:
            return
        raise PromptTooLong(
            f"the conversation has {n_prompt} tokens with this turn, {self.limit_name} holds {n_ctx},"
            f" of which {n_kept} are kept for the answer",
            n_prompt=n_prompt,
            n_ctx=n_ctx,
            hint="nothing was cut; `/compact` summarises the oldest turns, `/undo` takes back the last one",
        )

    def answers(
        self, prompt: "Prompt", messages: "Sequence[Message]", n: int = 1, *, wishes: Wishes | None = None
    ) -> "tuple[Generation, list[int]]":
        """Begin `n` answers to a prompt; return their chunks, and their ids in order.

        Args:
            messages: what the prompt was made of.

        Raises:
            PromptTooLong: there is no room for it, also where memory gave less than was thought.
            EngineError, UsageError: it cannot be answered.
        """
        if not 0 < n <= self.n_drafts:
            raise UsageError(f"there can be 1 to {self.n_drafts} drafts: {n}")
        wishes = wishes or self.wishes
        dialogue = self.make_room(len(prompt.tokens), n)
        request = wishes.request(prompt)
        if not dialogue.can_cut:
            request = replace(request, splits=self._splits(prompt, messages, wishes))
        return dialogue.answers(request, n)

    def make_room(self, n_prompt: int, n_answers: int = 1) -> Dialogue:
        """Make a context, or a larger one, for a prompt and its answers.

        Raises:
            PromptTooLong: there can be none.
            EngineError: llama.cpp cannot make any.
        """
        self.check(n_prompt, n_answers=n_answers)
        wanted = n_prompt + n_answers * self.n_kept
        if self._dialogue is None:
            self._dialogue = self._open(wanted)
        elif wanted > self._dialogue.n_ctx and self._dialogue.n_ctx < self.ceiling.n_ctx:
            try:
                is_larger = self._dialogue.grow(min(self.ceiling.n_ctx, max(wanted, 2 * self._dialogue.n_ctx)))
            except EngineError:
                self.close()
                raise
            if not is_larger:
                self.ceiling = Ceiling(self._dialogue.n_ctx, "memory")
                self.check(n_prompt, n_answers=n_answers)
        return self._dialogue

    def prepare(self, messages: "Sequence[Message]") -> int:
        """Make the context, and bring from disk what was read of a conversation before.

        Returns:
            How many of its tokens need not be read again.

        Raises:
            EngineError: llama.cpp cannot make a context.
        """
        try:
            tokens = self.history(messages)
        except TemplateError:  # whoever asks something is told
            tokens = []
        if self._dialogue is None:
            self._dialogue = self._open(min(len(tokens) + self.n_kept, self.ceiling.n_ctx))
        return self._dialogue.prepare(tokens) if tokens else 0

    def count(self, text: str) -> int:
        """Return the tokens of a text by itself."""
        return len(self._model.native.tokenize(text, add_special=False, parse_special=False)) if text else 0

    def n_held(self, tokens: Sequence[int]) -> int:
        """Return how many tokens of a prompt need not be read."""
        return self._dialogue.n_held(tokens) if self._dialogue is not None else 0

    def held(self) -> Sequence[int]:
        """Return the tokens that are in memory."""
        return self._dialogue.longest() if self._dialogue is not None else ()

    def save(self, messages: "Sequence[Message]") -> Path | None:
        """Write a snapshot of what was read of a conversation, if there is something new; from any thread.

        Returns:
            Its path; None if there is nothing new, if an answer is being made, or if it cannot be written.
        """
        dialogue = self._dialogue
        if dialogue is None or self._keeping is None:
            return None
        try:
            return dialogue.save(self.history(messages))
        except TemplateError:
            return None
        except EngineError:  # an answer has begun, or the context is closed: there will be another time
            return None

    def close(self) -> None:
        """Free the context."""
        self._dialogue = None
        self._stack.close()

    def _ceiling(self, wishes: Wishes) -> Ceiling:
        self._model.choose_context(0, max_tokens=None, asked=wishes.n_ctx)
        return ceiling_of(self._model, wishes.n_ctx)

    def _open(self, n_wanted: int) -> Dialogue:
        most = self.ceiling.n_ctx
        n_ctx = most if self.wishes.n_ctx is not None else min(most, max(DEFAULT_CONTEXT, n_wanted))
        return self._stack.enter_context(
            open_dialogue(
                self._model,
                n_ctx,
                n_ctx_most=most,
                n_drafts=self.n_drafts,
                tuning=self.wishes.tuned,
                keeping=self._keeping,
            )
        )

    def _splits(self, prompt: "Prompt", messages: "Sequence[Message]", wishes: Wishes) -> tuple[int, ...]:
        """Return where the next prompt may part from this one: it may have the answer without its thought."""
        try:
            ended = self.prompt(messages, wishes, is_open=False).tokens
        except OwmError:
            return ()
        n = common_length(prompt.tokens, ended)
        return (n,) if 0 < n < len(prompt.tokens) else ()
