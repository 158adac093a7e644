"""LoRA adapters (`--lora FILE[=scale]`): which file, how much it counts, and whether it belongs to a model.

A file is checked against the model's headers before llama.cpp sees it: what does not fit would abort the process, or
change nothing without a word. ref: llama.cpp src/llama-adapter.cpp; src/llama-graph.cpp, build_lora_mm
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from owm.errors import MalformedFile, NotFound, Unsupported, UsageError
from owm.formats import gguf
from owm.formats.gguf import Header, TensorEntry

MAX_SCALE = 3.4028234e38  # of a float32
_ALPHA, _INVOCATION = "adapter.lora.alpha", "adapter.alora.invocation_tokens"
_FLOAT32 = (6).to_bytes(4, "little")  # as a GGUF metadata type
_SCALE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)|", re.IGNORECASE)
# Tensor types that are no weights, or that ggml multiplies nothing with.
_NO_FACTOR = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """An adapter file and the factor by which its change of the model counts."""

    path: Path
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a factor that is no number.

        Raises:
            UsageError: it is not finite.
        """
        if not abs(self.scale) <= MAX_SCALE:
            raise UsageError(f"the scale of an adapter must be a finite number: {self.scale}")


def read_adapter(text: str) -> AdapterChoice:
    """Read `FILE` or `FILE=scale`; only a number after the last `=` is a scale, any other `=` is part of the name.

    Raises:
        UsageError: there is no file in it, or the scale is not finite.
    """
    name, equals, number = text.rpartition("=")
    if not equals or not _SCALE.fullmatch(number):
        name, number = text, "1"
    if not name:
        raise UsageError(f"--lora needs a file: {text or 'nothing'}", hint="`--lora FILE` or `--lora FILE=0.5`")
    if not number:
        raise UsageError(f"--lora needs a number after `=`: {text}", hint="`--lora FILE` or `--lora FILE=0.5`")
    return AdapterChoice(Path(name).expanduser(), float(number))


def check_adapter(path: Path, model: Sequence[Header]) -> tuple[str, ...]:
    """Check that an adapter can be used with the model of these headers (one a shard).

    Returns:
        Sentences about what of it llama.cpp leaves out.

    Raises:
        NotFound: there is no such file.
        UsageError: it belongs to another model.
        Unsupported: it is no adapter, or of a kind that llama.cpp or owm does not apply.
        MalformedFile: it contradicts itself.
    """
    adapter = _read(path)
    kind = adapter.text("general.type")
    if kind != "adapter":
        raise Unsupported(f"{path.name} is no adapter, it is a file of type {kind or 'model'}")
    if adapter.text("adapter.type") != "lora":
        raise Unsupported(f"{path.name} is an adapter of type {adapter.text('adapter.type')}, llama.cpp has only lora")
    if _INVOCATION in adapter.metadata:
        raise Unsupported(
            f"{path.name} is an activated LoRA (aLoRA): it counts from certain tokens on, and owm adapts whole texts"
        )
    if adapter.architecture != model[0].architecture:
        raise UsageError(
            f"the adapter {path.name} was made for a {adapter.architecture} model,"
            f" {model[0].path.name} is a {model[0].architecture} model"
        )
    _check_alpha(adapter)
    pairs, n_norms = _pairs(adapter)
    tensors = {tensor.name: tensor for header in model for tensor in header.tensors}
    for name, (a, b) in pairs.items():
        _check_pair(adapter, model[0], tensors, name, a, b)
    if n_norms:
        return (f"the adapter {path.name} replaces {n_norms} norms, which llama.cpp leaves as they are in the model",)
    return ()


def _read(path: Path) -> Header:
    if not path.exists():
        hint = "a scale is a number after `=`: `--lora FILE=0.5`" if "=" in path.name else None
        raise NotFound(f"no such adapter: {path}", hint=hint)
    if path.is_dir() or path.suffix in (".safetensors", ".bin"):
        folder = path if path.is_dir() else path.parent
        raise Unsupported(
            f"{path} is no adapter that llama.cpp can load", hint=f"`owm convert --lora {folder}` makes one of PEFT's"
        )
    return gguf.read_header(path)


def _check_alpha(adapter: Header) -> None:
    alpha = adapter.metadata.get(_ALPHA)
    if alpha is None:
        return
    if adapter.raw_values()[_ALPHA][:4] != _FLOAT32:
        raise MalformedFile(adapter.path, f"its {_ALPHA} is no 32-bit float")
    if not isinstance(alpha, float) or not 0 <= alpha < math.inf:
        raise MalformedFile(adapter.path, f"its {_ALPHA} is {alpha}")


def _pairs(adapter: Header) -> tuple[dict[str, tuple[TensorEntry, TensorEntry]], int]:
    """Return the two factors of each matrix under its name, and the number of norms that come whole."""
    factors: dict[str, dict[str, TensorEntry]] = {}
    n_norms = 0
    for tensor in adapter.tensors:
        name, _, suffix = tensor.name.rpartition(".")
        if suffix in ("lora_a", "lora_b") and name and ".lora_" not in name:
            factors.setdefault(name, {})[suffix] = tensor
        elif tensor.name.endswith("_norm.weight"):
            n_norms += 1
        else:
            raise MalformedFile(adapter.path, f"its tensor {tensor.name} is no factor of a LoRA")
    for name, found in factors.items():
        if len(found) != 2:
            raise MalformedFile(adapter.path, f"it has only one of the two factors of {name}")
    if not factors:
        raise MalformedFile(adapter.path, "it adapts nothing")
    return {name: (found["lora_a"], found["lora_b"]) for name, found in factors.items()}, n_norms


def _check_pair(
    adapter: Header, model: Header, tensors: Mapping[str, TensorEntry], name: str, a: TensorEntry, b: TensorEntry
) -> None:
    """Check that B·A has the shape of the model's matrix; for embeddings, which are looked up, both are swapped."""
    for factor in (a, b):
        if factor.type_name in _NO_FACTOR:
            raise Unsupported(f"{adapter.path.name} has a tensor that cannot be multiplied with: {factor.name}")
    if name not in tensors:
        raise UsageError(f"the adapter {adapter.path.name} adapts {name}, which {model.path.name} does not have")
    shape = tensors[name].shape
    rank = b.shape[0] if b.shape else 1
    is_turned = name.endswith("token_embd.weight")
    n_in, n_out, *experts = shape if len(shape) > 1 else (0, 0)
    wanted = ((rank, n_out), (rank, n_in)) if is_turned else ((n_in, rank, *experts), (rank, n_out, *experts))
    if (_trimmed(a.shape), _trimmed(b.shape)) != tuple(map(_trimmed, wanted)):
        raise UsageError(
            f"the adapter {adapter.path.name} was made for another model: its factors of {name}"
            f" are {_shown(a.shape)} and {_shown(b.shape)}, {model.path.name} has {_shown(shape)} there"
        )
    # llama.cpp would multiply the output with factors that are made to be looked up, and abort.
    is_causal = model.metadata.get(f"{model.architecture}.attention.causal") is not False
    if is_turned and is_causal and "output.weight" not in tensors:
        raise Unsupported(
            f"{adapter.path.name} adapts {name}, and {model.path.name} has one matrix for input and output,"
            " of which llama.cpp cannot adapt one"
        )


def _trimmed(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without what a header may leave out."""
    n = len(shape)
    while n > 1 and shape[n - 1] == 1:
        n -= 1
    return tuple(shape[:n])


def _shown(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
