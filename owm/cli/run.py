"""`owm run`: one prompt in, one answer out."""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.terminal import is_terminal, visible
from owm.errors import UsageError
from owm.units import format_bytes, format_rate, format_seconds

T = TypeVar("T")


def command(
    model: o.ModelArg,
    prompt: o.PromptArg = None,
    system: o.SystemOpt = None,
    max_tokens: o.MaxTokensOpt = None,
    stop: o.StopOpt = None,
    raw: o.RawOpt = False,
    ignore_eos: o.IgnoreEosOpt = False,
    temp: o.TempOpt = None,
    top_k: o.TopKOpt = None,
    top_p: o.TopPOpt = None,
    min_p: o.MinPOpt = None,
    repeat_penalty: o.RepeatPenaltyOpt = None,
    seed: o.SeedOpt = None,
    ctx_size: o.CtxSizeOpt = None,
    threads: o.ThreadsOpt = None,
    gpu_layers: o.GpuLayersOpt = None,
    stats: o.StatsOpt = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> int:
    """Answer a prompt: from the argument, from a pipe, or both.

    Text from a pipe is the material, the argument the instruction: `git diff | owm run MODEL "write a commit message"`.
    The answer, and nothing else, goes to stdout. A model that is not stored is pulled first.
    """
    from owm.cli.fetching import find_or_pull
    from owm.engine.sampling import Sampling, resolve
    from owm.hardware.probe import MAX_THREADS

    out = Output(json, quiet, verbose)
    flags: dict[str, Any] = {
        "temp": temp,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repeat_penalty": repeat_penalty,
        "seed": seed,
        "ignore_eos": ignore_eos or None,
    }
    Sampling(**{name: value for name, value in flags.items() if value is not None})  # refuse before any work
    for flag, value in (("--max-tokens", max_tokens), ("--ctx-size", ctx_size), ("--threads", threads)):
        if value is not None and value <= 0:
            raise UsageError(f"{flag} must be positive: {value}")
    if threads is not None and threads > MAX_THREADS:
        raise UsageError(f"--threads must be between 1 and {MAX_THREADS}: {threads}")
    if any(not text for text in stop or ()):
        raise UsageError("--stop needs a text", hint="an empty text would stop everything")
    if raw and system is not None:
        raise UsageError("--raw sends no template, so --system has no place", hint="put the text into the prompt")
    question = _question(model, prompt)
    stored = find_or_pull(model, out)

    from owm.engine.generate import Generation
    from owm.engine.model import Model
    from owm.engine.scheduler import Request

    with _interruptible(
        lambda: Model(
            stored.files,
            n_gpu_layers=gpu_layers,
            log=_log if verbose else None,
            is_verified=stored.manifest is not None,
        )
    ) as opened:
        sampling, _ = resolve(opened.header, flags)
        sampling = sampling.with_seed()
        made = opened.raw_prompt(question) if raw else opened.chat_prompt(_messages(system, question))
        size = opened.choose_context(len(made.tokens), max_tokens=max_tokens, asked=ctx_size)
        for note in made.notes:
            out.note(note)
        if opened.unused_gpu:
            out.note(opened.unused_gpu)
        out.detail(f"running on {opened.placement}; context {size.n_ctx} tokens; seed {sampling.seed}")
        if size.capped_by and (ctx_size or max_tokens):
            out.note(f"the context is {size.n_ctx} tokens, all that the {size.capped_by} allows")
        with opened.scheduler(size.n_ctx, n_threads=threads) as scheduler:
            scheduler.submit(Request(made.tokens, sampling, max_tokens, tuple(stop or ())))
            answer = _Answer(is_live=not json)
            answer.consume(Generation(scheduler))
    if answer.hit_context_end:
        whose = "the context" if size.capped_by != "model" else "the model's context"
        out.warn(f"the answer ended with {whose}, at {size.n_ctx} tokens")
    if json:
        out.data(
            {
                "model": stored.name,
                "quant": stored.label,
                "text": answer.text,
                "finish_reason": answer.finish_reason,
                "usage": answer.usage(),
                "timings": answer.timings_json(opened.load_seconds),
                "sampling": asdict(sampling),
                "context": size.n_ctx,
            }
        )
    if stats:
        sys.stderr.write(answer.summary(opened.load_seconds) + "\n")
    return 130 if answer.finish_reason == "cancelled" else 0


def _log(line: str) -> None:
    """Pass llama.cpp's log on; it prints metadata, which is a stranger's."""
    sys.stderr.write(visible(line))


class _Answer:
    """An answer as it comes: shown live, or kept for the JSON object."""

    def __init__(self, *, is_live: bool) -> None:
        self.text = ""
        self.finish_reason = "cancelled"
        self.hit_context_end = False
        self._is_live = is_live
        self._escape: Callable[[str], str] = visible if is_terminal(sys.stdout) else lambda text: text
        self._timings: Any = None

    def consume(self, generation: Any) -> None:
        """Take chunks to the end, or to Ctrl-C."""
        try:
            for chunk in generation:
                self._take(chunk)
        except KeyboardInterrupt:
            for chunk in generation.rest():
                self._take(chunk)
        if self._is_live and not self.text.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()

    def _take(self, chunk: Any) -> None:
        self.text += chunk.text
        if self._is_live and chunk.text:
            sys.stdout.write(self._escape(chunk.text))
            sys.stdout.flush()
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason.value
            self.hit_context_end = chunk.hit_context_end
            self._timings = chunk.timings

    def usage(self) -> dict[str, int]:
        """Token counts, under the names that other programs know."""
        prompt, completion = self._timings.n_prompt, self._timings.n_generated
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def timings_json(self, load_seconds: float) -> dict[str, float | int | None]:
        """Seconds and rates; the first token is counted from the loaded model on."""
        t = self._timings
        return {
            "load_seconds": round(load_seconds, 4),
            "ttft_seconds": round(t.prefill_seconds, 4),
            "decode_seconds": round(t.decode_seconds, 4),
            "prompt_per_second": _rounded(t.prompt_per_second),
            "decode_per_second": _rounded(t.decode_per_second),
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def summary(self, load_seconds: float) -> str:
        """The same in one line for people."""
        t = self._timings
        rate = f" at {format_rate(t.decode_per_second)}" if t.decode_per_second else ""
        pp = f" at {format_rate(t.prompt_per_second)}" if t.prompt_per_second else ""
        return (
            f"load {format_seconds(load_seconds)}, first token after {format_seconds(t.prefill_seconds)},"
            f" prompt {t.n_prompt} tokens{pp}, answer {t.n_generated} tokens{rate},"
            f" peak memory {format_bytes(peak_memory_bytes())}"
        )


def peak_memory_bytes() -> int:
    """Return the most memory this process has had resident, mapped file pages included."""
    try:
        import resource
    except ImportError:
        import psutil

        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)


def _question(model: str, prompt: str | None) -> str:
    """Put together what was piped in and what was asked."""
    material = ""
    if sys.stdin is not None and not is_terminal(sys.stdin):
        try:
            material = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise UsageError(
                f"stdin is not UTF-8 text (byte {error.start})", hint="pipe text, for example through `iconv`"
            ) from error
    parts = [part for part in (material, _argument_text(prompt or "")) if part.strip()]
    if not parts:
        raise UsageError("the prompt is empty", hint=f'`owm run {model} "your question"`, or pipe a text into it')
    return "\n\n".join(parts)


def _argument_text(text: str) -> str:
    """Read an argument as UTF-8, whatever the locale took it for; a terminal of another encoding is believed."""
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError as error:
        if any(0xD800 <= ord(character) < 0xE000 for character in text):
            raise UsageError("the prompt is not UTF-8 text", hint="pipe it through `iconv`") from error
        return text


def _messages(system: str | None, question: str) -> list[dict[str, str]]:
    turns = [{"role": "system", "content": _argument_text(system)}] if system else []
    return [*turns, {"role": "user", "content": question}]


def _interruptible(load: Callable[[], T]) -> T:
    """Run a long C call in a thread, so that Ctrl-C ends the program at once; nothing is being written meanwhile."""
    result: list[T] = []
    problem: list[BaseException] = []

    def work() -> None:
        try:
            result.append(load())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=work, name="owm-load", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        os._exit(130)
    if problem:
        raise problem[0]
    return result[0]
