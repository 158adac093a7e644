"""Pulling a checkpoint: the original weights of a repo, as safetensors, with what belongs to them.

Like every file of the Hub they lie in the Hugging Face cache, where other tools find them; what is made from them has a
manifest in owm's own tree. The small files come first, so that a checkpoint which cannot be used costs no weights.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from owm.errors import NoUsableFile
from owm.events import Sink, ignore
from owm.store import catalog
from owm.store.limits import DEFAULT, Limits
from owm.store.local import Store
from owm.store.refs import ModelRef
from owm.store.sources.base import Check, Fetched, Offer, RemoteFile, Source
from owm.store.space import check_space

# What says how the weights are to be read; never code, never pickles.
_SIDE_FILES = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template|modules"
    r"|model\.safetensors\.index|adapter_config|tekken|params)\.json|merges\.txt|vocab\.txt|tokenizer\.model|sentencepiece\.bpe\.model|README\.md"
    r"|chat_template\.jinja|additional_chat_templates/[^/]+\.jinja|[0-9]+_Pooling/config\.json"
)
_WEIGHTS = re.compile(r"[^/]+\.safetensors")


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """A checkpoint at its source. `quant` is the type that was asked for with it."""

    asked: ModelRef
    offer: Offer
    source: Source
    side_files: tuple[RemoteFile, ...]
    weights: tuple[RemoteFile, ...]
    quant: str | None

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """All files; of weights that are there in two layouts only one will be fetched."""
        return (*self.side_files, *self.weights)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes or 0 for file in self.files)

    @property
    def name(self) -> str:
        """How the model is called."""
        ref = self.offer.ref.with_quant(None)
        return catalog.load().short_name(ref) or str(ref)

    @property
    def licence(self) -> str | None:
        """The licence that the source names, or else the catalog."""
        return self.offer.licence or catalog.load().licence_of(self.offer.ref)

    def config_only(self) -> "CheckpointPlan":
        """Return the plan for its config.json alone."""
        config = tuple(file for file in self.side_files if file.path == "config.json")
        return replace(self, side_files=config, weights=())


@dataclass(frozen=True, slots=True)
class FetchedCheckpoint:
    """A checkpoint that is here: its folder, and every file with its sha256."""

    folder: Path
    files: tuple[Fetched, ...]


def is_side_file(path: str) -> bool:
    """Tell whether a file of a repo says how its weights are to be read."""
    return _SIDE_FILES.fullmatch(path) is not None


def is_checkpoint(offer: Offer) -> bool:
    """Tell whether a repo has weights that can be converted."""
    paths = [file.path for file in offer.files]
    return "config.json" in paths and any(_WEIGHTS.fullmatch(path) for path in paths)


def plan(asked: ModelRef, offer: Offer, source: Source, quant: str | None) -> CheckpointPlan:
    """Choose the files of a checkpoint.

    Raises:
        NoUsableFile: the repo holds none.
    """
    if not is_checkpoint(offer):
        paths = tuple(file.path for file in offer.files)
        pickles = [path for path in paths if path.endswith((".bin", ".pt", ".pth")) and "/" not in path]
        if pickles:
            raise NoUsableFile(
                f"{offer.name} has its weights as pickles, which can run code and are never opened: {pickles[0]}",
                files=paths,
                hint="many repos have a branch with safetensors, `@refs/pr/1`; transformers can save them so",
            )
        raise NoUsableFile(
            f"{offer.name} has no checkpoint to convert: no config.json with *.safetensors",
            files=paths,
            hint=f"it has: {', '.join(paths[:10]) or 'nothing'}",
        )
    side = tuple(file for file in offer.files if _SIDE_FILES.fullmatch(file.path))
    weights = tuple(file for file in offer.files if _WEIGHTS.fullmatch(file.path))
    return CheckpointPlan(asked, offer, source, side, weights, quant)


def fetch(
    plan: CheckpointPlan,
    store: Store,
    *,
    choose: Callable[[Path, Sequence[str]], Sequence[str]],
    check: Check,
    sink: Sink = ignore,
    limits: Limits = DEFAULT,
) -> FetchedCheckpoint:
    """Bring a checkpoint into the cache.

    Args:
        choose: given the folder with the small files and the names of all files with weights, returns those needed, or
            raises if the checkpoint cannot be used; no weights are here by then.
        check: looks at each file before it is published.
        limits: how much of the network the download may take.
    """
    folder = store.home  # where it would go is the source's business
    check_space(plan.name, plan.source, plan.offer, plan.files, folder)
    side = plan.source.fetch(plan.offer, plan.side_files, folder, check=check, sink=sink, limits=limits)
    config = next(item.path for item, file in zip(side, plan.side_files, strict=True) if file.path == "config.json")
    names = set(choose(config.parent, [file.path for file in plan.weights]))
    chosen = [file for file in plan.weights if file.path in names]
    weights = plan.source.fetch(plan.offer, chosen, folder, check=check, sink=sink, limits=limits)
    return FetchedCheckpoint(config.parent, (*side, *weights))
