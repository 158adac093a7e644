"""llama.cpp's own recipes: which type it would give each tensor of a model, from the header alone.

A dry run of its quantizer tells in its log. ref: llama.cpp src/llama-quant.cpp, llama_model_quantize_impl
"""

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from owm.native.binding import llama as c

_DEBUG, _CONTINUATION = 1, 5  # levels of the log
_TENSOR = re.compile(r"\[ *\d+/ *\d+\] (?P<name>.*?) *- \[[ \d,]*\], type = *(?P<was>\S+), size = (?P<rest>.*)")
_NEW_TYPE = re.compile(r".* -> .*\((?P<type>\S+)\)")
_FALLBACK = re.compile(r"warning: (?P<name>.*?) *- ncols .*required for type *(?P<wanted>\S+)\).*-> falling back to.*")
_OVERRIDE = re.compile(r"\S+: (?P<name>.*?) *- applying manual override: (?P<wanted>\S+) -> \S+")
_FAILED = re.compile(r"failed to quantize: (?P<why>.*)")  # maybe behind a warning that has no end of its own


def dry_run(path: Path, mixture: Any) -> dict[str, object]:
    """Return `error`, `tensors` (the fields of `guard.Chosen`) and `needs_imatrix`; the process may abort.

    Args:
        mixture: has the attributes of `guard.Mixture`.
    """
    params = c.llama_model_quantize_default_params()
    params.dry_run = True
    params.allow_requantize = True
    params.ftype = mixture.file_type
    params.pure = mixture.is_pure
    if mixture.output_type is not None:
        params.output_tensor_type = mixture.output_type
    if mixture.embedding_type is not None:
        params.token_embedding_type = mixture.embedding_type
    overrides = [(pattern.encode(), type_id) for pattern, type_id in mixture.overrides]
    params.tt_overrides = (c.llama_model_tensor_override * (len(overrides) + 1))(*overrides)
    params.prune_layers = (ctypes.c_int32 * (len(mixture.pruned) + 1))(*sorted(mixture.pruned), -1)
    value = ctypes.c_float(1.0)  # that there is an imatrix is all a recipe depends on
    entries = (c.llama_model_imatrix_data * 2)()
    entries[0].name, entries[0].data, entries[0].size = b"any", ctypes.pointer(value), 1
    if mixture.has_imatrix:
        params.imatrix = ctypes.cast(entries, ctypes.POINTER(c.llama_model_imatrix_data))
    with _log() as parts:
        c.llama_backend_init()
        failed = c.llama_model_quantize(os.fsencode(path), b"", ctypes.byref(params))
    return _read_log("".join(parts), failed=bool(failed))


@contextmanager
def _log() -> Iterator[list[str]]:
    """Collect what llama.cpp says, all but the finest details."""
    parts: list[str] = []
    is_detail = False

    @c.llama_log_callback  # type: ignore[untyped-decorator]
    def take(level: int, text: bytes | None, _: object) -> None:
        nonlocal is_detail
        is_detail = is_detail if level == _CONTINUATION else level <= _DEBUG
        if not is_detail:
            parts.append((text or b"").decode("utf-8", "replace"))

    before, data = c.llama_log_callback(), ctypes.c_void_p()
    c.llama_log_get(ctypes.byref(before), ctypes.byref(data))
    c.llama_log_set(take, None)
    try:
        yield parts
    finally:
        c.llama_log_set(before, data)


def _read_log(log: str, *, failed: bool) -> dict[str, object]:
    why = "no reason given"
    wanted: dict[str, tuple[str, bool]] = {}
    tensors: list[tuple[str, str, str | None, bool]] = []
    for line in log.splitlines():
        if found := _FAILED.search(line):
            why = found["why"]
        elif found := _OVERRIDE.fullmatch(line):
            wanted[found["name"]] = (found["wanted"].upper(), True)
        elif found := _FALLBACK.fullmatch(line):
            is_override = wanted.get(found["name"], ("", False))[1]
            wanted[found["name"]] = (found["wanted"].upper(), is_override)
        elif found := _TENSOR.fullmatch(line):
            new = _NEW_TYPE.fullmatch(found["rest"])
            type_name = (new["type"] if new else found["was"]).upper()
            tensors.append((found["name"], type_name, *wanted.get(found["name"], (None, False))))
    needs_imatrix = "will require an imatrix" in log
    return {"error": why if failed else None, "tensors": tensors, "needs_imatrix": needs_imatrix}
