"""Writing what was planned from a checkpoint, for a command: where to, what is said before, what comes out."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from owm.cli.output import Output
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.convert.architectures.base import Architecture
    from owm.convert.checkpoint import Checkpoint
    from owm.events import Sink
    from owm.library.parents import Parents
    from owm.pipeline.plan import Plan
    from owm.pipeline.writer import Written


class Planned(Protocol):
    """A model file or an adapter to write."""

    @property
    def checkpoint(self) -> "Checkpoint":
        """What it is made of."""

    @property
    def architecture(self) -> "Architecture":
        """The entry it is made by."""

    @property
    def plan(self) -> "Plan":
        """Its tensors."""

    @property
    def label(self) -> str:
        """Its type."""


class Write(Protocol):
    """Writes what was planned to one path a file."""

    def __call__(self, paths: Sequence[Path], *, digest: bool, sink: "Sink") -> "list[Written]": ...


def write_planned(
    planned: Planned,
    write: Write,
    output: Path | None,
    out: Output,
    *,
    name: str,
    own_name: str,
    dry_run: bool,
    parents: "Parents | None" = None,
    note: "Callable[[list[Written]], None]" = lambda written: None,
) -> None:
    """Say what will be written and write it, or only say it.

    Args:
        name: of what is converted.
        own_name: of the file, without `.gguf`, where `output` names none.
        parents: what it is made of, hashed meanwhile; then `note` keeps how it was made.
    """
    from owm.cli.progress import progress
    from owm.pipeline.parts import file_names
    from owm.units import format_bytes

    path = path_for(output, own_name)
    paths = [path.with_name(name) for name in file_names(path.name, len(planned.plan.files))]
    if dry_run:
        return _say_plan(planned, paths, out)
    out.note(f"converting {name} to {planned.label}: {format_bytes(planned.plan.n_bytes)}")
    try:
        with progress(out) as sink, parents or nullcontext():
            if parents is not None:
                parents.begin()
            written = write(paths, digest=out.as_json or parents is not None, sink=sink)
            note(written)
    except KeyboardInterrupt:
        out.note("interrupted; the same command goes on from the last finished tensor")
        raise
    files = [{"path": str(file.path), "size_bytes": file.size_bytes, "sha256": file.sha256} for file in written]
    out.data(_record(planned) | {"files": files}, lines=[str(file.path) for file in written])
    return None


def path_for(output: Path | None, own_name: str) -> Path:
    """Return the path of a file to write: as asked for, or of its own name in the current folder.

    Raises:
        UsageError: the place is no place for a model file.
    """
    own = f"{own_name}.gguf"
    path = Path(own) if output is None else output.expanduser()
    if path.is_dir():
        path = path / own
    if path.suffix.lower() != ".gguf":
        raise UsageError(f"a model file ends in .gguf: {path}", hint="or name a folder that exists")
    if not path.parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}")
    return path


def _record(planned: Planned) -> dict[str, Any]:
    from owm.convert.architectures.registry import class_name

    return {
        "class": class_name(planned.checkpoint.config),
        "architecture": planned.architecture.gguf,
        "type": planned.label,
        "n_params": planned.plan.n_params,
        "size_bytes": planned.plan.n_bytes,
    }


def _say_plan(planned: Planned, paths: list[Path], out: Output) -> None:
    from owm.units import format_bytes, format_count

    rows = [
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
    if out.as_json:
        out.data(_record(planned) | {"files": [{"path": str(path)} for path in paths], "tensors": rows})
        return
    shown = [
        row | {"shape": " x ".join(map(str, tensor.shape)), "size": format_bytes(tensor.n_bytes)}
        for row, tensor in zip(rows, planned.plan.tensors, strict=True)
    ]
    columns = {"name": "TENSOR", "from": "FROM", "to": "TO", "shape": "SHAPE", "size": "SIZE", "reason": "WHY"}
    out.table(shown, columns, right=("size",))
    facts = _record(planned)
    out.note(
        f"would write {', '.join(map(str, paths))}: {facts['class']} as {facts['architecture']}, "
        f"{format_count(planned.plan.n_params)} parameters, {planned.label}, {format_bytes(planned.plan.n_bytes)}"
    )
