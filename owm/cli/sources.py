"""What a command quantizes or measures, found by name: a checkpoint, fetched if need be, or a model file."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from owm.cli.output import Output
from owm.errors import ModelNotFound, NetworkError, NoUsableFile, UsageError

if TYPE_CHECKING:
    from owm.library.quantizing import Source
    from owm.store.checkpoint import CheckpointPlan
    from owm.store.local import Store
    from owm.store.model import StoredModel


def find_source(text: str, store: "Store", out: Output, *, pre: str | None = None) -> "Source":
    """Open a folder with a checkpoint, a model file, a stored model, or a repo's checkpoint, which is fetched first.

    A name without a quant means the original weights where its repo has them, with one that model file.

    Raises:
        ModelNotFound, NoUsableFile: there is no such thing.
    """
    from owm.cli.fetching import fetch_planned, find_or_pull
    from owm.library import quantizing
    from owm.store import refs

    folder = Path(text).expanduser()
    if (folder / "config.json").is_file():
        return quantizing.of_folder(folder, pre=pre)
    if folder.suffix == ".safetensors" and folder.exists():
        raise UsageError(f"{text} holds weights alone", hint=f"name the checkpoint's folder: `{folder.parent}`")
    ref = store.aliases.expand(refs.parse(text))
    is_file = ref.kind in ("path", "local") or ref.quant is not None or ref.file is not None
    plan = None if is_file else plan_weights(text, store, out)
    if plan is None:
        return quantizing.of_model(find_or_pull(text, out, store), text)
    return quantizing.of_checkpoint(plan, fetch_planned(plan, out, store), pre=pre)


def find_running(
    text: str, store: "Store", out: Output, stack: ExitStack, *, n_threads: int | None = None
) -> "StoredModel":
    """Return files that llama.cpp can run, of what `find_source` finds; a checkpoint is converted to a temporary file.

    They were tried in a process of their own, see `owm.library.gate`.

    Args:
        stack: that file is removed at its end.
    """
    from owm.cli.progress import progress
    from owm.library.gate import admit
    from owm.library.working import runnable
    from owm.store.model import StoredModel
    from owm.units import format_bytes

    source = find_source(text, store, out)
    if source.model is not None:
        admit(source.model, tell=out.note)
        return source.model
    assert source.conversion is not None
    out.note(f"converting {source.name} to a temporary file that runs ({format_bytes(source.plan.n_bytes)})")
    with progress(out) as sink:
        files = stack.enter_context(runnable(source, store, n_threads=n_threads, sink=sink))
    return StoredModel(source.name, source.conversion.label, tuple(files))


def plan_weights(text: str, store: "Store", out: Output) -> "CheckpointPlan | None":
    """Find a repo's original weights; None if it has only model files."""
    from owm.cli.progress import progress
    from owm.library import plan_pull
    from owm.store import refs
    from owm.store.checkpoint import CheckpointPlan

    ref = store.aliases.expand(refs.parse(text))
    try:
        with progress(out) as sink:
            plan = plan_pull(ref, wants_checkpoint=True, store=store, sink=sink)
    except NoUsableFile as problem:
        if any(name.lower().endswith(".gguf") for name in problem.files):
            return None
        raise
    except (ModelNotFound, NetworkError):
        if store.find(ref) is not None:  # made here, or all that can be had without a network
            return None
        raise
    if not isinstance(plan, CheckpointPlan):
        raise UsageError(f"{text} has no original weights")
    return plan
