"""Files of other formats: checkpoints (safetensors and their index), parts of a model, manifests of the store."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from hostile.gallery.exhibit import hostile
from support.crafted_gguf import crafted, metadata, pack_value
from support.packed_gguf import STRING, U16, key, pack, tensor
from support.tiny_safetensors import frame

checkpoint = partial(hostile, fate="unread", kind="checkpoint")


def with_tensors(entries: Mapping[str, Any], n_bytes: int = 8) -> bytes:
    """Pack a file of these entries."""
    return frame(json.dumps(entries), bytes(n_bytes))


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    """Return the entry of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@checkpoint("the length of its header is 18446744073709551615 bytes, at most 20000000 can be")
def header_of_every_length() -> bytes:
    """A header of 2^64 - 1 bytes."""
    return frame("{}", length=2**64 - 1)


@checkpoint("it is truncated, its header of 19999999 bytes runs past the end of the file")
def header_longer_than_the_file() -> bytes:
    """A header of 20 MB in a file of ten bytes."""
    return frame("{}", length=19_999_999)


@checkpoint("its header is nested too deeply")
def nested_header() -> bytes:
    """Lists in lists, 100,000 deep: a parser that recurses overflows its stack."""
    return frame('{"t":' + "[" * 100_000 + "]" * 100_000 + "}")


@checkpoint("items, at most 655360 can be")
def header_of_millions() -> bytes:
    """Three million lists of nothing: 9 MB of text, 200 MB of objects."""
    return frame('{"t":[' + "[]," * 3_000_000 + "[]]}")


@checkpoint("'t' appears twice in its header")
def tensor_of_two_places() -> bytes:
    """One name twice: parsers differ in which of them counts."""
    one, two = json.dumps(entry()), json.dumps(entry(offsets=(8, 16)))
    return frame(f'{{"t":{one},"t":{two}}}', bytes(16))


@checkpoint("the tensor 'b' overlaps the tensor 'a'")
def overlapping_tensors() -> bytes:
    """Two tensors that share four bytes."""
    return with_tensors({"a": entry(), "b": entry(offsets=(4, 12))}, 12)


@checkpoint("8 bytes before the tensor 'b' are of no tensor")
def hole_between_tensors() -> bytes:
    """Bytes that belong to nothing, where something can be hidden."""
    return with_tensors({"a": entry(), "b": entry(offsets=(16, 24))}, 24)


@checkpoint("its last 100 bytes are of no tensor")
def more_than_a_checkpoint() -> bytes:
    """A file that goes on behind its tensors."""
    return with_tensors({"a": entry()}, 108)


@checkpoint("the tensor 'a' has impossible data_offsets")
def backward_offsets() -> bytes:
    """A tensor that ends before it begins."""
    return with_tensors({"a": entry(offsets=(8, 0))})


@checkpoint("the tensor 'a' has a dimension of -2")
def dimension_below_zero() -> bytes:
    """Two negative dimensions, whose product is right."""
    return with_tensors({"a": entry(shape=(-2, -1))})


@checkpoint("the tensor 'a' has an impossible shape")
def shape_beyond_64_bits() -> bytes:
    """A shape whose product wraps to what is there."""
    return with_tensors({"a": entry(shape=(2**62, 4, 2))})


@checkpoint("has a tensor of unknown type 'F1'", code=5)
def tensor_of_an_unknown_type() -> bytes:
    """A type of elements that does not exist."""
    return with_tensors({"a": entry("F1")})


@checkpoint("its __metadata__ 'format' is no text")
def metadata_of_objects() -> bytes:
    """Metadata that is no text."""
    return with_tensors({"__metadata__": {"format": {"pt": []}}, "a": entry()})


@checkpoint("the name of the tensor '\\ud800' is not UTF-8 text")
def half_a_character() -> bytes:
    """A name that JSON can write and no file system can."""
    return frame('{"\\ud800":' + json.dumps(entry()) + "}", bytes(8))


@checkpoint("index.json names a file outside the checkpoint")
def index_that_points_outside() -> Mapping[str, bytes]:
    """An index whose shards lie in somebody else's folder."""
    index = {"metadata": {}, "weight_map": {"a": "../../outside.safetensors"}}
    return {"model.safetensors.index.json": json.dumps(index).encode()}


@hostile("a path leaves its root", "unread", kind="manifest")
def manifest_that_climbs() -> bytes:
    """A manifest of the store whose file is `../../../.ssh/id_rsa`: what is removed or served with the model."""
    file = {"path": "../../../.ssh/id_rsa", "root": "owm", "size_bytes": 1, "sha256": "0" * 64}
    facts = {"architecture": "llama"}
    names = {"ref": "pypi:tiny", "source": "pypi", "name": "tiny", "label": "Q8_0", "created_at": "2026"}
    nothing = dict.fromkeys(("revision", "commit", "licence"))
    return json.dumps({"schema": 2, "files": [file], "facts": facts, **names, **nothing}).encode()


def parts(second: list[bytes], *, count: int = 2) -> Mapping[str, bytes]:
    """Pack a model of two parts, the second of which says this of itself."""
    first = crafted({"split.no": (U16, 0), "split.count": (U16, count), "split.tensors.count": (5, 13)})
    rest = pack(second, [tensor("blk.9.extra.weight", (8,), 0, 0)], bytes(32))
    return {"model-00001-of-00002.gguf": first, "model-00002-of-00002.gguf": rest}


@hostile("its split.no is not an unsigned 16-bit number", "aborts")
def part_of_a_number_that_is_a_text() -> Mapping[str, bytes]:
    """A second part whose number is a text: llama.cpp reads it without asking for the type."""
    return parts([key("split.no", STRING, "1"), key("split.count", U16, 2)])


@hostile("its part model-00002-of-00002.gguf is missing", "refuses")
def part_that_is_not_there() -> Mapping[str, bytes]:
    """A model of two parts, of which one is here."""
    whole = parts([])
    return dict(list(whole.items())[:1])


@hostile("invalid split file idx: 0", "refuses", code=1)
def part_that_is_the_first_again() -> Mapping[str, bytes]:
    """A second part that says that it is the first."""
    own = [pack_value(name, value) for name, value in metadata().items() if name == "general.architecture"]
    return parts([*own, key("split.no", U16, 0), key("split.count", U16, 2)])
