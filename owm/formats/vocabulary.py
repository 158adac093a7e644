"""Vocabularies of a GGUF file with which llama.cpp cannot tokenize, but tries, and aborts the process.

ref: llama.cpp src/llama-vocab.cpp
"""

import re
import struct
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from owm.formats.gguf import Header

# Tokens that begin and end a text where a file does not say which, of kinds of vocabularies; None is none.
_ENDS: dict[str | None, tuple[int | None, int | None]] = {
    "llama": (1, 2), "gpt2": (11, 11), "hybriddna": (11, 11), "whitespace": (11, 11), "gemma4": (None, None),
    "bert": (101, 102), "t5": (None, 1),
}  # fmt: skip
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|(.))", re.DOTALL)
_ESCAPED = {bytes([byte]): bytes([byte]) for byte in range(256)} | {b"t": b"\t", b"n": b"\n", b"r": b"\r"}
_NEVER_ADDS = ("rwkv", "test")
_N_OF_BLOCK = 256  # units of a table of characters that belong together: those that a byte can lead to


def problems(header: "Header") -> Iterator[str]:
    """Name what llama.cpp would abort on."""
    kind = header.text("tokenizer.ggml.model")
    raw = header.raw_items("tokenizer.ggml.tokens")
    # llama.cpp reads a token to its first zero byte and gives empty ones names of their own.
    tokens = [token.partition(b"\0")[0] or b"[EMPTY_%d]" % i for i, token in enumerate(raw)]
    known = set(tokens)
    if len(known) != len(tokens):
        [(token, _)] = Counter(tokens).most_common(1)
        yield f"a token of its vocabulary appears twice: {token[:40].decode('utf-8', 'replace')!a}"
    # A SentencePiece vocabulary has to be able to write any byte.
    if kind == "llama" and any(b"<0x%02X>" % byte not in known and bytes([byte]) not in known for byte in range(256)):
        yield "its vocabulary has no token for some bytes"
    # So has one of RWKV, whose tokens are written with escapes, unless it has a token for what it does not know.
    if kind == "rwkv" and _is_missing(header, "unknown", None, len(tokens)):
        single = {_unescaped(token) for token in known if len(token) <= 4}
        if any(bytes([byte]) not in single for byte in range(1, 256)):
            yield "its vocabulary has neither a token for each byte nor one for what it does not know"
    if tokens:
        yield from _of_ends(header, kind, len(tokens))
    elif header.metadata.get("tokenizer.ggml.tokens") == ():
        yield "its vocabulary is empty"
    if kind == "t5" and (table := header.raw_bytes("tokenizer.ggml.precompiled_charsmap")):
        yield from _of_characters(table)


def _of_ends(header: "Header", kind: str | None, n_tokens: int) -> Iterator[str]:
    """Check the tokens that the file wants before and after every text."""
    if kind in _NEVER_ADDS:
        return
    is_bert = kind == "bert"
    of_kind = _ENDS.get(kind, (None, None))
    wanted = header.metadata.get("tokenizer.ggml.add_bos_token")
    if _is_missing(header, "bos", of_kind[0], n_tokens) and (
        wanted is True or is_bert or (wanted is None and of_kind[0] is not None)
    ):
        yield "its vocabulary has no token to begin a text with, as it asks for"
    wanted = header.metadata.get("tokenizer.ggml.add_eos_token")
    which = "seperator" if is_bert else "eos"  # so it is spelt
    if _is_missing(header, which, of_kind[1], n_tokens) and (
        wanted is True or is_bert or (wanted is None and kind == "t5")
    ):
        yield "its vocabulary has no token to end a text with, as it asks for"


def _is_missing(header: "Header", which: str, of_kind: int | None, n_tokens: int) -> bool:
    said = header.metadata.get(f"tokenizer.ggml.{which}_token_id")
    return all(not isinstance(token, int) or not 0 <= token < n_tokens for token in (said, of_kind))


def _unescaped(token: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else _ESCAPED[found[2]], token)


def _of_characters(table: bytes) -> Iterator[str]:
    """Check a table for normalizing characters: a trie in an array, then the texts that its leaves point to."""
    if len(table) < 4:
        return  # llama.cpp refuses it
    [n_bytes] = struct.unpack_from("<I", table)
    units, texts = table[4 : 4 + n_bytes // 4 * 4], table[4 + n_bytes :]
    if not units or not texts:
        return  # it is refused, or there is none
    n_units = len(units) // 4
    if texts[-1]:
        yield "the last text of its table of characters has no end"
    n_whole = n_units // _N_OF_BLOCK * _N_OF_BLOCK
    for i, [unit] in enumerate(struct.iter_unpack("<I", units)):
        if unit >> 31:
            continue
        target = i ^ (unit >> 10) << ((unit & 512) >> 6)
        is_leaf = unit >> 8 & 1
        if target >= n_whole or (is_leaf and struct.unpack_from("<I", units, 4 * target)[0] & 0x7FFFFFFF >= len(texts)):
            yield "its table of characters leads out of itself"
            return
