"""What the journal of a batch knows of each row: whether it is answered, and where."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from owm.batch.journal import Journal
from owm.batch.row import Record, Row


class Entry(NamedTuple):
    """The last record of a row; `digest` is the row's as a number, `is_cut` of an answer that was to have a shape."""

    digest: int
    offset: int
    has_failed: bool
    is_cut: bool


class Ledger:
    """The rows of a batch by model, as far as they are done; and, once they are read, all rows of its input in order.

    Attributes:
        keys: of the rows of the input that were read.
        fields: of the rows, in the order in which they turn up; they pass through to the output.
        runs: fingerprints of the records by model.
        n_changed: rows by model that were answered, but have changed since, as far as they were read.
    """

    def __init__(self, journal: Journal, models: Sequence[str]) -> None:
        """Read a journal.

        Where one model is asked, rows that others have answered before are done too, as `--append` wants it; where
        several are, records of further ones mean nothing.

        Raises:
            StoreError: it cannot be read.
        """
        self._journal = journal
        self._entries: dict[str, dict[str, Entry]] = {model: {} for model in models}
        self._hash = hashlib.blake2b(digest_size=16)
        self.keys: list[str] = []
        self.fields: dict[str, None] = {}
        self.runs: dict[str, set[str]] = {model: set() for model in models}
        self.n_changed = dict.fromkeys(models, 0)
        others: dict[str, Entry] = {}
        for offset, record in journal.scan():
            if record.model in self._entries:
                self._entries[record.model][record.key] = _entry(record, offset)
                self.runs[record.model].add(record.run)
            elif len(models) == 1:
                self.runs[models[0]].add(record.run)
                others[record.key] = _entry(record, offset)
        for key, entry in others.items():
            self._entries[models[0]].setdefault(key, entry)

    def open_rows(self, rows: Iterator[Row], model: str, *, is_first: bool) -> Iterator[Row]:
        """Yield the rows that a model has yet to answer: new, changed or failed ones.

        Args:
            is_first: the rows' keys are not known yet.
        """
        entries = self._entries[model]
        for row in rows:
            if is_first:
                self.keys.append(row.key)
                self.fields.update(dict.fromkeys(row.extra))
                self._hash.update(f"{row.key}\0{row.digest}\n".encode("utf-8", "surrogatepass"))
            entry = entries.get(row.key)
            if entry is None or entry.has_failed:
                yield row
            elif entry.digest != _number(row.digest):
                self.n_changed[model] += 1
                yield row

    def put(self, record: Record) -> None:
        """Journal a record, unless it says of a failed row what is known already.

        Raises:
            NotEnoughDisk, StoreError: it cannot be written.
        """
        entries = self._entries[record.model]
        before = entries.get(record.key)
        if record.failure is not None and before is not None and before.has_failed:
            known = self._journal.read(before.offset)
            if (known.failure, known.digest, known.run) == (record.failure, record.digest, record.run):
                return
        entries[record.key] = _entry(record, self._journal.append(record))

    def n_done(self, model: str) -> int:
        """Count the rows that a model has answered."""
        return sum(not entry.has_failed for entry in self._entries[model].values())

    def n_failed(self) -> int:
        """Count the answers to the input's rows that are missing."""
        return sum(entry.has_failed for entry in self._of_input())

    def n_cut(self) -> int:
        """Count the answers to the input's rows that were to have a shape, and were cut before it was complete."""
        return sum(entry.is_cut for entry in self._of_input())

    def _of_input(self) -> Iterator[Entry]:
        for entries in self._entries.values():
            for key in self.keys:
                if (entry := entries.get(key)) is not None:
                    yield entry

    def fingerprint(self) -> str:
        """Return 32 hex digits that stand for the rows of the input and their order."""
        return self._hash.hexdigest()

    def rows(self, *, as_done: bool) -> Iterator[list[Record]]:
        """Yield the records of each row of the input, one for each model, in its order or in that of the journal.

        Raises:
            Damaged, StoreError: the journal cannot be read.
        """
        keys = self.keys
        if as_done:
            offsets = {key: max(e[key].offset for e in self._entries.values() if key in e) for key in keys}
            keys = sorted(keys, key=offsets.__getitem__)
        for key in keys:
            yield [self._journal.read(entries[key].offset) for entries in self._entries.values() if key in entries]


def _entry(record: Record, offset: int) -> Entry:
    answer = record.answer
    return Entry(_number(record.digest), offset, answer is None, answer is not None and bool(answer.get("is_cut")))


def _number(digest: str) -> int:
    return int(digest or "0", 16)
