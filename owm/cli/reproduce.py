"""`owm quantize --reproduce`: a model made again from its manifest, and compared byte for byte."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from owm.cli.output import Output
from owm.cli.progress import progress
from owm.units import format_bytes

if TYPE_CHECKING:
    from owm.cli.quantize_job import Resources
    from owm.library.reproducing import Target, Verdict
    from owm.native.guard import Child
    from owm.store.local import Store


def reproduce(name: str, resources: "Resources", child: "Child", store: "Store", out: Output, *, is_dry: bool) -> int:
    """Make a model again and say whether it is the same; return the exit code."""
    from owm.cli.failures import ExitCode
    from owm.cli.fetching import fetch_planned, find_or_pull
    from owm.library import reproducing, retrieving

    with progress(out) as sink:
        target = reproducing.find_target(name, store, sink=sink)
    for what, recorded, here in target.differs:
        out.warn(
            f"{target.name} was made by {_tool(what, recorded)}, this is {_tool(what, here)}: it may come otherwise"
        )
    for note in target.notes:
        out.warn(note)
    source = retrieving.find_source(
        target,
        store,
        fetch=lambda planned: fetch_planned(planned, out, store),
        pull=lambda ref: find_or_pull(ref, out, store),
    )
    if is_dry:
        size = sum(path.stat().st_size for path in target.model.files if path.exists())
        out.data(
            _record(target, None, ()),
            lines=[f"would make {target.name} again from {source.name}, and compare {format_bytes(size)}"],
        )
        return ExitCode.OK
    with progress(out) as sink:
        rebuilt = reproducing.plan(target, source, child, store, n_threads=resources.n_threads, sink=sink)
    for note in rebuilt.notes:
        out.note(note)
    out.note(f"making {target.name} again from {source.name}: {format_bytes(rebuilt.plan.n_bytes)}")
    try:
        with progress(out) as sink:
            verdict = reproducing.execute(
                rebuilt,
                child,
                store,
                memory_bytes=resources.memory_bytes,
                n_threads=resources.n_threads,
                sink=sink,
            )
    except KeyboardInterrupt:
        out.note("interrupted; the same command goes on from the last finished tensor")
        raise
    out.data(_record(target, verdict, rebuilt.notes), lines=[_sentence(target, verdict)])
    return ExitCode.OK if verdict.is_identical else ExitCode.DAMAGED


def _tool(what: str, version: str) -> str:
    return f"owm {version}" if what == "owm" else version


def _sentence(target: "Target", verdict: "Verdict") -> str:
    if verdict.is_identical:
        return "identical"
    if verdict.difference is None:
        return "different: its sha256 is another; its files are gone, so nobody can say where"
    if verdict.sha256s == target.files:
        return f"identical to what is recorded, but the file here is damaged: {verdict.difference}"
    return f"different: {verdict.difference}"


def _record(target: "Target", verdict: "Verdict | None", notes: tuple[str, ...]) -> dict[str, Any]:
    from owm.library import recipes

    found = verdict.difference if verdict is not None else None
    built: tuple[str | None, ...] = verdict.sha256s if verdict is not None else (None,) * len(target.files)
    return {
        "name": target.name,
        "is_identical": verdict.is_identical if verdict is not None else None,
        "difference": {**asdict(found), "sentence": str(found)} if found is not None else None,
        "sha256": {"recorded": list(target.files), "built": list(built)},
        "size_bytes": verdict.size_bytes if verdict is not None else None,
        "versions": {"recorded": dict(target.recipe.versions or {}) or None, "here": recipes.versions()},
        "notes": [*target.notes, *notes],
    }
