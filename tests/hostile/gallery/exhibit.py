"""An exhibit: a hostile file as a function that makes it, what owm says of it, and what llama.cpp's tool does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

# What `llama-completion -m FILE -n 1 -p x` does, as scripts/hostile_survey finds it; `unread` is what it does not read.
Fate = Literal["refuses", "loads", "aborts", "segfaults", "divides by zero", "hangs", "runs out of memory", "unread"]
FATES = get_args(Fate)
DEADLY = ("aborts", "segfaults", "divides by zero", "hangs", "runs out of memory")
# What the file is taken for: a model (or the first part of one), a model whose every weight is looked at (`verify
# --full`), an adapter, a checkpoint, a manifest of the store.
Kind = Literal["model", "weights", "adapter", "checkpoint", "manifest"]


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A hostile file.

    Attributes:
        attack: what is wrong with it, in one sentence.
        says: words of owm's error that no other exhibit has.
        code: owm's exit code.
        files: makes its files, by name; the first is the one that is opened.
    """

    name: str
    attack: str
    says: str
    fate: Fate
    kind: Kind
    code: int
    files: Callable[[], Mapping[str, bytes]]


EXHIBITS: dict[str, Exhibit] = {}
FIRST_FILES: dict[Kind, str] = {
    "model": "model.gguf", "weights": "model.gguf", "adapter": "adapter.gguf", "checkpoint": "model.safetensors",
    "manifest": "manifest.json",
}  # fmt: skip
Maker = Callable[[], bytes | Mapping[str, bytes]]


def hostile(says: str, fate: Fate, *, kind: Kind = "model", code: int = 7) -> Callable[[Maker], Maker]:
    """Hang a function's file into the gallery, under the function's name; its docstring is the attack."""

    def hang(make: Maker) -> Maker:
        def files() -> Mapping[str, bytes]:
            made = make()
            return {FIRST_FILES[kind]: made} if isinstance(made, bytes) else made

        name = make.__name__.replace("_", "-")
        if name in EXHIBITS or not make.__doc__:
            raise ValueError(f"two exhibits of one name, or no word about it: {name}")
        EXHIBITS[name] = Exhibit(name, make.__doc__.rstrip("."), says, fate, kind, code, files)
        return make

    return hang
