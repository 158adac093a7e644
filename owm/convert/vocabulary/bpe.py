"""Byte-level BPE, GPT-2's way: tokens and types by id, merges, pre-tokenizer."""

from typing import Any

from tokenizers import AddedToken, Tokenizer

from owm.convert.vocabulary.backend import encode, guarded
from owm.convert.vocabulary.files import TokenizerFiles, damaged, is_id, is_text
from owm.convert.vocabulary.tokens import SPACE, TokenTable, TokenType, looks_special
from owm.errors import Damaged


def read_table(files: TokenizerFiles, tokenizer: Tokenizer, n_tokens: int | None) -> TokenTable:
    """Read every token of `tokenizer.json`; ids that it leaves free become unused padding.

    Raises:
        Damaged: malformed, or more tokens than the model has rows for.
    """
    vocab = files.model.get("vocab")
    if not isinstance(vocab, dict) or not vocab or not all(map(is_id, vocab.values())):
        raise damaged(files.folder / "tokenizer.json", "its vocabulary is malformed")
    added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
    largest = max(max(vocab.values()), max(added, default=0))
    if n_tokens is None:
        n_tokens = largest + 1
    if largest >= n_tokens:
        raise Damaged(f"the tokenizer has a token with id {largest}, the config's vocab_size is {n_tokens}")
    table = TokenTable.padding(n_tokens, has_scores=False)
    tokens, types = table.tokens, table.types
    normal = int(TokenType.NORMAL)
    for text, token_id in vocab.items():
        tokens[token_id] = text
        types[token_id] = normal
    for token_id, token in added.items():
        table.put(token_id, *_added(files, tokenizer, token))
    return table


def _added(files: TokenizerFiles, tokenizer: Tokenizer, token: AddedToken) -> tuple[str, TokenType]:
    """Return text and type of an added token; llama.cpp wants its text as it stands in a prompt."""
    text: str = token.content
    if not token.normalized:
        ids = encode(files, tokenizer, text, add_special=False)
        text = guarded(files, lambda: str(tokenizer.decode(ids, skip_special_tokens=False)))
    if token.special or looks_special(text):
        return text, TokenType.CONTROL
    return text.replace(SPACE, " "), TokenType.USER_DEFINED


def read_merges(files: TokenizerFiles) -> list[str]:
    """Read the merges, in either of the two forms, as `left right` lines.

    Raises:
        Damaged: neither form.
    """
    merges = files.model.get("merges") or []
    broken = damaged(files.folder / "tokenizer.json", "its merges are malformed")
    if not isinstance(merges, list):
        raise broken
    kinds = set(map(type, merges))
    if kinds <= {str}:
        lines: list[str] = merges
    elif kinds == {list} and set(map(len, merges)) == {2}:
        try:
            lines = list(map(" ".join, merges))
        except TypeError as error:
            raise broken from error
        if "".join(lines).count(" ") != len(lines):
            # A space inside a part would end it: written as the byte alphabet does.
            lines = [f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}" for left, right in merges]
    else:
        raise broken
    if not is_text("".join(lines)):
        raise broken
    return lines


def check_against_vocab_json(files: TokenizerFiles) -> None:
    """Refuse a `vocab.json` that contradicts `tokenizer.json`.

    Raises:
        Damaged: the two give one token different ids.
    """
    if files.path("vocab.json") is None or files.path("tokenizer.json") is None:
        return
    own: dict[str, Any] = files.model.get("vocab") or {}
    other = files.json("vocab.json") or {}
    for text, token_id in other.items():
        if is_id(token_id) and text in own and own[text] != token_id:
            raise Damaged(
                f"tokenizer.json and vocab.json contradict each other: {text!r} has id {own[text]} in one, "
                f"{token_id} in the other",
                hint="remove the one that does not belong to the model",
            )
