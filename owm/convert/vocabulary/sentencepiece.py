"""Read `tokenizer.model`, SentencePiece's protobuf, without its library: pieces, and the facts of two small messages.

Unknown fields are stepped over, every length is checked against the bytes that are there.
ref: sentencepiece src/sentencepiece_model.proto
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from owm.convert.vocabulary.files import MAX_TOKENS, damaged, read_bytes
from owm.convert.vocabulary.tokens import TokenType

UNIGRAM, BPE = 1, 2  # TrainerSpec.model_type
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT = struct.Struct("<f")


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; its id is its place."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What owm needs of a SentencePiece model."""

    pieces: tuple[Piece, ...]
    model_type: int = UNIGRAM
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    precompiled_charsmap: bytes = b""


class _Broken(ValueError):
    pass


def is_tiktoken(path: Path) -> bool:
    """Say whether a `tokenizer.model` is Meta's other format under the same name: lines of base64 and a rank."""
    with path.open("rb") as file:
        words = file.readline(200).split()
    return len(words) == 2 and words[1].isdigit() and words[0].isascii() and not words[0].startswith(b"\n")


def read_model(path: Path) -> SentencePieceModel:
    """Read a `tokenizer.model`.

    Raises:
        Damaged: not SentencePiece's format, cut short, or with impossible values.
    """
    content = read_bytes(path)
    pieces: list[Piece] = []
    facts: dict[str, int | bytes] = {}
    try:
        for field, kind, value in _fields(content):
            if field == 1 and kind == _BYTES:
                pieces.append(_piece(_as_bytes(value)))
                if len(pieces) > MAX_TOKENS:
                    raise _Broken("it has too many pieces")
            elif field == 2 and kind == _BYTES:
                for inner, wire, number in _fields(_as_bytes(value)):
                    if inner == 3 and wire == _VARINT:
                        facts["model_type"] = number
            elif field == 3 and kind == _BYTES:
                for inner, wire, number in _fields(_as_bytes(value)):
                    if (inner, wire) in _NORMALIZER:
                        facts[_NORMALIZER[inner, wire]] = number
    except (_Broken, UnicodeDecodeError) as error:
        cause = str(error) if isinstance(error, _Broken) else "a piece is not UTF-8"
        raise damaged(path, f"it is no SentencePiece model, {cause}") from error
    if not pieces:
        raise damaged(path, "it is no SentencePiece model, it has no pieces")
    return SentencePieceModel(
        pieces=tuple(pieces),
        model_type=int(facts.get("model_type", UNIGRAM)),
        add_dummy_prefix=bool(facts.get("add_dummy_prefix", True)),
        remove_extra_whitespaces=bool(facts.get("remove_extra_whitespaces", True)),
        precompiled_charsmap=_as_bytes(facts.get("precompiled_charsmap", b"")),
    )


_NORMALIZER = {
    (2, _BYTES): "precompiled_charsmap",
    (3, _VARINT): "add_dummy_prefix",
    (4, _VARINT): "remove_extra_whitespaces",
}


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Broken("a field has the wrong type")
    return value


def _piece(message: bytes) -> Piece:
    text, score, kind = "", 0.0, int(TokenType.NORMAL)
    for field, wire, value in _fields(message):
        if field == 1 and isinstance(value, bytes) and wire == _BYTES:
            text = value.decode("utf-8")
        elif field == 2 and isinstance(value, bytes) and wire == _FIXED32:
            score = _FLOAT.unpack(value)[0]
            if not math.isfinite(score):
                raise _Broken("a score is not a number")
        elif field == 3 and isinstance(value, int):
            if not TokenType.NORMAL <= value <= TokenType.BYTE:
                raise _Broken("a piece has an unknown type")
            kind = value
    return Piece(text, score, kind)


def _fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Walk a message: field number, wire type, and the number or the raw bytes."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        wire = key & 7
        value: int | bytes
        if wire == _VARINT:
            value, position = _varint(message, position)
        else:
            if wire == _BYTES:
                size, position = _varint(message, position)
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
            else:
                raise _Broken("a field has an unknown wire type")
            if size > end - position:
                raise _Broken("it is cut short")
            value = message[position : position + size]
            position += size
        yield key >> 3, wire, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _Broken("it is cut short")
