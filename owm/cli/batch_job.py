"""What `owm batch` and `owm run --each` do: find the models, answer the rows, say how it goes and what came of it."""

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from owm.batch.writing import ending_form
from owm.cli import batch_screen, failures
from owm.cli.failures import ExitCode
from owm.cli.output import Output
from owm.cli.terminal import Shown, is_terminal
from owm.errors import UsageError
from owm.library.batching import Batch, BatchModel, Outcome, check_batch, run_batch

if TYPE_CHECKING:
    from typing import BinaryIO

    from owm.engine.adapter import AdapterChoice
    from owm.engine.tuning import Tuning

_FLAGS = {"stops": "stop", "is_raw": "raw"}  # names of wishes -> of flags

Shape = tuple[str | None, str | None, str | None, Path | None]  # schema, choice, regex, grammar


class BatchJob:
    """A batch as the flags want it."""

    def __init__(
        self,
        batch: Batch,
        out: Output,
        flags: Mapping[str, Any],
        *,
        stop: Sequence[str],
        shape: Shape,
        answer_prefix: str | None,
        logprobs: int | None,
        think_budget: int | None,
        lora: Sequence[str],
        system: str | None,
        summarizes: bool = True,
    ) -> None:
        """Check all that can be checked before any work.

        Raises:
            UsageError, NotFound: something is wrong with the flags.
        """
        from owm.cli.shape import read_shape
        from owm.engine.adapter import read_adapter
        from owm.settings import config, keys, layers

        keys.check_flags(flags)
        layers.environment()
        config.load(config.default_path())
        self._batch = batch
        self._out = out
        self._flags = flags
        self._seed: int | None = None  # as the settings have it
        self._summarizes = summarizes
        self._stop = stop
        self._system = system
        self._answer_prefix = answer_prefix
        self._logprobs = logprobs
        self._think_budget = think_budget
        self._adapters: list[AdapterChoice] = [read_adapter(text) for text in lora]
        self._shape = dict(zip(("schema", "choice", "regex", "grammar"), shape, strict=True))
        self._constraint, _ = read_shape(*shape, is_one_line=_is_lines(batch))
        if any(not text for text in stop):
            raise UsageError("--stop needs a text", hint="an empty text would stop everything")
        if self._constraint is not None and stop:
            raise UsageError("an answer of a given shape ends by itself, --stop would cut it")
        thinks = flags["think"] or flags["effort"] or think_budget is not None
        if batch.is_raw and (thinks or system is not None):
            raise UsageError("--raw sends no template, so there is no place for a system prompt or thoughts")

    def run(self, names: Sequence[str], stdin: TextIO | None) -> int:
        """Answer all rows; return the exit code."""
        check_batch(self._batch, n_models=len(names))
        models: list[BatchModel] = []
        for name in names:
            model = self._model(name)
            if any(model.stored.path == other.stored.path for other in models):
                raise UsageError(f"{name} is the same model as one before it", hint="name each model once")
            if any(model.name == other.name for other in models):  # two files of one name
                model = replace(model, name=str(model.stored.path))
            models.append(model)
        if self._batch.seed is None and self._seed is not None:
            self._batch = replace(self._batch, seed=self._seed)
        outcome = self._answer(models, None if self._batch.source else _rows_of(stdin))
        if self._summarizes:
            batch_screen.summarize(outcome, self._batch, self._out)
        if outcome.n_cut:
            cut = "1 answer was" if outcome.n_cut == 1 else f"{outcome.n_cut} answers were"
            self._out.warn(f"{cut} cut at --max-tokens, before the shape was complete")
        return ExitCode.FAILURE if outcome.n_failed or outcome.n_cut else ExitCode.OK

    def _answer(self, models: Sequence[BatchModel], stdin: "BinaryIO | None") -> Outcome:
        out, batch = self._out, self._batch
        is_shown = batch.output is not None or not is_terminal(sys.stdout)
        with batch_screen.progress(out, is_shown=is_shown) as screen:
            try:
                if batch.output is not None:
                    return run_batch(batch, models, stdin=stdin, note=screen.note, tell=screen.tell)
                from owm.library.streaming import stream_batch

                file = cast("TextIO", Shown(sys.stdout)) if is_terminal(sys.stdout) else sys.stdout
                return stream_batch(
                    batch, models[0], file, stdin=stdin, note=screen.note, warn=screen.warn, tell=screen.tell
                )
            except KeyboardInterrupt:
                screen.interrupted(batch)
                raise

    def _model(self, name: str) -> BatchModel:
        """Find a model, or pull it, and what is wished of its answers."""
        from owm.cli.fetching import find_or_pull
        from owm.cli.opening import open_model
        from owm.cli.wishing import make_wishes
        from owm.engine.family import sampling_defaults
        from owm.formats.gguf import read_header
        from owm.library import open_store
        from owm.library.configuring import effective, said_tuned
        from owm.store.digest import sha256_of

        stored = find_or_pull(name, self._out)
        header = read_header(stored.path)
        sampling, settings = effective(
            stored, open_store(), self._flags, header=header, family=sampling_defaults(header), note=self._out.note
        )
        if used := said_tuned(settings):
            self._out.detail(used)
        value = {key: setting.value for key, setting in settings.items()}
        self._seed = value["seed"]
        wishes = make_wishes(
            value,
            sampling,
            stop=self._stop,
            constraint=self._constraint,
            answer_prefix=self._answer_prefix,
            logprobs=self._logprobs,
            think_budget=self._think_budget,
            is_effort_asked=self._flags["effort"] is not None,
            raw=self._batch.is_raw,
        )
        system = None if self._batch.is_raw else value["system"] if self._system is None else self._system
        said = {
            **{key: getattr(sampling, key) for key in sampling.__slots__ if key != "seed"},
            "max_tokens": wishes.max_tokens,
            "ctx_size": wishes.n_ctx,
            "logprobs": wishes.n_logprobs or None,
            "thinking": None if wishes.thinking.mode == "auto" else wishes.thinking.mode,
            "effort": wishes.thinking.effort,
            "system": system,
            "prompt": self._batch.template,
            "deterministic": self._batch.is_deterministic or None,
            **_said_tuning(wishes.tuned),
            "lora": [f"{each.path}={each.scale} ({sha256_of(each.path)[:12]})" for each in self._adapters] or None,
            **{_FLAGS.get(name, name): said for name, said in wishes.shape().items() if name != "constraint"},
            **self._said_shape(),
        }
        layers = value["gpu_layers"]
        return BatchModel(
            name=stored.path.name.encode("utf-8", "replace").decode() if stored.manifest is None else stored.full_name,
            stored=stored,
            system=system,
            wishes=wishes,
            settings=said,
            open=lambda: open_model(stored, self._out, gpu_layers=layers, adapters=self._adapters),
        )

    def _said_shape(self) -> dict[str, str]:
        """Return the shape as the user said it; what may be in a file is told apart by what it says too."""
        if self._constraint is None:
            return {}
        name, text = next((name, str(text)) for name, text in self._shape.items() if text is not None)
        if name in ("choice", "regex"):
            return {name: text}
        return {name: f"{text} ({hashlib.sha256(self._constraint.source.encode()).hexdigest()[:12]})"}


def _said_tuning(tuning: "Tuning") -> dict[str, Any]:
    """Return those settings of the hardware that change what answers are drawn from, where they are no default."""
    from owm.library.configuring import settings_of

    names = ("flash_attn", "cache_type_k", "cache_type_v")
    return {name: value for name, value in settings_of(tuning).items() if name in names and value != "f16"}


def _is_lines(batch: Batch) -> bool:
    """Tell whether answers are to be plain lines, as far as names and flags say."""
    form = batch.output_form or ending_form(batch.output)
    return form == "lines" or (form is None and (batch.input_form or ending_form(batch.source)) == "lines")


def _rows_of(stdin: TextIO | None) -> "BinaryIO":
    """Return stdin for a thread that may still be waiting for it when the program ends.

    Raises:
        UsageError: there is none.
    """
    if stdin is None:
        raise UsageError("there is no stdin to read", hint="name a file with rows")
    if is_terminal(stdin):
        failures.say("note", "rows are read from the terminal, one a line; Ctrl-D ends them")
    # A stream of its own: at its end, Python would wait for the lock of its own stdin.
    return os.fdopen(os.dup(stdin.fileno()), "rb")
