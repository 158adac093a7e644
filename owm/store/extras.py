"""The small files that come along with a model: template, parameters, system prompt, licence, advice on sampling."""

from pathlib import Path

from owm.errors import OwmError
from owm.events import Sink, Warned, ignore
from owm.store.local import Store
from owm.store.manifest import FileRecord
from owm.store.sources.base import Offer, Source


def fetch(source: Source, offer: Offer, folder: Path, store: Store, *, sink: Sink = ignore) -> tuple[FileRecord, ...]:
    """Bring the extras of an offer into a model's folder. A model is whole without them, so nothing is raised."""
    records = []
    for extra in offer.extras:
        try:
            item = source.fetch(offer, [extra.file], folder, check=lambda path, name: None, sink=ignore)[0]
        except OwmError as problem:
            sink(Warned("pull", f"{extra.file.path} of {offer.name} is left out: {problem}"))
            continue
        records.append(store.record_of(item.path, item.sha256, extra.role))
    return tuple(records)
