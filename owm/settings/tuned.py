"""Tuned values: settings of the hardware that were measured to be best for one model, machine and build of llama.cpp.

They lie in `OWM_HOME/tuned.json`. Whoever looks one up has to be on the same machine with the same build.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from owm import paths
from owm.errors import Damaged, StoreError, Unsupported, UsageError
from owm.publishing import json_text, publish_text
from owm.settings.keys import HARDWARE_KEYS, KEYS, Value
from owm.settings.layers import Setting

FILE_NAME = "tuned.json"
ORIGIN = "tuned"
VERSION = 1
MAX_BYTES = 16 << 20
LOCK_SECONDS = 10.0
MOST = 1e6  # times as fast, that something can be


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found best once.

    Attributes:
        model: which bytes it is, as `owm.library.configuring.identity_of` says it.
        machine: its fingerprint; `build`: of llama.cpp.
        name, machine_name: for people.
        values: of hardware settings by name; what is not there is left to the default.
        gain: how many times as fast as the defaults, by what was measured (`prompt`, `answer`, `batch`).
        tuned_at: ISO 8601, UTC.
    """

    model: str
    machine: str
    build: str
    name: str
    machine_name: str
    values: Mapping[str, Value]
    gain: Mapping[str, float] = field(default_factory=dict)
    tuned_at: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it holds for; there is one of each."""
        return self.model, self.machine, self.build

    def layer(self) -> dict[str, Setting]:
        """Return its values as a layer of settings."""
        return {name: Setting(value, ORIGIN) for name, value in self.values.items()}

    def said(self) -> str:
        """Say the values in one line, `threads 4, ubatch-size 256`."""
        return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in self.values.items()) or "the defaults"


def default_path() -> Path:
    """Return where the tuned values of this user lie."""
    return paths.owm_home() / FILE_NAME


def load(path: Path) -> list[Tuned]:
    """Return all that was tuned, the oldest first; no file is none.

    Entries that hold what no setting takes are passed over.

    Raises:
        Damaged: the file is not what it should be.
        Unsupported: a newer owm has written it.
        StoreError: it cannot be read.
    """
    return [found for entry in _entries(path) if (found := _read(entry)) is not None]


def find(entries: Sequence[Tuned], model: str, place: Callable[[], tuple[str, str]]) -> Tuned | None:
    """Return what was tuned for a model on this machine.

    Args:
        place: fingerprint of this machine and build of llama.cpp; only asked where something is tuned for the model.
    """
    of_model = [entry for entry in entries if entry.model == model]
    if not of_model:
        return None
    machine, build = place()
    return next((entry for entry in reversed(of_model) if (entry.machine, entry.build) == (machine, build)), None)


def save(path: Path, tuned: Tuned) -> None:
    """Keep what was tuned, in the place of what was before for the same model, machine and build.

    Raises:
        Damaged, Unsupported, StoreError: as `load`; then nothing is changed.
    """
    with _locked(path):
        kept = [entry for entry in _entries(path) if _key(entry) != tuned.key]
        _publish(path, [*kept, asdict(tuned)])


def remove(path: Path, is_meant: Callable[[Tuned], bool]) -> list[Tuned]:
    """Forget what is meant; return it.

    Raises:
        Damaged, Unsupported, StoreError: as `load`; then nothing is changed.
    """
    with _locked(path):
        kept: list[dict[str, Any]] = []
        removed: list[Tuned] = []
        for entry in _entries(path):
            found = _read(entry)
            if found is not None and is_meant(found):
                removed.append(found)
            else:
                kept.append(entry)
        if removed:
            _publish(path, kept)
    return removed


def clear(path: Path) -> bool:
    """Forget everything, whatever is in the file; return whether there was one.

    Raises:
        StoreError: it cannot be removed.
    """
    with _locked(path):
        is_there = path.exists()
        path.unlink(missing_ok=True)
    return is_there


def _entries(path: Path) -> list[dict[str, Any]]:
    """Return the entries as they are written."""
    hint = "`owm tune rm --all` begins anew"
    try:
        with path.open("rb") as file:
            raw = json.loads(file.read(MAX_BYTES))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}", hint="look at its permissions") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is damaged, so no tuned values are used", hint=hint) from error
    version = raw.get("version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise Unsupported(f"{path} was written by a newer owm, so no tuned values are used", hint="update owm")
    if version != VERSION or not isinstance(raw.get("tuned"), list):
        raise Damaged(f"{path} is damaged, so no tuned values are used", hint=hint)
    return [entry for entry in raw["tuned"] if isinstance(entry, dict)]


def _read(entry: Mapping[str, Any]) -> Tuned | None:
    texts = [entry.get(name) for name in ("model", "machine", "build", "name", "machine_name", "tuned_at")]
    values, gain = entry.get("values"), entry.get("gain")
    if not all(isinstance(text, str) for text in texts) or not isinstance(values, dict) or not isinstance(gain, dict):
        return None
    try:
        checked = {name: KEYS[name].check(value, name) for name, value in values.items() if name in HARDWARE_KEYS}
    except UsageError:
        return None
    if len(checked) != len(values):
        return None
    gains = {name: float(times) for name, times in gain.items() if isinstance(times, int | float) and 0 < times < MOST}
    return Tuned(
        model=entry["model"],
        machine=entry["machine"],
        build=entry["build"],
        name=entry["name"],
        machine_name=entry["machine_name"],
        values=checked,
        gain=gains,
        tuned_at=entry["tuned_at"],
    )


def _key(entry: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return entry.get("model"), entry.get("machine"), entry.get("build")


def _publish(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    publish_text(path, json_text({"version": VERSION, "tuned": list(entries)}))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two changes at once from undoing each other."""
    from filelock import FileLock, Timeout

    locks = paths.owm_home() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / "tuned.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout as error:
        raise StoreError(f"another owm is changing {path}", hint="try again") from error
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}", hint="its place is `OWM_HOME`") from error
