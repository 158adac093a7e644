"""Lists and ranges of numbers as llama-bench takes them, and the grid of cases that they make."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from owm.bench.case import Case, Subject
from owm.engine.tuning import CACHE_TYPES, DEFAULT, Tuning
from owm.errors import UsageError

MAX_CASES = 10_000
MAX_PARALLEL = 256  # ref: llama.cpp src/llama-cparams.h, LLAMA_MAX_SEQ
# first[-last[(+|*)step]]  ref: llama.cpp tools/llama-bench/llama-bench.cpp, parse_int_range
_RANGE = re.compile(r"(-?\d{1,9})(?:-(\d{1,9})(?:([+*])(\d{1,9}))?)?")
_SWITCH = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False, "auto": None, "-1": None}


def parse_numbers(texts: Iterable[str], flag: str, *, least: int = 0, most: int | None = None) -> list[int]:
    """Read `1,2,4`, `1-8`, `512-2048+512`, `1-16*2`, and several of them, in order.

    Raises:
        UsageError: a text is none of these, has no end, or a number is below `least` or above `most`.
    """
    found: list[int] = []
    for part in (part.strip() for text in texts for part in text.split(",")):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise UsageError(
                f"{flag} takes numbers and ranges: {part or 'nothing'}", hint="such as `1,2,4`, `1-8`, `128-1024*2`"
            )
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        step, is_product = int(match[4] or 1), match[3] == "*"
        if first < least:
            raise UsageError(f"{flag} must be {least} or more: {first}")
        if most is not None and last > most:
            raise UsageError(f"{flag} must be {most} or less: {last}")
        if last < first:
            raise UsageError(f"{flag}: a range goes up: {part}")
        while first <= last:
            found.append(first)
            if len(found) > MAX_CASES:
                raise UsageError(f"{flag} has more than {MAX_CASES} values: {part}")
            following = first * step if is_product else first + step
            if following <= first and first != last:
                raise UsageError(f"{flag}: this range has no end: {part}")
            first = max(following, first + 1)
    return found


def parse_pairs(texts: Iterable[str], flag: str) -> list[tuple[int, int]]:
    """Read `512,128`, once or several times.

    Raises:
        UsageError: a text is no pair of numbers above 0.
    """
    found = []
    for text in texts:
        match = re.fullmatch(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*", text)
        if match is None or not int(match[1]) or not int(match[2]):
            raise UsageError(
                f"{flag} takes two numbers, of prompt and answer: {text}", hint=f"such as `{flag} 512,128`"
            )
        found.append((int(match[1]), int(match[2])))
    return found


def parse_switches(texts: Iterable[str], flag: str) -> list[bool | None]:
    """Read `on,off,auto` (llama-bench's `1,0` too); None is `auto`.

    Raises:
        UsageError: a word is none of them.
    """
    words = [word.strip().lower() for text in texts for word in text.split(",")]
    for word in words:
        if word not in _SWITCH:
            raise UsageError(f"{flag} must be on, off or auto: {word or 'nothing'}")
    return [_SWITCH[word] for word in words]


def parse_types(texts: Iterable[str], flag: str) -> list[str]:
    """Read names of types of the KV cache.

    Raises:
        UsageError: a name is none of `owm.engine.tuning.CACHE_TYPES`.
    """
    words = [word.strip().lower() for text in texts for word in text.split(",")]
    for word in words:
        if word not in CACHE_TYPES:
            raise UsageError(f"{flag} must be one of {', '.join(CACHE_TYPES)}: {word or 'nothing'}")
    return words


@dataclass(frozen=True, slots=True)
class Grid:
    """Values whose combinations are measured; an empty list is what holds without that flag."""

    n_prompt: Sequence[int] = (512,)
    n_gen: Sequence[int] = (128,)
    pairs: Sequence[tuple[int, int]] = ()
    n_depth: Sequence[int] = (0,)
    n_parallel: Sequence[int] = (1,)
    n_gpu_layers: Sequence[int] = ()
    n_batch: Sequence[int] = ()
    n_ubatch: Sequence[int] = ()
    type_k: Sequence[str] = ()
    type_v: Sequence[str] = ()
    flash_attention: Sequence[bool | None] = ()
    n_threads: Sequence[int] = ()

    @property
    def varied(self) -> tuple[str, ...]:
        """Names of the settings that have more than one value."""
        return tuple(name for name in _TUNED if len(getattr(self, name)) > 1)

    def tunings(self, base: Tuning = DEFAULT) -> list[Tuning]:
        """Return the combinations of settings, in llama-bench's order; what has no value stays as in `base`.

        Raises:
            UsageError: settings contradict each other.
        """
        lists: list[list[tuple[str, Any]]] = [
            [(name, value) for value in getattr(self, name)] or [(name, getattr(base, name))] for name in _TUNED
        ]
        if (n := _length(lists)) > MAX_CASES:
            raise UsageError(f"these are {n} combinations, the most is {MAX_CASES}")
        return [replace(base, **dict(values)) for values in product(*lists)]

    def cases(self, subject: Subject, base: Tuning = DEFAULT, prompt: tuple[int, ...] = ()) -> list[Case]:
        """Return the cases of one model, in llama-bench's order.

        Args:
            prompt: a real prompt's tokens, which take the place of `n_prompt` random ones, whatever their number.

        Raises:
            UsageError: there are none, or too many of them, or settings contradict each other.
        """
        if prompt:
            n_prompts: Sequence[int] = (len(prompt),) if any(self.n_prompt) else ()
            pairs: Sequence[tuple[int, int]] = [(len(prompt), n_gen) for _, n_gen in self.pairs]
        else:
            n_prompts, pairs = self.n_prompt, self.pairs
        tests = [(n, 0) for n in n_prompts if n] + [(0, n) for n in self.n_gen if n] + list(pairs)
        if not tests:
            raise UsageError("there is nothing to measure", hint="`-p` reads tokens, `-n` makes some")
        found = [
            Case(subject, n_prompt, n_gen, n_depth, tuning, n_parallel, prompt)
            for tuning in self.tunings(base)
            for n_depth, n_parallel in product(self.n_depth, self.n_parallel)
            for n_prompt, n_gen in tests
        ]
        if len(found) > MAX_CASES:
            raise UsageError(f"these are {len(found)} cases, the most is {MAX_CASES}")
        return list(dict.fromkeys(found))


# In the order of llama-bench's loops.
_TUNED = ("n_gpu_layers", "n_batch", "n_ubatch", "type_k", "type_v", "flash_attention", "n_threads")


def _length(lists: Sequence[Sequence[Any]]) -> int:
    n = 1
    for values in lists:
        n *= len(values)
    return n
