"""What one rendering of a chat template may use: characters, items, bytes, steps and time."""

import sys
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any, TypeVar

from jinja2.utils import Namespace

from owm.engine.bounds import MAX_BYTES, MAX_CHARS, MAX_DEPTH, MAX_ITEMS, MAX_SECONDS, MAX_STEPS

T = TypeVar("T")


class LimitExceeded(Exception):
    """A template asked for more than any chat needs."""


def check(holds: bool, message: str) -> None:
    """Stop the template unless a condition holds.

    Raises:
        LimitExceeded: with `message`.
    """
    if not holds:
        raise LimitExceeded(message)


class Limits:
    """What one rendering may use. Steps, bytes and time are counted over all of it and never given back."""

    def __init__(self, n_chars: int = 0, n_items: int = 0, n_messages: int = 0) -> None:
        """Set limits for a conversation of that size."""
        self.chars = MAX_CHARS + 4 * n_chars
        self.items = MAX_ITEMS + 4 * n_items
        # A template that gathers its text message by message copies the whole once a message.
        self._bytes_left = MAX_BYTES + 4 * n_chars * (16 + n_messages)
        self._steps_left = MAX_STEPS + 100 * n_items
        # Of the processor, so that nothing depends on what else the machine does; its clock is the slower one to read.
        self._seconds = MAX_SECONDS + n_chars / 1e6
        self._began = time.thread_time()
        self._next_look = time.monotonic() + self._seconds

    def step(self) -> None:
        """Count a turn of a loop, a call or an operation."""
        self._steps_left -= 1
        check(self._steps_left >= 0, "its loops do not end")
        self.look()

    def look(self) -> None:
        """Look at the clock."""
        if time.monotonic() >= self._next_look:
            left = self._seconds - (time.thread_time() - self._began)
            check(left > 0, "it takes too long")
            self._next_look = time.monotonic() + left

    def charge(self, value: T) -> T:
        """Count what a new text or list takes; return it."""
        if isinstance(value, str):
            check(len(value) <= self.chars, "a text is too long")
            self._bytes_left -= sys.getsizeof(value)
        elif isinstance(value, list | tuple | dict):
            check(len(value) <= self.items, "a list is too long")
            self._bytes_left -= 80 * len(value)
        check(self._bytes_left >= 0, "it needs too much memory")
        return value

    def take(self, values: Iterable[Any]) -> list[Any]:
        """Turn anything iterable into a list of bounded length."""
        items = []
        for item in values:
            items.append(item)
            check(len(items) <= self.items, "a list is too long")
            self.look()
        return self.charge(items)

    def weigh(self, value: Any) -> int:
        """Count the characters that a value would have as text, and stop early: few objects can hide a giant."""
        if isinstance(value, str):
            return len(value)
        chars = items = depth = 0
        level = [value]
        while level:
            depth += 1
            self.look()
            deeper: list[Any] = []
            for item in level:
                chars += _text_length(item)
                deeper.extend(_contents(item))
                check(chars <= self.chars and items + len(deeper) <= self.items, "a value is too large")
            items += len(deeper)
            check(depth <= MAX_DEPTH, "a value is nested too deeply")
            level = deeper
        return chars

    def weighed(self, value: Any) -> Any:
        """Return a value that C code may walk through, for an iterator its items."""
        if isinstance(value, Iterator):
            value = self.take(value)
        self.weigh(value)
        return value

    def text(self, value: Any) -> str:
        """Turn a value into text."""
        if isinstance(value, str):
            return value
        self.weigh(value)
        return self.charge(str(value))

    def join(self, separator: str, parts: Sequence[str]) -> str:
        """Join texts if the result is not too long."""
        total = sum(map(len, parts)) + len(separator) * max(0, len(parts) - 1)
        check(total <= self.chars, "a text is too long")
        return self.charge(separator.join(parts))


def measure(value: Any) -> tuple[int, int]:
    """Count characters and items of what the caller gives to a template."""
    chars = items = 0
    stack = [value]
    while stack:
        item = stack.pop()
        items += 1
        chars += _text_length(item)
        stack.extend(_contents(item))
    return chars, items


def _text_length(item: Any) -> int:
    if isinstance(item, str):
        return len(item)
    return item.bit_length() // 3 + 1 if isinstance(item, int) else 24


def _contents(item: Any) -> Iterable[Any]:
    if isinstance(item, Mapping):
        return [*item.keys(), *item.values()]
    if isinstance(item, Namespace):
        return list(object.__getattribute__(item, "_Namespace__attrs").values())
    return item if isinstance(item, list | tuple | KeysView | ValuesView | ItemsView) else ()
