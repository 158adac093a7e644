"""`owm fit`: whether a model fits this machine, how fast it would be, and which quant owm would take."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.fit.fit import Fit
    from owm.fit.speed import Speed
    from owm.library.fitting import FitReport


def command(
    model: o.ModelArg,
    n_ctx: Annotated[
        int | None,
        typer.Option(
            "--ctx-size",
            "-c",
            metavar="N",
            help="Tokens in the context of each answer (default: 8192, or the model's own if that is less).",
            show_default=False,
        ),
    ] = None,
    n_parallel: Annotated[
        int, typer.Option("--parallel", "-np", metavar="N", min=1, max=256, help="Answers side by side.")
    ] = 1,
    type_k: Annotated[
        str | None,
        typer.Option("--cache-type-k", metavar="TYPE", help="Type of the KV cache's keys.", show_default=False),
    ] = None,
    type_v: Annotated[
        str | None,
        typer.Option("--cache-type-v", metavar="TYPE", help="Type of the KV cache's values.", show_default=False),
    ] = None,
    n_gpu_layers: o.GpuLayersOpt = None,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Say whether a model fits this machine, how fast it would be, and which quant owm would take.

    Nothing but headers is fetched of a model that is not stored; a name without a quant shows all quants of its repo.
    Memory is what llama.cpp allocates with a full context, measured against all that this machine has.
    """
    from owm.cli.progress import progress
    from owm.library.fitting import fit_model

    out = Output(json, quiet, verbose)
    with progress(out) as sink:
        report = fit_model(
            model,
            n_ctx=n_ctx,
            n_parallel=n_parallel,
            type_k=type_k,
            type_v=type_v,
            n_gpu_layers=n_gpu_layers,
            sink=sink,
        )
    if json:
        out.data(report.record())
        return
    show(report, out)


def show(report: "FitReport", out: Output) -> None:
    """Write a report: the table to stdout, what it was made for and what was chosen to stderr."""
    from owm.units import format_bytes

    each = f" for each of {report.n_parallel} answers" if report.n_parallel > 1 else ""
    memory = f"{format_bytes(report.machine.memory_bytes)} of memory"
    if report.machine.gpu_bytes:
        memory += f", {format_bytes(report.machine.gpu_bytes)} on {', '.join(report.machine.gpus)}"
    out.note(f"{report.model} with a context of {report.n_ctx:,} tokens{each}; {memory}")
    columns = {"quant": "QUANT", "size": "SIZE", "bpw": "BPW", "memory": "MEMORY", "fits": "FITS"}
    if any(row.speed is not None for row in report.rows):
        columns["speed"] = "T/S"
    if any(row.quality is not None for row in report.rows):
        columns["kld"] = "KLD"
    out.table([cells(row, report) for row in report.rows], columns, right=("size", "bpw", "memory", "speed", "kld"))
    if out.verbose and report.chosen is not None:
        _say_parts(report.chosen, out)
    for note in report.notes:
        out.note(note)
    if report.reason:
        out.note(f"* {report.reason}")


def cells(row: "Fit", report: "FitReport") -> dict[str, Any]:
    """Return what a table shows of a row; `*` marks the chosen one, `~` what is not sure."""
    from owm.units import format_bytes

    about = "" if row.is_exact else "~"
    return {
        "quant": f"{row.label} *" if row is report.chosen else row.label,
        "size": None if row.size_bytes is None else format_bytes(row.size_bytes),
        "bpw": None if row.bpw is None else f"{row.bpw:.2f}",
        "memory": None if row.need is None else about + format_bytes(_in_all(row)),
        "fits": _fits(row),
        "speed": None if row.speed is None else say_speed(row.speed),
        "kld": None if row.quality is None else f"{row.quality:.2g}",
    }


def say_speed(speed: "Speed") -> str:
    """Say tokens a second; `~` marks what was measured while the machine did much else."""
    from owm.cli.figures import three_digits

    return ("~" if speed.is_uncertain else "") + three_digits(speed.tg_per_second)


def _fits(row: "Fit") -> str:
    if row.verdict is None:
        return "?"
    if row.verdict == "fits":
        return "yes"
    if row.verdict == "no":
        return "no"
    if row.n_ctx_fitting is not None:
        return f"ctx {row.n_ctx_fitting}"
    return f"{row.need.n_gpu_layers} layers" if row.need is not None else "partly"


def _in_all(row: "Fit") -> int:
    assert row.need is not None
    return row.need.allocated_bytes + row.need.process_bytes


def _say_parts(row: "Fit", out: Output) -> None:
    """Say what the memory of one quant is made of."""
    from dataclasses import asdict

    from owm.units import format_bytes

    if row.need is None:
        return
    for place, buffers in (("memory", row.need.cpu), ("GPU", row.need.gpu)):
        said = [
            f"{name.removesuffix('_bytes')} {format_bytes(n_bytes)}"
            for name, n_bytes in asdict(buffers).items()
            if n_bytes
        ]
        if said:
            out.note(f"{row.label} in {place}: {', '.join(said)}")
    out.note(f"the program itself: {format_bytes(row.need.process_bytes)}")
