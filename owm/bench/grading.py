"""Quality beside speed: how far models are from the best one of their family, or from one that is named.

What is measured, on which text and when it is known well enough, is `owm.quality.divergence`'s.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from owm.bench.case import Subject
from owm.bench.rounds import weights_room
from owm.errors import OwmError
from owm.events import Sink, ignore
from owm.formats import gguf

if TYPE_CHECKING:
    from owm.quality.figures import Divergence

# What decides as which tokens a text is read.
_VOCABULARY = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")


@dataclass(frozen=True, slots=True)
class Grade:
    """A model's quality.

    Attributes:
        kld: mean divergence from the reference in nats a token, None where there was nothing to measure against.
        kld_margin: half the width of its 95 % interval.
        top1_agreement: share of tokens at which both hold the same for the likeliest.
    """

    reference: str
    perplexity: float
    kld: float | None = None
    kld_margin: float | None = None
    top1_agreement: float | None = None


@dataclass(frozen=True)
class Graded:
    """A model that is to be measured, and what its file says of it."""

    subject: Subject

    @cached_property
    def headers(self) -> list[gguf.Header]:
        """The headers of its files."""
        return [gguf.read_header(path) for path in self.subject.files]

    @cached_property
    def n_bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.subject.files)

    @property
    def bpw(self) -> float:
        """Bits a weight."""
        return 8 * self.n_bytes / max(1, sum(header.n_params for header in self.headers))

    @cached_property
    def vocabulary(self) -> str:
        """What stands for its vocabulary."""
        first = self.headers[0]
        found = hashlib.sha256(repr([first.text(f"tokenizer.ggml.{name}") for name in ("model", "pre")]).encode())
        for key in _VOCABULARY:
            found.update(repr(first.strings(key)).encode())
        return found.hexdigest()

    @property
    def family(self) -> tuple[str, str]:
        """What it has in common with those that it is measured against."""
        return self.headers[0].architecture, self.vocabulary


def grade(
    subjects: Sequence[Subject],
    reference: Subject | None = None,
    *,
    n_threads: int | None = None,
    n_gpu_layers: int | None = None,
    note: Callable[[str], None] = lambda message: None,
    sink: Sink = ignore,
) -> Iterator[tuple[Subject, Grade]]:
    """Measure models against a reference, or each against the one of its family that has the most bits a weight.

    Where there is but one model, its perplexity is all that can be measured.

    Args:
        note: takes a sentence for each model that is left out.

    Raises:
        OwmError: the reference cannot be read.
    """
    models = [Graded(subject) for subject in dict.fromkeys(subjects)]
    best = Graded(reference) if reference is not None else None
    for first, others in _families(models, best, note).items():
        name, perplexity = first.subject.name, None
        candidates = [model for model in others if model.subject.files != first.subject.files]
        for group in _groups(first, candidates):
            for model, found in _compare(first, group, n_threads, n_gpu_layers, note, sink):
                perplexity = perplexity or found.perplexity_reference.value
                yield model.subject, _grade(name, found)
        same = [model.subject for model in others if model.subject.files == first.subject.files]
        if same and not candidates:
            # It is read beside itself: that takes twice as long as it might, and is the same measurement.
            for _, found in _compare(first, [first], n_threads, n_gpu_layers, note, sink):
                yield from ((subject, Grade("", found.perplexity.value)) for subject in same)
        elif perplexity is not None:
            yield from ((subject, Grade(name, perplexity, 0.0, 0.0, 1.0)) for subject in same)


def _grade(reference: str, found: "Divergence") -> Grade:
    kld = found.kld_mean
    margin = max(kld.high - kld.value, kld.value - kld.low)
    return Grade(reference, found.perplexity.value, kld.value, margin, found.top1_agreement.value)


def _families(
    models: Sequence[Graded], best: Graded | None, note: Callable[[str], None]
) -> Mapping[Graded, Sequence[Graded]]:
    """Return what is measured against what; the reference is among the models where it is to be graded itself."""
    if best is not None:
        fitting = []
        for model in models:
            if model.vocabulary != best.vocabulary:
                note(f"no quality of {model.subject.name}: {best.subject.name} has another vocabulary")
            else:
                fitting.append(model)
        return {best: fitting}
    if len(models) == 1:
        return {models[0]: models}
    families: dict[tuple[str, str], list[Graded]] = {}
    for model in models:
        families.setdefault(model.family, []).append(model)
    found = {}
    for members in families.values():
        if len(members) == 1:
            name = members[0].subject.name
            note(f"no quality of {name}: no other model here has its architecture and vocabulary")
        else:
            found[max(members, key=lambda member: member.bpw)] = members
    return found


def _groups(first: Graded, candidates: Sequence[Graded]) -> list[list[Graded]]:
    """Part models by what has room in memory beside the reference, which is opened with each part."""
    room = weights_room() - first.n_bytes
    found: list[list[Graded]] = []
    used = 0
    for model in candidates:
        if not found or used + model.n_bytes > room:
            found.append([])
            used = 0
        found[-1].append(model)
        used += model.n_bytes
    return found


def _compare(
    first: Graded,
    group: Sequence[Graded],
    n_threads: int | None,
    n_gpu_layers: int | None,
    note: Callable[[str], None],
    sink: Sink,
) -> "list[tuple[Graded, Divergence]]":
    """Measure models that have room together; where one of them cannot be measured, each is tried alone."""
    from owm.quality import divergence

    paths = [model.subject.files for model in group]
    try:
        found = divergence.compare_many(
            first.subject.files, paths, n_threads=n_threads, n_gpu_layers=n_gpu_layers, sink=sink
        )
    except OwmError as error:
        if len(group) == 1:
            note(f"no quality of {group[0].subject.name}: {error}")
            return []
        parts = [_compare(first, [model], n_threads, n_gpu_layers, note, sink) for model in group]
        return [each for part in parts for each in part]
    return list(zip(group, found, strict=True))
