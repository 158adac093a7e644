"""Getting a model for a command: the stored one, or a pull that is announced first."""

from owm.cli.output import Output
from owm.cli.progress import progress
from owm.library import execute_pull, open_store, plan_pull
from owm.store import refs
from owm.store.local import Store
from owm.store.model import StoredModel
from owm.store.pull import PullPlan
from owm.units import format_bytes


def find_or_pull(name: str, out: Output, store: Store | None = None) -> StoredModel:
    """Return the stored model of that name, pulling it if need be."""
    store = store or open_store()
    ref = refs.parse(name)
    stored = store.find(ref)
    if stored is None:
        with progress(out) as sink:
            plan = plan_pull(ref, store=store, sink=sink)
        stored = pull_planned(plan, out, store)
    store.touch(stored)
    return stored


def pull_planned(plan: PullPlan, out: Output, store: Store) -> StoredModel:
    """Say what comes, then bring it."""
    out.note(f"pulling {describe(plan)}")
    try:
        with progress(out) as sink:
            return execute_pull(plan, store=store, sink=sink)
    except KeyboardInterrupt:
        out.note("interrupted; what arrived is kept, the same command goes on from there")
        raise


def describe(plan: PullPlan) -> str:
    """Name a planned model with source, size and licence: `smollm2:135m:Q4_1 from …: 93.8 MiB, licence apache-2.0`."""
    size = format_bytes(plan.size_bytes) if plan.size_bytes is not None else "size not known before the download"
    source = str(plan.offer.ref.with_quant(None))
    origin = "" if plan.name.startswith(source) else f" from {source}"
    gated = ", gated" if plan.offer.gated else ""
    return f"{plan.name}{origin}: {size}, licence {plan.licence or 'not stated'}{gated}"
