"""A model that is open: its header, its vocabulary, its chat template, and contexts made over it."""

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from owm.engine import context as context_size
from owm.engine.context import ContextSize
from owm.engine.scheduler import Scheduler
from owm.engine.template import ChatTemplate, Message, TemplateRefusal
from owm.errors import TemplateError, Unsupported, UsageError
from owm.formats import gguf
from owm.formats.gguf import Header
from owm.hardware import probe
from owm.native import ggml, llama
from owm.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

N_BATCH = 2048
N_UBATCH = 512
GPU_RESERVE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as tokens; `notes` are sentences about how it was made that the user should know."""

    tokens: list[int]
    text: str
    notes: tuple[str, ...] = ()


class Model:
    """An open model. Close it, or use it in a `with` statement."""

    def __init__(
        self,
        files: Sequence[Path],
        *,
        n_gpu_layers: int | None = None,
        is_verified: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Check the headers of all files, then load.

        Args:
            files: the model file, or all its shards in order.
            n_gpu_layers: layers on the GPU, -1 for all, None for as many as fit.
            is_verified: the vocabulary was checked before, when the model was stored.
            log: takes the lines of llama.cpp's own log, which hold a stranger's metadata.

        Raises:
            MalformedFile: a header is not what it should be; llama.cpp never saw the file.
            EngineError: llama.cpp refuses it.
            Unsupported: the file is no text generator.
        """
        began = time.perf_counter()
        self.headers: tuple[Header, ...] = tuple(gguf.read_header(path) for path in files)
        self.header = self.headers[0]
        self.path = files[0]
        _check_is_generator(self.header)
        if not is_verified:
            self.header.check_vocabulary()
        self.weights_bytes = sum(path.stat().st_size for path in files)
        llama.start(log)
        self.cores = probe.cores()
        self.placement, layers = _place(self.header, self.weights_bytes, n_gpu_layers)
        self.unused_gpu = _unused_gpu()
        self.native = llama.Model(files[0], n_gpu_layers=layers)
        if self.native.has_encoder and not self.native.has_decoder:
            raise Unsupported(f"{self.path.name} makes no text ({self.header.architecture})")
        self._schedulers: list[Scheduler] = []
        self.load_seconds = time.perf_counter() - began

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what still runs on this model, and free it."""
        for scheduler in list(self._schedulers):
            scheduler.close()
        self.native.close()

    def template(self) -> ChatTemplate | None:
        """Return the model's chat template, None if it has none (a base model).

        Raises:
            TemplateError: it does not compile.
        """
        source = self.native.chat_template()
        if not source:
            return None
        return ChatTemplate(source, bos=self.native.special_text("bos"), eos=self.native.special_text("eos"))

    def chat_prompt(self, messages: Sequence[Message], *, is_open: bool = True) -> Prompt:
        """Render and tokenize a conversation; without a template, its plain text.

        Args:
            is_open: the assistant's turn is next; otherwise the conversation ends as it is.

        Raises:
            TemplateError: the template fails or refuses the conversation.
        """
        template = self.template()
        if template is None:
            plain = "\n\n".join(str(message["content"]) for message in messages)
            note = "this model has no chat template (a base model), so the prompt is completed as it is"
            return Prompt(self.tokenize(plain), plain, (note,))
        notes: tuple[str, ...] = ()
        try:
            text = template.render(messages, add_generation_prompt=is_open)
        except TemplateRefusal:
            if len(messages) < 2 or messages[0]["role"] != "system":
                raise
            text = template.render(_fold_system(messages), add_generation_prompt=is_open)
            notes = ("this model knows no system prompt, so it was put before the first message",)
        tokens = self._tokenize_rendered(text)
        if not tokens:
            raise TemplateError(
                "the model's chat template renders to nothing", hint="`--raw` sends the prompt without a template"
            )
        return Prompt(tokens, text, notes)

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

    @contextmanager
    def scheduler(self, n_ctx: int, *, n_sequences: int = 1, n_threads: int | None = None) -> "Iterator[Scheduler]":
        """Make a context of `n_ctx` tokens for each of `n_sequences`, and a scheduler over it.

        Raises:
            UsageError: `n_threads` is not between 1 and what ggml takes.
            EngineError: llama.cpp cannot make it.
        """
        if n_threads is not None and not 0 < n_threads <= probe.MAX_THREADS:
            raise UsageError(f"--threads must be between 1 and {probe.MAX_THREADS}: {n_threads}")
        threads = n_threads or self.cores.usable
        native = llama.Context(
            self.native,
            n_ctx=n_ctx * n_sequences,
            n_batch=min(N_BATCH, n_ctx * n_sequences),
            n_ubatch=min(N_UBATCH, n_ctx * n_sequences),
            n_sequences=n_sequences,
            n_threads=threads,
            n_threads_batch=threads,
        )
        scheduler = Scheduler(native, n_ctx_limit=n_ctx)
        self._schedulers.append(scheduler)
        try:
            yield scheduler
        finally:
            scheduler.close()
            self._schedulers.remove(scheduler)


def _fold_system(messages: Sequence[Message]) -> list[Message]:
    first, second, *rest = messages
    return [{"role": second["role"], "content": f"{first['content']}\n\n{second['content']}"}, *rest]


def _check_is_generator(header: Header) -> None:
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
