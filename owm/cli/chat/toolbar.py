"""The line under the prompt of `owm chat`: model, how full the context is, how fast the last answer was, the branch."""

from dataclasses import dataclass

from owm.cli.terminal import one_line

_METER_CELLS = 10
_GAP = "  "
_MOST_NAME = 32


@dataclass(frozen=True, slots=True)
class Status:
    """What the line tells; None is left out. `note` is something that is under way, as loading."""

    model: str = ""
    note: str | None = None
    n_used: int | None = None
    n_ctx: int | None = None
    rate: float | None = None
    branch: str | None = None
    n_branches: int = 1


def toolbar_text(status: Status, width: int) -> str:
    """Return the line, at most `width` columns; what does not fit is left out, from the right."""
    from owm.cli.wrapping import columns

    parts = [_cut(one_line(status.model), min(_MOST_NAME, width))] if status.model else []
    if status.note:
        parts.append(one_line(status.note))
    if status.n_used is not None and status.n_ctx:
        parts.append(_meter(status.n_used, status.n_ctx, is_short=width < 60))
    if status.rate is not None:
        parts.append(f"{status.rate:.0f} t/s" if status.rate >= 10 else f"{status.rate:.1f} t/s")
    if status.branch and status.n_branches > 1:
        parts.append(_cut(one_line(status.branch), _MOST_NAME))
    line = ""
    for part in parts:
        longer = f"{line}{_GAP}{part}" if line else part
        if columns(longer) > width:
            break
        line = longer
    return line


def bar(n_used: int, n_ctx: int, n_cells: int) -> str:
    """Return how full the context is; what is not empty shows one cell, what is not full lacks one."""
    share = min(max(n_used / n_ctx, 0.0), 1.0) if n_ctx else 1.0
    n_full = min(max(round(share * n_cells), int(n_used > 0)), n_cells - int(n_used < n_ctx))
    return "█" * n_full + "░" * (n_cells - n_full)


def _meter(n_used: int, n_ctx: int, *, is_short: bool) -> str:
    """Return the context as a bar and in numbers."""
    numbers = f"{n_used:,}/{n_ctx:,}"
    return numbers if is_short else f"{bar(n_used, n_ctx, _METER_CELLS)} {numbers}"


def _cut(text: str, width: int) -> str:
    from owm.cli.wrapping import columns

    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[:-1]
    return f"{text}…"
