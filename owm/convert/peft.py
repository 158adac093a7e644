"""An adapter's folder as PEFT saves it: what its config says about scaling, and its matrices by module.

What asks for more than two matrices a module is refused by name; only safetensors are read. ref: PEFT
tuners/lora/config.py, layer.py
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owm.convert.checkpoint import read_json
from owm.errors import Damaged, NotFound, Unsupported
from owm.formats import safetensors
from owm.pipeline.rows import DType, FileRows, Rows
from owm.units import is_number

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FLOATS = ("F64", "F32", "F16", "BF16")
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<kind>A\.weight|B\.weight|embedding_A|embedding_B)")
_NORM = re.compile(r".*(_layernorm|\.norm|_norm)[^.]*\.weight")
_PLAIN_PATTERN = re.compile(r"\^?[\w.]+")
# Starting values that change the checkpoint's own weights too, which are not in the adapter.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
# What an adapter may ask for beside two matrices a module, and the values that ask for nothing.
_UNSUPPORTED = {
    "use_dora": "DoRA",
    "use_qalora": "QA-LoRA",
    "lora_bias": "a bias of its own",
    "alora_invocation_tokens": "an invocation (aLoRA)",
    "layer_replication": "layers that are replicated",
    "target_parameters": "parameters that are no module's",
    "trainable_token_indices": "single tokens that were trained",
    "megatron_config": "Megatron layers",
}


def base_of(folder: Path) -> str | None:
    """Return the checkpoint that an adapter says it adapts: a folder's path or a repo, None if it does not say.

    Raises:
        NotFound, MalformedFile: the folder holds no adapter.
    """
    base = read_config(folder).get("base_model_name_or_path")
    return base if isinstance(base, str) and base else None


@dataclass(frozen=True, slots=True)
class Settings:
    """What adapter_config.json says about scaling: B·A counts alpha / rank, by rsLoRA alpha / √rank.

    llama.cpp computes with `file_alpha` / rank for every module; what another scaling of a module makes of that is
    multiplied into its B.
    """

    file_alpha: float
    alpha: float
    alphas: Mapping[str, float]
    is_rank_stabilized: bool
    is_transposed: bool  # the layers keep their weights as (inputs, outputs)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Settings":
        kind = config.get("peft_type", "LORA")
        if kind != "LORA":
            raise Unsupported(
                f"owm cannot convert an adapter of type {_shown(kind)}", hint="LoRA is what llama.cpp has"
            )
        for key, what in _UNSUPPORTED.items():
            if config.get(key):
                raise Unsupported(f"the adapter has {what} ({key}), which llama.cpp does not compute")
        if config.get("bias", "none") != "none":
            raise Unsupported(
                f"the adapter changes biases too ({_shown(config['bias'])}), which llama.cpp cannot adapt"
            )
        if saved := config.get("modules_to_save"):
            raise Unsupported(
                f"the adapter replaces whole modules, which llama.cpp cannot: {_shown(saved)}",
                hint="merge it into the checkpoint with PEFT (`merge_and_unload`) and convert that",
            )
        start = config.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
            raise Unsupported(
                f"the adapter belongs to weights that {_shown(start)} changed, not to the published ones",
                hint="PEFT can save it for the published ones (`path_initial_model_for_weight_conversion`)",
            )
        alpha = _positive(config, "lora_alpha")
        is_stabilized = config.get("use_rslora") is True
        file_alpha = alpha * math.sqrt(_positive(config, "r")) if is_stabilized else alpha
        pattern = config.get("alpha_pattern") or {}
        if not isinstance(pattern, dict):
            raise Damaged(f"{CONFIG}: alpha_pattern should be an object")
        for key in pattern:
            if not _PLAIN_PATTERN.fullmatch(key):
                raise Unsupported(f"{CONFIG}: alpha_pattern has a regular expression: {_shown(key)}")
        alphas = {key: _positive(pattern, key) for key in pattern}
        return cls(file_alpha, alpha, alphas, is_stabilized, config.get("fan_in_fan_out") is True)

    def factor(self, module: str, rank: int) -> float:
        """Return what a module's B is to be multiplied with."""
        alpha = next((value for key, value in self.alphas.items() if _is_named(module, key)), self.alpha)
        return alpha * (math.sqrt(rank) if self.is_rank_stabilized else 1.0) / self.file_alpha


def _is_named(module: str, key: str) -> bool:
    """Tell whether a key of `alpha_pattern` means a module: its whole name after `^`, else the end of its name."""
    return module == key.removeprefix("^") or (not key.startswith("^") and module.endswith(f".{key}"))


def _positive(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if not is_number(value) or value <= 0:
        raise Damaged(f"{CONFIG}: {key} should be a number above 0: {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    return ascii(value)[:60]


def read_config(folder: Path) -> dict[str, Any]:
    """Read adapter_config.json.

    Raises:
        NotFound, MalformedFile: the folder holds no adapter.
    """
    if not (folder / CONFIG).is_file():
        raise NotFound(f"{folder} is no adapter: it has no {CONFIG}", hint="`--lora` takes a folder that PEFT saved")
    return read_json(folder / CONFIG)


def read_tensors(folder: Path) -> dict[str, Rows]:
    """Open the weights of an adapter; only the header is read.

    Raises:
        NotFound, MalformedFile, Unsupported: there are none that may be opened, or of another type than a float's.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        if path.with_suffix(".bin").exists():
            raise Unsupported(
                f"{folder} has its weights as a pickle, which can run code and is never opened",
                hint="PEFT saves safetensors with `save_pretrained(…, safe_serialization=True)`",
            )
        raise NotFound(f"{folder} is no adapter: it has no {path.name}")
    tensors: dict[str, Rows] = {}
    for entry in safetensors.read_header(path).tensors.values():
        if entry.dtype not in _FLOATS:
            raise Unsupported(f"{path.name} has a tensor of type {entry.dtype}: {entry.name}")
        dtype: DType = entry.dtype  # type: ignore[assignment]
        tensors[entry.name] = FileRows(path, entry.offset, entry.shape, dtype)
    return tensors


@dataclass(frozen=True, slots=True)
class Adapter:
    """The matrices of an adapter by module, A and B of each, and norms that it has whole."""

    linear: dict[str, tuple[Rows, Rows]]
    embeddings: dict[str, tuple[Rows, Rows]]
    norms: dict[str, Rows]


def group(tensors: Mapping[str, Rows]) -> Adapter:
    """Tell what each tensor is by its name.

    Raises:
        Unsupported: one is no factor of a LoRA, or no matrix.
        Damaged: two that belong together do not go together.
    """
    found: dict[tuple[str, bool], dict[str, Rows]] = {}
    adapter = Adapter({}, {}, {})
    for name, rows in tensors.items():
        if match := _FACTOR.fullmatch(name):
            key = match["module"].removeprefix(_PREFIX), "embedding" in match["kind"]
            found.setdefault(key, {})[re.sub("[^AB]", "", match["kind"])] = rows
        elif _NORM.fullmatch(name) and len(rows.shape) == 1:
            adapter.norms[name.removeprefix(_PREFIX)] = rows
        else:
            raise Unsupported(f"the adapter has a tensor that is no factor of a LoRA: {ascii(name)[1:-1][:120]}")
    for (module, is_embedding), pair in found.items():
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None:
            raise Damaged(f"the adapter has only one of the two factors of {module}")
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise Unsupported(f"{module} is adapted by a convolution, which llama.cpp does not compute")
        if a.shape[0] != b.shape[1] or not a.shape[0]:
            raise Damaged(f"the factors of {module} do not go together: {a.shape} and {b.shape}")
        (adapter.embeddings if is_embedding else adapter.linear)[module] = a, b
    return adapter
