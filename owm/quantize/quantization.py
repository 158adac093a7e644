"""From a planned model in its own types to the same model quantized: which tensor becomes what, by which weights."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from owm.errors import UsageError
from owm.formats.gguf import TENSOR_TYPES
from owm.formats.gguf_writer import TYPE_IDS, Value
from owm.formats.imatrix import Imatrix, check
from owm.native import quants
from owm.native.guard import Child
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import QUANT_BLOCKS, path_of
from owm.quantize import types
from owm.quantize.prune import prune
from owm.quantize.recipe import Choice, Overrides, Recipe, check_overrides, stock_recipes

STAGE = "quantize"
QUANTIZATION_VERSION = 2  # ref: ggml.h, GGML_QNT_VERSION
# ref: llama.cpp src/llama-quant.cpp, tensor_requires_imatrix
_NEEDS_IMATRIX = ("IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S")
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")
_HINT_IMATRIX = "`--imatrix auto` computes one, `--imatrix FILE` takes one"


@dataclass(frozen=True, slots=True)
class Layout:
    """In how many files: of at most `split_max_bytes` each, or as many as the source's tensors lie in."""

    split_max_bytes: int | None = None
    keeps_split: bool = False


@dataclass(frozen=True, slots=True)
class Quantization:
    """A planned quantization: what to write, and by which recipe; `label` is the type people type."""

    plan: Plan
    recipe: Recipe
    label: str
    weights_sha256: str = ""


def default_type(source: Plan) -> str:
    """Return the type a model gets if none is named: experts that were published as MXFP4 stay what they are."""
    return "MXFP4_MOE" if any(tensor.rows.dtype == "MXFP4" for tensor in source.tensors) else types.DEFAULT


def plan_quantizations(
    source: Plan,
    type_names: Sequence[str],
    child: Child,
    *,
    overrides: Overrides | None = None,
    imatrix: Imatrix | None = None,
    assumed: Imatrix | None = None,
    allow_requantize: bool = False,
    layout: Layout | None = None,
    metadata: Mapping[str, Value] | None = None,
) -> list[Quantization]:
    """Plan a model in several types by llama.cpp's recipes; they can be written from one reading.

    Args:
        source: the model in the types it has, from a checkpoint or a model file.
        child: asks llama.cpp.
        assumed: for a plan that is only shown, what will be said of an importance matrix that has yet to be computed.
        allow_requantize: whether tensors that are quantized may be quantized again.
        metadata: keys to add to each file.

    Raises:
        UsageError: a type, an override or an importance matrix that does not go with this model.
        Damaged: llama.cpp does not take the source's header.
    """
    wanted = overrides or Overrides()
    check_overrides(wanted, source)
    recipes = stock_recipes(source, type_names, wanted, child, has_imatrix=(imatrix or assumed) is not None)
    return [
        apply_recipe(
            source,
            recipe,
            pruned=wanted.pruned,
            imatrix=imatrix,
            assumed=assumed,
            allow_requantize=allow_requantize,
            layout=layout,
            metadata=metadata,
        )
        for recipe in recipes
    ]


def apply_recipe(
    source: Plan,
    recipe: Recipe,
    *,
    pruned: Sequence[int] = (),
    imatrix: Imatrix | None = None,
    assumed: Imatrix | None = None,
    allow_requantize: bool = False,
    layout: Layout | None = None,
    metadata: Mapping[str, Value] | None = None,
    label: str | None = None,
) -> Quantization:
    """Plan a model by a recipe for all its tensors; see `plan_quantizations`.

    Raises:
        UsageError: the recipe is another model's, or needs an importance matrix that is not there.
    """
    if imatrix is not None:
        check(imatrix, {tensor.name: _matrices(tensor) for tensor in source.tensors})
    if recipe.needs_imatrix and (imatrix or assumed) is None:
        raise UsageError(f"{_needing(recipe)} needs an importance matrix", hint=_HINT_IMATRIX)
    smaller, names = prune(source, pruned)
    missing = [tensor.name for tensor in smaller.tensors if tensor.name not in recipe.choices]
    if missing:
        raise UsageError(f"the recipe has nothing for a tensor of this model: {missing[0]}")
    tensors, sha = [], hashlib.sha256()
    for tensor in smaller.tensors:
        made = _choose(tensor, recipe.choices[tensor.name], allow_requantize=allow_requantize)
        _check_rows(made)
        if made.type_name in QUANT_BLOCKS and made.type_name != made.rows.dtype:
            if imatrix is not None or assumed is None:
                made = replace(made, weights=_weights(made, names[tensor.name], recipe, imatrix))
            sha.update(b"" if made.weights is None else made.weights.tobytes())
        tensors.append(made)
    added: dict[str, Value] = {
        "general.file_type": types.FILE_TYPE_IDS[recipe.type_name],
        "general.quantization_version": QUANTIZATION_VERSION,
        **_about(imatrix or assumed),
        **(metadata or {}),
    }
    weights, place = sha.hexdigest(), layout or Layout()
    plan = make_plan(
        {**smaller.metadata, **added},
        tensors,
        split_max_bytes=place.split_max_bytes,
        parts=_parts(tensors) if place.keeps_split else None,
        origin=f"{smaller.origin} {weights}",
    )
    return Quantization(plan, recipe, label or recipe.type_name, weights)


def _needing(recipe: Recipe) -> str:
    """Name what cannot be made without an importance matrix: a tensor with a type of its own, or the whole type."""
    for name, choice in recipe.choices.items():
        if choice.reason == "override" and choice.type_name in _NEEDS_IMATRIX:
            return f"{name} as {choice.type_name}"
    return recipe.type_name


def _parts(tensors: Sequence[PlannedTensor]) -> list[int]:
    """Number the files that tensors come from; what comes from none lies where the tensor before it does."""
    paths: list[Path | None] = []
    for tensor in tensors:
        paths.append(path_of(tensor.rows) or (paths[-1] if paths else None))
    first = next((path for path in paths if path is not None), None)
    found = [path or first for path in paths]
    numbers = {path: number for number, path in enumerate(dict.fromkeys(found))}
    return [numbers[path] for path in found]


def _choose(tensor: PlannedTensor, choice: Choice, *, allow_requantize: bool) -> PlannedTensor:
    """Give a tensor its type. What a recipe leaves as it is keeps the type it was planned in."""
    if choice.type_name == tensor.type_name or tensor.rows.dtype not in QUANT_BLOCKS:
        kept = choice.type_name == tensor.type_name and choice.reason == "recipe"
        return replace(tensor, type_name=choice.type_name, reason=tensor.reason if kept else choice.reason)
    if tensor.rows.dtype == "MXFP4" and not allow_requantize and choice.reason not in ("override", "tailored"):
        return replace(tensor, reason="kept as published")
    if not allow_requantize:
        raise UsageError(
            f"{tensor.name} is quantized already ({tensor.rows.dtype}), and quantizing it again loses more",
            hint="quantize the original weights, or say `--allow-requantize`",
        )
    return replace(tensor, type_name=choice.type_name, reason=f"{choice.reason}, quantized again")


def _check_rows(tensor: PlannedTensor) -> None:
    """Refuse a type that a tensor's rows do not divide into blocks of: an override's or a recipe's, never llama.cpp's.

    Raises:
        UsageError: it is such.
    """
    _, n_values, _ = TENSOR_TYPES[TYPE_IDS[tensor.type_name]]
    width, _ = _matrices(tensor)
    if width % n_values:
        raise UsageError(
            f"{tensor.name} cannot be {tensor.type_name}: its rows of {width} do not divide into blocks of {n_values}",
            hint="choose another type for it",
        )


def _matrices(tensor: PlannedTensor) -> tuple[int, int]:
    """Return the row length and the number of matrices."""
    shape = tensor.rows.shape
    return shape[-1] if shape else 1, shape[-3] if len(shape) > 2 else 1


def _weights(tensor: PlannedTensor, name: str, recipe: Recipe, imatrix: Imatrix | None) -> "quants.Array | None":
    """Return the importance of the tensor's columns.

    Raises:
        UsageError: there is none, and the type cannot be made without.
    """
    width, n_matrices = _matrices(tensor)
    weights = None if imatrix is None else imatrix.weights(name, width=width)
    if weights is not None and len(weights) != n_matrices:
        weights = None  # of the embeddings: `check` has seen the others
    if weights is not None:
        return weights
    is_low = tensor.type_name in _NEEDS_IMATRIX or (tensor.type_name == "Q2_K" and recipe.type_name == "Q2_K_S")
    if (is_low and tensor.name not in _EMBEDDINGS) or quants.requires_weights(tensor.type_name):
        why = "there is none" if imatrix is None else "the one given has nothing for it"
        raise UsageError(
            f"{tensor.name} as {tensor.type_name} needs an importance matrix, and {why}", hint=_HINT_IMATRIX
        )
    return None


def _about(imatrix: Imatrix | None) -> dict[str, Value]:
    """Say which importance matrix was used. ref: llama.cpp tools/quantize/quantize.cpp"""
    if imatrix is None:
        return {}
    about: dict[str, Value] = {"quantize.imatrix.entries_count": len(imatrix.entries)}
    if imatrix.path is not None:
        about["quantize.imatrix.file"] = imatrix.path.name
    if imatrix.datasets:
        about["quantize.imatrix.dataset"] = imatrix.datasets[0][:127]
    if imatrix.n_chunks > 0:
        about["quantize.imatrix.chunks_count"] = imatrix.n_chunks
    return about
