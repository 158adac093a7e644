"""What this machine is and what owm can do with it: hardware, build, places, the Hub, and what stays private."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from owm import paths
from owm.errors import ModelNotFound, OwmError, Unsupported
from owm.hardware import gpus, machine, probe, rates, seclusion
from owm.hardware.features import Features, features
from owm.hardware.gpus import SeenGpu
from owm.hardware.machine import Machine
from owm.hardware.probe import Cores, Memory
from owm.hardware.rates import Rates
from owm.hardware.seclusion import Means
from owm.store import offline
from owm.store.local import Store
from owm.store.model import StoredModel

LIBRARIES = (
    "llama-cpp-python", "gguf", "huggingface_hub", "numpy", "tokenizers", "llguidance", "jinja2", "typer", "rich",
    "prompt_toolkit",
)  # fmt: skip
HUB_SECONDS = 3.0
MATMUL_TYPES = ("f16", "q4_k")
PROMPT, N_TOKENS = "Say hello.", 8
_FEW = ("--max-tokens", str(N_TOKENS), "--temp", "0", "--quiet")
# What generates text: the words after `owm`, with the model between the first and the rest, and what is piped in.
GENERATING: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "run": (("run",), (PROMPT, *_FEW), ""),
    "chat": (("chat",), ("--private", *_FEW), f"{PROMPT}\n"),
    "batch": (("batch", "-m"), ("-", *_FEW), json.dumps({"prompt": PROMPT}) + "\n"),
    "bench": (("bench",), ("-p", "8", "-n", "4", "-r", "1", "--no-history", "--quiet"), ""),
}
_BINDING = "llama-cpp-python"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, whether the build can use it, and what would let it: `command`, with `needs` installed before."""

    name: str
    is_usable: bool
    free_bytes: int | None = None
    total_bytes: int | None = None
    command: str | None = None
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A folder that owm writes to, what is in it, and what its disk has left."""

    name: str
    path: Path
    size_bytes: int
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether the Hub can be reached: None if it was not asked, and why not."""

    is_reachable: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found."""

    machine: Machine
    cores: Cores
    n_physical: int | None
    memory: Memory
    rates: Rates | None
    features: Features
    rebuild: str | None
    gpus: tuple[Gpu, ...]
    versions: Mapping[str, str]
    places: tuple[Place, ...]
    n_models: int
    hub: Reach
    problems: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return it as JSON says it."""
        quota = self.cores.quota
        return {
            "machine": self.machine.record(),
            "cpu": {
                "name": self.machine.cpu,
                "n_physical": self.n_physical,
                "n_performance": self.cores.performance,
                "n_allowed": self.cores.allowed,
                "quota": quota,
                "n_used": self.cores.usable,
                "features_used": list(self.features.used),
                "features_missing": list(self.features.missing),
                "rebuild": self.rebuild,
            },
            "memory": {
                "total_bytes": self.memory.total,
                "available_bytes": self.memory.available,
                "bytes_per_second": self.rates and self.rates.bytes_per_second,
            },
            "flops": self.rates.flops if self.rates else {},
            "gpus": [asdict(gpu) for gpu in self.gpus],
            "versions": dict(self.versions),
            "places": [asdict(place) | {"path": str(place.path)} for place in self.places],
            "n_models": self.n_models,
            "hub": asdict(self.hub),
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Privacy:
    """What was shown of real answers that had no way to the network.

    Attributes:
        means: by which the programs were shut in, each tried on a program that does connect before.
        is_shown: all came to their end, and no network socket was opened.
        answer: of `owm run`.
        commands: those that came to their end, in the order in which they were tried.
    """

    model: str
    means: tuple[Means, ...]
    is_shown: bool
    answer: str
    reason: str
    commands: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return it as JSON says it."""
        return asdict(self) | {"means": list(self.means), "commands": list(self.commands)}


def diagnose(store: Store, *, asks_hub: bool = False, is_fresh: bool = False) -> Diagnosis:
    """Look at the machine, the build and the places; what is not known of the machine's rates is measured.

    Args:
        asks_hub: ask the Hub whether it is there, the only thing here that uses the network.
        is_fresh: measure the rates anew.
    """
    import psutil

    from owm.native import llama

    problems: list[str] = []
    llama.start()
    found = machine.this_machine()
    measured = None
    try:
        measured = rates.rates(found, MATMUL_TYPES, is_fresh=is_fresh)
    except OwmError as error:
        problems.append(f"the rates of this machine cannot be measured: {error}")
    of_build = features(llama.system_info(), machine.cpu_flags())
    broken: list[OwmError] = []
    n_models = len(store.models(broken))
    problems += [str(error) for error in broken]
    return Diagnosis(
        machine=found,
        cores=probe.cores(),
        n_physical=psutil.cpu_count(logical=False),
        memory=probe.memory(),
        rates=measured,
        features=of_build,
        rebuild=rebuild_command("-DGGML_NATIVE=on") if of_build.missing else None,
        gpus=tuple(_gpus()),
        versions=versions(),
        places=tuple(_places()),
        n_models=n_models,
        hub=_hub() if asks_hub else Reach(None, "not asked"),
        problems=tuple(problems),
    )


def rebuild_command(cmake_arguments: str) -> str:
    """Return the line that builds the same version of llama.cpp anew, for the Python that runs this."""
    python = shlex.quote(sys.executable)
    return (
        f'CMAKE_ARGS="{cmake_arguments}" {python} -m pip install --force-reinstall --no-cache-dir --no-deps'
        f" --no-binary {_BINDING} {_BINDING}=={version(_BINDING)}"
    )


def versions() -> dict[str, str]:
    """Return the versions of owm, of Python, and of what owm stands on."""
    from owm import __version__

    found = {"owm": __version__, "python": sys.version.split()[0]}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def show_privacy(store: Store, model: str | None = None) -> Privacy:
    """Have a real model answer, by each command that generates, in processes that cannot reach the network.

    Args:
        model: which one; by default the smallest one that is stored.

    Raises:
        ModelNotFound: none is stored.
        Unsupported: this system has no means to shut a process in.
    """
    stored = store.find_stored(model) if model is not None else _smallest(store)
    means = seclusion.available()
    if not means:
        raise Unsupported("this system has no means to shut a process in that owm knows of, so nothing is shown")
    name = store.shown_name(stored) if stored.manifest is not None else str(stored.path)
    ended: list[str] = []
    answer = ""

    def missed(reason: str) -> Privacy:
        return Privacy(name, means, False, answer, reason, tuple(ended))

    for command, (before, after, given) in GENERATING.items():
        program = [sys.executable, "-P", "-m", "owm", *before, str(stored.path), *after]
        try:
            done = seclusion.run(program, means, given=given)
        except subprocess.TimeoutExpired:
            return missed(f"`owm {command}` did not come to its end")
        answer = answer or done.output.strip()
        if done.was_killed:
            return missed(f"`owm {command}`: a network socket was opened, and the kernel ended it there")
        if done.code != 0 or not done.output.strip():
            lines = done.errors.strip().splitlines() or [f"exit code {done.code}"]
            return missed(f"`owm {command}`: there was no answer: {lines[-1]}")
        ended.append(command)
    return Privacy(name, means, True, answer, "", tuple(ended))


def _smallest(store: Store) -> StoredModel:
    """Return the smallest stored model that may well write."""
    models = [model for model in store.models() if not model.is_gone]
    writing = [model for model in models if _writes(model)]
    if not writing:
        raise ModelNotFound(
            "no model is stored that could answer", ref="", hint="`owm pull smollm2` fetches a small one"
        )
    return min(writing, key=lambda model: model.size_bytes)


def _writes(model: StoredModel) -> bool:
    from owm.engine.model import ENCODERS

    return model.manifest is None or model.manifest.facts.architecture not in ENCODERS


def _gpus() -> list[Gpu]:
    from owm.native import ggml

    devices = [device for device in ggml.devices() if device.is_gpu]
    found = [Gpu(device.description, True, device.free_bytes, device.total_bytes) for device in devices]
    names = [device.name for device in devices]
    return [*found, *(_unused(gpu) for gpu in gpus.seen() if not gpu.is_among(names))]


def _unused(gpu: SeenGpu) -> Gpu:
    return Gpu(gpu.name, False, command=rebuild_command(gpu.cmake_arguments), needs=gpu.needs)


def _places() -> list[Place]:
    home = paths.owm_home()
    return [
        _place("store", home),
        _place("snapshots", home / "cache" / "snapshots"),
        _place("Hub cache", paths.hub_cache()),
    ]


def _place(name: str, path: Path) -> Place:
    at = path
    while not at.exists() and at != at.parent:
        at = at.parent
    try:
        free: int | None = shutil.disk_usage(at).free
    except OSError:
        free = None
    return Place(name, path, _size(path), free)


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder: links count nothing, a file under two names counts once."""
    n_bytes, seen, folders = 0, set[tuple[int, int]](), [folder]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    if (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        n_bytes += status.st_size
    return n_bytes


def _hub() -> Reach:
    if offline.is_offline():
        return Reach(None, "OWM_OFFLINE is set")
    from owm.store.sources import hub_client

    try:
        return Reach(True, hub_client.ask_whether_there(HUB_SECONDS))
    except OwmError as error:
        if hub_client.is_offline():
            return Reach(None, "HF_HUB_OFFLINE is set")
        return Reach(False, str(error))
