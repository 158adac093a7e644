"""The `tokenizers` library: load a checkpoint's tokenizer as transformers would, and ask it for ids."""

import json
from collections.abc import Callable
from typing import TypeVar

from tokenizers import AddedToken, Tokenizer

from owm.convert.vocabulary.files import TokenizerFiles, damaged, is_text, read_text
from owm.errors import Damaged

T = TypeVar("T")

# The special tokens that tokenizer_config.json names one by one.
NAMED_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def guarded(files: TokenizerFiles, action: Callable[[], T]) -> T:
    """Run a call of the library; what it raises on a bad file, panics included, becomes one sentence.

    Raises:
        Damaged: the library refused.
    """
    try:
        return action()
    except Damaged:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            raise damaged(files.folder / "tokenizer.json", cause) from error
        raise


def load(files: TokenizerFiles, *, n_tokens: int | None = None) -> Tokenizer:
    """Load `tokenizer.json`, once, and add the tokens that only `tokenizer_config.json` knows.

    `n_tokens` bounds the ids of those: the library numbers them from its own end.

    Raises:
        Damaged: the library cannot make a tokenizer of it.
    """
    if files.loaded is not None:
        return files.loaded  # type: ignore[no-any-return]
    path = files.path("tokenizer.json")
    text = read_text(path) if path else json.dumps(files.tokenizer)
    tokenizer: Tokenizer = guarded(files, lambda: Tokenizer.from_str(text))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    missing = _missing_tokens(files, tokenizer)
    if missing:
        size = tokenizer.get_vocab_size(with_added_tokens=True)
        for token in missing:
            if tokenizer.token_to_id(token.content) is None:
                if n_tokens is None or size >= n_tokens:
                    continue  # no embedding row: transformers would number it beyond the model
                size += 1
            tokenizer.add_tokens([token])
    files.loaded = tokenizer
    return tokenizer


def _missing_tokens(files: TokenizerFiles, tokenizer: Tokenizer) -> list[AddedToken]:
    known = {entry["content"] for entry in files.added_tokens}
    missing: dict[str, AddedToken] = {}
    for token_id, entry in sorted(files.added_tokens_decoder.items()):
        text = entry["content"]
        # An id that this tokenizer would not give again is left alone: its text has no row there.
        if text not in known and tokenizer.token_to_id(text) in (token_id, None) and text:
            flags = {key: entry[key] for key in ("single_word", "lstrip", "rstrip", "normalized") if key in entry}
            if all(isinstance(flag, bool) for flag in flags.values()):
                missing[text] = AddedToken(text, special=entry.get("special") is True, **flags)
    for kind in NAMED_TOKENS:
        text = files.named_token(kind) or ""
        if text and text not in known:
            missing.setdefault(text, AddedToken(text, special=True, normalized=False))
    listed = (files.tokenizer_config or {}).get("additional_special_tokens")
    for extra in listed if isinstance(listed, list) else []:
        content = extra.get("content") if isinstance(extra, dict) else extra
        if is_text(content) and content and content not in known:
            missing.setdefault(content, AddedToken(content, special=True, normalized=False))
    return list(missing.values())


def encode(files: TokenizerFiles, tokenizer: Tokenizer, text: str, *, add_special: bool) -> list[int]:
    """Return the ids of a text.

    Raises:
        Damaged: the tokenizer fails on it.
    """
    return guarded(files, lambda: list(tokenizer.encode(text, add_special_tokens=add_special).ids))
