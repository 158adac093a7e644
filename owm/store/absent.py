"""What is said of models that are not here: of which someone else has removed a file, or which nobody publishes."""

import shlex

from owm.errors import ModelNotFound
from owm.store import matching
from owm.store.local import Store
from owm.store.model import StoredModel, file_exists
from owm.store.refs import ModelRef


def gone(model: StoredModel, store: Store) -> ModelNotFound:
    """Return the error for a stored model of which a file is not there any more."""
    called, of = store.shown_name(model), model.manifest
    name = shlex.quote(called)
    hint = f"`owm pull {name}` fetches it again"
    if of is not None and of.source == "local":
        hint = f"{'make it again' if of.made_from else 'put the file back'}, or `owm rm {name}` forgets it"
    lost = next((path for path in model.files if not file_exists(path)), model.path)
    if lost.is_symlink():
        lost = lost.readlink()  # what `owm import --link sym` refers to
    return ModelNotFound(f"{called} is gone: another program removed {lost}", ref=called, hint=hint)


def unpublished(ref: ModelRef, store: Store) -> ModelNotFound:
    """Return the error for a name of the user's own that stands for nothing whole."""
    stored = store.models()
    for wanted in store.candidates(ref):
        for model in matching.of_source(wanted, stored):
            if model.is_gone:
                return gone(model, store)
    return ModelNotFound(f"{ref} is not stored", ref=str(ref), hint="`owm list` shows what is")
