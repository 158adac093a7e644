"""The two converters behind one call, so that each can be the one that is tried."""

from pathlib import Path
from typing import Any

from parity.case import Case
from parity.vocabularies import KINDS
from parity.worker import Worker


class ReferenceConverter:
    """llama.cpp's converter, in a process that has imported it once."""

    def __init__(self, tree: Path) -> None:
        self._worker = Worker("reference_worker", str(tree))

    def convert(self, case: Case, folder: Path, out: Path, outtype: str) -> None:
        """Convert a checkpoint.

        Raises:
            RefusedError: it does not take the checkpoint.
        """
        pre = KINDS[case.tokenizer].pre
        self._worker.ask({"folder": str(folder), "to": str(out), "type": outtype, "pre": pre}, timeout=180)

    def convert_adapter(self, adapter: Path, base: Path, out: Path, outtype: str) -> None:
        """Convert an adapter of a checkpoint; raises as `convert` does."""
        request = {"folder": str(adapter), "base": str(base), "to": str(out), "type": outtype}
        self._worker.ask(request, timeout=180)

    def entry_of(self, case: Case) -> None:
        """It has no table of architectures."""

    def close(self) -> None:
        """End the process."""
        self._worker.close()


class OwmConverter:
    """owm's converter, in this process."""

    def convert(self, case: Case, folder: Path, out: Path, outtype: str, entry: Any = None) -> None:
        """Convert a checkpoint, by another entry than the registered one if given."""
        from owm.convert.conversion import convert_folder

        changed = {} if entry is None else {"architecture": entry, "check": False}
        convert_folder(folder, out, type=outtype, **changed)

    def entry_of(self, case: Case) -> Any:
        """Return the entry of a case's class."""
        from owm.convert.architectures.registry import architectures

        return architectures()[case.hf]

    def close(self) -> None:
        """Nothing runs."""
