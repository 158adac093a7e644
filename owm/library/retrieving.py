"""What a model was made of, found again by content: here, or where it was published; and its importance matrix."""

import re
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.errors import Damaged, ModelNotFound, Unsupported
from owm.events import Sink, ignore
from owm.library import quantizing
from owm.library.keeping import Origin
from owm.library.made import natural, text
from owm.library.quantizing import Source
from owm.library.recipes import Options
from owm.store import refs
from owm.store.digest import Hashing, sha256_of_all
from owm.store.model import StoredModel

if TYPE_CHECKING:
    from owm.formats.imatrix import Imatrix
    from owm.library.reproducing import Target
    from owm.quality.calibration import Calibration
    from owm.store.checkpoint import CheckpointPlan, FetchedCheckpoint
    from owm.store.local import Store

_PUBLISHED = ("hub", "modelscope", "ollama", "oci", "pypi")
Fetch = Callable[["CheckpointPlan"], "FetchedCheckpoint"]
Pull = Callable[[str], StoredModel]


def find_source(target: "Target", store: "Store", *, fetch: Fetch, pull: Pull) -> Source:
    """Find what a model was made of, exactly that: here, or at the commit at which it was published.

    Args:
        fetch: brings a repo's checkpoint here.
        pull: brings a published model file here, by its reference.

    Raises:
        ModelNotFound: it is not here, and nobody publishes it.
        Damaged: it is not what it was.
        Unsupported: only a manifest beside the file names it, and it is none that is taken on such a word.
        NetworkError: it could not be fetched.
    """
    made_from = target.made_from
    pre = (target.recipe.options or Options()).pre
    if (checkpoint := text(made_from.get("checkpoint"))) is not None:
        return _checkpoint(target, checkpoint, pre, store, fetch)
    if (model := text(made_from.get("model"))) is not None:
        return _model(target, model, store, pull)
    if (path := text(made_from.get("path"))) is not None:
        return _path(target, Path(path), pre)
    raise Damaged(f"the manifest of {target.name} does not say what it was made of", hint="`owm verify` checks it")


# -- what it was made of -----------------------------------------------------------------------------------------------


def _checkpoint(target: "Target", checkpoint: str, pre: str | None, store: "Store", fetch: Fetch) -> Source:
    from owm.store.checkpoint import CheckpointPlan

    commit, wanted = text(target.made_from.get("commit")), _files(target.made_from)
    ref = _followed(target, checkpoint)
    if ref.kind == "hub" and commit is not None and "/" not in commit and not commit.startswith("."):
        folder = store.hub / f"models--{target.own_name.replace('/', '--')}" / "snapshots" / commit
        if wanted and _wrong(folder, wanted) is None:
            return _opened(target, folder, checkpoint, commit, pre)
    from owm.library import plan_pull

    planned = plan_pull(replace(ref, revision=commit or ref.revision), wants_checkpoint=True, store=store)
    assert isinstance(planned, CheckpointPlan)
    if commit is not None and planned.offer.commit != commit:
        raise Damaged(f"{checkpoint} is at commit {planned.offer.commit} now, and {target.name} was made of {commit}")
    fetched = fetch(planned)
    found = {item.path.relative_to(fetched.folder).as_posix(): item.sha256 for item in fetched.files}
    for path, (_, sha256) in wanted.items():
        if found.get(path) != sha256:
            raise Damaged(f"{path} of {checkpoint} is not the one that {target.name} was made of")
    return _opened(target, fetched.folder, checkpoint, commit, pre)


def _opened(target: "Target", folder: Path, checkpoint: str, commit: str | None, pre: str | None) -> Source:
    from owm.convert import conversion

    planned = conversion.plan_folder(folder, name=short_name(target), pre=pre)
    origin = Origin(checkpoint, "hub", target.own_name, commit=commit, made_from=dict(target.made_from))
    return Source(checkpoint, origin, planned.plan, conversion=planned, pre=pre)


def short_name(target: "Target") -> str:
    """Return the last part of a model's name, which its metadata has."""
    return target.own_name.rpartition("/")[2]


def _model(target: "Target", model: str, store: "Store", pull: Pull) -> Source:
    made_from = target.made_from
    wanted = [sha256 for _, sha256 in _files(made_from, is_stored=True).values()]
    for stored in store.models([]):
        if stored.manifest and not stored.is_gone and [file.sha256 for file in stored.manifest.files] == wanted:
            return quantizing.of_model(stored, stored.full_name)
    ref = _followed(target, model)
    if ref.kind == "local" or isinstance(made_from.get("made_from"), dict) or not wanted:
        raise ModelNotFound(
            f"{model}, which {target.name} was made of, is not stored any more",
            ref=model,
            hint=f"`owm show {target.name} --provenance` shows what it was made of: make it again first",
        )
    commit = text(made_from.get("commit"))
    asked = str(replace(ref, revision=commit)) if ref.kind in ("hub", "modelscope") and commit else model
    _followed(target, asked)  # a strange commit makes another reference of it
    pulled = pull(asked)
    if pulled.manifest is None or [file.sha256 for file in pulled.manifest.files] != wanted:
        raise Damaged(f"{model} is not the file any more that {target.name} was made of")
    return quantizing.of_model(pulled, pulled.full_name)


def _followed(target: "Target", name: str) -> refs.ModelRef:
    """Return the reference of what a model was made of, if it may be asked for.

    Raises:
        Unsupported: only a manifest beside the file names it, and it leads to no usual place of publishing.
    """
    ref = refs.parse(name)
    if not target.is_unchecked or ref.kind == "local":
        return ref
    host = ref.name.split("/")[0] if ref.kind == "oci" or ref.name.count("/") > 1 else None
    is_usual = host is None or re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,}", host) is not None
    if ref.kind not in _PUBLISHED or not is_usual:
        raise Unsupported(
            f"{target.name} is said to be made of {ref}, by a manifest beside it alone: such a place is not asked",
            hint="pull it yourself if you trust it, then try again",
        )
    return ref


def _own(target: "Target", path: Path) -> Path:
    """Return the path of a file; where only a manifest beside the model names it, by its plain name beside that too."""
    return target.model.path.parent / path.name if target.is_unchecked else path


def _path(target: "Target", path: Path, pre: str | None) -> Source:
    wanted = _files(target.made_from)
    if target.is_unchecked and not (_own(target, path).is_file() and wanted):
        raise Unsupported(
            f"{target.name} is said to be made of {path}, by a manifest beside it alone: only a file is taken, "
            "from the same folder",
            hint="put that beside it, or make it again with `owm quantize` and what you have",
        )
    path = _own(target, path)
    if not path.exists():
        raise ModelNotFound(
            f"{path}, which {target.name} was made of, is gone", ref=str(path), hint="put it back there"
        )
    if not path.is_dir() and not path.is_file():
        raise Damaged(f"{path} is no file, as it was when {target.name} was made of it", hint="put it back there")
    folder = path if path.is_dir() else path.parent
    if wanted and (wrong := _wrong(folder, wanted)) is not None:
        raise Damaged(
            f"{folder / wrong} is not what it was when {target.name} was made of it", hint="put it back there"
        )
    if path.is_dir():
        return quantizing.of_folder(path, pre=pre)
    from owm.store.model import at_path

    model = at_path(refs.ModelRef("path", str(path)))
    if odd := next((part for part in model.files if not part.is_file()), None):
        raise Damaged(f"{odd} is no file, as it was when {target.name} was made of it", hint="put it back there")
    return quantizing.of_model(model, str(path))


def _files(made_from: Mapping[str, Any], *, is_stored: bool = False) -> dict[str, tuple[int, str]]:
    """Return size and sha256 of each file that is named as safely as owm names them.

    Args:
        is_stored: the paths are those in the store; only the content counts.

    Raises:
        Damaged: one is not.
    """
    from owm.store.names import check_repo_path

    found: dict[str, tuple[int, str]] = {}
    files = made_from.get("files") or []
    for each in files if isinstance(files, list) else [None]:
        known = each if isinstance(each, dict) else {}
        path, size, sha256 = text(known.get("path")), natural(known.get("size_bytes")), text(known.get("sha256"))
        if path is None or size is None or sha256 is None:
            raise Damaged("a manifest does not say in a way that owm writes what its model was made of")
        found[path if is_stored else check_repo_path(path)] = (size, sha256)
    return found


def _wrong(folder: Path, wanted: Mapping[str, tuple[int, str]]) -> str | None:
    """Return the first file that is not there as it was; every byte is read."""
    from owm.library.parents import blanked_in

    hashings = []
    for path, (size, _) in wanted.items():
        try:
            found = (folder / path).stat()
        except (OSError, ValueError):
            return path
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            return path
        hashings.append(Hashing(folder / path, size, blanked_in(folder / path)))
    for (path, (_, sha256)), digest in zip(wanted.items(), sha256_of_all(hashings), strict=True):
        if digest != sha256:
            return path
    return None


# -- the importance matrix ---------------------------------------------------------------------------------------------


def find_imatrix(
    target: "Target", source: Source, store: "Store", *, n_threads: int | None = None, sink: Sink = ignore
) -> tuple["Imatrix | None", tuple[str, ...]]:
    """Return the importance matrix of a model, if it has one, and what there is to say of it.

    Raises:
        ModelNotFound: it was given as a file that is gone.
        Damaged: the text that it was computed from is another now.
    """
    said = target.recipe.imatrix
    if said is None:
        return None, ()
    from owm.formats.imatrix import read_imatrix

    file, sha256, size = text(said.get("file")), text(said.get("sha256")), natural(said.get("size_bytes"))
    if file is None or sha256 is None or Path(file).name != file:
        raise Damaged(f"the manifest of {target.name} does not name its importance matrix")
    for path in (_own(target, Path(text(said.get("path")) or file)), store.home / "imatrix" / file):
        if _is(path, size, sha256):
            return replace(read_imatrix(path), path=path.with_name(file)), ()
    from owm.library.working import imatrix_of, imatrix_path, runnable

    calibration = _calibration(target, said)
    if calibration is None:
        raise ModelNotFound(
            f"the importance matrix {file}, which {target.name} was made with, is not here any more",
            ref=file,
            hint=f"it had the sha256 {sha256}: put it back at {text(said.get('path')) or file}",
        )
    kept = imatrix_path(source, calibration, store)
    was_there = kept.exists()
    with ExitStack() as stack:
        files = stack.enter_context(runnable(source, store, n_threads=n_threads, sink=sink))
        found = imatrix_of(source, files, calibration, store, n_threads=n_threads, sink=sink)
    notes = ("the importance matrix was computed again",)
    if not _is(kept, size, sha256):
        notes = (f"the importance matrix was computed again, and is not the one of {target.name}",)
    if not was_there:
        kept.unlink(missing_ok=True)  # it stays mapped
    return replace(found, path=kept.with_name(file)), notes


def _is(path: Path, size: int | None, sha256: str) -> bool:
    from owm.store.digest import sha256_of

    try:
        return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256
    except (OSError, ValueError):
        return False


def _calibration(target: "Target", said: Mapping[str, Any]) -> "Calibration | None":
    """Return the text that an importance matrix was computed from; None if it was given as a file.

    Raises:
        Damaged: the text is another now.
        StoreError, UsageError: it is gone.
    """
    from owm.quality.calibration import BUNDLED, bundled, read_calibration

    about = said.get("calibration")
    if not isinstance(about, dict):
        return None
    name, path, sha256 = (text(about.get(key)) for key in ("name", "path", "sha256"))
    if name is None or sha256 is None:
        raise Damaged(f"the manifest of {target.name} does not name the text of its importance matrix")
    found = bundled() if name == BUNDLED else read_calibration(_own(target, Path(path or name)))
    if found.sha256 != sha256:
        raise Damaged(f"{name} is not the text any more that the importance matrix of {target.name} was computed from")
    return replace(found, name=name)
