"""Exporting: a stored model's files under readable names in a place of the user's, whole and checked, or not at all."""

import os
import shutil
import stat
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from owm.errors import ChecksumMismatch, NotEnoughDisk, Unsupported, UsageError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.publishing import json_text, publish_text
from owm.store import absent, quants
from owm.store.copying import copy_into, publish_new, there_already
from owm.store.digest import sha256_of
from owm.store.download import write_error
from owm.store.model import read_error
from owm.store.names import safe_gguf_name
from owm.store.space import RESERVE_BYTES
from owm.units import format_bytes

if TYPE_CHECKING:
    from owm.store.local import Store
    from owm.store.model import StoredModel

Link = Literal["copy", "hard", "reflink"]


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file of an export: `source` is the file itself, not a link to it. `sha256` is None for a bare path."""

    source: Path
    target: Path
    size_bytes: int
    sha256: str | None
    blanked: tuple[int, int] | None = None

    @property
    def partial(self) -> Path:
        """What is copied into, until it is whole."""
        return self.target.with_name(f"{self.target.name}.incomplete")


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What an export will write, known before a byte is copied.

    Attributes:
        record: where its manifest goes, if wanted.
        kept: files of it that an export has written that was cut off before its last file.
    """

    model: "StoredModel"
    name: str
    files: tuple[ExportedFile, ...]
    record: Path | None
    link: Link
    replaces: bool
    kept: tuple[ExportedFile, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)


def plan_export(
    model: "StoredModel",
    destination: str,
    store: "Store",
    *,
    link: Link = "copy",
    with_manifest: bool = False,
    replaces: bool = False,
) -> ExportPlan:
    """Choose the names of an export; nothing is written.

    Args:
        destination: a folder (one that ends with `/` is made), or a file's name ending in `.gguf`.
        replaces: write over what is there.

    Raises:
        UsageError: the destination cannot be one, lies in the store, or something is there already.
        ModelNotFound: a file of the model is gone.
    """
    name = store.shown_name(model)
    if model.is_gone:
        raise absent.gone(model, store)
    target = _target(destination, model)
    _refuse_own_places(target, store)
    targets = _shard_names(target, len(model.files))
    files = []
    for index, (path, to) in enumerate(zip(model.files, targets, strict=True)):
        of = model.manifest
        recorded = of.files[index] if of else None
        source = Path(os.path.realpath(path))
        try:
            size_bytes = source.stat().st_size
        except OSError as error:
            raise read_error(error, path) from error
        blanked = of.blanked if of is not None and index == 0 else None
        files.append(ExportedFile(source, to, size_bytes, recorded.sha256 if recorded else None, blanked))
    record = target.with_name(f"{target.stem}.manifest.json") if with_manifest else None
    plan = ExportPlan(model, name, tuple(files), record, link, replaces)
    plan = replace(plan, kept=_begun(plan))
    for path in (*(file.target for file in files if file not in plan.kept), *([record] if record else [])):
        _refuse_what_is_there(path, plan)
    return plan


def execute_export(plan: ExportPlan, *, sink: Sink = ignore) -> None:
    """Write an export; a copy that was cut off goes on where it stopped.

    Raises:
        NotEnoughDisk, StoreError: the destination cannot be written, or the model not be read.
        ChecksumMismatch: a file of the model is damaged; no such file was left.
        Unsupported: that kind of link cannot be made there.
        UsageError: something has come to lie there meanwhile.
    """
    _check_room(plan)
    folder = plan.files[0].target.parent
    try:
        folder.mkdir(exist_ok=True)
        for file in plan.files:
            if file in plan.kept:
                _check_kept(file)
            elif plan.link == "copy":
                _copy(file, plan, sink)
            else:
                _link(file, plan)
        if plan.record is not None:
            publish_text(plan.record, json_text(manifest_of(plan)))
    except OSError as error:
        raise _not_written(error, plan.files[0].target) from error


def manifest_of(plan: ExportPlan) -> dict[str, Any]:
    """Return what is known of an exported model, with its files by the names that they have there."""
    of = plan.model.manifest
    files = [{"name": file.target.name, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in plan.files]
    if of is None:
        return {"name": plan.name, "files": files}
    known = asdict(of)
    keys = ("ref", "source", "label", "revision", "commit", "licence", "gated", "created_at", "made_from", "quality")
    return {"name": plan.name, "files": files, **{key: known[key] for key in keys}, "facts": known["facts"]}


def _target(destination: str, model: "StoredModel") -> Path:
    """Return the name that the export has where it is one file."""
    if destination == "-":
        raise UsageError(
            "a model is not written to stdout", hint="name a file or a folder; `owm path` prints where the model lies"
        )
    if not destination or "\0" in destination:
        raise UsageError("the destination has no name", hint="name a file or a folder")
    try:
        path = Path(destination).expanduser().absolute()
        if path.is_dir():
            return path / _readable_name(model)
        if destination.endswith(("/", os.sep)):
            if path.exists() or not path.parent.is_dir():
                raise UsageError(f"no folder can be made there: {destination}", hint="make the folder above it first")
            return path / _readable_name(model)
        if path.exists() and not path.is_file():
            raise UsageError(f"{destination} is no ordinary file", hint="name a file or a folder")
    except (OSError, RuntimeError) as error:
        raise UsageError(f"cannot be written to: {destination}", hint="name a file or a folder") from error
    if path.suffix.lower() != ".gguf":
        raise UsageError(
            f"not the name of a model file: {destination}",
            hint="a file's name ends in `.gguf`; a folder that is to be made ends in `/`",
        )
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hint=f"`mkdir -p {path.parent}`")
    return path


def _readable_name(model: "StoredModel") -> str:
    """Name a file after its model; as it was published, where that says what it is."""
    own = model.files[0].name
    if own.lower().endswith(".gguf"):
        return _without_part(own) if len(model.files) > 1 else own
    of = model.manifest
    stem = of.name.rpartition("/")[2] if of is not None else Path(own).stem
    label = f"-{model.label}" if model.label and quants.label_of(f"{stem}.gguf") != model.label else ""
    return safe_gguf_name(f"{stem}{label}.gguf")


def _without_part(name: str) -> str:
    stem, dash, _ = name.rpartition("-of-")
    return f"{stem.rpartition('-')[0]}.gguf" if dash else name


def _shard_names(target: Path, count: int) -> list[Path]:
    """Return the names of parts by which llama.cpp finds them."""
    if count == 1:
        return [target]
    stem = _without_part(target.name) if "-of-" in target.name else target.name
    stem = stem[: -len(".gguf")]
    return [target.with_name(f"{stem}-{index:05}-of-{count:05}.gguf") for index in range(1, count + 1)]


def _refuse_own_places(target: Path, store: "Store") -> None:
    place = Path(os.path.realpath(target.parent))
    for own in (store.home / "models", store.hub):
        if place.is_relative_to(os.path.realpath(own)):
            raise UsageError(f"{target.parent} is part of the store", hint="name a folder of yours")


def _refuse_what_is_there(path: Path, plan: ExportPlan) -> None:
    if not os.path.lexists(path):
        return
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode) or not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"{path} is there already, and no ordinary file", hint="name another")
    if any(_is_same_file(path, file.source) for file in plan.files):
        raise UsageError(f"{path} is the model's own file already", hint="name another")
    if not plan.replaces:
        raise there_already(path)


def _begun(plan: ExportPlan) -> tuple[ExportedFile, ...]:
    """Return the first files of an export that may be there already, of one that was killed before its last file."""
    there = [file for file in plan.files if os.path.lexists(file.target)]
    is_whole = len(there) == len(plan.files) and (plan.record is None or os.path.lexists(plan.record))
    for file in there if is_whole else ():
        if _is_same_file(file.partial, file.target):  # killed between two names for one file
            file.partial.unlink()
    if plan.replaces or is_whole or there != list(plan.files[: len(there)]):
        return ()
    for file in there:
        if file.target.is_symlink() or not file.target.is_file() or _size(file.target) != file.size_bytes:
            return ()
    return tuple(there)


def _check_kept(file: ExportedFile) -> None:
    """Refuse a file that is there and is not what would be written.

    Raises:
        UsageError: it is another.
    """
    if not _is_same_file(file.target, file.source):
        wanted = file.sha256 or sha256_of(file.source, blanked=file.blanked)
        if sha256_of(file.target, blanked=file.blanked) != wanted:
            raise there_already(file.target)
    if _is_same_file(file.partial, file.target):
        file.partial.unlink()


def _is_same_file(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return False


def _check_room(plan: ExportPlan) -> None:
    if plan.link != "copy":
        return
    folder = plan.files[0].target.parent
    at = folder if folder.exists() else folder.parent
    here = sum(
        file.size_bytes if file in plan.kept else min(_size(file.partial), file.size_bytes) for file in plan.files
    )
    needed, free = plan.size_bytes - here + RESERVE_BYTES, shutil.disk_usage(at).free
    if needed > free:
        raise NotEnoughDisk(
            f"a copy of {plan.name} needs {format_bytes(needed)} ({format_bytes(RESERVE_BYTES)} of it to spare), "
            f"{format_bytes(free)} are free on the disk of {at}",
            needed=needed,
            free=free,
            hint="free some space there, or `--link hard` where it is the same disk",
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _copy(file: ExportedFile, plan: ExportPlan, sink: Sink) -> None:
    began, done, stage = time.monotonic(), 0, file.target.name

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        sink(Advanced(stage, done))

    sink(Started(stage, file.size_bytes, "bytes"))
    actual = copy_into(file.source, file.partial, blanked=file.blanked, advance=advance)
    if file.sha256 is not None and actual != file.sha256:
        file.partial.unlink()
        raise ChecksumMismatch(
            f"{plan.name} is damaged: the sha256 of {file.source.name} is not the recorded one",
            expected=file.sha256,
            actual=actual,
            hint=f"nothing was written to {file.target.name}; `owm verify --repair {plan.name}` mends the model",
        )
    publish_new(file.partial, file.target, replaces=plan.replaces)
    sink(Finished(stage, time.monotonic() - began))


def _link(file: ExportedFile, plan: ExportPlan) -> None:
    from owm.store.adopting import linking

    of = plan.model.manifest
    recorded = sum(each.size_bytes for each in of.files) if of is not None else plan.size_bytes
    if recorded != plan.size_bytes:
        raise ChecksumMismatch(
            f"{plan.name} is damaged: it has {plan.size_bytes} bytes instead of {recorded}",
            expected=str(recorded),
            actual=str(plan.size_bytes),
            hint=f"`owm verify --repair {plan.name}` mends it",
        )
    try:
        linking.put(file.source, file.partial, "hard" if plan.link == "hard" else "reflink")
    except Unsupported as error:
        raise Unsupported(str(error), hint="`--link copy` copies it") from error
    publish_new(file.partial, file.target, replaces=plan.replaces)


def _not_written(error: OSError, target: Path) -> Exception:
    problem = write_error(error, target)
    if not isinstance(problem, NotEnoughDisk):
        problem.hint = "look at its permissions, or name another place"
    return problem
