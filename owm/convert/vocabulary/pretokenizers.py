"""The name that llama.cpp gives a BPE pre-tokenizer (`tokenizer.ggml.pre`): how text is cut before merging.

Two methods. First the reference's own, the fingerprint of one text's ids, which knows published tokenizers. Then the
structure of tokenizer.json itself: the same splitting rules are the same pre-tokenizer, whatever the vocabulary.
ref: llama.cpp conversion/base.py and src/llama-vocab.cpp
"""

import hashlib
from typing import Any

from tokenizers import Tokenizer

from owm.convert.vocabulary.backend import encode
from owm.convert.vocabulary.files import TokenizerFiles, parts
from owm.convert.vocabulary.pretokenizer_hashes import NAME_OF, PROBE
from owm.errors import Unsupported

_WORDS = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
_CAPITALS = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
_LEAD = "[^\\r\\n\\p{L}\\p{N}]?"
_SUFFIX = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
_MARKS = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
_LLAMA3 = f"{_SUFFIX}|{_LEAD}\\p{{L}}+|\\p{{N}}{{1,3}}|{_MARKS}|{_SPACES}"
_QWEN2 = f"{_SUFFIX}|{_LEAD}\\p{{L}}+|\\p{{N}}|{_MARKS}|{_SPACES}"
_GPT4O = (
    f"{_LEAD}{_WORDS}{_SUFFIX}?|{_LEAD}{_CAPITALS}{_SUFFIX}?|\\p{{N}}{{1,3}}"
    f"| ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n/]*|{_SPACES}"
)
_DEEPSEEK3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    f"| ?[\\p{{P}}\\p{{S}}]+[\\r\\n]*|{_SPACES}"
)
_CASCADE = "".join(f"|\\s{{{n}}}(?!\\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))
_BAILING = (
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
    "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
)
_EXAONE_MOE = (
    f"{_SUFFIX}|{_LEAD}(?:\\p{{L}}\\p{{M}}*(?: \\p{{L}}\\p{{M}}*)*)+|\\p{{N}}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"
)
_BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"

# The regular expression of a lone Split before bytes: name where whole words are looked up first (`ignore_merges`), and
# name where they are not; None where llama.cpp has no such pre-tokenizer.
_BY_REGEX: dict[str, tuple[str | None, str | None]] = {
    _LLAMA3: ("llama-bpe", "smaug-bpe"),
    _QWEN2: (None, "qwen2"),
    _QWEN2.replace("\\p{L}+", "[\\p{L}\\p{M}]+").replace("[^\\s\\p{L}\\p{N}]", "[^\\s\\p{L}\\p{M}\\p{N}]"): (
        None,
        "qwen35",
    ),
    _GPT4O: (None, "gpt-4o"),
    _GPT4O.replace(f"{_SUFFIX}?", "").replace("\\p{N}{1,3}", "\\p{N}"): ("tekken", None),
    _LLAMA3.replace(_SPACES, "\\s*[\\r\\n]+" + _CASCADE + "|\\s{1}"): (None, "jais-2"),
    _BAILING: (None, "bailingmoe"),
    f"{_SUFFIX}|{_LEAD}\\p{{L}}+|\\p{{N}}{{1}}| ?[^\\s\\p{{L}}\\p{{N}}\\r\\n]+|{_SPACES}": (None, "seed-coder"),
    f"{_LEAD}\\p{{L}}+|\\p{{N}}|{_MARKS}|{_SPACES}": (None, "ufakzeka"),
    _EXAONE_MOE: (None, "exaone-moe"),
    _BLOOM: (None, "bloom"),
}

_GPT2_REGEX = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
_HAN = "[一-龥ࠀ-一가-퟿]+"

# Whole chains, step by step as `_step` names them.
_BY_CHAIN: dict[tuple[str, ...], str] = {
    ("bytes words",): "gpt-2",
    (f"split {_GPT2_REGEX}", "bytes"): "gpt-2",
    ("digits each", "bytes words"): "smollm",
    ("split \\p{N}", "bytes words"): "smollm",
    ("digits each", f"split {_GPT2_REGEX}", "bytes"): "smollm",
    (
        "split [\\r\\n]",
        "split \\s?\\p{L}+",
        "split \\s?\\p{P}+",
        f"split {_HAN}",
        "digits each",
        "bytes",
    ): "deepseek-coder",
    ("split \\p{N}{1,3}", "split [一-龥぀-ゟ゠-ヿ]+", f"split {_DEEPSEEK3}", "bytes"): "deepseek-v3",
    ("punctuation joined", "bytes words", "digits", "split [0-9][0-9][0-9]"): "falcon",
    ("punctuation joined", "bytes words", "split [0-9][0-9][0-9]"): "falcon",
    (f"split {_BLOOM}", "digits each", "bytes"): "viking",
    (f"split {_BLOOM}", "split \\p{N}", "bytes"): "viking",
    ("split \\p{N}{1,3}", f"split {_LLAMA3.replace('{1,3}', '+')}", "bytes"): "minicpm5",
    ("split \\d{1,3}(?=(?:\\d{3})*\\b)", f"split {_GPT4O}", "bytes"): "tiny_aya",
}

# Names for which llama.cpp adds a begin token unless the file says otherwise. ref: llama.cpp src/llama-vocab.cpp
ADDS_BOS = frozenset(
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken chameleon".split()
)


def fingerprints(files: TokenizerFiles, tokenizer: Tokenizer) -> list[str]:
    """Return the fingerprints that this tokenizer can have, the one of tokenizer.json as it is first.

    Classes of transformers add begin and end tokens of their own accord, so the plain ids are tried with each of them.
    """
    plain = encode(files, tokenizer, PROBE, add_special=False)
    variants = [encode(files, tokenizer, PROBE, add_special=True), plain]
    ids = {
        kind: tokenizer.token_to_id(text) for kind in ("bos", "eos", "cls", "sep") if (text := files.named_token(kind))
    }
    for first, last in (("bos", None), ("bos", "eos"), (None, "eos"), ("cls", "sep")):
        begin, end = ids.get(first) if first else None, ids.get(last) if last else None
        if (first is None or begin is not None) and (last is None or end is not None):
            variants.append([*([begin] if begin is not None else []), *plain, *([end] if end is not None else [])])
    found = [hashlib.sha256(str(ids).encode()).hexdigest() for ids in variants]
    return list(dict.fromkeys(found))


def published_name(candidates: list[str]) -> str | None:
    """Return the name of a published tokenizer by its fingerprint."""
    return next((NAME_OF[candidate] for candidate in candidates if candidate in NAME_OF), None)


def name_by_structure(files: TokenizerFiles) -> str | None:
    """Return the name that stands for the splitting rules of tokenizer.json."""
    steps = tuple(_step(part) for part in parts((files.tokenizer or {}).get("pre_tokenizer")))
    if name := _BY_CHAIN.get(steps):
        return name
    if len(steps) == 2 and steps[1] == "bytes" and steps[0].startswith("split "):
        names = _BY_REGEX.get(steps[0].removeprefix("split "), (None, None))
        is_whole_first = files.model.get("ignore_merges") is True
        return names[0 if is_whole_first else 1] or names[1 if is_whole_first else 0]
    return None


def pre_tokenizer_name(files: TokenizerFiles, tokenizer: Tokenizer) -> str:
    """Return the `tokenizer.ggml.pre` of a BPE tokenizer.

    Raises:
        Unsupported: neither its fingerprint nor its structure is known; the message names the fingerprint.
    """
    candidates = fingerprints(files, tokenizer)
    name = published_name(candidates) or name_by_structure(files)
    if name is None:
        raise Unsupported(
            f"the pre-tokenizer of this tokenizer.json is not known to llama.cpp, fingerprint {candidates[0]}",
            hint="if you know which one it is, name it with `--pre NAME`",
        )
    return name


def _step(part: dict[str, Any]) -> str:
    kind = part.get("type")
    if kind == "ByteLevel":
        return "bytes words" if part.get("use_regex", True) is True else "bytes"
    if kind == "Digits":
        return "digits each" if part.get("individual_digits") is True else "digits"
    if kind == "Punctuation":
        return "punctuation joined" if part.get("behavior") == "Contiguous" else f"punctuation {part.get('behavior')}"
    if kind == "Split":
        pattern = part.get("pattern")
        regex = pattern.get("Regex", pattern.get("String")) if isinstance(pattern, dict) else None
        if not isinstance(regex, str):
            return "unknown"
        # One regular expression has two spellings: with the characters, and with their escapes.
        regex = regex.replace("\r", "\\r").replace("\n", "\\n")
        # `Removed` with `invert` keeps the matches, as `Isolated` does when every character matches.
        is_usual = part.get("behavior") == "Isolated" or (
            part.get("behavior") == "Removed" and part.get("invert") is True
        )
        return f"split {regex}" if is_usual else f"split {part.get('behavior')} {regex}"
    return str(kind)
