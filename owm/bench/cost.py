"""What a token costs a model, from its headers alone: bytes of weights that are read, and operations of products.

Attention over what was read before is not counted, nor what is no product of matrices: these are lower bounds, which
are nearly all of it in an empty context.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from owm.formats.gguf import Header, TensorEntry

# Of these a token reads a row.
_LOOKED_UP = ("token_embd.weight", "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight")
_OUTPUT = "output.weight"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one token takes.

    Attributes:
        read_bytes: of weights, for a token that is made; of experts, those that are used.
        read_flops: for a token of a prompt, which has no output unless it is the last.
        type_name: the type of most of what is multiplied.
    """

    read_bytes: int
    read_flops: int
    type_name: str
    has_experts: bool


def cost_of(headers: Sequence[Header]) -> Cost:
    """Return what a token costs the model that these files are."""
    tensors = [tensor for header in headers for tensor in header.tensors]
    first = headers[0]
    n_used = first.integer("expert_used_count") or 0
    is_tied = all(tensor.name != _OUTPUT for tensor in tensors)
    read_bytes = read_flops = 0
    by_type: dict[str, int] = {}
    has_experts = False
    for tensor in tensors:
        is_embedding = tensor.name == _LOOKED_UP[0]
        if tensor.name in _LOOKED_UP and not (is_embedding and is_tied):
            continue
        share = 1.0
        if _is_of_experts(tensor) and n_used:
            share, has_experts = min(1.0, n_used / tensor.shape[-1]), True
        read_bytes += round(tensor.n_bytes * share)
        is_output = tensor.name == _OUTPUT or is_embedding
        if len(tensor.shape) >= 2 and not is_output:
            n = round(math.prod(tensor.shape) * share)
            read_flops += 2 * n
            by_type[tensor.type_name] = by_type.get(tensor.type_name, 0) + n
    return Cost(read_bytes, read_flops, max(by_type, key=by_type.__getitem__, default=""), has_experts)


def _is_of_experts(tensor: TensorEntry) -> bool:
    return len(tensor.shape) == 3 and re.search(r"_exps\b", tensor.name) is not None
