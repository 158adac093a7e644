"""Twins of SmolLM2's checkpoint: other weights, the same function. twins.py CHECKPOINT FOLDER makes both in FOLDER.

SmolLM2 can be had only as Q4_1, so its weights lie on that type's grid, and quantizing them again is unnaturally kind.
The permuted twin has them in another order, in which no quant block has one grid; the wide twin is the permuted one in
zeros up to a width that K types divide.
"""

import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

PERMUTED, WIDE = "SmolLM2-135M-permuted", "SmolLM2-135M-768-wide"
WIDE_HIDDEN, WIDE_KV_HEADS = 768, 4
_SEED = 20260

Array = np.ndarray
Tensors = dict[str, Array]  # bf16 as uint16, all else as float32


def permuted_twin(checkpoint: Path, work: Path) -> Path:
    """Return the folder of the permuted twin, which is made if it is not there."""
    return _made(checkpoint, work / PERMUTED, permute)


def wide_twin(checkpoint: Path, work: Path) -> Path:
    """Return the folder of the 768-wide twin, which is made if it is not there."""
    return _made(checkpoint, work / WIDE, lambda tensors, config: widen(*permute(tensors, config)))


def permute(tensors: Tensors, config: dict[str, object]) -> tuple[Tensors, dict[str, object]]:
    """Reorder the hidden dimension, each FFN's, and each KV head's values."""
    generator = np.random.default_rng(_SEED)
    hidden = generator.permutation(int(config["hidden_size"]))
    made = {"model.embed_tokens.weight": tensors["model.embed_tokens.weight"][:, hidden]}
    n_groups = int(config["num_attention_heads"]) // int(config["num_key_value_heads"])
    for layer in range(int(config["num_hidden_layers"])):
        block = f"model.layers.{layer}."
        inner = generator.permutation(int(config["intermediate_size"]))
        values = [generator.permutation(int(config["head_dim"])) for _ in range(int(config["num_key_value_heads"]))]
        begins = np.arange(len(values)) * int(config["head_dim"])
        v_rows = np.concatenate([begin + order for begin, order in zip(begins, values, strict=True)])
        # Query heads of one KV head are neighbours, and see its values in its order.
        heads = [order for order in values for _ in range(n_groups)]
        o_columns = np.concatenate([number * len(order) + order for number, order in enumerate(heads)])
        for norm in ("input_layernorm", "post_attention_layernorm"):
            made[f"{block}{norm}.weight"] = tensors[f"{block}{norm}.weight"][hidden]
        for name, rows, columns in (
            ("self_attn.q_proj", None, hidden),
            ("self_attn.k_proj", None, hidden),
            ("self_attn.v_proj", v_rows, hidden),
            ("self_attn.o_proj", hidden, o_columns),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            matrix = tensors[f"{block}{name}.weight"]
            made[f"{block}{name}.weight"] = (matrix if rows is None else matrix[rows])[:, columns]
    made["model.norm.weight"] = tensors["model.norm.weight"][hidden]
    return made, config


def widen(tensors: Tensors, config: dict[str, object]) -> tuple[Tensors, dict[str, object]]:
    """Pad hidden dimension and heads with zeros; the norms' gains and epsilon make up for the smaller mean square."""
    narrow, head_dim = int(config["hidden_size"]), int(config["head_dim"])
    n_heads = int(config["num_attention_heads"]) // int(config["num_key_value_heads"]) * WIDE_KV_HEADS
    share = narrow / WIDE_HIDDEN
    shapes = {
        "q_proj": (n_heads * head_dim, WIDE_HIDDEN), "k_proj": (WIDE_KV_HEADS * head_dim, WIDE_HIDDEN),
        "v_proj": (WIDE_KV_HEADS * head_dim, WIDE_HIDDEN), "o_proj": (WIDE_HIDDEN, n_heads * head_dim),
        "gate_proj": (None, WIDE_HIDDEN), "up_proj": (None, WIDE_HIDDEN), "down_proj": (WIDE_HIDDEN, None),
        "embed_tokens": (None, WIDE_HIDDEN),
    }  # fmt: skip
    made = {}
    for name, tensor in tensors.items():
        kind = name.split(".")[-2]
        if kind in shapes:
            sizes = [new or old for new, old in zip(shapes[kind], tensor.shape, strict=True)]
            made[name] = np.pad(tensor, [(0, new - old) for new, old in zip(sizes, tensor.shape, strict=True)])
        else:
            gains = _widen_bits(tensor).astype(np.float64) * share**0.5
            made[name] = np.pad(gains.astype(np.float32), (0, WIDE_HIDDEN - narrow))
    changed = {
        "hidden_size": WIDE_HIDDEN, "num_attention_heads": n_heads, "num_key_value_heads": WIDE_KV_HEADS,
        "rms_norm_eps": float(config["rms_norm_eps"]) * share,
    }  # fmt: skip
    return made, config | changed


def _made(
    checkpoint: Path,
    folder: Path,
    change: Callable[[Tensors, dict[str, object]], tuple[Tensors, dict[str, object]]],
) -> Path:
    if folder.exists():
        return folder
    making = folder.with_name(folder.name + ".incomplete")
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(checkpoint, making, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    tensors, config = change(_read(checkpoint / "model.safetensors"), config)
    (making / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write(making / "model.safetensors", tensors)
    making.rename(folder)
    return folder


def _widen_bits(tensor: Array) -> Array:
    return (tensor.astype(np.uint32) << 16).view(np.float32) if tensor.dtype == np.uint16 else tensor


def _read(path: Path) -> Tensors:
    with open(path, "rb") as file:
        (n_header,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(n_header))
        found = {}
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            file.seek(8 + n_header + begin)
            dtype = {"BF16": "<u2", "F32": "<f4"}[entry["dtype"]]
            found[name] = np.frombuffer(file.read(end - begin), dtype).reshape(entry["shape"])
    return found


def _write(path: Path, tensors: Tensors) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        dtype = {"uint16": "BF16", "float32": "F32"}[tensor.dtype.name]
        end = offset + tensor.nbytes
        entries[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).data)


def main(checkpoint: Path, folder: Path) -> None:
    """Make both and say where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    print(permuted_twin(checkpoint, folder))
    print(wide_twin(checkpoint, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
