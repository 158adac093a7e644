"""Unigram vocabularies (`tokenizer.ggml.model` "t5"): XLM-RoBERTa and its kin. ref: llama.cpp conversion/bert.py"""

import binascii
from base64 import b64decode
from dataclasses import dataclass

from owm.convert.vocabulary.files import TokenizerFiles, damaged, is_text, parts
from owm.convert.vocabulary.sentencepiece import UNIGRAM, read_model
from owm.convert.vocabulary.tokens import TokenTable, TokenType, check_size
from owm.errors import Unsupported
from owm.units import is_number

FILE = "sentencepiece.bpe.model"
_FIRST = (
    ("<s>", TokenType.CONTROL),
    ("<pad>", TokenType.CONTROL),
    ("</s>", TokenType.CONTROL),
    ("<unk>", TokenType.UNKNOWN),
)


@dataclass(frozen=True, slots=True)
class Unigram:
    """A unigram vocabulary and how text is prepared for it."""

    table: TokenTable
    add_space_prefix: bool
    remove_extra_whitespaces: bool
    precompiled_charsmap: bytes


def read_unigram(files: TokenizerFiles, n_tokens: int | None) -> Unigram:
    """Read `sentencepiece.bpe.model`, else `tokenizer.json`.

    Raises:
        Damaged: malformed.
        Unsupported: the SentencePiece model is of another type.
    """
    found = _from_model(files, n_tokens or 0) if files.path(FILE) else _from_json(files, n_tokens or 0)
    charsmap = found.precompiled_charsmap
    if charsmap and (len(charsmap) < 5 or int.from_bytes(charsmap[:4], "little") + 4 >= len(charsmap)):
        raise damaged(files.folder / "tokenizer.json", "its precompiled_charsmap is malformed")
    return found


def _from_model(files: TokenizerFiles, n_tokens: int) -> Unigram:
    model = read_model(files.folder / FILE)
    if model.model_type != UNIGRAM:
        raise Unsupported(f"{FILE} is no unigram model")
    size = max(n_tokens, len(model.pieces))
    table = TokenTable.padding(size, has_scores=True)
    for token_id, piece in enumerate(model.pieces):
        kind = TokenType(piece.kind)
        table.put(token_id, piece.text, TokenType.NORMAL if kind is TokenType.USER_DEFINED else kind, score=piece.score)
    # The model's ids are SentencePiece's plus one, with four tokens of fairseq's own in front.
    table.tokens = [*(text for text, _ in _FIRST), *table.tokens[3:-1]]
    table.types = [*(int(kind) for _, kind in _FIRST), *table.types[3:-1]]
    table.scores = [*(0.0 for _ in _FIRST), *table.scores[3:-1]]
    if files.config_value("model_type") == "nomic_bert" and len(table) > 250001:
        table.put(250001, "<mask>", TokenType.CONTROL, 0.0)  # SentencePiece's file does not know it
    for added in files.added_tokens:
        if added["id"] < len(table) and table.types[added["id"]] == TokenType.UNUSED:
            kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
            table.put(added["id"], added["content"], kind, 0.0)
    return Unigram(table, model.add_dummy_prefix, model.remove_extra_whitespaces, model.precompiled_charsmap)


def _from_json(files: TokenizerFiles, n_tokens: int) -> Unigram:
    path = files.folder / "tokenizer.json"
    vocab = files.model.get("vocab")
    if not isinstance(vocab, list) or not vocab:
        raise damaged(path, "its vocabulary is malformed")
    size = max(n_tokens, len(vocab))
    check_size(size)
    table = TokenTable.padding(size, has_scores=True)
    unknown = files.model.get("unk_id")
    for token_id, entry in enumerate(vocab):
        if not isinstance(entry, list) or len(entry) != 2 or not is_text(entry[0]) or not is_number(entry[1]):
            raise damaged(path, "its vocabulary is malformed")
        table.put(token_id, entry[0], TokenType.NORMAL, float(entry[1]))
    for added in files.added_tokens:
        token_id = added["id"]
        if token_id < size:
            kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
            score = table.scores[token_id] if token_id < len(vocab) else 0.0
            table.put(token_id, added["content"], kind, score)
    if isinstance(unknown, int) and 0 <= unknown < len(vocab):
        table.types[unknown] = int(TokenType.UNKNOWN)
    normalizer = parts((files.tokenizer or {}).get("normalizer"))
    splitter = parts((files.tokenizer or {}).get("pre_tokenizer"))
    stated = (files.tokenizer_config or {}).get("clean_up_tokenization_spaces")
    drops_spaces = stated is True or any(
        part.get("type") == "WhitespaceSplit"
        or (part.get("type") == "Replace" and part.get("pattern") == {"Regex": " {2,}"})
        for part in (*normalizer, *splitter)
    )
    adds_prefix = any(
        part.get("type") == "Metaspace" and part.get("prepend_scheme", "always") != "never" for part in splitter
    )
    charsmap = next((part.get("precompiled_charsmap") for part in normalizer if part.get("type") == "Precompiled"), "")
    try:
        decoded = b64decode(charsmap or "", validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise damaged(path, "its precompiled_charsmap is malformed") from error
    return Unigram(table, adds_prefix, drops_spaces, decoded)
