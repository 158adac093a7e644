"""One turn of a conversation, and how it stands in a line of a session's file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

ROLES = ("system", "user", "assistant")

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side said.

    Attributes:
        id: counted from 1 in the order in which turns were added.
        parent: the turn that it goes on from; None for one that begins the conversation.
        content: what the model reads, or what it wrote without its thought.
        typed: what the person typed, where `content` has more: the texts of attached files.
        attachments: the names of those files.
        model: the name under which the model was known that wrote it.
        tokens: the ids that the model drew, thought and end included, so that it is continued exactly; they mean
            something to the model of `model_sha256` only.
        usage: counts of tokens.
        seconds: how long the answer took.
    """

    id: int
    parent: int | None
    role: str
    content: str
    at: datetime
    typed: str | None = None
    attachments: tuple[str, ...] = ()
    reasoning: str | None = None
    model: str | None = None
    model_sha256: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    seconds: float | None = None
    tokens: tuple[int, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @property
    def words(self) -> str:
        """What people know the turn by: as it was typed, or what the model wrote."""
        return self.content if self.typed is None else self.typed

    def members(self) -> dict[str, Any]:
        """Return the turn as a JSON object, without what is not known of it."""
        found: dict[str, Any] = {"id": self.id, "parent": self.parent}
        for each in fields(self)[2:]:
            value = getattr(self, each.name)
            if isinstance(value, datetime):
                value = written_time(value)
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Mapping):
                value = dict(value)
            if value is not None and (value or not isinstance(value, list | dict) or each.name == "tokens"):
                found[each.name] = value
        return found


def turn_of(members: Any) -> Turn | None:
    """Return the turn of a JSON object, None if it is none; what else the object has is left aside."""
    try:
        known = {each.name: members[each.name] for each in fields(Turn) if each.name in members}
        for name in ("tokens", "attachments"):
            if known.get(name) is not None:
                known[name] = tuple(known[name])
        turn = Turn(**{**known, "at": read_time(known["at"])})
        return turn if _is_sound(turn) else None
    except (LookupError, TypeError, ValueError):
        return None


def written_time(time: datetime) -> str:
    """Write a time, in UTC and to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


def read_time(text: str) -> datetime:
    """Read a time that `written_time` wrote.

    Raises:
        ValueError: it is none.
        TypeError: it is no text.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"a time of nowhere: {text}")
    if not 1 < time.year < 9999:  # it would be none in some other zone
        raise ValueError(f"a time of no calendar: {text}")
    return time.astimezone(UTC)


def _is_sound(turn: Turn) -> bool:
    texts = (turn.typed, turn.reasoning, turn.model, turn.model_sha256, turn.finish_reason)
    return (
        type(turn.id) is int
        and turn.id > 0
        and (turn.parent is None or type(turn.parent) is int)
        and turn.role in ROLES
        and type(turn.content) is str
        and all(text is None or type(text) is str for text in texts)
        and all(type(name) is str for name in turn.attachments)
        and (turn.tokens is None or all(type(token) is int for token in turn.tokens))
        and (turn.seconds is None or type(turn.seconds) in (int, float))
        and isinstance(turn.usage, Mapping)
        and isinstance(turn.settings, Mapping)
    )
