"""A LoRA adapter as PEFT saves it, to one that llama.cpp loads beside the model file of the checkpoint it adapts.

What is adapted is a matrix W, to which the adapter adds B·A. The architecture's rules for W are run on a stand-in that
has W's shape and nothing in it; what they built of it is then read back and done to A and B instead: what moved rows of
W moves rows of B, a transpose swaps the two. ref: llama.cpp convert_lora_to_gguf.py; src/llama-adapter.cpp
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from owm.convert import facts, tensor_types, transforms
from owm.convert.architectures.base import Architecture
from owm.convert.architectures.registry import architecture_of
from owm.convert.checkpoint import Checkpoint, open_checkpoint, read_json
from owm.convert.conversion import QUANTIZATION_VERSION, STAGE, TYPES, block_count, language_tensors, name_map
from owm.convert.hparams import Config, evaluate
from owm.convert.peft import CONFIG, WEIGHTS, Adapter, Settings, group, read_config, read_tensors
from owm.convert.rules import Tensors
from owm.errors import Damaged, NotFound, OwmError, Unsupported, UsageError
from owm.events import Sink, Warned, ignore
from owm.formats.gguf_writer import Value
from owm.pipeline import writer
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.rows import (
    Array,
    DType,
    JoinedRows,
    MappedRows,
    PickedRows,
    ReshapedRows,
    Rows,
    SlicedRows,
    TransposedRows,
    n_rows,
)
from owm.pipeline.values import widened
from owm.pipeline.writer import Written

# Tensors that llama.cpp multiplies with past any adapter. ref: llama.cpp src/models/deepseek2.cpp, gemma3n.cpp
_PAST_ADAPTERS = re.compile(
    r".* blk\.\d+\.(attn_(q_a|q_b|kv_a_mqa|kv_b|k_b|v_b)|altup_router)\.weight|.* altup_(proj|unembd_proj)\.weight"
    r"|deepseek2 (blk\.\d+\.attn_q|output)\.weight"
)


@dataclass(frozen=True, slots=True)
class AdapterConversion:
    """A planned conversion of an adapter; `checkpoint` is the adapter's folder and files with the base's config."""

    checkpoint: Checkpoint
    architecture: Architecture
    plan: Plan
    type_name: str
    warnings: tuple[str, ...]

    @property
    def label(self) -> str:
        """The type of the file."""
        return self.type_name


def plan_adapter(folder: Path, base: Path, *, type_name: str = "auto") -> AdapterConversion:
    """Find out from headers and configs alone what the conversion of an adapter will write.

    Args:
        folder: what PEFT saved: `adapter_config.json` and `adapter_model.safetensors`.
        base: a folder with the config.json of the checkpoint that is adapted; its weights are compared if they are
            there, and not needed.
        type_name: `F32`, `F16`, `BF16`, or `auto` for the adapter's own.

    Raises:
        NotFound: one of the folders is not what it should be.
        Unsupported: the adapter does something that llama.cpp does not, or adapts what is no matrix there.
        Damaged: the adapter contradicts itself or the base.
    """
    wanted = type_name if type_name == "auto" else type_name.upper()
    if wanted not in TYPES:
        raise UsageError(f"unknown type: {type_name}", hint=f"it is one of {', '.join(TYPES).lower()}")
    settings = Settings.read(read_config(folder))
    if not (base / "config.json").is_file():
        raise NotFound(f"{base} is no checkpoint: it has no config.json", hint="`--base` takes what the adapter adapts")
    raw = read_json(base / "config.json")
    entry = architecture_of(raw)
    config = Config(raw, entry.defaults)
    if entry.gguf_of is not None:
        entry = replace(entry, gguf=entry.gguf_of(config) or entry.gguf)
    files = (folder / WEIGHTS, folder / CONFIG, base / "config.json")
    checkpoint = Checkpoint(folder, raw, read_tensors(folder), files)
    tensors = _stand_ins(group(checkpoint.tensors), settings)
    of_language = language_tensors(tensors)
    _compare_with(base, of_language)
    if wanted == "auto":
        wanted = tensor_types.own_type(checkpoint.tensors.values())
    planned = _plan_tensors(of_language, entry, config, wanted)
    if not any(tensor.name.endswith(".lora_a") for tensor in planned):
        raise Damaged(f"{folder / WEIGHTS} adapts nothing of the language model")
    warnings = list(_warnings(len(tensors) - len(of_language), planned))
    try:
        known, _ = facts.read_facts(folder, None, _count(planned), entry.gguf, kind="adapter")
    except facts.CardProblem as problem:
        known = facts.plain_facts(folder, None, entry.gguf, kind="adapter")
        warnings.append(f"the model card is left out, it cannot be read: {problem}")
    metadata: dict[str, Value] = {
        **known,
        "adapter.type": "lora",
        "adapter.lora.alpha": settings.file_alpha,
        "general.quantization_version": QUANTIZATION_VERSION,
    }
    plan = make_plan(metadata, planned, origin=checkpoint.identity())
    return AdapterConversion(checkpoint, entry, plan, wanted, tuple(warnings))


def execute_adapter(
    conversion: AdapterConversion, paths: Sequence[Path], *, digest: bool = True, sink: Sink = ignore
) -> list[Written]:
    """Write a planned adapter.

    Raises:
        NotEnoughDisk, StoreError, MalformedFile: as the writer does.
    """
    for warning in conversion.warnings:
        sink(Warned(STAGE, warning))
    return writer.write(conversion.plan, paths, digest=digest, stage=STAGE, sink=sink)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A matrix as the product `up` · `down`; `is_turned` if `up` is made of PEFT's A instead of its B."""

    down: Rows  # (rank, inputs)
    up: Rows  # (outputs, rank)
    is_turned: bool

    def turned(self) -> "_Pair":
        """The pair of the transposed matrix."""
        return _Pair(_transposed(self.up), _transposed(self.down), not self.is_turned)


def _transposed(rows: Rows) -> Rows:
    return rows.source if isinstance(rows, TransposedRows) else TransposedRows(rows)


class _Inexpressible(Exception):
    """What was done to a stand-in cannot be done to its two factors."""


class _StandIn:
    """In the place of a matrix that is adapted, for the rules to work on; nothing of it can be read."""

    dtype: DType = "F32"

    def __init__(self, pair: _Pair) -> None:
        self.pair = pair
        self.shape = (pair.up.shape[0], pair.down.shape[1])

    def read(self, begin: int, end: int) -> Array:
        """Refuse."""
        raise _Inexpressible


def _stand_ins(adapter: Adapter, settings: Settings) -> Tensors:
    """Return a stand-in for each pair under the name of the weight it adapts; norms, which come whole, as they are."""
    tensors: Tensors = dict(adapter.norms)
    for module, (a, b) in (adapter.linear | adapter.embeddings).items():
        factor = settings.factor(module, a.shape[0])
        b = b if math.isclose(factor, 1.0, rel_tol=1e-12) else transforms.scale(b, factor)
        if a.dtype != b.dtype:
            a, b = widened(a), widened(b)
        pair = _Pair(a, b, is_turned=False)
        is_turned = module in adapter.embeddings or settings.is_transposed
        tensors[f"{module}.weight"] = _StandIn(pair.turned() if is_turned else pair)
    return tensors


def _compare_with(base: Path, tensors: Tensors) -> None:
    """Refuse an adapter of another model, as far as the base's weights are at hand."""
    try:
        weights = language_tensors(open_checkpoint(base).tensors)
    except OwmError:
        return
    for name, rows in tensors.items():
        if name in weights and weights[name].shape != rows.shape:
            raise Damaged(
                f"the adapter was made for another model: {name} is {weights[name].shape} in the base, "
                f"{rows.shape} in the adapter"
            )


def _plan_tensors(tensors: Tensors, entry: Architecture, config: Config, wanted: str) -> list[PlannedTensor]:
    if entry.has_output and any(name.startswith("layers.") for name in tensors):
        raise Unsupported(
            "the adapter was made for the model without its output (AutoModel), whose tensors have other names",
            hint="train or save it with AutoModelForCausalLM",
        )
    try:
        for rule in entry.tensors:
            tensors = tensors if rule.adds else rule.run(tensors, config)
    except _Inexpressible:
        raise Unsupported(f"owm cannot convert an adapter of this architecture: {entry.gguf}") from None
    hparams = evaluate(entry.hparams, config)
    names = name_map(entry.gguf, block_count(hparams, config))
    is_tied = entry.has_output and config.flag("tie_word_embeddings", default=entry.is_tied)
    planned: list[PlannedTensor] = []
    for name, rows in tensors.items():
        new = names(name)
        if new is None:
            raise Damaged(f"the adapter adapts what {entry.gguf} models have no place for: {name}")
        if len(rows.shape) == 1:
            planned.append(PlannedTensor(new, rows, "F32", "a norm"))
            continue
        if is_tied and new in ("token_embd.weight", "output.weight"):
            raise Unsupported(
                f"the adapter adapts {name}, and the base ties input and output embeddings, "
                "of which llama.cpp cannot adapt one"
            )
        if _PAST_ADAPTERS.fullmatch(f"{entry.gguf} {new}"):
            raise Unsupported(f"the adapter adapts {name}, for which llama.cpp has no adapters in {entry.gguf} models")
        try:
            down, up = _factors(rows, new, hparams.get("expert_count"))
        except _Inexpressible:
            raise Unsupported(f"the adapter adapts {name}, which is no matrix of its own in the model file") from None
        planned.append(PlannedTensor(f"{new}.lora_a", down, wanted, "asked for"))
        planned.append(PlannedTensor(f"{new}.lora_b", up, wanted, "asked for"))
    return planned


def _factors(rows: Rows, name: str, n_experts: object) -> tuple[Rows, Rows]:
    """Return A and B as llama.cpp wants them of one matrix, or of a stack with one a expert."""
    if len(rows.shape) == 3 and isinstance(rows, JoinedRows) and "_exps." in name:
        pairs = [_trace(part) for part in rows.parts]
        if len(pairs) != rows.shape[0] or any(pair.is_turned for pair in pairs):
            raise _Inexpressible
        if len(pairs) != n_experts:
            raise Unsupported(f"the adapter adapts {len(pairs)} experts of {name}, and the base has {n_experts}")
        return transforms.stack([pair.down for pair in pairs]), transforms.stack([pair.up for pair in pairs])
    if len(rows.shape) != 2:
        raise _Inexpressible
    pair = _trace(rows)
    if pair.is_turned != (name == "token_embd.weight"):
        raise Damaged(f"{CONFIG}: fan_in_fan_out contradicts the architecture, by {name}")
    # Embeddings are looked up, not multiplied with: the row of a token comes first, and both factors are swapped.
    return (pair.up, _transposed(pair.down)) if pair.is_turned else (pair.down, pair.up)


def _trace(rows: Rows) -> _Pair:
    """Return the factors of what was built of stand-ins, seen as a matrix of rows."""
    match rows:
        case _StandIn():
            return rows.pair
        case TransposedRows():
            return _trace(rows.source).turned()
        case ReshapedRows() if rows.shape[-1] == rows.source.shape[-1]:
            return _trace(rows.source)
        case PickedRows():
            pair = _trace(rows.source)
            return replace(pair, up=PickedRows(pair.up, rows.index, (n_rows(rows.shape), pair.up.shape[1])))
        case SlicedRows():
            pair = _trace(rows.source)
            return replace(pair, up=SlicedRows(pair.up, rows.begin, (n_rows(rows.shape), pair.up.shape[1])))
        case MappedRows() if rows.is_scaling:
            pair = _trace(rows.source)
            up: Rows = MappedRows(widened(pair.up), rows.function, dtype="F32")
            return replace(pair, down=widened(pair.down), up=up)
        case JoinedRows():
            pairs = [_trace(part) for part in rows.parts]
            if any(pair.down is not pairs[0].down for pair in pairs):
                raise _Inexpressible
            return replace(
                pairs[0], up=JoinedRows([pair.up for pair in pairs], (n_rows(rows.shape), pairs[0].up.shape[1]))
            )
        case _:
            raise _Inexpressible


def _warnings(n_dropped: int, planned: Sequence[PlannedTensor]) -> list[str]:
    found = []
    if n_dropped:
        found.append(f"{n_dropped} matrices are left out, they adapt what is no part of the language model")
    if norms := sum(not tensor.name.endswith((".lora_a", ".lora_b")) for tensor in planned):
        found.append(f"the adapter replaces {norms} norms, which llama.cpp loads and leaves as they are in the model")
    return found


def _count(planned: Sequence[PlannedTensor]) -> tuple[int, int, int, int]:
    """Count the weights that are adapted, negative as a sign that a model has more. ref: gguf-py gguf_writer.py"""
    total = 0
    for tensor, following in zip(planned, [*planned[1:], None], strict=True):
        if tensor.name.endswith(".lora_a") and following is not None:
            total += following.n_rows * tensor.rows.shape[-1]
        elif not tensor.name.endswith(".lora_b"):
            total += tensor.n_elements
    return -total, 0, 0, 0
