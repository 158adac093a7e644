"""A tiny GGUF that really loads and generates: llama architecture, random weights, a byte-level BPE vocabulary.

Made in milliseconds from a fixed seed, so no binary is ever committed. Its answers are noise; its plumbing is real.
"""

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("t h", "th e", "i n", "e r", "Ġ t", "Ġt he", "Ġ a", "o n")

Value = str | int | float | bool


def write_tiny_gguf(
    path: Path,
    *,
    n_blocks: int = 2,
    n_embd: int = 64,
    n_ctx_train: int = 512,
    seed: int = 0,
    chat_template: str | None = CHATML,
    metadata: Mapping[str, Value | None] | None = None,
) -> Path:
    """Write a tiny model to `path` and return `path`.

    Args:
        n_embd: hidden size, a multiple of 64; with `n_blocks` it sets the size of the file.
        chat_template: None leaves the key out.
        metadata: keys to set on top of, or instead of, the usual ones; None removes a key.
    """
    path.write_bytes(tiny_gguf(n_blocks, n_embd, n_ctx_train, seed, chat_template, tuple((metadata or {}).items())))
    return path


@functools.lru_cache(maxsize=32)
def tiny_gguf(
    n_blocks: int = 2,
    n_embd: int = 64,
    n_ctx_train: int = 512,
    seed: int = 0,
    chat_template: str | None = CHATML,
    metadata: tuple[tuple[str, Value | None], ...] = (),
) -> bytes:
    """Return the bytes of a tiny model; see `write_tiny_gguf`."""
    n_ff, n_head, n_head_kv = 2 * n_embd, 4, 2
    head_dim = n_embd // n_head
    tokens, kinds = vocabulary()
    keys: dict[str, Value] = {
        "general.name": "Tiny Llama of the tests",
        "general.license": "apache-2.0",
        "general.file_type": int(gguf.LlamaFileType.ALL_F32),
        "llama.block_count": n_blocks,
        "llama.context_length": n_ctx_train,
        "llama.embedding_length": n_embd,
        "llama.feed_forward_length": n_ff,
        "llama.attention.head_count": n_head,
        "llama.attention.head_count_kv": n_head_kv,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": head_dim,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.add_bos_token": False,
    }
    if chat_template is not None:
        keys["tokenizer.chat_template"] = chat_template
    for key, value in metadata:
        if value is None:
            keys.pop(key, None)
        else:
            keys[key] = value
    with tempfile.TemporaryDirectory(prefix="owm-tiny-") as folder:
        file = Path(folder, "tiny.gguf")
        writer = gguf.GGUFWriter(file, str(keys.pop("general.architecture", "llama")))
        for key, value in keys.items():
            _add(writer, key, value)
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges(list(MERGES))
        random = np.random.default_rng(seed)

        def matrix(rows: int, columns: int) -> np.ndarray:
            return (random.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

        gain = np.ones(n_embd, dtype=np.float32)
        writer.add_tensor("token_embd.weight", matrix(len(tokens), n_embd))
        for i in range(n_blocks):
            writer.add_tensor(f"blk.{i}.attn_norm.weight", gain)
            writer.add_tensor(f"blk.{i}.attn_q.weight", matrix(n_embd, n_embd))
            writer.add_tensor(f"blk.{i}.attn_k.weight", matrix(n_head_kv * head_dim, n_embd))
            writer.add_tensor(f"blk.{i}.attn_v.weight", matrix(n_head_kv * head_dim, n_embd))
            writer.add_tensor(f"blk.{i}.attn_output.weight", matrix(n_embd, n_embd))
            writer.add_tensor(f"blk.{i}.ffn_norm.weight", gain)
            writer.add_tensor(f"blk.{i}.ffn_gate.weight", matrix(n_ff, n_embd))
            writer.add_tensor(f"blk.{i}.ffn_up.weight", matrix(n_ff, n_embd))
            writer.add_tensor(f"blk.{i}.ffn_down.weight", matrix(n_embd, n_ff))
        writer.add_tensor("output_norm.weight", gain)
        writer.add_tensor("output.weight", matrix(len(tokens), n_embd) * np.float32(4))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return file.read_bytes()


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def vocabulary() -> tuple[list[str], list[int]]:
    """Return GPT-2's 256 byte symbols, the products of the merges, and the special tokens of ChatML."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    tokens = [*SPECIALS, *(symbols[byte] for byte in range(256)), *(merge.replace(" ", "") for merge in MERGES)]
    control, normal = int(gguf.TokenType.CONTROL), int(gguf.TokenType.NORMAL)
    return tokens, [control if token in SPECIALS else normal for token in tokens]
