"""Recipes that llama.cpp's own tests pin for published models, and the shapes of those models as far as known.

ref: llama.cpp tests/test-quant-type-selection.cpp and tests/snapshots/*.schema
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import FileRows

Shape = tuple[int, ...]  # outermost first


@dataclass(frozen=True, slots=True)
class Published:
    """A model's hyperparameters, from its publisher's config.json."""

    snapshot: str
    architecture: str
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_vocab: int
    has_output: bool = True
    n_experts: int = 0
    expert_ff: int = 0
    shared_ff: int = 0
    n_dense: int = 0  # layers without experts, at the beginning
    keys: dict[str, int | float] = field(default_factory=dict)

    def plan(self) -> Plan:
        """Return a plan of it in BF16, of weights that nobody reads."""
        tensors = [
            PlannedTensor(name, FileRows(Path("nowhere"), 0, shape, "BF16"), "BF16" if len(shape) > 1 else "F32", "")
            for name, shape in self._tensors()
        ]
        own = {
            "block_count": self.n_layers, "context_length": 4096, "embedding_length": self.n_embd,
            "feed_forward_length": self.n_ff, "attention.head_count": self.n_heads,
            "attention.head_count_kv": self.n_kv_heads, "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim, "attention.layer_norm_rms_epsilon": 1e-6,
            "rope.freq_base": 1e6, "rope.dimension_count": self.head_dim, "vocab_size": self.n_vocab, **self.keys,
        }  # fmt: skip
        if self.n_experts:
            own |= {"expert_count": self.n_experts, "expert_used_count": 4}
            own |= {"expert_feed_forward_length": self.expert_ff, "leading_dense_block_count": self.n_dense}
        metadata = {f"{self.architecture}.{key}": value for key, value in own.items()}
        return make_plan({"general.architecture": self.architecture, **metadata}, tensors)

    def _tensors(self) -> Iterator[tuple[str, Shape]]:
        q, kv, n = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim, self.n_embd
        yield "token_embd.weight", (self.n_vocab, n)
        yield "output_norm.weight", (n,)
        if self.has_output:
            yield "output.weight", (self.n_vocab, n)
        for layer in range(self.n_layers):
            block = f"blk.{layer}."
            yield f"{block}attn_norm.weight", (n,)
            yield f"{block}attn_q.weight", (q, n)
            yield f"{block}attn_k.weight", (kv, n)
            yield f"{block}attn_v.weight", (kv, n)
            yield f"{block}attn_output.weight", (n, q)
            yield f"{block}ffn_norm.weight", (n,)
            if not self.n_experts or layer < self.n_dense:
                yield from self._ffn(block, "", (), self.n_ff)
                continue
            yield f"{block}ffn_gate_inp.weight", (self.n_experts, n)
            yield from self._ffn(block, "_exps", (self.n_experts,), self.expert_ff)
            if self.shared_ff:
                yield from self._ffn(block, "_shexp", (), self.shared_ff)

    def _ffn(self, block: str, kind: str, outer: Shape, n_ff: int) -> Iterator[tuple[str, Shape]]:
        yield f"{block}ffn_gate{kind}.weight", (*outer, n_ff, self.n_embd)
        yield f"{block}ffn_up{kind}.weight", (*outer, n_ff, self.n_embd)
        yield f"{block}ffn_down{kind}.weight", (*outer, self.n_embd, n_ff)


MODELS = (
    Published("qwen3-0.6b", "qwen3", 28, 1024, 3072, 16, 8, 128, 151936),
    Published("qwen3-14b", "qwen3", 40, 5120, 17408, 40, 8, 128, 151936),
    Published("meta-llama-3.1-70b-instruct", "llama", 80, 8192, 28672, 64, 8, 128, 128256),
    Published("gemma-3-4b-it", "gemma3", 34, 2560, 10240, 8, 4, 256, 262144, has_output=False,
              keys={"attention.sliding_window": 1024}),
    Published("gpt-oss-120b", "gpt-oss", 36, 2880, 2880, 64, 8, 64, 201088, n_experts=128, expert_ff=2880,
              keys={"attention.sliding_window": 128}),
    Published("glm-4.6v", "glm4moe", 46, 4096, 10944, 96, 8, 128, 151552, n_experts=128, expert_ff=1408,
              shared_ff=1408, n_dense=1, keys={"expert_shared_count": 1}),
)  # fmt: skip


def pinned(folder: Path, name: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Read a snapshot: for each quantization type its tensor type, and the tensors that get another one."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    others: dict[str, str] = {}
    for line in (folder / f"{name}.schema").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            label, _, usual = line[1:].partition("] ")
            others = {}
            found[label] = (usual.upper(), others)
        elif line and not line.startswith("#"):
            tensor, _, type_name = line.rpartition(" ")
            others[tensor] = type_name.upper()
    return found
