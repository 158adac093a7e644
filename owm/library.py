"""The Python library: opening the store, pulling, loading, answering. The command line is thin over this.

It is the one place that knows the store and the engine both; neither knows the other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from owm import paths
from owm.events import Sink, ignore
from owm.formats import gguf
from owm.store import pull, refs
from owm.store.local import Store
from owm.store.manifest import ModelFacts
from owm.store.model import StoredModel
from owm.store.refs import ModelRef

if TYPE_CHECKING:  # the engine is loaded when something runs: listing needs no llama.cpp
    from owm.engine.model import Model
    from owm.engine.sampling import Sampling
    from owm.engine.scheduler import Chunk


def open_store(environ: Mapping[str, str] | None = None) -> Store:
    """Return the store of this user (`OWM_HOME`, `HF_HOME`); nothing is created before something is stored."""
    return Store(paths.owm_home(environ), paths.hub_cache(environ))


def inspect_file(path: Path) -> ModelFacts:
    """Read a model file's header, as the last check before it becomes a stored model.

    Raises:
        MalformedFile, Unsupported.
    """
    header = gguf.read_header(path)
    header.check_vocabulary()
    return ModelFacts(
        architecture=header.architecture,
        name=header.text("general.name"),
        n_params=header.n_params,
        n_ctx_train=header.integer("context_length"),
        licence=header.text("general.license"),
    )


def plan_pull(model: str | ModelRef, *, store: Store | None = None, sink: Sink = ignore) -> pull.PullPlan:
    """Find out what a reference means at its source; see `owm.store.pull.plan`."""
    ref = refs.parse(model) if isinstance(model, str) else model
    return pull.plan(ref, store or open_store(), sink=sink)


def execute_pull(plan: pull.PullPlan, *, store: Store | None = None, sink: Sink = ignore) -> StoredModel:
    """Bring a planned model into the store; see `owm.store.pull.execute`."""
    return pull.execute(plan, store or open_store(), inspect=inspect_file, sink=sink)


def load(
    model: str | Path | ModelRef,
    *,
    store: Store | None = None,
    sink: Sink = ignore,
    n_gpu_layers: int | None = None,
    log: Callable[[str], None] | None = None,
) -> "Model":
    """Open a model by any name, pulling it first if it is not stored.

    Raises:
        OwmError: whatever pulling and loading can raise.
    """
    from owm.engine.model import Model

    store = store or open_store()
    if isinstance(model, Path):
        ref = ModelRef("path", str(model))
    else:
        ref = refs.parse(model) if isinstance(model, str) else model
    stored = store.find(ref) or execute_pull(plan_pull(ref, store=store, sink=sink), store=store, sink=sink)
    store.touch(stored)
    return Model(stored.files, n_gpu_layers=n_gpu_layers, is_verified=stored.manifest is not None, log=log)


def answer(
    model: "Model",
    prompt: str,
    *,
    system: str | None = None,
    sampling: "Sampling | None" = None,
    max_tokens: int | None = None,
    stops: str | Sequence[str] = (),
    n_ctx: int | None = None,
) -> "Iterator[Chunk]":
    """Answer one prompt; the last chunk has the finish reason and the timings. Leaving the iteration cancels it.

    Raises:
        PromptTooLong, NotEnoughMemory, TemplateError, EngineError.
    """
    from owm.engine.generate import Generation
    from owm.engine.sampling import Sampling
    from owm.engine.scheduler import Request

    turns = [("system", system)] if system else []
    made = model.chat_prompt([{"role": role, "content": text} for role, text in [*turns, ("user", prompt)]])
    size = model.choose_context(len(made.tokens), max_tokens=max_tokens, asked=n_ctx)
    with model.scheduler(size.n_ctx) as scheduler:
        texts = (stops,) if isinstance(stops, str) else tuple(stops)
        scheduler.submit(Request(made.tokens, sampling or Sampling(), max_tokens, texts))
        yield from Generation(scheduler)
