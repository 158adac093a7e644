"""One answer as a whole, put together from its chunks."""

from typing import Any

from owm.engine.request import Chunk, Timings


class Answer:
    """An answer, as far as it is made.

    Attributes:
        finish_reason: `cancelled` until its last chunk says otherwise.
        is_thought_open: it ended inside a thought.
        logprobs: of its tokens, as JSON has them.
        n_thought: tokens of thought, where the answer was chosen and not drawn.
    """

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.finish_reason = "cancelled"
        self.hit_context_end = False
        self.is_thought_open = False
        self.logprobs: list[dict[str, Any]] = []
        self.timings: Timings | None = None
        self.n_thought = 0

    def take(self, chunk: Chunk) -> None:
        """Add what a step gave."""
        self.text += chunk.text
        self.reasoning += chunk.reasoning
        if chunk.logprobs is not None:
            self.logprobs.append(chunk.logprobs.as_json())
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason.value
            self.hit_context_end = chunk.hit_context_end
            self.timings = chunk.timings
            self.is_thought_open = chunk.is_thought_open

    @property
    def never_answered(self) -> bool:
        """It thought until there was no room left."""
        return self.finish_reason == "length" and self.is_thought_open

    def usage(self) -> dict[str, int]:
        """Token counts, under the names that other programs know."""
        t = self.timings
        prompt, completion = (t.n_prompt, t.n_generated) if t else (0, 0)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "reasoning_tokens": t.n_reasoning if t else 0,
        }
