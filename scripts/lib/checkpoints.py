"""The checkpoints that `owm convert` is measured on: one in Llama 3.2's shape, made from nothing, and SmolLM2."""

import json
import math
import random
import shutil
import statistics
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from lib.inside import ROOT

N_VOCAB, N_SPECIAL = 128_256, 256
N_EMBD, N_FF, HEAD_DIM, N_HEADS, N_KV_HEADS = 2048, 8192, 64, 32, 8
BF16_BYTES = 2
CHUNK_VALUES = 1 << 22
# ref: the tokenizer.json of meta-llama/Llama-3.2-1B
PRE_TOKENIZER = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """Llama 3.2 1B with another number of layers (it has 16)."""

    n_layers: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(math.prod(shape) * BF16_BYTES for _, shape in self.tensors())

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes, tied embeddings only once."""
        yield "model.embed_tokens.weight", (N_VOCAB, N_EMBD)
        for layer in range(self.n_layers):
            prefix = f"model.layers.{layer}."
            yield prefix + "input_layernorm.weight", (N_EMBD,)
            yield prefix + "mlp.down_proj.weight", (N_EMBD, N_FF)
            yield prefix + "mlp.gate_proj.weight", (N_FF, N_EMBD)
            yield prefix + "mlp.up_proj.weight", (N_FF, N_EMBD)
            yield prefix + "post_attention_layernorm.weight", (N_EMBD,)
            yield prefix + "self_attn.k_proj.weight", (N_KV_HEADS * HEAD_DIM, N_EMBD)
            yield prefix + "self_attn.o_proj.weight", (N_EMBD, N_HEADS * HEAD_DIM)
            yield prefix + "self_attn.q_proj.weight", (N_HEADS * HEAD_DIM, N_EMBD)
            yield prefix + "self_attn.v_proj.weight", (N_KV_HEADS * HEAD_DIM, N_EMBD)
        yield "model.norm.weight", (N_EMBD,)


def llama(shape: LlamaShape, work: Path) -> Path:
    """Return the folder of a bf16 checkpoint with random weights, which is made if it is not there."""
    folder = work / f"llama-3.2-1b-{shape.n_layers}-layers"
    if folder.exists():
        return folder
    making = folder.with_name(folder.name + ".incomplete")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": N_VOCAB, "hidden_size": N_EMBD,
        "intermediate_size": N_FF, "num_hidden_layers": shape.n_layers, "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV_HEADS, "head_dim": HEAD_DIM, "hidden_act": "silu", "rms_norm_eps": 1e-05,
        "max_position_embeddings": 131072, "rope_theta": 500000.0, "attention_bias": False, "mlp_bias": False,
        "rope_scaling": {
            "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3",
        },
        "bos_token_id": N_VOCAB - N_SPECIAL, "eos_token_id": N_VOCAB - N_SPECIAL + 1, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS}
    _write_json(making / "config.json", config)
    _write_json(making / "tokenizer_config.json", tokenizer_config)
    _write_json(making / "tokenizer.json", _byte_level_bpe())
    with open(making / "model.safetensors", "wb") as file:
        _write_weights(shape, file)
    making.rename(folder)
    return folder


def smollm2_checkpoint(model: Path, parity_python: Path, work: Path) -> Path:
    """Return SmolLM2 as a checkpoint in bf16, as it was published, made by transformers from the model file."""
    folder = work / "SmolLM2-135M-Instruct"
    if folder.exists():
        return folder
    making = folder.with_name(folder.name + ".incomplete")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    script = ROOT / "scripts" / "lib" / "checkpoint_from_gguf.py"
    if subprocess.run([parity_python, script, model, making], stdout=sys.stderr, check=False).returncode:
        sys.exit("error: transformers could not make a checkpoint from SmolLM2's model file")
    making.rename(folder)
    return folder


def warm(folder: Path) -> None:
    """Read a checkpoint once, so that it is in the page cache."""
    for path in sorted(folder.iterdir()):
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _write_weights(shape: LlamaShape, file: BinaryIO) -> None:
    """Write a safetensors file chunk by chunk: weights from a normal distribution of deviation 0.02."""
    entries, offset = {}, 0
    for name, sizes in shape.tensors():
        end = offset + math.prod(sizes) * BF16_BYTES
        entries[name] = {"dtype": "BF16", "shape": list(sizes), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    file.write(struct.pack("<Q", len(header)) + header)
    # 65,536 quantiles, drawn at random: many times faster than drawing from the distribution.
    normal = statistics.NormalDist(0.0, 0.02)
    values = np.array([normal.inv_cdf((rank + 0.5) / 65536) for rank in range(65536)], np.float32)
    quantiles = (values.view(np.uint32) >> 16).astype("<u2")
    generator = np.random.default_rng(0)
    for _, sizes in shape.tensors():
        left = math.prod(sizes)
        while left:
            count = min(left, CHUNK_VALUES)
            file.write(quantiles[generator.integers(0, 65536, count, np.uint16)].data)
            left -= count


def _byte_level_bpe() -> dict[str, object]:
    """Make a tokenizer.json of Llama 3's size and structure, with invented words.

    As there, merges are all the pairs of tokens that make a token, and they count about twice the tokens.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [256 + place for place in range(256 - len(printable))]
    tokens = [chr(code) for code in printable + others]
    known = set(tokens)
    chooser = random.Random(0)
    starts = [chr(256 + ord(" ")), *"abcdefghijklmnopqrstuvwxyz", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    words, endings = list(starts), starts[1:27]
    merges: list[list[str]] = []
    while len(tokens) < N_VOCAB - N_SPECIAL:
        # Short tokens early, long ones late, as training makes them.
        left, right = words[int(len(words) * chooser.random() ** 2)], chooser.choice(endings)
        made = left + right
        if made in known or len(made) > 16:
            continue
        tokens.append(made)
        known.add(made)
        words.append(made)
        if made[0] != starts[0] and len(endings) < 4000:
            endings.append(made)
        merges += [[made[:cut], made[cut:]] for cut in range(1, len(made)) if {made[:cut], made[cut:]} <= known]
    specials = [BOS, EOS, *(f"<|reserved_special_token_{number}|>" for number in range(N_SPECIAL - 2))]
    added = [
        {"id": len(tokens) + number, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for number, text in enumerate(specials)
    ]  # fmt: skip
    as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PRE_TOKENIZER}, "behavior": "Isolated", "invert": False}
    begin = {"SpecialToken": {"id": BOS, "type_id": 0}}
    template = {
        "type": "TemplateProcessing", "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BOS: {"id": BOS, "ids": [len(tokens)], "tokens": [BOS]}},
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, as_bytes]},
        "post_processor": template,
        "decoder": as_bytes | {"use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges,
        },
    }  # fmt: skip
