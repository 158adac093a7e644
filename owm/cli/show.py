"""`owm show`: everything known of one model: a stored one from its manifest and its header, else from its source."""

from typing import TYPE_CHECKING, Annotated

import typer

from owm.cli import options as o
from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.store.local import Store
    from owm.store.model import StoredModel


def command(
    model: o.ModelArg,
    template: Annotated[
        bool, typer.Option("--template", help="Print the chat template that will run, and nothing else.")
    ] = False,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Show where it is from, and how it was made, up to published weights.")
    ] = False,
    remote: Annotated[bool, typer.Option("--remote", help="Look where it is published, even if it is stored.")] = False,
    json: o.JsonOpt = False,
    offline: o.OfflineOpt = False,
    quiet: o.QuietOpt = False,
    verbose: o.VerboseOpt = False,
) -> None:
    """Show what is known of a model, stored or not: licence, size, how it would fit.

    Of a model that is not stored, its page and its headers are read: what its licence permits, whether it is gated,
    what of it is open, and how each quant would do on this machine.
    """
    from owm.cli.facts import lines as fact_lines
    from owm.cli.figures import said_of, say_quality
    from owm.cli.listing import record
    from owm.errors import ModelNotFound
    from owm.formats import gguf
    from owm.library import open_store
    from owm.library.projecting import projector_of
    from owm.quality import certificate
    from owm.store import absent, refs
    from owm.store.selecting import OWN
    from owm.units import format_bytes, format_count

    out = Output(json, quiet, verbose)
    store = open_store()
    if provenance:
        _show_provenance(model, store, out)
        return
    stored = None if remote else _stored(model, store, must=template)
    if stored is None:
        from owm.cli.show_remote import show_remote

        show_remote(refs.parse(model), store, out)
        return
    if stored.is_gone:
        raise absent.gone(stored, store)
    with store.reading(stored):
        headers = [gguf.read_header(path) for path in stored.files]
    header = headers[0]
    source = header.text("tokenizer.chat_template")
    if template:
        if source is None:
            raise ModelNotFound(f"{store.shown_name(stored)} has no chat template (a base model)", ref=model)
        from owm.cli.template_note import say_comparison
        from owm.errors import TemplateError
        from owm.library.chat_templates import compare

        comparison = problem = None
        try:
            comparison = compare(stored, header, store)
        except TemplateError as error:
            problem = error
        out.data(
            {"template": source, "published": comparison.record() if comparison else None}, lines=source.split("\n")
        )
        if problem is not None:
            out.warn(str(problem))
        elif not json:
            say_comparison(comparison, out)
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
    projector = projector_of(stored)
    facts["projector"] = str(store.file_path(projector)) if projector else None
    if json:
        out.data(facts)
        return
    lines = {
        "name": facts["name"],
        "title": facts["title"],
        "source": facts["source"],
        "commit": facts["commit"],
        "licence": _licence(facts["licence"] or facts["gguf_licence"]),
        "architecture": facts["architecture"],
        "parameters": format_count(n_params),
        "context": f"{facts['n_ctx_train']} tokens" if facts["n_ctx_train"] else None,
        "layers": facts["n_layers"],
        "quant": facts["file_type"] or stored.label,
        "tensors": ", ".join(f"{count} {name}" for name, count in facts["tensor_types"].items()),
        "size": format_bytes(stored.size_bytes)
        + (f" ({facts['bits_per_weight']} bits per weight)" if n_params else ""),
        "chat template": "yes" if source else "none (a base model)",
        "path": facts["path"],
        "owner": facts["owner"] if facts["owner"] != OWN else None,
        "projector": facts["projector"],
        "quality": say_quality(found, is_claimed=measured is None) if found else None,
        "measured": said_of(found) if found else None,
        "sha256": ", ".join(file["sha256"] for file in facts["files"]) or None,
        "stored": facts["created_at"],
    }
    out.data(None, lines=fact_lines(lines))


def _show_provenance(model: str, store: "Store", out: Output) -> None:
    """Show where a stored model, or a file, is from; the network is not asked."""
    from owm.cli import lineage
    from owm.cli.progress import progress
    from owm.library import provenance

    lineages = provenance.Lineages(store)
    stored = provenance.find(model, store, lineages)
    with progress(out) as sink, store.reading(stored):
        found = lineages.of(stored, sink=sink)
    name = store.shown_name(stored)
    out.data({**found.record(), "name": name}, lines=list(lineage.lines(found, name)))


def _stored(model: str, store: "Store", *, must: bool) -> "StoredModel | None":
    """Find a stored model; None for the name of one that can be looked at where it is published.

    Raises:
        ModelNotFound: nothing stored has the name, and it names nothing that is published (or `must` be stored).
    """
    from owm.errors import ModelNotFound
    from owm.store import catalog, refs

    try:
        return store.find_stored(model)
    except ModelNotFound:
        ref = store.aliases.expand(refs.parse(model))
        is_known = ref.kind != "catalog" or ref.name in catalog.load().entries
        if must or ref.kind in ("path", "local") or not is_known:
            raise
        return None


def _licence(name: str | None) -> str:
    from owm.store import licences

    known = licences.find(name)
    return f"{name}: {known.sentence()}" if known else name or "not stated"
