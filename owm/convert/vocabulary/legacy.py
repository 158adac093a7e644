"""Checkpoints from before tokenizer.json: GPT-2's vocab.json with merges.txt, BERT's vocab.txt, as the tokenizer.json
that transformers would make of them."""

from pathlib import Path
from typing import Any

from owm.convert.vocabulary.files import damaged, is_id, is_text, read_json, read_text

_QWEN2 = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
_BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
# What the classes of transformers name when tokenizer_config.json does not.
_ENDS = {"GPT2Tokenizer": ("<|endoftext|>",), "Qwen2Tokenizer": ("<|endoftext|>",)}
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_tokenizer(folder: Path, stated: dict[str, Any]) -> dict[str, Any] | None:
    """Return what tokenizer.json would hold, None where the folder has no such files or their class is not known.

    `stated` is tokenizer_config.json.

    Raises:
        Damaged: a file is malformed.
    """
    name = str(stated.get("tokenizer_class") or "").removesuffix("Fast")
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_level(folder, name) if name in ("", *_ENDS) else None
    if (folder / "vocab.txt").is_file() and name in ("", "BertTokenizer", "DistilBertTokenizer"):
        return _wordpiece(folder, stated)
    return None


def _byte_level(folder: Path, name: str) -> dict[str, Any]:
    vocab = read_json(folder / "vocab.json")
    if not vocab or not all(is_text(text) and is_id(token_id) for text, token_id in vocab.items()):
        raise damaged(folder / "vocab.json", "it does not map texts to ids")
    merges = []
    for number, line in enumerate(read_text(folder / "merges.txt").split("\n")):
        pair = line.strip().split(" ")
        if len(pair) == 2 and not (number == 0 and line.startswith("#")):
            merges.append(pair)
    splitter: dict[str, Any] = _BYTES
    if name == "Qwen2Tokenizer":
        split = {"type": "Split", "pattern": {"Regex": _QWEN2}, "behavior": "Isolated", "invert": False}
        splitter = {"type": "Sequence", "pretokenizers": [split, {**_BYTES, "use_regex": False}]}
    return {
        "added_tokens": _added(vocab, _ENDS.get(name, ("<|endoftext|>",))),
        "normalizer": {"type": "NFC"} if name == "Qwen2Tokenizer" else None,
        "pre_tokenizer": splitter,
        "post_processor": {**_BYTES, "trim_offsets": False},
        "decoder": _BYTES,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


def _wordpiece(folder: Path, stated: dict[str, Any]) -> dict[str, Any]:
    lines = read_text(folder / "vocab.txt").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    vocab = {line.rstrip("\r"): token_id for token_id, line in enumerate(lines)}
    if not all(token in vocab for token in ("[UNK]", "[CLS]", "[SEP]")):
        raise damaged(folder / "vocab.txt", "it lacks [UNK], [CLS] or [SEP]")
    first, last = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    text, other = ({"Sequence": {"id": letter, "type_id": number}} for number, letter in enumerate("AB"))
    strips = stated.get("strip_accents")
    return {
        "added_tokens": _added(vocab, _BERT),
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": stated.get("tokenize_chinese_chars") is not False,
            "strip_accents": strips if isinstance(strips, bool) else None,
            "lowercase": stated.get("do_lower_case") is not False,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text, last],
            "pair": [first, text, last, other, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {
                token: {"id": token, "ids": [vocab[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


def _added(vocab: dict[str, Any], texts: tuple[str, ...]) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": vocab[text], "content": text, **flags} for text in texts if text in vocab]
