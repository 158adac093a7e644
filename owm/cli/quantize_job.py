"""The steps of `owm quantize`: planning (with what that needs computed first), writing, measuring, reporting."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from owm.cli import report
from owm.cli.output import Output
from owm.cli.progress import progress
from owm.errors import UsageError
from owm.formats.imatrix import Imatrix
from owm.library import quantizing, recipes
from owm.library.quantizing import Source
from owm.quantize.quantization import Layout, Quantization, default_type
from owm.quantize.recipe import Overrides
from owm.units import format_bytes

if TYPE_CHECKING:
    from owm.native.guard import Child
    from owm.quality.calibration import Calibration
    from owm.quality.figures import Divergence
    from owm.quality.texts import Text
    from owm.store.local import Store
    from owm.store.model import StoredModel
    from owm.tailor.recipe_file import Tailored

INTERRUPTED = "interrupted; the same command goes on from the last finished tensor"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for; `importance` is an importance matrix or the text to compute one from."""

    types: tuple[str, ...]
    target_sizes: tuple[int, ...]
    bpws: tuple[float, ...]
    fit_n_ctx: int | None
    recipe: Path | None
    overrides: Overrides
    allow_requantize: bool
    layout: Layout
    importance: "Imatrix | Calibration | None"
    quality: bool
    text: "Text | None"

    @property
    def is_tailored(self) -> bool:
        """Whether types have to be chosen."""
        return bool(self.target_sizes or self.bpws or self.fit_n_ctx is not None)

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            UsageError: something does not.
        """
        for bits in self.bpws:
            if not 0 < bits <= 32:
                raise UsageError(f"--bpw must be between 0 and 32: {bits:g}")
        if (self.is_tailored or self.recipe is not None) and self.overrides != Overrides():
            raise UsageError(
                "types that are chosen for a size cannot be overridden", hint="edit the recipe: `--recipe`"
            )


@dataclass(frozen=True, slots=True)
class Resources:
    """What may be used."""

    n_threads: int | None
    memory_bytes: int | None


@dataclass(slots=True)
class Job:
    """One source on its way to some types."""

    source: Source
    wanted: Wanted
    resources: Resources
    child: "Child"
    store: "Store"
    out: Output
    stack: ExitStack
    is_dry: bool
    planned: list[Quantization] = field(default_factory=list)
    tailored: "dict[str, Tailored]" = field(default_factory=dict)
    models: "list[StoredModel]" = field(default_factory=list)
    seconds: float = 0.0
    figures: "list[Divergence]" = field(default_factory=list)
    _runnable: list[Path] = field(default_factory=list)
    _sha256s: dict[Path, str] = field(default_factory=dict)
    _used: Imatrix | None = None
    _used_record: dict[str, Any] | None = None

    def plan(self) -> None:
        """Find out what will be written; an importance matrix and trials that this takes are made here."""
        wanted, imatrix = self.wanted, self._imatrix()
        self._used = imatrix
        types = list(wanted.types)
        if not types and not wanted.is_tailored and wanted.recipe is None:
            types = [default_type(self.source.plan)]
        if types:
            self.planned = quantizing.plan(
                self.source,
                types,
                self.child,
                overrides=wanted.overrides,
                imatrix=imatrix,
                assumed=self._assumed_imatrix() if imatrix is None else None,
                allow_requantize=wanted.allow_requantize,
                layout=wanted.layout,
            )
        if wanted.recipe is not None or wanted.is_tailored:
            self._tailor(imatrix)
        self._warn()

    def write(self, paths: Sequence[Sequence[Path]] | None) -> None:
        """Say what will be written, and write it into the store or to `paths`."""
        from owm.native.ggml import unheard

        types = ", ".join(f"{each.label} ({format_bytes(each.plan.n_bytes)})" for each in self.planned)
        self.out.note(f"quantizing {self.source.name} to {types}")
        began = perf_counter()
        options: dict[str, Any] = {
            "n_threads": self.resources.n_threads,
            "memory_bytes": self.resources.memory_bytes,
        }
        try:
            with progress(self.out) as sink, unheard():
                if paths is None:
                    self.models = quantizing.store(
                        self.source, self.planned, self.child, self.store, made_by=self._made_by, sink=sink, **options
                    )
                else:
                    written = quantizing.write_noted(
                        self.source,
                        self.planned,
                        paths,
                        self.child,
                        self.store,
                        made_by=self._made_by,
                        sink=sink,
                        **options,
                    )
        except KeyboardInterrupt:
            self.out.note(INTERRUPTED)
            raise
        self.seconds = perf_counter() - began
        if paths is not None:
            self._note_files(paths, [[file.sha256 for file in files] for files in written])
        self._save_recipes()

    def measure(self) -> None:
        """Measure what was lost against the source, and record it."""
        if not self.wanted.quality:
            return
        from owm.library import certifying
        from owm.quality import divergence
        from owm.store.model import StoredModel

        files = self._files()
        try:
            with progress(self.out) as sink:
                self.figures = divergence.compare_many(
                    files,
                    [model.files for model in self.models],
                    self.wanted.text,
                    n_threads=self.resources.n_threads,
                    sink=sink,
                )
                if not certifying.is_original(files):
                    return
                reference = StoredModel(self.source.name, None, tuple(files))
                sha256 = certifying.sha256_of_model(reference, sink=sink)
        except KeyboardInterrupt:
            self.out.note("interrupted; the files are written, their quality was not measured: `owm quality` does")
            raise
        for model, figures in zip(self.models, self.figures, strict=True):
            certifying.certify(model, figures, reference=self.source.name, reference_sha256=sha256, store=self.store)

    def report(self, plot: Path | None) -> None:
        """Say what came of it."""
        from owm.cli.listing import record

        rows = [
            report.Measured(each.label, each.plan.n_bytes, 8 * each.plan.n_bytes / each.plan.n_params, self.seconds)
            for each in self.planned
        ]
        for index, found in enumerate(self.figures):
            mean = found.kld_mean
            rows[index] = replace(
                rows[index],
                kld=mean.value,
                kld_interval=(mean.low, mean.high),
                perplexity=found.perplexity.value,
                top1=found.top1_agreement.value,
            )
        if any(model.manifest is not None for model in self.models):
            self.out.note(f"stored {', '.join(self.store.shown_name(model) for model in self.models)}")
        records: list[dict[str, Any]] = []
        for model, row in zip(self.models, report.records(rows), strict=True):
            records.append({**record(model, self.store), **self._record_files(model), **row})
        self.out.data(records, lines=[str(path) for model in self.models for path in model.files])
        if not self.out.as_json:
            report.say(rows, self.out)
        if plot is not None:
            report.plot(rows, plot, title=self.source.name)
            self.out.note(f"drawn: {plot}")

    # -- what planning needs ---------------------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        """Return the source as files that run."""
        if not self._runnable:
            from owm.library.working import runnable

            if not self.source.files:
                size = format_bytes(self.source.plan.n_bytes)
                self.out.note(f"converting {self.source.name} to a temporary file that runs ({size})")
            with progress(self.out) as sink:
                files = runnable(self.source, self.store, n_threads=self.resources.n_threads, sink=sink)
                self._runnable = self.stack.enter_context(files)
        return self._runnable

    @property
    def _calibration(self) -> "Calibration | None":
        """The text that the importance matrix comes from, if it is computed here."""
        importance = self.wanted.importance
        if importance is None and self.wanted.is_tailored:
            from owm.quality.calibration import bundled

            return bundled()
        return None if isinstance(importance, Imatrix) else importance

    def _imatrix(self) -> Imatrix | None:
        """Return the importance matrix; none for a dry run that would have to compute it only for its numbers."""
        importance = self._calibration or self.wanted.importance
        if importance is None or isinstance(importance, Imatrix):
            return importance
        if self.is_dry and not self.wanted.is_tailored:
            return None
        from owm.library.working import find_imatrix, forget, imatrix_of

        if (known := find_imatrix(self.source, importance, self.store)) is not None:
            self.out.detail(f"using the importance matrix computed before: {known.path}")
            self.stack.callback(forget, self.source, self.store)
            return known
        files = self._files()
        self.out.note(f"computing an importance matrix from {importance.name}")
        with progress(self.out) as sink:
            return imatrix_of(self.source, files, importance, self.store, n_threads=self.resources.n_threads, sink=sink)

    def _assumed_imatrix(self) -> Imatrix | None:
        """Return what will be known of the importance matrix that a dry run does not compute."""
        importance = self.wanted.importance
        if not self.is_dry or importance is None or isinstance(importance, Imatrix):
            return None
        from owm.library.working import imatrix_path

        return Imatrix({}, (importance.name,), n_chunks=1, path=imatrix_path(self.source, importance, self.store))

    def _tailor(self, imatrix: Imatrix | None) -> None:
        """Choose types for each target, or take those of a recipe."""
        from owm.cli.choices import say_choices
        from owm.library import tailoring
        from owm.tailor.choice import check_target
        from owm.tailor.recipe_file import read_recipe

        wanted = self.wanted
        base = tailoring.plan_base(self.source, self.child, imatrix, allow_requantize=wanted.allow_requantize)
        chosen = [] if wanted.recipe is None else [read_recipe(wanted.recipe.expanduser())]
        if wanted.is_tailored:
            targets = self._targets(base)
            for target in targets:
                check_target(base.plan, target)
            files = self._files()
            self.out.note("measuring what each kind of tensor loses")
            with progress(self.out) as sink:
                rated, trials = tailoring.rate_types(
                    base, files, tailoring.trial_text(), self.store, n_threads=self.resources.n_threads, sink=sink
                )
                with trials:
                    chosen += [
                        tailoring.choose(
                            rated, self.source, target, self.child, has_imatrix=imatrix is not None, sink=sink
                        )
                        for target in targets
                    ]
        for tailored in chosen:
            made = tailoring.planned(
                self.source,
                tailored,
                base,
                imatrix=imatrix,
                assumed=self._assumed_imatrix() if imatrix is None else None,
                allow_requantize=wanted.allow_requantize,
                layout=wanted.layout,
            )
            if any(known.types == tailored.types for known in self.tailored.values()):
                self.out.note(f"{made.label} was chosen already")
                continue
            made = self._apart(made)
            self.planned.append(made)
            self.tailored[made.label] = tailored
            if tailored.table and not self.out.as_json:
                say_choices(made.label, tailored, self.out)

    def _apart(self, made: Quantization) -> Quantization:
        """Give a choice a label that no other of this command has."""
        labels = {each.label for each in self.planned}
        bits = 8 * made.plan.n_bytes / max(1, made.plan.n_params)
        found = next((text for n in range(2, 7) if (text := f"{bits:.{n}f}BPW") not in labels), None)
        if found is None:
            raise UsageError(f"two recipes come to {made.label}", hint="make one after the other")
        return replace(made, label=found)

    def _targets(self, base: Quantization) -> list[int]:
        from owm.library import tailoring

        targets = [*self.wanted.target_sizes, *(int(bits * base.plan.n_params / 8) for bits in self.wanted.bpws)]
        if self.wanted.fit_n_ctx is not None:
            target = tailoring.fitting_bytes(self.source, self.wanted.fit_n_ctx)
            self.out.note(f"this machine can hold {format_bytes(target)} with a context of {self.wanted.fit_n_ctx}")
            targets.append(target)
        if any(target >= base.plan.n_bytes for target in targets):
            self.out.note(f"Q8_0 is the best that is chosen: {format_bytes(base.plan.n_bytes)}")
        return [min(target, base.plan.n_bytes) for target in targets]

    def _warn(self) -> None:
        again = {
            tensor.name: tensor.rows.dtype
            for each in self.planned
            for tensor in each.plan.tensors
            if tensor.reason.endswith("again")
        }
        if again:
            kinds = ", ".join(sorted(set(again.values())))
            self.out.warn(
                f"{len(again)} tensors of {self.source.name} are quantized already ({kinds}): what that lost stays lost"
            )

    # -- what is kept ----------------------------------------------------------------------------------------------

    def _made_by(self, planned: Quantization) -> dict[str, object]:
        wanted, tailored = self.wanted, self.tailored.get(planned.label)
        options = recipes.Options(wanted.overrides, wanted.allow_requantize, wanted.layout, self.source.pre)
        made: dict[str, object] = {"options": options.record(), "imatrix": self._imatrix_record()}
        return made if tailored is None else made | {"recipe": tailored.document()}

    def _imatrix_record(self) -> dict[str, Any] | None:
        if self._used is None:
            return None
        if self._used_record is None:
            from owm.library.working import n_chunks_of

            text = self._calibration
            self._used_record = recipes.imatrix_record(self._used, text, None if text is None else n_chunks_of(text))
        return self._used_record

    def _note_files(self, paths: Sequence[Sequence[Path]], sha256s: list[list[str]]) -> None:
        from owm.store.model import StoredModel

        for each, files, shas in zip(self.planned, paths, sha256s, strict=True):
            self.models.append(StoredModel(str(files[0]), each.label, tuple(files)))
            self._sha256s |= dict(zip(files, shas, strict=True))

    def _record_files(self, model: "StoredModel") -> dict[str, Any]:
        """Say which files lie where `-o` said; those in the store are in its manifest."""
        if model.manifest is not None or not self.out.as_json:
            return {}
        from owm.store.digest import sha256_of

        return {
            "files": [
                {
                    "path": str(path),
                    "size_bytes": path.stat().st_size,
                    # A certificate has changed the first file since it was written.
                    "sha256": sha256_of(path) if self.figures else self._sha256s[path],
                    "role": "shard" if index else "model",
                }
                for index, path in enumerate(model.files)
            ]
        }

    def _save_recipes(self) -> None:
        """Write each chosen recipe beside its file."""
        if not self.tailored:
            return
        from owm.tailor.recipe_file import write_recipe

        for each, model in zip(self.planned, self.models, strict=True):
            if (tailored := self.tailored.get(each.label)) is not None:
                path = model.path.with_name(f"{model.path.stem}.recipe.json")
                given = self.wanted.recipe
                if given is not None and path.exists() and path.samefile(given.expanduser()):
                    continue  # it says more than what was read of it
                write_recipe(tailored, path)
                self.out.note(f"recipe: {path}")
