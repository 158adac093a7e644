"""`owm pull`: bring models into the store."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.library.importing import Candidate
    from owm.library.pulling import Choice
    from owm.store.limits import Limits
    from owm.store.local import Store
    from owm.store.model import StoredModel

NETWORK = "Network"

RoomOpt = Annotated[
    int | None,
    typer.Option(
        "--ctx-size",
        "-c",
        metavar="N",
        min=1,
        help="Choose a quant with room for a context of N tokens (default: 8,192, or the model's own if that is less).",
        show_default=False,
    ),
]
LimitRateOpt = Annotated[
    str | None,
    typer.Option(
        "--limit-rate",
        metavar="RATE",
        help="Take no more than so many bytes a second: `500k`, `10M`.",
        rich_help_panel=NETWORK,
        show_default=False,
    ),
]
JobsOpt = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        help="Fetch over N connections at once.",
        rich_help_panel=NETWORK,
        show_default=False,
    ),
]
MirrorOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        metavar="URL",
        help="Another address of the same file, for a web address; may be repeated.",
        rich_help_panel=NETWORK,
        show_default=False,
    ),
]
Sha256Opt = Annotated[
    str | None,
    typer.Option(
        "--sha256",
        metavar="HEX",
        help="What the file at a web address must be.",
        rich_help_panel=NETWORK,
        show_default=False,
    ),
]
MmprojOpt = Annotated[
    bool, typer.Option("--mmproj", help="Bring the repo's projector (for pictures or sound) along, for other programs.")
]
YesOpt = Annotated[bool, typer.Option("--yes", "-y", help="Pull it even if nothing fits this machine's memory.")]


def command(
    models: o.ModelsArg,
    dry_run: o.DryRunOpt = False,
    ctx_size: RoomOpt = None,
    mmproj: MmprojOpt = False,
    yes: YesOpt = False,
    limit_rate: LimitRateOpt = None,
    jobs: JobsOpt = None,
    mirror: MirrorOpt = None,
    sha256: Sha256Opt = None,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Fetch models into the store.

    First it says how each quant would do on this machine: size, memory, speed. Without a quant the best that fits is
    taken, Q4_K_M where nothing is known. Licence and size are said before the first byte comes. A download that was cut
    off, or killed, goes on where it stopped when the same command is run again. A repo that has only its original
    weights (safetensors) is quantized from them.
    """
    from owm.cli.fetching import find_here, pull_planned
    from owm.cli.listing import record
    from owm.cli.progress import progress
    from owm.library import open_store
    from owm.library.importing import plan_cached
    from owm.library.projecting import projector_in
    from owm.library.pulling import plan_choice
    from owm.store import refs
    from owm.units import format_bytes

    out = Output(json, quiet, verbose)
    limits = _limits(limit_rate, jobs)
    asked = [(name, refs.with_mirrors(refs.parse(name), mirror or (), sha256)) for name in models]
    if len(asked) > 1 and (mirror or sha256):
        _refuse_several("--mirror" if mirror else "--sha256")
    store = open_store()
    results: list[dict[str, Any]] = []
    for name, ref in asked:
        stored = store.find(ref) if dry_run else find_here(ref, store, out)
        if stored is None and dry_run and (cached := plan_cached(ref, store)) is not None:
            results.append(_planned_cached(cached))
            if not json:
                out.data(
                    None, lines=[f"would take {results[-1]['name']} from the {cached.found.owner}, as it lies there"]
                )
            continue
        if stored is None:
            with progress(out) as sink:
                choice = plan_choice(ref, n_ctx=ctx_size, is_dry=dry_run, store=store, sink=sink)
            if dry_run:
                results.append(_planned(choice, mmproj=mmproj))
                if not json:
                    _say_dry_run(choice, out, mmproj=mmproj)
                continue
            _say_choice(choice, out)
            if not yes:
                _check_memory(choice, out)
            if mmproj:
                projector_in(choice.plan.offer)  # raises before anything is fetched
            stored = pull_planned(choice.plan, out, store, limits=limits)
            out.note(f"stored {store.shown_name(stored)} ({format_bytes(stored.size_bytes)})")
        else:
            out.note(f"{ref if ref.kind == 'url' else name} is here already: {store.shown_name(stored)}")
            if dry_run:
                results.append(_planned_nothing(stored, store))
                if mmproj:
                    _with_projector(stored, store, out, limits, dry_run=True)
                continue
        if mmproj:
            stored = _with_projector(stored, store, out, limits)
        results.append(record(stored, store))
    if json:
        out.data(results)


def _limits(rate: str | None, jobs: int | None) -> "Limits":
    from owm.errors import UsageError
    from owm.store.limits import DEFAULT, Limits
    from owm.units import parse_bytes

    per_second: float | None = None
    if rate is not None:
        text = rate.strip().removesuffix("/s")
        try:
            # A rate counts in thousands, as those of lines and disks do: `10M` is `10MB`.
            per_second = parse_bytes(text + "B" if text[-1:].lower() in ("k", "m", "g") else text)
        except ValueError:
            raise UsageError(f"not a rate: {rate}", hint="`--limit-rate 10M` is ten million bytes a second") from None
    return Limits(per_second, DEFAULT.n_connections if jobs is None else jobs)


def _refuse_several(flag: str) -> None:
    from owm.errors import UsageError

    raise UsageError(f"{flag} goes with one model only", hint="pull them one by one")


def _with_projector(
    stored: "StoredModel", store: "Store", out: Output, limits: "Limits", *, dry_run: bool = False
) -> "StoredModel":
    from owm.cli.progress import progress
    from owm.errors import UsageError
    from owm.library import projecting
    from owm.units import format_bytes

    if stored.manifest is None or stored.manifest.made_from is not None:
        raise UsageError(f"{stored.name} was not published with a projector", hint="leave out `--mmproj`")
    if (known := projecting.projector_of(stored)) is not None and store.file_path(known).exists():
        out.note(f"its projector is here already: {store.file_path(known)}")
        return stored
    with progress(out) as sink:
        found = projecting.look_again(stored, store, sink=sink)
        file = projecting.projector_in(found.offer)
        size = format_bytes(file.size_bytes) if file.size_bytes is not None else "size not known"
        if dry_run:
            out.data(None, lines=[] if out.as_json else [f"would pull its projector {file.path}: {size}"])
            return stored
        out.note(f"pulling its projector {file.path}: {size}")
        stored = projecting.add_projector(stored, found, file, store, sink=sink, limits=limits)
    if (added := projecting.projector_of(stored)) is not None:
        out.note(f"stored its projector: {store.file_path(added)}")
    return stored


def _planned(choice: "Choice", *, mmproj: bool) -> dict[str, Any]:
    """Return what `--dry-run --json` says."""
    from owm.cli import quants_table
    from owm.library.projecting import projector_in
    from owm.store import licences
    from owm.store.checkpoint import CheckpointPlan

    plan = choice.plan
    coming = plan.files if isinstance(plan, CheckpointPlan) else plan.variant.files
    if mmproj:
        coming = (*coming, projector_in(plan.offer))
    licence = licences.find(plan.licence)
    return {
        "name": plan.name,
        "source": str(plan.offer.ref.with_quant(None)),
        "commit": plan.offer.commit,
        "licence": plan.licence,
        "licence_terms": licence.record() if licence else None,
        "is_gated": plan.offer.gated,
        "size_bytes": plan.size_bytes,
        "files": [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in coming],
        "is_checkpoint": isinstance(plan, CheckpointPlan),
        "is_stored": False,
        **quants_table.record(choice.report),
    }


def _planned_nothing(stored: "StoredModel", store: "Store") -> dict[str, Any]:
    """Return what `--dry-run --json` says of a model that is here already: the same keys, and nothing to choose."""
    from owm.cli import quants_table
    from owm.cli.listing import record
    from owm.store import licences

    found = record(stored, store)
    licence = licences.find(found["licence"])
    return {
        **quants_table.record(None),
        **found,
        "licence_terms": licence.record() if licence else None,
        "is_gated": stored.manifest.gated if stored.manifest else False,
        "is_checkpoint": False,
        "is_stored": True,
    }


def _planned_cached(cached: "Candidate") -> dict[str, Any]:
    """Return what `--dry-run --json` says of a model that another program has fetched: it would only be hashed."""
    from owm.cli import quants_table
    from owm.store import licences

    found, licence = cached.found, licences.find(cached.facts.licence)
    return {
        **quants_table.record(None),
        "name": f"{cached.ref}:{cached.label}",
        "source": str(cached.ref),
        "commit": found.commit,
        "licence": cached.facts.licence,
        "licence_terms": licence.record() if licence else None,
        "is_gated": False,
        "size_bytes": found.size_bytes,
        "files": [{"path": str(f.path), "size_bytes": f.size_bytes, "sha256": f.sha256} for f in found.files],
        "is_checkpoint": False,
        "is_stored": False,
        "owner": found.owner,
    }


def _say_dry_run(choice: "Choice", out: Output, *, mmproj: bool) -> None:
    from owm.cli import facts, quants_table
    from owm.cli.fetching import describe
    from owm.library.projecting import projector_in
    from owm.store import licences
    from owm.store.checkpoint import CheckpointPlan
    from owm.units import format_bytes

    report, plan = choice.report, choice.plan
    if report is not None and len(report.rows) > 1:
        quants_table.write(report, out)
    then = ", and quantize them" if isinstance(plan, CheckpointPlan) else ""
    lines = [f"would pull {describe(plan)}{then}"]
    if mmproj:
        file = projector_in(plan.offer)
        size = format_bytes(file.size_bytes) if file.size_bytes is not None else "size not known"
        lines.append(f"would pull its projector {file.path}: {size}")
    out.data(None, lines=lines)
    _say_reason(choice, out)
    card = plan.offer.card
    facts.note(f"licence: {licences.say(plan.licence, card.licence_link if card else None)}", out)


def _say_choice(choice: "Choice", out: Output) -> None:
    """Say how the quants would do, before anything is fetched."""
    from owm.cli import quants_table

    if choice.report is not None and len(choice.report.rows) > 1:
        quants_table.say(choice.report, out)
    _say_reason(choice, out)


def _say_reason(choice: "Choice", out: Output) -> None:
    from owm.cli import facts
    from owm.cli.quants_table import say_verdict

    report = choice.report
    if report is None:
        return
    if choice.reason is not None:
        facts.note(choice.reason, out)
    elif (verdict := say_verdict(report)) is not None:
        if report.rows[0].verdict == "fits":
            facts.note(verdict, out)
        else:
            out.warn(verdict)
    # Why nothing is known of its memory may be a reason to leave it: that llama.cpp cannot run it, say.
    say = out.detail if report.chosen is None or report.chosen.need is not None else out.warn
    for note in report.notes:
        say(note)


def _check_memory(choice: "Choice", out: Output) -> None:
    """Ask before what owm chose itself, and what does not fit, is fetched; without a terminal it is refused."""
    import sys

    from owm.cli.output import confirm
    from owm.cli.terminal import is_terminal
    from owm.errors import NotEnoughMemory

    try:
        choice.check_memory()
    except NotEnoughMemory as problem:
        if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
            raise
        if not confirm(f"{problem}; pull {choice.plan.name} all the same?"):
            raise
