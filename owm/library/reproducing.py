"""Making a model again from what its manifest says, by the road that made it, to compare the two byte for byte."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.errors import ModelNotFound, Unsupported
from owm.events import Sink, ignore
from owm.library import comparing, provenance, quantizing, recipes
from owm.library.comparing import Difference
from owm.library.provenance import Lineages, hash_files
from owm.library.quantizing import Source
from owm.library.recipes import CONVERT, COPIES, FOREIGN, Options, Recipe
from owm.library.retrieving import find_imatrix, short_name
from owm.quantize.quantization import Quantization
from owm.store import refs
from owm.store.model import StoredModel

if TYPE_CHECKING:
    from owm.convert.conversion import Conversion
    from owm.native.guard import Child
    from owm.pipeline.plan import Plan
    from owm.store.local import Store


@dataclass(frozen=True, slots=True)
class Target:
    """A model that is to be made again, as it is recorded.

    Attributes:
        files: sha256 of each, its certificate blanked.
        differs: versions that made it and are others here, as (what, recorded, here).
        notes: what is not known and was assumed.
        is_unchecked: only a manifest beside the file says how it was made, and anybody may have written that.
    """

    model: StoredModel
    name: str
    own_name: str
    made_from: Mapping[str, Any]
    recipe: Recipe
    files: tuple[str, ...]
    differs: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    is_unchecked: bool = False


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A model planned again, ready to be written."""

    target: Target
    source: Source
    plan: "Plan"
    planned: Quantization | None
    conversion: "Conversion | None"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it. `is_identical` goes by the recorded sha256; `difference` is None where there are no bytes."""

    is_identical: bool
    difference: Difference | None
    sha256s: tuple[str, ...]
    size_bytes: int


def find_target(name: str, store: "Store", *, sink: Sink = ignore) -> Target:
    """Find what is recorded of how a model was made: a stored one, or a file that owm made.

    Raises:
        ModelNotFound: there is no such model, or nothing says how it was made.
        Unsupported: another program made it.
        Damaged: what is recorded cannot be right, or is not to be trusted.
        UsageError: what is recorded names no model.
    """
    is_unchecked = False
    lineages = Lineages(store)
    model = provenance.find(name, store, lineages)
    known = model.manifest
    shown = store.shown_name(model)
    if known is not None:
        made_from, own_name = known.made_from, known.name
        files = tuple(file.sha256 for file in known.files)
    else:
        hashed = hash_files(model.files, sink=sink)
        files = tuple(file.sha256 or "" for file in hashed)
        noted = lineages.found(hashed)
        if noted is None or noted.made_from is None:
            noted = provenance.beside(model.path, hashed)
            is_unchecked = noted is not None
        made_from, own_name = None, ""
        if noted is not None and noted.made_from is not None:
            made_from, own_name = dict(noted.made_from), noted.name
            if is_unchecked:  # a manifest that is exported has the name with which the model is listed
                own_name = refs.parse(noted.ref).name
    if made_from is None:
        is_published = known is not None and known.source != "local"
        raise ModelNotFound(
            f"{shown} was not made here: it is as it was published"
            if is_published
            else f"nothing on this machine says how {shown} was made",
            ref=name,
            hint=f"`owm show {name} --provenance` shows what is known",
        )
    recipe = recipes.read(made_from, shown)
    if is_unchecked:
        recipes.check_patterns(recipe, shown)
    if recipe.action == FOREIGN:
        raise Unsupported(
            f"{shown} was made by another program, which owm cannot run again: {recipe.by or 'not named'}",
            hint="run that converter again, and compare",
        )
    if recipe.action in COPIES:
        raise Unsupported(
            f"{shown} holds what it was made of as it is, in other files",
            hint=f"`owm show {name} --provenance` names that: make that again",
        )
    here = recipes.versions()
    said = recipe.versions or {}
    differs = tuple((what, said[what], here[what]) for what in here if what in said and said[what] != here[what])
    notes = []
    if is_unchecked:
        notes.append(f"of {shown} {provenance.BESIDE}")
    if not said:
        notes.append("its manifest, an older owm's, does not say which versions made it")
    if recipe.options is None:
        notes.append("its manifest, an older owm's, does not say with which options it was made: none are assumed")
    return Target(model, shown, own_name, made_from, recipe, files, differs, tuple(notes), is_unchecked)


def plan(
    target: Target,
    source: Source,
    child: "Child",
    store: "Store",
    *,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> Rebuilt:
    """Plan a model again as it was planned before; an importance matrix that is gone is computed again.

    Raises:
        ModelNotFound, Damaged: the importance matrix, or its text, is not here or is another.
    """
    options = target.recipe.options or Options()
    if target.recipe.action == CONVERT:
        from owm.convert import conversion

        assert source.conversion is not None
        converted = conversion.plan_conversion(
            source.conversion.checkpoint,
            type_name=target.recipe.type_name,
            name=short_name(target) if "checkpoint" in target.made_from else None,
            pre=options.pre,
            split_max_bytes=options.layout.split_max_bytes,
        )
        return Rebuilt(target, source, converted.plan, None, converted)
    imatrix, notes = find_imatrix(target, source, store, n_threads=n_threads, sink=sink)
    if target.recipe.tailored is not None:
        from owm.library import tailoring
        from owm.tailor.recipe_file import Tailored

        base = tailoring.plan_base(source, child, imatrix, allow_requantize=options.allow_requantize)
        planned = tailoring.planned(
            source,
            Tailored(target.recipe.tailored, 0, 0),
            base,
            imatrix=imatrix,
            allow_requantize=options.allow_requantize,
            layout=options.layout,
        )
    else:
        planned = quantizing.plan(
            source,
            [target.recipe.type_name],
            child,
            overrides=options.overrides,
            imatrix=imatrix,
            allow_requantize=options.allow_requantize,
            layout=options.layout,
        )[0]
    return Rebuilt(target, source, planned.plan, planned, None, notes)


def execute(
    rebuilt: Rebuilt,
    child: "Child",
    store: "Store",
    *,
    memory_bytes: int | None = None,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> Verdict:
    """Write a model again among the working files, compare it, and remove it.

    Raises:
        NotEnoughDisk, StoreError, Damaged: as the writer does.
    """
    with _place(rebuilt.plan, store) as paths:
        if rebuilt.conversion is not None:
            from owm.convert import conversion

            written = conversion.execute(rebuilt.conversion, paths, n_threads=n_threads, child=child, sink=sink)
        else:
            assert rebuilt.planned is not None
            written = quantizing.write(
                rebuilt.source,
                [rebuilt.planned],
                [paths],
                child,
                memory_bytes=memory_bytes,
                n_threads=n_threads,
                sink=sink,
            )[0]
        model = rebuilt.target.model
        sha256s = tuple(file.sha256 for file in written)
        difference = None if model.is_gone else comparing.first_difference(paths, model.files)
    is_identical = sha256s == rebuilt.target.files and difference is None
    return Verdict(is_identical, difference, sha256s, rebuilt.plan.n_bytes)


@contextmanager
def _place(planned: "Plan", store: "Store") -> Iterator[list[Path]]:
    """Give the paths of what is built, removed afterwards; what a killed process began is gone on with."""
    from owm.library.working import work_folder
    from owm.pipeline.parts import file_names

    folder, name = work_folder(store), f"reproduce-{planned.digest()[:12]}"
    paths = [folder / each for each in file_names(f"{name}.gguf", len(planned.files))]
    with store.lock(folder / name):
        try:
            yield paths
        except KeyboardInterrupt:  # what is written already is of use to the next try
            raise
        except BaseException:
            _remove(paths)
            raise
        _remove(paths)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
