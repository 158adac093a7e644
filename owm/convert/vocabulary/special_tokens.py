"""Special tokens: which ids they have and which of them are added around a text.

Sources, first wins: tokenizer_config.json's named tokens and tokenizer.json's post-processor, then config.json.
ref: llama.cpp gguf-py/gguf/vocab.py, SpecialVocab
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from owm.convert.vocabulary.files import TokenizerFiles, is_id, parts

KINDS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")

# The GGUF key of each kind below `tokenizer.ggml.`; a classification token has none.
ID_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # spelled so in the format
    "pad": "padding_token_id",
    "mask": "mask_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
}
_ADDED_KINDS = ("bos", "eos", "sep")


@dataclass(slots=True)
class SpecialTokens:
    """Ids by kind, and whether a kind is added around a text."""

    ids: dict[str, int] = field(default_factory=dict)
    added: dict[str, bool] = field(default_factory=dict)

    def set_default(self, kind: str, token_id: int | None) -> None:
        """Set an id unless the kind has one already or the id is unknown."""
        if token_id is not None:
            self.ids.setdefault(kind, token_id)

    def metadata(self) -> dict[str, int | bool]:
        """Return the keys and values for the file."""
        found: dict[str, int | bool] = {}
        for kind, token_id in self.ids.items():
            if kind in ID_KEYS:
                found[f"tokenizer.ggml.{ID_KEYS[kind]}"] = token_id
        for kind, is_added in self.added.items():
            if kind in _ADDED_KINDS:
                found[f"tokenizer.ggml.add_{kind}_token"] = is_added
        return found


def read_special_tokens(files: TokenizerFiles, n_tokens: int) -> SpecialTokens:
    """Collect the special tokens of a checkpoint; ids outside the vocabulary are left out."""
    special = SpecialTokens()
    names = _Names(files)
    if files.tokenizer is not None:
        for part in parts(files.tokenizer.get("post_processor")):
            _read_post_processor(part, names, special)
    ids = _ids_by_text(files)
    if files.tokenizer_config is not None:
        for kind in names.kinds:
            stated = files.tokenizer_config.get(f"add_{kind}_token")
            if isinstance(stated, bool):
                special.added.setdefault(kind, stated)
            token_id = ids.get(names.texts.get(kind, ""))
            if token_id is not None and token_id < n_tokens:
                special.set_default(kind, token_id)
    for kind in names.kinds:
        token_id = files.config_value(f"{kind}_token_id")
        if isinstance(token_id, list) and token_id:
            token_id = token_id[0]  # several ends of text; llama.cpp finds the others by their names
        if is_id(token_id) and token_id < n_tokens:
            special.set_default(kind, token_id)
    _find_by_text(files, names, special, n_tokens)
    return special


def _ids_by_text(files: TokenizerFiles) -> dict[str, int]:
    ids: dict[str, int] = {}
    for entry in files.added_tokens:
        ids.setdefault(entry["content"], entry["id"])
    return ids


def _find_by_text(files: TokenizerFiles, names: "_Names", special: SpecialTokens, n_tokens: int) -> None:
    """Look up a begin or end that no file gives an id to (older checkpoints list them in the plain vocabulary only)."""
    vocab = files.model.get("vocab")
    ids = _ids_by_text(files)
    for kind in ("bos", "eos"):
        text = names.texts.get(kind)
        if kind not in special.ids and text:
            found: Any = ids.get(text, vocab.get(text) if isinstance(vocab, dict) else None)
            if is_id(found) and found < n_tokens:
                special.ids[kind] = found


class _Names:
    """The texts of the special tokens by kind, as tokenizer_config.json has them and the post-processor amends them."""

    def __init__(self, files: TokenizerFiles) -> None:
        self.is_stated = files.tokenizer_config is not None
        self.kinds: tuple[str, ...] = KINDS
        self.texts = {kind: text for kind in KINDS if (text := files.named_token(kind))}
        if files.tokenizer is not None and self.is_stated:
            self.set_default("bos", self.get("cls"))
            self.set_default("eos", self.get("sep"))

    def get(self, kind: str) -> str | None:
        return self.texts.get(kind)

    def set_default(self, kind: str, text: str | None) -> None:
        if text:
            self.texts.setdefault(kind, text)

    def replace_end(self, text: str) -> None:
        """Take another end of text; the former one ends a turn."""
        former = self.get("eos")
        for kind in ("eot", "eom"):
            if kind not in self.kinds:
                self.kinds = (*self.kinds, kind)
                if former:
                    self.texts[kind] = former
                break
        self.texts["eos"] = text


def _read_post_processor(part: dict[str, Any], names: _Names, special: SpecialTokens) -> None:
    kind = part.get("type")
    if kind == "ByteLevel":
        special.added.setdefault("bos", False)
        special.added.setdefault("eos", False)
    elif kind == "RobertaProcessing":
        special.added.update(bos=True, eos=True, sep=True)
        if names.is_stated:
            names.set_default("cls", _first(part.get("cls")) or names.get("bos"))
            names.set_default("sep", _first(part.get("sep")) or names.get("eos"))
    elif kind == "TemplateProcessing":
        _read_template(part, names, special)


def _first(pair: object) -> str | None:
    return pair[0] if isinstance(pair, list) and pair and isinstance(pair[0], str) else None


def _read_template(part: dict[str, Any], names: _Names, special: SpecialTokens) -> None:
    """Read begin and end from the template for one text, the separator from the one for two."""
    single, pair = _template(part.get("single")), _template(part.get("pair"))
    first = last = None
    if len(single) > 1:
        first, last = single[0][0], single[-1][0]
        if first:
            if not names.is_stated:
                names.texts["bos"] = first
            else:
                if first not in (names.get("bos"), names.get("cls")):
                    names.set_default("bos", first)
                    names.set_default("cls", first)
            special.added["bos"] = first in (names.get("bos"), names.get("cls"))
        if last:
            if not names.is_stated:
                names.texts["eos"] = last
            elif last != names.get("eos"):
                names.replace_end(last)
            special.added["eos"] = True
    if first and pair and pair[0][0] == first:
        pair = pair[1:]
    if last and pair and pair[-1][0] == last:
        pair = pair[:-1]
    if len(pair) < 3 or (pair[0][1], pair[-1][1]) != ("A", "B"):
        return
    between = [token for token, _ in pair[1:-1]]
    separators = (names.get("sep"), names.get("eos"))
    is_added = bool(between[0]) and between[0] in separators and not last
    if len(between) == 2 and between[1] and between[1] in separators:
        is_added = True
    special.added["sep"] = is_added
    if is_added and names.is_stated:
        names.set_default("sep", names.get("eos"))


def _template(listed: object) -> list[tuple[str | None, str | None]]:
    """Read a template as (special token, None) and (None, sequence name) pairs."""

    def name_in(entry: object, key: str) -> str | None:
        inner = entry.get(key) if isinstance(entry, dict) else None
        name = inner.get("id") if isinstance(inner, dict) else None
        return name if isinstance(name, str) else None

    entries: Iterable[object] = listed if isinstance(listed, list) else ()
    return [(name_in(entry, "SpecialToken"), name_in(entry, "Sequence")) for entry in entries]
