"""Files that go with a prompt of a conversation: those it mentions (`@path`), and those attached before (`/file`)."""

from collections.abc import Sequence
from dataclasses import dataclass

from owm.engine import material, mentions
from owm.engine.asked import Asked
from owm.engine.material import Piece


@dataclass(frozen=True, slots=True)
class Attached:
    """A prompt with its files.

    Attributes:
        content: what the model reads, files first.
        typed: what the person typed.
        names: of the files.
        notes: sentences that the person should know.
    """

    content: str
    typed: str
    names: tuple[str, ...]
    notes: tuple[str, ...]


def attach(typed: str, waiting: Sequence[Piece] = ()) -> Attached:
    """Read the files that a prompt mentions, and put them before it with those that wait.

    Raises:
        NotFound, UsageError, Unsupported, MalformedFile, OwmError: as `owm.engine.material.read_file`.
    """
    found = mentions.find(typed)
    names = {piece.name for piece in waiting}
    read = [material.read_file(mentions.native(path)) for path in found.paths]
    pieces = [*waiting, *(piece for piece in read if piece.name not in names)]
    content = Asked(found.text, material.join(pieces)).question if pieces else found.text
    notes = (*found.notes, *(note for piece in read for note in piece.notes))
    return Attached(content, typed, tuple(piece.name for piece in pieces), notes)
