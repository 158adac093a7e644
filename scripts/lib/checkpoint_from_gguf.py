"""Make SmolLM2's checkpoint (safetensors, bf16) from its model file: checkpoint_from_gguf.py MODEL FOLDER.

Runs in the environment of the proof of `owm convert`, which has torch and transformers.
"""

import sys
from pathlib import Path

import torch
import transformers
from tokenizers import pre_tokenizers


def main(model: Path, folder: Path) -> None:
    """Load and save weights, configs, tokenizer and chat template."""
    config = transformers.GgufConfig(dequantize=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        model.parent, gguf_file=model.name, quantization_config=config, dtype=torch.bfloat16
    )
    loaded.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    # As published: transformers gives every tokenizer from a model file GPT-2's steps, without the one for digits.
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
