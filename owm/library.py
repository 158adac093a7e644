"""The Python library: opening the store, pulling, converting, loading, answering. The command line is thin over this.

It is the one place that knows the store, the converter and the engine; none of them knows the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from owm import paths
from owm.errors import QuantNotFound
from owm.events import Sink, ignore
from owm.formats import gguf
from owm.store import checkpoint, manifest, pull, refs
from owm.store.checkpoint import CheckpointPlan, FetchedCheckpoint
from owm.store.download import write_error
from owm.store.local import Store
from owm.store.manifest import FileRecord, Manifest, ModelFacts
from owm.store.model import StoredModel
from owm.store.refs import ModelRef

if TYPE_CHECKING:  # the engine is loaded when something runs: listing needs no llama.cpp
    from owm.convert.conversion import Conversion
    from owm.convert.foreign import Converter
    from owm.engine.model import Model
    from owm.engine.sampling import Sampling
    from owm.engine.scheduler import Chunk
    from owm.pipeline.writer import Written


def open_store(environ: Mapping[str, str] | None = None) -> Store:
    """Return the store of this user (`OWM_HOME`, `HF_HOME`); nothing is created before something is stored."""
    return Store(paths.owm_home(environ), paths.hub_cache(environ))


def inspect_file(path: Path) -> ModelFacts:
    """Read a model file's header, as the last check before it becomes a stored model.

    Raises:
        MalformedFile, Unsupported.
    """
    header = gguf.read_header(path)
    header.check_vocabulary()
    return ModelFacts(
        architecture=header.architecture,
        name=header.text("general.name"),
        n_params=header.n_params,
        n_ctx_train=header.integer("context_length"),
        licence=header.text("general.license"),
    )


def plan_pull(
    model: str | ModelRef, *, wants_checkpoint: bool = False, store: Store | None = None, sink: Sink = ignore
) -> pull.PullPlan | CheckpointPlan:
    """Find out what a reference means at its source; see `owm.store.pull.plan`."""
    ref = refs.parse(model) if isinstance(model, str) else model
    return pull.plan(ref, store or open_store(), wants_checkpoint=wants_checkpoint, sink=sink)


def execute_pull(
    plan: pull.PullPlan | CheckpointPlan, *, store: Store | None = None, sink: Sink = ignore
) -> StoredModel:
    """Bring a planned model into the store, a checkpoint converted; see `owm.store.pull.execute`."""
    store = store or open_store()
    if isinstance(plan, CheckpointPlan):
        check_type(plan)
        fetched = fetch_checkpoint(plan, store=store, sink=sink)
        return store_conversion(plan, fetched, plan_conversion(plan, fetched), store=store, sink=sink)
    return pull.execute(plan, store, inspect=inspect_file, sink=sink)


def check_type(plan: CheckpointPlan) -> None:
    """Refuse a checkpoint that was asked for in a type which conversion alone does not make.

    Raises:
        QuantNotFound: it was.
    """
    if plan.quant is not None and plan.quant.upper() not in ("F32", "F16", "BF16"):
        raise QuantNotFound(
            f"{plan.name} has no model file of type {plan.quant}, only its original weights",
            quant=plan.quant,
            available=("BF16", "F16", "F32"),
            hint=f"`{plan.name}` alone is converted in the type of its weights; "
            "`:BF16`, `:F16` and `:F32` can be asked for",
        )


def fetch_config(model: str | ModelRef, *, store: Store | None = None, sink: Sink = ignore) -> Path:
    """Bring the config.json of a repo's checkpoint into the Hugging Face cache, without weights; return its folder.

    Raises:
        NoUsableFile: the repo has no checkpoint.
        NetworkError, NotFound: as a pull does.
    """
    store = store or open_store()
    plan = plan_pull(model, wants_checkpoint=True, store=store, sink=sink)
    assert isinstance(plan, CheckpointPlan)
    nothing: tuple[str, ...] = ()
    return checkpoint.fetch(
        plan.config_only(), store, choose=lambda _folder, _names: nothing, check=lambda _path, _name: None, sink=sink
    ).folder


def fetch_checkpoint(
    plan: CheckpointPlan, *, is_known: bool = True, store: Store | None = None, sink: Sink = ignore
) -> FetchedCheckpoint:
    """Bring a repo's original weights into the Hugging Face cache; nothing large before its kind is known.

    Args:
        is_known: whether it has to be of a kind that owm converts.

    Raises:
        Unsupported: owm does not convert such a checkpoint; no weights were fetched.
        NetworkError, NotEnoughDisk, Damaged: as a pull does.
    """
    from owm.convert.architectures.registry import architecture_of
    from owm.convert.checkpoint import INDEX, read_json, weight_files
    from owm.formats import safetensors

    def choose(folder: Path, names: Sequence[str]) -> Sequence[str]:
        if is_known:
            architecture_of(read_json(folder / "config.json"))
        index = read_json(folder / INDEX).get("weight_map") if (folder / INDEX).is_file() else None
        return weight_files(list(names), index, plan.offer.name)

    def check(path: Path, name: str) -> None:
        if name.endswith(".safetensors"):
            safetensors.read_header(path)

    return checkpoint.fetch(plan, store or open_store(), choose=choose, check=check, sink=sink)


def plan_conversion(
    plan: CheckpointPlan,
    fetched: FetchedCheckpoint,
    *,
    type_name: str | None = None,
    pre: str | None = None,
    split_max_bytes: int | None = None,
) -> "Conversion":
    """Plan the conversion of a fetched checkpoint; see `owm.convert.conversion.plan_conversion`."""
    from owm.convert import conversion

    return conversion.plan_folder(
        fetched.folder,
        type_name=type_name or plan.quant or "auto",
        name=plan.offer.name.rpartition("/")[2],
        pre=pre,
        split_max_bytes=split_max_bytes,
    )


def store_conversion(
    plan: CheckpointPlan,
    fetched: FetchedCheckpoint,
    conversion: "Conversion",
    *,
    store: Store | None = None,
    sink: Sink = ignore,
) -> StoredModel:
    """Convert into the store; the manifest says from which commit and files. What is there already is kept.

    Raises:
        NotEnoughDisk, StoreError, Damaged: as `owm.convert.conversion.execute` does.
    """
    from owm import __version__
    from owm.convert.conversion import execute, file_names

    def write(path: Path) -> "list[Written]":
        names = file_names(path.name, len(conversion.plan.files))
        return execute(conversion, [path.with_name(name) for name in names], sink=sink)

    def recipe() -> dict[str, object]:
        return {
            "type": conversion.type_name,
            "known_differences": list(conversion.differences),
            "by": f"owm {__version__}",
        }

    return _store(plan, fetched, conversion.label, write, recipe, store or open_store())


def store_foreign(
    plan: CheckpointPlan,
    fetched: FetchedCheckpoint,
    converter: "Converter",
    type_name: str,
    *,
    store: Store | None = None,
    log: Callable[[str], None] = lambda line: None,
    sink: Sink = ignore,
) -> StoredModel:
    """Have another converter convert into the store; the manifest says which. What is there already is kept.

    Args:
        type_name: `F32`, `F16`, `BF16`, or `auto` for the checkpoint's own.

    Raises:
        Unsupported, NotEnoughDisk, StoreError, Damaged: as `owm.convert.foreign.run_converter` does.
    """
    from owm.convert.checkpoint import open_checkpoint
    from owm.convert.foreign import choose_type, run_converter

    opened = open_checkpoint(fetched.folder)
    label = choose_type(opened, type_name)

    def write(path: Path) -> "list[Written]":
        return [run_converter(converter, opened, path, label, log=log, sink=sink)]

    return _store(
        plan,
        fetched,
        label,
        write,
        lambda: {"type": label, "by": str(converter.script.resolve())},
        store or open_store(),
    )


def _store(
    plan: CheckpointPlan,
    fetched: FetchedCheckpoint,
    label: str,
    write: "Callable[[Path], list[Written]]",
    recipe: Callable[[], dict[str, object]],
    store: Store,
) -> StoredModel:
    """Have the files of a model written into the store, unless they are there, and its manifest after them.

    Args:
        write: makes the file, or the parts of it beside that path.
        recipe: what the manifest says of how it was made, asked for afterwards.
    """
    offer = plan.offer
    folder = store.folder_of(offer.source, offer.name, offer.commit or offer.revision, label)
    with store.lock(folder):
        if (stored := store.at(folder)) is not None and not stored.is_gone:
            return stored
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, folder) from error
        written = write(folder / f"{offer.name.rpartition('/')[2]}-{label}.gguf")
        facts = inspect_file(written[0].path)
        n_params = sum(gguf.read_header(file.path).n_params for file in written)
        made = Manifest(
            ref=str(offer.ref.with_quant(None)),
            source=offer.source,
            name=offer.name,
            label=label,
            revision=offer.revision,
            commit=offer.commit,
            files=tuple(
                FileRecord(
                    file.path.relative_to(store.home).as_posix(),
                    "owm",
                    file.size_bytes,
                    file.sha256,
                    role="model" if index == 0 else "shard",
                )
                for index, file in enumerate(written)
            ),
            licence=plan.licence or facts.licence,
            facts=replace(facts, n_params=n_params),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            gated=offer.gated,
            made_from={
                "checkpoint": str(offer.ref.with_quant(None)),
                "commit": offer.commit,
                "files": [
                    {
                        "path": item.path.relative_to(fetched.folder).as_posix(),
                        "size_bytes": item.size_bytes,
                        "sha256": item.sha256,
                    }
                    for item in fetched.files
                ],
                **recipe(),
            },
        )
        try:
            manifest.write(made, folder)
        except OSError as error:
            raise write_error(error, folder / manifest.FILE_NAME) from error
    found = store.at(folder)
    assert found is not None
    return found


def load(
    model: str | Path | ModelRef,
    *,
    store: Store | None = None,
    sink: Sink = ignore,
    n_gpu_layers: int | None = None,
    log: Callable[[str], None] | None = None,
) -> "Model":
    """Open a model by any name, pulling it first if it is not stored.

    Raises:
        OwmError: whatever pulling and loading can raise.
    """
    from owm.engine.model import Model

    store = store or open_store()
    if isinstance(model, Path):
        ref = ModelRef("path", str(model))
    else:
        ref = refs.parse(model) if isinstance(model, str) else model
    stored = store.find(ref) or execute_pull(plan_pull(ref, store=store, sink=sink), store=store, sink=sink)
    store.touch(stored)
    return Model(stored.files, n_gpu_layers=n_gpu_layers, is_verified=stored.manifest is not None, log=log)


def answer(
    model: "Model",
    prompt: str,
    *,
    system: str | None = None,
    sampling: "Sampling | None" = None,
    max_tokens: int | None = None,
    stops: str | Sequence[str] = (),
    n_ctx: int | None = None,
) -> "Iterator[Chunk]":
    """Answer one prompt; the last chunk has the finish reason and the timings. Leaving the iteration cancels it.

    Raises:
        PromptTooLong, NotEnoughMemory, TemplateError, EngineError.
    """
    from owm.engine.generate import Generation
    from owm.engine.sampling import Sampling
    from owm.engine.scheduler import Request

    turns = [("system", system)] if system else []
    made = model.chat_prompt([{"role": role, "content": text} for role, text in [*turns, ("user", prompt)]])
    size = model.choose_context(len(made.tokens), max_tokens=max_tokens, asked=n_ctx)
    with model.scheduler(size.n_ctx) as scheduler:
        texts = (stops,) if isinstance(stops, str) else tuple(stops)
        scheduler.submit(Request(made.tokens, sampling or Sampling(), max_tokens, texts))
        yield from Generation(scheduler)
