"""Finding models on the Hub, by words and by what their cards say."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from owm.errors import UsageError
from owm.store.card import Card
from owm.store.refs import ModelRef
from owm.store.sources.asking import within
from owm.store.sources.hub_card import card_of
from owm.store.sources.hub_client import headers, host, library, patiently, translated

Sort = Literal["downloads", "likes", "trending", "created", "modified"]
SORTS: tuple[Sort, ...] = get_args(Sort)
MAX_RESULTS = 300
_PATIENT_SECONDS = 15.0
_LOOKED_AT = 300  # results that are looked at, for what the Hub does not filter itself
_FIELDS = ["author", "cardData", "downloads", "gated", "gguf", "lastModified", "likes", "pipeline_tag", "private",
           "safetensors", "tags"]  # fmt: skip
_SORT_KEYS: dict[Sort, str] = {
    "downloads": "downloads",
    "likes": "likes",
    "trending": "trendingScore",
    "created": "createdAt",
    "modified": "lastModified",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for.

    Attributes:
        words: of the name of the repo, all of them.
        licence: as the Hub writes it, or `other`'s name.
        least_params, most_params: bounds of the number of parameters.
        formats: `gguf`, `safetensors`: a repo has to have one of them.
    """

    words: Sequence[str] = ()
    architecture: str | None = None
    licence: str | None = None
    least_params: int | None = None
    most_params: int | None = None
    sort: Sort = "downloads"
    limit: int = 20
    formats: Sequence[str] = ("gguf",)

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_RESULTS:
            raise UsageError(f"not a number of results: {self.limit}", hint=f"1 to {MAX_RESULTS}")


@dataclass(frozen=True, slots=True)
class FoundRepo:
    """A repo that fits."""

    name: str
    card: Card

    @property
    def licence(self) -> str | None:
        """The licence that its card names."""
        return self.card.licence_name or self.card.licence


def search(wanted: Wanted) -> list[FoundRepo]:
    """Return repos that fit, in the order asked for.

    What the Hub does not filter exactly is filtered here too: then no more than the first 300 are looked at.

    Raises:
        SourceUnreachable, TransferFailed, AccessDenied: the Hub does not answer, or refuses.
    """
    found: dict[str, FoundRepo] = {}
    for kind in wanted.formats:
        for repo in _search_kind(wanted, kind):
            found.setdefault(repo.name, repo)
    return list(found.values())[: wanted.limit]


def _search_kind(wanted: Wanted, kind: str) -> list[FoundRepo]:
    hub = library()

    def ask() -> list[FoundRepo]:
        from huggingface_hub import constants

        # Not by its `list_models`, which asks again and again where nobody answers, and says so on stderr.
        with translated(ModelRef("hub", "the search")):
            response = hub.get_session().get(
                f"{constants.ENDPOINT}/api/models",
                params=_asked(wanted, kind),
                headers=headers(),
                timeout=_PATIENT_SECONDS,
                follow_redirects=True,
            )
            hub.utils.hf_raise_for_status(response)
            listed = [hub.ModelInfo(**{"siblings": None, **said}) for said in response.json()]
            repos = (FoundRepo(_name(info.id), card_of(info)) for info in listed)
            return list(itertools.islice((repo for repo in repos if _fits(repo.card, wanted)), wanted.limit))

    until = time.monotonic() + _PATIENT_SECONDS
    message = f"{host()} did not answer within {_PATIENT_SECONDS:.0f} s"
    return patiently(lambda: within(until - time.monotonic(), ask, message), until=until)


def _asked(wanted: Wanted, kind: str) -> dict[str, Any]:
    asked = {
        "filter": [kind, *([f"license:{wanted.licence.lower()}"] if wanted.licence else [])],
        "search": " ".join(wanted.words),
        "sort": _SORT_KEYS[wanted.sort],
        "num_parameters": _range(wanted),
        "limit": _LOOKED_AT if _is_filtered_here(wanted) else wanted.limit,
        "expand": _FIELDS,
    }
    return {name: value for name, value in asked.items() if value}


def _name(said: Any) -> str:
    if not isinstance(said, str) or not said:
        raise ValueError("a repo has no name")
    return said


def _is_filtered_here(wanted: Wanted) -> bool:
    bounds = (wanted.architecture, wanted.licence, wanted.least_params, wanted.most_params)
    return any(bound is not None for bound in bounds)


def _range(wanted: Wanted) -> str | None:
    """Write bounds as the Hub takes them, `min:1B,max:8B`: in whole millions, so none that fits is left out."""
    parts = []
    if wanted.least_params is not None:
        parts.append(f"min:{wanted.least_params // 10**6}M")
    if wanted.most_params is not None:
        parts.append(f"max:{-(-wanted.most_params // 10**6)}M")
    return ",".join(parts) or None


def _fits(card: Card, wanted: Wanted) -> bool:
    if wanted.architecture and wanted.architecture.lower() not in _architectures(card):
        return False
    if wanted.licence and wanted.licence.lower() not in (
        (card.licence or "").lower(),
        (card.licence_name or "").lower(),
    ):
        return False
    if wanted.least_params is None and wanted.most_params is None:
        return True
    if card.n_params is None:
        return False
    return (wanted.least_params or 0) <= card.n_params and (
        wanted.most_params is None or card.n_params <= wanted.most_params
    )


def _architectures(card: Card) -> set[str]:
    return {name.lower() for name in (card.architecture, *card.tags) if name}
