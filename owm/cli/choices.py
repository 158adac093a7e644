"""The table of types that were chosen for a target size, one line for each kind of tensor."""

from typing import TYPE_CHECKING

from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.tailor.recipe_file import Tailored


def say_choices(label: str, tailored: "Tailored", out: Output) -> None:
    """Say on stderr which types were chosen, and what they are expected to lose."""
    from owm.cli.output import aligned
    from owm.units import format_bytes

    rows = [["TENSORS", "COUNT", "TYPES", "BPW", "SIZE", "LOSS"]]
    for row in sorted(tailored.table, key=lambda row: -row.loss):
        types = ", ".join(name if len(row.types) == 1 else f"{count} {name}" for name, count in row.types.items())
        rows.append(
            [row.kind, str(row.n_tensors), types, f"{row.bpw:.2f}", format_bytes(row.n_bytes), f"{row.loss:.4f}"]
        )
    for line in aligned(rows, [False, True, False, True, True, True]):
        out.note(line)
    for note in tailored.notes:
        out.note(note)
    expected = "" if tailored.measured_kld is None else f", KLD of {tailored.measured_kld:.4f} in the trial"
    out.note(f"{label}: {format_bytes(tailored.n_bytes)} of {format_bytes(tailored.target_bytes)}{expected}")
