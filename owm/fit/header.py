"""Headers of model files that are somewhere else: read in growing parts, kept, and made files that llama.cpp can open.

A header is all that is needed of a file to know what it takes. Nothing here believes it: `owm.formats.gguf` checks it.
"""

import hashlib
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from owm.errors import MalformedFile, OwmError, StoreError
from owm.formats import gguf
from owm.formats.gguf import Header
from owm.publishing import replacing
from owm.store.sources.base import Offer, RemoteFile, Source
from owm.temporary import temporary_folder
from owm.units import format_bytes

FIRST_BYTES = 1 << 20
PART_BYTES = 1 << 16  # of a further file of a model, whose header is a table of tensors alone
N_AT_ONCE = 8  # files whose headers are asked for
MAX_BYTES = 64 << 20  # the largest vocabularies, with their merges, take some 20 MiB
MAX_KEPT_BYTES = 256 << 20
_UNKNOWN_LENGTH = 1 << 40  # of a file whose source does not tell

_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT = struct.Struct("<Q").unpack_from


@dataclass(frozen=True, slots=True)
class RemoteHeader:
    """The header of one file, as bytes, and the length of the file if that is known."""

    name: str
    raw: bytes
    file_bytes: int | None


def fetch_all(
    source: Source, offer: Offer, files: Sequence[RemoteFile], *, kept_in: Path | None = None
) -> list[RemoteHeader]:
    """Read the headers of a model's files side by side; see `fetch`. A thread that hangs does not keep the program."""
    if len(files) == 1:
        return [fetch(source, offer, files[0], kept_in=kept_in)]
    made: dict[int, RemoteHeader] = {}
    problems: list[Exception] = []
    left = iter(enumerate(files))
    taking = threading.Lock()

    def work() -> None:
        while not problems:
            with taking:
                index, file = next(left, (0, None))
            if file is None:
                return
            try:
                first_bytes = FIRST_BYTES if index == 0 else PART_BYTES
                made[index] = fetch(source, offer, file, kept_in=kept_in, first_bytes=first_bytes)
            except Exception as problem:  # raised by who waits
                problems.append(problem)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(N_AT_ONCE, len(files)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return [made[index] for index in range(len(files))]


def fetch(
    source: Source, offer: Offer, file: RemoteFile, *, kept_in: Path | None = None, first_bytes: int = FIRST_BYTES
) -> RemoteHeader:
    """Read a file's header where it is, or find it where it was kept.

    Args:
        kept_in: a folder for headers; nothing else may lie there.
        first_bytes: to ask for at first.

    Raises:
        MalformedFile: the file is no GGUF, or its header is larger than any can be.
        Unsupported: the source gives whole files only.
        NetworkError, NotFound: as the source raises them.
    """
    kept = None if kept_in is None else _kept_path(kept_in, offer, file)
    if kept is not None and (raw := _load(kept)) is not None:
        return RemoteHeader(file.path, raw, file.size_bytes)
    raw = b""
    wanted = first_bytes
    while True:
        got = source.read(offer, file, len(raw), wanted - len(raw))
        raw += got
        end = extent(raw, Path(file.path))
        if end is not None and end <= len(raw):
            break
        if len(raw) < wanted:
            raise MalformedFile(Path(file.path), "it ends inside its header", hint="another file of the repo may do")
        if wanted >= MAX_BYTES:
            raise MalformedFile(
                Path(file.path), f"its header is larger than {format_bytes(MAX_BYTES)}", hint="it is no model to run"
            )
        wanted = min(MAX_BYTES, 2 * wanted)
    raw = raw[:end]
    if kept is not None:
        _keep(kept, raw)
    return RemoteHeader(file.path, raw, file.size_bytes)


@contextmanager
def hollow(headers: Sequence[RemoteHeader]) -> Iterator[tuple[Header, ...]]:
    """Give the files of a model as files with their headers and a hole for the weights, checked.

    They are in memory where the system can; `path` of what is given is theirs, for as long as the context is open.

    Raises:
        MalformedFile, Unsupported: a header is not what it should be.
        StoreError: there is no place for temporary files.
    """
    with ExitStack() as stack:
        try:
            paths = _make(headers, stack)
        except OSError as error:
            raise StoreError(
                f"cannot write a header to be looked at: {error.strerror or error}",
                hint="TMPDIR names another folder for temporary files",
            ) from error
        yield tuple(_checked(path, each.name) for path, each in zip(paths, headers, strict=True))


def extent(raw: bytes, path: Path) -> int | None:
    """Return where a header ends, or None if that is beyond `raw`.

    Raises:
        MalformedFile: it is no GGUF.
    """
    if len(raw) < len(gguf.MAGIC) or raw[: len(gguf.MAGIC)] != gguf.MAGIC:
        raise MalformedFile(
            path, f"it begins with {raw[:4]!r} instead of {gguf.MAGIC!r}", hint="it is no model file, or not there"
        )
    try:
        return _walk(raw)
    except (struct.error, OverflowError):
        return None


def _walk(raw: bytes) -> int:
    """Return the end of a header; what cannot be right ends it, and is for the reader of headers to name."""
    n_tensors, n_keys = struct.unpack_from("<QQ", raw, 8)
    position: int = 24
    if max(n_tensors, n_keys) > gguf.MAX_ENTRIES:
        return position
    for _ in range(n_keys):
        position += 8 + _TEXT(raw, position)[0]
        [kind] = struct.unpack_from("<I", raw, position)
        position += 4
        count = 1
        if kind == _ARRAY:
            kind, count = struct.unpack_from("<IQ", raw, position)
            position += 12
        if kind == _STRING:
            if count > gguf.MAX_TEXTS:
                return position
            for _ in range(count):
                position += 8 + _TEXT(raw, position)[0]
        elif kind in _SCALAR_BYTES:
            position += _SCALAR_BYTES[kind] * count
        else:
            return position
    for _ in range(n_tensors):
        position += 8 + _TEXT(raw, position)[0]
        [n_dims] = struct.unpack_from("<I", raw, position)
        if n_dims > gguf.MAX_DIMS:
            return position
        position += 4 + 8 * n_dims + 4 + 8
    return position


def _make(headers: Sequence[RemoteHeader], stack: ExitStack) -> list[Path]:
    """Write hollow files; parts of a model get the names by which llama.cpp finds them."""
    if len(headers) == 1 and hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):
            descriptor = os.memfd_create("header.gguf")
            stack.callback(os.close, descriptor)
            _fill(descriptor, headers[0])
            return [Path(f"/proc/{os.getpid()}/fd/{descriptor}")]
    folder = stack.enter_context(temporary_folder())
    paths = []
    for index, each in enumerate(headers, 1):
        name = "header.gguf" if len(headers) == 1 else f"header-{index:05d}-of-{len(headers):05d}.gguf"
        with open(folder / name, "wb") as opened:
            _fill(opened.fileno(), each)
        paths.append(folder / name)
    return paths


def _fill(descriptor: int, header: RemoteHeader) -> None:
    view = memoryview(header.raw)
    while view:
        view = view[os.write(descriptor, view) :]
    os.ftruncate(descriptor, _UNKNOWN_LENGTH if header.file_bytes is None else header.file_bytes)


def _checked(path: Path, name: str) -> Header:
    try:
        return gguf.read_header(path)
    except MalformedFile as error:
        raise MalformedFile(Path(name), error.cause, hint=error.hint, kind=error.kind) from error
    except OwmError as error:
        error.args = (str(error).replace(path.name, Path(name).name, 1),)
        raise


def _kept_path(folder: Path, offer: Offer, file: RemoteFile) -> Path | None:
    """Return where a header is kept, None for a file of which nothing says that it is still the same."""
    if file.sha256:
        key = file.sha256.lower()
    elif offer.commit and offer.source not in ("url", "path"):
        key = " ".join((offer.source, offer.name, offer.commit, file.path, str(file.size_bytes)))
    else:
        return None
    return folder / hashlib.sha256(key.encode()).hexdigest()


def _load(path: Path) -> bytes | None:
    """Return a kept header, None if there is none that is whole."""
    try:
        raw = path.read_bytes()
        if extent(raw, path) == len(raw):
            os.utime(path)
            return raw
    except (OSError, MalformedFile):
        pass
    return None


def _keep(path: Path, raw: bytes) -> None:
    """Keep a header; those that were not asked for the longest make room. What cannot be kept is fetched again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(raw)
        kept = sorted(((entry.stat(), Path(entry)) for entry in os.scandir(path.parent)), key=lambda e: e[0].st_mtime)
        left = sum(status.st_size for status, _ in kept)
        for status, each in kept:
            if left <= MAX_KEPT_BYTES or each == path:
                break
            each.unlink(missing_ok=True)
            left -= status.st_size
    except OSError:
        return
