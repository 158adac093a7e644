"""A model without some of its layers: the others move up, and what the metadata says per layer with them."""

import re
import struct
from collections.abc import Collection, Sequence
from dataclasses import replace

from owm.formats.gguf_writer import RawValue, Value
from owm.pipeline.plan import Plan, PlannedTensor, make_plan

_BLOCK = re.compile(r"blk\.(\d+)\.")
# Arrays that may be as long as the model is deep by chance.
_NOT_OF_LAYERS = ("rope.dimension_sections",)


def prune(source: Plan, blocks: Collection[int]) -> tuple[Plan, dict[str, str]]:
    """Leave out blocks; return the smaller plan, and for each of its tensors the name it had.

    llama.cpp's quantizer changes the count of blocks alone; here values for each layer move with their layers.
    """
    if not blocks:
        return source, {tensor.name: tensor.name for tensor in source.tensors}
    numbers = {int(found[1]) for tensor in source.tensors if (found := _BLOCK.match(tensor.name))}
    kept = {block: index for index, block in enumerate(sorted(numbers - set(blocks)))}
    tensors: list[PlannedTensor] = []
    names: dict[str, str] = {}
    for tensor in source.tensors:
        found = _BLOCK.match(tensor.name)
        if found and int(found[1]) not in kept:
            continue
        name = f"blk.{kept[int(found[1])]}.{tensor.name[found.end() :]}" if found else tensor.name
        tensors.append(replace(tensor, name=name))
        names[name] = tensor.name
    architecture = _plain(source.metadata["general.architecture"])
    metadata: dict[str, Value] = dict(source.metadata)
    for key, value in source.metadata.items():
        if not key.startswith(f"{architecture}.") or key.endswith(_NOT_OF_LAYERS):
            continue
        plain = _plain(value)
        if key == f"{architecture}.block_count" and isinstance(plain, int):
            # Layers that predict further tokens count as blocks.
            metadata[key] = plain - len(numbers & set(blocks))
        elif isinstance(plain, tuple | list) and len(plain) == len(numbers):
            metadata[key] = _some(value, sorted(kept))
    return make_plan(metadata, tensors, origin=f"{source.origin} without {sorted(blocks)}"), names


def _plain(value: Value) -> object:
    return value.value if isinstance(value, RawValue) else value


def _some(array: Value, indices: Sequence[int]) -> Value:
    """Keep some items of an array of numbers. As a raw value it is laid out as: type, items' type, count, items."""
    if not isinstance(array, RawValue):
        assert isinstance(array, Sequence)
        return [array[index] for index in indices]  # type: ignore[return-value]
    assert isinstance(array.value, tuple)
    size = (len(array.raw) - 16) // len(array.value)
    if any(isinstance(item, str) for item in array.value):
        return array
    items = b"".join(array.raw[16 + index * size : 16 + (index + 1) * size] for index in indices)
    head = array.raw[:8] + struct.pack("<Q", len(indices))
    return RawValue(head + items, tuple(array.value[index] for index in indices))
