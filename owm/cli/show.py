"""`owm show`: everything known of one stored model, from its manifest and its header."""

from typing import Annotated

import typer

from owm.cli import options as o
from owm.cli.output import Output


def command(
    model: o.StoredArg,
    template: Annotated[
        bool, typer.Option("--template", help="Print the chat template that will run, and nothing else.")
    ] = False,
    json: o.JsonOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Show what is known of a stored model."""
    from owm.cli.figures import said_of, say_quality
    from owm.cli.listing import record
    from owm.errors import ModelNotFound
    from owm.formats import gguf
    from owm.library import open_store
    from owm.quality import certificate
    from owm.units import format_bytes, format_count

    out = Output(json, quiet, verbose)
    store = open_store()
    stored = store.find_stored(model)
    if stored.is_gone:
        raise ModelNotFound(
            f"{store.shown_name(stored)} is gone: another program removed {stored.path}",
            ref=model,
            hint=f"`owm pull {store.shown_name(stored)}` fetches it again",
        )
    with store.reading(stored):
        headers = [gguf.read_header(path) for path in stored.files]
    header = headers[0]
    source = header.text("tokenizer.chat_template")
    if template:
        if source is None:
            raise ModelNotFound(f"{store.shown_name(stored)} has no chat template (a base model)", ref=model)
        out.data({"template": source}, lines=source.split("\n"))
        return
    types: dict[str, int] = {}
    for tensor in (tensor for part in headers for tensor in part.tensors):
        types[tensor.type_name] = types.get(tensor.type_name, 0) + 1
    n_params = sum(part.n_params for part in headers)
    facts = {
        **record(stored, store),
        "architecture": header.architecture,
        "title": header.text("general.name"),
        "n_params": n_params,
        "n_ctx_train": header.integer("context_length"),
        "n_layers": header.integer("block_count"),
        "bits_per_weight": round(8 * stored.size_bytes / n_params, 3) if n_params else None,
        "file_type": header.file_type,
        "tensor_types": dict(sorted(types.items(), key=lambda item: -item[1])),
        "has_chat_template": source is not None,
        "gguf_licence": header.text("general.license"),
    }
    measured = certificate.of_manifest(stored.manifest.quality) if stored.manifest else None
    claimed = None if measured else certificate.of_header(header)
    found = measured or claimed
    facts["quality"] = found.record() if found else None
    if json:
        out.data(facts)
        return
    lines = {
        "name": facts["name"],
        "title": facts["title"],
        "source": facts["source"],
        "commit": facts["commit"],
        "licence": facts["licence"] or facts["gguf_licence"] or "not stated",
        "architecture": facts["architecture"],
        "parameters": format_count(n_params),
        "context": f"{facts['n_ctx_train']} tokens" if facts["n_ctx_train"] else None,
        "layers": facts["n_layers"],
        "quant": facts["file_type"] or stored.label,
        "tensors": ", ".join(f"{count} {name}" for name, count in facts["tensor_types"].items()),
        "size": f"{format_bytes(stored.size_bytes)} ({facts['bits_per_weight']} bits per weight)",
        "chat template": "yes" if source else "none (a base model)",
        "path": facts["path"],
        "quality": say_quality(found, is_claimed=measured is None) if found else None,
        "measured": said_of(found) if found else None,
        "sha256": ", ".join(file["sha256"] for file in facts["files"]) or None,
        "stored": facts["created_at"],
    }
    width = max(map(len, lines))
    out.data(None, lines=[f"{key.ljust(width)}  {value}" for key, value in lines.items() if value is not None])
