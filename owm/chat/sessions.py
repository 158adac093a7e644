"""The folder of sessions: which there are, and found by their ids, their titles, and what was said."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from owm import paths
from owm.chat import session_file
from owm.chat.session import SUFFIX, Session, is_id
from owm.errors import NotFound, OwmError, StoreError, UsageError

EXCERPT_CHARS = 80
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list tells of a session.

    Attributes:
        model: who answers in it now.
        n_turns: of all branches.
        updated: when its last turn was added.
        damage: one sentence on what of it is lost, or why it cannot be read.
    """

    id: str
    path: Path
    title: str | None
    model: str | None
    n_turns: int
    n_branches: int
    created: datetime
    updated: datetime
    size_bytes: int
    damage: str | None


@dataclass(frozen=True, slots=True)
class Hit:
    """A turn in which all words are that were looked for, and the text around the first of them."""

    turn: int
    role: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Found:
    """A session in which something was found; no hits if it is in the title only."""

    summary: Summary
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions in a folder, `ID.jsonl` each."""

    folder: Path

    def create(self) -> Session:
        """Begin a session.

        Raises:
            NotEnoughDisk, StoreError: it cannot be written.
        """
        return Session.create(self.folder)

    def summaries(self) -> list[Summary]:
        """Return what is told of each session, the last used first; one that cannot be read is told of as well.

        Raises:
            StoreError: the folder cannot be read.
        """
        return [summary for summary, _ in self._all()]

    def latest(self) -> Path | None:
        """Return the session that was used last, None if there is none.

        Raises:
            StoreError: the folder cannot be read.
        """
        return next((summary.path for summary, _ in self._all()), None)

    def find(self, ref: str, *, is_exact: bool = False) -> Path:
        """Return a session by its id, its title, or the beginning of one of them that no other one has.

        Args:
            is_exact: only by what is whole, for what removes.

        Raises:
            NotFound: there is none.
            UsageError: there are several.
            StoreError: the folder cannot be read.
        """
        sought = " ".join(ref.split()).casefold()
        if is_id(sought) and (path := self.folder / f"{sought}{SUFFIX}").is_file():
            return path
        summaries = self.summaries() if sought else []
        titles = {summary.id: " ".join((summary.title or "").split()).casefold() for summary in summaries}
        same = [summary for summary in summaries if titles[summary.id] == sought]
        similar = [summary for summary in summaries if summary.id.startswith(sought)] or [
            summary for summary in summaries if titles[summary.id].startswith(sought)
        ]
        found = same if same or is_exact else similar
        if len(found) == 1:
            return found[0].path
        if not found:
            near = f"did you mean {similar[0].id}? " if similar else ""
            raise NotFound(f"no session {ref}", hint=f"{near}`owm sessions` lists them")
        ids = ", ".join(summary.id for summary in found[:_MAX_NAMED]) + (", …" if len(found) > _MAX_NAMED else "")
        raise UsageError(f"{len(found)} sessions are called {ref}", hint=f"take one by its id: {ids}")

    def search(self, text: str) -> list[Found]:
        """Return where all words of a text are in one turn or the title, in any order and case, the last used first.

        Raises:
            UsageError: there is no word to look for.
            StoreError: the folder cannot be read.
        """
        words = [re.compile(re.escape(word), re.IGNORECASE) for word in text.split()]
        if not words:
            raise UsageError("there is no word to look for", hint='`owm sessions search "some words"`')
        found = []
        for summary, session in self._all():
            hits = []
            for turn in session.turns.values():
                for said in (turn.words, turn.reasoning or ""):
                    if all(word.search(said) for word in words):
                        hits.append(Hit(turn.id, turn.role, _excerpt(said, words[0])))
                        break
            if hits or all(word.search(summary.title or "") for word in words):
                found.append(Found(summary, tuple(hits)))
        return found

    def remove(self, path: Path) -> None:
        """Remove a session.

        Raises:
            NotFound: there is none.
            StoreError: another process has it open, or it cannot be removed.
        """
        session_file.remove(path)

    def _all(self) -> Iterator[tuple[Summary, Session]]:
        """Return the sessions, the last used first; those that were only just begun are left out."""
        try:
            paths = [path for path in self.folder.iterdir() if path.suffix == SUFFIX and is_id(path.stem)]
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read {self.folder}: {error.strerror or error}") from error
        used = []
        for path in paths:
            try:
                found = path.stat()
            except OSError:  # someone has just removed it
                continue
            used.append((found.st_mtime_ns, path, found.st_size))
        for time_ns, path, size_bytes in sorted(used, reverse=True):
            when = datetime.fromtimestamp(time_ns / 1e9, UTC)
            try:
                session = Session.read(path)
                damage = session.damage
            except NotFound:
                continue
            except OwmError as error:
                session = Session(path)
                damage = str(error)
            if session.turns or damage:
                yield _summary(session, path, when, size_bytes, damage), session


def open_sessions() -> Sessions:
    """Return the sessions of this user; nothing is created before one begins."""
    return Sessions(paths.owm_home() / "sessions")


def _summary(session: Session, path: Path, when: datetime, size_bytes: int, damage: str | None) -> Summary:
    turns = list(session.turns.values())
    return Summary(
        id=session.id,
        path=path,
        title=session.title,
        model=session.model,
        n_turns=len(turns),
        n_branches=len(session.branches()) if turns else 0,
        created=session.created if turns else when,
        updated=turns[-1].at if turns else when,
        size_bytes=size_bytes,
        damage=damage,
    )


def _excerpt(text: str, word: re.Pattern[str]) -> str:
    """Return the text around a word, on one line."""
    match = word.search(text)
    assert match is not None
    room = max(0, EXCERPT_CHARS - len(match[0])) // 2
    begin, end = max(0, match.start() - room), min(len(text), match.end() + room)
    inner = re.sub(r"\s+", " ", text[begin:end]).strip()
    return ("…" if begin else "") + inner + ("…" if end < len(text) else "")
