"""Tiny checkpoints in which every tensor is random and every block matters, and their outputs by transformers."""

import json
import math
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from parity.case import Case, Config
from parity.dialects import to_old_dialect
from parity.vocabularies import KINDS, Shelf, special_ids

transformers.utils.logging.disable_progress_bar()

N_POSITIONS = 64
MAX_SHUFFLED_COSINE = 0.96
PEAK = (0.05, 0.9)  # mean of the largest attention weight; of 72 tokens an even share is 0.014


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, a prompt, and the rows that transformers gives for it."""

    folder: Path
    tokens: list[int]
    positions: np.ndarray  # which rows count
    expected: np.ndarray  # [n_tokens, n_vocab], or [n_tokens, n_embd] of an embedding model


def make(case: Case, shelf: Shelf, folder: Path) -> Checkpoint:
    """Make the checkpoint of a case in a folder that is not there yet.

    Raises:
        AssertionError: the context hardly matters to its output, so that it would prove nothing.
    """
    kind, files = KINDS[case.tokenizer], shelf.get(case.tokenizer)
    seed = zlib.crc32(case.id.encode())
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # of which new models take what `fill` only scales
    ids = special_ids(kind, files)
    model = _model(case, ids)
    fill(model, case, generator)
    model.save_pretrained(folder, max_shard_size=_shard_bytes(model, case))
    for file in files.iterdir():
        shutil.copy(file, folder)
    _rewrite(case, folder)
    for name, content in case.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")

    n_usable = ids["vocab_size"]
    tokens = torch.randint(0, n_usable, (case.n_tokens,), generator=generator).tolist()
    positions = torch.randperm(case.n_tokens, generator=generator)[:N_POSITIONS].numpy()
    model = model.to(torch.float32)
    expected = reference_logits(model, tokens, case.output)
    _require_that_context_matters(model, case, tokens, expected, generator)
    return Checkpoint(folder, tokens, positions, expected)


def reference_logits(model: Any, tokens: list[int], output: str = "logits") -> np.ndarray:
    """Return one row a token, computed in f32 with plain attention."""
    with torch.inference_mode():
        result = model(input_ids=torch.tensor([tokens]))
    rows = result.logits if output == "logits" else result.last_hidden_state
    return rows[0].to(torch.float32).numpy()


def fill(model: Any, case: Case, generator: torch.Generator) -> None:
    """Make every tensor random; what is constant when new stays around that constant: gains, biases."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    transposed = {id(module.weight) for module in model.modules() if type(module).__name__ == "Conv1D"}
    saved = model.state_dict().keys()
    with torch.no_grad():
        tensors = [*model.named_parameters(), *(pair for pair in model.named_buffers() if pair[0] in saved)]
        for name, tensor in tensors:
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if id(tensor) in embeddings:
                tensor.copy_(noise * case.embed_std)
            elif tensor.ndim > 1 and min(tensor.shape[-2:]) > 1 and not name.endswith("bias"):
                fan_in = tensor.shape[-2] if id(tensor) in transposed else tensor.shape[-1]
                tensor.copy_(noise * case.gain / math.sqrt(fan_in))
            elif name.endswith("sinks"):
                tensor.copy_(noise)
            elif tensor.min() == tensor.max():
                tensor.add_(noise * 0.3)
            else:
                tensor.mul_(1 + noise * 0.2)
        if case.fill:
            case.fill(model, generator)
        # The weights that are saved are those that are computed with.
        for _, tensor in tensors:
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(getattr(torch, case.dtype)))


def _model(case: Case, ids: dict[str, int]) -> Any:
    cls = getattr(transformers, case.made_by or case.hf)
    given = dict(case.config)
    nested = given.get("text_config")
    ids = ids | {"vocab_size": ids["vocab_size"] + case.pad_vocab}
    if nested is not None:
        given["text_config"] = ids | dict(nested)
    else:
        given = ids | given
    config = cls.config_class(**given)
    # The class's own ids are those of a published vocabulary.
    for part in (config, getattr(config, "text_config", None)):
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if isinstance(value := getattr(part, key, None), int) and value >= ids["vocab_size"]:
                setattr(part, key, None)
    return cls._from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


def _shard_bytes(model: Any, case: Case) -> int:
    total = sum(tensor.numel() * 4 for tensor in model.state_dict().values())
    return total + 1 if case.shards == 1 else max(1, total // case.shards)


def _rewrite(case: Case, folder: Path) -> None:
    """Give config.json its dialect, the tensors their type, and both to the hook of the case."""
    path = folder / "config.json"
    config: Config = json.loads(path.read_text(encoding="utf-8"))
    config["architectures"] = [case.hf]
    config["dtype"] = case.dtype
    if case.rewrite:
        tensors = {
            name: each for file in sorted(folder.glob("*.safetensors")) for name, each in load_file(file).items()
        }
        tensors, config = case.rewrite(tensors, config)
        for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
            file.unlink()
        tensors = {name: _typed(each, case) for name, each in tensors.items()}
        _save_shards(folder, tensors, case.shards)
    else:
        for file in sorted(folder.glob("*.safetensors")):
            save_file({name: _typed(each, case) for name, each in load_file(file).items()}, file, {"format": "pt"})
    if case.dialect == "old":
        config = to_old_dialect(config)
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _typed(tensor: torch.Tensor, case: Case) -> torch.Tensor:
    # Only what the model had in f32: a hook may have made blocks, scales or fp8.
    return tensor.to(getattr(torch, case.dtype)).contiguous() if tensor.dtype == torch.float32 else tensor.contiguous()


def _save_shards(folder: Path, tensors: dict[str, torch.Tensor], n: int) -> None:
    names = list(tensors)
    if n == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    places = {}
    for i in range(n):
        file = f"model-{i + 1:05}-of-{n:05}.safetensors"
        part = {name: tensors[name] for name in names[i::n]}
        places |= dict.fromkeys(part, file)
        save_file(part, folder / file, {"format": "pt"})
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _require_that_context_matters(
    model: Any, case: Case, tokens: list[int], expected: np.ndarray, generator: torch.Generator
) -> None:
    """Stop unless the order of earlier tokens counts, and attention is neither flat nor on one token only."""
    assert np.isfinite(expected).all(), "transformers computes no numbers"
    order = torch.randperm(len(tokens) - 1, generator=generator).tolist()
    shuffled = reference_logits(model, [*(tokens[i] for i in order), tokens[-1]], case.output)[-1]
    cosine = float(expected[-1] @ shuffled / np.linalg.norm(expected[-1]) / np.linalg.norm(shuffled))
    hint = "raise gain or lower embed_std"
    assert cosine < MAX_SHUFFLED_COSINE, f"the order of tokens hardly matters: cosine {cosine:.3f}; {hint}"
    with torch.inference_mode():
        attentions = model(input_ids=torch.tensor([tokens]), output_attentions=True).get("attentions") or ()
    for i, weights in enumerate(attentions):
        if weights is None:  # a layer without attention
            continue
        share = float(weights[0, :, len(tokens) // 2 :, :].amax(-1).mean())
        assert PEAK[0] < share < PEAK[1], f"layer {i}: attention gives {share:.3f} to the first token in rank"
