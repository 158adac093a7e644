"""Results as text: llama-bench's formats with its names, so that what reads those reads these.

JSON and CSV have owm's own fields after llama-bench's. In SQL the table `llama_bench` has llama-bench's columns and the
results that it could have made; `owm_bench` has all results and all fields.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from owm.bench.record import LLAMA_BENCH_FIELDS, OWN_FIELDS, Record

_COLUMNS = tuple(name for name in LLAMA_BENCH_FIELDS if not name.startswith("samples_"))
_OWN_COLUMNS = tuple(name for name in OWN_FIELDS if name not in ("settings", "machine"))
QUALITY_HEADINGS = ("KLD", "PPL", "top-1")
_FLASH = {-1: "auto", 0: "off", 1: "on"}
_FLAGS = ("cpu_strict", "no_kv_offload", "embeddings", "no_host", "repack")
_REALS = ("avg_ts", "stddev_ts", "ttft_seconds", "load_seconds_warm", "load_seconds_cold", "gbps", "bandwidth_share",
    "flops", "flops_share", "kld", "kld_margin", "perplexity", "top1_agreement")  # fmt: skip
_TEXTS = ("build_commit", "cpu_info", "gpu_info", "backends", "model_filename", "model_type", "cpu_mask", "type_k",
    "type_v", "split_mode", "devices", "tensor_split", "tensor_buft_overrides", "load_mode", "lazy_mode", "test_time",
    "test", "model", "prompt_kind", "quality_reference", "owm_version", "library", "run_id")  # fmt: skip
# Setting -> heading and width, negative for text; those that are shown where they are not the default. ref: llama-bench
_SHOWN: dict[str, tuple[str, int, Any]] = {
    "n_gpu_layers": ("ngl", 3, -1),
    "n_threads": ("threads", 7, None),
    "n_batch": ("n_batch", 7, 2048),
    "n_ubatch": ("n_ubatch", 8, 512),
    "type_k": ("type_k", 6, "f16"),
    "type_v": ("type_v", 6, "f16"),
    "flash_attn": ("fa", 3, -1),
}


def write(records: Sequence[Record], form: str) -> str:
    """Write results as `md`, `csv`, `json`, `jsonl` or `sql`."""
    return FORMATS[form](records)


def _json(records: Sequence[Record]) -> str:
    return json.dumps([record.members() for record in records], indent=2) + "\n"


def _jsonl(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record.members()) + "\n" for record in records)


def _csv(records: Sequence[Record]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    text.write(",".join((*_COLUMNS, *_OWN_COLUMNS)) + "\n")
    for record in records:
        writer.writerow([_plain(record, name) for name in (*_COLUMNS, *_OWN_COLUMNS)])
    return text.getvalue()


def _sql(records: Sequence[Record]) -> str:
    columns = (*_COLUMNS, *_OWN_COLUMNS)
    parts = [_create("llama_bench", _COLUMNS), _create("owm_bench", columns)]
    for record in records:
        if record.is_llama_bench:
            parts.append(_insert("llama_bench", _COLUMNS, record))
        parts.append(_insert("owm_bench", columns, record))
    return "".join(parts)


def _create(table: str, names: Sequence[str]) -> str:
    kinds = (f"  {name} {'TEXT' if name in _TEXTS else 'REAL' if name in _REALS else 'INTEGER'}" for name in names)
    return f"CREATE TABLE IF NOT EXISTS {table} (\n" + ",\n".join(kinds) + "\n);\n\n"


def _insert(table: str, names: Sequence[str], record: Record) -> str:
    values = ", ".join(
        "NULL" if getattr(record, name) is None else "'" + _plain(record, name).replace("'", "''") + "'"
        for name in names
    )
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values});\n"


def _plain(record: Record, name: str) -> str:
    """Write a field as llama-bench's CSV and SQL do."""
    value = getattr(record, name)
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.6f}" if name in ("avg_ts", "stddev_ts") else str(value)


def _markdown(records: Sequence[Record]) -> str:
    """Write llama-bench's table."""
    if not records:
        return ""
    shown = shown_settings(records)
    headings: list[tuple[str, int]] = [("model", -30), ("size", 10), ("params", 10), ("backend", -10)]
    headings += [_SHOWN[name][:2] for name in shown] + [("test", 15), ("t/s", 20)]
    has_quality = any(record.perplexity is not None for record in records)
    if has_quality:
        headings += [(heading, width) for heading, width in zip(QUALITY_HEADINGS, (18, 8, 7), strict=True)]
    lines = [
        "|" + "".join(f" {_pad(heading, width)} |" for heading, width in headings),
        "|" + "".join(f" {'-' * (abs(width) - 1)}{':' if width > 0 else '-'} |" for _, width in headings),
    ]
    for record in records:
        cells = [
            record.model_type,
            size(record.model_size),
            params(record.model_n_params),
            record.backends,
            *(str(getattr(record, name)) for name in shown),
            record.test,
            f"{record.avg_ts:.2f} ± {record.stddev_ts:.2f}",
            *(quality(record) if has_quality else ()),
        ]
        pairs = zip(cells, headings, strict=True)
        lines.append("|" + "".join(f" {_pad(_cell(cell), width)} |" for cell, (_, width) in pairs))
    first = records[0]
    return "\n".join(lines) + f"\n\nbuild: {first.build_commit} ({first.build_number})\n"


def shown_settings(records: Sequence[Record]) -> list[str]:
    """Return the settings that a table shows: those that vary, or are not llama-bench's defaults, and the threads."""
    is_cpu = all("CPU" in record.backends or "BLAS" in record.backends for record in records)
    found = []
    for name, (_, _, default) in _SHOWN.items():
        values = {getattr(record, name) for record in records}
        if name == "n_gpu_layers":
            is_shown = not is_cpu or len(values) > 1
        else:
            is_shown = len(values) > 1 or values != {default}
        if is_shown:
            found.append(name)
    return found


def heading(setting: str) -> str:
    """Return what a table calls a setting."""
    return _SHOWN[setting][0]


def value(record: Record, setting: str) -> str:
    """Say a setting's value in words."""
    found = getattr(record, setting)
    return _FLASH.get(found, str(found)) if setting == "flash_attn" else str(found)


def quality(record: Record) -> tuple[str, str, str]:
    """Say the divergence (as far as it is known), the perplexity and the agreement; nothing of what was not measured.

    A model that is the reference itself has no divergence.
    """
    perplexity = "" if record.perplexity is None else f"{record.perplexity:.3f}"
    if record.kld is None or record.top1_agreement is None:
        return "", perplexity, ""
    if not record.kld:
        return "reference", perplexity, ""
    n_digits = max(0, min(8, 2 - math.floor(math.log10(abs(record.kld)))))
    margin = f" ± {record.kld_margin:.{n_digits}f}" if record.kld_margin else ""
    return f"{record.kld:.{n_digits}f}{margin}", perplexity, f"{100 * record.top1_agreement:.1f} %"


def size(n_bytes: int) -> str:
    """Write a size as llama-bench does."""
    return f"{n_bytes / 2**20:.2f} MiB" if n_bytes < 2**30 else f"{n_bytes / 2**30:.2f} GiB"


def params(n: int) -> str:
    """Write a number of parameters as llama-bench does."""
    return f"{n / 1e6:.2f} M" if n < 10**9 else f"{n / 1e9:.2f} B"


def _pad(text: str, width: int) -> str:
    return text.ljust(-width) if width < 0 else text.rjust(width)


def _cell(text: str) -> str:
    """Keep what a stranger wrote into a model from ending a cell."""
    return "".join(each if each.isprintable() else " " for each in text).replace("|", "\\|")


FORMATS: dict[str, Callable[[Sequence[Record]], str]] = {
    "md": _markdown,
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "sql": _sql,
}
