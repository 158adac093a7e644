"""Which stored models are wanted, and in which order: what `--filter` and `--sort` say."""

import fnmatch
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from owm.errors import UsageError
from owm.store.manifest import Manifest
from owm.store.model import StoredModel
from owm.units import parse_bytes

OWN = "owm"  # who owns the bytes that owm has fetched or made
_CONDITION = re.compile(r"\s*([A-Za-z]+)\s*(>=|<=|!=|[><=~])\s*(.*?)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


@dataclass(frozen=True, slots=True)
class Listed:
    """A stored model with the name that it is listed under."""

    model: StoredModel
    name: str

    @property
    def manifest(self) -> Manifest:
        """What is known of it; a model that is listed has one."""
        assert self.model.manifest is not None
        return self.model.manifest

    @property
    def owner(self) -> str:
        """Who owns its bytes."""
        return self.manifest.owner or OWN

    def age_seconds(self, what: str) -> float | None:
        """Return how long ago it was `used` or `created`, None if that is not known."""
        moment = self.model.last_used if what == "used" else _moment(self.manifest.created_at)
        return None if moment is None else (datetime.now(UTC) - moment).total_seconds()


_TEXTS: dict[str, Callable[[Listed], Sequence[str | None]]] = {
    "name": lambda one: (one.name, one.model.name),
    "quant": lambda one: (one.manifest.label,),
    "arch": lambda one: (one.manifest.facts.architecture,),
    "source": lambda one: (one.manifest.source, one.manifest.ref),
    "owner": lambda one: (one.owner,),
    "licence": lambda one: (one.manifest.licence,),
}
_NUMBERS: dict[str, Callable[[Listed], float | None]] = {
    "size": lambda one: one.model.size_bytes,
    "params": lambda one: one.manifest.facts.n_params,
    "used": lambda one: one.age_seconds("used"),
    "created": lambda one: one.age_seconds("created"),
}
_SAME = {"license": "licence", "architecture": "arch", "parameters": "params"}
FIELDS = (*_TEXTS, *_NUMBERS)
SORTS = ("name", "size", "used", "created")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as `size>1GB` or `name~qwen`."""

    field: str
    operator: str
    value: str
    number: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition.

        Raises:
            UsageError: it is none.
        """
        match = _CONDITION.fullmatch(text)
        if match is None or not match[3]:
            raise UsageError(
                f"not a condition: {text!r}", hint="for example `size>1GB`, `quant=Q4_K_M`, `name~qwen`, `used>30d`"
            )
        name = _SAME.get(match[1].lower(), match[1].lower())
        if name not in FIELDS:
            raise UsageError(f"no field of a model: {match[1]}", hint=f"there are: {', '.join(FIELDS)}")
        kind, value = match[2], match[3]
        if name in _TEXTS:
            if kind not in ("=", "!=", "~"):
                raise UsageError(
                    f"{name} is a text, which is not {kind} another", hint=f"`{name}={value}`, or `~`, `!=`"
                )
            return cls(name, kind, value)
        if kind == "~":
            raise UsageError(f"{name} is a number, which contains no text", hint=f"`{name}>{value}`, or another of < =")
        return cls(name, kind, value, _number(name, value))

    def holds(self, one: Listed) -> bool:
        """Tell whether a model fulfils it; one of which the field is not known does not, but for `!=`."""
        if self.number is not None:
            found = _NUMBERS[self.field](one)
            return self.operator == "!=" if found is None else _COMPARE[self.operator](found, self.number)
        wanted = self.value.lower()
        texts = [text.lower() for text in _TEXTS[self.field](one) if text is not None]
        if self.operator == "~":
            return any(wanted in text for text in texts)
        is_one = any(fnmatch.fnmatchcase(text, wanted.replace("[", "[[]")) for text in texts)
        return is_one == (self.operator == "=")


def select(listed: Iterable[Listed], conditions: Sequence[Condition], *, sort: str = "name") -> list[Listed]:
    """Return the models that fulfil all conditions: by name, the largest first, the last used or newest first.

    Raises:
        UsageError: there is no such order.
    """
    if sort not in SORTS:
        raise UsageError(f"models are not sorted by {sort}", hint=f"by {', '.join(SORTS)}")
    found = sorted((one for one in listed if all(each.holds(one) for each in conditions)), key=lambda one: one.name)
    if sort == "size":
        found.sort(key=lambda one: -one.model.size_bytes)
    elif sort != "name":
        found.sort(key=lambda one: age if (age := one.age_seconds(sort)) is not None else float("inf"))
    return found


def parse_age(text: str) -> float:
    """Read a duration such as `7d`, `12h`, `90m`, `2w` in seconds.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([smhdwy])\s*", text.lower(), re.ASCII)
    if match is None:
        raise UsageError(f"not a duration: {text}", hint="a number with s, m, h, d, w or y: `7d`, `12h`")
    return float(match[1]) * _AGES[match[2]]


def _number(name: str, text: str) -> float:
    if name == "size":
        try:
            return parse_bytes(text)
        except ValueError:
            raise UsageError(f"not a size: {text}", hint="for example `size>1GB` or `size<500MiB`") from None
    if name == "params":
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmbt]?)", text.lower(), re.ASCII)
        if match is None:
            raise UsageError(f"not a number of parameters: {text}", hint="for example `params<8B` or `params>=500M`")
        return round(float(match[1]) * _COUNTS[match[2]])
    return parse_age(text)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
