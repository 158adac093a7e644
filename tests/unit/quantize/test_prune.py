"""Pruning: layers go, the others move up, and what the metadata says for each layer goes with them."""

import struct

from owm.formats.gguf_writer import RawValue, Value
from owm.quantize.prune import prune
from support.tiny_plan import tiny_plan


def raw_array(*items: int) -> RawValue:
    """An array of int32 as a GGUF file has it: type, items' type, count, items."""
    return RawValue(struct.pack(f"<IIQ{len(items)}i", 9, 5, len(items), *items), items)


def test_the_layers_that_stay_move_up() -> None:
    source = tiny_plan(n_blocks=4)
    smaller, names = prune(source, (1, 2))
    assert names["blk.1.attn_q.weight"] == "blk.3.attn_q.weight"
    assert names["blk.0.attn_q.weight"] == "blk.0.attn_q.weight"
    assert names["output.weight"] == "output.weight"
    assert smaller.metadata["llama.block_count"] == 2
    by_name = {tensor.name: tensor for tensor in source.tensors}
    assert [tensor.name for tensor in smaller.tensors] == list(names)
    assert all(tensor.rows is by_name[names[tensor.name]].rows for tensor in smaller.tensors)
    assert smaller.digest() != source.digest()


def test_without_layers_to_prune_the_plan_is_the_same() -> None:
    source = tiny_plan()
    smaller, names = prune(source, ())
    assert smaller is source
    assert all(new == old for new, old in names.items())


def test_values_for_each_layer_go_with_their_layers() -> None:
    metadata: dict[str, Value] = {
        "llama.attention.head_count_kv": [4, 2, 1],
        "llama.feed_forward_length": raw_array(10, 20, 30),
        "llama.rope.scaling": raw_array(1, 2),  # as many as something else
        "llama.rope.dimension_sections": [8, 8, 4],  # as many as layers, by chance
        "other.per_layer": [1, 2, 3],  # not this architecture's
    }
    smaller, _ = prune(tiny_plan(n_blocks=3, metadata=metadata), (1,))
    assert smaller.metadata["llama.attention.head_count_kv"] == [4, 1]
    found = smaller.metadata["llama.feed_forward_length"]
    assert found == raw_array(10, 30)
    assert smaller.metadata["llama.rope.scaling"] == raw_array(1, 2)
    assert smaller.metadata["llama.rope.dimension_sections"] == [8, 8, 4]
    assert smaller.metadata["other.per_layer"] == [1, 2, 3]


def test_raw_counts_are_counted_too() -> None:
    count = RawValue(struct.pack("<II", 4, 3), 3)
    architecture = RawValue(struct.pack("<IQ5s", 8, 5, b"llama"), "llama")
    metadata: dict[str, Value] = {"llama.block_count": count, "general.architecture": architecture}
    smaller, _ = prune(tiny_plan(n_blocks=3, metadata=metadata), (0, 2))
    assert smaller.metadata["llama.block_count"] == 1


def test_layers_that_predict_further_tokens_count_as_blocks() -> None:
    """The metadata may name more blocks than are pruned from, and lose as many as go."""
    smaller, _ = prune(tiny_plan(n_blocks=3, metadata={"llama.block_count": 4}), (2,))
    assert smaller.metadata["llama.block_count"] == 3
