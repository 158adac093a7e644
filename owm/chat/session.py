"""One conversation that is kept on disk as it grows: each change is appended to its file before the next thing happens.

A change that cannot be written (a full disk) is part of the conversation all the same, the error says so, and it is
written with the next one. So no answer is lost while owm runs, and none silently when it ends.
"""

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from owm.chat.conversation import Conversation, last_user_turn
from owm.chat.session_file import HEADER, VERSION, Lines, SessionFile, read
from owm.chat.turn import Turn, read_time, written_time
from owm.errors import NotEnoughDisk, OwmError, StoreError, UsageError
from owm.formats.sealed_lines import seal

ID_CHARS = 8
SUFFIX = ".jsonl"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # no i, l, o and u: nothing is misread, and no words come about
_MAX_NAMED_LINES = 5


class Session(Conversation):
    """A conversation and its file; for one thread at a time.

    Attributes:
        id: what the file is called by; "" if nothing is kept.
        file: where it lies; None if nothing is kept.
        created: when it was begun.
        damage: one sentence on what of the file is lost; None if nothing is.
    """

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self.id = path.name.removesuffix(SUFFIX) if path else ""
        self.file = path
        self.created = datetime.now(UTC)
        self.damage: str | None = None
        self._writer: SessionFile | None = None
        self._is_read_only = False
        self._unwritten: list[bytes] = []

    @classmethod
    def create(cls, folder: Path) -> "Session":
        """Begin a session in a folder, which is made if it is not there; without a turn, closing it leaves nothing.

        Raises:
            NotEnoughDisk, StoreError: it cannot be written there.
        """
        while True:
            path = folder / f"{new_id()}{SUFFIX}"
            with suppress(FileExistsError):
                session = cls(path)
                session._writer = SessionFile.create(path, session._header())
                return session

    @classmethod
    def private(cls) -> "Session":
        """Begin a session of which nothing is ever written."""
        return cls()

    @classmethod
    def open(cls, path: Path) -> "Session":
        """Open a session to go on with it.

        Raises:
            NotFound: there is none.
            StoreError: another process has it open, or it cannot be read or written, or is a newer owm's.
            MalformedFile: it is something else; it stays as it is.
        """
        writer, lines = SessionFile.open(path)
        session = cls(path)
        session._writer = writer
        try:
            session._replay(lines)
            if lines.end == 0:
                writer.append(session._header())
        except BaseException:
            writer.close()
            raise
        return session

    @classmethod
    def read(cls, path: Path) -> "Session":
        """Open a session to look at it, even while another process goes on with it; it cannot be changed.

        Raises:
            NotFound: there is none.
            StoreError: it cannot be read, or is a newer owm's.
            MalformedFile: it is something else.
        """
        session = cls(path)
        session._is_read_only = True
        session._replay(read(path))
        return session

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(OwmError):  # the first error is the one to tell
                self.close()

    @property
    def n_unwritten(self) -> int:
        """How many changes are not on the disk, as there was no room for them."""
        return len(self._unwritten)

    def flush(self) -> None:
        """Write what could not be written before.

        Raises:
            NotEnoughDisk, StoreError: it still cannot be; nothing of it is lost yet.
        """
        self._write()

    def close(self) -> None:
        """Write what could not be written before, and let others open the session; an empty one is removed.

        Raises:
            NotEnoughDisk, StoreError: the last changes are lost.
        """
        if self._writer is None:
            return
        writer, is_empty = self._writer, not self.turns and self.damage is None
        try:
            if is_empty:
                writer.remove()
            else:
                self._write()
        except (NotEnoughDisk, StoreError) as error:
            error.hint = "what was not written yet is lost"
            raise
        finally:
            writer.close()
            self._writer, self._is_read_only = None, True

    def add_turn(
        self,
        role: str,
        content: str,
        *,
        parent: int | None = None,
        typed: str | None = None,
        attachments: Sequence[str] = (),
        reasoning: str | None = None,
        finish_reason: str | None = None,
        usage: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        tokens: Sequence[int] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Turn:
        """Add a turn after `parent` (by default the head) and stand there; `Turn` says what the rest is.

        Raises:
            NotEnoughDisk, StoreError: it is not on the disk yet; `turns[head]` is it all the same.
        """
        is_answer = role == "assistant"
        turn = Turn(
            id=self._next_id,
            parent=self.head if parent is None else self.turns[parent].id,
            role=role,
            content=content,
            at=datetime.now(UTC),
            typed=None if typed == content else typed,
            attachments=tuple(attachments),
            reasoning=reasoning,
            model=self.model if is_answer else None,
            model_sha256=self.model_sha256 if is_answer else None,
            finish_reason=finish_reason,
            usage=usage or {},
            seconds=None if seconds is None else round(seconds, 3),
            tokens=None if tokens is None else tuple(tokens),
            settings=settings or {},
        )
        self._change({"turn": turn.members()})
        return self.turns[turn.id]

    def move_to(self, turn_id: int | None) -> None:
        """Go on from a turn, or from the beginning; the current branch's name comes along.

        Raises:
            UsageError: there is no such turn.
            NotEnoughDisk, StoreError: the move is not on the disk yet.
        """
        if turn_id is not None and turn_id not in self.turns:
            raise UsageError(f"the session has no turn {turn_id}")
        if turn_id != self.head:
            self._stand_at(turn_id, self.branch)

    def undo(self) -> Turn:
        """Take back the last turn of the person and what came after it; return that turn.

        Raises:
            UsageError: there is none.
            NotEnoughDisk, StoreError: as in `move_to`.
        """
        turn = last_user_turn(self.path())
        self.move_to(turn.parent)
        return turn

    def retry(self) -> Turn:
        """Go back to the last turn of the person, so that it is answered again; return that turn.

        Raises:
            UsageError: there is none.
            NotEnoughDisk, StoreError: as in `move_to`.
        """
        turn = last_user_turn(self.path())
        self.move_to(turn.id)
        return turn

    def edit(self, number: int) -> Turn:
        """Go back to before the person's turn of that number, counted from 1 on this branch; return that turn.

        Raises:
            UsageError: there is none.
            NotEnoughDisk, StoreError: as in `move_to`.
        """
        asked = [turn for turn in self.path() if turn.role == "user"]
        if not 1 <= number <= len(asked):
            raise UsageError(
                f"there is no turn {number} of yours",
                hint=f"there are: 1 to {len(asked)}" if asked else "the conversation has not begun",
            )
        self.move_to(asked[number - 1].parent)
        return asked[number - 1]

    def fork(self, name: str | None = None) -> str:
        """Begin a branch here; the one before keeps its place. Return its name, by default `fork-1` and so on.

        Raises:
            UsageError: the name is taken or is none.
            NotEnoughDisk, StoreError: the name is not on the disk yet.
        """
        if name is None:
            number = 1
            while f"fork-{number}" in self._names:
                number += 1
            name = f"fork-{number}"
        if not name.strip() or name.strip() != name or name.isdigit() or not name.isprintable():
            raise UsageError(f"not a name for a branch: {name!r}", hint="words that are not a number")
        if name in self._names:
            raise UsageError(f"there is a branch {name} already", hint=f"`/switch {name}` goes there")
        self._stand_at(self.head, name)
        return name

    def switch(self, name: str) -> None:
        """Go to the end of a branch, by its name or its number.

        Raises:
            NotFound: there is none.
            NotEnoughDisk, StoreError: as in `move_to`.
        """
        branch = self.find_branch(name)
        if (branch.turn, branch.name) != (self.head, self.branch):
            self._stand_at(branch.turn, branch.name)

    def set_title(self, title: str | None) -> None:
        """Give a title, which is a name to find the session by as well; None goes back to the first words.

        Raises:
            NotEnoughDisk, StoreError: it is not on the disk yet.
        """
        self._change({"title": title})

    def set_system(self, system: str | None) -> None:
        """Set the system prompt of all branches.

        Raises:
            NotEnoughDisk, StoreError: it is not on the disk yet.
        """
        if system != self.system:
            self._change({"system": system})

    def set_model(self, name: str, sha256: str | None) -> None:
        """Say who answers from now on.

        Raises:
            NotEnoughDisk, StoreError: it is not on the disk yet.
        """
        if (name, sha256) != (self.model, self.model_sha256):
            self._change({"model": {"name": name, "sha256": sha256}})

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Keep what was set for this conversation, in place of what was kept.

        Raises:
            NotEnoughDisk, StoreError: it is not on the disk yet.
        """
        if dict(settings) != dict(self.settings):
            self._change({"settings": dict(settings)})

    def compact(self, through: int, summary: str | None) -> None:
        """Let a summary, or nothing, stand for all turns up to one; they stay in the file.

        Raises:
            UsageError: there is no such turn.
            NotEnoughDisk, StoreError: it is not on the disk yet.
        """
        if through not in self.turns:
            raise UsageError(f"the session has no turn {through}")
        now = written_time(datetime.now(UTC))
        self._change({"compacted": {"through": through, "summary": summary, "at": now}})

    def _stand_at(self, turn_id: int | None, branch: str | None) -> None:
        self._change({"head": turn_id, "branch": branch})

    def _change(self, record: Mapping[str, Any]) -> None:
        """Change the conversation, and put that on the disk with all that is not there yet."""
        if self._is_read_only:
            raise UsageError("the session is not open for writing")
        line = seal(record)
        if not self.apply(record):
            raise ValueError(f"not a change of this conversation: {record}")
        if self.file is not None:
            self._unwritten.append(line)
            self._write()

    def _write(self) -> None:
        assert self._writer is not None or not self._unwritten
        while self._unwritten and self._writer:
            self._writer.append(self._unwritten[0])
            del self._unwritten[0]

    def _header(self) -> bytes:
        """Return the first line of its file."""
        from owm import __version__

        return seal({HEADER: VERSION, "id": self.id, "created": written_time(self.created), "owm": __version__})

    def _replay(self, lines: Lines) -> None:
        """Make the conversation of what is in its file, and say what of it is lost."""
        is_begun = False
        n_lost = 0
        for record in lines.records:
            if HEADER in record:
                is_begun = True
                with suppress(ValueError, TypeError, KeyError):
                    self.created = read_time(record["created"])
            elif not self.apply(record):
                n_lost += "turn" in record
        if not is_begun and self.turns:
            self.created = next(iter(self.turns.values())).at
        self.damage = self._damage(lines, n_lost, is_begun=is_begun)

    def _damage(self, lines: Lines, n_lost: int, *, is_begun: bool) -> str | None:
        told = []
        if lines.damaged:
            several = len(lines.damaged) > 1
            named = [str(number) for number in lines.damaged[:_MAX_NAMED_LINES]]
            more = len(lines.damaged) - len(named)
            told.append(
                f"line{'s' if several else ''} {', '.join(named)}{f' and {more} more' if more else ''}"
                f" {'are' if several else 'is'} not as written and left out"
            )
        if lines.is_cut:
            told.append("its last line was not written to its end and is left out")
        if n_lost:
            turns = "1 turn after what is lost is" if n_lost == 1 else f"{n_lost} turns after what is lost are"
            told.append(f"{turns} left out")
        if not told and not is_begun:
            told.append("its first line is lost" if lines.records else "nothing is left of it")
        return f"the file of session {self.id} is damaged: {', and '.join(told)}" if told else None


def new_id() -> str:
    """Return a name for a session that no other one has."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_CHARS))


def is_id(text: str) -> bool:
    """Tell whether a text could be the name of a session's file."""
    return len(text) == ID_CHARS and set(text) <= set(_ALPHABET)
