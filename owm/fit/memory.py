"""How much memory a model takes: llama.cpp's own numbers for its buffers, made from headers alone.

KV cache, compute and output buffers come from a context over a file that has a header and no weights; the weights from
the table of tensors, and of which of them the CPU keeps a copy in another layout, ggml itself tells.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from owm.engine.context import state_bytes
from owm.engine.tuning import DEFAULT, N_BATCH, N_UBATCH, Tuning
from owm.errors import Unsupported
from owm.formats.gguf import TENSOR_TYPES, Header, TensorEntry
from owm.native.guard import Child, ContextWish, Sizes

PROGRAM_BYTES = 24 << 20  # of `owm run`, beside what a process with llama.cpp and numpy holds in any case
MAX_STATE_BYTES = 1 << 30

_BLOCK = re.compile(r"blk\.(\d+)\.")
# Tensors that nothing is multiplied with as a matrix, so that they have no other layout.
# ref: llama.cpp src/llama-arch.cpp, LLM_TENSOR_INFOS
_NO_PRODUCT = re.compile(
    r"(?:(?:token_embd|per_layer_token_embd|position_embd|token_types|conv1d|d2t|markov_w1|selector_\w+"
    r"|(?:enc|dec)\.blk\.\d+\.attn_rel_b|(?:posnet|convnext)\..*"
    r"|blk\.\d+\.(?:ssm_conv1d\w*|shortconv\.conv|ple_conv1d|attn_sinks|ffn\.act|ffn_gate_tid2eid|nextn\.embed_tokens"
    r"|(?:attn|indexer)_compressor_ape))\.weight|.*\.bias|.*\.scale|blk\.\d+\.ssm_a)"
)
_EXPERTS = re.compile(r"blk\.\d+\.ffn_\w*_(?:ch)?exps\.weight")
_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"
# Architectures that make vectors and have no output of words. ref: llama.cpp src/llama-model.cpp
_NO_OUTPUT = re.compile(r".*bert.*|.*encoder|gemma-embedding|wavtokenizer-dec")


@dataclass(frozen=True, slots=True)
class Buffers:
    """What llama.cpp allocates in one place, in bytes.

    Attributes:
        weights_bytes: the weights as they lie in the file, which on the CPU is mapped into memory.
        repack_bytes: the copy of some of them in a layout that the CPU computes faster with.
        kv_bytes: the KV cache of the whole context.
        state_bytes: recurrent states.
        compute_bytes: for what is computed on the way, at most.
        output_bytes: for the logits.
    """

    weights_bytes: int = 0
    repack_bytes: int = 0
    kv_bytes: int = 0
    state_bytes: int = 0
    compute_bytes: int = 0
    output_bytes: int = 0

    @property
    def allocated_bytes(self) -> int:
        """All of it."""
        context_bytes = self.kv_bytes + self.state_bytes + self.compute_bytes + self.output_bytes
        return self.weights_bytes + self.repack_bytes + context_bytes


@dataclass(frozen=True, slots=True)
class Need:
    """The memory that a model needs, for `n_parallel` answers with a context of `n_ctx` tokens each.

    Attributes:
        cpu, gpu: what is allocated in main memory, and on GPUs.
        process_bytes: the program itself, and the vocabulary.
        untouched_bytes: of the compute buffer in main memory, what is allocated and never written when a model answers.
        n_gpu_layers: layers on GPUs, the output counting as one.
        unused: tensors that llama.cpp does not load.
    """

    n_ctx: int
    n_parallel: int
    cpu: Buffers
    gpu: Buffers
    process_bytes: int
    untouched_bytes: int
    n_gpu_layers: int = 0
    unused: tuple[str, ...] = ()

    @property
    def allocated_bytes(self) -> int:
        """What llama.cpp allocates, as its log says it."""
        return self.cpu.allocated_bytes + self.gpu.allocated_bytes

    @property
    def resident_bytes(self) -> int:
        """What the process holds of main memory at most, with the context filled."""
        return self.process_bytes + self.cpu.allocated_bytes - self.untouched_bytes

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "allocated_bytes": self.allocated_bytes,
            "resident_bytes": self.resident_bytes,
            "process_bytes": self.process_bytes,
            "cpu": asdict(self.cpu),
            "gpu": asdict(self.gpu) if self.n_gpu_layers else None,
            "n_gpu_layers": self.n_gpu_layers,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model's memory depends on, besides the model: contexts as `owm run` makes them.

    Attributes:
        n_ctx: tokens of each answer's context; `tuning.n_parallel` is how many there are.
        n_gpu_layers: layers on the GPU, -1 for all.
    """

    n_ctx: int
    tuning: Tuning = DEFAULT
    n_gpu_layers: int = 0

    @property
    def n_parallel(self) -> int:
        """Answers side by side."""
        return self.tuning.n_parallel or 1

    def wish(self) -> ContextWish:
        """Return the context. ref: owm/engine/model.py, Model.scheduler"""
        n_tokens = self.n_ctx * self.n_parallel
        n_batch = min(max(self.tuning.n_batch or N_BATCH, self.n_parallel), n_tokens)
        return ContextWish(
            n_ctx=n_tokens,
            n_batch=n_batch,
            n_ubatch=min(self.tuning.n_ubatch or N_UBATCH, n_batch),
            n_sequences=self.n_parallel,
            flash_attention=self.tuning.flash_attention,
            type_k=self.tuning.type_k,
            type_v=self.tuning.type_v,
        )


def measure(headers: Sequence[Header], asked: Asked, child: Child, *, path: Path) -> Need:
    """Ask llama.cpp.

    Args:
        headers: of all files of the model.
        path: the first file, or one that has its header and a hole for the weights, with the others beside it.

    Raises:
        Unsupported: llama.cpp does not take the model, or makes no context over it.
    """
    sizes = _sizes(headers[0], asked, child, path)
    if sizes.error is not None:
        if "unknown model architecture" in sizes.error:
            raise Unsupported(
                f"the installed llama.cpp does not know the architecture {headers[0].architecture}, and cannot run it",
                hint="a newer llama-cpp-python may",
            )
        raise Unsupported(f"llama.cpp does not tell how much memory this model takes: {sizes.error}")
    n_gpu_layers = _layers_on_gpu(headers[0], asked.n_gpu_layers)
    cpu, gpu = _by_place(sizes, headers[0], n_gpu_layers)
    need = Need(
        n_ctx=asked.n_ctx,
        n_parallel=asked.n_parallel,
        cpu=cpu,
        gpu=gpu,
        process_bytes=sizes.process_bytes + PROGRAM_BYTES,
        untouched_bytes=max(0, sizes.places.get("CPU", {}).get("compute", 0) - sizes.touched_bytes),
        n_gpu_layers=n_gpu_layers,
        unused=sizes.unused,
    )
    return with_weights(need, headers, child)


def _sizes(header: Header, asked: Asked, child: Child, path: Path) -> Sizes:
    """Ask for the buffers' sizes; of recurrent states, which llama.cpp makes in any case, no more than a few."""
    n_few = max(1, MAX_STATE_BYTES // max(1, state_bytes(header)))
    if asked.n_parallel <= n_few:
        return child.sizes(path, asked.wish(), n_gpu_layers=asked.n_gpu_layers)
    n_ctx = asked.n_ctx * asked.n_parallel // n_few  # the same tokens in all
    few = replace(asked, n_ctx=n_ctx, tuning=replace(asked.tuning, n_parallel=n_few))
    found = child.sizes(path, few.wish(), n_gpu_layers=asked.n_gpu_layers)
    share = asked.n_parallel / n_few
    places = {
        place: {kind: round(n * (1 if kind == "compute" else share)) for kind, n in kinds.items()}
        for place, kinds in found.places.items()
    }
    return replace(found, places=places)


def with_weights(need: Need, headers: Sequence[Header], child: Child) -> Need:
    """Return the need of the same model with its tensors in other types; see `retyped`."""
    n_layers = headers[0].integer("block_count") or 0
    first_on_gpu = n_layers + 1 - need.n_gpu_layers

    def is_on_gpu(tensor: TensorEntry) -> bool:
        if block := _BLOCK.match(tensor.name):
            return int(block[1]) >= first_on_gpu
        return need.n_gpu_layers > 0 and tensor.name.startswith("output")

    names = {tensor.name for header in headers for tensor in header.tensors}
    is_tied = _OUTPUT not in names and _NO_OUTPUT.fullmatch(headers[0].architecture) is None
    products = [
        (header, tensor)
        for header in headers
        for tensor in header.tensors
        if not is_on_gpu(tensor) and tensor.name not in need.unused and _is_product(tensor, is_tied=is_tied)
        if tensor.name != _EMBEDDINGS or not need.n_gpu_layers
    ]
    n_used = headers[0].integer("expert_used_count") or 1
    asked = [(tensor.type_id, tensor.shape, n_used if _EXPERTS.fullmatch(tensor.name) else 0) for _, tensor in products]
    copied = dict(zip((tensor.name for _, tensor in products), child.copies(asked), strict=True))
    # Embeddings that are the output as well are looked up as they lie, and multiplied with in the other layout.
    moved = {name for name, n_bytes in copied.items() if n_bytes and name != _EMBEDDINGS}
    on_gpu = [tensor for header in headers for tensor in header.tensors if is_on_gpu(tensor)]
    tied_on_gpu = [
        tensor
        for header in headers
        for tensor in header.tensors
        if tensor.name == _EMBEDDINGS and is_tied and need.n_gpu_layers
    ]
    left = {tensor.name for tensor in on_gpu} | moved | set(need.unused)
    mapped = sum(_extent([tensor for tensor in header.tensors if tensor.name not in left]) for header in headers)
    return replace(
        need,
        cpu=replace(need.cpu, weights_bytes=mapped, repack_bytes=sum(copied.values())),
        gpu=replace(
            need.gpu,
            weights_bytes=sum(each.n_bytes for each in (*on_gpu, *tied_on_gpu) if each.name not in need.unused),
        ),
    )


def retyped(headers: Sequence[Header], types: Mapping[str, str]) -> tuple[Header, ...]:
    """Return the headers with tensors of other types: name of a tensor to its type (`Q4_K`), others as they are."""
    ids = {name: (type_id, block, n_bytes) for type_id, (name, block, n_bytes) in TENSOR_TYPES.items()}
    made = []
    for header in headers:
        tensors: list[TensorEntry] = []
        offset = 0
        for tensor in header.tensors:
            type_id, block, n_bytes = ids[types.get(tensor.name, tensor.type_name)]
            if (tensor.shape[0] if tensor.shape else 1) % block:
                type_id, n_bytes = tensor.type_id, tensor.n_bytes
            else:
                n_bytes = tensor.n_elements // block * n_bytes
            tensors.append(replace(tensor, type_id=type_id, offset=offset, n_bytes=n_bytes))
            offset = -(-(offset + n_bytes) // header.alignment) * header.alignment
        made.append(replace(header, tensors=tuple(tensors), file_bytes=header.data_offset + offset))
    return tuple(made)


def scaled(need: Need, share: float) -> Need:
    """Return a need with weights that take so much of what was reckoned, for types that were guessed."""

    def scale(part: Buffers) -> Buffers:
        weights_bytes, repack_bytes = round(part.weights_bytes * share), round(part.repack_bytes * share)
        return replace(part, weights_bytes=weights_bytes, repack_bytes=repack_bytes)

    return replace(need, cpu=scale(need.cpu), gpu=scale(need.gpu))


def _is_product(tensor: TensorEntry, *, is_tied: bool) -> bool:
    if tensor.name == _EMBEDDINGS:
        return is_tied
    n_dims = max((i + 1 for i, length in enumerate(tensor.shape) if length > 1), default=1)
    return n_dims > 1 and _NO_PRODUCT.fullmatch(tensor.name) is None


def _extent(tensors: Sequence[TensorEntry]) -> int:
    """Return the bytes from the first to the last of some tensors of a file, all of which llama.cpp maps."""
    if not tensors:
        return 0
    return max(each.offset + each.n_bytes for each in tensors) - min(each.offset for each in tensors)


def _layers_on_gpu(header: Header, asked: int) -> int:
    n_all = (header.integer("block_count") or 0) + 1
    return n_all if asked < 0 else min(asked, n_all)


def _by_place(sizes: Sizes, header: Header, n_gpu_layers: int) -> tuple[Buffers, Buffers]:
    """Divide the buffers of a context; the KV cache lies where its layer does."""
    n_layers = header.integer("block_count") or 1
    share = max(0, n_gpu_layers - 1) / n_layers
    on_gpu = round(sizes.kv_bytes * share)

    def of(*, is_gpu: bool) -> Buffers:
        kinds = [dict(found) for place, found in sizes.places.items() if _is_gpu(place) == is_gpu]
        state, compute, output = (sum(found.get(kind, 0) for found in kinds) for kind in ("state", "compute", "output"))
        kv_bytes = on_gpu if is_gpu else sizes.kv_bytes - on_gpu
        return Buffers(kv_bytes=kv_bytes, state_bytes=state, compute_bytes=compute, output_bytes=output)

    return of(is_gpu=False), of(is_gpu=True)


def _is_gpu(place: str) -> bool:
    return not (place.startswith(("CPU", "BLAS")) or place.endswith("_Host"))
