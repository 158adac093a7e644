"""What a model's page says of it, as far as it says anything: facts of the card and of the listing, nothing guessed.

A card is written by a stranger: whatever has not the form that was expected counts as not said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_TEXT = 300
MAX_ITEMS = 50


@dataclass(frozen=True, slots=True)
class Card:
    """Facts of a card; None and empty where it says nothing.

    Attributes:
        licence: its id as the Hub writes it, `other` where `licence_name` says more.
        licence_link: where its text is, as the card names it.
        base_models: what this model was made from, each `owner/name`.
        relation: how: `quantized`, `finetune`, `adapter`, `merge`.
        datasets: what the card says that it was trained on.
        gate: how access is given: `auto` on accepting the terms, `manual` by its owners, None: to everybody.
        architecture, n_params, n_ctx_train: of its weights, as the host has read them from the files.
        n_downloads: in the last 30 days.
        modified: date of the last change, ISO 8601.
    """

    author: str | None = None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    base_models: tuple[str, ...] = ()
    relation: str | None = None
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    task: str | None = None
    gate: str | None = None
    is_private: bool = False
    architecture: str | None = None
    n_params: int | None = None
    n_ctx_train: int | None = None
    n_downloads: int | None = None
    n_likes: int | None = None
    modified: str | None = None


def text(value: Any) -> str | None:
    """Return a text of bounded length, None for anything else."""
    if not isinstance(value, str) or not value.strip():
        return None
    return value.strip()[:MAX_TEXT]


def texts(value: Any) -> tuple[str, ...]:
    """Return the texts of a list, or of one text alone."""
    values: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    return tuple(found for item in values[:MAX_ITEMS] if (found := text(item)))


def count(value: Any) -> int | None:
    """Return a number that counts something, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


def field(value: Any, *names: str) -> Any:
    """Return what lies under names inside each other, None where there is no such thing."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
