"""One case: its checkpoint, the file made of it, and what was found out about it."""

import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from parity.allowed import LIMITS
from parity.case import Case
from parity.checkpoints import Checkpoint, make
from parity.comparing import Agreement, agreement
from parity.gguf_edit import Edited, changes
from parity.vocabularies import Shelf
from parity.worker import RefusedError, Worker

# llama.cpp treats the vocabularies of some models by their names, so none is in here.
NAME = "Tiny-Random-v1.5-Instruct"


@dataclass
class Row:
    """A line of the table: None is what was not tried."""

    case: str
    hf: str
    made_by: str | None = None  # the class of transformers that made it, if it is another
    files: str | None = None
    logits: str | None = None  # why there is no agreement
    min_cosine: float | None = None
    n_same_top: int | None = None
    hparams: str | None = None
    rules: str | None = None
    problems: list[str] = field(default_factory=list)


class Proof:
    """Everything about one case, made when first asked for."""

    def __init__(self, case: Case, converter: Any, llama: Worker, shelf: Shelf, folder: Path, row: Row) -> None:
        self.case = case
        self.converter = converter
        self.folder = folder
        self.row = row
        self._llama = llama
        self._shelf = shelf

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint, with what transformers computes."""
        return make(self.case, self._shelf, self.folder / NAME)

    @cached_property
    def gguf(self) -> Path:
        """The file in f32 that is on trial."""
        return self.converted("f32")

    def converted(self, outtype: str) -> Path:
        """Convert the checkpoint to a type."""
        out = self.folder / f"{outtype}.gguf"
        if not out.exists():
            self.converter.convert(self.case, self.checkpoint.folder, out, outtype)
        return out

    def logits_of(self, gguf: Path) -> np.ndarray:
        """Return what llama.cpp computes for the prompt, one row a token.

        Raises:
            RefusedError: it does not take the file.
        """
        to = self.folder / "rows.npy"
        request = {"gguf": str(gguf), "tokens": self.checkpoint.tokens, "kind": self.case.output, "to": str(to)}
        self._llama.ask(request)
        return np.asarray(np.load(to))

    def agreement_of(self, gguf: Path) -> Agreement:
        """Compare what llama.cpp computes with what transformers computes."""
        return agreement(self.logits_of(gguf), self.checkpoint.expected, self.checkpoint.positions)

    def notices(self, gguf: Path) -> bool:
        """Tell whether a wrong file is found out."""
        try:
            return not self.agreement_of(gguf).holds
        except RefusedError:
            return True

    def unnoticed_hparams(self) -> tuple[list[str], int]:
        """Change one hparam at a time; return what was not found out, or wrongly called inert, and how many were tried.

        An hparam counts as found out if one of its other values is.
        """
        edited, changed = Edited(self.gguf), self.folder / "changed.gguf"
        prefix = f"{edited.values['general.architecture']}."
        wrong, n = [], 0
        for key in edited.hparams():
            name = key.removeprefix(prefix)
            if name in LIMITS:
                continue
            n += 1
            tried = []
            for value in changes(edited.values[key]):
                tried.append(value)
                edited.write(key, value, changed)
                if self.notices(changed):
                    break
            else:
                if name not in self.case.inert:
                    wrong.append(f"{key} = {_short(edited.values[key])} may be {' or '.join(map(_short, tried))}")
                continue
            if name in self.case.inert:
                wrong.append(f"{key} is listed as inert, yet {_short(tried[-1])} is noticed")
        unknown = set(self.case.inert) - {key.removeprefix(prefix) for key in edited.hparams()}
        return wrong + [f"{prefix}{key} is listed as inert and not in the file" for key in sorted(unknown)], n

    def try_rules(self, noticed: dict[str, bool]) -> None:
        """Convert by the entry with one tensor rule left out, each that was not noticed yet; note which are now."""
        entry = self.converter.entry_of(self.case)
        changed = self.folder / "changed.gguf"
        for i, rule in enumerate(entry.tensors):
            if noticed.setdefault(rule.name, False):
                continue
            without = replace(entry, tensors=(*entry.tensors[:i], *entry.tensors[i + 1 :]))
            changed.unlink(missing_ok=True)
            try:
                self.converter.convert(self.case, self.checkpoint.folder, changed, "f32", without)
                noticed[rule.name] = self.notices(changed)
            except Exception:  # whatever it is that stops the conversion
                noticed[rule.name] = True

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}…"
