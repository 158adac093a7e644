"""What a quantization would do, tensor by tensor: from which type to which, why, and what it comes to."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.library.quantizing import Source
    from owm.quantize.quantization import Quantization
    from owm.store.local import Store


def say_plan(
    source: "Source",
    planned: Sequence["Quantization"],
    paths: "list[list[Path]] | None",
    store: "Store",
    out: Output,
    *,
    n_threads: int | None,
) -> None:
    """Write the plan of each type; nothing is read but headers, nothing is written."""
    from owm.library.quantizing import estimate_seconds
    from owm.units import format_bytes, format_count, format_seconds

    seconds = estimate_seconds(planned, n_threads)
    if out.as_json:
        found = [_record(source, each) for each in planned]
        for record, where in zip(found, paths or [[]] * len(planned), strict=True):
            record["files"] = [{"path": str(path)} for path in where]
        disk = sum(each.plan.n_bytes for each in planned)
        out.data({"types": found, "disk_bytes": disk, "estimated_seconds": round(seconds, 1)})
        return
    for each in planned:
        rows = _tensors(each)
        shown = [
            row | {"shape": " x ".join(map(str, tensor.shape)), "size": format_bytes(tensor.n_bytes)}
            for row, tensor in zip(rows, each.plan.tensors, strict=True)
        ]
        columns = {"name": "TENSOR", "from": "FROM", "to": "TO", "shape": "SHAPE", "size": "SIZE", "reason": "WHY"}
        out.table(shown, columns, right=("size",))
        record = _record(source, each)
        out.note(
            f"{each.label}: {format_count(record['n_params'])} parameters, "
            f"{record['bits_per_weight']:.2f} bits per weight, {format_bytes(record['size_bytes'])}"
            + (f", {record['n_fallbacks']} of {len(rows)} tensors fall back" if record["n_fallbacks"] else "")
        )
    place = ", ".join(str(path) for files in paths for path in files) if paths else f"the store ({store.home})"
    total = format_bytes(sum(each.plan.n_bytes for each in planned))
    time = f"about {format_seconds(seconds)}" if seconds >= 1 else "less than a second"
    out.note(f"would write {total} to {place}, in {time}")


def _record(source: "Source", planned: "Quantization") -> dict[str, Any]:
    n_params = planned.plan.n_params
    return {
        "label": planned.label,
        "architecture": source.architecture,
        "n_params": n_params,
        "size_bytes": planned.plan.n_bytes,
        "bits_per_weight": round(8 * planned.plan.n_bytes / n_params, 4) if n_params else None,
        "n_fallbacks": sum(tensor.reason.startswith("fallback") for tensor in planned.plan.tensors),
        "tensors": _tensors(planned),
    }


def _tensors(planned: "Quantization") -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "from": tensor.rows.dtype,
            "to": tensor.type_name,
            "shape": list(tensor.shape),
            "size_bytes": tensor.n_bytes,
            "reason": tensor.reason,
        }
        for tensor in planned.plan.tensors
    ]
