"""Batches: thousands of rows through one model or several, with a journal that outlives whatever happens meanwhile."""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from owm.batch.journal import SYNC_SECONDS, Journal, journal_path
from owm.batch.ledger import Ledger
from owm.batch.manifest import RunManifest, RunModel, differences, manifest_path, sha256_for
from owm.batch.preparation import Terms
from owm.batch.reading import InputForm, Rows, read_rows
from owm.batch.row import Record, Row
from owm.batch.runner import Runner, Tally
from owm.batch.writing import OutputForm, find_form, write_rows
from owm.errors import OwmError, UsageError
from owm.library.batch_files import check_errors, check_output, count_rows, is_file, replaced
from owm.native.llama import library_build
from owm.settings.keys import MAX_SEED
from owm.store.digest import sha256_of

if TYPE_CHECKING:
    from typing import BinaryIO

    from owm.engine.model import Model
    from owm.engine.wishes import Wishes
    from owm.store.model import StoredModel

Order = Literal["input", "done"]


class TooManyFailures(OwmError):
    """So many rows have failed that the batch was stopped; what was answered is kept."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be done.

    Attributes:
        source: the rows, None for stdin.
        output: where the answers go, None for stdout.
        template: the prompt, with places for the rows' fields.
        seed: of the run; None draws one, but takes that of the run which is continued.
        n_parallel: rows at a time, None for as many as measuring finds best.
        errors: takes the failed rows, which are then left out of the output.
        max_errors: so many failed rows stop the batch.
        restarts: whatever was there before is forgotten.
        appends: what was answered under other settings stays as it is.
    """

    source: Path | None
    output: Path | None
    input_form: InputForm | None = None
    output_form: OutputForm | None = None
    template: str | None = None
    is_raw: bool = False
    seed: int | None = None
    n_parallel: int | None = None
    is_deterministic: bool = False
    order: Order = "input"
    errors: Path | None = None
    max_errors: int | None = None
    restarts: bool = False
    appends: bool = False


@dataclass(frozen=True, slots=True)
class BatchModel:
    """A model that answers.

    Attributes:
        name: in the output.
        settings: what of its settings answers depend on, by name.
        open: loads it.
        system: the system prompt of rows without one of their own.
    """

    name: str
    stored: "StoredModel"
    wishes: "Wishes"
    settings: Mapping[str, Any]
    open: "Callable[[], AbstractContextManager[Model]]"
    system: str | None = None


@dataclass(slots=True)
class Progress:
    """How far a batch is.

    Attributes:
        n_rows: of the input, for one model; None while they are not known.
        n_before: answered in earlier runs.
        n_changed: of these, rows that are answered again since they have changed.
        seconds: of answering.
    """

    model: str
    n_rows: int | None = None
    n_before: int = 0
    n_changed: int = 0
    tally: Tally = field(default_factory=Tally)
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def n_done(self) -> int:
        """Rows that are done, failed ones too; what was answered earlier may have left the input since."""
        n_done = self.n_before - self.n_changed + self.tally.n_rows
        return n_done if self.n_rows is None else min(n_done, self.n_rows)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a batch: one progress for each model that had something to do."""

    n_rows: int
    n_failed: int
    n_cut: int
    seed: int
    parts: tuple[Progress, ...]


Tell = Callable[[Progress], None]


def check_batch(batch: Batch, *, n_models: int) -> None:
    """Refuse what cannot work, before a model is looked for and before anything is written.

    Raises:
        NotFound, UsageError: the input is not there or cannot be used, or a file would be written over.
    """
    if batch.output is not None:
        check_output(Path(os.path.realpath(batch.output)), batch)
    else:
        check_errors(batch)
    if is_file(batch.source):
        open_rows(batch, None).close()
    elif n_models > 1:
        raise UsageError(
            f"each model reads the rows anew, and {batch.source or 'stdin'} can be read only once",
            hint="write the rows to a file first",
        )


def run_batch(
    batch: Batch,
    models: Sequence[BatchModel],
    *,
    stdin: "BinaryIO | None" = None,
    note: Callable[[str], None] = lambda message: None,
    tell: Tell = lambda progress: None,
) -> Outcome:
    """Answer all rows, go on where an earlier run was stopped, and write the output when all of them are done.

    Args:
        note: takes sentences that the user should know.
        tell: is told often how far it is.

    Raises:
        UsageError: the output is there already and not this batch's, or what was answered is of another model or of
            other settings.
        TooManyFailures: as the batch wants it.
        StoreError, NotEnoughDisk: the journal or the output cannot be written. What is in the journal stays.
        OwmError: the rows cannot be read, or a model cannot be loaded.
    """
    assert batch.output is not None
    output = Path(os.path.realpath(batch.output))
    check_batch(batch, n_models=len(models))
    with Journal.open(journal_path(output)) as journal:
        if batch.restarts:
            journal.restart()
        elif journal.n_damaged:
            note(f"{journal.n_damaged} damaged lines of {journal.path} are passed over")
        previous = None if batch.restarts else RunManifest.load(manifest_path(output))
        ledger = Ledger(journal, [model.name for model in models])
        manifest = _manifest(batch, models, previous)
        _check_same(manifest, previous, journal, ledger, batch)
        if previous is None and journal.n_records and batch.seed is None and not batch.is_deterministic:
            note("the manifest is gone, so rows that are not answered yet are drawn with another seed than before")
        if previous is None or batch.appends or not journal.n_records:
            manifest.save(manifest_path(output))
        return _Job(batch, output, manifest, journal, ledger, note, tell).run(models, stdin)


class _Job:
    """A batch whose journal is open."""

    def __init__(
        self,
        batch: Batch,
        output: Path,
        manifest: RunManifest,
        journal: Journal,
        ledger: Ledger,
        note: Callable[[str], None],
        tell: Tell,
    ) -> None:
        self._batch = batch
        self._output = output
        self._manifest = manifest
        self._journal = journal
        self._ledger = ledger
        self._note = note
        self._tell = tell
        self._n_failed = 0
        self._synced_at = time.monotonic()

    def run(self, models: Sequence[BatchModel], stdin: "BinaryIO | None") -> Outcome:
        """Answer what is open, then write the output."""
        parts = []
        for number, model in enumerate(models):
            with open_rows(self._batch, stdin) as rows:
                form, columns = rows.form, rows.columns
                progress = Progress(model.name, n_before=self._ledger.n_done(model.name))
                progress.n_rows = len(self._ledger.keys) if number else count_rows(self._batch.source, rows)
                is_open = self._answer(model, rows, progress, is_first=not number)
            if is_open:
                parts.append(progress)
        self._write(self._batch.output_form or find_form(self._output, form), columns, models)
        ledger = self._ledger
        return Outcome(len(ledger.keys), ledger.n_failed(), ledger.n_cut(), self._manifest.seed, tuple(parts))

    def _answer(self, model: BatchModel, rows: Rows, progress: Progress, *, is_first: bool) -> bool:
        """Let one model answer the rows that it has not answered; return whether there were any."""
        run = self._manifest.fingerprints[model.name]
        still_open = self._ledger.open_rows(rows, model.name, is_first=is_first)
        for row in still_open:
            if row.failure is None:
                break
            progress.tally.n_rows += 1
            progress.tally.n_failed += 1
            self._put(_refused(row, model.name, run), progress)
        else:
            return False
        terms = terms_of(self._batch, model, run=run, seed=self._manifest.seed)
        with model.open() as opened:
            progress.began = time.monotonic()
            runner = Runner(opened, terms, progress.tally, note=self._note, tick=lambda: self._tick(progress))
            with closing(runner.answers(chain((row,), still_open))) as records:
                try:
                    for record in records:
                        self._put(record, progress)
                except (KeyboardInterrupt, TooManyFailures):
                    for record in runner.rest():
                        self._ledger.put(record)
                        self._tick(progress)
                    raise
        return True

    def _put(self, record: Record, progress: Progress) -> None:
        self._ledger.put(record)
        self._tick(progress)
        if record.failure is not None:
            self._n_failed += 1
            if self._batch.max_errors is not None and self._n_failed >= self._batch.max_errors:
                raise too_many(self._n_failed, record, hint="what was answered is kept; the same command goes on")

    def _tick(self, progress: Progress) -> None:
        now = time.monotonic()
        progress.seconds = now - progress.began
        progress.n_changed = self._ledger.n_changed[progress.model]
        if now - self._synced_at >= SYNC_SECONDS:
            self._synced_at = now
            self._journal.sync()
        self._tell(progress)

    def _write(self, form: OutputForm, columns: tuple[str, ...], models: Sequence[BatchModel]) -> None:
        """Write the output from the journal, unless it is there as it would be written."""
        batch, output = self._batch, self._output
        about = {
            "rows": self._ledger.fingerprint(),
            "models": [model.name for model in models],
            "form": form,
            "order": batch.order,
            "errors": None if batch.errors is None else str(batch.errors.absolute()),
        }
        written = self._journal.last_written
        if written is not None and about == {name: written.get(name) for name in about}:
            files = {output: written.get("size"), batch.errors: written.get("errors_size")}
            if all(path is None or _size(path) == size for path, size in files.items()):
                return
        rows = self._ledger.rows(as_done=batch.order == "done")
        with replaced(batch.errors) as errors, replaced(output) as file:
            assert file is not None
            names = [model.name for model in models] if len(models) > 1 else []
            fields = tuple(self._ledger.fields)
            write_rows(rows, file, form, models=names, columns=columns or None, fields=fields, errors=errors)
        sizes = {"size": _size(output), "errors_size": None if batch.errors is None else _size(batch.errors)}
        self._journal.mark_written({**about, **sizes})


def too_many(n_failed: int, last: Record, *, hint: str | None = None) -> TooManyFailures:
    """Say that a batch was stopped, and why the last row has failed."""
    reason = "" if last.failure is None else f": {last.failure.message}"
    name = last.number if last.id is None else last.id
    return TooManyFailures(
        f"stopped after {n_failed} failed row{'s' * (n_failed > 1)}, the last one is {name}{reason}", hint=hint
    )


def open_rows(batch: Batch, stdin: "BinaryIO | None") -> Rows:
    """Open the input of a batch; see `owm.batch.reading.read_rows`."""
    return read_rows(batch.source, form=batch.input_form, template=batch.template, is_raw=batch.is_raw, stdin=stdin)


def terms_of(batch: Batch, model: BatchModel, *, run: str, seed: int) -> Terms:
    """Return what holds for all rows that a model answers."""
    return Terms(
        model.name,
        run,
        model.wishes,
        seed,
        system=model.system,
        n_parallel=batch.n_parallel,
        is_deterministic=batch.is_deterministic,
    )


def seed_of_run(batch: Batch, previous: RunManifest | None) -> int:
    """Return the seed of a run: as it was asked for, or as it was before, else a new one."""
    if batch.seed is not None:
        return batch.seed
    if previous is not None:
        return previous.seed
    return 0 if batch.is_deterministic else secrets.randbelow(MAX_SEED + 1)


def _manifest(batch: Batch, models: Sequence[BatchModel], previous: RunManifest | None) -> RunManifest:
    """Describe the run as it would be now."""
    settings: dict[str, Any] = {}
    for name in dict.fromkeys(name for model in models for name in model.settings):
        values = {model.name: model.settings.get(name) for model in models}
        if all(value == values[models[0].name] for value in values.values()):
            settings[name] = values[models[0].name]
        else:
            settings |= {f"{name} of {model}": value for model, value in values.items()}
    found = [_run_model(model, previous) for model in models]
    seed = seed_of_run(batch, previous)
    return RunManifest.begin(str(batch.source or "-"), found, settings, seed=seed, library_build=library_build())


def _run_model(model: BatchModel, previous: RunManifest | None) -> RunModel:
    """Say which bytes a model is."""
    stored = model.stored
    path = Path(os.path.realpath(stored.path))
    if stored.manifest is not None:
        sha256 = _joined([file.sha256 for file in stored.manifest.files])
        return RunModel(model.name, str(path), sha256, stored.size_bytes, 0)
    mtime_ns = max(file.stat().st_mtime_ns for file in stored.files)
    sha256 = sha256_for(
        path, stored.size_bytes, mtime_ns, previous, lambda _: _joined([sha256_of(file) for file in stored.files])
    )
    return RunModel(model.name, str(path), sha256, stored.size_bytes, mtime_ns)


def _joined(digests: Sequence[str]) -> str:
    """Return one sha256 for all files of a model."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _check_same(
    manifest: RunManifest, previous: RunManifest | None, journal: Journal, ledger: Ledger, batch: Batch
) -> None:
    """Refuse to go on with what was made otherwise."""
    if batch.appends or not journal.n_records:
        return
    hint = "`--restart` begins anew, `--append` keeps what is answered and goes on with what holds now"
    if previous is not None and (found := differences(previous, manifest)):
        raise UsageError(f"the answers so far are from another run: {'; '.join(found)}", hint=hint)
    for model, runs in ledger.runs.items():
        if previous is None and runs - {manifest.fingerprints[model]}:
            raise UsageError(f"the answers of {model} so far are from another run", hint=hint)


def _refused(row: Row, model: str, run: str) -> Record:
    return Record(row.number, row.key, row.id, row.form, row.digest, model, run, row.extra, failure=row.failure)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
