"""Which settings there are, and what each may be: one table for flags, variables and the config file."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from owm.errors import UsageError

MAX_SEED = 0xFFFFFFFE  # llama.cpp takes the one above for "draw a seed"
MAX_THREADS = 512  # a test holds it equal to the one in owm.hardware.probe
# Of the KV cache; a test holds them equal to those in owm.engine.tuning.
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

Value = int | float | str


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: a number within bounds, one of some words, or any text. `unset` says what holds without a value."""

    kind: type[int] | type[float] | type[str]
    about: str
    low: float = 0
    high: float | None = None
    choices: tuple[str, ...] = ()
    unset: str = ""

    def check(self, value: object, origin: str) -> Value:
        """Return `value` as this kind.

        Raises:
            UsageError: it is of another kind or out of range; the message names `origin`.
        """
        if self.kind is str:
            return self._check_text(value, origin)
        is_whole = self.kind is int
        if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
            raise UsageError(f"{origin} must be a {'whole ' if is_whole else ''}number: {value!r}")
        if not (self.low <= value and (self.high is None or value <= self.high)):  # NaN is in no range
            is_small = is_whole and self.low == 1 and value < 1
            if is_small or self.high is None:
                least = "must be positive" if self.low == 1 else f"must be {self.low} or more"
                raise UsageError(f"{origin} {least}: {value}")
            raise UsageError(f"{origin} must be between {self.low} and {self.high}: {value}")
        return self.kind(value)

    def _check_text(self, value: object, origin: str) -> str:
        if not isinstance(value, str):
            raise UsageError(f"{origin} must be a text: {value!r}")
        if self.choices and value not in self.choices:
            near = difflib.get_close_matches(value.lower(), self.choices, n=1)
            raise UsageError(
                f"{origin} must be one of {', '.join(self.choices)}: {value}",
                hint=f"did you mean `{near[0]}`?" if near else None,
            )
        return value

    def read(self, text: str, origin: str) -> Value:
        """Return the value that `text` writes.

        Raises:
            UsageError: it writes none.
        """
        try:
            return self.check(self.kind(text), origin)
        except ValueError:
            raise UsageError(f"{origin} is not a number: {text}") from None


KEYS: dict[str, Key] = {
    "temp": Key(float, "temperature, 0 is greedy", 0, 100),
    "top_k": Key(int, "draw from the K likeliest, 0 is all", 0, 1 << 30),
    "top_p": Key(float, "draw from the likeliest that sum to P", 0, 1),
    "min_p": Key(float, "leave out what is less likely than P times the likeliest", 0, 1),
    "repeat_penalty": Key(float, "above 1, repeating is less likely", 0.01, 100),
    "repeat_last_n": Key(int, "tokens back that count as repeated, -1 is the context", -1, 1 << 30),
    "presence_penalty": Key(float, "taken off the score of what was there", -100, 100),
    "frequency_penalty": Key(float, "the same, for each time it was there", -100, 100),
    "seed": Key(int, "makes an answer repeatable", 0, MAX_SEED, unset="drawn anew for each answer"),
    "ctx_size": Key(int, "tokens in the context", 1, unset="what prompt and answer need"),
    "max_tokens": Key(int, "most tokens in the answer", 1, unset="to its own end, or the context's"),
    "threads": Key(int, "CPU threads", 1, MAX_THREADS, unset="performance cores"),
    "gpu_layers": Key(int, "layers on the GPU, -1 is all", -1, unset="as many as fit"),
    "batch_size": Key(int, "tokens in one call of llama.cpp at most", 1, 1 << 20, unset="2048"),
    "ubatch_size": Key(int, "tokens computed at once at most", 1, 1 << 20, unset="512"),
    "flash_attn": Key(str, "attention in little memory", choices=("on", "off"), unset="as llama.cpp decides"),
    "cache_type_k": Key(str, "type of the KV cache's keys", choices=CACHE_TYPES, unset="f16"),
    "cache_type_v": Key(str, "type of the KV cache's values", choices=CACHE_TYPES, unset="f16"),
    "parallel": Key(int, "rows that a batch answers at a time", 1, 256, unset="measured"),
    "system": Key(str, "system prompt", unset="none"),
    "think": Key(
        str,
        "what becomes of a thinking model's thoughts",
        choices=("show", "hide", "only", "off"),
        unset="shown on a terminal only",
    ),
    "effort": Key(str, "how hard a thinking model thinks", choices=("low", "medium", "high"), unset="the model's own"),
    "overflow": Key(
        str,
        "what a chat does when its context is full",
        choices=("ask", "compact", "drop", "error"),
        unset="ask",
    ),
}

# What depends on the machine and not on what is asked: `owm bench --tune` may choose these.
HARDWARE_KEYS = (
    "threads", "gpu_layers", "batch_size", "ubatch_size", "flash_attn", "cache_type_k", "cache_type_v", "parallel",
)  # fmt: skip


def find(name: str) -> str:
    """Return the setting that `name` means, in flag style or with underscores.

    Raises:
        UsageError: there is none; the hint suggests the nearest.
    """
    known = name.strip().lower().replace("-", "_")
    if known in KEYS:
        return known
    near = difflib.get_close_matches(known, KEYS, n=1)
    raise UsageError(
        f"no such setting: {name}",
        hint=f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(KEYS)}",
    )


def check_flags(flags: Mapping[str, Any]) -> None:
    """Refuse flags with impossible values before any work; None is a flag that was not given.

    Raises:
        UsageError: a value is of the wrong kind or out of range.
    """
    for name, value in flags.items():
        if value is not None and name in KEYS:
            KEYS[name].check(value, f"--{name.replace('_', '-')}")
