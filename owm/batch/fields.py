"""The fields by which a row wishes its answer otherwise than the batch: their names, and what they may be."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from owm.batch.row import Failure
from owm.engine.asked import STANDING_ROLES, Turn
from owm.engine.turns import check_turns
from owm.errors import OwmError, UsageError
from owm.settings.keys import KEYS

if TYPE_CHECKING:
    from owm.engine.template import Thinking

MAX_MESSAGE_CHARS = 500  # an error quotes what a row says, and that may be megabytes
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Refused(OwmError):
    """A row cannot be asked; `code` says why, for programs."""

    def __init__(self, code: str, message: str) -> None:
        said = message if len(message) <= MAX_MESSAGE_CHARS else f"{message[:MAX_MESSAGE_CHARS]}…"
        super().__init__(_CONTROLS.sub(" ", said))  # what is quoted may break the line, or steer a terminal
        self.code = code

    @property
    def failure(self) -> Failure:
        """The same, as the row's answer says it."""
        return Failure(self.code, str(self))


class Asking(NamedTuple):
    """What a row asks, and what it wishes, by the names of `owm.batch.row.Row`."""

    turns: tuple[Turn, ...] = ()
    prompt: str | None = None
    sampling: Mapping[str, Any] = {}
    wishes: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field's value goes, and how it is read; `read` takes it and the field's name for messages."""

    group: Literal["sampling", "wishes"]
    target: str
    read: Callable[[Any, str], Any]


def read_overrides(said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what fields of `FIELDS` say of sampling and of wishes; null says nothing.

    Raises:
        Refused: a value is wrong, or two fields contradict each other.
    """
    groups: dict[str, dict[str, Any]] = {"sampling": {}, "wishes": {}}
    origins: dict[str, str] = {}
    for name, value in said.items():
        if value is None:
            continue
        field = FIELDS[name]
        group = groups[field.group]
        if field.target == "constraint" and field.target in group:
            raise Refused("invalid_shape", f"an answer has one shape, not two: {origins[field.target]} and {name}")
        read = field.read(value, name)
        if group.setdefault(field.target, read) != read:
            raise Refused("invalid_value", f"{origins[field.target]} and {name} contradict each other")
        origins[field.target] = name
    return groups["sampling"], groups["wishes"]


def conversation(messages: Any, system: Any, name: str) -> tuple[Turn, ...]:
    """Return the turns of a row, its own system prompt first.

    Raises:
        Refused: they are none, ask nothing, or have two system prompts.
    """
    try:
        turns: tuple[Turn, ...] = check_turns(messages, name)
    except UsageError as error:
        raise Refused("invalid_messages", str(error)) from error
    last = turns[-1]
    if last["role"] == "assistant":
        raise Refused("invalid_messages", f"the last turn of {name} is the assistant's, so nothing is asked")
    if last["role"] in STANDING_ROLES or not last["content"].strip():
        raise Refused("invalid_messages", f"the last turn of {name} asks nothing")
    if system is None:
        return turns
    if any(turn["role"] in STANDING_ROLES for turn in turns):
        raise Refused("invalid_messages", f"system and a system turn in {name} are two system prompts")
    return (_system_turn(system), *turns)


def question(prompt: Any, system: Any, *, is_raw: bool, name: str = "prompt") -> Asking:
    """Return what a row with one text asks.

    Raises:
        Refused: it is no text or an empty one, or there is a system prompt without a template to put it.
    """
    if not isinstance(prompt, str):
        raise Refused("invalid_row", f"{name} must be a text")
    if not prompt or prompt.isspace():
        raise Refused("invalid_row", f"{name} is empty")
    if is_raw:
        check_template(is_raw=is_raw, given={"system": system})
        return Asking(prompt=prompt)
    turn = {"role": "user", "content": prompt}
    return Asking((turn,) if system is None else (_system_turn(system), turn))


def check_template(*, is_raw: bool, given: Mapping[str, Any]) -> None:
    """Refuse what only a chat template could send.

    Raises:
        Refused: there is such, and no template.
    """
    if is_raw:
        for name, value in given.items():
            if value is not None:
                raise Refused("invalid_row", f"--raw sends no template, so {name} has no place")


def _system_turn(system: Any) -> Turn:
    if not isinstance(system, str):
        raise Refused("invalid_value", "system must be a text")
    return {"role": "system", "content": system}


def _setting(key: str) -> Callable[[Any, str], Any]:
    setting = KEYS[key]

    def read(value: Any, name: str) -> Any:
        if setting.kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)  # 64.0 is a whole number in JSON, and what tables with gaps are written as
        try:
            return setting.check(value, name)
        except UsageError as error:
            raise Refused("invalid_value", str(error)) from error

    return read


def _is_true(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise Refused("invalid_value", f"{name} must be true or false")
    return value


def _stops(value: Any, name: str) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise Refused("invalid_value", f"{name} must be a text or a list of texts")
    if not all(stops):
        raise Refused("invalid_value", f"{name} holds an empty text, which would stop everything")
    return tuple(stops)


def read_n_logprobs(value: Any, name: str) -> int:
    """Read how many probabilities are wished at each token.

    Raises:
        Refused: it is no number, or out of range.
    """
    from owm.engine.wishes import MAX_LOGPROBS

    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_LOGPROBS:
        raise Refused("invalid_value", f"{name} must be a whole number between 0 and {MAX_LOGPROBS}: {value!r}")
    return value


def read_effort(value: Any, name: str) -> "Thinking":
    """Read how hard a model is to think.

    Raises:
        Refused: it is no such word.
    """
    from owm.engine.template import Thinking

    return Thinking(effort=_setting("effort")(value, name))


def _shape(kind: str) -> Callable[[Any, str], Any]:
    def read(value: Any, name: str) -> Any:
        from owm.batch.shape import read_shape

        return read_shape(kind, value, name)

    return read


SAMPLED = (
    *("temp", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n"),
    *("presence_penalty", "frequency_penalty", "seed"),
)
FIELDS: dict[str, Field] = {
    **{name: Field("sampling", name, _setting(name)) for name in SAMPLED},
    "temperature": Field("sampling", "temp", _setting("temp")),
    "ignore_eos": Field("sampling", "ignore_eos", _is_true),
    "max_tokens": Field("wishes", "max_tokens", _setting("max_tokens")),
    "max_completion_tokens": Field("wishes", "max_tokens", _setting("max_tokens")),
    "stop": Field("wishes", "stops", _stops),
    "logprobs": Field("wishes", "n_logprobs", read_n_logprobs),
    "effort": Field("wishes", "thinking", read_effort),
    **{kind: Field("wishes", "constraint", _shape(kind)) for kind in ("schema", "choice", "regex", "grammar")},
}
