"""The config file: settings for all models at its top, and for one model each in a table `[models."NAME"]`.

Names of models are full ones; which of them a stored model goes by is for others to know.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from owm import paths
from owm.errors import StoreError, UsageError
from owm.publishing import PRIVATE, make_private, publish_text
from owm.settings import keys
from owm.settings.keys import Value
from owm.settings.layers import Setting

FILE_NAME = "config.toml"
MODELS = "models"
LOCK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Config:
    """What a config file says: `everywhere` for all models, `models` for some by their names."""

    everywhere: Mapping[str, Value] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

    def layers(self, names: Sequence[str]) -> list[dict[str, Setting]]:
        """Make the layers of a model that goes by `names`, weakest first: all models, then each name in turn."""
        sections = [same_name(name, self.models) for name in names]
        return [
            {name: Setting(value, FILE_NAME) for name, value in self.everywhere.items()},
            *(
                {name: Setting(value, f"{FILE_NAME} [{section}]") for name, value in self.models[section].items()}
                for section in sections
                if section is not None
            ),
        ]


def default_path() -> Path:
    """Return where the config file of this user lies."""
    return paths.config_home() / FILE_NAME


def same_name(name: str, among: Iterable[str]) -> str | None:
    """Return the one of `among` that names the same model: paths and addresses in their own case, others in any."""
    return next((other for other in among if _folded(other) == _folded(name)), None)


def _folded(name: str) -> str:
    return name if re.match(r"[/\\]|[A-Za-z]:[/\\]|[a-z]+://", name) else name.lower()


def load(path: Path) -> Config:
    """Read a config file; none is an empty one.

    Raises:
        UsageError: it is no TOML, or says something that no setting takes; the message names the line.
        StoreError: it cannot be read.
    """
    text = _read(path)
    raw = _parse(text, path)
    models = raw.pop(MODELS, {})
    if not isinstance(models, dict):
        raise UsageError(f"{MODELS} in {_place(path, text, (MODELS,))} must be tables, one a model: {models!r}")
    everywhere = _checked(raw, path, text, ())
    sections: dict[str, Mapping[str, Value]] = {}
    for name, values in models.items():
        where = (MODELS, name)
        if not isinstance(values, dict):
            raise UsageError(f"{name} in {_place(path, text, where)} must be a table of settings: {values!r}")
        if same_name(name, sections):
            raise UsageError(f"{_place(path, text, where)} names a model again: {name}", hint="make one table of both")
        sections[name] = _checked(values, path, text, where)
    return Config(everywhere, sections)


def change(path: Path, model: str | None, values: Mapping[str, Value], *, remove: Sequence[str] = ()) -> list[str]:
    """Set and remove settings of one model, or of all if that is None; the rest of the file stays, comments too.

    Args:
        remove: names of settings, or whatever else stands there as a name.

    Returns:
        Those of `remove` that were there.

    Raises:
        UsageError: the file is no TOML.
        StoreError: it cannot be read or written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    with _locked(path):
        text = _read(path)
        wanted = _parse(text, path)  # a broken file is said in the same words everywhere
        try:
            document = tomlkit.parse(text)
            removed = _edit(_table(document, model, path), values, remove)
            _drop_empty(document, model)
            changed = tomlkit.dumps(document).rstrip("\n") + "\n"
            _edit(_table(wanted, model, path), values, remove)
            is_right = _without_empty(tomllib.loads(changed)) == _without_empty(wanted)
        except (TOMLKitError, tomllib.TOMLDecodeError):
            is_right = False
        if not is_right:
            raise UsageError(f"{path} is laid out so that owm cannot change it", hint="change it in an editor")
        if values or removed:
            _publish(path, changed)
    return removed


def _table(document: Any, model: str | None, path: Path) -> Any:
    """Return the part of a document that speaks of a model, made if it is not there."""
    import tomlkit

    if model is None:
        return document
    if MODELS not in document:
        document[MODELS] = tomlkit.table(is_super_table=True)
    models: Any = document[MODELS]
    if not isinstance(models, dict):
        raise UsageError(f"{MODELS} in {path} must be tables, one a model: {models!r}")
    name = same_name(model, models)
    if name is None:
        name = model
        models[name] = {}
    if not isinstance(models[name], dict):
        raise UsageError(f"{name} in {path} must be a table of settings: {models[name]!r}")
    return models[name]


def _edit(table: Any, values: Mapping[str, Value], remove: Sequence[str]) -> list[str]:
    unwritten = dict(values)
    removed: set[str] = set()
    for spelled in [name for name in table if name != MODELS]:
        name = spelled.replace("-", "_")
        if name in unwritten:
            table[spelled] = unwritten.pop(name)
        elif name in values or name in remove or spelled in remove:
            del table[spelled]
            removed |= {name, spelled}
    for name, value in unwritten.items():
        table[name] = value
    return [name for name in remove if name in removed]


def _without_empty(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a document says, however many tables of it say nothing."""
    models = document.get(MODELS, {})
    if not isinstance(models, dict):
        return dict(document)
    return {**document, MODELS: {name: values for name, values in models.items() if values}}


def _drop_empty(document: Any, model: str | None) -> None:
    """Remove the table of a model that has no settings any more, unless something is written in it."""
    name = same_name(model, document[MODELS]) if model is not None else None
    if name is not None and not document[MODELS][name] and "#" not in document[MODELS][name].as_string():
        del document[MODELS][name]
        if not document[MODELS]:
            del document[MODELS]


def _checked(raw: Mapping[str, Any], path: Path, text: str, where: tuple[str, ...]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for spelled, value in raw.items():
        try:
            name = keys.find(spelled)
        except UsageError as error:
            place = _place(path, text, (*where, spelled))
            raise UsageError(f"no such setting in {place}: {spelled}", hint=error.hint) from error
        if name in found:
            raise UsageError(f"{name} is there twice: {_place(path, text, (*where, spelled))}")
        try:
            found[name] = keys.KEYS[name].check(value, name)
        except UsageError as error:
            place = _place(path, text, (*where, spelled))
            raise UsageError(str(error).replace(name, f"{name} in {place}", 1), hint=error.hint) from error
    return found


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        message = str(error).replace("at end of document", f"at line {text.count(chr(10)) + 1}")
        raise UsageError(
            f"{path} is not TOML: {message[:1].lower()}{message[1:]}", hint="mend or remove the file"
        ) from error


def _place(path: Path, text: str, where: Sequence[str]) -> str:
    """Say where something stands: in the first line after which it has been read."""
    lines = text.split("\n")
    for number in range(1, len(lines) + 1):
        try:
            found: Any = tomllib.loads("\n".join(lines[:number]))
        except ValueError:
            continue
        for part in where:
            found = found.get(part) if isinstance(found, dict) else None
        if found is not None:
            return f"{path}, line {number}"
    return str(path)


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}", hint="look at its permissions") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path} is not UTF-8 text (line {line})", hint="save it as UTF-8") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two changes at once from undoing each other."""
    from filelock import FileLock, Timeout

    locks = paths.owm_home() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / "config.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise StoreError(f"another owm is changing {path}", hint="try again") from error
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}", hint="its place is `OWM_HOME`") from error


def _publish(path: Path, text: str) -> None:
    """Replace the file in one step; a link stays one, and so do its permissions."""
    target = path.resolve()
    make_private(target.parent)
    mode = target.stat().st_mode if target.exists() else None
    publish_text(target, text, mode=PRIVATE)
    if mode is not None:
        target.chmod(mode & 0o7777)
