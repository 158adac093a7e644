"""A model that is open: its header, its vocabulary, its chat template, and contexts made over it."""

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from owm.engine import context as context_size
from owm.engine import family
from owm.engine import template as chat_template
from owm.engine.context import ContextSize
from owm.engine.conversation import Conversation
from owm.engine.growing import GrowingScheduler
from owm.engine.marks import THINK
from owm.engine.template import ChatTemplate, Message, Thinking
from owm.engine.tuning import DEFAULT, N_BATCH, N_UBATCH, Tuning
from owm.errors import TemplateError, Unsupported, UsageError
from owm.formats import gguf
from owm.formats.gguf import Header
from owm.hardware import probe
from owm.native import ggml, llama, state
from owm.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from owm.engine.adapter import AdapterChoice
    from owm.engine.constrain import Vocabulary
    from owm.engine.marks import ReasoningFormat
    from owm.engine.program import Program
    from owm.engine.rendering import Rendering

GPU_RESERVE_BYTES = 1 << 30
WEIGHING_BYTES = 128 << 20  # for the weights of attention, where they are computed without flash attention
# Architectures that read a text from both sides, whatever the file says. ref: llama.cpp src/llama-model.cpp
ENCODERS = ("bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert",
    "nomic-bert", "nomic-bert-moe", "t5encoder", "wavtokenizer-dec")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as tokens; `notes` are sentences about how it was made that the user should know."""

    tokens: list[int]
    text: str
    notes: tuple[str, ...] = ()
    reasoning: "ReasoningFormat | None" = None  # how the answer marks thoughts
    thinks_at_start: bool = False  # it ends inside an open thought


class Model:
    """An open model. Close it, or use it in a `with` statement."""

    def __init__(
        self,
        files: Sequence[Path],
        *,
        n_gpu_layers: int | None = None,
        is_verified: bool = False,
        is_trusted: bool = False,
        will_chat: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Check the headers of all files, then load.

        Args:
            files: the model file, or all its shards in order.
            n_gpu_layers: layers on the GPU, -1 for all, None for as many as fit.
            is_verified: the vocabulary was checked before, when the model was stored.
            is_trusted: the user vouches for the file, so its template needs no process of its own.
            will_chat: get the template ready while the weights are loaded.
            log: takes the lines of llama.cpp's own log, which hold a stranger's metadata.

        Raises:
            MalformedFile: a header is not what it should be; llama.cpp never saw the file.
            EngineError: llama.cpp refuses it.
            Unsupported: the file is no model, or of a kind that owm cannot run.
        """
        began = time.perf_counter()
        self.headers: tuple[Header, ...] = read_headers(files, is_verified=is_verified)
        self.header = self.headers[0]
        self.path = files[0]
        self.weights_bytes = sum(path.stat().st_size for path in files)
        self._is_trusted = is_trusted
        self._begun = self._begin_template() if will_chat else None
        llama.start(log)
        self.cores = probe.cores()
        self.placement, self._n_gpu_layers = _place(self.header, self.weights_bytes, n_gpu_layers)
        self.unused_gpu = _unused_gpu()
        self.native = llama.Model(files[0], n_gpu_layers=self._n_gpu_layers)
        if self.native.has_encoder and not self.native.has_decoder:
            raise Unsupported(f"{self.path.name} is an encoder that owm cannot run ({self.header.architecture})")
        self._schedulers: list[GrowingScheduler] = []
        self.load_seconds = time.perf_counter() - began

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what still runs on this model, and free it."""
        for scheduler in list(self._schedulers):
            scheduler.close()
        for begun in (self._begun, self.__dict__.get("_chat_template")):
            if begun is not None:
                begun.close()
        self.native.close()

    @property
    def n_gpu_layers(self) -> int:
        """Layers that were put on the GPU, -1 for all."""
        return self._n_gpu_layers

    @property
    def is_causal(self) -> bool:
        """Each token sees those before it only, as a model that writes text does."""
        own = self.header.architecture
        return own not in ENCODERS and self.header.metadata.get(f"{own}.attention.causal") is not False

    @property
    def sees_all(self) -> bool:
        """All its layers see all tokens before: there is no recurrent state and no window that slides."""
        return not self.native.is_recurrent and not state.window(self.native)

    def check_makes_text(self) -> None:
        """Refuse a model that is not made to write, or writes in a way that owm does not know.

        Raises:
            Unsupported: it is one.
        """
        name, architecture = self.path.name, self.header.architecture
        if self.native.is_diffusion:
            raise Unsupported(f"{name} makes text by diffusion, which owm cannot do ({architecture})")
        if self.native.has_encoder and self.native.has_decoder:
            raise Unsupported(f"{name} has an encoder and a decoder, which owm cannot run ({architecture})")
        if not self.is_causal:
            raise Unsupported(
                f"{name} makes no text, it is an embedding model ({architecture})",
                hint="`owm embed` makes vectors with it",
            )

    def load_adapters(self, choices: "Sequence[AdapterChoice]") -> tuple[str, ...]:
        """Let every context that is made from now on compute with adapters, whose changes add up.

        Returns:
            Sentences about what of them has no effect.

        Raises:
            NotFound, UsageError, Unsupported, MalformedFile: one of them is not for this model.
            EngineError: llama.cpp refuses it.
        """
        from owm.engine.adapter import check_adapter
        from owm.native.adapters import Adapters

        notes = [note for choice in choices for note in check_adapter(choice.path, self.headers)]
        for choice in choices:
            if self.native.adapters is None:
                self.native.adapters = Adapters(self.native)
            self.native.adapters.add(choice.path, choice.scale)
            self.weights_bytes += choice.path.stat().st_size
        return tuple(notes)

    def _begin_template(self) -> "Program | Rendering | None":
        source = self.header.text("tokenizer.chat_template")
        try:
            return chat_template.start(source, is_trusted=self._is_trusted) if source else None
        except TemplateError:
            return None  # said when it is needed

    @cached_property
    def _chat_template(self) -> ChatTemplate | None:
        source = self.native.chat_template()
        if not source:
            return None
        return ChatTemplate(
            source,
            bos=self.native.special_text("bos"),
            eos=self.native.special_text("eos"),
            is_trusted=self._is_trusted,
            program=self._begun if source == self.header.text("tokenizer.chat_template") else None,
        )

    def template(self) -> ChatTemplate | None:
        """Return the model's chat template, None if it has none (a base model).

        Raises:
            TemplateError: it does not compile.
        """
        return self._chat_template

    def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        thinking: Thinking | None = None,
        is_open: bool = True,
        is_shaped: bool = False,
    ) -> Prompt:
        """Render and tokenize a conversation; without a template, its plain text.

        Args:
            thinking: whether the model is to think before it answers, and how much; None leaves it to the template.
            is_open: the assistant's turn is next; otherwise the conversation ends as it is.
            is_shaped: the answer is constrained or its beginning is given.

        Raises:
            TemplateError: the template fails or refuses the conversation.
        """
        template = self.template()
        if template is None:
            plain = "\n\n".join(str(message["content"]) for message in messages)
            note = "this model has no chat template (a base model), so the prompt is completed as it is"
            # Without a template, a vocabulary that has the marks as tokens tells of thoughts.
            thinks = not is_shaped and len(THINK.tokens(self.native)) == len(THINK.marks)
            return Prompt(self.tokenize(plain), plain, (note,), THINK if thinks else None)
        conversation = Conversation(template, messages, takes_system=family.takes_system(self.header))
        made = conversation.compose(thinking or Thinking(), is_open=is_open, is_shaped=is_shaped)
        tokens = self._tokenize_rendered(made.text)
        if not tokens:
            raise TemplateError(
                "the model's chat template renders to nothing", hint="`--raw` sends the prompt without a template"
            )
        return Prompt(tokens, made.text, made.notes, made.reasoning, made.thinks_at_start)

    def raw_prompt(self, text: str) -> Prompt:
        """Tokenize text without a template."""
        return Prompt(self.tokenize(text), text)

    def tokenize(self, text: str) -> list[int]:
        """Turn text into tokens, with BOS where the model wants it; `<|…|>` texts become their tokens."""
        return self.native.tokenize(text, add_special=True, parse_special=True)

    def _tokenize_rendered(self, text: str) -> list[int]:
        """Tokenize a rendered template, which may or may not have written the BOS that the vocabulary adds."""
        bos = self.native.special_text("bos")
        if self.native.adds_bos and bos and text.startswith(bos):
            text = text[len(bos) :]
        return self.tokenize(text)

    def choose_context(self, n_prompt: int, *, max_tokens: int | None, asked: int | None) -> ContextSize:
        """Choose the context size for a prompt; see `owm.engine.context.choose`."""
        return context_size.choose(
            self.header,
            n_prompt=n_prompt,
            max_tokens=max_tokens,
            asked=asked,
            weights_bytes=self.weights_bytes,
            memory_bytes=probe.memory().total,
        )

    def free_bytes(self) -> int:
        """Return the memory that there is for contexts beside the weights, on the GPU if those are there."""
        if self._n_gpu_layers and (gpus := [device for device in ggml.devices() if device.is_gpu]):
            return max(0, sum(gpu.free_bytes for gpu in gpus) - GPU_RESERVE_BYTES)
        # Mapped weights take memory only as they are read.
        return max(0, probe.memory().available - self.weights_bytes - context_size.COMPUTE_BYTES)

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """What constraints need to know of the tokens; made once, which takes a moment."""
        from owm.engine.constrain import Vocabulary

        return Vocabulary(self.native)

    @contextmanager
    def scheduler(
        self,
        n_ctx: int,
        *,
        n_sequences: int = 1,
        n_shared: int = 0,
        n_holders: int = 0,
        n_threads: int | None = None,
        tuning: Tuning = DEFAULT,
        is_exact: bool = False,
        piece: int | None = None,
        isolates_failures: bool = False,
        retains: bool = False,
    ) -> "Iterator[GrowingScheduler]":
        """Make a context for `n_sequences` of `n_ctx` tokens each, and a scheduler over it.

        Args:
            n_shared: tokens that all of them begin with, as drafts do; they are kept once.
            n_holders: further sequences, for beginnings that some prompts have in common.
            n_threads: over those of `tuning`.
            is_exact: compute attention in 32 bits, which flash attention on a processor does not where few tokens are
                read; of `tuning`, nothing but the threads holds then.
            piece, isolates_failures, retains: as `owm.engine.scheduler.Scheduler` takes them.

        Raises:
            Unsupported: the model makes no text.
            UsageError: `n_threads` is not between 1 and what ggml takes, or there are too many sequences.
            EngineError: llama.cpp cannot make it.
        """
        self.check_makes_text()
        if n_threads is not None and not 0 < n_threads <= probe.MAX_THREADS:
            raise UsageError(f"--threads must be between 1 and {probe.MAX_THREADS}: {n_threads}")
        if not 0 < n_sequences <= llama.max_sequences() - n_holders:
            raise UsageError(f"--drafts must be between 1 and {llama.max_sequences()}: {n_sequences}")
        threads = n_threads or tuning.n_threads or self.cores.usable
        n_batch, n_ubatch = tuning.n_batch or N_BATCH, tuning.n_ubatch or N_UBATCH
        if is_exact:
            n_batch, n_ubatch, tuning = N_BATCH, N_UBATCH, Tuning(flash_attention=False)
        n_own = n_ctx - n_shared

        def make(n_ctx: int) -> llama.Context:
            n_tokens = n_ctx - n_own + (n_sequences + n_holders) * n_own
            return llama.Context(
                self.native,
                n_ctx=n_tokens,
                n_batch=min(max(n_batch, n_sequences), n_tokens),  # a token of each, at least
                n_ubatch=self._exact_ubatch(n_tokens) if is_exact else min(n_ubatch, n_batch, n_tokens),
                n_sequences=n_sequences + n_holders,
                n_threads=threads,
                n_threads_batch=threads,
                kv_unified=n_shared > 0,
                flash_attention=tuning.flash_attention,
                type_k=tuning.type_k,
                type_v=tuning.type_v,
            )

        scheduler = GrowingScheduler(
            make,
            n_ctx,
            n_slots=n_sequences,
            n_prefill=N_UBATCH,
            piece=piece,
            isolates_failures=isolates_failures,
            retains=retains,
            vocabulary=lambda: self.vocabulary,
        )
        self._schedulers.append(scheduler)
        try:
            yield scheduler
        finally:
            scheduler.close()
            self._schedulers.remove(scheduler)

    def _exact_ubatch(self, n_tokens: int) -> int:
        """Return how many tokens to read at once where each of them is weighed against all others in memory."""
        n_heads = max(self.header.integers("attention.head_count", 1) or [1]) or 1
        return max(32, min(N_UBATCH, n_tokens, WEIGHING_BYTES // (4 * n_heads * n_tokens)))


def read_headers(files: Sequence[Path], *, is_verified: bool = False) -> tuple[Header, ...]:
    """Read and check the headers of a model's files: what there is to check before llama.cpp sees them.

    Raises:
        MalformedFile: a header is not what it should be.
        Unsupported: the file is no model.
    """
    headers = tuple(gguf.read_header(path) for path in files)
    _check_is_model(headers[0])
    if not is_verified:
        headers[0].check_vocabulary()
    return headers


def _check_is_model(header: Header) -> None:
    kind = header.text("general.type")
    if kind in ("adapter", "mmproj", "imatrix"):
        raise Unsupported(f"{header.path.name} is no model to run, it is a file of type {kind}")
    if not header.tensors and not header.metadata.get("split.count"):
        raise Unsupported(f"{header.path.name} holds no weights")


def _unused_gpu() -> str | None:
    """Say in one line that a GPU of this machine cannot be used, None where that is not so."""
    if llama.can_offload() or (gpu := probe.unused_gpu()) is None:
        return None
    return f"{gpu} is here, but this build of llama.cpp cannot use it; the README has the one line that changes that"


def _place(header: Header, weights_bytes: int, asked: int | None) -> tuple[str, int]:
    """Decide how many layers go to the GPU; return that in words too, for `--verbose`."""
    cores = probe.cores()
    on_cpu = f"the CPU with {cores.usable} threads"
    if not llama.can_offload():
        if asked:
            raise UsageError(
                "--gpu-layers needs a build of llama.cpp that can use a GPU",
                hint="the README has the one line that installs it for each kind of GPU",
            )
        return on_cpu, 0
    gpus = [device for device in ggml.devices() if device.is_gpu]
    names = ", ".join(gpu.description for gpu in gpus)
    if asked is not None:
        return (f"{asked if asked >= 0 else 'all'} layers on {names}" if asked else on_cpu), asked
    n_layers = (header.integer("block_count") or 0) + 1
    room = sum(gpu.free_bytes for gpu in gpus) - GPU_RESERVE_BYTES
    if weights_bytes <= room:
        return f"{names}, all layers", -1
    fitting = max(0, int(n_layers * room / weights_bytes))
    return (
        f"{fitting} of {n_layers} layers on {names} ({format_bytes(max(room, 0))} free), the rest on {on_cpu}",
        fitting,
    )
