"""Rows of a table of fits: what one quant of a model needs and would do here, from its headers or another quant's."""

import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from owm.engine.tuning import Tuning
from owm.errors import OwmError, Unsupported
from owm.fit import fit, memory
from owm.fit.fit import Fit, Room
from owm.fit.memory import Asked, Need
from owm.fit.speed import Speed
from owm.formats.gguf import FILE_TYPES, Header
from owm.library.fit_speeds import Speeds
from owm.native.guard import Child, Mixture
from owm.pipeline.hollow import hollow_file
from owm.pipeline.model_file import open_model_file
from owm.pipeline.plan import make_plan
from owm.quality import certificate

_FILE_TYPE_IDS = {name: number for number, name in FILE_TYPES.items()}
NO_TIME = "there was no time to find out how much memory each quant takes"
BUSY = "this machine did much else while it was measured: the speeds with `~` are uncertain"
_PREFIX = re.compile(r"^(?:UD-|i1-)", re.IGNORECASE)  # of how the types were chosen
_PLACINGS = 4  # tries to find how many layers fit on a GPU


@dataclass(slots=True)
class Rows:
    """Makes rows for one machine and one kind of use.

    Attributes:
        n_ctx: tokens of the context, None for what a model should have room for.
        n_gpu_layers: layers on the GPU, -1 for all, None for as many as fit.
        until: the moment (of `time.monotonic`) after which nothing is begun any more.
        notes: what could not be found out, in sentences.
    """

    child: Child
    room: Room
    n_ctx: int | None
    tuning: Tuning
    n_gpu_layers: int | None
    speeds: Speeds
    until: float = math.inf
    notes: list[str] = field(default_factory=list)
    _headers: dict[str, tuple[Sequence[Header], float]] = field(default_factory=dict)  # by label, for speeds
    _measured: dict[tuple[str, int], Need] = field(default_factory=dict)

    def of_headers(
        self, headers: Sequence[Header], path: Path, label: str, size_bytes: int | None, *, is_stored: bool = False
    ) -> Fit:
        """Return the row of a model whose headers are at hand."""
        n_ctx = self.n_ctx or fit.default_context(headers[0])
        own = headers[0].integer("context_length")
        if own and n_ctx > own:
            self.note(f"{label} was made for contexts of at most {own:,} tokens")
        made = certificate.of_header(headers[0])
        row = Fit(
            label,
            size_bytes,
            fit.bits_per_weight(headers, size_bytes),
            None,
            None,
            n_ctx,
            quality=made.kld_mean.value if made else None,
            is_stored=is_stored,
        )
        self._headers[label] = headers, 1.0
        try:
            return self._judged(row, headers, path, 1.0)
        except OwmError as problem:
            self.note(str(problem))
            return replace(row, verdict=self._by_size(size_bytes))

    def of_others(
        self, headers: Sequence[Header], path: Path, others: Sequence[tuple[str, int | None]]
    ) -> Iterator[Fit]:
        """Yield the rows of quants (label, size) from the headers of another, with the types llama.cpp would give them.

        Raises:
            MalformedFile, StoreError: the headers contradict each other.
        """
        with _lean(headers) as lean:
            for label, size_bytes in others:
                yield self._of_other(headers, path, lean, label, size_bytes)

    def _of_other(self, headers: Sequence[Header], path: Path, lean: Path, label: str, size_bytes: int | None) -> Fit:
        n_ctx = self.n_ctx or fit.default_context(headers[0])
        row = Fit(label, size_bytes, fit.bits_per_weight(headers, size_bytes), None, None, n_ctx, is_exact=False)
        try:
            planned = self._planned(headers, lean, label)
            reckoned = sum(tensor.n_bytes for header in planned for tensor in header.tensors)
            data_bytes = None if size_bytes is None else size_bytes - sum(each.data_offset for each in planned)
            share = data_bytes / reckoned if data_bytes and data_bytes > 0 and reckoned else 1.0
            if size_bytes is None:
                row = replace(row, bpw=fit.bits_per_weight(planned, reckoned))
            self._headers[label] = planned, share
            return self._judged(row, planned, path, share)
        except OwmError as problem:
            self.note(str(problem))
            return replace(row, verdict=self._by_size(size_bytes))

    def of_size(self, label: str, size_bytes: int | None) -> Fit:
        """Return the row of a quant of which nothing but the size is known."""
        n_ctx = self.n_ctx or fit.DEFAULT_CONTEXT
        return Fit(label, size_bytes, None, None, self._by_size(size_bytes), n_ctx, is_exact=False)

    def note(self, sentence: str) -> None:
        """Say once what could not be found out."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def forget(self) -> None:
        """Forget what was measured of files that are no more."""
        self._measured.clear()

    def _check_time(self) -> None:
        if time.monotonic() >= self.until:
            raise Unsupported(NO_TIME)

    def _by_size(self, size_bytes: int | None) -> fit.Verdict | None:
        """Judge by the size alone: what is larger than all memory does not fit, of the rest nothing is known."""
        most = self.room.usable_bytes + self.room.usable_gpu_bytes
        return "no" if size_bytes is not None and size_bytes > most else None

    def _judged(self, row: Fit, headers: Sequence[Header], path: Path, share: float) -> Fit:
        def need(n_ctx: int) -> Need:
            return self._need(headers, path, n_ctx, share)

        found = need(row.n_ctx)
        room = self.room if self.n_gpu_layers != 0 else replace(self.room, gpu_bytes=0)
        verdict, n_ctx = fit.judge(found, room, smaller=need)
        return replace(row, need=found, verdict=verdict, n_ctx_fitting=n_ctx)

    def _need(self, headers: Sequence[Header], path: Path, n_ctx: int, share: float) -> Need:
        """Return the need with as many layers on the GPU as were asked for, or as fit."""
        if self.n_gpu_layers is not None or not self.room.usable_gpu_bytes:
            return self._with(headers, path, n_ctx, self.n_gpu_layers or 0, share)
        n_all = (headers[0].integer("block_count") or 0) + 1
        n_layers = n_all
        for _ in range(_PLACINGS):
            found = self._with(headers, path, n_ctx, n_layers, share)
            on_gpu = found.gpu.allocated_bytes
            if on_gpu <= self.room.usable_gpu_bytes or not n_layers:
                return found
            n_layers = min(n_layers - 1, n_layers * self.room.usable_gpu_bytes // on_gpu)
        return self._with(headers, path, n_ctx, 0, share)

    def _with(self, headers: Sequence[Header], path: Path, n_ctx: int, n_gpu_layers: int, share: float) -> Need:
        """Return the need with so many layers on the GPU; a context is the same for all quants of a model."""
        key = (f"{path} {n_ctx}", n_gpu_layers)
        self._check_time()
        if (known := self._measured.get(key)) is None:
            asked = Asked(n_ctx, self.tuning, n_gpu_layers)
            known = self._measured[key] = memory.measure(headers, asked, self.child, path=path)
        return memory.scaled(memory.with_weights(known, headers, self.child), share)

    def _planned(self, headers: Sequence[Header], lean: Path, label: str) -> tuple[Header, ...]:
        """Return the headers with the types that llama.cpp's own recipe gives."""
        name = _nearest_type(label)
        if name is None:
            return tuple(headers)
        self._check_time()
        recipe = self.child.recipe(lean, Mixture(_FILE_TYPE_IDS[name], has_imatrix=True))
        if recipe.error is not None:
            return tuple(headers)
        return memory.retyped(headers, {each.name: each.type_name for each in recipe.tensors})

    def with_speed(self, row: Fit) -> Fit:
        """Return a row with its speed, which may have to be measured first: what is asked after all memory is known."""
        if row.need is None or row.label not in self._headers:
            return row
        headers, share = self._headers[row.label]
        speed = self._speed(headers, share)
        if speed is not None and speed.is_uncertain:
            self.note(BUSY)
        return replace(row, speed=speed)

    def _speed(self, headers: Sequence[Header], size_share: float) -> Speed | None:
        """Predict the speed on the CPU, as far as it was measured."""
        if self.room.usable_gpu_bytes and self.n_gpu_layers != 0:
            return None
        try:
            return self.speeds.of(headers, size_share=size_share)
        except OwmError as problem:
            self.note(f"how fast it would be is not known: {problem}")
            return None


@contextmanager
def _lean(headers: Sequence[Header]) -> Iterator[Path]:
    """Give a model as one file with a header that has no vocabulary, which a recipe does not depend on."""
    whole = open_model_file([header.path for header in headers])
    metadata = {key: value for key, value in whole.metadata.items() if not key.startswith("tokenizer.")}
    with hollow_file(make_plan(metadata, whole.tensors)) as path:
        yield path


def _nearest_type(label: str) -> str | None:
    """Return the quantization type that a label names, or the one that it is a variation of."""
    name = _PREFIX.sub("", label).replace("-", "_").upper()
    while name and name not in _FILE_TYPE_IDS:
        shorter = name.rpartition("_")[0]
        # `Q4_K_XL` is near `Q4_K_M`, `Q4_0_4_4` near `Q4_0`.
        name = f"{shorter}_M" if f"{shorter}_M" in _FILE_TYPE_IDS else shorter
    return name or None
