"""Numbers and tensor types of a GGUF header that llama.cpp aborts the process on, rather than refuse the file.

Some are found when the model is loaded, some when a context is made, some with the first token. Only what holds for all
models of an architecture is a rule here. ref: llama.cpp src/llama-model.cpp, load_hparams; src/models/*.cpp
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from owm.formats.gguf_entries import LongArray, TensorEntry, Value

MAX_LAYERS, MAX_EXPERTS = 512, 1024  # ref: llama.cpp src/llama-hparams.h
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
# Files of these types are no models to run.
_OTHER_TYPES = ("adapter", "imatrix", "mmproj")
# Texts that llama.cpp reads as C does, to the first zero byte, and acts upon.
_C_TEXTS = (
    "general.architecture", "general.type", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template",
)  # fmt: skip

# Architectures that rotate whole heads, that have keys and values of one size, that are nothing without experts, and
# whose positions have sections; none whose layers may differ in that (sliding windows). ref: the asserts of
# src/models/*.cpp; llama_model_rope_type
_WHOLE_ROTATION = frozenset(
    "apertus arcee arctic baichuan chameleon codeshell cogvlm dbrx deci deepseek dots1 dream ernie4_5 ernie4_5-moe"
    " exaone falcon granite grok grovemoe hunyuan-moe hy_v3 internlm2 jais2 llada llada-moe llama maincoder mistral3"
    " olmo olmoe orion paddleocr pangu-embedded plamo qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe rnd1"
    " seed_oss smollm3 starcoder2 xverse".split()
)
_EVEN_HEADS = _WHOLE_ROTATION | frozenset(
    "bailingmoe2 bert bitnet bloom chatglm command-r glm4 glm4moe gpt2 gptneox granitehybrid jais minimax-m2 mpt"
    " nemotron neo-bert openelm phi2 qwen qwen3next refact stablelm starcoder".split()
)
_ONLY_EXPERTS = frozenset(("bailingmoe2", "grovemoe", "llada-moe"))
_MAYBE_EXPERTS = ("hunyuan-dense", "hunyuan_vl")  # one expert is none
_SECTIONS = frozenset(("qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "paddleocr"))

# What is checked, and so must not lie behind more values than are read at once.
_CHECKED = (
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length", "block_count",
    "context_length", "embedding_length", "expert_count", "expert_group_count", "expert_group_used_count",
    "expert_used_count", "nextn_predict_layers", "rope.dimension_count", "rope.dimension_sections",
    "rope.scaling.type",
)  # fmt: skip
_CHECKED_OF_ALL = ("general.type", "tokenizer.ggml.model")
# Types of intermediate results, and of numbers: there is no function to multiply with them.
_NO_FACTORS = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")
_MATRIX = re.compile(r"(token_embd|output|blk\.\d+\.(?!ffn_gate_tid)\w+)\.weight")
_ROTATION_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def is_read_by_c(key: str) -> bool:
    """Tell whether llama.cpp acts upon a text, and so reads something else than Python if it holds a zero byte."""
    return key.startswith(_C_TEXTS)


def problems(metadata: Mapping[str, Value], tensors: Sequence[TensorEntry]) -> Iterator[str]:
    """Name what llama.cpp would abort on, the most telling first."""
    own = _Own(metadata)
    values = {key: own.value(key) for key in _CHECKED} | {key: metadata.get(key) for key in _CHECKED_OF_ALL}
    for key, value in values.items():
        if isinstance(value, LongArray):
            yield f"its {key} lies where it cannot be checked, behind too many other values"
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, int) and not -(1 << 31) <= item < 1 << 32:  # llama.cpp would take a part of it
                yield f"its {key} is {item}, which is more than 32 bits hold"
    yield from _of_layers(own)
    yield from _of_experts(own)
    yield from _of_heads(own)
    yield from _of_positions(own)
    for key in ("context_length", "embedding_length"):
        if own.value(key) == 0:
            yield f"its {key.replace('_', ' ')} is 0"
    for norm in ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon"):
        epsilon = own.value(f"attention.{norm}")
        if isinstance(epsilon, float) and not 0 <= epsilon < math.inf:
            yield f"its {norm} is {epsilon}"
    if metadata.get("general.type") not in _OTHER_TYPES:
        yield from _of_tensors(tensors)


class _Own:
    """The values of a file's own architecture, by their names without it."""

    def __init__(self, metadata: Mapping[str, Value]) -> None:
        self._metadata = metadata
        self.architecture = metadata.get("general.architecture", "unknown")  # as the header is read by

    def value(self, key: str) -> Value | None:
        return self._metadata.get(f"{self.architecture}.{key}")

    def numbers(self, key: str, default: int) -> list[int]:
        """Return a value for each layer, or the one for all, as the unsigned 32 bits that llama.cpp takes them for."""
        found = self.value(key)
        items = found if isinstance(found, tuple) and found else (found,)
        return [item & 0xFFFFFFFF for item in items if isinstance(item, int)] or [default]

    def largest(self, key: str, default: int) -> int:
        return max(self.numbers(key, default))


def _of_layers(own: _Own) -> Iterator[str]:
    n_layers, n_predicting = own.largest("block_count", 1), own.largest("nextn_predict_layers", 0)
    if not 1 <= n_layers <= MAX_LAYERS or n_predicting > n_layers:
        yield f"it has {n_layers} layers, {n_predicting} of them for prediction; at most {MAX_LAYERS} can be"
    for part in ("posnet", "convnext"):
        if own.largest(f"{part}.block_count", 0) > n_layers:
            yield f"it has {n_layers} layers, {own.largest(f'{part}.block_count', 0)} of them for its {part}"


def _of_experts(own: _Own) -> Iterator[str]:
    n_experts, n_used = own.largest("expert_count", 0), own.largest("expert_used_count", 0)
    if own.architecture in _MAYBE_EXPERTS and n_experts <= 1:
        return
    n_groups, n_groups_used = own.largest("expert_group_count", 0), own.largest("expert_group_used_count", 0)
    if n_experts > MAX_EXPERTS or not (1 if n_experts else 0) <= n_used <= n_experts:
        yield f"it uses {n_used} of {n_experts} experts"
    if n_groups and (
        n_groups >= n_experts or (n_groups > 1 and (n_experts % n_groups or not 0 < n_groups_used < n_groups))
    ):
        yield f"it uses {n_groups_used} of {n_groups} groups of {n_experts} experts"
    if not n_experts and own.architecture in _ONLY_EXPERTS:
        yield f"it has no experts, the architecture {own.architecture} needs some"


def _of_heads(own: _Own) -> Iterator[str]:
    heads, shared = own.numbers("attention.head_count", 0), own.numbers("attention.head_count_kv", 0)
    n_layers = max(len(heads), len(shared))
    for n_heads, n_shared in zip(_spread(heads, n_layers), _spread(shared, n_layers), strict=False):
        if n_shared and n_heads % n_shared:
            yield f"its {n_heads} heads do not divide among {n_shared} of keys and values"
    keys, values = _head_sizes(own)
    if keys != values and own.architecture in _EVEN_HEADS:
        sizes = f"keys of {keys} and values of {values}"
        yield f"its heads have {sizes}, the architecture {own.architecture} the same of both"


def _of_positions(own: _Own) -> Iterator[str]:
    scaling = own.value("rope.scaling.type")
    if isinstance(scaling, str) and scaling not in _ROPE_SCALINGS:
        yield f"its rope scaling {scaling[:80]!a} is not known"
    for key, is_right in (("rope.freq_base", _is_positive), ("rope.scaling.factor", _is_no_negative)):
        value = own.value(key)
        if isinstance(value, float) and not is_right(value):
            yield f"its {key} is {value}"
    size, [rotated, *_] = _head_sizes(own)[0], own.numbers("rope.dimension_count", 0)
    if rotated and size:
        if rotated % 2:
            yield f"it rotates {rotated} numbers of a head, which are no pairs"
        if rotated > size:
            yield f"it rotates {rotated} of {size} numbers of a head"
        if rotated != size and own.architecture in _WHOLE_ROTATION:
            yield f"it rotates {rotated} of {size} numbers of a head, the architecture {own.architecture} all of them"
    sections = own.value("rope.dimension_sections")
    if own.architecture in _SECTIONS and isinstance(sections, tuple) and not any(_positive(sections[:3])):
        yield "its sections of positions are all empty"


def _of_tensors(tensors: Sequence[TensorEntry]) -> Iterator[str]:
    for tensor in tensors:
        name, kind = tensor.name, tensor.type_name
        if kind == "F32":
            continue
        shown = ascii(name)
        if kind in _NO_FACTORS and _MATRIX.fullmatch(name):
            yield f"its matrix {shown} is of type {kind}, with which nothing can be multiplied"
        is_row = tensor.n_elements == max(tensor.shape, default=1)
        if name.endswith("_norm.weight") or (is_row and name.endswith((".bias", ".scale"))):
            yield f"its tensor {shown} is of type {kind}, a norm, a bias or a scale has to be F32"
        if name.endswith(_ROTATION_FACTORS):
            yield f"its tensor {shown} is of type {kind}, factors of positions have to be F32"


def _head_sizes(own: _Own) -> tuple[int, int]:
    """Return the sizes of a head's key and value, 0 where that is not said."""
    n_heads, n_embd = own.numbers("attention.head_count", 0)[0], own.largest("embedding_length", 0)
    usual = n_embd // n_heads if n_heads else 0
    if not usual:
        return 0, 0
    return own.largest("attention.key_length", usual), own.largest("attention.value_length", usual)


def _spread(numbers: list[int], n_layers: int) -> list[int]:
    return numbers * n_layers if len(numbers) == 1 else numbers


def _positive(values: Sequence[object]) -> Iterator[bool]:
    return (isinstance(value, int) and value > 0 for value in values)


def _is_positive(value: float) -> bool:
    return 0 < value < math.inf


def _is_no_negative(value: float) -> bool:
    return 0 <= value < math.inf
