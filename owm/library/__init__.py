"""The Python library: opening the store, pulling, converting, loading, answering. The command line is thin over this.

It is the one place that knows the store, the converter and the engine; none of them knows the others.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from owm import paths
from owm.errors import QuantNotFound, UsageError
from owm.events import Sink, ignore
from owm.store import refs
from owm.store.limits import DEFAULT, Limits
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.refs import ModelRef

if TYPE_CHECKING:  # loaded when something is fetched or runs: listing needs neither sources nor llama.cpp
    from owm.convert.conversion import Conversion
    from owm.convert.foreign import Converter
    from owm.engine.model import Model
    from owm.library.recipes import Options
    from owm.pipeline.writer import Written
    from owm.store.checkpoint import CheckpointPlan, FetchedCheckpoint
    from owm.store.pull import PullPlan


def open_store(environ: Mapping[str, str] | None = None) -> Store:
    """Return the store of this user (`OWM_HOME`, `HF_HOME`); nothing is created before something is stored."""
    return Store(paths.owm_home(environ), paths.hub_cache(environ))


def plan_pull(
    model: str | ModelRef, *, wants_checkpoint: bool = False, store: Store | None = None, sink: Sink = ignore
) -> "PullPlan | CheckpointPlan":
    """Find out what a reference means at its source; see `owm.store.pull.plan`."""
    from owm.store import pull

    ref = refs.parse(model) if isinstance(model, str) else model
    return pull.plan(ref, store or open_store(), wants_checkpoint=wants_checkpoint, sink=sink)


def execute_pull(
    plan: "PullPlan | CheckpointPlan",
    *,
    store: Store | None = None,
    sink: Sink = ignore,
    limits: Limits = DEFAULT,
) -> StoredModel:
    """Bring a planned model into the store, a checkpoint quantized; see `owm.store.pull.execute`."""
    from owm.library.keeping import inspect_file
    from owm.store import pull
    from owm.store.checkpoint import CheckpointPlan

    store = store or open_store()
    if not isinstance(plan, CheckpointPlan):
        return pull.execute(plan, store, inspect=inspect_file, sink=sink, limits=limits)
    check_type(plan)
    fetched = fetch_checkpoint(plan, store=store, sink=sink, limits=limits)
    if is_converted(plan):
        return store_conversion(plan, fetched, plan_conversion(plan, fetched), store=store, sink=sink)
    from owm.library import quantizing
    from owm.native.guard import Child

    with Child() as child:
        source = quantizing.of_checkpoint(plan, fetched)
        return quantizing.store(source, [quantizing.plan_asked(source, plan.quant, child)], child, store, sink=sink)[0]


def is_converted(plan: "CheckpointPlan") -> bool:
    """Tell whether a checkpoint was asked for in a type that holds its weights as they are, not quantized."""
    return plan.quant is not None and plan.quant.upper() in ("F32", "F16", "BF16")


def check_type(plan: "CheckpointPlan") -> None:
    """Refuse a checkpoint that was asked for in a type which nothing makes, before anything is fetched.

    Raises:
        QuantNotFound: it was.
    """
    if plan.quant is None or is_converted(plan):
        return
    from owm.quantize.types import FILE_TYPE_IDS, file_type

    try:
        file_type(plan.quant)
    except UsageError as error:
        raise QuantNotFound(
            f"{plan.name} has no model file of type {plan.quant}, and its original weights cannot be made one",
            quant=plan.quant,
            available=tuple(FILE_TYPE_IDS),
            hint=error.hint,
        ) from error


def fetch_config(model: str | ModelRef, *, store: Store | None = None, sink: Sink = ignore) -> Path:
    """Bring the config.json of a repo's checkpoint into the Hugging Face cache, without weights; return its folder.

    Raises:
        NoUsableFile: the repo has no checkpoint.
        NetworkError, NotFound: as a pull does.
    """
    from owm.store import checkpoint

    store = store or open_store()
    plan = plan_pull(model, wants_checkpoint=True, store=store, sink=sink)
    assert isinstance(plan, checkpoint.CheckpointPlan)
    nothing: tuple[str, ...] = ()
    return checkpoint.fetch(
        plan.config_only(), store, choose=lambda _folder, _names: nothing, check=lambda _path, _name: None, sink=sink
    ).folder


def fetch_checkpoint(
    plan: "CheckpointPlan",
    *,
    is_known: bool = True,
    store: Store | None = None,
    sink: Sink = ignore,
    limits: Limits = DEFAULT,
) -> "FetchedCheckpoint":
    """Bring a repo's original weights into the Hugging Face cache; nothing large before its kind is known.

    Args:
        is_known: whether it has to be of a kind that owm converts.
        limits: how much of the network the download may take.

    Raises:
        Unsupported: owm does not convert such a checkpoint; no weights were fetched.
        NetworkError, NotEnoughDisk, Damaged: as a pull does.
    """
    from owm.convert.architectures.registry import architecture_of
    from owm.convert.checkpoint import INDEX, read_json, weight_files
    from owm.formats import safetensors
    from owm.store import checkpoint

    def choose(folder: Path, names: Sequence[str]) -> Sequence[str]:
        if is_known:
            architecture_of(read_json(folder / "config.json"))
        index = read_json(folder / INDEX).get("weight_map") if (folder / INDEX).is_file() else None
        return weight_files(list(names), index, plan.offer.name)

    def check(path: Path, name: str) -> None:
        if name.endswith(".safetensors"):
            safetensors.read_header(path)

    return checkpoint.fetch(plan, store or open_store(), choose=choose, check=check, sink=sink, limits=limits)


def plan_conversion(
    plan: "CheckpointPlan",
    fetched: "FetchedCheckpoint",
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
    plan: "CheckpointPlan",
    fetched: "FetchedCheckpoint",
    conversion: "Conversion",
    *,
    options: "Options | None" = None,
    store: Store | None = None,
    sink: Sink = ignore,
) -> StoredModel:
    """Convert into the store; the manifest says from which commit and files. What is there already is kept.

    Args:
        options: what was asked for beside the type, for the manifest.

    Raises:
        NotEnoughDisk, StoreError, Damaged: as `owm.convert.conversion.execute` does.
    """
    from owm.convert.conversion import execute
    from owm.library import recipes
    from owm.library.keeping import Origin, keep
    from owm.pipeline.parts import file_names

    def write(path: Path) -> "list[Written]":
        names = file_names(path.name, len(conversion.plan.files))
        return execute(conversion, [path.with_name(name) for name in names], sink=sink)

    def recipe() -> dict[str, object]:
        return recipes.of_conversion(conversion, options)

    return keep(Origin.of_checkpoint(plan, fetched), conversion.label, write, recipe, store or open_store())


def store_foreign(
    plan: "CheckpointPlan",
    fetched: "FetchedCheckpoint",
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
    from owm.library import recipes
    from owm.library.keeping import Origin, keep

    opened = open_checkpoint(fetched.folder)
    label = choose_type(opened, type_name)

    def write(path: Path) -> "list[Written]":
        return [run_converter(converter, opened, path, label, log=log, sink=sink)]

    def recipe() -> dict[str, object]:
        return recipes.about(recipes.FOREIGN) | {"type": label, "by": str(converter.script.resolve())}

    return keep(Origin.of_checkpoint(plan, fetched), label, write, recipe, store or open_store())


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
    from owm.library.gate import admit, trusts

    store = store or open_store()
    if isinstance(model, Path):
        ref = ModelRef("path", str(model))
    else:
        ref = refs.parse(model) if isinstance(model, str) else model
    stored = store.find(ref)
    if stored is None:
        from owm.library.importing import adopt_cached

        stored = adopt_cached(ref, store, sink=sink)
    if stored is None:
        from owm.library.pulling import plan_choice

        choice = plan_choice(ref, is_curious=False, store=store, sink=sink)
        choice.check_memory()
        stored = execute_pull(choice.plan, store=store, sink=sink)
    admit(stored)
    store.touch(stored)
    return Model(
        stored.files,
        n_gpu_layers=n_gpu_layers,
        is_verified=stored.is_verified,
        is_trusted=trusts(),
        will_chat=True,
        log=log,
    )
