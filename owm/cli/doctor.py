"""`owm doctor`: what this machine is, what owm can do with it, and what would mend what it cannot."""

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.terminal import is_terminal

if TYPE_CHECKING:
    from owm.library.diagnosing import Diagnosis, Gpu, Privacy


def command(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="With `--privacy`: the stored model that answers (default: the smallest).",
            show_default=False,
            autocompletion=o.complete_models,
        ),
    ] = None,
    privacy: Annotated[
        bool,
        typer.Option(
            "--privacy",
            help="Have a model answer where no network socket can be opened: in run, chat, batch and bench.",
        ),
    ] = False,
    hub: Annotated[
        bool, typer.Option("--hub", help="Ask the Hub whether it can be reached, with one request.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure this machine anew instead of taking what was measured before.")
    ] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Show what this machine can do, what owm does with it, and what would mend what is amiss.

    Nothing here uses the network, except for `--hub`. How fast memory and processor are is measured once, in a second.
    """
    from owm.errors import UsageError
    from owm.library import open_store
    from owm.library.diagnosing import diagnose, show_privacy

    out = Output(json, quiet, verbose)
    if model is not None and not privacy:
        raise UsageError("a model is for --privacy, which has it answer", hint="`owm show MODEL` tells of a model")
    if privacy:
        shown = show_privacy(open_store(), model)
        out.data(shown.record(), lines=_privacy_lines(shown))
        return 0 if shown.is_shown else 1
    found = diagnose(open_store(), asks_hub=hub, is_fresh=fresh)
    out.data({**found.record(), "terminal": terminal()}, lines=_lines(found))
    for problem in found.problems:
        out.warn(problem)
    return 0


def terminal() -> dict[str, Any]:
    """Return what this terminal can do."""
    import shutil

    is_dumb = os.environ.get("TERM", "") in ("", "dumb")
    is_shown = is_terminal(sys.stdout)
    colours = None
    if is_shown and not is_dumb and not os.environ.get("NO_COLOR"):
        deep = os.environ.get("COLORTERM", "") in ("truecolor", "24bit")
        colours = 1 << 24 if deep else 256 if "256" in os.environ.get("TERM", "") else 16
    size = shutil.get_terminal_size()
    return {
        "is_terminal": is_shown,
        "columns": size.columns if is_shown else None,
        "lines": size.lines if is_shown else None,
        "colours": colours,
        "is_utf8": (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" and _is_utf8_locale(),
        "can_edit": is_shown and is_terminal(sys.stdin) and not is_dumb,
    }


def _is_utf8_locale() -> bool:
    """Tell whether the terminal is said to show UTF-8, which is written in any case."""
    said = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    return sys.platform == "darwin" or "utf" in said.lower()


def _lines(found: "Diagnosis") -> list[str]:
    from owm.units import format_bytes

    cores, memory, rates = found.cores, found.memory, found.rates
    quota = f", {cores.quota:g} by quota" if cores.quota is not None else ""
    counted = f"{found.n_physical or '?'} cores, {cores.allowed} threads allowed{quota}"
    rows: list[tuple[str, str]] = [
        ("processor", found.machine.cpu),
        ("", f"{counted}; owm computes with {cores.usable}"),
        ("", f"the build uses {', '.join(found.features.used) or 'nothing that it tells of'}"),
    ]
    if found.rebuild:
        rows += [
            ("", f"the build does not use {', '.join(found.features.missing)}, which this processor has"),
            ("", f"this builds it with them: {found.rebuild}"),
        ]
    free = f"{format_bytes(memory.total)}, {format_bytes(memory.available)} free"
    rows.append(("memory", free + (f"; {rates.bytes_per_second / 1e9:.1f} GB/s measured" if rates else "")))
    if rates and rates.flops:
        speeds = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.flops.items())
        rows.append(("matrices", f"{speeds} GFLOP/s measured, by the type of the weights"))
    rows += _gpu_rows(found.gpus)
    named = [f"{name} {number}" for name, number in found.versions.items()]
    rows += [("versions" if not i else "", ", ".join(named[i : i + 4])) for i in range(0, len(named), 4)]
    rows.append(("build", found.machine.build))
    rows.append(("models", f"{found.n_models} stored"))
    for place in found.places:
        left = f", {format_bytes(place.free_bytes)} free" if place.free_bytes is not None else ""
        rows.append((place.name, f"{format_bytes(place.size_bytes)}{left}: {place.path}"))
    reach = found.hub
    answers = {True: "reachable", False: "not reachable", None: "not asked"}
    reason = "`--hub` asks" if reach.reason == "not asked" else reach.reason
    rows.append(("Hub", f"{answers[reach.is_reachable]}: {reason}"))
    rows.append(("terminal", _terminal_line()))
    width = max(len(name) for name, _ in rows)
    return [f"{name.ljust(width)}  {text}" for name, text in rows]


def _gpu_rows(gpus: "tuple[Gpu, ...]") -> list[tuple[str, str]]:
    from owm.units import format_bytes

    if not gpus:
        return [("GPU", "none is seen")]
    rows = []
    for gpu in gpus:
        if gpu.is_usable:
            room = "" if gpu.total_bytes is None else f", {format_bytes(gpu.free_bytes or 0)} of "
            rows.append(
                ("GPU", f"{gpu.name}, used{room}{format_bytes(gpu.total_bytes or 0) + ' free' if room else ''}")
            )
        else:
            rows += [
                ("GPU", f"{gpu.name}, which this build of llama.cpp cannot use"),
                ("", f"with {gpu.needs} installed, this lets it: {gpu.command}"),
            ]
    return rows


def _terminal_line() -> str:
    found = terminal()
    if not found["is_terminal"]:
        return "none, stdout goes elsewhere"
    colours = {None: "no colours", 16: "16 colours", 256: "256 colours"}.get(found["colours"], "all colours")
    letters = "UTF-8" if found["is_utf8"] else "its locale is not UTF-8"
    lines = "lines can be edited" if found["can_edit"] else "no line editing"
    return f"{found['columns']} × {found['lines']}, {colours}, {letters}, {lines}"


def _privacy_lines(shown: "Privacy") -> list[str]:
    ways = {
        "filter": "the kernel would have ended it at its first network socket (seccomp)",
        "namespace": "its network had no device at all (a namespace)",
        "sandbox": "the system refused it all of the network (sandbox)",
    }
    how = [f"  {ways[means]}" for means in shown.means]
    if shown.is_shown:
        return [
            f"{shown.model} answered with no way to the network:",
            f"  in {', '.join(f'`owm {name}`' for name in shown.commands)}",
            *how,
            "a program that does connect was stopped in the same way just before",
        ]
    return [f"{shown.model} was run with no way to the network, and nothing is shown: {shown.reason}", *how]
