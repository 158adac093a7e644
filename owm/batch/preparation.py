"""Making requests of rows: their prompts, wishes and seeds, and how much room each needs."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from owm.batch.row import Failure, Row
from owm.engine import context
from owm.engine.answer import Answer
from owm.engine.request import Request
from owm.errors import EngineError, NotEnoughMemory, OwmError, PromptTooLong, TemplateError
from owm.hardware import probe
from owm.settings.keys import MAX_SEED

if TYPE_CHECKING:
    from owm.engine.model import Model, Prompt
    from owm.engine.wishes import Wishes

MEMORY_SHARE = 0.8  # of what is free

_CODES: tuple[tuple[type[OwmError], str], ...] = (
    (PromptTooLong, "too_long"),
    (NotEnoughMemory, "not_enough_memory"),
    (TemplateError, "template_error"),
    (EngineError, "engine_error"),
    (OwmError, "invalid_value"),
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all rows that one model answers.

    Attributes:
        model: its name in records.
        run: fingerprint of the model and all settings.
        seed: of the run, from which each row's own is made.
        n_parallel: rows at a time, None for as many as measuring finds best.
        is_deterministic: one row at a time, and each computed in a way that depends on it alone.
        is_streamed: answers are awaited in the order of the rows.
    """

    model: str
    run: str
    wishes: "Wishes"
    seed: int
    system: str | None = None
    n_parallel: int | None = None
    is_deterministic: bool = False
    is_streamed: bool = False


@dataclass(slots=True, eq=False)
class Prepared:
    """A row that is ready to run in a context of at least `n_tokens`."""

    row: Row
    request: Request
    n_tokens: int
    answer: Answer = field(default_factory=Answer)
    n_taken: int = 0  # tokens that are wholly in the answer

    @property
    def is_whole(self) -> bool:
        """No chunk is missing, as far as that can be told: a fed beginning has none of its own tokens."""
        timings = self.answer.timings
        return timings is not None and timings.n_generated == self.n_taken and not self.request.answer_prefix


def seed_of(run_seed: int, key: str) -> int:
    """Return a row's own seed, which no other row has a part in."""
    digest = hashlib.blake2b(f"{run_seed}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (MAX_SEED + 1)


class Preparation:
    """Prepares rows for one open model.

    Attributes:
        notes: sentences about prompts that the user should know, and whether each was said.
    """

    def __init__(self, model: "Model", terms: Terms) -> None:
        self.notes: dict[str, bool] = {}
        self._model = model
        self._terms = terms
        self._memory_bytes = probe.memory().total
        self._free_bytes = model.free_bytes()

    def prepare(self, row: Row) -> Prepared:
        """Make the request of a row.

        Raises:
            OwmError: there can be none.
        """
        terms = self._terms
        wishes = row.over(terms.wishes)
        if "seed" not in row.sampling:
            wishes = replace(wishes, sampling=replace(wishes.sampling, seed=seed_of(terms.seed, row.key)))
        prompt = self._prompt(row, wishes)
        for message in prompt.notes:
            self.notes.setdefault(message, False)
        n_prompt = len(prompt.tokens)
        n_beginning = len(self._model.native.continuation(wishes.answer_prefix)) if wishes.answer_prefix else 0
        n_answer = None if wishes.max_tokens is None else wishes.max_tokens + n_beginning
        # Of open length, it must not depend on how much room its neighbours have left.
        size = context.choose(
            self._model.header,
            n_prompt=n_prompt,
            max_tokens=n_answer,
            asked=wishes.n_ctx,
            weights_bytes=self._model.weights_bytes,
            memory_bytes=self._memory_bytes,
        )
        if wishes.max_tokens is None:
            n_answer = min(context.ROOM_FOR_ANSWER + n_beginning, size.n_ctx - n_prompt)
            wishes = replace(wishes, max_tokens=max(1, n_answer - n_beginning))
        n_tokens = n_prompt + (n_answer or 0)
        if self.n_fitting(n_tokens) == 0:
            raise NotEnoughMemory(
                f"the prompt's {n_prompt} tokens and {n_answer} of the answer need more memory than is free",
                needed=n_tokens * context.kv_bytes_per_token(self._model.header)
                + context.state_bytes(self._model.header),
                free=self._free_bytes,
            )
        return Prepared(row, wishes.request(prompt), n_tokens)

    def _prompt(self, row: Row, wishes: "Wishes") -> "Prompt":
        if row.prompt is not None:
            return self._model.raw_prompt(row.prompt)
        return wishes.prompt(self._model, row.messages(None if wishes.is_raw else self._terms.system))

    def n_fitting(self, n_ctx: int, *, n_shared: int = 0) -> int | None:
        """Return how many sequences of a size there is memory for, None if they take none that is known of.

        Args:
            n_shared: tokens that are kept once for all of them.
        """
        header = self._model.header
        per_token = context.kv_bytes_per_token(header)
        if not (per_sequence := per_token * n_ctx + context.state_bytes(header)):
            return None
        return max(0, int(MEMORY_SHARE * self._free_bytes) - per_token * n_shared) // per_sequence


class Refusal(OwmError):
    """A row was refused when it was read."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def failure_of(error: OwmError) -> Failure:
    """Say an error as a row's failure."""
    if isinstance(error, Refusal):
        return error.failure
    code = getattr(error, "code", None) or next(code for kind, code in _CODES if isinstance(error, kind))
    return Failure(code, str(error))
