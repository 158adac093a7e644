"""What a model has to compute for a token, from its headers alone: products with weights, attention, states, nodes."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from owm.formats.gguf import Header, TensorEntry

_BLOCK = re.compile(r"(?:dec\.)?blk\.(\d+)\.")
_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"
# Of these a token takes a row, or nothing is multiplied with them as a matrix, or another run reads them.
_NO_PRODUCT = re.compile(
    r"(?:position_embd|token_types|per_layer_token_embd|rope_\w+)\.weight|enc\..*|.*\.bias|.*\.scale"
    r"|.*\.(?:ssm_a|ssm_d|ssm_conv1d|shortconv\.conv|attn_rel_b|attn_sinks)(?:\.weight)?"
    r"|.*\.time_mix_(?:lerp_\w+|first|decay)(?:\.weight)?"
)
_ATTENDS = re.compile(r"\.attn_(?:q|qkv|q_b|kv_a_mqa)\.weight$")
_EXPERTS = re.compile(r"_(?:ch)?exps\b")

# Where layers take turns to attend to a window: every so many-th does not, unless the file says otherwise.
# ref: llama.cpp src/models/*.cpp, load_swa_pattern
_PERIODS = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gemma-embedding": 6, "gpt-oss": 2, "cohere2": 4, "cohere2moe": 4,
    "llama4": 4, "exaone4": 4, "exaone-moe": 4, "olmo2": 4, "plamo3": 8, "afmoe": 4, "smallthinker": 4, "mellum": 4,
    "laguna": 4,
}  # fmt: skip
# Nodes of a graph beside those of its tensors. ref: llama.cpp src/llama-graph.cpp
_ATTENTION_NODES = 7  # two of positions, two into the cache, attention itself, one that copies, the sum
_FEED_FORWARD_NODES = 2
_EXPERT_NODES = 8  # the choice of experts and their weights; and one for each
_STATE_NODES = 12


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights that columns are multiplied with: `n_rows` of `n_values` (of all experts, where there are any)."""

    type_name: str
    n_rows: int
    n_values: int
    n_bytes: int
    n_experts: int = 0
    is_output: bool = False


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention of one layer; `window` cells at most, where it has one."""

    n_heads: int
    n_kv_heads: int
    size: float
    window: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """A model's work.

    Attributes:
        matrices: all of them; a token is multiplied with `n_used` of each one's experts.
        layers: those with attention.
        n_decaying: values of recurrent states that each have a decay of their own, as Mamba's.
        n_state: values of other recurrent states.
        n_nodes: nodes of its graph that are no products.
        n_node_values: values that they make for one token.
    """

    matrices: tuple[Matrix, ...]
    n_used: int
    layers: tuple[Heads, ...]
    n_decaying: int
    n_state: int
    n_nodes: int
    n_node_values: int

    @property
    def n_bytes(self) -> int:
        """Bytes of all weights that any token is multiplied with."""
        return sum(matrix.n_bytes for matrix in self.matrices)

    def shares(self) -> dict[str, float]:
        """Return for each type its share of the bytes that a token is multiplied with, the largest first."""
        by_type: dict[str, float] = {}
        for matrix in self.matrices:
            used = min(1.0, self.n_used / matrix.n_experts) if matrix.n_experts else 1.0
            by_type[matrix.type_name] = by_type.get(matrix.type_name, 0.0) + matrix.n_bytes * used
        whole = sum(by_type.values()) or 1.0
        return {name: by_type[name] / whole for name in sorted(by_type, key=lambda name: -by_type[name])}


def work_of(headers: Sequence[Header]) -> Work:
    """Return the work of the model that these files are."""
    first = headers[0]
    # Layers that only guess further tokens are run by nothing here.
    n_layers = max(0, (first.integer("block_count") or 0) - (first.integer("nextn_predict_layers") or 0))
    tensors = [tensor for header in headers for tensor in header.tensors if _block(tensor) < n_layers]
    is_tied = all(tensor.name != _OUTPUT for tensor in tensors)
    n_embd = first.integer("embedding_length") or 0
    n_inner = first.integer("ssm.inner_size") or n_embd
    matrices: list[Matrix] = []
    attending: set[int] = set()
    n_decaying = n_state = n_recurrent = n_nodes = n_node_values = 0
    for tensor in tensors:
        if tensor.name.endswith(".ssm_a"):
            n_recurrent += 1
            if len(tensor.shape) == 2 and tensor.shape[0] > 1:
                n_decaying += tensor.n_elements
            else:
                n_state += n_inner * (first.integer("ssm.state_size") or 0)
        elif tensor.name.endswith(".time_mix_output.weight"):
            n_recurrent += 1
            n_state += n_embd * (first.integer("wkv.head_size") or 0)
        elif _ATTENDS.search(tensor.name) and _block(tensor) >= 0:
            attending.add(_block(tensor))
        if _is_multiplied(tensor, is_tied=is_tied):
            matrices.append(_matrix(tensor))
        elif tensor.name != _EMBEDDINGS:
            is_norm = tensor.name.endswith("_norm.weight")
            n_nodes += 1 + is_norm
            n_node_values += (1 + is_norm) * (n_embd if is_norm else (tensor.shape or (1,))[-1])
    layers = tuple(heads for layer in sorted(attending) if (heads := _heads(first, layer, n_layers)) is not None)
    n_used = first.integer("expert_used_count") or 1
    has_experts = any(matrix.n_experts for matrix in matrices)
    # What the columns of each block's products are made into, beside its norms.
    n_nodes += len(layers) * _ATTENTION_NODES + n_recurrent * _STATE_NODES
    n_nodes += n_layers * (_FEED_FORWARD_NODES + (_EXPERT_NODES + n_used if has_experts else 0))
    n_node_values += sum(round(each.size * (2 * each.n_heads + 3 * each.n_kv_heads)) + n_embd for each in layers)
    n_node_values += n_recurrent * _STATE_NODES * n_inner
    n_feed_forward = first.integer("feed_forward_length") or 0
    if has_experts:
        n_feed_forward = n_used * ((first.integer("expert_feed_forward_length") or n_feed_forward) + 2 * n_embd)
    n_node_values += n_layers * (2 * n_feed_forward + n_embd)
    return Work(tuple(matrices), n_used, layers, n_decaying, n_state, n_nodes, n_node_values)


def _block(tensor: TensorEntry) -> int:
    """Return the layer of a tensor, -1 if it is of none."""
    found = _BLOCK.match(tensor.name)
    return int(found[1]) if found else -1


def _is_multiplied(tensor: TensorEntry, *, is_tied: bool) -> bool:
    if tensor.name == _EMBEDDINGS:
        return is_tied
    return len(tensor.shape) >= 2 and min(tensor.shape[:2]) > 1 and not _NO_PRODUCT.fullmatch(tensor.name)


def _matrix(tensor: TensorEntry) -> Matrix:
    return Matrix(
        tensor.type_name,
        n_rows=math.prod(tensor.shape[1:]),
        n_values=tensor.shape[0] if tensor.shape else 1,
        n_bytes=tensor.n_bytes,
        n_experts=tensor.shape[-1] if len(tensor.shape) == 3 and _EXPERTS.search(tensor.name) else 0,
        is_output=tensor.name in (_OUTPUT, _EMBEDDINGS),
    )


def _heads(first: Header, layer: int, n_layers: int) -> Heads | None:
    """Return the attention of a layer, None if its header makes no sense of it."""
    n_heads = (first.integers("attention.head_count", n_layers) or [0] * n_layers)[layer]
    n_kv_heads = (first.integers("attention.head_count_kv", n_layers) or [n_heads] * n_layers)[layer]
    if n_heads <= 0 or n_kv_heads <= 0:
        return None
    by_default = (first.integer("embedding_length") or 0) // n_heads
    keys = first.integer("attention.key_length") or by_default
    values = first.integer("attention.value_length") or by_default
    if first.integer("attention.key_length_mla"):
        n_kv_heads = 1  # all heads share the one that is kept
    window = first.integer("attention.sliding_window") or None
    return Heads(n_heads, n_kv_heads, (keys + values) / 2, window if window and _has_window(first, layer) else None)


def _has_window(first: Header, layer: int) -> bool:
    found = first.metadata.get(f"{first.architecture}.attention.sliding_window_pattern")
    if isinstance(found, tuple):
        return layer < len(found) and bool(found[layer])
    period = found if isinstance(found, int) else _PERIODS.get(first.architecture, 1)
    return layer % max(1, period) < period - 1
