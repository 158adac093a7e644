"""owm: open-weight models, from wherever they are published to an answer.

The library's names are imported from here, and loaded when they are first used:

    from owm import Sampling, answer, load

    with load("smollm2") as model:
        for chunk in answer(model, "Why is the sky blue?", max_tokens=64):
            print(chunk.text, end="")
"""

TYPE_CHECKING = False  # what type checkers take for typing's own, without the time to import that

__version__ = "0.1.0"

_HOMES = {
    "answer": "owm.library.answering",
    "embed": "owm.library.embedding",
    "execute_pull": "owm.library",
    "load": "owm.library",
    "open_store": "owm.library",
    "plan_pull": "owm.library",
    "Model": "owm.engine.model",
    "Sampling": "owm.engine.sampling",
    "Wishes": "owm.engine.wishes",
    "ModelRef": "owm.store.refs",
    "OwmError": "owm.errors",
}

__all__ = [
    "Model",
    "ModelRef",
    "OwmError",
    "Sampling",
    "Wishes",
    "answer",
    "embed",
    "execute_pull",
    "load",
    "open_store",
    "plan_pull",
]

if TYPE_CHECKING:
    from owm.engine.model import Model
    from owm.engine.sampling import Sampling
    from owm.engine.wishes import Wishes
    from owm.errors import OwmError
    from owm.library import execute_pull, load, open_store, plan_pull
    from owm.library.answering import answer
    from owm.library.embedding import embed
    from owm.store.refs import ModelRef


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'owm' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(_HOMES[name]), name)
    return found
