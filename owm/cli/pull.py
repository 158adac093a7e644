"""`owm pull`: bring models into the store."""

from typing import Any

from owm.cli import options as o
from owm.cli.output import Output


def command(
    models: o.ModelsArg,
    dry_run: o.DryRunOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Fetch models into the store.

    Size and licence are said first. A download that was cut off, or killed, goes on where it stopped when the same
    command is run again. Without a quant, Q4_K_M is taken where there is one. A repo that has only its original weights
    (safetensors) is quantized to that type from them, or to the one named.
    """
    from owm.cli.fetching import describe, pull_planned
    from owm.cli.listing import record
    from owm.cli.progress import progress
    from owm.library import open_store, plan_pull
    from owm.store import refs
    from owm.store.checkpoint import CheckpointPlan
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    store = open_store()
    asked = [(name, refs.parse(name)) for name in models]
    results: list[dict[str, Any]] = []
    for name, ref in asked:
        stored = store.find(ref)
        if stored is None:
            with progress(out) as sink:
                plan = plan_pull(ref, store=store, sink=sink)
            if dry_run:
                coming = plan.files if isinstance(plan, CheckpointPlan) else plan.variant.files
                files = [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in coming]
                results.append(
                    {
                        "name": plan.name,
                        "source": str(plan.offer.ref.with_quant(None)),
                        "commit": plan.offer.commit,
                        "licence": plan.licence,
                        "is_gated": plan.offer.gated,
                        "size_bytes": plan.size_bytes,
                        "files": files,
                        "is_checkpoint": isinstance(plan, CheckpointPlan),
                        "is_stored": False,
                    }
                )
                if not json:
                    then = ", and quantize them" if isinstance(plan, CheckpointPlan) else ""
                    out.data(None, lines=[f"would pull {describe(plan)}{then}"])
                continue
            stored = pull_planned(plan, out, store)
            out.note(f"stored {store.shown_name(stored)} ({format_bytes(stored.size_bytes)})")
        else:
            out.note(f"{ref if ref.kind == 'url' else name} is here already: {store.shown_name(stored)}")
        results.append(record(stored, store))
    if json:
        out.data(results)
