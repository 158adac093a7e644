"""The Hugging Face cache as other programs fill it: `models--owner--repo/{blobs,refs,snapshots/<commit>}`.

Only its layout is read here, which is public; the library that owns it is not needed. A blob of a large file is named
by its sha256.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from owm.errors import MalformedFile, OwmError, UsageError
from owm.store import quants, refs
from owm.store.adopting.found import (
    Finding,
    Found,
    FoundFile,
    LeftOut,
    check_name,
    entries,
    found_file,
    no_model,
    read_small,
)
from owm.store.refs import ModelRef

OWNER = "Hugging Face cache"
GENERATION_CONFIG = "generation_config.json"
MAX_FILES = 10_000  # of one snapshot


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of a snapshot by its path in the repo, as `quants` takes it."""

    path: str
    file: FoundFile

    @property
    def size_bytes(self) -> int:
        return self.file.size_bytes


def is_repo(folder: Path) -> bool:
    """Tell whether a folder is a model repo of a Hugging Face cache."""
    return folder.name.startswith("models--") and os.path.isdir(folder / "snapshots")


def search(cache: Path) -> list[Finding]:
    """Find the models in all repos of a cache; what is in several snapshots, in the newest."""
    findings: list[Finding] = []
    if not os.path.isdir(cache):
        return findings
    try:
        repos = [each for each in entries(cache) if is_repo(each)]
    except OwmError as problem:
        return [LeftOut(OWNER, cache.name, cache, problem)]
    for repo in repos:
        findings += search_repo(repo)
    return findings


def search_repo(repo: Path, wanted: ModelRef | None = None) -> list[Finding]:
    """Find the models in one repo's snapshots, those that `main` names first.

    Args:
        wanted: only its revision is looked at.
    """
    findings: list[Finding] = []
    known: set[tuple[Path, ...]] = set()
    try:
        ref = _ref_of(repo)
        commits = _commits(repo, wanted.revision if wanted else None)
    except OwmError as problem:
        return [LeftOut(OWNER, repo.name, repo, problem)]
    for commit, revision in commits:
        for finding in _search_snapshot(repo, commit, revision, ref):
            if isinstance(finding, Found):
                blobs = tuple(file.path.resolve() for file in finding.files)
                if blobs in known:
                    continue
                known.add(blobs)
            findings.append(finding)
    return findings


def cached(cache: Path, wanted: ModelRef) -> list[Found]:
    """Return the models of a repo that lie in the cache, whole, in the revision, quant or file that is wanted."""
    try:
        repos = [each for each in entries(cache) if each.name.lower() == _folder_name(wanted.name).lower()]
    except OwmError:
        return []
    found = []
    for repo in filter(is_repo, repos):
        for finding in search_repo(repo, wanted):
            if not isinstance(finding, Found) or any(file.sha256 is None for file in finding.files):
                continue  # what states no sha256 cannot be told from what is damaged
            in_repo = [_path_in_snapshot(file.path) for file in finding.files]
            if wanted.file is None or wanted.file in in_repo:
                found.append(finding)
    return found


def _folder_name(name: str) -> str:
    return "models--" + name.replace("/", "--")


def _ref_of(repo: Path) -> ModelRef | None:
    """Return the repo that a folder is of, None if its name is none of today's."""
    check_name(repo)
    parts = repo.name.split("--")
    if len(parts) != 3:
        return None
    try:
        ref = refs.parse("/".join(parts[1:]))
    except UsageError:
        return None
    return ref if ref.kind == "hub" and ref.quant is None else None


def _commits(repo: Path, revision: str | None) -> list[tuple[str, str | None]]:
    """Return the snapshots of a repo and how their revisions are called, the best first."""
    snapshots = [each for each in entries(repo / "snapshots") if os.path.isdir(each)]
    newest = sorted(snapshots, key=os.path.getmtime, reverse=True)
    names = dict(_named(repo))
    if revision is not None:
        at = names.get(revision)
        fits = [each for each in newest if each.name == at]
        if not fits and re.fullmatch(r"[0-9a-f]{7,40}", revision):
            fits = [each for each in newest if each.name.startswith(revision)]
        return [(each.name, revision) for each in fits]
    of_main = names.get("main")
    newest.sort(key=lambda each: each.name != of_main)
    return [(each.name, "main" if each.name == of_main else None) for each in newest]


def _named(repo: Path) -> Iterator[tuple[str, str]]:
    """Yield what branches and tags stand for."""
    top = repo / "refs"
    for path in sorted(top.rglob("*"))[:1000] if os.path.isdir(top) else ():
        with suppress(OwmError, OSError):
            if os.path.isfile(path):
                yield path.relative_to(top).as_posix(), read_small(path).decode("utf-8", "replace").strip()


def _search_snapshot(repo: Path, commit: str, revision: str | None, ref: ModelRef | None) -> Iterable[Finding]:
    top = repo / "snapshots" / commit
    listed: list[_Entry] = []
    for path in sorted(top.rglob("*"))[:MAX_FILES]:
        if not path.name.lower().endswith(".gguf"):
            continue
        in_repo = path.relative_to(top).as_posix()
        if what := quants.part_of_a_model(in_repo):
            yield LeftOut(OWNER, in_repo, path, no_model(path, what), is_fault=False)
            continue
        try:
            listed.append(_Entry(in_repo, found_file(path, _stated(repo, path))))
        except OwmError as problem:
            yield LeftOut(OWNER, in_repo, path, problem)
    whole = quants.variants(listed)
    advice = top / GENERATION_CONFIG
    for variant in whole:
        yield Found(
            OWNER,
            ref,
            tuple(entry.file for entry in variant.files),
            variant.label if quants.label_of(variant.files[0].path) else None,
            revision,
            commit,
            advice=advice if os.path.isfile(advice) else None,
            must_hash=True,
        )
    if missing := quants.missing_parts(listed):
        first = next(entry for entry in listed if entry.path not in {e.path for v in whole for e in v.files})
        cut = MalformedFile(first.file.path, f"its part {missing[0]} is missing", hint="it may be under way still")
        yield LeftOut(OWNER, first.path, first.file.path, cut)


def _stated(repo: Path, path: Path) -> str | None:
    """Return the sha256 that the name of a file's blob states."""
    with suppress(OSError, RuntimeError):
        blob = path.resolve()
        if blob.parent == (repo / "blobs").resolve() and re.fullmatch(r"[0-9a-f]{64}", blob.name):
            return blob.name
    return None


def _path_in_snapshot(path: Path) -> str:
    parts = path.parts
    at = max((index for index, part in enumerate(parts) if part == "snapshots"), default=-1)
    return "/".join(parts[at + 2 :])
