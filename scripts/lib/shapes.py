"""Model files of some shape with random weights: what speeds are measured on that no published small model has."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

HEAD = 64
BLOCK_VALUES = 4_000_037  # of random numbers, which are used again at other places
SEED = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of Llama's kind; with experts of Qwen 3's; without heads Mamba."""

    name: str
    n_embd: int
    n_layers: int
    n_inner: int
    n_heads: int
    n_kv_heads: int
    n_experts: int = 0
    n_used: int = 0

    @property
    def architecture(self) -> str:
        """What llama.cpp calls it."""
        return "mamba" if not self.n_heads else "qwen3moe" if self.n_experts else "llama"

    def facts(self) -> dict[str, int | float]:
        """Return what its header says of it."""
        facts: dict[str, int | float] = {
            "block_count": self.n_layers, "context_length": 8192, "embedding_length": self.n_embd,
            "feed_forward_length": self.n_inner, "attention.head_count": self.n_heads,
            "attention.layer_norm_rms_epsilon": 1e-5,
        }  # fmt: skip
        if not self.n_heads:
            return facts | {
                "ssm.conv_kernel": 4, "ssm.inner_size": 2 * self.n_embd, "ssm.state_size": 16,
                "ssm.time_step_rank": self.n_embd // 16,
            }  # fmt: skip
        facts |= {
            "attention.head_count_kv": self.n_kv_heads, "attention.key_length": HEAD, "attention.value_length": HEAD,
            "rope.dimension_count": HEAD, "rope.freq_base": 10000.0,
        }  # fmt: skip
        if self.n_experts:
            facts |= {"expert_count": self.n_experts, "expert_used_count": self.n_used,
                      "expert_feed_forward_length": self.n_inner}  # fmt: skip
        return facts

    def tensors(self, n_vocab: int) -> Iterator[tuple[str, tuple[int, ...], str]]:
        """Yield names, shapes (as numpy has them) and kinds: random weights, a constant, or small weights of F32."""
        d, inner = self.n_embd, self.n_inner
        yield "token_embd.weight", (n_vocab, d), "weights"
        if self.n_experts:
            yield "output.weight", (n_vocab, d), "weights"
        yield "output_norm.weight", (d,), "one"
        for i in range(self.n_layers):
            yield f"blk.{i}.attn_norm.weight", (d,), "one"
            for name, shape, kind in self._state() if not self.n_heads else self._attention():
                yield f"blk.{i}.{name}", shape, kind
            if not self.n_heads:
                continue
            yield f"blk.{i}.ffn_norm.weight", (d,), "one"
            experts = (self.n_experts,) if self.n_experts else ()
            suffix = "_exps" if self.n_experts else ""
            if self.n_experts:
                yield f"blk.{i}.ffn_gate_inp.weight", (self.n_experts, d), "small"
            for name, shape in (("gate", (inner, d)), ("up", (inner, d)), ("down", (d, inner))):
                yield f"blk.{i}.ffn_{name}{suffix}.weight", (*experts, *shape), "weights"

    def _attention(self) -> Iterator[tuple[str, tuple[int, ...], str]]:
        d, n_query, n_key = self.n_embd, self.n_heads * HEAD, self.n_kv_heads * HEAD
        for name, shape in (("q", (n_query, d)), ("k", (n_key, d)), ("v", (n_key, d)), ("output", (d, n_query))):
            yield f"attn_{name}.weight", shape, "weights"
        if self.n_experts:
            yield "attn_q_norm.weight", (HEAD,), "one"
            yield "attn_k_norm.weight", (HEAD,), "one"

    def _state(self) -> Iterator[tuple[str, tuple[int, ...], str]]:
        d, inner, rank, n_state = self.n_embd, 2 * self.n_embd, self.n_embd // 16, 16
        yield "ssm_in.weight", (2 * inner, d), "weights"
        yield "ssm_conv1d.weight", (inner, 4), "small"
        yield "ssm_conv1d.bias", (inner,), "one"
        yield "ssm_x.weight", (rank + 2 * n_state, inner), "weights"
        yield "ssm_dt.weight", (inner, rank), "weights"
        yield "ssm_dt.bias", (inner,), "one"
        yield "ssm_a", (inner, n_state), "minus"
        yield "ssm_d", (inner,), "one"
        yield "ssm_out.weight", (d, inner), "weights"


def write_shape(shape: Shape, vocabulary: Path, path: Path) -> Path:
    """Write a model file of F16 weights, with the vocabulary of another; a whole file that is there is kept."""
    if path.exists():
        return path
    partial = path.with_suffix(".part")
    random = np.random.default_rng(SEED)
    block = (random.standard_normal(BLOCK_VALUES) * 0.02).astype(np.float16)
    writer = gguf.GGUFWriter(partial, shape.architecture)
    n_vocab = _copy_vocabulary(vocabulary, writer)
    for key, value in shape.facts().items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{shape.architecture}.{key}", value)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    begin = 0
    for name, dimensions, kind in shape.tensors(n_vocab):
        n_values = int(np.prod(dimensions))
        begin = (begin + 123_457) % BLOCK_VALUES
        if kind in ("one", "minus"):
            values = np.full(dimensions, 1 if kind == "one" else -1, np.float32)
        else:
            values = np.tile(block, (n_values + begin) // BLOCK_VALUES + 1)[begin : begin + n_values]
            values = values.reshape(dimensions).astype(np.float32 if kind == "small" else np.float16, copy=False)
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return partial.rename(path)


def _copy_vocabulary(source: Path, writer: gguf.GGUFWriter) -> int:
    """Copy what a model file says of its vocabulary; return the number of tokens."""
    n_tokens = 0
    for name, found in gguf.GGUFReader(source).fields.items():
        if not name.startswith("tokenizer."):
            continue
        if found.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, found.contents())
            n_tokens = max(n_tokens, len(found.data)) if name == "tokenizer.ggml.tokens" else n_tokens
        else:
            writer.add_key_value(name, found.contents(), found.types[0])
    return n_tokens
