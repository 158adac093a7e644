"""The registry of fields in which text of strangers reaches a terminal, each with a command line that shows it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.paths import hub_cache, owm_home
from owm.store.local import Store

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a case plants its text; `folder` is the current one."""

    folder: Path
    monkeypatch: "pytest.MonkeyPatch"
    request: "pytest.FixtureRequest"

    @property
    def store(self) -> Store:
        """The store of the test."""
        return Store(owm_home(), hub_cache())

    def serve(self, server: Any) -> Any:
        """Run a server of `support` until the test ends; return it."""
        self.request.addfinalizer(lambda: server.__exit__(None, None, None))
        return server.__enter__()


Words = Sequence[str | PathLike[str]]
Plant = Callable[[Stage], Words]


@dataclass(frozen=True, slots=True)
class Case:
    """A command line, and the fields whose planted text has to be seen.

    Without any, it is enough that nothing steers the terminal: what is planted is not printed at all.
    """

    plant: Plant
    fields: tuple[str, ...]
    typed: str


CASES: dict[str, Case] = {}


def case(title: str, *fields: str, typed: str = "") -> Callable[[Plant], Plant]:
    """Register the function that plants and returns a command line; the title begins with the command."""

    def register(plant: Plant) -> Plant:
        assert title not in CASES
        CASES[title] = Case(plant, fields, typed)
        return plant

    return register
