"""What of a file is here and what vouches for it, and the note of that beside the partial file."""

import os
from pathlib import Path

from owm.store.transfers import note
from owm.store.transfers.extents import Extents
from owm.store.transfers.flusher import Flusher
from owm.store.transfers.note import Note
from owm.store.transfers.transfer import Digest

NOTE_SECONDS = 0.25


class Ledger:
    """The bytes of one partial file. Whoever uses it from several threads holds a lock.

    Attributes:
        validator: by what a changed source is known, None if nothing is.
        has_gaps: whether the file may have gaps, so that without a note it is worth nothing.
    """

    def __init__(self, partial: Path, digest: Digest | None) -> None:
        self.extents = Extents()
        self.validator: str | None = None
        self.has_gaps = False
        self._partial = partial
        self._digest = digest
        self._noted_at = float("-inf")

    @property
    def can_resume(self) -> bool:
        """Whether something would tell if what comes next did not belong to what is here."""
        return self._digest is not None or self.validator is not None

    def take_up(self, descriptor: int, size: int | None) -> int | None:
        """Take up what an earlier download left, as far as it can be relied upon; return the size if it is known."""
        there = os.fstat(descriptor).st_size
        noted = note.read(self._partial)
        parts: note.Ranges = ((0, there),) if there else ()
        if noted is not None:
            self.validator = noted.validator
            if (on_disk := noted.parts_on_disk()) is not None:
                parts = tuple((begin, min(end, there)) for begin, end in on_disk if begin < there)
            if self._digest is not None and noted.digest not in (None, self._digest.hex.lower()):
                parts = ()
            if noted.size_bytes is not None:
                if size not in (None, noted.size_bytes):
                    parts = ()
                elif self._digest is None and self.validator is not None and noted.parts is not None:
                    size = noted.size_bytes
        elif note.path_of(self._partial).exists() and self._digest is None:
            parts = ()
        if not self.can_resume or (size is not None and there > size):
            parts = ()
        self.extents = Extents(parts)
        self.has_gaps = not self.extents.is_contiguous
        if not self.has_gaps:
            os.ftruncate(descriptor, self.extents.reach)
            if noted is not None and noted.parts is not None:
                self.write_validator()
        return size

    def cut(self, descriptor: int, position: int) -> None:
        """Forget all that lies at `position` or beyond; what is left has no gaps."""
        self.extents.cut(position)
        self.has_gaps = False
        os.ftruncate(descriptor, position)
        if position == 0:
            self.validator = None
        self.write_validator()

    def write(self, now: float, size: int | None, flusher: Flusher, parts: note.Ranges, *, is_due: bool) -> None:
        """Note the parts of a file with gaps, now and then."""
        if not self.has_gaps or (not is_due and now - self._noted_at < NOTE_SECONDS):
            return
        self._noted_at = now
        digest = self._digest.hex.lower() if self._digest else None
        note.write(Note(self.validator, size, digest, parts, flusher.safe, note.boot()), self._partial)

    def write_validator(self) -> None:
        """Note what a file without gaps is known by, if anything."""
        if self._digest is None and self.validator is not None:
            note.write(Note(validator=self.validator), self._partial)
        else:
            note.remove(self._partial)
