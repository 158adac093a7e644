"""The table of a model's quants: how large each is, whether it fits this machine, how fast and how good it would be."""

from typing import TYPE_CHECKING, Any

from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.library.fitting import FitReport

COLUMNS = {
    "quant": "QUANT",
    "size": "SIZE",
    "bpw": "BPW",
    "memory": "MEMORY",
    "fits": "FITS",
    "speed": "T/S",
    "kld": "KLD",
}
FIGURES = ("size", "bpw", "memory", "speed", "kld")


def rows(report: "FitReport") -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the cells of the table as `owm fit` shows them, and the headings of the columns that have anything."""
    from owm.cli.fit import cells

    found = [cells(row, report) for row in report.rows]
    return found, {key: heading for key, heading in COLUMNS.items() if any(row[key] is not None for row in found)}


def write(report: "FitReport", out: Output) -> None:
    """Write the table to stdout."""
    found, columns = rows(report)
    out.table(found, columns, right=FIGURES)


def say(report: "FitReport", out: Output) -> None:
    """Say the table on stderr, beside the talk about a pull."""
    from owm.cli.output import aligned

    found, columns = rows(report)
    lines = [list(columns.values()), *([row[key] or "" for key in columns] for row in found)]
    for line in aligned(lines, [key in FIGURES for key in columns]):
        out.note(line)


def say_verdict(report: "FitReport") -> str | None:
    """Say in a sentence how the only quant of a report would do, None if nothing is known."""
    from owm.cli.figures import three_digits
    from owm.units import format_bytes

    if len(report.rows) != 1 or report.rows[0].verdict is None:
        return None
    row = report.rows[0]
    in_all = row.need.allocated_bytes + row.need.process_bytes if row.need is not None else None
    context = f"with a context of {row.n_ctx:,} tokens"
    speed = f", about {three_digits(row.speed.tg_per_second)} tokens a second" if row.speed is not None else ""
    if in_all is None:
        return f"{row.label} is larger than the memory that this machine has for it"
    memory = format_bytes(in_all)
    if row.verdict == "fits":
        return f"{row.label} takes {memory} {context}, which this machine has{speed}"
    if row.verdict == "no":
        return f"{row.label} takes {memory} {context}, more than this machine has for it"
    if row.n_ctx_fitting is not None:
        return f"{row.label} fits this machine with a context of {row.n_ctx_fitting:,} tokens, not of {row.n_ctx:,}"
    return f"{row.label} fits this machine with a part of its layers on the GPU{speed}"


def record(report: "FitReport | None") -> dict[str, Any]:
    """Return what `--json` says of the quants beside a plan."""
    if report is None:
        return {"quants": [], "chosen": None, "reason": None, "n_ctx": None, "notes": []}
    return {
        "quants": [row.record() for row in report.rows],
        "chosen": report.chosen.label if report.chosen else None,
        "reason": report.reason if report.chosen else None,
        "n_ctx": report.n_ctx,
        "notes": list(report.notes),
    }
