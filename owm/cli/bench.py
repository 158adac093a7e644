"""`owm bench`: what this machine does with a model, measured as it would run."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from owm.cli import bench_options as b
from owm.cli import options as o
from owm.cli.output import Output
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.bench.ranges import Grid
    from owm.bench.record import Record

FORMS = ("table", "md", "csv", "json", "jsonl", "sql")


def command(
    models: b.BenchModelsArg = None,
    n_prompt: b.PromptTokensOpt = None,
    n_gen: b.GenOpt = None,
    pair: b.PairOpt = None,
    depth: b.DepthOpt = None,
    prompt: b.BenchPromptOpt = None,
    parallel: b.BenchParallelOpt = None,
    repetitions: b.RepetitionsOpt = 5,
    no_warmup: b.NoWarmupOpt = False,
    threads: b.BenchThreadsOpt = None,
    batch_size: b.BatchSizeOpt = None,
    ubatch_size: b.UbatchSizeOpt = None,
    gpu_layers: b.BenchGpuLayersOpt = None,
    flash_attn: b.FlashAttnOpt = None,
    cache_type_k: b.CacheTypeKOpt = None,
    cache_type_v: b.CacheTypeVOpt = None,
    quality: b.QualityOpt = False,
    reference: b.ReferenceOpt = None,
    compare: b.CompareOpt = None,
    fail_on_regression: b.FailOnRegressionOpt = None,
    tune: b.TuneOpt = False,
    budget: b.BudgetOpt = None,
    trust: o.TrustOpt = False,
    output: b.FormOpt = None,
    chart: b.ChartOpt = False,
    plot: b.BenchPlotOpt = None,
    no_history: b.NoHistoryOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Measure how fast models run here, with the settings that `owm run` would use.

    `owm bench smollm2` reads 512 tokens (pp512) and makes 128 (tg128), as llama-bench does with the same flags, five
    times in turn. Every flag takes lists and ranges, of which all combinations are measured. Results are kept, and
    `--compare last` says what has changed beyond the noise.
    """
    from owm.bench.ranges import MAX_PARALLEL, Grid, parse_numbers, parse_pairs, parse_switches, parse_types

    form = _form(output, is_json=json)
    out = Output(json, quiet, verbose)
    grid = Grid(
        n_prompt=_or(parse_numbers(n_prompt or (), "--n-prompt"), [512]),
        n_gen=_or(parse_numbers(n_gen or (), "--n-gen"), [128]),
        pairs=parse_pairs(pair or (), "-pg"),
        n_depth=_or(parse_numbers(depth or (), "--n-depth"), [0]),
        n_parallel=_or(parse_numbers(parallel or (), "--parallel", least=1, most=MAX_PARALLEL), [1]),
        n_gpu_layers=parse_numbers(gpu_layers or (), "--gpu-layers", least=-1),
        n_batch=parse_numbers(batch_size or (), "--batch-size", least=1),
        n_ubatch=parse_numbers(ubatch_size or (), "--ubatch-size", least=1),
        type_k=parse_types(cache_type_k or (), "--cache-type-k"),
        type_v=parse_types(cache_type_v or (), "--cache-type-v"),
        flash_attention=parse_switches(flash_attn or (), "--flash-attn"),
        n_threads=parse_numbers(threads or (), "--threads", least=1),
    )
    if prompt is not None and any(grid.n_prompt) and n_prompt:
        raise UsageError("--prompt is the prompt, so --n-prompt has no place", hint="leave one of them out")
    share = None if fail_on_regression is None else _share(fail_on_regression)
    if share is not None and compare is None:
        raise UsageError("--fail-on-regression needs something to compare with", hint="add `--compare last`")
    if reference is not None and not quality:
        raise UsageError("--reference is what quality is measured against", hint="add `--quality`")
    if plot is not None:
        from owm.cli.report import check_plot

        check_plot(plot)
    if tune:
        others = {
            "-o": output,
            "--prompt": prompt,
            "--quality": quality,
            "--plot": plot,
            "--chart": chart,
            "--compare": compare,
            "--no-history": no_history,
            "-p": n_prompt,
            "-n": n_gen,
            "-pg": pair,
            "--depth": depth,
            "--parallel": parallel,
        }
        if given := [name for name, value in others.items() if value]:
            raise UsageError(f"--tune searches settings and writes no results, so {given[0]} has no place")
        return _tune(models or [], budget, grid, out)
    if budget is not None:
        raise UsageError("--budget is the time for `--tune`", hint="add `--tune`")

    from owm.cli.bench_screen import BenchScreen
    from owm.library import benchmarking

    screen = BenchScreen(out, form, is_form_asked=output is not None, has_chart=chart, is_compared=compare is not None)
    if compare is not None and models and all(benchmarking.is_result(text) for text in models):
        if len(models) > 1:
            raise UsageError("--compare takes two sets of results at most")
        if quality or plot is not None:
            raise UsageError("two sets of results are compared, and nothing is measured", hint="name a model")
        before = benchmarking.earlier(compare, note=out.warn)
        return screen.compare(before, benchmarking.earlier(models[0], note=out.warn), share)
    if not models:
        raise UsageError("which model is to be measured?", hint="`owm list` shows those that are stored")
    # What it is compared with has to be there before the work is done.
    known = None if compare is None or compare == "last" else benchmarking.earlier(compare, note=out.warn)
    try:
        records = _measure(
            models,
            grid,
            out,
            prompt=prompt,
            repetitions=repetitions,
            has_warmup=not no_warmup,
            has_quality=quality,
            reference=reference,
            keeps=not no_history,
        )
    except benchmarking.Stopped as stopped:
        screen.stopped(stopped.records, is_kept=not no_history)
        raise
    except benchmarking.Broken as broken:
        screen.stopped(broken.records, is_kept=not no_history, why="an error ended it")
        raise broken.error from None
    screen.show(records)
    if plot is not None:
        from owm.cli import bench_plot

        bench_plot.draw(records, plot)
        out.note(f"drawn: {plot}")
    if compare is None:
        return 0
    if known is None:
        known = benchmarking.earlier("last", like=records, note=out.warn)
    return screen.compare(known, records, share)


def _measure(
    models: Sequence[str],
    grid: "Grid",
    out: Output,
    *,
    prompt: Path | None,
    repetitions: int,
    has_warmup: bool,
    has_quality: bool,
    reference: str | None,
    keeps: bool,
) -> "list[Record]":
    from owm.cli.fetching import find_or_pull
    from owm.cli.opening import log_line
    from owm.cli.progress import progress
    from owm.cli.sources import find_running
    from owm.hardware import probe
    from owm.library import benchmarking, open_store
    from owm.library.gate import admit
    from owm.store.refs import told

    text = None if prompt is None else _read(prompt)
    store = open_store()
    stored = {name: find_or_pull(name, out, store) for name in dict.fromkeys(models)}
    for each in stored.values():
        admit(each, tell=out.note)
    planned = [
        benchmarking.plan(each, told(name), store, grid, prompt=text, note=out.warn) for name, each in stored.items()
    ]
    for one in planned:
        out.note(f"measuring {one.said(probe.cores().usable)}")
    with ExitStack() as stack:
        best = None
        if reference is not None:
            best = benchmarking.subject_of(find_running(reference, store, out, stack), told(reference))
        sink = stack.enter_context(progress(out))
        return benchmarking.measure(
            planned,
            repetitions=repetitions,
            has_warmup=has_warmup,
            has_quality=has_quality,
            reference=best,
            keeps=keeps,
            log=log_line if out.verbose else None,
            sink=sink,
        )


def _tune(models: Sequence[str], budget: str | None, grid: "Grid", out: Output) -> int:
    from dataclasses import asdict

    from owm.cli.fetching import find_or_pull
    from owm.cli.opening import open_model
    from owm.cli.progress import progress
    from owm.library import open_store
    from owm.library.configuring import settings_of
    from owm.library.tuning import BUDGET_SECONDS, check_budget, tune_model
    from owm.store.refs import told

    if not models:
        raise UsageError("which model is to be tuned?", hint="`owm list` shows those that are stored")
    [start, *others] = grid.tunings()
    if others:
        raise UsageError("--tune begins with one value of each setting, and searches the others itself")
    seconds = BUDGET_SECONDS if budget is None else _seconds(budget)
    check_budget(seconds)
    store = open_store()
    found = []
    for asked in dict.fromkeys(models):
        stored, name = find_or_pull(asked, out, store), told(asked)
        out.note(f"tuning {name} for this machine, for about {seconds:g} s")
        with progress(out) as sink:
            outcome = tune_model(
                stored,
                name,
                budget_seconds=seconds,
                start=settings_of(start),
                open_model=lambda n, stored=stored: open_model(stored, out, gpu_layers=n, adapters=(), will_chat=False),  # type: ignore[misc]
                sink=sink,
            )
        found.append(outcome)
        if not out.as_json:
            out.data(None, lines=list(outcome.said()))
    if out.as_json:
        out.data([asdict(outcome.kept) for outcome in found])
    return 0


def _form(asked: str | None, *, is_json: bool) -> str:
    from owm.cli.terminal import is_terminal

    if asked is not None and asked not in FORMS:
        raise UsageError(f"--output must be one of {', '.join(FORMS)}: {asked}")
    if is_json and asked not in (None, "json"):
        raise UsageError(f"--json and `-o {asked}` are two forms", hint="leave one of them out")
    return asked or ("json" if is_json else "table" if is_terminal(sys.stdout) else "md")


def _or(found: list[int], default: list[int]) -> list[int]:
    return found or default


def _share(text: str) -> float:
    try:
        found = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise UsageError(f"--fail-on-regression takes a share such as 5%: {text}") from None
    if not 0 <= found < 1:
        raise UsageError(f"--fail-on-regression must be from 0% to 100%: {text}")
    if 0 < found < 0.01 and "%" not in text:
        raise UsageError(
            f"--fail-on-regression takes percents: {text}", hint=f"say `{100 * 100 * found:g}%` or `{text.strip()}%`"
        )
    return found


def _seconds(text: str) -> float:
    """Read `60`, `60s`, `2m`."""
    number, factor = text.strip().lower(), 1.0
    for suffix, times in (("min", 60.0), ("m", 60.0), ("s", 1.0)):
        if number.endswith(suffix):
            number, factor = number.removesuffix(suffix).strip(), times
            break
    try:
        return float(number) * factor
    except ValueError:
        raise UsageError(f"--budget takes a time such as 60s or 2m: {text}") from None


def _read(path: Path) -> str:
    from owm.engine.material import read_file

    found = read_file(path).text
    if not found.strip():
        raise UsageError(f"there is no prompt in {path}")
    return found
