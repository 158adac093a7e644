"""The only door to llama.cpp: its C API with Python lifetimes, errors and types. No policy lives here.

Every ctypes callback is kept referenced for the life of the process or object: a collected one is a segfault.
"""

import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from owm.errors import EngineError
from owm.native.batch import Batch
from owm.native.binding import llama as c
from owm.native.refusal import load_error, reason_of

if TYPE_CHECKING:
    from owm.native.adapters import Adapters
    from owm.native.observer import Observer

_INFO, _ERROR = 2, 4
_CONTINUATION = 5

_libc = ctypes.CDLL(None) if sys.platform != "win32" else ctypes.cdll.msvcrt

# The binding returns a typed pointer, which costs a new object for each token; the bare address does not.
_logits_address = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(("llama_get_logits_ith", c._lib))

# Asked for every token of a vocabulary: without a wrapper, and without letting go of the interpreter lock each time.
_is_end = ctypes.PYFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int32)(("llama_vocab_is_eog", c._lib))

_log_lines: deque[str] = deque(maxlen=200)
_log: Callable[[str], None] | None = None
_last_level = 0


def _on_log(level: int, text: bytes | None, user_data: object) -> None:
    global _last_level
    level = _last_level if level == _CONTINUATION else level
    _last_level = level
    line = (text or b"").decode("utf-8", "replace")
    if level >= _ERROR:
        _log_lines.append(line.rstrip("\n"))
    if _log is not None and level >= _INFO:
        _log(line)


_log_callback = c.llama_log_callback(_on_log)
_started = threading.Lock()
_is_started = False


def start(log: Callable[[str], None] | None = None) -> None:
    """Initialise llama.cpp once; its log goes to `log`, or nowhere. The lines hold metadata as it is in the file."""
    global _is_started, _log
    with _started:
        _log = log
        if not _is_started:
            c.llama_log_set(_log_callback, ctypes.c_void_p(0))
            c.llama_backend_init()
            _is_started = True


def library_build() -> str:
    """Name the build whose binary formats (KV snapshots) belong together."""
    return f"llama-cpp-python {version('llama-cpp-python')}"


def system_info() -> str:
    """Return llama.cpp's own line about the CPU features and backends in use."""
    return bytes(c.llama_print_system_info()).decode()


def max_sequences() -> int:
    """Return how many sequences one context can hold."""
    return int(c.llama_max_parallel_sequences())


def can_offload() -> bool:
    """Tell whether this build has a GPU backend and sees a device."""
    return bool(c.llama_supports_gpu_offload())


def forget_complaints() -> None:
    """Clear the log, before something that may fail."""
    _log_lines.clear()


def complaint() -> str:
    """Return the first thing that llama.cpp complained about since the log was cleared: later lines repeat it."""
    return reason_of(_log_lines)


class Model:
    """A loaded model: its weights and its vocabulary."""

    def __init__(self, path: Path, *, n_gpu_layers: int, use_mmap: bool = True, has_weights: bool = True) -> None:
        """Load a model file; without weights only its header is read and checked, and text can be tokenized.

        Raises:
            EngineError: llama.cpp does not take it; the message has its reason.
        """
        start(_log)
        forget_complaints()
        params = c.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.load_mode = c.LLAMA_LOAD_MODE_AUTO if use_mmap and has_weights else c.LLAMA_LOAD_MODE_NONE
        params.no_alloc = not has_weights
        self.pointer = c.llama_model_load_from_file(os.fsencode(path), params)
        if not self.pointer:
            raise load_error(path.name, complaint())
        self.vocab = c.llama_model_get_vocab(self.pointer)
        self.n_vocab: int = c.llama_vocab_n_tokens(self.vocab)
        self.n_ctx_train: int = c.llama_model_n_ctx_train(self.pointer)
        self.adds_bos = bool(c.llama_vocab_get_add_bos(self.vocab))
        self.bos: int = c.llama_vocab_bos(self.vocab)
        self.has_encoder = bool(c.llama_model_has_encoder(self.pointer))
        self.has_decoder = bool(c.llama_model_has_decoder(self.pointer))
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self._ends: dict[int, bool] = {}
        # What it read is in a state, of which no part can be taken back, and not in a cache of tokens alone.
        self.is_recurrent = bool(c.llama_model_is_recurrent(self.pointer) or c.llama_model_is_hybrid(self.pointer))
        self.n_embd_out: int = c.llama_model_n_embd_out(self.pointer)
        self.is_diffusion = bool(c.llama_model_is_diffusion(self.pointer))
        self.adapters: Adapters | None = None  # what every context made from now on computes with

    def close(self) -> None:
        """Free the weights, and adapters of them."""
        if self.pointer:
            if self.adapters is not None:
                self.adapters.close()
            c.llama_model_free(self.pointer)
            self.pointer = None

    def _check_open(self) -> None:
        if not self.pointer:
            raise EngineError("the model is closed")

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Turn text into token ids, with BOS and the like if `add_special`, reading `<|…|>` if `parse_special`."""
        self._check_open()
        raw = text.encode("utf-8", "surrogatepass")
        capacity = len(raw) + 16
        for _ in range(2):
            tokens = (c.llama_token * capacity)()
            n = c.llama_tokenize(self.vocab, raw, len(raw), tokens, capacity, add_special, parse_special)
            if n >= 0:
                return list(tokens[:n])
            capacity = -n
        raise EngineError("llama.cpp could not tokenize the prompt")

    def continuation(self, text: str) -> list[int]:
        """Turn text that continues another one into tokens: no BOS, no `<|…|>`, no space that was not written."""
        tokens = self.tokenize(text, add_special=False, parse_special=False)
        if b"".join(self.piece(token, special=False) for token in tokens) == text.encode("utf-8", "surrogatepass"):
            return tokens
        # Some vocabularies put a space before whatever comes first: let something else come first.
        first = self.tokenize("\n", add_special=False, parse_special=False)
        after = self.tokenize("\n" + text, add_special=False, parse_special=False)
        return after[len(first) :] if after[: len(first)] == first else tokens

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return the bytes of one token, which may end inside a UTF-8 character; control tokens only if `special`."""
        if (known := self._pieces.get((token, special))) is not None:
            return known
        self._check_open()
        size = 64
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size)
            n = c.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if n >= 0:
                self._pieces[token, special] = buffer.raw[:n]
                return buffer.raw[:n]
            size = -n
        raise EngineError(f"llama.cpp has no text for token {token}")

    def is_end(self, token: int) -> bool:
        """Tell whether a token ends a turn or a text."""
        if (known := self._ends.get(token)) is None:
            known = self._ends[token] = bool(c.llama_vocab_is_eog(self.vocab, token))
        return known

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """All tokens that end a turn or a text."""
        vocab = ctypes.cast(self.vocab, ctypes.c_void_p)
        return tuple(token for token in range(self.n_vocab) if _is_end(vocab, token))

    def special_text(self, which: str) -> str:
        """Return the text of the `bos` or `eos` token, empty if the model has none."""
        self._check_open()
        token = {"bos": c.llama_vocab_bos, "eos": c.llama_vocab_eos}[which](self.vocab)
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def description(self) -> str:
        """What llama.cpp calls the model: `llama 256M Q4_1`."""
        self._check_open()
        buffer = ctypes.create_string_buffer(128)
        c.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def size_bytes(self) -> int:
        """Bytes of all its tensors."""
        self._check_open()
        return int(c.llama_model_size(self.pointer))

    @property
    def n_params(self) -> int:
        """Values in all its tensors."""
        self._check_open()
        return int(c.llama_model_n_params(self.pointer))

    def chat_template(self) -> str | None:
        """Return the chat template in the file, None if it has none."""
        self._check_open()
        found = c.llama_model_chat_template(self.pointer, None)
        return bytes(found).decode("utf-8", "replace") if found else None


# What the content of a cache depends on, besides the model and its adapters.
_CACHE_SETTINGS = ("type_k", "type_v", "flash_attn_type", "swa_full", "rope_scaling_type", "rope_freq_base",
    "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow",
    "yarn_orig_ctx")  # fmt: skip

POOLINGS = {
    "mean": c.LLAMA_POOLING_TYPE_MEAN,
    "cls": c.LLAMA_POOLING_TYPE_CLS,
    "last": c.LLAMA_POOLING_TYPE_LAST,
}


def _cache_type(name: str) -> int:
    from owm.native.quants import type_ids

    try:
        return type_ids()[name.upper()]
    except KeyError:
        raise EngineError(f"llama.cpp has no type {name}") from None


class Context:
    """A KV cache over a model, for `n_sequences` at once."""

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_batch: int,
        n_ubatch: int,
        n_sequences: int,
        n_threads: int,
        n_threads_batch: int,
        kv_unified: bool = False,
        observer: "Observer | None" = None,
        pooling: int | None = None,
        flash_attention: bool | None = None,
        type_k: str | None = None,
        type_v: str | None = None,
    ) -> None:
        """Allocate a context; `n_ctx` counts tokens over all sequences. An observer sees what its decodes multiply.

        Args:
            pooling: a number of `POOLINGS`: make embeddings instead of logits.
            flash_attention: compute attention in little memory, and partly in 16 bits; None where llama.cpp can.
            type_k, type_v: names of ggml's types for the KV cache, f16 by default.
            kv_unified: one cache for all sequences, so that tokens which several of them share are kept once.

        Raises:
            EngineError: llama.cpp refuses, most often for want of memory, or has no such type.
        """
        model._check_open()
        forget_complaints()
        self.model = model
        # ggml asks at every node of the graph whether to stop. A Python callback would take the interpreter lock each
        # time; C's own `strlen` of a two-byte text answers the same question (0 or 1) without it.
        self._cancel_flag = ctypes.create_string_buffer(2)
        self.is_cancelled = False
        params = c.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = n_batch
        params.n_ubatch = n_ubatch
        params.n_seq_max = n_sequences
        params.n_threads = n_threads
        params.n_threads_batch = n_threads_batch
        params.kv_unified = kv_unified
        params.no_perf = True
        params.abort_callback = ctypes.cast(_libc.strlen, c.ggml_abort_callback)
        params.abort_callback_data = ctypes.cast(self._cancel_flag, ctypes.c_void_p)
        if pooling is not None:
            params.embeddings = True
            params.pooling_type = pooling
        if flash_attention is not None:
            on, off = c.LLAMA_FLASH_ATTN_TYPE_ENABLED, c.LLAMA_FLASH_ATTN_TYPE_DISABLED
            params.flash_attn_type = on if flash_attention else off
        if type_k is not None:
            params.type_k = _cache_type(type_k)
        if type_v is not None:
            params.type_v = _cache_type(type_v)
        self.cache_settings = {name: float(getattr(params, name)) for name in _CACHE_SETTINGS}
        self._observer = observer
        if observer is not None:
            params.cb_eval = ctypes.cast(observer.callback, c.ggml_backend_sched_eval_callback)
        self.pointer = c.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            reason = complaint()
            is_of_type = "cache type" in reason or "V cache" in reason
            raise EngineError(
                f"llama.cpp cannot make a context of {n_ctx} tokens: {reason}",
                hint="take the cache in f16" if is_of_type else "a smaller `--ctx-size` needs less memory",
            )
        if model.adapters is not None:
            model.adapters.set_on(self.pointer)
        self.memory = c.llama_get_memory(self.pointer)
        self.n_ctx: int = c.llama_n_ctx(self.pointer)
        self.n_ctx_sequence: int = c.llama_n_ctx_seq(self.pointer)
        self.n_batch: int = c.llama_n_batch(self.pointer)
        self.n_sequences = n_sequences
        self.is_unified = kv_unified
        self.batch = Batch(self.n_batch, n_sequences if kv_unified else 1)
        self._logit_views: dict[int, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}

    def cancel(self) -> None:
        """Stop a decode that is running (on the CPU, at once) and any later one. Callable from any thread."""
        self.is_cancelled = True
        self._cancel_flag[0] = b"\x01"

    def resume(self) -> None:
        """Take decodes again after `cancel`."""
        self.is_cancelled = False
        self._cancel_flag[0] = b"\x00"

    def decode(self) -> int:
        """Run the batch. Returns 0 = done, 1 = no KV room for it, 2 = cancelled.

        Raises:
            EngineError: llama.cpp failed.
        """
        self.batch.raw.n_tokens = self.batch.n_tokens
        status: int = c.llama_decode(self.pointer, self.batch.raw)
        if status in (0, 1, 2):
            return status
        raise EngineError(f"llama.cpp failed to decode ({status}): {complaint()}")

    def synchronize(self) -> None:
        """Wait until what was decoded is there; on the CPU it is when `decode` returns."""
        c.llama_synchronize(self.pointer)

    def logits(self, index: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
        """Return a view of the logits (n_vocab f32) of the batch's token `index`, valid until the next decode."""
        address = _logits_address(self.pointer, index)
        if not address:
            raise EngineError("llama.cpp has no logits where they were asked for")
        if (view := self._logit_views.get(address)) is None:
            raw = (ctypes.c_float * self.model.n_vocab).from_address(address)
            view = self._logit_views[address] = np.ctypeslib.as_array(raw)
        return view

    def logit_rows(self, index: int, n_rows: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        """Return a view of the logits (n_rows × n_vocab f32) of neighbouring tokens, the first at the batch's `index`.

        All of them must have been asked for. Valid until the next decode.
        """
        if not (address := _logits_address(self.pointer, index)):
            raise EngineError("llama.cpp has no logits where they were asked for")
        raw = (ctypes.c_float * (n_rows * self.model.n_vocab)).from_address(address)
        return np.ctypeslib.as_array(raw).reshape(n_rows, self.model.n_vocab)

    def share(self, source: int, target: int) -> None:
        """Let an empty sequence go on from where another one is; what they share is kept once in a unified cache."""
        c.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def embedding(self, sequence: int) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
        """Return the vector (n_embd_out f32) of what the last decode read of a sequence."""
        if not (found := c.llama_get_embeddings_seq(self.pointer, sequence)):
            raise EngineError("llama.cpp has no embedding where it was asked for")
        return np.ctypeslib.as_array(found, (self.model.n_embd_out,)).copy()

    def forget(self, sequence: int, begin: int = 0) -> bool:
        """Drop a sequence's KV from position `begin` on; False where the model cannot do that in part."""
        return bool(c.llama_memory_seq_rm(self.memory, sequence, begin, -1))

    def forget_all(self) -> None:
        """Drop what all sequences have in memory."""
        c.llama_memory_clear(self.memory, False)

    def close(self) -> None:
        """Free the KV cache."""
        if self.pointer:
            self._logit_views.clear()
            self.batch.close()
            c.llama_free(self.pointer)
            self.pointer = None
