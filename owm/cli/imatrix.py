"""`owm imatrix`: how large the activations are that meet each column of a model's weights."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.cli import options as o
from owm.cli import weight_options as w
from owm.cli.output import Output
from owm.errors import StoreError, UsageError

if TYPE_CHECKING:
    from owm.formats.imatrix import Imatrix
    from owm.quality.activity import Activity

_LEGACY_SUFFIXES = (".dat", ".imatrix")


def command(
    model: w.ImatrixSourceArg,
    output: w.OutputOpt = None,
    calibration: w.CalibrationOpt = None,
    chunks: w.ChunksOpt = None,
    ctx_size: w.ChunkSizeOpt = 512,
    threads: o.ThreadsOpt = None,
    gpu_layers: o.GpuLayersOpt = None,
    trust: o.TrustOpt = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Compute a model's importance matrix, or show what is in one.

    The model reads a calibration text. How large its activations are tells `owm quantize --imatrix` what matters.
    Use a model file of high precision. Of an importance matrix's own file, a table of its tensors is shown.
    """
    from owm.formats.imatrix import read_imatrix

    out = Output(json, quiet, verbose)
    path = Path(model).expanduser()
    if _is_imatrix(path):
        if output is not None or calibration is not None or chunks is not None:
            raise UsageError(f"{model} is an importance matrix already", hint="name a model to compute one")
        return _show(path, read_imatrix(path), out)
    return _compute(model, output, calibration, chunks, ctx_size, threads, gpu_layers, out)


def _is_imatrix(path: Path) -> bool:
    """Tell whether a path is an importance matrix's: a GGUF file that says so, or one of the old format by its name."""
    from owm.formats import gguf

    if not path.is_file():
        return False
    with open(path, "rb") as file:
        if file.read(len(gguf.MAGIC)) != gguf.MAGIC:
            return path.suffix.lower() in _LEGACY_SUFFIXES
    return gguf.read_header(path).text("general.type") == "imatrix"


def _compute(
    name: str,
    output: Path | None,
    calibration: Path | None,
    n_chunks: int | None,
    n_ctx: int,
    n_threads: int | None,
    gpu_layers: int | None,
    out: Output,
) -> None:
    from owm.cli.progress import progress
    from owm.cli.sources import find_running
    from owm.engine.model import Model
    from owm.formats.imatrix import write_imatrix
    from owm.library import open_store
    from owm.quality.calibration import bundled, read_calibration
    from owm.quality.imatrix import check_request, compute

    check_request(n_chunks=n_chunks, n_ctx=n_ctx, n_threads=n_threads)
    text = bundled() if calibration is None else read_calibration(calibration.expanduser())
    if output is not None:
        _path_for(output, "model")  # refused before a pull
    with ExitStack() as stack:
        store = open_store()
        stored = find_running(name, store, out, stack, n_threads=n_threads)
        is_temporary = stored.path.is_relative_to(store.home / "work")
        path = _path_for(output, Path(stored.name).name if is_temporary else stored.path.stem)
        is_verified = stored.is_verified
        opened = stack.enter_context(Model(stored.files, n_gpu_layers=gpu_layers, is_verified=is_verified))
        if opened.unused_gpu:
            out.note(opened.unused_gpu)
        out.detail(f"running on {opened.placement}")
        out.note(f"computing the importance matrix of {name} from {text.name}")
        with progress(out) as sink:
            found = compute(opened, text, n_chunks=n_chunks, n_ctx=n_ctx, n_threads=n_threads, sink=sink)
    write_imatrix(found.filled(), path)
    out.note(f"read {found.n_chunks} chunks of {found.chunk_size} tokens; {len(found.entries)} tensors")
    out.data(_record(path, found), lines=[str(path)])


def _path_for(output: Path | None, own_name: str) -> Path:
    """Return where to write; a file that is there and no importance matrix is never replaced."""
    own = f"{own_name}.imatrix.gguf"
    path = Path(own) if output is None else output.expanduser()
    if path.is_dir():
        path = path / own
    if not path.parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}")
    if not os.access(path.parent, os.W_OK):  # said before the computing that takes its time
        raise StoreError(
            f"cannot write {path}: no right to write in {path.parent}", hint="name another place with `-o`"
        )
    if path.exists() and not _is_imatrix(path):
        raise UsageError(f"{path} is there and is no importance matrix", hint="name another file with `-o`")
    return path


def _record(path: Path, imatrix: "Imatrix") -> dict[str, Any]:
    from owm.quality.activity import activities

    return {
        "path": str(path),
        "datasets": list(imatrix.datasets),
        "chunks": imatrix.n_chunks,
        "chunk_size": imatrix.chunk_size,
        "unhit_experts": sum(map(len, imatrix.unhit().values())),
        "tensors": [asdict(one) for one in activities(imatrix)],
    }


def _show(path: Path, imatrix: "Imatrix", out: Output) -> None:
    from owm.quality.activity import activities

    if out.as_json:
        return out.data(_record(path, imatrix))
    size = f" of {imatrix.chunk_size} tokens" if imatrix.chunk_size else ""
    out.note(f"{imatrix.n_chunks} chunks{size} of {', '.join(imatrix.datasets) or 'a text that it does not name'}")
    _table(activities(imatrix), out)
    return None


def _table(found: "Sequence[Activity]", out: Output) -> None:
    columns = {
        "name": "TENSOR", "n_values": "COLUMNS", "total": "SUM", "minimum": "MIN", "maximum": "MAX", "mean": "MEAN",
        "deviation": "SD", "active": "ACTIVE", "entropy": "ENTROPY", "evenness": "EVEN", "z_share": "ZD",
        "similarity": "COSINE", "n_unhit": "UNHIT",
    }  # fmt: skip
    rows = [
        {
            "name": one.name,
            "n_values": str(one.n_values),
            "total": f"{one.total:.2f}",
            "minimum": f"{one.minimum:.4g}",
            "maximum": f"{one.maximum:.4g}",
            "mean": f"{one.mean:.4g}",
            "deviation": f"{one.deviation:.4g}",
            "active": f"{one.active:.1%}",
            "entropy": f"{one.entropy:.3f}",
            "evenness": f"{one.evenness:.1%}",
            "z_share": f"{one.z_share:.1%}",
            "similarity": None if one.similarity is None else f"{one.similarity:.4f}",
            "n_unhit": str(one.n_unhit) if one.n_unhit else None,
        }
        for one in found
    ]
    if not any(row["n_unhit"] for row in rows):
        del columns["n_unhit"]
    out.table(rows, columns, right=[key for key in columns if key != "name"])
