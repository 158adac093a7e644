"""Aliases: names of the user's own for models, kept in one small file."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from owm.errors import ModelNotFound, StoreError, UsageError
from owm.publishing import publish_text
from owm.store import catalog, refs
from owm.store.refs import ModelRef

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Aliases:
    """The aliases in the file `path`. Names are kept in lower case; what they stand for is never an alias itself."""

    path: Path

    def load(self) -> dict[str, str]:
        """Return all aliases: name -> reference.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            loaded = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"cannot read {self.path}: {error}", hint="mend or remove the file") from error
        if not isinstance(loaded, dict) or not all(isinstance(target, str) for target in loaded.values()):
            raise StoreError(f"cannot read {self.path}: it is not a table of names", hint="mend or remove the file")
        return loaded

    def expand(self, ref: ModelRef) -> ModelRef:
        """Replace an alias by what it stands for, in the size and quant that were asked for.

        Raises:
            UsageError: what it stands for does not come in sizes or quants.
        """
        if ref.kind != "catalog":
            return ref
        whole = str(ref)
        aliases = self.load()
        for name in (whole, ref.name):
            if target := aliases.get(name.lower()):
                expanded = refs.parse(target)
                if name == whole:
                    return expanded
                for what, asked, kinds in (("size", ref.size, ("catalog",)), ("quant", ref.quant, ("catalog", "hub"))):
                    if asked and expanded.kind not in kinds:
                        raise UsageError(
                            f"{name} stands for {expanded}, which takes no {what}: {asked}",
                            hint=f"name it `{name}` alone, or see `owm alias`",
                        )
                if ref.quant:
                    expanded = expanded.with_quant(ref.quant)
                return replace(expanded, size=ref.size) if ref.size else expanded
        return ref

    def set(self, name: str, target: ModelRef) -> None:
        """Give a model another name.

        Raises:
            UsageError: the name is not a word, or a short name of the catalog.
        """
        if not _NAME.fullmatch(name) or name.lower().endswith(".gguf"):
            raise UsageError(f"not a name for an alias: {name!r}", hint="letters, digits, `.`, `_` and `-`")
        if name.lower() in catalog.load().entries:
            raise UsageError(f"{name} is a short name of the catalog already", hint="choose another alias")
        target = self.expand(target)
        if target.kind == "path":
            target = ModelRef("path", str(Path(target.name).expanduser().absolute()))
        if target.kind == "catalog" and target.name == name.lower():
            raise UsageError(f"the alias {name} would name itself")
        self._change(lambda aliases: {**aliases, name.lower(): str(target)})

    def remove(self, name: str) -> None:
        """Forget an alias.

        Raises:
            ModelNotFound: there is no such alias.
        """
        if name.lower() not in self.load():
            raise ModelNotFound(f"no alias named {name}", ref=name, hint="`owm alias` lists them")
        self._change(lambda aliases: {key: target for key, target in aliases.items() if key != name.lower()})

    def _change(self, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Read, change and publish under a lock, so that two changes at once both hold."""
        from filelock import FileLock

        from owm.store.download import write_error

        try:
            locks = self.path.parent / "locks"
            locks.mkdir(parents=True, exist_ok=True)
            with FileLock(locks / f"{self.path.stem}.lock"):
                publish_text(self.path, json.dumps(change(self.load()), indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise write_error(error, self.path) from error
