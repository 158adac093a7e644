"""From an opened checkpoint to a planned model file, and from the plan to the file, checked by llama.cpp itself."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from owm.convert import facts, tensor_types, tokenizer_check
from owm.convert.architectures.base import Architecture
from owm.convert.architectures.registry import architecture_of, class_name
from owm.convert.checkpoint import Checkpoint, open_checkpoint
from owm.convert.dequantize import dequantize
from owm.convert.hparams import Config, evaluate
from owm.convert.pooling import read_pooling
from owm.convert.rules import Tensors
from owm.convert.vocabulary import Vocabulary, read_sampling_defaults, read_vocabulary
from owm.errors import Damaged, Unsupported, UsageError
from owm.events import Sink, Warned, ignore
from owm.formats.gguf import MAX_LAYERS
from owm.formats.gguf_writer import I32, Value
from owm.native import guard
from owm.pipeline import writer
from owm.pipeline.hollow import hollow_file
from owm.pipeline.plan import Plan, PlannedTensor, make_plan
from owm.pipeline.writer import Verify, Written

STAGE = "convert"
TYPES = ("auto", "F32", "F16", "BF16")
QUANTIZATION_VERSION = 2  # ref: ggml.h, GGML_QNT_VERSION
MXFP4_FILE_TYPE = 38
WEIGHTS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "MXFP4")

# Buffers that older checkpoints carry and no model file needs, and what belongs to eyes and ears.
_NO_WEIGHTS = re.compile(r".*\.(attention\.masked_bias|attention\.bias|attn\.masked_bias|rotary_emb\.inv_freq)")
_NOT_TEXT = re.compile(
    r"(vit|vpm|siglip2|conformer|merger|resampler|visual|vision|audio)\..*|.*(vision_|audio_|visual\.|vision\.|audio\.).*"
    r"|.*projector\..*|.*(patch_embed|patch_merger|embed_vision|embed_audio).*"
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A planned conversion; `type_name` is what `auto` came to, `unknown_keys` those of config.json nobody knows."""

    checkpoint: Checkpoint
    architecture: Architecture
    vocabulary: Vocabulary
    plan: Plan
    type_name: str
    unknown_keys: tuple[str, ...]
    card_problem: str | None
    differences: list[str] = field(default_factory=list)  # known ones of the tokenizer, found by the check
    warning: str | None = None  # the architecture's

    @property
    def label(self) -> str:
        """The quantization type of the file: `BF16`, or `MXFP4` where quant blocks were kept."""
        return "MXFP4" if self.plan.metadata["general.file_type"] == MXFP4_FILE_TYPE else self.type_name


def plan_folder(folder: Path, **options: Any) -> Conversion:
    """Open a checkpoint's folder and plan its conversion; see `plan_conversion`."""
    return plan_conversion(open_checkpoint(folder), **options)


def plan_conversion(
    checkpoint: Checkpoint,
    *,
    type_name: str = "auto",
    architecture: Architecture | None = None,
    name: str | None = None,
    pre: str | None = None,
    split_max_bytes: int | None = None,
) -> Conversion:
    """Find out from headers and configs alone what a conversion will write.

    Args:
        type_name: `F32`, `F16`, `BF16`, or `auto` for the checkpoint's own.
        architecture: an entry to use instead of the table's.
        name: the model's name, instead of the card's or the folder's.
        pre: the pre-tokenizer's name, for a tokenizer that is not recognized.

    Raises:
        Unsupported: an architecture, a setting or a tokenizer that owm does not convert.
        Damaged: the checkpoint contradicts itself.
    """
    wanted = type_name if type_name == "auto" else type_name.upper()
    if wanted not in TYPES:
        raise UsageError(f"unknown type: {type_name}", hint=f"it is one of {', '.join(TYPES).lower()}")
    entry = architecture or architecture_of(checkpoint.config)
    config = Config(checkpoint.config, entry.defaults)
    if wanted == "auto":
        wanted = tensor_types.own_type(checkpoint.tensors.values())
    with _strange_config(checkpoint):
        if entry.gguf_of is not None:
            entry = replace(entry, gguf=entry.gguf_of(config) or entry.gguf)
        is_multimodal = any(isinstance(value, dict) and "_config" in key for key, value in checkpoint.config.items())
        tensors = dequantize(language_tensors(checkpoint.tensors, is_multimodal=is_multimodal), config)
        for rule in entry.tensors:
            tensors = rule.run(tensors, config)
        hparams = evaluate(entry.hparams, config) | read_pooling(checkpoint.folder)
        warning = entry.warn(config) if entry.warn else None
        entry.check(config, class_name(checkpoint.config))
        planned = _map_names(tensors, entry, config, wanted, n_blocks=block_count(hparams, config))
    vocab_size = _vocab_size(config)
    most = max((size for tensor in checkpoint.tensors.values() for size in tensor.shape), default=0)
    if vocab_size is not None and vocab_size > most:  # as many tokens would be made up
        raise Damaged(
            f"the config's vocab_size is {vocab_size}, and no tensor has more than {most} rows",
            hint="config.json and the weights are not of one model: fetch the checkpoint again",
        )
    vocabulary = read_vocabulary(
        checkpoint.folder, entry.vocab, vocab_size=vocab_size, config=checkpoint.config, pre=pre
    )
    known, problem = _facts(checkpoint, entry, planned, name)
    metadata: dict[str, Value] = {
        **known,
        **{f"{entry.gguf}.{key}": value for key, value in hparams.items()},
        "general.file_type": _file_type(planned, wanted),
        "general.quantization_version": QUANTIZATION_VERSION,
        **vocabulary.metadata,
    }
    plan = make_plan(metadata, planned, split_max_bytes=split_max_bytes, origin=checkpoint.identity())
    unknown = tuple(entry.unknown_keys(config))
    return Conversion(checkpoint, entry, vocabulary, plan, wanted, unknown, problem, warning=warning)


@contextmanager
def _strange_config(checkpoint: Checkpoint) -> Iterator[None]:
    """Say of a config that makes an entry's arithmetic fail that it is the config's fault: entries trust its values."""
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            yield
    except (ArithmeticError, AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
        cause = ascii(str(error) or type(error).__name__)[1:-1][:120]
        raise Damaged(
            f"config.json is not what {class_name(checkpoint.config)} has: {cause}",
            hint="a value in it is of the wrong kind or out of range; fetch the checkpoint again",
        ) from error


def execute(
    conversion: Conversion,
    paths: Sequence[Path],
    *,
    check: bool = True,
    n_threads: int | None = None,
    digest: bool = True,
    child: guard.Child | None = None,
    sink: Sink = ignore,
) -> list[Written]:
    """Write a planned conversion to one path a file; llama.cpp checks the header meanwhile, in a process of its own.

    Args:
        child: that process, if it was started already.

    Raises:
        Damaged: llama.cpp does not take the file, or reads text otherwise than the checkpoint's own tokenizer.
        NotEnoughDisk, StoreError, MalformedFile: as the writer does.
    """
    warn(conversion, sink)
    if not check:
        return writer.write(conversion.plan, paths, n_threads=n_threads, digest=digest, stage=STAGE, sink=sink)
    with child or guard.Child() as child, checking(conversion, child, sink) as verify:
        return writer.write(
            conversion.plan, paths, n_threads=n_threads, digest=digest, verify=verify, stage=STAGE, sink=sink
        )


def warn(conversion: Conversion, sink: Sink) -> None:
    """Tell what was noticed about a checkpoint."""
    if conversion.card_problem:
        sink(Warned(STAGE, f"the model card cannot be used as it is: {conversion.card_problem}"))
    if conversion.warning:
        sink(Warned(STAGE, conversion.warning))
    if conversion.unknown_keys:
        sink(Warned(STAGE, f"config.json has keys that owm does not know: {', '.join(conversion.unknown_keys[:8])}"))
    for warning in conversion.vocabulary.warnings:
        sink(Warned(STAGE, warning))


def convert_folder(
    folder: Path,
    out: Path,
    *,
    type: str = "auto",  # noqa: A002
    architecture: Architecture | None = None,
    check: bool = True,
    sink: Sink = ignore,
) -> Conversion:
    """Convert a checkpoint's folder to one file in one call."""
    conversion = plan_folder(folder, type_name=type, architecture=architecture)
    execute(conversion, [out], check=check, digest=False, sink=sink)
    return conversion


def language_tensors(tensors: Tensors, *, is_multimodal: bool = True) -> Tensors:
    """Drop what is no weight of the language model, and the prefix that multimodal checkpoints put before it.

    Raises:
        Damaged: two tensors come to have one name.
    """
    kept: Tensors = {}
    for name, rows in tensors.items():
        if _NO_WEIGHTS.fullmatch(name) or (is_multimodal and _NOT_TEXT.fullmatch(name)):
            continue
        new = name.replace("language_model.", "").replace("e_score_correction_bias", "e_score_correction.bias")
        if new in kept:
            raise Damaged(f"the checkpoint has two tensors for {new}, one is {name}")
        kept[new] = rows
    return kept


def block_count(hparams: Mapping[str, Value], config: Config) -> int:
    """Count blocks as the model file does: some architectures keep those that predict further tokens."""
    stated = hparams.get("block_count")
    count = stated if isinstance(stated, int) else config.n_layers
    if not 1 <= count <= MAX_LAYERS:
        raise Damaged(f"config.json gives the model {count} layers, at most {MAX_LAYERS} can be")
    return count


def name_map(architecture: str, n_blocks: int) -> Callable[[str], str | None]:
    """Return a function from a tensor's name in a checkpoint to that in the model file, None if it has no place."""
    import gguf

    kind = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, n_blocks)
    return lambda name: names.get_name(name, try_suffixes=(".weight", ".bias"))


def _map_names(
    tensors: Tensors, entry: Architecture, config: Config, wanted: str, n_blocks: int
) -> list[PlannedTensor]:
    names = name_map(entry.gguf, n_blocks)
    planned: dict[str, PlannedTensor] = {}
    for name, rows in tensors.items():
        new = names(name)
        if new is None:
            raise Damaged(
                f"the checkpoint has a tensor that {entry.gguf} models have no place for: {name}",
                hint="it may hold an adapter, a classifier or a newer kind of model",
            )
        if new in planned:
            raise Damaged(f"two tensors of the checkpoint are both {new}, one is {name}")
        if rows.dtype not in WEIGHTS:
            raise Unsupported(f"the tensor {name} is of type {rows.dtype}, which holds no weights")
        if not math.prod(rows.shape):
            raise Damaged(f"the tensor {name} is empty")
        planned[new] = PlannedTensor(new, rows, *tensor_types.tensor_type(new, rows, wanted, entry.types))
    is_tied = config.flag("tie_word_embeddings", default=entry.is_tied)
    if entry.has_output and not is_tied and "output.weight" not in planned:
        raise Damaged(
            "the checkpoint has no output embeddings (lm_head.weight), and its config does not tie them to the input's"
        )
    return list(planned.values())


def _vocab_size(config: Config) -> int | None:
    size = config.get("vocab_size")
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def _file_type(planned: Sequence[PlannedTensor], wanted: str) -> int:
    if any(tensor.type_name == "MXFP4" for tensor in planned):
        return MXFP4_FILE_TYPE
    return tensor_types.FILE_TYPES[wanted]


def _facts(
    checkpoint: Checkpoint, entry: Architecture, planned: Sequence[PlannedTensor], name: str | None
) -> tuple[dict[str, Value], str | None]:
    sampling = {
        key: I32(value) if isinstance(value, int) else value
        for key, value in read_sampling_defaults(checkpoint.folder).items()
    }
    try:
        found, problem = facts.read_facts(checkpoint.folder, name, _count(planned), entry.gguf)
        return sampling | facts.plain_facts(checkpoint.folder, name, entry.gguf) | found, problem
    except facts.CardProblem as problem:
        return sampling | facts.plain_facts(checkpoint.folder, name, entry.gguf), str(problem)


def _count(planned: Sequence[PlannedTensor]) -> tuple[int, int, int, int]:
    """Count weights: all, those outside experts, those of one expert of each layer, experts."""
    total = shared = expert = 0
    counts: list[int] = []
    for tensor in planned:
        size, shape = tensor.n_elements, tensor.rows.shape
        total += size
        if "_exps." not in tensor.name or len(shape) < 3:
            shared += size
            continue
        counts.append(shape[-2 if ".bias" in tensor.name else -3])
        expert += size // counts[-1]
    return total, shared, expert, sum(counts) // len(counts) if counts else 0


@contextmanager
def checking(conversion: Conversion, child: guard.Child, sink: Sink, plan: Plan | None = None) -> Iterator[Verify]:
    """Let llama.cpp read the header, with a hole for the weights, while they are being written.

    Args:
        plan: what is written of the checkpoint, if not the conversion's own plan.
    """
    with hollow_file(plan or conversion.plan) as path, ThreadPoolExecutor(2) as pool:
        source = conversion.vocabulary.files
        sample = tokenizer_check.sample_of(source) if conversion.vocabulary.takes_any_text else ()
        actual: Future[guard.Loaded] = pool.submit(_load_and_rest, child, path, sample)
        expected = pool.submit(tokenizer_check.expected_ids, source, sample)

        def verify(*, wait: bool) -> None:
            if not wait and not actual.done():
                return
            loaded = actual.result()
            if loaded.error:
                raise Damaged(f"llama.cpp does not take the converted model: {loaded.error}", hint=_CONTRADICTS)
            if wait:
                _compare(conversion, sample, expected.result(), loaded.tokens, sink)

        yield verify


def _load_and_rest(child: guard.Child, path: Path, sample: Sequence[str]) -> guard.Loaded:
    loaded = child.load_header(path, sample)
    child.rest()
    return loaded


def _compare(
    conversion: Conversion,
    sample: Sequence[str],
    expected: Sequence[Sequence[int]] | None,
    actual: Sequence[Sequence[int]],
    sink: Sink,
) -> None:
    """Refuse a file that reads text otherwise than the checkpoint's tokenizer, known limits of llama.cpp aside."""
    source = conversion.vocabulary.files
    if expected is None or not sample:
        why = "it has no tokenizer.json" if expected is None else "not every text can be tried with it"
        sink(Warned(STAGE, f"the tokenizer could not be checked: {why}"))
        return
    if difference := tokenizer_check.first_difference(source, sample, expected, actual):
        raise Damaged(
            f"the converted file would read text wrongly: {difference}",
            hint="the tokenizer is of a kind that owm or llama.cpp does not know; `--pre NAME` can name it",
        )
    for limit in tokenizer_check.limits_of(source):
        conversion.differences.append(limit)
        sink(Warned(STAGE, limit))


_CONTRADICTS = "the checkpoint's config.json contradicts its weights, or is of a kind that owm converts wrongly"
