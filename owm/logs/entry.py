"""One logged answer: what was asked of which model with which settings, and what came of it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

COLUMNS = (
    "time",
    "command",
    "model",
    "model_sha256",
    "prompt",
    "system",
    "answer",
    "reasoning",
    "settings",
    "finish_reason",
    "n_prompt",
    "n_generated",
    "n_reasoning",
    "timings",
    "owm_version",
)
JSON_COLUMNS = ("prompt", "settings", "timings")
_NO_CHARACTER = re.compile("[\ud800-\udfff]")  # halves of characters, which UTF-8 cannot write


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An answer to be logged. `prompt` is the list of turns, or a text that was sent as it is."""

    command: str
    model: str
    model_sha256: str | None
    prompt: str | Sequence[Mapping[str, Any]]
    answer: str
    settings: Mapping[str, Any]
    finish_reason: str
    n_prompt: int
    n_generated: int
    timings: Mapping[str, Any]
    system: str | None = None
    reasoning: str | None = None
    n_reasoning: int = 0
    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def row(self) -> tuple[Any, ...]:
        """Return the values of `COLUMNS`."""
        from owm import __version__

        values = {name: getattr(self, name, None) for name in COLUMNS}
        values["time"] = self.time.astimezone(UTC).isoformat(timespec="milliseconds")
        values["owm_version"] = __version__
        for name in JSON_COLUMNS:
            values[name] = json.dumps(values[name], ensure_ascii=False, default=str)
        return tuple(
            _NO_CHARACTER.sub("\ufffd", value) if isinstance(value, str) else value for value in values.values()
        )


def parse_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as a JSON object; a column that is no JSON stays the text that it is."""
    found = dict(row)
    for name in JSON_COLUMNS:
        try:
            found[name] = json.loads(found[name])
        except (TypeError, ValueError, RecursionError):
            continue
    return found


def texts_of(value: object) -> list[str]:
    """Return what is written in a prompt: the contents of its turns, without their roles."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [text for item in value for text in texts_of(item)]
    if isinstance(value, dict):
        return [text for name in ("content", "text") for text in texts_of(value.get(name))]
    return []
