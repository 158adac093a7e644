"""Hunyuan, dense."""

from parity.case import SHAPE, Case
from parity.cases.deepseek import with_other_output

STRETCHED = {"rope_type": "dynamic", "alpha": 40.0, "factor": 1.0, "rope_theta": 10000.0}
UNSCALED = {
    "rope.scaling.type": "there is no factor",
    "rope.scaling.factor": "llama.cpp does not use it without a kind of scaling",
    "rope.scaling.original_context_length": "llama.cpp does not use it without a kind of scaling",
}

CASES = (
    Case(
        id="hunyuan-gqa",
        hf="HunYuanDenseV1ForCausalLM",
        config=SHAPE | {"head_dim": 16, "eod_token_id": 1},
        tokenizer="bpe-deepseek3",
        dtype="bfloat16",
        shards=2,
    ),
    Case(
        id="hunyuan-tied",
        hf="HunYuanDenseV1ForCausalLM",
        config=SHAPE | {"head_dim": 24, "num_key_value_heads": 4, "tie_word_embeddings": True, "eod_token_id": 1},
        tokenizer="bpe-deepseek3",
        rewrite=with_other_output,
    ),
    Case(
        id="hunyuan-stretched",
        hf="HunYuanDenseV1ForCausalLM",
        config=SHAPE
        | {"head_dim": 24, "max_position_embeddings": 32768, "rope_parameters": STRETCHED, "eod_token_id": 1},
        tokenizer="bpe-deepseek3",
        rewrite=lambda tensors, config: (tensors, config | {"use_qk_norm": True, "use_cla": False, "num_experts": 1}),
        files={"generation_config.json": '{"eos_token_id": [2, 1], "top_k": 20, "top_p": 0.8, "temperature": 0.7}'},
        dialect="old",
        dtype="float16",
        inert=UNSCALED,
    ),
    Case(
        id="hunyuan-stretched_short",
        hf="HunYuanDenseV1ForCausalLM",
        config=SHAPE | {"head_dim": 16, "rope_parameters": STRETCHED | {"rope_theta": 300.0}, "eod_token_id": 1},
        tokenizer="bpe-deepseek3",
        reference="takes only one base and two lengths of context",
        inert={key: UNSCALED[key] for key in ("rope.scaling.type", "rope.scaling.factor")},
    ),
)
