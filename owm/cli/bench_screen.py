"""What `owm bench` shows: results as a table, as bars or in llama-bench's forms, and what has changed."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from owm.bench import report
from owm.cli.bench_chart import bar_columns, chart
from owm.cli.failures import ExitCode, say
from owm.cli.output import Output, aligned, talk
from owm.cli.terminal import is_terminal, one_line, visible
from owm.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from owm.bench.compare import Compared
    from owm.bench.record import Record


class BenchScreen:
    """Where results go, and in which form."""

    def __init__(self, out: Output, form: str, *, is_form_asked: bool, has_chart: bool, is_compared: bool) -> None:
        """Take the form.

        Args:
            is_form_asked: it is not the default one.
            is_compared: a comparison follows, to which `--json` alone leaves stdout.
        """
        self._out = out
        self._is_compared = is_compared
        self._form = form
        self._is_form_asked = is_form_asked
        self._has_chart = has_chart

    def show(self, records: "Sequence[Record]") -> None:
        """Write results to stdout; what is known of models, beside them, to stderr."""
        if self._form == "table":
            rows, columns, right = table(records)
            Output().table(rows, columns, right=right)
        elif self._is_form_asked or not (self._out.as_json and self._is_compared):
            text = report.write(records, self._form)
            sys.stdout.write(visible(text) if is_terminal(sys.stdout) else text)
        if self._has_chart:
            is_data = self._form in ("table", "md")
            lines = chart(records, bar_columns(sys.stdout if is_data else sys.stderr))
            (sys.stdout.write if is_data else talk)("\n" + "\n".join(lines) + "\n")
        for line in (*loading(records), *references(records)):
            self._out.note(line)

    def stopped(self, records: "Sequence[Record]", *, is_kept: bool, why: str = "interrupted") -> None:
        """After Ctrl-C or an error: write what there is, and say that it is not all."""
        if not records:
            self._out.note("interrupted before anything was measured")
            return
        self.show(records)
        n_least, n_most = (f(len(record.samples_ts) for record in records) for f in (min, max))
        times = str(n_most) if n_least == n_most else f"{n_least} to {n_most}"
        kept = ", and kept as partial" if is_kept else ""
        results = "1 result" if len(records) == 1 else f"{len(records)} results"
        verb = "is" if len(records) == 1 else "are"
        self._out.note(f"{why}: {results} of {times} repetitions {verb} written{kept}")

    def compare(self, before: "Sequence[Record]", after: "Sequence[Record]", share: float | None) -> int:
        """Say what has changed; return the exit code.

        Args:
            share: how much slower is a failure, None for any.
        """
        from owm.bench import history
        from owm.bench.compare import case_key, compare
        from owm.errors import NotFound, OwmError

        try:
            known = history.read()
        except OwmError:  # less is known of how much runs differ, then
            known = []
        found = compare(before, after, known)
        if not found:
            raise NotFound(
                "the two sets of results have no case in common", hint="measure with the same model and the same tests"
            )
        left = len({case_key(record) for record in after}) - len(found)
        if left:
            self._out.note(f"{left} of the results {'has' if left == 1 else 'have'} nothing to be compared with")
        machines = [{record.machine.get("fingerprint") for record in side} - {None} for side in (before, after)]
        if all(machines) and machines[0].isdisjoint(machines[1]):
            self._out.warn("the results before are of another machine")
        if self._out.as_json:
            self._out.data([asdict(one) | {"verdict": one.verdict} for one in found])
        else:
            self._write(found)
        slower = [one for one in found if share is not None and one.is_regression(share)]
        if slower:
            named = ", ".join(f"{one.model} {one.test}" for one in slower)
            say("error", f"slower by {100 * (share or 0):g} % or more: {named}")
        return ExitCode.FAILURE if slower else ExitCode.OK

    def _write(self, found: "Sequence[Compared]") -> None:
        rows = [
            {
                "model": one.model,
                "test": one.test,
                "settings": one.settings,
                "before": f"{one.before:.2f}",
                "after": f"{one.after:.2f}",
                "ratio": f"{one.ratio:.3f}",
                "interval": f"{one.low:.3f} to {one.high:.3f}",
                "verdict": one.verdict,
            }
            for one in found
        ]
        columns = {
            "model": "model",
            "test": "test",
            "settings": "changed",
            "before": "before t/s",
            "after": "after t/s",
            "ratio": "ratio",
            "interval": "95 % interval",
            "verdict": "verdict",
        }
        if not any(row["settings"] for row in rows):
            del columns["settings"]
        right = ("before", "after", "ratio")
        if self._is_form_asked:  # stdout has the results, in a form of their own
            cells = [[one_line(str(row[key])) for key in columns] for row in rows]
            talk("\n".join(aligned([list(columns.values()), *cells], [key in right for key in columns])) + "\n")
        else:
            if self._form != "table":
                sys.stdout.write("\n")
            Output().table(rows, columns, right=right)


def table(records: "Sequence[Record]") -> tuple[list[dict[str, Any]], dict[str, str], tuple[str, ...]]:
    """Return rows, columns and which of them are figures, for a table of results."""
    shown = [name for name in report.shown_settings(records) if len({getattr(each, name) for each in records}) > 1]
    rows = [
        {
            "model": record.model or record.model_type,
            "test": record.test,
            **{name: report.value(record, name) for name in shown},
            "rate": f"{record.avg_ts:.2f} ± {record.stddev_ts:.2f}",
            "first": format_seconds(record.ttft_seconds) if record.ttft_seconds is not None else "",
            "memory": format_bytes(record.peak_memory_bytes) if record.peak_memory_bytes else "",
            "gpu": format_bytes(record.gpu_memory_bytes) if record.gpu_memory_bytes else "",
            "limit": limit(record),
            **dict(zip(report.QUALITY_HEADINGS, report.quality(record), strict=True)),
        }
        for record in records
    ]
    columns = {
        "model": "model",
        "test": "test",
        **{name: report.heading(name) for name in shown},
        "rate": "t/s",
        "first": "first token",
        "memory": "memory",
        "gpu": "GPU memory",
        "limit": "of what is possible",
        **{heading: heading for heading in report.QUALITY_HEADINGS},
    }
    for key in ("first", "memory", "gpu", "limit", *report.QUALITY_HEADINGS):
        if not any(row[key] for row in rows):
            del columns[key]
    return rows, columns, (*shown, "rate", "first", "memory", "gpu", *report.QUALITY_HEADINGS)


def limit(record: "Record") -> str:
    """Say how near a result is to what the machine can do: `12.1 GB/s, 78 %`."""
    if record.gbps is not None:
        share = f", {record.bandwidth_share:.0%} of memory" if record.bandwidth_share is not None else ""
        return f"{record.gbps:.3g} GB/s{share}"
    if record.flops is not None:
        share = f", {record.flops_share:.0%} of products" if record.flops_share is not None else ""
        return f"{_flops(record.flops)}{share}"
    return ""


def _flops(per_second: float) -> str:
    for factor, unit in ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s")):
        if per_second >= factor:
            return f"{per_second / factor:.3g} {unit}"
    return f"{per_second / 1e6:.3g} MFLOP/s"


def loading(records: "Sequence[Record]") -> list[str]:
    """Say how long each model took to load."""
    found: dict[str, str] = {}
    for record in records:
        if record.load_seconds_warm is None:
            continue
        cold = record.load_seconds_cold
        # Another process may have it mapped, or it lies in memory anyhow, or there is no way to ask.
        kept = ", from disk not known: the system keeps the file in memory"
        from_disk = kept if cold is None else f", {format_seconds(cold)} from disk"
        found.setdefault(
            record.model, f"{record.model}: ready in {format_seconds(record.load_seconds_warm)} from memory{from_disk}"
        )
    return list(found.values())


def references(records: "Sequence[Record]") -> list[str]:
    """Say what quality was measured against."""
    names = dict.fromkeys(record.quality_reference for record in records if record.quality_reference)
    return [f"KLD and top-1 are against {', '.join(names)}"] if names else []
