"""Repairing a stored model: only the files that are damaged or gone are fetched again, at the commit that is stored.

A file that was cut off is gone on with from where it ends. Of one with wrong bytes nobody knows which they are (sources
publish one sha256 a file), so it is fetched whole; it is put aside meanwhile, and put back if that fails.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from owm.errors import ChecksumMismatch, ModelNotFound, OwmError, Unsupported
from owm.events import Sink, Warned, ignore
from owm.store import manifest, matching, refs
from owm.store.download import write_error
from owm.store.limits import DEFAULT, Limits
from owm.store.manifest import FileRecord, Manifest
from owm.store.model import StoredModel
from owm.store.sources.base import Offer, RemoteFile
from owm.store.sources.registry import source_for
from owm.store.usage import ASIDE, HUB_PARTIAL, PARTIAL
from owm.store.verifying import WEIGHTS, Examined, verify

if TYPE_CHECKING:
    from owm.store.local import Store

STAGE = "repair"
PATIENT_SECONDS = 10.0  # to reach the source


def repair(
    model: StoredModel,
    store: "Store",
    *,
    inspect: Callable[[Path], object] = lambda path: None,
    full: bool = False,
    limits: Limits = DEFAULT,
    sink: Sink = ignore,
) -> list[Path]:
    """Fetch again what of a model is damaged or gone; return these files, which are whole now.

    Args:
        inspect: reads the header of a model file before it takes its place, and raises if it must not.
        full: whether every byte is read to find out what is damaged.

    Raises:
        Unsupported: nobody can fetch it: it was made here, or the file belongs to another tool.
        ModelNotFound: the source has no such file any more.
        ChecksumMismatch: the source has another file by that name now.
        NetworkError, NotEnoughDisk, StoreError: it could not be fetched; what was there still is.
    """
    of, folder = model.manifest, model.folder
    if of is None or folder is None:
        raise Unsupported(f"{model.name} is a file of yours, not in the store")
    called = store.shown_name(model)
    with store.lock(folder, on_wait=lambda: sink(Warned(STAGE, f"another owm is at work on {called}, waiting for it"))):
        found = store.at(folder)
        if found is None or found.manifest is None:
            raise ModelNotFound(f"{called} was removed meanwhile", ref=called)
        damaged = verify([found], store, full=full, inspect=inspect, is_locked=True)[0].damaged
        if not damaged:
            return []
        _refuse_what_none_can_fetch(found, damaged, store)
        offer, files = _offered(found.manifest, damaged, store)
        source = source_for(offer.ref, store)

        def check(path: Path, name: str) -> None:
            if any(file.path == name and each.record.role in WEIGHTS for file, each in wanted):
                inspect(path)

        wanted = list(zip(files, damaged, strict=True))
        mended: dict[str, FileRecord] = {}
        for file, each in wanted:
            with _aside(each):
                (fetched,) = source.fetch(offer, [file], folder, check=check, sink=sink, limits=limits)
                if fetched.sha256 != each.record.sha256 or fetched.path != each.path:
                    raise ChecksumMismatch(
                        f"{offer.name} has another {each.path.name} now than the one that is stored",
                        expected=each.record.sha256,
                        actual=fetched.sha256,
                        hint=f"`owm update {called}` takes the new one",
                    )
            mended[each.record.path] = store.record_of(each.path, each.record.sha256, each.record.role)
        _note(found.manifest, mended, folder)
    return [each.path for each in damaged]


def _refuse_what_none_can_fetch(model: StoredModel, damaged: Sequence[Examined], store: "Store") -> None:
    of, name = model.manifest, store.shown_name(model)
    assert of is not None
    for each in damaged:
        if each.record.root == "hub" and not _is_of_cache(each.path, store.hub):
            raise Unsupported(
                f"{name} cannot be repaired by owm: {each.path} leads out of the Hub cache",
                hint=f"`owm rm {name}` forgets it; then remove that link and pull the model again",
            )
    if any(each.record.root == "outside" or (each.record.root == "owm" and each.path.is_symlink()) for each in damaged):
        is_yours = of.owner in (None, manifest.USER)
        raise Unsupported(
            f"{name} cannot be repaired by owm: its file {'is yours' if is_yours else f'belongs to {of.owner}'}",
            hint="put a whole one in its place and import it again"
            if is_yours
            else f"have it fetched again there, then `owm verify {name}`",
        )
    if of.made_from is not None or of.source == "local":
        raise Unsupported(
            f"{name} cannot be fetched again: it was made here", hint=f"`owm rm {name}`, then make it again"
        )


def _is_of_cache(path: Path, cache: Path) -> bool:
    """Tell whether a file's bytes lie in the Hub cache, also where that is a link to another disk."""
    return os.path.realpath(path).startswith(os.path.realpath(cache) + os.sep)


def _offered(of: Manifest, damaged: Sequence[Examined], store: "Store") -> tuple[Offer, list[RemoteFile]]:
    """Ask the source for the very commit that is stored; return what it offers, and the files that are needed."""
    ref = refs.parse(of.ref)
    if of.source == "hub" and of.commit:
        ref = replace(ref, revision=of.commit)
    offer = source_for(ref, store).offer(ref, deadline=PATIENT_SECONDS)
    offered = [*offer.files, *(extra.file for extra in offer.extras)]
    files = []
    for each in damaged:
        record = each.record
        path = matching.path_in_repo(record)
        same = [file for file in offered if file.sha256 == record.sha256 and file.path == path]
        same = same or [file for file in offered if file.path == path and file.sha256 in (None, record.sha256)]
        same = same or [file for file in offered if file.sha256 == record.sha256]
        if not same and len(of.files) == len(offer.files) == 1 and record.role == "model":
            same = [file for file in offer.files if file.sha256 in (None, record.sha256)]
        if not same:
            name = f"{of.ref}:{of.label}"
            raise ModelNotFound(
                f"{offer.name} has no {path} any more that is the one stored",
                ref=of.ref,
                hint=f"`owm rm {name}`, then `owm pull {name}`",
            )
        files.append(same[0])
    # What is noted of a branch in the Hub cache is not for a repair to change.
    return replace(offer, revision=offer.commit) if of.source == "hub" else offer, files


@contextmanager
def _aside(each: Examined) -> Iterator[None]:
    """Make room where a file shall be: one that was cut off becomes the beginning of the download, another is kept."""
    path = each.path.resolve()  # in the Hub cache the blob itself
    is_link = each.path.is_symlink()
    aside = path.with_name(path.name + ASIDE)
    try:
        if not path.exists():
            if is_link:  # to nothing
                each.path.unlink()
        elif path.stat().st_nlink == 1 and path.stat().st_size < each.record.size_bytes:
            partial = path.with_name(path.name + (HUB_PARTIAL if each.record.root == "hub" else PARTIAL))
            if not partial.exists():
                os.replace(path, partial)
        if path.exists():
            os.replace(path, aside)
    except OSError as error:
        raise write_error(error, path) from error
    try:
        yield
    except BaseException:
        if aside.exists():
            with suppress(OSError):
                os.replace(aside, path)
        raise
    with suppress(OSError):
        aside.unlink(missing_ok=True)


def remove_aside(model: StoredModel, store: "Store") -> None:
    """Remove what a repair has put aside that was killed after the new file was whole; the model has to be whole."""
    aside = [path.with_name(path.name + ASIDE) for path in (path.resolve() for path in model.files)]
    if model.folder is None or not any(path.exists() for path in aside):
        return
    with store.lock(model.folder):
        for path in aside:
            with suppress(OSError):
                path.unlink()


def _note(of: Manifest, mended: dict[str, FileRecord], folder: Path) -> None:
    """Note the times of the files that were fetched."""

    def noted(record: FileRecord) -> FileRecord:
        return replace(record, mtime_ns=mended[record.path].mtime_ns) if record.path in mended else record

    advice = noted(of.generation_config) if of.generation_config else None
    changed = replace(
        of, files=tuple(map(noted, of.files)), extras=tuple(map(noted, of.extras)), generation_config=advice
    )
    with suppress(OSError, OwmError):
        manifest.write(changed, folder)
