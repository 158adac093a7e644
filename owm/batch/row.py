"""One row of a batch: what it asks, what it wishes otherwise than the others, and what stands beside its answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from owm.engine.asked import STANDING_ROLES, Turn
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.engine.wishes import Wishes

Form = Literal["plain", "chat", "completion"]  # owm's own, OpenAI's /v1/chat/completions, /v1/completions


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no answer: a short code for programs (`invalid_json`, `too_long`), a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a batch.

    Attributes:
        number: of its line (of its record in CSV), from 1.
        key: names the row in the journal: its id as a text, or `#` and the number.
        id: its `custom_id` or `id` as it was given, None if it has none.
        turns: the conversation that is to be answered.
        prompt: a text to complete without a template, instead of turns.
        sampling: what it says of `owm.engine.sampling.Sampling`, by field.
        wishes: what it says of `owm.engine.wishes.Wishes`, by field.
        extra: what passes through to the output, in order.
        digest: 16 hex digits of what the row says.
        failure: why it cannot be asked; then it has no turns.
    """

    number: int
    key: str
    id: str | int | float | None = None
    form: Form = "plain"
    turns: tuple[Turn, ...] = ()
    prompt: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    wishes: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    failure: Failure | None = None

    def messages(self, system: str | None) -> list[dict[str, Any]]:
        """Return the conversation, with the batch's system prompt unless the row has one of its own."""
        turns = [dict(turn) for turn in self.turns]
        if system is None or any(turn["role"] in STANDING_ROLES for turn in turns):
            return turns
        return [{"role": "system", "content": system}, *turns]

    def over(self, wishes: "Wishes") -> "Wishes":
        """Return what is wished of its answer: the batch's wishes, and the row's own over them.

        Raises:
            UsageError: they contradict each other.
        """
        if not (self.sampling or self.wishes):
            return wishes
        changes = dict(self.wishes)
        if (thinking := changes.get("thinking")) is not None and thinking.effort is not None:
            changes["thinking"] = replace(wishes.thinking, effort=thinking.effort)
        made = replace(wishes, **changes, sampling=replace(wishes.sampling, **self.sampling))
        if made.constraint is not None and made.stops:
            raise UsageError("an answer of a given shape ends by itself, a stop would cut it")
        return made


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a row with one model, as the journal keeps it and the output shows it.

    Attributes:
        model: the name of the model, as the user knows it.
        run: fingerprint of the model's bytes and of all settings, 16 hex digits.
        answer: `text`, `reasoning`, `finish_reason`, `usage`, `seed` (None if nothing was drawn), `logprobs`; None for
            a failed row.
    """

    number: int
    key: str
    id: str | int | float | None
    form: Form
    digest: str
    model: str
    run: str
    extra: Mapping[str, Any]
    answer: Mapping[str, Any] | None = None
    failure: Failure | None = None
