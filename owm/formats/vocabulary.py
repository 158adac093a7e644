"""Vocabularies of a GGUF file with which llama.cpp cannot tokenize, but tries, and aborts the process.

ref: llama.cpp src/llama-vocab.cpp
"""

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from owm.formats.gguf import Header

# Tokens that begin and end a text where a file does not say which, of kinds of vocabularies; None is none.
_ENDS: dict[str | None, tuple[int | None, int | None]] = {
    "llama": (1, 2), "gpt2": (11, 11), "hybriddna": (11, 11), "whitespace": (11, 11), "gemma4": (None, None),
    "bert": (101, 102), "t5": (None, 1),
}  # fmt: skip
_ESCAPED = {ord("\t"): b"\\t", ord("\n"): b"\\n", ord("\r"): b"\\r"}
_NEVER_ADDS = ("rwkv", "test")
_MAX_TABLE_BYTES = 4 << 20  # of characters; published ones have some 300 KB
_N_OF_BLOCK = 256  # units of a table of characters that belong together: those that a byte can lead to


def problems(header: "Header") -> Iterator[str]:
    """Name what llama.cpp would abort on."""
    kind = header.text("tokenizer.ggml.model")
    tokens = header.raw_items("tokenizer.ggml.tokens")
    # llama.cpp reads a token to its first zero byte and gives empty ones names of their own.
    for i, token in enumerate(tokens):
        if not token or 0 in token:
            tokens[i] = token.partition(b"\0")[0] or b"[EMPTY_%d]" % i
    known = set(tokens)
    if len(known) != len(tokens):
        token = _repeated(tokens, known)
        yield f"a token of its vocabulary appears twice: {token[:40].decode('utf-8', 'replace')!a}"
        return
    # A SentencePiece vocabulary has to be able to write any byte.
    if kind == "llama" and any(b"<0x%02X>" % byte not in known and bytes([byte]) not in known for byte in range(256)):
        yield "its vocabulary has no token for some bytes"
    # So has one of RWKV, whose tokens are written with escapes, unless it has a token for what it does not know.
    needs_bytes = kind == "rwkv" and _is_missing(header, "unknown", None, len(tokens))
    if needs_bytes and any(known.isdisjoint(_spellings(byte)) for byte in range(1, 256)):
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


def _repeated(tokens: Sequence[bytes], left: set[bytes]) -> bytes:
    """Find a token that comes twice, taking each out of the set of them all: a second set would be large."""
    for token in tokens:
        if token not in left:
            return token
        left.remove(token)
    raise ValueError("no token appears twice")


def _spellings(byte: int) -> list[bytes]:
    """Return the tokens that are this byte alone once their escapes are undone."""
    spelt = [bytes([byte]), b"\\x%02x" % byte]
    if byte in _ESCAPED:
        spelt.append(_ESCAPED[byte])
    if byte not in b"tnr":
        spelt.append(b"\\" + bytes([byte]))
    return spelt


def _of_characters(table: bytes) -> Iterator[str]:
    """Check a table for normalizing characters: a trie in an array, then the texts that its leaves point to."""
    if len(table) < 4:
        return  # llama.cpp refuses it
    if len(table) > _MAX_TABLE_BYTES:
        yield f"its table of characters has {len(table)} bytes, at most {_MAX_TABLE_BYTES} can be"
        return
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
