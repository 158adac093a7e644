"""Adopting models that are on this machine already: found, checked, and registered where they lie, or linked.

What a tool says of its models is believed as far as it can be checked: a header is read before anything is registered,
and a sha256 is computed unless the tool names its files by it.
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from owm.errors import ModelNotFound, OwmError, QuantNotFound, Unsupported, UsageError
from owm.events import Sink, Warned, ignore
from owm.formats import gguf
from owm.library.keeping import inspect_file, local_name
from owm.library.registering import Known, is_outside, register
from owm.store import manifest, offline, quants, refs
from owm.store.adopting import huggingface, tools
from owm.store.adopting.found import Finding, Found, LeftOut
from owm.store.adopting.linking import Link
from owm.store.local import Store
from owm.store.manifest import ModelFacts
from owm.store.model import Entry, StoredModel
from owm.store.refs import ModelRef

Status = Literal["new", "changed", "unchanged", "known", "left out", "refused"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that was found and whose header was read, and what is to become of it.

    Attributes:
        status: `new` and `changed` are to be registered; of the others `stored` is what is there already.
        hash_bytes: how much has to be read to know its content.
    """

    found: Found
    ref: ModelRef
    label: str
    facts: ModelFacts
    status: Status
    hash_bytes: int = 0
    stored: StoredModel | None = None


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import will do: known from names and headers alone."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]
    is_named: bool = False

    @property
    def hash_bytes(self) -> int:
        """Bytes that have to be read to know the models by their content."""
        return sum(candidate.hash_bytes for candidate in self.candidates)

    @property
    def size_bytes(self) -> int:
        """Bytes of the models that are not registered yet."""
        return sum(each.found.size_bytes for each in self.candidates if each.status in ("new", "changed"))

    def outcomes(self) -> Iterator["Outcome"]:
        """Say of each model what would become of it."""
        yield from map(_outcome_of, self.candidates)
        yield from map(_outcome_of, self.left_out)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one model that was found; `stored` is what is stored of it, perhaps by another name."""

    status: Status
    name: str
    owner: str | None
    path: Path
    label: str | None = None
    size_bytes: int | None = None
    stored: StoredModel | None = None
    problem: OwmError | None = None


def plan_import(
    source: str,
    store: Store,
    *,
    only: Sequence[str] = (),
    name: str | None = None,
    link: Link | None = None,
    environ: Mapping[str, str] | None = None,
) -> ImportPlan:
    """Find out which models a source has and what would become of each; headers are read, nothing is written.

    Args:
        source: a tool's name, a folder or a file; see `owm.store.adopting.tools.search`.
        only: names, or patterns with `*`, of those that are wanted; all if there are none.
        name: what the one model that is found shall be called.
        link: how the bytes would come into owm's own tree.

    Raises:
        UsageError: the source is none, or a name is asked for where there are several models.
        ModelNotFound: there is nothing.
        StoreError: the source or the store cannot be read.
    """
    findings = tools.search(source, environ, skip=(store.home, store.home / "models", store.hub))
    if only:
        findings = _chosen(findings, only, source)
    found = [finding for finding in findings if isinstance(finding, Found)]
    asked = _local(name) if name is not None else None
    if asked is not None and len(found) > 1:
        listing = ", ".join(_shown(each) for each in found[:4])
        raise UsageError(f"a name is for one model, here are {len(found)}", hint=f"import one of them: {listing}")
    left_out = [finding for finding in findings if isinstance(finding, LeftOut)]
    known = Known.of(store)
    candidates = []
    for each in found:
        try:
            candidates.append(_examine(each, known, asked, link))
        except OwmError as problem:
            left_out.append(LeftOut(each.owner, _shown(each), each.path, problem, not isinstance(problem, Unsupported)))
    return ImportPlan(tuple(candidates), tuple(left_out), asked is not None)


def execute_import(
    plan: ImportPlan, store: Store, *, link: Link | None = None, sink: Sink = ignore
) -> Iterator[Outcome]:
    """Register what a plan has found, one after the other; each is told when it is done.

    Without `link` nothing is copied: the files stay where they are. What cannot be registered is told too, and the
    others go on. Stopped or killed, the same import goes on with those that are not there yet.
    """
    known = Known.of(store)
    for each in plan.candidates:
        if each.status not in ("new", "changed"):
            yield _outcome_of(each)
            continue
        try:
            status, stored = register(
                each.found, each.ref, each.label, each.facts, store, known, is_named=plan.is_named, link=link, sink=sink
            )
        except OwmError as problem:
            yield replace(_outcome_of(each), status="refused", problem=problem)
            continue
        outcome = replace(_outcome_of(each), status=status, stored=stored)
        yield outcome if status == "known" else replace(outcome, name=store.shown_name(stored))
    yield from map(_outcome_of, plan.left_out)


def adopt_cached(ref: ModelRef, store: Store, *, sink: Sink = ignore) -> StoredModel | None:
    """Register a model of the Hub that another program has put in the Hugging Face cache; no network is needed.

    It is hashed and compared with the name of its blob first. None if it is not there whole, or is damaged, which is
    said in a `Warned` event: then it has to be pulled.

    Raises:
        ModelNotFound: a short name that nobody knows.
        StoreError: the store cannot be written.
    """
    for wanted, found in _cached(ref, store):
        try:
            known = Known.of(store).of_repo(wanted.name)
            candidate = _examine(found, known, None, None)
            if candidate.stored is not None:
                return candidate.stored
            return register(found, candidate.ref, candidate.label, candidate.facts, store, known, sink=sink)[1]
        except OwmError as problem:
            sink(Warned("pull", f"{wanted} in the {huggingface.OWNER} is not used: {problem}"))
    return None


def plan_cached(ref: ModelRef, store: Store) -> Candidate | None:
    """Return what `adopt_cached` would register, by headers alone; nothing is hashed or written.

    Raises:
        ModelNotFound: a short name that nobody knows.
    """
    for wanted, found in _cached(ref, store):
        with suppress(OwmError):
            return _examine(found, Known.of(store).of_repo(wanted.name), None, None)
    return None


# -- inside ------------------------------------------------------------------------------------------------------------


def _cached(ref: ModelRef, store: Store) -> Iterator[tuple[ModelRef, Found]]:
    """Yield the Hub repos that a reference stands for, each with the model that was chosen of those in the cache."""
    for wanted in store.candidates(ref):
        if wanted.kind != "hub":
            continue
        best: dict[str, Found] = {}
        for found in huggingface.cached(store.hub, wanted):
            label = found.label or found.path.stem
            if not _is_begun(store.folder_of("hub", wanted.name, found.commit, label)):
                best.setdefault(label, found)
        labels: list[quants.Variant[Entry]] = [quants.Variant(label, ()) for label in best]
        with suppress(QuantNotFound):
            if best:
                yield wanted, best[quants.choose(labels, wanted.quant, where=str(wanted)).label]


def _is_begun(folder: Path) -> bool:
    """Tell whether owm itself was fetching a model when it was killed: its pull has more to bring than the weights."""
    return folder.is_dir() and not (folder / manifest.FILE_NAME).exists() and not offline.is_offline()


def _chosen(findings: Sequence[Finding], only: Sequence[str], source: str) -> list[Finding]:
    chosen: list[Finding] = []
    for word in only:
        fits = [each for each in findings if _is_called(each, word)]
        if not fits:
            names = ", ".join(sorted({_shown(each) for each in findings})[:8])
            raise ModelNotFound(f"no model named {word} in {source}", ref=word, hint=f"there are: {names}")
        chosen += [each for each in fits if each not in chosen]
    return chosen


def _is_called(finding: Finding, word: str) -> bool:
    name = _shown(finding)
    texts = {name, name.rpartition("/")[2], finding.path.name, finding.path.stem}
    if isinstance(finding, Found):
        texts |= {local_name(finding.path), *((f"{finding.ref}:{finding.label}",) if finding.ref else ())}
    bare = word.lower().removeprefix("ollama:")
    return any(fnmatch.fnmatchcase(text.lower().removeprefix("ollama:"), bare) for text in texts)


def _shown(finding: Finding) -> str:
    """Return what a person knows something by that was found."""
    if isinstance(finding, LeftOut):
        return finding.name
    return str(finding.ref) if finding.ref is not None else finding.path.name


def _local(name: str) -> ModelRef:
    """Return the reference of a name that the user gives.

    Raises:
        UsageError: it is no name.
    """
    with suppress(UsageError):
        ref = refs.parse(name if name.lower().startswith("local:") else f"local:{name}")
        if ref.kind == "local" and ref.quant is None and not name.lower().endswith(".gguf"):
            return ref
    raise UsageError(f"not a name for a model: {name!r}", hint="letters, digits, `.`, `_` and `-`")


def _examine(found: Found, known: Known, asked: ModelRef | None, link: Link | None) -> Candidate:
    """Read the headers of a model, and find out whether it is stored already.

    Raises:
        MalformedFile: a file is damaged. Unsupported: it is no model to run.
    """
    if link is None and asked is None and (same := known.at_place(found)) and same.manifest:
        there = same.manifest
        return Candidate(found, refs.parse(there.ref), there.label, there.facts, "unchanged", stored=same)
    facts, label = _read_headers(found)
    ref = asked or found.ref or ModelRef("local", local_name(found.path))
    digests = [known.sha256_of(file) or (None if found.must_hash else file.sha256) for file in found.files]
    unread = sum(file.size_bytes for file, digest in zip(found.files, digests, strict=True) if digest is None)
    if unread or asked is not None:
        return Candidate(found, ref, label, facts, "new", unread)
    twin = known.twin([str(digest) for digest in digests], found)
    if twin is None:
        return Candidate(found, ref, label, facts, "new")
    return Candidate(found, ref, label, facts, "known" if link is None or not is_outside(twin) else "changed", 0, twin)


def _read_headers(found: Found) -> tuple[ModelFacts, str]:
    """Check the headers of all files; return what they say together, and the quant."""
    facts = [inspect_file(file.path) for file in found.files]
    header = gguf.read_header(found.path)
    kind = header.text("general.type")
    if kind in ("adapter", "mmproj", "imatrix") or header.architecture == "clip":
        what = {"adapter": "an adapter", "imatrix": "an importance matrix"}.get(kind or "", "a projector")
        raise Unsupported(f"{found.path.name} is {what}, no model to run")
    if len(found.files) == 1 and not header.tensors:
        raise Unsupported(f"{found.path.name} holds no weights")
    if len(found.files) > 1 or header.metadata.get("split.count"):
        from owm.pipeline.model_file import open_model_file

        open_model_file([file.path for file in found.files])
    n_params = sum(each.n_params or 0 for each in facts) or None
    return replace(facts[0], n_params=n_params), found.label or header.file_type or "GGUF"


def _outcome_of(planned: Candidate | LeftOut) -> Outcome:
    """Say what was found, before anything is done."""
    if isinstance(planned, LeftOut):
        status: Status = "refused" if planned.is_fault else "left out"
        return Outcome(status, planned.name, planned.owner, planned.path, problem=planned.problem)
    found, name = planned.found, str(planned.ref)
    if planned.ref.kind in ("hub", "local"):
        name = f"{planned.ref.name}:{planned.label}"
    return Outcome(planned.status, name, found.owner, found.path, planned.label, found.size_bytes, planned.stored)
