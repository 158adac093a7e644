"""`owm show` of a model that is not stored: what its page says, what its licence permits, how it would fit."""

from typing import TYPE_CHECKING, Any

from owm.cli.output import Output

if TYPE_CHECKING:
    from owm.library.fitting import FitReport
    from owm.store.local import Store
    from owm.store.pull import Look
    from owm.store.refs import ModelRef
    from owm.store.sources.base import RemoteFile

NOT_SAID = "the card does not say"


def show_remote(ref: "ModelRef", store: "Store", out: Output) -> None:
    """Write what is known of a model where it is published; nothing but listings and headers is fetched.

    Raises:
        ModelNotFound, SourceUnreachable, AccessDenied, Unsupported: as a pull does.
    """
    from owm.cli import facts, quants_table
    from owm.cli.progress import progress
    from owm.library import pulling

    with progress(out) as sink:
        found = pulling.look(ref, store=store, sink=sink)
        report, problem = pulling.fit_of_look(found, store=store, sink=sink)
    stored, is_stored = _stored(found, store), store.find(ref) is not None
    if out.as_json:
        out.data(_record(found, report, is_stored=is_stored))
        return
    out.data(None, lines=facts.lines(_facts(found, stored)))
    if problem is not None:
        out.warn(str(problem))
        return
    if report is not None and report.rows:
        out.data(None, lines=[""])
        quants_table.write(report, out)
        for note in (report.reason, *report.notes):
            facts.note(note, out)
    if not is_stored:
        out.note(f"`owm pull {ref}` fetches it")


def _stored(found: "Look", store: "Store") -> list[str]:
    """Return the names of what is stored of a repo."""
    source, name = found.offer.source, found.offer.name
    return [
        store.shown_name(model)
        for model in store.models([])
        if model.manifest is not None and not model.is_gone
        if (model.manifest.source, model.manifest.name) == (source, name)
    ]


def _facts(found: "Look", stored: "list[str]") -> dict[str, object]:
    from owm.store import catalog, licences
    from owm.units import format_count

    offer, card = found.offer, found.offer.card
    name = offer.licence or catalog.load().licence_of(offer.ref)
    licence = licences.find(name)
    said: dict[str, object] = {
        "name": str(offer.ref.with_quant(None)),
        "source": _place(offer.source) + ("" if stored else ", not stored"),
        "stored": ", ".join(stored) or None,
        "commit": offer.commit,
    }
    if card is not None:
        said |= {
            "made from": _made_from(card.base_models, card.relation),
            "task": card.task,
            "architecture": card.architecture or NOT_SAID,
            "parameters": format_count(card.n_params) if card.n_params else NOT_SAID,
            "context": f"{card.n_ctx_train} tokens" if card.n_ctx_train else None,
            "languages": ", ".join(card.languages) or None,
        }
    link = card.licence_link if card else None
    said |= {"licence": f"{licence.title} ({name})" if licence else licences.say(name, link)}
    if licence is not None:
        said |= {f"  {subject}": words for subject, words in licence.lines().items()}
        said |= {"  text": link}
    said |= _openness(found)
    if card is not None:
        used = [
            f"{card.n_downloads:,} downloads in 30 days" if card.n_downloads is not None else None,
            f"{card.n_likes:,} likes" if card.n_likes is not None else None,
        ]
        said |= {"used": ", ".join(filter(None, used)) or None, "changed": card.modified and card.modified[:10]}
    return said


def _openness(found: "Look") -> dict[str, str]:
    """Say what is open, as far as the listing and the card say: weights, code, data."""
    files, card = found.offer.files, found.offer.card
    code = [file.path for file in files if file.path.endswith(".py")]
    data = ", ".join(card.datasets) if card is not None else ""
    return {
        "access": _access(found),
        "weights": _weights(files),
        "code": _count(len(code), "Python file") + " in the repo, which owm never runs" if code else NOT_SAID,
        "data": f"the card names {data}" if data else NOT_SAID,
    }


def _access(found: "Look") -> str:
    from owm.store.sources.hub_client import page_of

    offer, card = found.offer, found.offer.card
    if card is not None and card.is_private:
        return "private: your token opens it"
    if not offer.gated:
        return "open to everybody"
    how = "its owners let people in one by one" if card is not None and card.gate == "manual" else "at once"
    return f"gated: accept its terms at {page_of(offer.name)} ({how}), then `owm login`"


def _weights(files: "tuple[RemoteFile, ...]") -> str:
    from owm.store import quants

    n_models = len(quants.variants(files))
    n_weights = sum(file.path.endswith(".safetensors") for file in files)
    parts = [
        _count(n_models, "model file") + " (GGUF)" if n_models else None,
        _count(n_weights, "file") + " of original weights (safetensors)" if n_weights else None,
    ]
    return " and ".join(filter(None, parts)) + " published" if any(parts) else "none that owm can use"


def _record(found: "Look", report: "FitReport | None", *, is_stored: bool) -> dict[str, Any]:
    from owm.cli import quants_table
    from owm.store import catalog, licences

    offer, card = found.offer, found.offer.card
    name = offer.licence or catalog.load().licence_of(offer.ref)
    licence = licences.find(name)
    return {
        "name": str(offer.ref.with_quant(None)),
        "is_stored": is_stored,
        "source": offer.source,
        "revision": offer.revision,
        "commit": offer.commit,
        "licence": name,
        "licence_link": card.licence_link if card else None,
        "licence_terms": licence.record() if licence else None,
        "is_gated": offer.gated,
        "is_private": card.is_private if card else False,
        "architecture": card.architecture if card else None,
        "n_params": card.n_params if card else None,
        "n_ctx_train": card.n_ctx_train if card else None,
        "task": card.task if card else None,
        "languages": list(card.languages) if card else [],
        "base_models": list(card.base_models) if card else [],
        "base_model_relation": card.relation if card else None,
        "datasets": list(card.datasets) if card else [],
        "n_downloads": card.n_downloads if card else None,
        "n_likes": card.n_likes if card else None,
        "modified": card.modified if card else None,
        "files": [{"path": f.path, "size_bytes": f.size_bytes, "sha256": f.sha256} for f in offer.files],
        **quants_table.record(report),
    }


def _made_from(models: tuple[str, ...], relation: str | None) -> str | None:
    return ", ".join(models) + (f" ({relation})" if relation else "") if models else None


def _place(source: str) -> str:
    return {"hub": "the Hugging Face Hub", "url": "a web address", "pypi": "a package index"}.get(source, source)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
