"""Phi 2, 3 and 4, and Phi-3.5-MoE."""

import math
from typing import Any

from parity.case import SHAPE, Case

PHI2 = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "layer_norm_eps": 0.01,
    "tie_word_embeddings": False,
}
PARTIAL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}


def longrope(n: int, original: int, **more: float) -> dict[str, object]:
    """Return the settings of Phi's rope for texts longer than those of its training."""
    return {
        "original_max_position_embeddings": original,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 700.0,
            "long_factor": [1.1 + 0.7 * i for i in range(n)],
            "short_factor": [1.0 + 0.2 * i for i in range(n)],
            **more,
        },
    }


def as_llama_cpp_computes(model: Any, generator: Any) -> None:
    """Let the class take the norms, the routing and the rope of long texts as llama.cpp does."""
    import torch

    def norm(module: Any) -> Any:
        return lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.eps) * module.weight + module.bias

    def route(module: Any) -> Any:
        def forward(x: Any) -> Any:
            logits = torch.nn.functional.linear(x, module.weight)
            weights, chosen = torch.topk(torch.softmax(logits, -1), module.top_k)
            return logits, weights / weights.sum(-1, keepdim=True), chosen

        return forward

    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.forward = norm(module)
        elif type(module).__name__ == "PhimoeTopKRouter":
            module.forward = route(module)
        elif type(module).__name__ == "PhimoeRotaryEmbedding" and module.rope_type == "longrope":
            init = module.rope_init_fn
            module.rope_init_fn = lambda config, init=init: init(config, seq_len=N_CONTEXT)


N_CONTEXT = 256  # llama_worker's, by which llama.cpp chooses the factors
_NO_JSON = "wants a tokenizer.model"
_PHIMOE = "llama.cpp takes RMSNorm for LayerNorm, and shares of a softmax for sparsemixer's weights"
_WINDOW = {"attention.sliding_window": "llama.cpp does not apply it"}
_INERT = _WINDOW | {"rope.scaling.original_context_length": "llama.cpp asks for it only if there are long factors"}
_MOE = SHAPE | {"num_local_experts": 4, "attention_bias": True, "lm_head_bias": True, "max_position_embeddings": 1024}
_MSCALE = math.sqrt(1 + math.log(1024 / 200) / math.log(200))  # what the reference writes, whatever is stated
_SHORT = math.sqrt(1 + math.log(1024 / 256) / math.log(256))
CASES = (
    Case(id="phi2-plain", hf="PhiForCausalLM", config=PHI2 | {"rope_parameters": PARTIAL}, tokenizer="bpe-gpt2"),
    Case(
        id="phi2-old",
        hf="PhiForCausalLM",
        config=PHI2 | {"rope_parameters": PARTIAL | {"partial_rotary_factor": 0.25}, "num_hidden_layers": 3},
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="float16",
        shards=3,
    ),
    Case(
        id="phi2-odd",
        hf="PhiForCausalLM",
        config=PHI2
        | {
            "intermediate_size": 96,
            "num_key_value_heads": 2,
            "rope_parameters": PARTIAL | {"rope_theta": 700.0},
        },
        tokenizer="bpe-gpt2",
        reference="takes 4 × hidden for the width of the FFN, as many keys as queries, and 10000 for the rope's base",
    ),
    Case(
        id="phi2-tied",
        hf="PhiForCausalLM",
        config=PHI2 | {"tie_word_embeddings": True, "rope_parameters": PARTIAL},
        tokenizer="bpe-gpt2",
        reference="leaves the output embeddings out, without which llama.cpp does not load this architecture",
    ),
    Case(id="phi3-plain", hf="Phi3ForCausalLM", config=SHAPE, tokenizer="spm-phi3", inert=_INERT),
    Case(
        id="phi3-window",
        hf="Phi3ForCausalLM",
        config=SHAPE | {"sliding_window": 200, "num_key_value_heads": 4},
        tokenizer="spm-phi3",
        dialect="old",
        dtype="bfloat16",
        inert=_INERT,
    ),
    Case(
        id="phi3-long",
        hf="Phi3ForCausalLM",
        config=SHAPE | {"max_position_embeddings": 1024} | longrope(8, 200),
        tokenizer="spm-phi3",
        dialect="old",
        shards=2,
        n_tokens=224,
        inert=_WINDOW,
    ),
    Case(
        id="phi3-short",
        hf="Phi3ForCausalLM",
        config=SHAPE | {"max_position_embeddings": 1024} | longrope(8, 256),
        tokenizer="spm-phi3",
        dtype="bfloat16",
        inert=_WINDOW,
    ),
    Case(
        id="phi3-mini4",
        hf="Phi3ForCausalLM",
        config=SHAPE
        | {"tie_word_embeddings": True, "max_position_embeddings": 1024}
        | longrope(6, 200, partial_rotary_factor=0.75),
        n_tokens=224,
        inert=_WINDOW,
        tokenizer="bpe-gpt2",
        dialect="old",
        dtype="bfloat16",
        reference=_NO_JSON,
    ),
    Case(
        id="phi3-json",
        hf="Phi3ForCausalLM",
        config=SHAPE,
        tokenizer="spm-llama-json",
        reference=_NO_JSON,
        inert=_INERT,
    ),
    Case(
        id="phimoe-plain",
        hf="PhiMoEForCausalLM",
        made_by="PhimoeForCausalLM",
        config=_MOE,
        tokenizer="spm-phi3",
        reference="looks for original_max_position_embeddings, also where the rope is plain",
        logits=_PHIMOE,
        shards=2,
    ),
    Case(
        id="phimoe-long",
        hf="PhiMoEForCausalLM",
        made_by="PhimoeForCausalLM",
        config=_MOE | longrope(8, 200, short_mscale=_MSCALE, long_mscale=_MSCALE, original_max_position_embeddings=200),
        tokenizer="spm-phi3",
        fill=as_llama_cpp_computes,
        dialect="old",
        n_tokens=224,
        inert=_WINDOW,
    ),
    Case(
        id="phimoe-short",
        hf="PhiMoEForCausalLM",
        made_by="PhimoeForCausalLM",
        config=_MOE | longrope(8, 256, short_mscale=_SHORT, long_mscale=_SHORT, original_max_position_embeddings=256),
        tokenizer="spm-phi3",
        fill=as_llama_cpp_computes,
        dtype="bfloat16",
        inert=_WINDOW,
    ),
    Case(
        id="phimoe-tied",
        hf="PhiMoEForCausalLM",
        made_by="PhimoeForCausalLM",
        config=_MOE | {"tie_word_embeddings": True, "num_key_value_heads": 4},
        tokenizer="spm-phi3",
        reference="looks for original_max_position_embeddings, also where the rope is plain",
        fill=as_llama_cpp_computes,
        dtype="bfloat16",
        shards=3,
        inert=_INERT,
    ),
)
