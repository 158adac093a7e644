"""`owm embed`: texts in, vectors out."""

import json as json_module
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from owm.cli import options as o
from owm.cli.output import Output
from owm.cli.terminal import is_terminal
from owm.errors import UsageError

if TYPE_CHECKING:
    from owm.cli.passages import Row
    from owm.engine.embedding import Embedding, Passage


def command(
    model: o.ModelArg,
    text: o.EmbedTextArg = None,
    file: o.EmbedFileOpt = None,
    lines: o.LinesOpt = False,
    jsonl: o.JsonlOpt = False,
    prefix: o.PrefixOpt = "",
    pooling: o.PoolingOpt = None,
    no_normalize: o.NoNormalizeOpt = False,
    lora: o.RunLoraOpt = None,
    threads: o.ThreadsOpt = None,
    gpu_layers: o.GpuLayersOpt = None,
    trust: o.TrustOpt = False,
    output: o.VectorsOutputOpt = None,
    json: o.EmbedJsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Make vectors (embeddings) of texts.

    Each text becomes one line of JSON on stdout: its `index`, its `tokens` and its `embedding`, of length 1. Texts come
    from the argument, files or a pipe. Nothing is cut: a text longer than the model reads is refused with its count.
    """
    from owm.cli import passages
    from owm.cli.asking import text_of
    from owm.cli.fetching import find_or_pull
    from owm.cli.opening import open_model
    from owm.cli.progress import progress
    from owm.engine.adapter import read_adapter
    from owm.engine.embedding import Embedder
    from owm.library.embedding import SUFFIX, read_pooling, write_vectors

    out = Output(json, quiet, verbose)
    if output is not None and output.suffix != SUFFIX:
        raise UsageError(f"-o takes a file that ends in {SUFFIX}: {output}", hint="`> FILE` keeps lines of JSON")
    if output is not None and not output.parent.is_dir():
        raise UsageError(f"no such folder: {output.parent}")
    how = read_pooling(pooling)
    adapters = [read_adapter(each) for each in lora or ()]
    rows, n_rows = passages.read(model, text, file or [], is_lines=lines, is_jsonl=jsonl, note=out.note)
    opening = text_of(prefix, "--prefix")
    stored = find_or_pull(model, out)
    labels: deque[Mapping[str, Any]] = deque()
    shown: list[str] = []
    n_texts = n_tokens = 0
    with (
        open_model(stored, out, gpu_layers=gpu_layers, adapters=adapters, will_chat=False) as opened,
        Embedder(opened, pooling=how, prefix=opening, is_normalized=not no_normalize, n_threads=threads) as embedder,
        progress(out) as sink,
    ):
        out.detail(f"running on {opened.placement}; {embedder.pooling} pooling, {embedder.n_dims} dimensions")
        embeddings = embedder.embed(_labelled(rows, labels), n_passages=n_rows, sink=sink)
        if output is not None:
            embeddings = write_vectors(embeddings, embedder.n_dims, output)
        for embedding in embeddings:
            if output is None:
                row = _row(n_texts, labels.popleft(), embedding)
                shown.append(row) if json else sys.stdout.write(row + "\n")
            n_texts += 1
            n_tokens += embedding.n_tokens
    about = {
        "model": stored.name,
        "quant": stored.label,
        "pooling": str(embedder.pooling),
        "normalized": embedder.is_normalized,
        "texts": n_texts,
        "dimensions": embedder.n_dims,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }
    if output is not None:
        out.data(about | {"file": str(output)}, lines=[str(output)])
    elif json:
        head = _dumped(about, indent=2).removesuffix("\n}")
        sys.stdout.write(f'{head},\n  "embeddings": [\n    ' + ",\n    ".join(shown) + "\n  ]\n}\n")


def _labelled(rows: "Iterable[Row]", labels: deque[Mapping[str, Any]]) -> "Iterator[Passage]":
    """Yield the texts, and keep what is to stand beside their vectors for when those come."""
    for row in rows:
        labels.append(row.labels)
        yield row.passage


def _row(index: int, labels: Mapping[str, Any], embedding: "Embedding") -> str:
    """Return a vector as a JSON object; nine digits are a float32, exactly."""
    head = _dumped({"index": index, **labels, "tokens": embedding.n_tokens}).removesuffix("}")
    return f'{head}, "embedding": [{", ".join([f"{x:.9g}" for x in embedding.vector.tolist()])}]}}'


def _dumped(value: Mapping[str, Any], indent: int | None = None) -> str:
    return json_module.dumps(value, ensure_ascii=is_terminal(sys.stdout), indent=indent)
