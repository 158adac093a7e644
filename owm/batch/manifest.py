"""The manifest of a batch: what made the output beside it, so that a later run goes on only with the same.

A manifest of a newer version is refused by name.
"""

import hashlib
import json
import os
import platform
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from owm import __version__
from owm.batch.journal import write_error
from owm.errors import Damaged, StoreError
from owm.hardware import probe
from owm.publishing import PRIVATE, publish_text

VERSION = 1

_CPU_NAMES = Path("/proc/cpuinfo")
_MAX_BYTES = 64 << 20  # schemas and system prompts are in it
_MAX_SHOWN = 60  # characters of a value
_HINT = "remove it, what is answered stays in the journal; `--restart` begins anew"


@dataclass(frozen=True, slots=True)
class RunModel:
    """One model of a run: its name, and the exact bytes that were loaded."""

    ref: str
    path: str
    sha256: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run was made on."""

    cpu: str
    n_cores: int
    memory_bytes: int
    os: str


@dataclass(frozen=True, slots=True)
class RunManifest:
    """What made an output.

    Attributes:
        created: when the run began, as ISO 8601 in UTC.
        input: the path of the rows as it was given.
        models: in the order in which they were asked for.
        library_build: of llama.cpp.
        settings: by name, as JSON can say them; None means not set.
        seed: of the run.
        fingerprints: 16 hex digits of bytes and settings, by the model's ref.
    """

    created: str
    input: str
    models: tuple[RunModel, ...]
    library_build: str
    owm_version: str
    settings: Mapping[str, Any]
    seed: int
    machine: Machine
    fingerprints: Mapping[str, str]
    version: int = VERSION

    @classmethod
    def begin(
        cls, source: str, models: Sequence[RunModel], settings: Mapping[str, Any], *, seed: int, library_build: str
    ) -> "RunManifest":
        """Describe a run that begins now, by this owm, on this machine."""
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            input=source,
            models=tuple(models),
            library_build=library_build,
            owm_version=__version__,
            settings=dict(settings),
            seed=seed,
            machine=this_machine(),
            fingerprints={model.ref: fingerprint(model.sha256, settings) for model in models},
        )

    @classmethod
    def load(cls, path: Path) -> "RunManifest | None":
        """Read a manifest; None if there is none.

        Raises:
            StoreError: a newer owm has written it, or it cannot be read.
            Damaged: it is not a manifest.
        """
        content = _content(path)
        if content is None:
            return None
        try:
            found = json.loads(content.decode("utf-8"))
            if not isinstance(found, dict):
                raise ValueError("it is no object")
            version = found.get("version")
            if type(version) is int and version > VERSION:
                raise StoreError(
                    f"{path} was written by a newer owm (manifest {version}, this one knows {VERSION})",
                    hint="update owm",
                )
            found["models"] = tuple(RunModel(**model) for model in found["models"])
            found["machine"] = Machine(**found["machine"])
            manifest = cls(**found)
            _check(manifest)
        except (TypeError, KeyError, RecursionError) as error:
            raise Damaged(f"{path} is not the manifest of a batch: it has other members", hint=_HINT) from error
        except ValueError as error:
            raise Damaged(f"{path} is not the manifest of a batch: {error}", hint=_HINT) from error
        return manifest

    def save(self, path: Path) -> None:
        """Publish the manifest in one step: a reader finds the old one, the new one or none.

        Raises:
            NotEnoughDisk: the disk is full; an old manifest stays.
            StoreError: it cannot be written; an old manifest stays.
        """
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        # Names that are not UTF-8 reach Python as lone surrogates, which only JSON's own spelling can keep.
        text = re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
        try:
            publish_text(path, text, mode=PRIVATE)
        except OSError as error:
            raise write_error(error, path, n_bytes=len(text)) from error


def manifest_path(output: Path) -> Path:
    """Return where the manifest of an output lies."""
    return output.with_name(output.name + ".manifest.json")


def this_machine() -> Machine:
    """Describe the machine, as far as this process may use it."""
    return Machine(
        cpu=_cpu_name(),
        n_cores=probe.cores().usable,
        memory_bytes=probe.memory().total,
        os=f"{platform.system()} {platform.release()}",
    )


def fingerprint(sha256: str, settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits that stand for a model's bytes and all settings; one that is None counts as not set."""
    plain = {name: _plain(value) for name, value in settings.items() if value is not None}
    text = json.dumps([sha256, plain], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=8).hexdigest()


def sha256_for(
    path: Path, size_bytes: int, mtime_ns: int, previous: RunManifest | None, hash_file: Callable[[Path], str]
) -> str:
    """Return the sha256 of a model file: the one of an earlier run if the file has not changed since, else hash it."""
    for model in previous.models if previous else ():
        if (model.path, model.size_bytes, model.mtime_ns) == (os.fspath(path), size_bytes, mtime_ns):
            return model.sha256
    return hash_file(path)


def differences(old: RunManifest, new: RunManifest) -> list[str]:
    """Say what of the models, the settings and the seed differs: what answers depend on, and nothing else."""
    found = _differences_of_models(old.models, new.models)
    for name in dict.fromkeys((*new.settings, *old.settings)):
        before, now = _plain(old.settings.get(name)), _plain(new.settings.get(name))
        if _is_same(before, now):
            continue
        shown_before, shown_now = _shown(before), _shown(now)
        if shown_before == shown_now:
            found.append(f"{name} is another than before: {shown_now}")
        else:
            found.append(f"{name} was {shown_before}, now {shown_now}")
    if old.seed != new.seed:
        found.append(f"the seed was {old.seed}, now {new.seed}")
    return found


def _content(path: Path) -> bytes | None:
    """Read a manifest; None if there is none."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"{path} is not a file", hint="write to another file (`-o`)")
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}", hint="look at its permissions") from error
    if len(content) > _MAX_BYTES:
        raise Damaged(f"{path} is not the manifest of a batch: it is too large", hint=_HINT)
    return content


def _differences_of_models(old: Sequence[RunModel], new: Sequence[RunModel]) -> list[str]:
    before, now = {model.ref: model for model in old}, {model.ref: model for model in new}
    gone = [model for ref, model in before.items() if ref not in now]
    added = [model for ref, model in now.items() if ref not in before]
    if len(gone) == len(added) == 1:
        found = [f"the model was {_named(gone[0])}, now {_named(added[0])}"]
    else:
        found = [f"the model {_named(model)} was asked too, now it is not" for model in gone]
        found += [f"the model {_named(model)} was not asked, now it is" for model in added]
    for ref, model in now.items():
        if ref in before and before[ref].sha256 != model.sha256:
            found.append(f"the model was {_named(before[ref])}, now {_named(model)}")
    return found


def _named(model: RunModel) -> str:
    return f"{model.ref} (sha256 {model.sha256[:12]}…)"


def _is_same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _plain(value: Any) -> Any:
    """Spell numbers in one way: 1.0 and 1 set the same, true and 1 do not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _check(manifest: RunManifest) -> None:
    """Refuse what no owm writes.

    Raises:
        ValueError: a member is such.
    """
    texts = [(manifest, "created input library_build owm_version"), (manifest.machine, "cpu os")]
    numbers = [(manifest, "version seed"), (manifest.machine, "n_cores memory_bytes")]
    for model in manifest.models:
        texts.append((model, "ref path sha256"))
        numbers.append((model, "size_bytes mtime_ns"))
    for kind, members in ((str, texts), (int, numbers)):
        for owner, names in members:
            for name in names.split():
                if type(getattr(owner, name)) is not kind:
                    raise ValueError(f"{name} is not {kind.__name__}")
    if manifest.version != VERSION:
        raise ValueError(f"there is no version {manifest.version}")
    if not (isinstance(manifest.settings, dict) and isinstance(manifest.fingerprints, dict)):
        raise ValueError("settings or fingerprints have no names")
    if not all(re.fullmatch(r"[0-9a-f]{64}", model.sha256) for model in manifest.models):
        raise ValueError("a sha256 cannot be right")
    if set(manifest.fingerprints) != {model.ref for model in manifest.models} or not all(
        isinstance(digits, str) and re.fullmatch(r"[0-9a-f]{16}", digits) for digits in manifest.fingerprints.values()
    ):
        raise ValueError("a fingerprint cannot be right")


def _cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(\S.*)$", _CPU_NAMES.read_text("utf-8", "replace"), re.MULTILINE)
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine() or "unknown"
