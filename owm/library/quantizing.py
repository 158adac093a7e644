"""Quantizing for the command line and for Python: a source found, planned in some types, written from one reading."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from owm.errors import Damaged
from owm.events import Sink, ignore
from owm.formats.gguf_writer import RawValue, Value
from owm.formats.imatrix import Imatrix
from owm.library import made, recipes
from owm.library.keeping import Origin, keep_all, stem_of
from owm.library.parents import Parents
from owm.library.recipes import Options
from owm.native.guard import Child, Loaded
from owm.pipeline.hollow import hollow_file
from owm.pipeline.model_file import identity, open_model_file
from owm.pipeline.plan import Plan
from owm.quality import certificate
from owm.quantize import estimate, quantization
from owm.quantize.quantization import Layout, Quantization
from owm.quantize.recipe import Overrides
from owm.quantize.types import file_type
from owm.store.model import StoredModel

if TYPE_CHECKING:  # loaded when they are needed
    from owm.convert.conversion import Conversion
    from owm.pipeline.writer import Verify, Written
    from owm.store.checkpoint import CheckpointPlan, FetchedCheckpoint
    from owm.store.local import Store

DEFAULT_MEMORY_BYTES = 512 << 20
PROGRAM_BYTES = 192 << 20  # what takes memory beside the buffers


@dataclass(frozen=True, slots=True)
class Source:
    """A model to quantize: a checkpoint (then `conversion` is its plan in its own types) or a model file."""

    name: str
    origin: Origin
    plan: Plan
    model: StoredModel | None = None
    conversion: "Conversion | None" = None
    pre: str | None = None  # the pre-tokenizer's name, if one was given

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of a model file, in order."""
        return () if self.model is None else self.model.files

    @property
    def stem(self) -> str:
        """What files made of it are named after: `model` of `model-BF16.gguf`."""
        path = self.origin.made_from.get("path")  # of a folder or file of the user's
        return self.origin.short_name if path is None else stem_of(Path(str(path)))

    @property
    def architecture(self) -> str:
        """The architecture, by llama.cpp's name."""
        value = self.plan.metadata.get("general.architecture", "unknown")
        return str(value.value if isinstance(value, RawValue) else value)


def of_checkpoint(plan: "CheckpointPlan", fetched: "FetchedCheckpoint", *, pre: str | None = None) -> Source:
    """Open a repo's checkpoint that is here.

    Raises:
        Unsupported, Damaged: owm does not convert it.
    """
    name = plan.offer.name.rpartition("/")[2]
    from owm.convert import conversion

    planned = conversion.plan_folder(fetched.folder, name=name, pre=pre)
    return Source(plan.name, Origin.of_checkpoint(plan, fetched), planned.plan, conversion=planned, pre=pre)


def of_folder(folder: Path, *, pre: str | None = None) -> Source:
    """Open a checkpoint's folder; raises as `of_checkpoint` does."""
    from owm.convert import conversion

    planned = conversion.plan_folder(folder, pre=pre)
    return Source(str(folder), Origin.of_path(folder), planned.plan, conversion=planned, pre=pre)


def of_model(stored: StoredModel, name: str) -> Source:
    """Open a model file, stored or at a path.

    Raises:
        MalformedFile, Unsupported: it is damaged, or of a kind that owm does not know.
    """
    plan = open_model_file(stored.files)
    if stored.manifest is None:
        return Source(name, Origin.of_path(stored.path), plan, stored)
    return Source(name, Origin.of_stored(stored), plan, stored)


def plan(
    source: Source,
    type_names: Sequence[str],
    child: Child,
    *,
    overrides: Overrides | None = None,
    imatrix: Imatrix | None = None,
    assumed: Imatrix | None = None,
    allow_requantize: bool = False,
    layout: Layout | None = None,
) -> list[Quantization]:
    """Plan a model in several types; see `owm.quantize.quantization.plan_quantizations`."""
    return quantization.plan_quantizations(
        source.plan,
        type_names,
        child,
        overrides=overrides,
        imatrix=imatrix,
        assumed=assumed,
        allow_requantize=allow_requantize,
        layout=layout,
        metadata=reserved(),
    )


def plan_asked(source: Source, type_name: str | None, child: Child) -> Quantization:
    """Plan a model in one type, the default one if none is named."""
    name = quantization.default_type(source.plan) if type_name is None else file_type(type_name)
    return plan(source, [name], child)[0]


def reserved() -> Mapping[str, Value]:
    """Return the metadata that every file gets: room for a quality certificate."""
    return {certificate.KEY: certificate.blank()}


def write(
    source: Source,
    planned: Sequence[Quantization],
    paths: Sequence[Sequence[Path]],
    child: Child,
    *,
    memory_bytes: int | None = None,
    n_threads: int | None = None,
    digest: bool = True,
    sink: Sink = ignore,
) -> "list[list[Written]]":
    """Write planned quantizations to one path a file, all from one reading of the source.

    Args:
        memory_bytes: about what the process may take, default `DEFAULT_MEMORY_BYTES`.

    Raises:
        Damaged: llama.cpp does not take the result, or the source has values that cannot be quantized.
        NotEnoughDisk, StoreError, MalformedFile: as the writer does.
    """
    from owm.pipeline import writer

    if source.conversion is not None:
        from owm.convert import conversion

        conversion.warn(source.conversion, sink)
    with _checking(source, planned[0].plan, child, sink) as check_header:

        def verify(*, wait: bool) -> None:
            check_header(wait=wait)
            if wait:
                _check_unchanged(source)

        return writer.write_all(
            [(each.plan, where) for each, where in zip(planned, paths, strict=True)],
            n_threads=n_threads,
            memory_bytes=max(0, (memory_bytes or DEFAULT_MEMORY_BYTES) - PROGRAM_BYTES),
            verify=verify,
            digest=digest,
            stage=quantization.STAGE,
            sink=sink,
        )


def store(
    source: Source,
    planned: Sequence[Quantization],
    child: Child,
    kept_in: "Store",
    *,
    made_by: Callable[[Quantization], Mapping[str, object]] = lambda _: {},
    memory_bytes: int | None = None,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> list[StoredModel]:
    """Write planned quantizations into the store. One that is there already, made in the same way, is kept.

    Args:
        made_by: what else the manifest is to say of how each was made, of options and importance matrix above all.

    Raises:
        UsageError: the type is there as it was published. Else as `write` does.
    """
    from owm.pipeline.parts import file_names

    digests = [_digest(each, source) for each in planned]
    parents = parents_of(source)

    def write_missing(paths: Sequence[Path]) -> "list[list[Written]]":
        parents.begin()
        by_label = {f"{source.origin.short_name}-{each.label}.gguf": each for each in planned}
        missing = [by_label[path.name] for path in paths]
        files = [
            [path.with_name(name) for name in file_names(path.name, len(each.plan.files))]
            for path, each in zip(paths, missing, strict=True)
        ]
        return write(source, missing, files, child, memory_bytes=memory_bytes, n_threads=n_threads, sink=sink)

    def recipe(index: int) -> dict[str, object]:
        return _recipe(source, planned[index], parents, kept_in) | dict(made_by(planned[index]))

    wanted = [(each.label, digest) for each, digest in zip(planned, digests, strict=True)]
    with parents:
        return keep_all(source.origin, wanted, write_missing, recipe, kept_in)


def write_noted(
    source: Source,
    planned: Sequence[Quantization],
    paths: Sequence[Sequence[Path]],
    child: Child,
    noted_in: "Store",
    *,
    made_by: Callable[[Quantization], Mapping[str, object]] = lambda _: {},
    memory_bytes: int | None = None,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> "list[list[Written]]":
    """Write planned quantizations to places of the user's, and keep in the store how they were made; see `write`."""
    with parents_of(source) as parents:
        parents.begin()
        written = write(source, planned, paths, child, memory_bytes=memory_bytes, n_threads=n_threads, sink=sink)
        for each, files in zip(planned, written, strict=True):
            how = _recipe(source, each, parents, noted_in) | dict(made_by(each))
            made.note(source.origin, each.label, files, how, noted_in)
    return written


def parents_of(source: Source) -> Parents:
    """Return the files that a source consists of, to be hashed."""
    if source.conversion is None:
        return Parents(source.origin, source.files)
    checkpoint = source.conversion.checkpoint
    return Parents(source.origin, checkpoint.files, checkpoint.folder)


def _recipe(source: Source, planned: Quantization, parents: Parents, noted_in: "Store") -> dict[str, object]:
    types = {tensor.name: tensor.type_name for tensor in planned.plan.tensors}
    how: dict[str, object] = {"type": planned.label, "tensor_types": types}
    how |= recipes.about(recipes.QUANTIZE, Options(pre=source.pre))
    if source.conversion is not None:
        how["known_differences"] = list(source.conversion.differences)
    known = parents.record(noted_in)
    if known:
        _check_unchanged(source)  # since it was written: the sha256s are of what it was made of
    return how | known


def estimate_seconds(planned: Sequence[Quantization], n_threads: int | None = None) -> float:
    """Return about how long `write` will take, from headers and a measurement of a few milliseconds."""
    tensors = [tensor for each in planned for tensor in each.plan.tensors]
    return estimate.estimate_seconds(tensors, n_threads=n_threads or os.cpu_count() or 1)


@contextmanager
def _checking(source: Source, planned: Plan, child: Child, sink: Sink) -> "Iterator[Verify]":
    """Let llama.cpp read the header of what is being written."""
    if source.conversion is not None:
        from owm.convert import conversion

        with conversion.checking(source.conversion, child, sink, planned) as verify:
            yield verify
        return
    with hollow_file(planned) as path, ThreadPoolExecutor(1) as pool:
        loading = pool.submit(_load_and_rest, child, path)

        def verify(*, wait: bool) -> None:
            if (wait or loading.done()) and (loaded := loading.result()).error:
                raise Damaged(
                    f"llama.cpp does not take the model: {loaded.error}", hint="`owm verify` checks the source"
                )

        yield verify


def _load_and_rest(child: Child, path: Path) -> Loaded:
    loaded = child.load_header(path, ())
    child.rest()
    return loaded


def _check_unchanged(source: Source) -> None:
    """Refuse what was made of files that are not what they were when they were planned."""
    try:
        found = identity(source.files) if source.conversion is None else source.conversion.checkpoint.identity()
    except OSError:
        found = ""
    if found != source.plan.origin:
        raise Damaged(f"{source.name} was changed while it was read", hint="the same command reads it anew")


def _digest(planned: Quantization, source: Source) -> str:
    """Name exactly how a file is made; of a repo's commit nothing more than the commit needs to be known."""
    sha = hashlib.sha256(planned.weights_sha256.encode())
    if source.origin.commit is None:
        sha.update(source.plan.origin.encode())
    for file in planned.plan.files:
        sha.update(file.header)
    return sha.hexdigest()
