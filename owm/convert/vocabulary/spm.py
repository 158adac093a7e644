"""SentencePiece's BPE vocabularies (`tokenizer.ggml.model` "llama"), from tokenizer.model or from tokenizer.json alone.

llama.cpp merges the pair whose token has the highest score. A tokenizer.json has no scores but an order of merges, so a
token's score is the negative place of the first merge that makes it. (The reference gives every token of such a file
the same score, -1000, and then merges from the left: other tokens than the model was trained on.)
"""

import re
from dataclasses import dataclass, field
from typing import Any

from owm.convert.vocabulary.bpe import read_merges
from owm.convert.vocabulary.files import TokenizerFiles, damaged, is_id, is_text, parts
from owm.convert.vocabulary.sentencepiece import Piece, SentencePieceModel, is_tiktoken, read_model
from owm.convert.vocabulary.tokens import ADDED_SCORE, SPACE, TokenTable, TokenType, looks_special
from owm.errors import Damaged

FILE = "tokenizer.model"
_BYTE_TEXT = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_OWN_TYPES = frozenset((TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED, TokenType.BYTE))


@dataclass(frozen=True, slots=True)
class SpmRules:
    """How a family's vocabulary departs from the plain one.

    `guesses_control`: an added token that looks special is a control token though its file does not say so.
    `keeps_spaces`: the text of an added token keeps SentencePiece's visible space.
    `json_decides`: the added tokens of tokenizer.json count even where tokenizer_config.json lists them too.
    `hides_unused`: pieces named `[UNUSED…` are unused, and the NUL piece becomes an emoji (a C string cannot hold it).
    """

    guesses_control: bool = True
    keeps_spaces: bool = False
    json_decides: bool = False
    hides_unused: bool = False


@dataclass(slots=True)
class Spm:
    """A SentencePiece vocabulary; `model` is None when it came from tokenizer.json."""

    table: TokenTable
    model: SentencePieceModel | None
    warnings: list[str] = field(default_factory=list)


def has_model_file(files: TokenizerFiles) -> bool:
    """Say whether there is a tokenizer.model in SentencePiece's format (Meta gave the name to another format too)."""
    path = files.path(FILE)
    return path is not None and not (files.tokenizer is not None and is_tiktoken(path))


def read_spm(files: TokenizerFiles, n_tokens: int | None, rules: SpmRules) -> Spm:
    """Read tokenizer.model with what the JSON files add to it, else tokenizer.json.

    Raises:
        Damaged: malformed, or tokenizer.model and tokenizer.json contradict each other.
    """
    path = files.path(FILE)
    if path is None or not has_model_file(files):
        return _from_json(files, n_tokens, rules)
    model = read_model(path)
    _check_against_json(files, model.pieces)
    n_tokens = n_tokens or len(model.pieces)
    spm = Spm(TokenTable.padding(n_tokens, has_scores=True), model)
    for token_id, piece in enumerate(model.pieces[:n_tokens]):
        text, kind = piece.text, TokenType(piece.kind)
        if rules.hides_unused and text == "\0":
            text = "🐉"
        if rules.hides_unused and text.startswith("[UNUSED"):
            kind = TokenType.UNUSED
        spm.table.put(token_id, text, kind if kind in _OWN_TYPES else TokenType.NORMAL, piece.score)
    if len(model.pieces) > n_tokens:
        spm.warnings.append(f"{FILE} has {len(model.pieces)} tokens, the model {n_tokens}: the rest is left out")
    _add(files, spm, rules, model.pieces)
    return spm


def _add(files: TokenizerFiles, spm: Spm, rules: SpmRules, pieces: tuple[Piece, ...]) -> None:
    """Lay the added tokens of three files over the table, in the reference's order."""
    n_tokens, outside = len(spm.table), 0
    for text, token_id in files.added_tokens_json.items():
        if token_id < n_tokens:
            spm.table.put(token_id, text, TokenType.USER_DEFINED, ADDED_SCORE)
        else:
            outside += 1
    listed = dict(files.added_tokens_decoder)
    for entry in files.added_tokens:
        token_id = entry["id"]
        is_own = token_id < len(pieces) and pieces[token_id].text == entry["content"]
        # transformers 5 lists added tokens in tokenizer.json only: without them they would be ordinary text.
        if rules.json_decides or (
            token_id not in listed and not (is_own and TokenType(pieces[token_id].kind) in _OWN_TYPES)
        ):
            listed[token_id] = entry
    for token_id, entry in listed.items():
        if token_id >= n_tokens:
            outside += 1
            continue
        text = entry["content"]
        if entry.get("special") or (rules.guesses_control and looks_special(text)):
            spm.table.put(token_id, text, TokenType.CONTROL, ADDED_SCORE)
        else:
            plain = text if rules.keeps_spaces else text.replace(SPACE, " ")
            spm.table.put(token_id, plain, TokenType.USER_DEFINED, ADDED_SCORE)
    if outside:
        spm.warnings.append(f"{outside} added tokens have no row in the model and are left out")


def _from_json(files: TokenizerFiles, n_tokens: int | None, rules: SpmRules) -> Spm:
    path = files.folder / "tokenizer.json"
    vocab = files.model.get("vocab")
    if not isinstance(vocab, dict) or not vocab or not all(map(is_id, vocab.values())) or not is_text("".join(vocab)):
        raise damaged(path, "its vocabulary is malformed")
    largest = max(vocab.values())
    if n_tokens is None:
        n_tokens = 1 + max([largest, *(entry["id"] for entry in files.added_tokens)])
    if largest >= n_tokens:
        raise Damaged(f"the tokenizer has a token with id {largest}, the config's vocab_size is {n_tokens}")
    scores = _merge_scores(files)
    lowest = -float(len(scores) + 1)
    spm = Spm(TokenTable.padding(n_tokens, has_scores=True), None)
    unknown = files.model.get("unk_token")
    for text, token_id in vocab.items():
        if text == unknown:
            spm.table.put(token_id, text, TokenType.UNKNOWN, 0.0)
        elif _BYTE_TEXT.fullmatch(text):
            spm.table.put(token_id, text, TokenType.BYTE, 0.0)
        else:
            spm.table.put(token_id, text, TokenType.NORMAL, scores.get(text, lowest))
    _add(files, spm, rules, ())
    return spm


def _merge_scores(files: TokenizerFiles) -> dict[str, float]:
    lines = read_merges(files)
    merges: list[Any] = files.model.get("merges") or []
    is_pairs = bool(merges) and type(merges[0]) is list
    scores: dict[str, float] = {}
    rank = 0.0
    for made in (left + right for left, right in merges) if is_pairs else (line.replace(" ", "", 1) for line in lines):
        if made not in scores:
            scores[made] = -rank
            rank += 1.0
    return scores


def adds_space_prefix(files: TokenizerFiles) -> bool:
    """Say whether tokenizer.json puts a space before a text."""
    tokenizer = files.tokenizer or {}
    return any(
        part.get("type") == "Prepend"
        or (part.get("type") == "Metaspace" and part.get("prepend_scheme", "always") in ("always", "first"))
        for name in ("normalizer", "pre_tokenizer")
        for part in parts(tokenizer.get(name))
    )


def _check_against_json(files: TokenizerFiles, pieces: tuple[Piece, ...]) -> None:
    """Refuse a tokenizer.model and a tokenizer.json that are not the same tokenizer.

    Raises:
        Damaged: they give one id two texts, added tokens aside.
    """
    vocab = files.model.get("vocab")
    if not isinstance(vocab, dict):
        return
    texts = {token_id: text for text, token_id in vocab.items() if is_id(token_id)}
    added = {entry["id"] for entry in files.added_tokens} | set(files.added_tokens_decoder)
    added.update(files.added_tokens_json.values())
    for token_id, piece in enumerate(pieces):
        text = texts.get(token_id, piece.text)
        if text != piece.text and piece.kind == TokenType.NORMAL and token_id not in added:
            raise Damaged(
                f"{FILE} and tokenizer.json contradict each other: id {token_id} is {piece.text!r} in one, {text!r} in "
                "the other",
                hint="remove the one that does not belong to the model",
            )
