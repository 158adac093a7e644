"""What is asked: earlier turns, and the user's turn, in which material and instruction are kept apart.

Material is what the question is about (a pipe, files), the instruction is what to do with it. When all of it is too
long, only material may be cut; where there is none, the conversation so far; where there is none of that, the question.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

Turn = Mapping[str, Any]

STANDING_ROLES = ("system", "developer")  # their turns are instructions and never cut


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that is ready to be put to a model.

    Attributes:
        around: the instruction's text before, between and after the places where it wants the material; empty where
            the material stands above the instruction.
        turns: the system prompt, and the conversation so far.
        notes: sentences that the user should know.
    """

    instruction: str = ""
    material: str = ""
    around: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def question(self) -> str:
        """The user's turn: material and instruction."""
        if self.around:
            return self.material.join(self.around)
        return "\n\n".join(part for part in (self.material, self.instruction) if part.strip())

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All turns, as a chat template takes them."""
        question = self.question
        return [*map(dict, self.turns), *([{"role": "user", "content": question}] if question else [])]

    @property
    def what_may_be_cut(self) -> str:
        """Name for people what `cuttable` returns."""
        return "material" if self.material.strip() else "conversation" if self._spoken else "prompt"

    @property
    def cuttable(self) -> tuple[str, ...]:
        """The texts that may be cut if they are too long, oldest first."""
        if self.material.strip():
            return (self.material,)
        return tuple(self.turns[i]["content"] for i in self._spoken) or (self.instruction,)

    def with_cut(self, texts: Sequence[str]) -> "Asked":
        """Put other texts in the place of `cuttable`; emptied turns go in pairs, so that roles still alternate."""
        if self.material.strip():
            return replace(self, material=texts[0])
        if not self._spoken:
            return replace(self, instruction=texts[0])
        contents = dict(zip(self._spoken, texts, strict=True))
        emptied = [i for i, text in contents.items() if not text and self.turns[i]["content"]]
        gone = {i for pair in _pairs(emptied) for i in pair}
        kept = (
            {**turn, "content": contents[i]} if i in contents else turn
            for i, turn in enumerate(self.turns)
            if i not in gone
        )
        return replace(self, turns=tuple(kept))

    @property
    def _spoken(self) -> list[int]:
        """Return which turns may be cut: not those of the system, nor the last one where that is the question."""
        spoken = [i for i, turn in enumerate(self.turns) if turn["role"] not in STANDING_ROLES]
        return spoken if self.question or len(spoken) < 2 else spoken[:-1]


def _pairs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Pair neighbours, each used once, from the first on."""
    pairs: list[tuple[int, int]] = []
    for before, after in pairwise(indices):
        if after == before + 1 and (not pairs or pairs[-1][1] != before):
            pairs.append((before, after))
    return pairs
