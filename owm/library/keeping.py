"""Keeping what owm makes in the store: where it goes, and what its manifest says of where it comes from."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from owm.errors import UsageError
from owm.formats import gguf
from owm.store import manifest, quants
from owm.store.download import write_error
from owm.store.manifest import Manifest, ModelFacts
from owm.store.model import StoredModel

if TYPE_CHECKING:
    from owm.pipeline.writer import Written
    from owm.store.checkpoint import CheckpointPlan, FetchedCheckpoint
    from owm.store.local import Store

MAX_GENERATIONS = 6  # that are noted in one manifest


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model that owm makes comes from, as its manifest says it."""

    ref: str
    source: str
    name: str
    revision: str | None = None
    commit: str | None = None
    licence: str | None = None
    gated: bool = False
    made_from: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_checkpoint(cls, plan: "CheckpointPlan", fetched: "FetchedCheckpoint") -> "Origin":
        """Name a repo's checkpoint."""
        offer = plan.offer
        ref = str(offer.ref.with_quant(None))
        files = [
            {
                "path": item.path.relative_to(fetched.folder).as_posix(),
                "size_bytes": item.size_bytes,
                "sha256": item.sha256,
            }
            for item in fetched.files
        ]
        made_from = {"checkpoint": ref, "commit": offer.commit, "files": files}
        return cls(ref, offer.source, offer.name, offer.revision, offer.commit, plan.licence, offer.gated, made_from)

    @classmethod
    def of_stored(cls, stored: StoredModel) -> "Origin":
        """Name a stored model file."""
        known = stored.manifest
        assert known is not None
        files = [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in known.files]
        made_from: dict[str, Any] = {
            "model": f"{known.ref}:{known.label}",
            "commit": known.commit,
            "files": files,
            "owner": known.owner,
        }
        if known.made_from is not None:
            made_from["made_from"] = as_parent(known.made_from)
        return cls(
            known.ref, known.source, known.name, known.revision, known.commit, known.licence, known.gated, made_from
        )

    @classmethod
    def of_path(cls, path: Path) -> "Origin":
        """Name a folder or file of the user's: another one of that name takes its place."""
        name = local_name(path)
        return cls(f"local:{name}", "local", name, made_from={"path": str(path.resolve())})

    @property
    def short_name(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]


def inspect_file(path: Path) -> ModelFacts:
    """Read a model file's header, as the last check before it becomes a stored model.

    Raises:
        MalformedFile, Unsupported.
    """
    header = gguf.read_header(path)
    header.check_vocabulary()
    return ModelFacts(
        architecture=header.architecture,
        name=header.text("general.name"),
        n_params=header.n_params,
        n_ctx_train=header.integer("context_length"),
        licence=header.text("general.license"),
    )


def stem_of(path: Path) -> str:
    """Return a model's own name from that of its folder or file: `model` for `model-BF16-00001-of-00002.gguf`."""
    resolved = path.resolve()
    if resolved.suffix.lower() != ".gguf":
        return resolved.name or "model"
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", resolved.stem)
    label = quants.label_of(f"{stem}.gguf")
    return re.sub(rf"[-_.]{re.escape(label)}$", "", stem, flags=re.IGNORECASE) if label else stem


def local_name(path: Path) -> str:
    """Return the name by which a path's model is kept: its own, in what a short name may hold."""
    return re.sub(r"[^a-z0-9._-]+", "-", stem_of(path).lower()).strip("-._") or "model"


def keep(
    origin: Origin,
    label: str,
    write: "Callable[[Path], list[Written]]",
    recipe: Callable[[], dict[str, object]],
    store: "Store",
) -> StoredModel:
    """Have the files of one model written into the store, unless they are there; see `keep_all`.

    Args:
        write: makes the file, or the parts of it beside that path.
    """
    return keep_all(origin, [(label, None)], lambda paths: [write(paths[0])], lambda _: recipe(), store)[0]


def keep_all(
    origin: Origin,
    wanted: Sequence[tuple[str, str | None]],
    write: "Callable[[Sequence[Path]], list[list[Written]]]",
    recipe: Callable[[int], dict[str, object]],
    store: "Store",
) -> list[StoredModel]:
    """Have models written into the store in several types, and their manifests after them.

    Args:
        wanted: label of each, and what names its content exactly: one that is there with the same is kept as it is,
            another is replaced. Without that, whatever is there is kept.
        write: makes the file of each, or the parts of it beside that path; only for those that are not there.
        recipe: what the manifest says of how each was made, asked for afterwards.

    Raises:
        UsageError: the model is there as it was published.
        NotEnoughDisk, StoreError: the store cannot be written.
    """
    folders = [
        store.folder_of(origin.source, origin.name, origin.commit or origin.revision, each[0]) for each in wanted
    ]
    with ExitStack() as locks:
        for folder in sorted(set(folders)):
            locks.enter_context(store.lock(folder))
        missing = [
            index for index, (label, digest) in enumerate(wanted) if not _is_there(store, folders[index], label, digest)
        ]
        paths = []
        for index in missing:
            try:
                folders[index].mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise write_error(error, folders[index]) from error
            paths.append(folders[index] / f"{origin.short_name}-{wanted[index][0]}.gguf")
        for index, written in zip(missing, write(paths) if paths else (), strict=True):
            label, digest = wanted[index]
            made_from = {**origin.made_from, **recipe(index)} | ({"digest": digest} if digest else {})
            _write_manifest(replace(origin, made_from=made_from), label, written, folders[index], store)
    found = [store.at(folder) for folder in folders]
    assert all(found)
    return [model for model in found if model is not None]


def _is_there(store: "Store", folder: Path, label: str, digest: str | None) -> bool:
    stored = store.at(folder)
    if stored is None or stored.is_gone or stored.manifest is None:
        return False
    if digest is None:
        return True
    if stored.manifest.made_from is None:
        raise UsageError(
            f"{store.shown_name(stored)} is stored as it was published",
            hint="`-o FILE` writes another one elsewhere, `owm rm` removes that one",
        )
    return stored.manifest.made_from.get("digest") == digest


def _write_manifest(origin: Origin, label: str, written: "list[Written]", folder: Path, store: "Store") -> None:
    facts: ModelFacts = inspect_file(written[0].path)
    n_params = sum(gguf.read_header(file.path).n_params for file in written)
    made = Manifest(
        ref=origin.ref,
        source=origin.source,
        name=origin.name,
        label=label,
        revision=origin.revision,
        commit=origin.commit,
        files=tuple(
            store.record_of(file.path, file.sha256, "model" if index == 0 else "shard")
            for index, file in enumerate(written)
        ),
        licence=origin.licence or facts.licence,
        facts=replace(facts, n_params=n_params),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        gated=origin.gated,
        made_from=origin.made_from,
    )
    kept = {file.path for file in written} | {folder / manifest.FILE_NAME}
    try:
        manifest.write(made, folder)
        for path in folder.glob("*.gguf"):  # of a model that was replaced
            if path not in kept:
                path.unlink()
    except OSError as error:
        raise write_error(error, folder / manifest.FILE_NAME) from error


def as_parent(made_from: dict[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of the making of its model, short enough to be noted in that of what is made of it.

    The type of each tensor is left out, and so are generations before `MAX_GENERATIONS`.
    """
    top: dict[str, Any] = {}
    target, source = top, made_from
    for _ in range(MAX_GENERATIONS):
        target |= {key: value for key, value in source.items() if key not in ("tensor_types", "made_from", "recipe")}
        following = source.get("made_from")
        if not isinstance(following, dict):
            return top
        target["made_from"] = {}
        target, source = target["made_from"], following
    target["is_cut"] = True
    return top
