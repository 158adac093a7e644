"""The files of a tokenizer in a checkpoint's folder, read as hostile input: bounded, and every JSON type checked."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from owm.errors import Damaged

MAX_BYTES = 256 << 20  # the largest tokenizer.json known has 33 MB
MAX_TOKENS = 1 << 20  # as many texts as a model file's arrays may have in all
_HINT = "the file is damaged; fetch the checkpoint again"


def damaged(path: Path, cause: str) -> Damaged:
    """Make the error for a file that breaks its format."""
    return Damaged(f"{path.name} cannot be used: {cause}", hint=_HINT)


def read_bytes(path: Path) -> bytes:
    """Read a whole side file.

    Raises:
        Damaged: larger than any such file may be, or unreadable.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise damaged(path, f"it is larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error.strerror}") from error


def read_text(path: Path) -> str:
    """Read a side file as UTF-8.

    Raises:
        Damaged: too large, unreadable or not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not UTF-8") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Damaged: not JSON, nested too deeply, or not an object.
    """
    try:
        parsed = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise damaged(path, "it is not JSON") from error
    if not isinstance(parsed, dict):
        raise damaged(path, "it is not a JSON object")
    return parsed


def is_text(value: object) -> bool:
    """Say whether a value is a string that can be written as UTF-8 (JSON can hold lone surrogates)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_id(value: object) -> bool:
    """Say whether a value is a whole number that can be a token's id."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TOKENS


class TokenizerFiles:
    """The tokenizer's files in one folder; each is read at most once, when first asked for."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self.loaded: Any = None  # the tokenizer of the `tokenizers` library, see `backend.load`

    def path(self, name: str) -> Path | None:
        """Return the path of a file that exists."""
        path = self.folder / name
        return path if path.is_file() else None

    def json(self, name: str) -> dict[str, Any] | None:
        """Read a JSON file of the folder, None if it is not there."""
        path = self.path(name)
        return read_json(path) if path else None

    @cached_property
    def tokenizer(self) -> dict[str, Any] | None:
        """Return `tokenizer.json`, or what it would be, with its `model` known to be an object."""
        found = self.json("tokenizer.json")
        if found is None:
            from owm.convert.vocabulary.legacy import build_tokenizer  # it needs this module's readers

            return build_tokenizer(self.folder, self.tokenizer_config or {})
        if not isinstance(found.get("model"), dict):
            raise damaged(self.folder / "tokenizer.json", "it has no model")
        return found

    @cached_property
    def model(self) -> dict[str, Any]:
        """Return the `model` of `tokenizer.json`, empty without one."""
        return self.tokenizer["model"] if self.tokenizer else {}

    @cached_property
    def model_type(self) -> str | None:
        """Return BPE, Unigram, WordPiece or WordLevel; old files do not say it."""
        declared = self.model.get("type")
        if declared is not None:
            return declared if isinstance(declared, str) else None
        if "merges" in self.model:
            return "BPE"
        if isinstance(self.model.get("vocab"), list):
            return "Unigram"
        return "WordPiece" if "continuing_subword_prefix" in self.model else None

    @cached_property
    def tokenizer_config(self) -> dict[str, Any] | None:
        """Return `tokenizer_config.json`."""
        return self.json("tokenizer_config.json")

    @cached_property
    def added_tokens(self) -> list[dict[str, Any]]:
        """Return the added tokens of `tokenizer.json`, each with a checked `id` and `content`."""
        listed = (self.tokenizer or {}).get("added_tokens") or []
        if not isinstance(listed, list) or not all(
            isinstance(entry, dict) and is_id(entry.get("id")) and is_text(entry.get("content")) for entry in listed
        ):
            raise damaged(self.folder / "tokenizer.json", "its added tokens are malformed")
        return listed

    @cached_property
    def added_tokens_decoder(self) -> dict[int, dict[str, Any]]:
        """Return the added tokens of `tokenizer_config.json` by id, each with a checked `content`."""
        listed = (self.tokenizer_config or {}).get("added_tokens_decoder") or {}
        cause = "its added_tokens_decoder is malformed"
        if not isinstance(listed, dict):
            raise damaged(self.folder / "tokenizer_config.json", cause)
        found: dict[int, dict[str, Any]] = {}
        for key, entry in listed.items():
            if not (key.isascii() and key.isdigit() and len(key) < 10 and is_id(int(key))):
                raise damaged(self.folder / "tokenizer_config.json", cause)
            if not isinstance(entry, dict) or not is_text(entry.get("content")):
                raise damaged(self.folder / "tokenizer_config.json", cause)
            found[int(key)] = entry
        return found

    @cached_property
    def added_tokens_json(self) -> dict[str, int]:
        """Return `added_tokens.json`: text to id."""
        listed = self.json("added_tokens.json") or {}
        if not all(is_text(text) and is_id(token) for text, token in listed.items()):
            raise damaged(self.folder / "added_tokens.json", "it does not map texts to ids")
        return listed

    def named_token(self, kind: str) -> str | None:
        """Return the text of `bos_token`, `eos_token` … in `tokenizer_config.json`, in either of its two forms."""
        entry = (self.tokenizer_config or {}).get(f"{kind}_token")
        if isinstance(entry, dict):
            entry = entry.get("content")
        return entry if is_text(entry) else None

    def config_value(self, key: str) -> Any:
        """Return a key of config.json, from its top or its text part."""
        value = self.config.get(key)
        if value is None and isinstance(nested := self.config.get("text_config"), Mapping):
            value = nested.get(key)
        return value

    @cached_property
    def is_byte_level(self) -> bool:
        """Say whether `tokenizer.json` works on bytes, GPT-2's way."""
        tokenizer = self.tokenizer or {}
        return any(
            part.get("type") == "ByteLevel"
            for name in ("pre_tokenizer", "decoder", "normalizer")
            for part in parts(tokenizer.get(name))
        )

    @cached_property
    def is_sentencepiece_like(self) -> bool:
        """Say whether `tokenizer.json` is SentencePiece's BPE in another dress."""
        return self.model_type == "BPE" and self.model.get("byte_fallback") is True and not self.is_byte_level


_NESTS = ("pretokenizers", "normalizers", "decoders", "processors")


def parts(component: object, depth: int = 0) -> list[dict[str, Any]]:
    """Flatten a pre-tokenizer, normalizer, decoder or post-processor: sequences are replaced by their members."""
    if not isinstance(component, dict) or depth > 8:
        return []
    for nest in _NESTS:
        if isinstance(members := component.get(nest), list):
            return [part for member in members for part in parts(member, depth + 1)]
    return [component]
