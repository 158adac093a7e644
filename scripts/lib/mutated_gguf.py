"""GGUF headers taken apart and put together again with something wrong: mutations that reach behind the first check.

A case is 8 bytes of the file's length, and the header: what follows it is a hole.
"""

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lib.mutation import FLOATS, TEXTS, integer, mutate_bytes

MAX_FILE_BYTES = 1 << 40
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")
# tensor type: values and bytes of a block, of those that most files have
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    8: (32, 34),
    12: (256, 144),
    14: (256, 210),
    24: (1, 1),
    30: (1, 2),
    39: (32, 17),
}
_ARCHITECTURES = (
    "llama", "qwen2", "gemma3", "gpt-oss", "bert", "mamba", "rwkv7", "deepseek2", "t5", "clip", "x" * 300, "a b", "",
)  # fmt: skip
_HYPERPARAMETERS = (
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.sliding_window",
    "attention.sliding_window_pattern", "attention.layer_norm_rms_epsilon", "attention.key_length_mla",
    "attention.kv_lora_rank", "attention.causal", "rope.dimension_count", "rope.freq_base", "rope.scaling.type",
    "rope.scaling.original_context_length", "expert_count", "expert_used_count", "expert_group_count",
    "expert_group_used_count", "expert_feed_forward_length", "nextn_predict_layers", "vocab_size", "ssm.inner_size",
    "ssm.state_size", "ssm.conv_kernel", "ssm.group_count", "wkv.head_size", "token_shift_count", "shortconv.l_cache",
    "pooling_type",
)  # fmt: skip
_KEYS = (
    "general.alignment", "general.architecture", "general.type", "general.name", "general.license", "general.file_type",
    "general.sampling.temp", "general.sampling.top_k", "general.sampling.penalty_repeat", "split.no", "split.count",
    "split.tensors.count", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type", "tokenizer.ggml.scores", "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
    "tokenizer.chat_template", "owm.quality.certificate", "imatrix.datasets", "imatrix.chunk_count",
    "imatrix.chunk_size", "adapter.type", "adapter.lora.alpha", "adapter.alora.invocation_tokens",
)  # fmt: skip
_TENSORS = (
    "token_embd.weight", "output.weight", "output_norm.weight", "blk.{}.attn_q.weight", "blk.{}.attn_qkv.weight",
    "blk.{}.attn_kv_a_mqa.weight", "blk.{}.ssm_a", "blk.{}.ssm_conv1d.weight", "blk.{}.time_mix_output.weight",
    "blk.{}.ffn_gate_exps.weight", "blk.{}.ffn_up.weight", "dec.blk.{}.attn_q.weight", "enc.blk.{}.attn_rel_b.weight",
    "position_embd.weight", "blk.{}.attn_q.weight.lora_a", "blk.{}.attn_q.weight.lora_b",
    "blk.{}.attn_q.weight.in_sum2", "blk.{}.attn_q.weight.counts", "x", "",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a header."""

    name: bytes
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(slots=True)
class Tree:
    """A header in parts: keys with type and raw value, tensors; counts are those of the parts unless they lie."""

    version: int = 3
    keys: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    tensors: list[Entry] = field(default_factory=list)
    n_keys: int | None = None
    n_tensors: int | None = None

    def encode(self) -> bytes:
        """Return the header's bytes."""
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_keys = len(self.keys) if self.n_keys is None else self.n_keys
        parts = [b"GGUF", struct.pack("<IQQ", _fit(self.version, 4), _fit(n_tensors, 8), _fit(n_keys, 8))]
        for name, kind, raw in self.keys:
            parts += [_LENGTH.pack(len(name)), name, struct.pack("<I", kind), raw]
        for each in self.tensors:
            parts += [_LENGTH.pack(len(each.name)), each.name, struct.pack("<I", len(each.shape))]
            parts += [_LENGTH.pack(_fit(size, 8)) for size in each.shape]
            parts.append(struct.pack("<IQ", _fit(each.kind, 4), _fit(each.offset, 8)))
        return b"".join(parts)

    def alignment(self) -> int:
        """Return the alignment that the header states."""
        for name, kind, raw in self.keys:
            if name == b"general.alignment" and kind == 4 and len(raw) == 4:
                return max(1, struct.unpack("<I", raw)[0])
        return 32

    def shortened(self, n_items: int, n_tensors: int) -> "Tree":
        """Return the same with fewer items in arrays, and fewer tensors."""
        short = parse(self.encode(), most_items=n_items)
        short.tensors = short.tensors[:2] + short.tensors[-(n_tensors - 2) :]
        return short

    def lay_out(self) -> int:
        """Give tensors the offsets that they should have; return the bytes of all."""
        end, made, alignment = 0, [], self.alignment()
        for each in self.tensors:
            made.append(replace(each, offset=end))
            n_elements = 1
            for size in each.shape:
                n_elements *= size
            values, n_bytes = _BLOCKS.get(each.kind, (1, 4))
            end = -(-(end + max(0, n_elements) // values * n_bytes) // alignment) * alignment
        self.tensors = made
        return end


def parse(raw: bytes, *, most_items: int = 24) -> Tree:
    """Take a header apart that is sound; of long arrays the beginning is kept, so that a case is small."""
    version, n_tensors, n_keys = struct.unpack_from("<IQQ", raw, 4)
    tree, at = Tree(version), 24
    for _ in range(n_keys):
        length = _LENGTH.unpack_from(raw, at)[0]
        name = raw[at + 8 : at + 8 + length]
        at += 8 + length
        kind = struct.unpack_from("<I", raw, at)[0]
        at += 4
        begin = at
        if kind == _STRING:
            at += 8 + _LENGTH.unpack_from(raw, at)[0]
        elif kind == _ARRAY:
            item, count = struct.unpack_from("<IQ", raw, at)
            at += 12
            kept = at
            for number in range(count):
                at += 8 + _LENGTH.unpack_from(raw, at)[0] if item == _STRING else _SIZES[item]
                if number + 1 == min(count, most_items):
                    kept = at
            tree.keys.append((name, kind, struct.pack("<IQ", item, min(count, most_items)) + raw[begin + 12 : kept]))
            continue
        else:
            at += _SIZES[kind]
        tree.keys.append((name, kind, raw[begin:at]))
    for _ in range(n_tensors):
        length = _LENGTH.unpack_from(raw, at)[0]
        name = raw[at + 8 : at + 8 + length]
        at += 8 + length
        n_dims = struct.unpack_from("<I", raw, at)[0]
        shape = struct.unpack_from(f"<{n_dims}Q", raw, at + 4)
        at += 4 + 8 * n_dims
        kind, offset = struct.unpack_from("<IQ", raw, at)
        at += 12
        tree.tensors.append(Entry(name, shape, kind, offset))
    return tree


def framed(header: bytes, file_bytes: int) -> bytes:
    """Return a case: the length of its file, and its header."""
    return _LENGTH.pack(max(0, min(file_bytes, MAX_FILE_BYTES))) + header


def whole(tree: Tree) -> bytes:
    """Return the case of a header as it is."""
    n_bytes = tree.lay_out()
    header = tree.encode()
    return framed(header, -(-len(header) // tree.alignment()) * tree.alignment() + n_bytes)


def mutate(dice: random.Random, trees: Sequence[Tree]) -> bytes:
    """Make a case of one of some headers."""
    given = dice.choice(trees)
    tree = Tree(given.version, list(given.keys), list(given.tensors))
    for _ in range(1 << dice.randrange(4)):
        dice.choice(_CHANGES)(dice, tree, trees)
    n_bytes = tree.lay_out() if dice.random() < 0.85 else 1 << dice.randrange(20)
    header = tree.encode()
    if dice.random() < 0.2:
        header = mutate_bytes(dice, header)
    file_bytes = -(-len(header) // tree.alignment()) * tree.alignment() + n_bytes
    roll = dice.random()
    if roll < 0.08:
        file_bytes = dice.choice(
            (file_bytes - 1, file_bytes - 32, len(header), len(header) // 2, 0, 3, 23, integer(dice))
        )
    return framed(header, file_bytes)


def _change_value(dice: random.Random, tree: Tree, trees: Sequence[Tree]) -> None:
    if tree.keys:
        at = dice.randrange(len(tree.keys))
        name, kind, _ = tree.keys[at]
        if dice.random() < 0.4:
            kind = _kind(dice)
        tree.keys[at] = (name, kind, _value(dice, kind))


def _set_hyperparameter(dice: random.Random, tree: Tree, trees: Sequence[Tree]) -> None:
    architecture = next((raw[8:] for name, kind, raw in tree.keys if name == b"general.architecture"), b"unknown")
    name = architecture + b"." + dice.choice(_HYPERPARAMETERS).encode()
    kind = _kind(dice) if dice.random() < 0.6 else 4
    entry = (name, kind, _value(dice, kind))
    for at, each in enumerate(tree.keys):
        if each[0] == name:
            tree.keys[at] = entry
            return
    tree.keys.insert(dice.randrange(len(tree.keys) + 1), entry)


def _set_key(dice: random.Random, tree: Tree, trees: Sequence[Tree]) -> None:
    name = dice.choice(_KEYS).encode()
    kind = _kind(dice)
    tree.keys = [each for each in tree.keys if each[0] != name]
    tree.keys.insert(dice.randrange(len(tree.keys) + 1), (name, kind, _value(dice, kind)))


def _move_key(dice: random.Random, tree: Tree, trees: Sequence[Tree]) -> None:
    if not tree.keys:
        return
    at = dice.randrange(len(tree.keys))
    kind = dice.randrange(5)
    if kind == 0:
        del tree.keys[at]
    elif kind == 1:
        tree.keys.insert(dice.randrange(len(tree.keys) + 1), tree.keys[at])
    elif kind == 2:
        other = dice.choice(trees)
        if other.keys:
            tree.keys.insert(at, dice.choice(other.keys))
    elif kind == 3:
        name, of, raw = tree.keys[at]
        tree.keys[at] = (
            dice.choice(
                (name + b"x", name[:-1], b"", b"k" * dice.choice((63, 64, 1024, 1025, 65535, 65536)), b"\xff", b"a\0")
            ),
            of,
            raw,
        )
    else:
        name, of, raw = tree.keys[at]
        tree.keys[at] = (name, of, mutate_bytes(dice, raw))


def _change_tensor(dice: random.Random, tree: Tree, trees: Sequence[Tree]) -> None:
    if not tree.tensors:
        tree.tensors.append(Entry(b"t", (32,), 0, 0))
    at = dice.randrange(len(tree.tensors))
    each = tree.tensors[at]
    kind = dice.randrange(8)
    if kind == 0:
        del tree.tensors[at]
    elif kind == 1:
        tree.tensors.insert(dice.randrange(len(tree.tensors) + 1), each)
    elif kind == 2:
        name = dice.choice(_TENSORS).format(dice.choice((0, 1, 2, -1, "", "00", 511, 512, 10**9, "9" * 50, "²")))
        tree.tensors[at] = replace(each, name=name.encode())
    elif kind == 3:
        shape = list(each.shape) or [1]
        shape[dice.randrange(len(shape))] = dice.choice((integer(dice), 32, 64, 256, 0))
        tree.tensors[at] = replace(each, shape=tuple(shape))
    elif kind == 4:
        change = dice.choice((each.shape[:-1], (*each.shape, 1), (*each.shape, 2), (1,) * 5, (), each.shape[::-1]))
        tree.tensors[at] = replace(each, shape=change)
    elif kind == 5:
        tree.tensors[at] = replace(each, kind=dice.choice((*range(45), 255, 1 << 31)))
    elif kind == 6:
        tree.tensors[at] = replace(each, offset=dice.choice((each.offset + 32, each.offset - 32, integer(dice))))
    else:
        tree.tensors[at] = replace(
            each, name=dice.choice((each.name + b"x", b"n" * 63, b"n" * 64, b"\xff\xfe", b"a\x1b[2J", b""))
        )


def _change_count(dice: random.Random, tree: Tree, trees: Sequence[Tree]) -> None:
    kind = dice.randrange(6)
    if kind == 0:
        tree.n_keys = dice.choice((len(tree.keys) + 1, len(tree.keys) - 1, integer(dice)))
    elif kind == 1:
        tree.n_tensors = dice.choice((len(tree.tensors) + 1, len(tree.tensors) - 1, integer(dice)))
    elif kind == 2 and dice.random() < 0.3:
        tree.version = dice.choice((0, 1, 2, 3, 4, 3 << 24, integer(dice)))
    elif kind == 3:
        alignment = dice.choice((0, 1, 8, 16, 31, 32, 64, 4096, 1 << 20, 1 << 31, (1 << 32) - 1))
        tree.keys.append((b"general.alignment", 4, struct.pack("<I", alignment)))
    elif kind == 4:
        name = dice.choice(_ARCHITECTURES).encode()
        tree.keys = [each for each in tree.keys if each[0] != b"general.architecture"]
        tree.keys.insert(0, (b"general.architecture", _STRING, _LENGTH.pack(len(name)) + name))
    else:
        tree.version = 2


_CHANGES = (
    _change_value,
    _set_hyperparameter,
    _set_hyperparameter,
    _set_key,
    _move_key,
    _change_tensor,
    _change_tensor,
    _change_count,
)


def _kind(dice: random.Random) -> int:
    return dice.choice((0, 1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 8, 9, 9, 9, 10, 11, 12, 13, 255, 1 << 31))


def _value(dice: random.Random, kind: int) -> bytes:
    if kind == _STRING:
        return _text(dice)
    if kind == _ARRAY:
        item = _kind(dice)
        n_items = dice.choice((0, 1, 2, 2, 3, 8, 40, 4096, 4097) if dice.random() < 0.2 else (0, 1, 2, 3, 4))
        count = n_items if dice.random() < 0.85 else dice.choice((n_items + 1, _fit(integer(dice), 8)))
        if n_items > 40:
            return (
                struct.pack("<IQ", item, count) + (bytes(_SIZES[item]) if item in _SIZES else _LENGTH.pack(0)) * n_items
            )
        return struct.pack("<IQ", item, count) + b"".join(_value(dice, item) for _ in range(n_items))
    if kind in (6, 12):
        number = dice.choice(FLOATS)
        return (
            struct.pack("<d", number)
            if kind == 12
            else struct.pack("<f", number if abs(number) < 3.4e38 else number * float("inf"))
        )
    size = _SIZES.get(kind, 4)
    return _fit(dice.choice((0, 1, 2, 3, 4, 8, 64)) if dice.random() < 0.4 else integer(dice), size).to_bytes(
        size, "little"
    )


def _text(dice: random.Random) -> bytes:
    raw = dice.choice((*TEXTS, *_ARCHITECTURES, "gpt2", "llama", "bert", "none", "no_vocab", "linear", "yarn")).encode(
        "utf-8", "surrogatepass"
    )
    return _LENGTH.pack(len(raw) if dice.random() < 0.95 else _fit(integer(dice), 8)) + raw


def _fit(number: int, size: int) -> int:
    return number & ((1 << 8 * size) - 1)
