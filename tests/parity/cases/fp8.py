"""Published 8-bit checkpoints: of every kind of scale."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from parity.case import SHAPE, Case, Config, Tensors
from parity.cases.deepseek import BASE, GROUPS, VALUES, published_v3, yarn

LARGEST = 448.0  # of float8_e4m3
QUANTIZED = ("_proj.weight", "_proj_with_mqa.weight", "experts.gate_up_proj", "experts.down_proj")


@dataclass(frozen=True)
class Scales:
    """Weights in blocks of rows and columns, each with a scale; None stands for all there are.

    A scale has few enough bits for the product to be exact: so a block is found again in what the model computes with.
    """

    rows: int | None
    columns: int | None
    suffix: str = "_scale_inv"
    dtype: torch.dtype = torch.float32
    shape: Callable[[torch.Tensor], torch.Tensor] = lambda scales: scales

    def fill(self, model: Any, generator: torch.Generator) -> None:
        """Round the weights of a model to what the checkpoint can say."""
        for name, tensor in model.named_parameters():
            if name.endswith(QUANTIZED):
                halves = 2 if name.endswith("experts.gate_up_proj") else 1  # they are saved one by one
                for matrix in [part for each in tensor.reshape(-1, *tensor.shape[-2:]) for part in each.chunk(halves)]:
                    for block in self._blocks(matrix):
                        scale = (block.abs().max() / LARGEST).to(torch.bfloat16).float()
                        block[:] = (block / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).float() * scale
                        # The largest is the largest number there is, so that the scale is found again.
                        at = divmod(int(block.abs().argmax()), block.shape[1])
                        block[at] = block[at].sign() * LARGEST * scale

    def rewrite(self, tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
        """Save weights as 8-bit floats with their scales."""
        made = {}
        for name, each in tensors.items():
            if not name.endswith(QUANTIZED[:2]):
                made[name] = each
                continue
            quantized = torch.empty(each.shape, dtype=torch.float8_e4m3fn)
            scales = []
            for block, target in zip(self._blocks(each), self._blocks(quantized), strict=True):
                scales.append(block.abs().max() / LARGEST)
                target[:] = (block / scales[-1]).to(torch.float8_e4m3fn)
                assert (target.float() * scales[-1] == block).all(), name
            n_rows = -(-each.shape[0] // (self.rows or each.shape[0]))
            made[name] = quantized
            made[name + self.suffix] = self.shape(torch.stack(scales).reshape(n_rows, -1)).to(self.dtype)
        return made, config

    def _blocks(self, matrix: torch.Tensor) -> Iterator[torch.Tensor]:
        for rows in matrix.split(self.rows or matrix.shape[0]):
            yield from rows.split(self.columns or matrix.shape[1], dim=1)


def fp8(scales: Scales, block: list[int] | None) -> Callable[[Tensors, Config], tuple[Tensors, Config]]:
    """Save as DeepSeek does."""
    settings = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": block}

    def rewrite(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
        made, config = scales.rewrite(tensors, config)
        return made, config | {"quantization_config": {key: each for key, each in settings.items() if each}}

    return rewrite


def compressed(scales: Scales, **weights: object) -> Callable[[Tensors, Config], tuple[Tensors, Config]]:
    """Save as compressed-tensors does, with a scale for activations too."""
    kind = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False, "group_size": None, **weights}
    settings = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": kind, "input_activations": None}},
        "ignore": ["lm_head"],
    }

    def rewrite(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
        made, config = scales.rewrite(tensors, config)
        return made, config | {"quantization_config": settings}

    return rewrite


def r1(tensors: Tensors, config: Config) -> tuple[Tensors, Config]:
    """Save as DeepSeek-R1 is published; the layer that predicts a further token stays as it is."""
    tensors, config = published_v3(tensors, config)
    n_layers = config["num_hidden_layers"]
    more = {name: tensors.pop(name) for name in list(tensors) if name.startswith(f"model.layers.{n_layers}.")}
    tensors, config = fp8(R1_BLOCKS, [24, 40])(tensors, config)
    return tensors | more, config


R1_BLOCKS = Scales(24, 40)  # divide neither heads nor widths
WHOLE = Scales(None, None, shape=lambda scales: scales.reshape(()))
WHOLE_LIST = Scales(None, None, "_scale", torch.bfloat16, lambda scales: scales.reshape(1))
ROWS = Scales(1, None, "_scale", torch.bfloat16)
BLOCKS = Scales(16, 32, "_scale")

CASES = (
    Case(
        id="fp8-deepseek-r1",
        hf="DeepseekV3ForCausalLM",
        config=BASE | GROUPS | {"qk_rope_head_dim": 16, "rope_parameters": yarn(1.0)},
        tokenizer="bpe-deepseek3",
        fill=R1_BLOCKS.fill,
        rewrite=r1,
        dialect="old",
        shards=3,
        inert=VALUES | {f"rope.scaling.yarn_{key}": "llama.cpp does not read it" for key in ("beta_fast", "beta_slow")},
    ),
    Case(
        id="fp8-whole",
        hf="LlamaForCausalLM",
        config=SHAPE,
        tokenizer="bpe-llama3",
        fill=WHOLE.fill,
        rewrite=fp8(WHOLE, None),
    ),
    Case(
        id="fp8-whole_list",
        hf="LlamaForCausalLM",
        config=SHAPE | {"attention_bias": True},
        tokenizer="spm-llama",
        fill=WHOLE_LIST.fill,
        rewrite=compressed(WHOLE_LIST, strategy="tensor"),
        reference="takes scales of rows and of blocks only",
    ),
    Case(
        id="fp8-rows",
        hf="LlamaForCausalLM",
        config=SHAPE,
        tokenizer="spm-llama",
        fill=ROWS.fill,
        rewrite=compressed(ROWS, strategy="channel"),
        shards=2,
    ),
    Case(
        id="fp8-blocks",
        hf="LlamaForCausalLM",
        config=SHAPE | {"tie_word_embeddings": True},
        tokenizer="bpe-llama3",
        fill=BLOCKS.fill,
        rewrite=compressed(BLOCKS, strategy="block", block_structure=[16, 32]),
    ),
)
