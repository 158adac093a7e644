"""The chat templates that were published with well-known models: which they are, and what they say and look at.

Kept of them are hashes only, in `published_templates.json`; `scripts/publish_template` adds one.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Published:
    """One published template.

    Attributes:
        name: what people call it.
        source: where it was published.
        repos: patterns for the publishers' repos that have it, in lower case.
        sha256: of its texts, which differ in their last newline.
        outline: hashes of what it says and what it looks at; see `owm.engine.anatomy`.
    """

    name: str
    source: str
    repos: tuple[str, ...]
    sha256: tuple[str, ...]
    outline: frozenset[str]


def is_published(source: str) -> bool:
    """Tell whether a template is one of these, to the byte."""
    digest = hash_text(source)
    return any(digest in each.sha256 for each in load())


def of_repo(repo: str) -> Published | None:
    """Return the template that was published in a repo (`owner/name`), None where that is not known."""
    return next((each for each in load() if any(fnmatchcase(repo.lower(), p) for p in each.repos)), None)


def hash_text(source: str) -> str:
    """Return the sha256 of a template as it is."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


@functools.cache
def load() -> tuple[Published, ...]:
    """Read the list that ships with owm."""
    rows = json.loads(Path(__file__).with_name("published_templates.json").read_text("utf-8"))
    return tuple(
        Published(
            row["name"], row["source"], tuple(row["repos"]), tuple(row["sha256"]), frozenset(row["outline"].split())
        )
        for row in rows
    )
