"""A conversation as a tree of turns: where it stands, its branches, and what of it the model is to read.

It changes by records alone, each a JSON object of one member, so that the same records make the same conversation
again. Nothing is ever taken out of it: going back moves the head.
"""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from owm.chat.turn import Turn, read_time, turn_of
from owm.errors import NotFound, UsageError

MAIN = "main"
TITLE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Compaction:
    """What stands for all turns up to one of them: a summary, or nothing (`summary` is None: they were dropped)."""

    through: int
    summary: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Branch:
    """One end of the conversation.

    Attributes:
        number: counted from 1; it stays while no turns are added at other places.
        turn: the last turn; None before the first one.
        begins: the first words of what it alone has, or of where it parts from the others.
        n_turns: from the beginning of the conversation.
    """

    number: int
    name: str | None
    turn: int | None
    begins: str
    n_turns: int
    at: datetime | None
    is_current: bool


class Conversation:
    """A tree of turns and what holds for all of them.

    Attributes:
        turns: all of them by their ids, of all branches, in the order in which they were added.
        head: the turn that the next one goes on from; None at the beginning.
        branch: the name that moves along with the head; None on a branch without a name.
        system: the system prompt.
        model, model_sha256: who answers now.
        settings: what was set for this conversation.
    """

    def __init__(self) -> None:
        self.turns: dict[int, Turn] = {}
        self.head: int | None = None
        self.branch: str | None = MAIN
        self.system: str | None = None
        self.model: str | None = None
        self.model_sha256: str | None = None
        self.settings: Mapping[str, Any] = {}
        self._title: str | None = None
        self._names: dict[str, int | None] = {MAIN: None}
        self._children: dict[int | None, list[int]] = {}
        self._compactions: dict[int, Compaction] = {}
        self._next_id = 1

    @property
    def title(self) -> str | None:
        """The title that was given, else the beginning of the first turn of a person; None before that."""
        if self._title is not None:
            return self._title
        first = next((turn for turn in self.turns.values() if turn.role == "user"), None)
        return None if first is None else beginning(first.words) or None

    def path(self, turn_id: int | None = None) -> list[Turn]:
        """Return the turns from the first to a given one, or to the head."""
        found = []
        at = self.head if turn_id is None else turn_id
        while at is not None:
            found.append(self.turns[at])
            at = found[-1].parent
        return found[::-1]

    def children(self, turn_id: int | None) -> list[Turn]:
        """Return the turns that go on from one, or those that begin the conversation, oldest first."""
        return [self.turns[child] for child in self._children.get(turn_id, ())]

    def condensed(self) -> tuple[Compaction | None, list[Turn]]:
        """Return what the model is to read of the path: what stands for its beginning, and the turns after that."""
        path = self.path()
        for place in range(len(path) - 1, -1, -1):
            if compaction := self._compactions.get(path[place].id):
                return compaction, path[place + 1 :]
        return None, path

    def branches(self) -> list[Branch]:
        """Return all ends of the conversation and where it stands, in the order in which they parted."""
        named = {turn_id: name for name, turn_id in self._names.items()}
        if self.branch is not None:
            named[self.head] = self.branch
        ends: set[int | None] = {turn_id for turn_id in self.turns if turn_id not in self._children}
        ends |= {turn_id for turn_id in named if turn_id is not None} | {self.head}
        found = sorted((self._parting(end, ends), end or 0) for end in ends)
        return [
            self._branch(number, end or None, parting, named.get(end or None))
            for number, (parting, end) in enumerate(found, start=1)
        ]

    def find_branch(self, name: str) -> Branch:
        """Return a branch by its name or its number.

        Raises:
            NotFound: there is none.
        """
        branches = self.branches()
        at = self._names.get(name)
        for each in branches:
            if each.name == name or (at is not None and each.turn == at):  # one end may have two names
                return replace(each, name=name)
        for each in branches:
            if str(each.number) == name:
                return each
        names = ", ".join(each.name or str(each.number) for each in branches)
        raise NotFound(f"no branch {name}", hint=f"there are: {names}")

    def apply(self, record: Mapping[str, Any]) -> bool:
        """Change the conversation by a record; return whether it makes sense here, else nothing is changed."""
        for name, value in record.items():
            if change := _CHANGES.get(name):
                return change(self, value, record)
        return True  # of what a newer owm writes, what this one does not know is left aside

    def _parting(self, end: int | None, ends: Set[int | None]) -> int:
        """Return the first turn that an end has for itself, 0 if it has none."""
        at, parting = end, 0
        while at is not None:
            parting, at = at, self.turns[at].parent
            if at in ends or len(self._children[at]) > 1:
                break
        return parting

    def _branch(self, number: int, end: int | None, parting: int, name: str | None) -> Branch:
        is_current = end == self.head
        if end is None:
            return Branch(number, name, None, "", 0, None, is_current)
        words = beginning(self.turns[parting].words)
        return Branch(number, name, end, words, len(self.path(end)), self.turns[end].at, is_current)

    def _add(self, members: Any, record: Mapping[str, Any]) -> bool:
        turn = turn_of(members)
        if turn is None:
            return False
        if self.turns.get(turn.id) == turn:  # an interrupt came between writing and knowing it
            return True
        self._next_id = max(self._next_id, turn.id + 1)
        if turn.id in self.turns or (turn.parent is not None and turn.parent not in self.turns):
            return False
        self.turns[turn.id] = turn
        self._children.setdefault(turn.parent, []).append(turn.id)
        return self._stand(turn.id, {"branch": self.branch})

    def _stand(self, turn_id: Any, record: Mapping[str, Any]) -> bool:
        name = record.get("branch")
        is_there = turn_id is None or (type(turn_id) is int and turn_id in self.turns)
        if not is_there or not isinstance(name, str | None):
            return False
        self.head, self.branch = turn_id, name
        if name is not None:
            self._names[name] = turn_id
        return True

    def _entitle(self, title: Any, record: Mapping[str, Any]) -> bool:
        if not isinstance(title, str | None):
            return False
        self._title = title
        return True

    def _instruct(self, system: Any, record: Mapping[str, Any]) -> bool:
        if not isinstance(system, str | None):
            return False
        self.system = system
        return True

    def _be_answered(self, model: Any, record: Mapping[str, Any]) -> bool:
        if not isinstance(model, dict):
            return False
        name, sha256 = model.get("name"), model.get("sha256")
        if not isinstance(name, str | None) or not isinstance(sha256, str | None):
            return False
        self.model, self.model_sha256 = name, sha256
        return True

    def _set(self, settings: Any, record: Mapping[str, Any]) -> bool:
        if not isinstance(settings, dict):
            return False
        self.settings = settings
        return True

    def _compact(self, members: Any, record: Mapping[str, Any]) -> bool:
        try:
            compaction = Compaction(members["through"], members["summary"], read_time(members["at"]))
            if compaction.through not in self.turns or not isinstance(compaction.summary, str | None):
                return False
        except (LookupError, TypeError, ValueError):
            return False
        self._compactions[compaction.through] = compaction
        return True


_CHANGES = {
    "turn": Conversation._add,
    "head": Conversation._stand,
    "title": Conversation._entitle,
    "system": Conversation._instruct,
    "model": Conversation._be_answered,
    "settings": Conversation._set,
    "compacted": Conversation._compact,
}
RECORDS = tuple(_CHANGES)


def beginning(text: str) -> str:
    """Return the first words of a text on one line, cut between words where it is long."""
    line = next((line for line in text.split("\n") if line.strip()), "")
    line = re.sub(r"\s+", " ", line[: 4 * TITLE_CHARS]).strip()
    if len(line) <= TITLE_CHARS:
        return line
    cut = line[: TITLE_CHARS - 1]
    return (cut.rpartition(" ")[0] if " " in cut[TITLE_CHARS // 2 :] else cut).rstrip(" ,;:") + "…"


def last_user_turn(path: list[Turn]) -> Turn:
    """Return the last turn of a person.

    Raises:
        UsageError: there is none.
    """
    for turn in reversed(path):
        if turn.role == "user":
            return turn
    raise UsageError("there is no turn to go back to", hint="the conversation has not begun")
