"""The official JSON-Schema-Test-Suite, out of the source archive of the installed `jsonschema`. Never committed."""

import json
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from lib.building import follow
from lib.inside import ROOT

CACHE = ROOT / ".cache" / "schema-suite"
_TESTS = "/json/tests/draft2020-12/"


@dataclass(frozen=True, slots=True)
class Group:
    """A schema and instances: what each is like, the instance, and whether it is valid."""

    file: str
    description: str
    schema: Any
    instances: list[tuple[str, Any, bool]]


def groups() -> Iterator[Group]:
    """Yield the groups of draft 2020-12 by file, without those about how a format looks."""
    release = version("jsonschema")
    archive = CACHE / f"jsonschema-{release}.tar.gz"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["-m", "pip", "download", "--no-deps", "--no-binary=jsonschema", f"--dest={CACHE}"]
        follow([sys.executable, *command, f"jsonschema=={release}"], CACHE / "fetch.log", "its metadata", 1, {})
    with tarfile.open(archive) as packed:
        names = [name for name in packed.getnames() if _TESTS in name and name.endswith(".json")]
        for name in sorted(names):
            file = name.partition(_TESTS)[2].removesuffix(".json")
            content = packed.extractfile(name)
            if file.startswith("optional/format") or content is None:
                continue
            for group in json.load(content):
                instances = [(test["description"], test["data"], test["valid"]) for test in group["tests"]]
                yield Group(file, group["description"], group["schema"], instances)
