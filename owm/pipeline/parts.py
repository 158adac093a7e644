"""A model file in several parts: which tensor goes to which, and copies that are compared with their source."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from owm.errors import Damaged, StoreError, UsageError
from owm.events import Advanced, Finished, Sink, Started, ignore
from owm.formats.gguf_writer import I32, U16, Value, encode_header
from owm.pipeline import writer
from owm.pipeline.model_file import open_model_file
from owm.pipeline.plan import Plan, PlannedTensor, lay_out
from owm.pipeline.writer import Written, incomplete_path
from owm.store.digest import sha256_of

MAX_PARTS = 1 << 16  # they are counted in 16 bits
_ALIGNMENT = "general.alignment"


def file_names(name: str, count: int) -> list[str]:
    """Name the files of a model: `model.gguf`, or `model-00001-of-00003.gguf` and so on."""
    if count == 1:
        return [name]
    stem = name.removesuffix(".gguf")
    return [f"{stem}-{index:05}-of-{count:05}.gguf" for index in range(1, count + 1)]


def plan_parts(whole: Plan, *, max_bytes: int | None = None, max_tensors: int | None = None) -> Plan:
    """Lay a model out in parts: files of at most `max_bytes`, or of at most `max_tensors` tensors each.

    The first part has all metadata, the others only say which they are (and how they are aligned, if unusually); keys
    come in llama.cpp's order. ref: llama.cpp tools/gguf-split

    Raises:
        UsageError: it would be one file, a part cannot be that small, or there would be too many.
    """
    assert (max_bytes is None) != (max_tensors is None)
    n_tensors = len(whole.tensors)
    if max_tensors is not None:
        groups = [whole.tensors[begin : begin + max_tensors] for begin in range(0, n_tensors, max_tensors)]
    else:
        groups = list(_groups(whole, max_bytes or 0))
    if len(groups) < 2:
        limit = f"{max_tensors} tensors" if max_tensors is not None else f"{max_bytes} bytes"
        raise UsageError(
            f"nothing to split: it has {n_tensors} tensors in {whole.n_bytes} bytes, and a part may have {limit}"
        )
    if len(groups) >= MAX_PARTS:
        raise UsageError(f"it would be {len(groups)} parts, at most {MAX_PARTS - 1} can be")
    files = [
        lay_out(_part_metadata(whole.metadata, number, len(groups), n_tensors), group)
        for number, group in enumerate(groups)
    ]
    return replace(whole, files=tuple(files))


def copy(
    plan: Plan,
    paths: Sequence[Path],
    *,
    stage: str,
    digest: bool = True,
    n_threads: int | None = None,
    sink: Sink = ignore,
) -> list[Written]:
    """Write a model whose tensors stay as they are; nothing takes its name before it was read back and compared.

    A file that is there already as planned, from a try that was killed, is compared and kept.

    Raises:
        UsageError: a file of that name is there already, with something else in it.
        Damaged: what was written is not what was read.
        NotEnoughDisk, StoreError, MalformedFile: as the writer does.
    """
    placed = list(zip(paths, plan.files, strict=True))
    kept = {path for path, planned in placed if _is_there(path, planned.header, planned.n_bytes)}
    todo = [(path, planned) for path, planned in placed if path not in kept]

    def verify(*, wait: bool) -> None:
        if wait:
            compare(plan, [path if path in kept else incomplete_path(path) for path in paths], sink=sink)

    written: list[Written] = []
    if todo:
        files = tuple(planned for _, planned in todo)
        missing = replace(plan, files=files, tensors=tuple(tensor for file in files for tensor in file.tensors))
        written = writer.write(
            missing,
            [path for path, _ in todo],
            n_threads=n_threads,
            verify=verify,
            digest=digest,
            stage=stage,
            sink=sink,
        )
    else:
        verify(wait=True)
    made = {file.path: file for file in written}
    return [made.get(path) or _kept(path, digest, sink) for path in paths]


def compare(plan: Plan, paths: Sequence[Path], *, sink: Sink = ignore) -> None:
    """Read files back and compare them with the sources of the plan that they were made by: metadata and every byte.

    Raises:
        Damaged: something differs.
        MalformedFile: a file cannot be read back.
    """
    began = time.perf_counter()
    made = open_model_file(paths)
    if _encoded(made.metadata) != _encoded(plan.metadata):
        raise _differs("its metadata", paths)
    sink(Started("check", plan.n_bytes, "bytes"))
    done = 0
    if len(made.tensors) != len(plan.tensors):
        raise _differs("the number of its tensors", paths)
    for source, copied in zip(plan.tensors, made.tensors, strict=True):
        if (source.name, source.shape, source.type_name) != (copied.name, copied.shape, copied.type_name):
            raise _differs(source.name, paths)
        step = max(1, writer.BLOCK_BYTES // source.row_bytes)
        for begin in range(0, source.n_rows, step):
            end = min(begin + step, source.n_rows)
            wanted, found = source.rows.read(begin, end), copied.rows.read(begin, end)
            if wanted.data.cast("B") != found.data.cast("B"):
                raise _differs(source.name, paths)
            done += wanted.nbytes
            sink(Advanced("check", done, source.name))
    sink(Finished("check", time.perf_counter() - began))


def _differs(what: str, paths: Sequence[Path]) -> Damaged:
    name = paths[0].name.removesuffix(".incomplete")
    return Damaged(
        f"{what} in {name} is not what was read",
        hint="the source was changed meanwhile, or a disk or the memory is failing",
    )


def _encoded(metadata: Mapping[str, Value]) -> bytes:
    return encode_header(metadata, ())


def _part_metadata(metadata: Mapping[str, Value], number: int, count: int, n_tensors: int) -> dict[str, Value]:
    own = {key: value for key, value in metadata.items() if number == 0 or key == _ALIGNMENT}
    return own | {"split.no": U16(number), "split.tensors.count": I32(n_tensors), "split.count": U16(count)}


def _groups(whole: Plan, max_bytes: int) -> Iterator[tuple[PlannedTensor, ...]]:
    """Fill parts up to `max_bytes`, header included."""
    n_tensors, alignment = len(whole.tensors), whole.files[0].alignment
    # Of a part without tensors; all but the first have the same.
    heads = [len(encode_header(_part_metadata(whole.metadata, i, 0, n_tensors), (), alignment=1)) for i in (0, 1)]

    def size(head: int, entries: int, n_bytes: int) -> int:
        return head + entries + -(head + entries) % alignment + n_bytes

    group: list[PlannedTensor] = []
    head, entries, n_bytes = heads[0], 0, 0
    for tensor in whole.tensors:
        # Its name, its axes, its type and its place.
        entry = len(tensor.name.encode()) + 8 * len(tensor.shape) + 24
        padded = tensor.n_bytes + -tensor.n_bytes % alignment
        if group and size(head, entries + entry, n_bytes + padded) > max_bytes:
            yield tuple(group)
            group, head, entries, n_bytes = [], heads[1], 0, 0
        group.append(tensor)
        entries, n_bytes = entries + entry, n_bytes + padded
        if size(head, entries, n_bytes) > max_bytes:
            raise UsageError(
                f"the part with {tensor.name} needs {size(head, entries, n_bytes)} bytes, {max_bytes} were asked for",
                hint="the largest tensor has to fit in a part, and all metadata in the first",
            )
    yield tuple(group)


def _is_there(path: Path, header: bytes, n_bytes: int) -> bool:
    """Tell whether a file lies there already as planned, as far as its header tells.

    Raises:
        UsageError: something else lies there.
    """
    if not path.exists():
        return False
    if path.is_file():
        try:
            with open(path, "rb") as file:
                if file.read(len(header)) == header and file.seek(0, 2) == n_bytes:
                    return True
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
    raise UsageError(f"{path} is there already", hint="remove it, or write elsewhere (`-o`)")


def _kept(path: Path, digest: bool, sink: Sink) -> Written:
    return Written(path, path.stat().st_size, sha256_of(path, sink=sink) if digest else "")
