"""Getting a model for a command: the stored one, or a pull that is announced first."""

from owm.cli.output import Output
from owm.cli.progress import progress
from owm.library import (
    check_type,
    execute_pull,
    fetch_checkpoint,
    is_converted,
    open_store,
    plan_conversion,
    plan_pull,
    store_conversion,
)
from owm.store import refs
from owm.store.checkpoint import CheckpointPlan, FetchedCheckpoint
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.units import format_bytes

_INTERRUPTED = "interrupted; what arrived is kept, the same command goes on from there"


def find_or_pull(name: str, out: Output, store: Store | None = None) -> StoredModel:
    """Return the stored model of that name, pulling it (and converting it) if need be."""
    store = store or open_store()
    ref = refs.parse(name)
    stored = store.find(ref)
    if stored is None:
        with progress(out) as sink:
            plan = plan_pull(ref, store=store, sink=sink)
        stored = pull_planned(plan, out, store)
    store.touch(stored)
    return stored


def pull_planned(plan: PullPlan | CheckpointPlan, out: Output, store: Store) -> StoredModel:
    """Say what comes, then bring it."""
    if isinstance(plan, CheckpointPlan):
        check_type(plan)
        return convert_planned(plan, out, store) if is_converted(plan) else quantize_planned(plan, out, store)
    out.note(f"pulling {describe(plan)}")
    try:
        with progress(out) as sink:
            return execute_pull(plan, store=store, sink=sink)
    except KeyboardInterrupt:
        out.note(_INTERRUPTED)
        raise


def convert_planned(
    plan: CheckpointPlan,
    out: Output,
    store: Store,
    *,
    type_name: str | None = None,
    pre: str | None = None,
    split_max_bytes: int | None = None,
) -> StoredModel:
    """Fetch a checkpoint and convert it into the store, each step said before it begins."""
    fetched = fetch_planned(plan, out, store)
    conversion = plan_conversion(plan, fetched, type_name=type_name, pre=pre, split_max_bytes=split_max_bytes)
    out.note(f"converting {plan.name} to {conversion.label}: {format_bytes(conversion.plan.n_bytes)}")
    try:
        with progress(out) as sink:
            return store_conversion(plan, fetched, conversion, store=store, sink=sink)
    except KeyboardInterrupt:
        out.note("interrupted; the same command goes on from the last finished tensor")
        raise


def quantize_planned(plan: CheckpointPlan, out: Output, store: Store) -> StoredModel:
    """Fetch a checkpoint and quantize it into the store, each step said before it begins."""
    from owm.library import quantizing
    from owm.native.guard import Child

    fetched = fetch_planned(plan, out, store)
    with Child() as child:
        source = quantizing.of_checkpoint(plan, fetched)
        planned = quantizing.plan_asked(source, plan.quant, child)
        out.note(f"quantizing {plan.name} to {planned.label}: {format_bytes(planned.plan.n_bytes)}")
        try:
            with progress(out) as sink:
                return quantizing.store(source, [planned], child, store, sink=sink)[0]
        except KeyboardInterrupt:
            out.note("interrupted; the same command goes on from the last finished tensor")
            raise


def fetch_planned(plan: CheckpointPlan, out: Output, store: Store, *, is_known: bool = True) -> FetchedCheckpoint:
    """Say what comes, then bring a checkpoint into the Hugging Face cache; see `owm.library.fetch_checkpoint`."""
    out.note(f"pulling {describe(plan)}")
    try:
        with progress(out) as sink:
            return fetch_checkpoint(plan, is_known=is_known, store=store, sink=sink)
    except KeyboardInterrupt:
        out.note(_INTERRUPTED)
        raise


def describe(plan: PullPlan | CheckpointPlan) -> str:
    """Name a planned model with source, size and licence: `smollm2:135m:Q4_1 from …: 93.8 MiB, licence apache-2.0`."""
    size = format_bytes(plan.size_bytes) if plan.size_bytes is not None else "size not known before the download"
    source = str(plan.offer.ref.with_quant(None))
    origin = "" if plan.name.startswith(source) else f" from {source}"
    gated = ", gated" if plan.offer.gated else ""
    weights = "the original weights of " if isinstance(plan, CheckpointPlan) else ""
    return f"{weights}{plan.name}{origin}: {size}, licence {plan.licence or 'not stated'}{gated}"
