"""Which type each tensor of a model gets: llama.cpp's own recipe for a quantization type, and what the user wants."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from owm.errors import Damaged, UsageError
from owm.formats.gguf import TENSOR_TYPES
from owm.native import quants
from owm.native.guard import Child, Mixture
from owm.pipeline.hollow import hollow_file
from owm.pipeline.plan import Plan
from owm.quantize import types
from owm.quantize.prune import prune

_BLOCK_VALUES = {name: values for name, values, _ in TENSOR_TYPES.values()}


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the user wants otherwise than the recipe.

    Attributes:
        tensor_types: (regular expression found in the tensor's name, tensor type), the first that fits wins.
        output_type, embedding_type: tensor types of `output.weight` and of the token embeddings.
        is_pure: the type's own tensor type everywhere, no mixture.
        pruned: blocks to leave out; the others move up.
    """

    tensor_types: tuple[tuple[str, str], ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    is_pure: bool = False
    pruned: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The type of a tensor, and why."""

    type_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """The type of every tensor of a model; names are those after pruning. `type_name` is the file's."""

    type_name: str
    choices: dict[str, Choice]
    needs_imatrix: bool = False


def parse_tensor_type(text: str) -> tuple[str, str]:
    """Read `REGEX=TYPE`.

    Raises:
        UsageError: it is something else.
    """
    pattern, equals, type_name = text.rpartition("=")
    if not equals or not pattern:
        raise UsageError(f"--tensor-type is not REGEX=TYPE: {text}", hint=r"write it like `attn_v=Q6_K`")
    return pattern, types.tensor_type(type_name)


def stock_recipes(
    source: Plan, type_names: Sequence[str], overrides: Overrides, child: Child, *, has_imatrix: bool
) -> list[Recipe]:
    """Ask the installed llama.cpp for its recipes, for each quantization type.

    Raises:
        Damaged: llama.cpp does not take the source's header.
        UsageError: an override is no regular expression, or there is nothing of what it names.
    """
    with hollow_file(source) as path, ThreadPoolExecutor(1) as pool:
        mixtures = [_mixture(type_name, overrides, has_imatrix=has_imatrix) for type_name in type_names]
        answers = [pool.submit(child.recipe, path, mixture) for mixture in mixtures]
        try:
            import owm.pipeline.writer  # noqa: F401 (what is needed next: now there is time to load it)

            quants.type_ids()
            recipes = [answer.result() for answer in answers]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            child.close()  # whoever interrupts does not wait for it
            raise
        made = []
        for type_name, found in zip(type_names, recipes, strict=True):
            if found.error and "regular expression" in found.error:
                raise UsageError(f"--tensor-type has no valid regular expression: {found.error}")
            if found.error and "fallback" in found.error:
                raise UsageError(
                    f"{type_name} cannot be made of this model, whose rows it does not divide: {found.error}",
                    hint="take another type, or `--tensor-type REGEX=TYPE` for the tensors that it does not fit",
                )
            if found.error:
                raise Damaged(f"llama.cpp has no recipe for this model: {found.error}")
            choices = {
                tensor.name: Choice(tensor.type_name, _reason(tensor.type_name, tensor.instead_of, tensor.is_override))
                for tensor in found.tensors
            }
            made.append(Recipe(type_name, choices, found.needs_imatrix))
    return made


def _mixture(type_name: str, overrides: Overrides, *, has_imatrix: bool) -> Mixture:
    def number(name: str | None) -> int | None:
        return None if name is None else quants.type_ids()[name]

    return Mixture(
        types.FILE_TYPE_IDS[type_name],
        tuple((pattern, quants.type_ids()[name]) for pattern, name in overrides.tensor_types),
        number(overrides.output_type),
        number(overrides.embedding_type),
        is_pure=overrides.is_pure,
        has_imatrix=has_imatrix,
        pruned=overrides.pruned,
    )


def check_overrides(overrides: Overrides, source: Plan) -> None:
    """Refuse overrides that name nothing in this model.

    Raises:
        UsageError: a pattern that fits no tensor, or a block that is not there.
    """
    names = [tensor.name for tensor in source.tensors]
    n_blocks = 1 + max((int(found[1]) for name in names if (found := re.match(r"blk\.(\d+)\.", name))), default=-1)
    for block in overrides.pruned:
        if not 0 <= block < n_blocks:
            raise UsageError(f"--prune-layers: there is no layer {block}, the model has {n_blocks} (from 0)")
    if len(set(overrides.pruned)) >= n_blocks > 0:
        raise UsageError("--prune-layers would leave no layer")
    names = list(prune(source, overrides.pruned)[1])  # as llama.cpp numbers layers: what is left, from 0
    for pattern, type_name in overrides.tensor_types:
        try:
            fits = any(re.search(pattern, name) for name in names)
        except re.error:
            continue  # llama.cpp's own expressions are another dialect: let it decide
        if not fits:
            raise UsageError(
                f"--tensor-type fits no tensor of this model: {pattern}={type_name}",
                hint="`--dry-run` prints the names of all tensors",
            )


def _reason(type_name: str, instead_of: str | None, is_override: bool) -> str:
    if instead_of is not None and not is_override:
        return f"fallback from {instead_of}, blocks of {_BLOCK_VALUES[instead_of]}"
    return "override" if is_override else "recipe"
