"""Getting a model for a command: the stored one, or a pull that is announced first."""

from owm.cli import facts
from owm.cli.output import Output
from owm.cli.progress import progress
from owm.cli.template_note import warn_of_template
from owm.library import (
    check_type,
    execute_pull,
    fetch_checkpoint,
    is_converted,
    open_store,
    plan_conversion,
    store_conversion,
)
from owm.library.pulling import plan_choice
from owm.store import refs
from owm.store.checkpoint import CheckpointPlan, FetchedCheckpoint
from owm.store.limits import DEFAULT, Limits
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.store.refs import ModelRef
from owm.units import format_bytes

_INTERRUPTED = "interrupted; what arrived is kept, the same command goes on from there"


def find_or_pull(name: str, out: Output, store: Store | None = None) -> StoredModel:
    """Return the stored model of that name, pulling it (and converting it) if need be."""
    store = store or open_store()
    ref = refs.parse(name)
    stored = find_here(ref, store, out)
    if stored is None:
        with progress(out) as sink:
            choice = plan_choice(ref, is_curious=False, store=store, sink=sink)
        choice.check_memory()
        if choice.reason is not None:
            facts.note(choice.reason, out)
        stored = pull_planned(choice.plan, out, store)
    elif stored.manifest is None or stored.manifest.owner is not None:  # owm did not bring it, nor warn then
        warn_of_template(stored, store, out)
    store.touch(stored)
    return stored


def find_here(ref: ModelRef, store: Store, out: Output) -> StoredModel | None:
    """Return the stored model of that name, or one that another program has brought into the Hugging Face cache."""
    if (stored := store.find(ref)) is not None:
        return stored
    from owm.library.importing import adopt_cached

    with progress(out) as sink:
        adopted = adopt_cached(ref, store, sink=sink)
    if adopted is not None:
        out.note(f"{store.shown_name(adopted)} was in the Hugging Face cache already")
        warn_of_template(adopted, store, out)
    return adopted


def pull_planned(
    plan: PullPlan | CheckpointPlan, out: Output, store: Store, *, limits: Limits = DEFAULT
) -> StoredModel:
    """Say what comes, then bring it."""
    if isinstance(plan, CheckpointPlan):
        check_type(plan)
        make = convert_planned if is_converted(plan) else quantize_planned
        stored = make(plan, out, store, limits=limits)
    else:
        say_pulling(plan, out, store)
        try:
            with progress(out) as sink:
                stored = execute_pull(plan, store=store, sink=sink, limits=limits)
        except KeyboardInterrupt:
            out.note(_INTERRUPTED)
            raise
    warn_of_template(stored, store, out)
    return stored


def convert_planned(
    plan: CheckpointPlan,
    out: Output,
    store: Store,
    *,
    type_name: str | None = None,
    pre: str | None = None,
    split_max_bytes: int | None = None,
    limits: Limits = DEFAULT,
) -> StoredModel:
    """Fetch a checkpoint and convert it into the store, each step said before it begins."""
    from owm.library.recipes import Options
    from owm.quantize.quantization import Layout

    fetched = fetch_planned(plan, out, store, limits=limits)
    conversion = plan_conversion(plan, fetched, type_name=type_name, pre=pre, split_max_bytes=split_max_bytes)
    out.note(f"converting {plan.name} to {conversion.label}: {format_bytes(conversion.plan.n_bytes)}")
    try:
        with progress(out) as sink:
            options = Options(layout=Layout(split_max_bytes), pre=pre)
            return store_conversion(plan, fetched, conversion, options=options, store=store, sink=sink)
    except KeyboardInterrupt:
        out.note("interrupted; the same command goes on from the last finished tensor")
        raise


def quantize_planned(plan: CheckpointPlan, out: Output, store: Store, *, limits: Limits = DEFAULT) -> StoredModel:
    """Fetch a checkpoint and quantize it into the store, each step said before it begins."""
    from owm.library import quantizing
    from owm.native.guard import Child

    fetched = fetch_planned(plan, out, store, limits=limits)
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


def fetch_planned(
    plan: CheckpointPlan, out: Output, store: Store, *, is_known: bool = True, limits: Limits = DEFAULT
) -> FetchedCheckpoint:
    """Say what comes, then bring a checkpoint into the Hugging Face cache; see `owm.library.fetch_checkpoint`."""
    say_pulling(plan, out, store)
    try:
        with progress(out) as sink:
            return fetch_checkpoint(plan, is_known=is_known, store=store, sink=sink, limits=limits)
    except KeyboardInterrupt:
        out.note(_INTERRUPTED)
        raise


def say_pulling(plan: PullPlan | CheckpointPlan, out: Output, store: Store) -> None:
    """Say what comes and, before the first model of a repo, what its licence permits."""
    from owm.store import licences

    out.note(f"pulling {describe(plan)}")
    if out.quiet or any(
        model.manifest is not None
        and (model.manifest.source, model.manifest.name) == (plan.offer.source, plan.offer.name)
        for model in store.models([])
    ):
        return
    card = plan.offer.card
    facts.note(f"licence: {licences.say(plan.licence, card.licence_link if card else None)}", out)


def describe(plan: PullPlan | CheckpointPlan) -> str:
    """Name a planned model with source, size and licence: `smollm2:135m:Q4_1 from …: 93.8 MiB, licence apache-2.0`."""
    size = format_bytes(plan.size_bytes) if plan.size_bytes is not None else "size not known before the download"
    source = str(plan.offer.ref.with_quant(None))
    origin = "" if plan.name.startswith(source) else f" from {source}"
    gated = ", gated" if plan.offer.gated else ""
    weights = "the original weights of " if isinstance(plan, CheckpointPlan) else ""
    return f"{weights}{plan.name}{origin}: {size}, licence {plan.licence or 'not stated'}{gated}"
