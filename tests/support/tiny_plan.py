"""Planned models of little rows in memory: the shape of a llama, wide enough for every quantized type."""

from collections.abc import Mapping, Sequence

import numpy as np

from owm.formats.gguf_writer import Value
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import MemoryRows

METADATA: dict[str, Value] = {
    "general.architecture": "llama", "general.file_type": 0, "llama.block_count": 2, "llama.context_length": 512,
    "llama.embedding_length": 256, "llama.feed_forward_length": 256, "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 4, "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 64, "llama.vocab_size": 4,
}  # fmt: skip


def tiny_plan(
    *,
    n_blocks: int = 2,
    width: int = 256,
    n_experts: int = 0,
    metadata: Mapping[str, Value] | None = None,
    change: Mapping[str, Sequence[PlannedTensor]] | None = None,
    seed: int = 0,
) -> Plan:
    """Plan a model in F32.

    Args:
        width: of all rows but those of `ffn_down`, which have 256.
        n_experts: makes the FFN one of experts.
        change: by name, what a tensor is replaced by.
    """
    random = np.random.default_rng(seed)

    def tensor(name: str, *shape: int) -> PlannedTensor:
        return PlannedTensor(name, MemoryRows(random.standard_normal(shape).astype(np.float32)), "F32", "as it is")

    experts = (n_experts,) if n_experts else ()
    kind = "_exps" if n_experts else ""
    tensors = [tensor("token_embd.weight", 4, width)]
    for i in range(n_blocks):
        block = f"blk.{i}."
        tensors += [tensor(f"{block}attn_norm.weight", width)]
        tensors += [tensor(f"{block}attn_{part}.weight", 8, width) for part in ("q", "k", "v", "output")]
        tensors += [tensor(f"{block}ffn_norm.weight", width)]
        if n_experts:
            tensors += [tensor(f"{block}ffn_gate_inp.weight", n_experts, width)]
        tensors += [
            tensor(f"{block}ffn_gate{kind}.weight", *experts, 8, width),
            tensor(f"{block}ffn_up{kind}.weight", *experts, 8, width),
            tensor(f"{block}ffn_down{kind}.weight", *experts, 8, 256),
        ]
    tensors += [tensor("output_norm.weight", width), tensor("output.weight", 4, width)]
    if change:
        tensors = [other for each in tensors for other in change.get(each.name, [each])]
    sizes: dict[str, Value] = {"llama.block_count": n_blocks, "llama.embedding_length": width}
    if n_experts:
        sizes |= {"llama.expert_count": n_experts, "llama.expert_used_count": 1}
    return make_plan(METADATA | sizes | dict(metadata or {}), tensors)
