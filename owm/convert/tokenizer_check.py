"""The self-check of a conversion: the same texts through the checkpoint's own tokenizer and through the new file.

This module knows the one side, `tokenizers`; the other ids come from llama.cpp, special tokens parsed and none added.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from owm.convert.vocabulary.backend import encode, guarded, load
from owm.convert.vocabulary.files import TokenizerFiles, parts
from owm.convert.vocabulary.pretokenizers import name_by_structure

# Each line is one text. What goes wrong in practice: runs of whitespace, digits, contractions, scripts without spaces,
# combining marks, joined emoji, code.
SAMPLE: tuple[str, ...] = (
    "Hello, world! The quick brown fox jumps over the lazy dog.",
    "I'm sure they've said we'll see; he'd, she's, it's, DON'T, YOU'RE, O'Neill's, rock'n'roll",
    "1 12 123 1234 12345 123456 1234567890 3.14159 1,000,000 2024-02-29 0x7fff 1e-5 ½ ² ③ Ⅷ ٣٤٥",
    "a  b   c    d     e\tf\t\tg\n\nh\n\n\ni \n j\r\nk\n  \n  l        ",
    'def f(x: int) -> list[str]:\n    return [f"{i:>3}" for i in range(x) if i % 2 != 0]  # ok\n\n\tpass\n',
    '<div class="a-b">&nbsp;{{ value|escape }}</div> // TODO: $HOME/.config && rm -f *.o || exit 1;',
    "naïve café résumé Ångström straße İstanbul Ωμέγα ﬁn",
    "combining: e\u0301a n\u0303a",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Нещо на Български: 42 лв.",
    "我想在apple工作1314151天～今天天气很好，你好！「日本語のテキスト」とカタカナ、한국어 문장입니다。",
    "مرحبا بالعالم، كيف حالك اليوم؟ שלום עולם",
    "नमस्ते दुनिया, यह एक परीक्षण है। বাংলা ভাষা தமிழ் మన తెలుగు",
    "កាន់តែពិសេសអាច ສະບາຍດີ สวัสดีชาวโลก མི་ མྱན་མ་ မြန်မာ",
    "😀 🚀🚀 👩‍👩‍👧‍👦 👍🏽 ✅ 🇩🇪 🦙🦙",
    "🏳️‍🌈 😶‍🌫️ ☃️",
    "“quotes” ‘single’ — dash – en … ellipsis • bullet € £ ¥ ₹ ± × ÷ ≠ ∑ √ ∞ ← ↑ → ↓",
    "CamelCaseWords snake_case_words kebab-case HTTPServer2 XMLHttpRequest iOS17 v1.2.3-rc4 foo@bar.com https://a.b/c?d=e&f#g",
    "''''''```````\"\"\"\"......!!!!!!?????? ------======= ((())) [[[]]] {{{}}} ~~~ ^^^ ### @@@ %%%",
    "\u200bzero\u200dwidth\ufeff\u00a0nbsp\u3000wide\u2028line",
    " leading space",
    "trailing space ",
    "\n",
    "x",
)
_MAX_SPECIAL = 24
_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two tokenizers part: the text of the sample, and the piece of it around the first token that differs."""

    text: str
    piece: str
    index: int
    expected: tuple[int, ...]
    actual: tuple[int, ...]

    def __str__(self) -> str:
        """Describe the difference in one sentence."""
        return (
            f"the new file tokenizes {self.piece!r} differently: tokens {list(self.expected)} in the checkpoint, "
            f"{list(self.actual)} in the file"
        )


def limits_of(files: TokenizerFiles) -> tuple[str, ...]:
    """Return what this tokenizer does and llama.cpp does not, one sentence each; `sample_of` leaves those cases out.

    The reference converter's files have the same limits: nothing in a GGUF file can say these things.

    Raises:
        Damaged: a file of the tokenizer is malformed.
    """
    found = []
    if files.is_byte_level:
        kinds = [str(part.get("type")) for part in _normalizers(files) if part.get("type") != "ByteLevel"]
        found += [f"llama.cpp does not apply this tokenizer's {kind} normalization" for kind in dict.fromkeys(kinds)]
    if _adds_prefix_space(files):
        found.append("llama.cpp does not put a space before the text, as this tokenizer does")
    if scheme := _metaspace(files):
        where = "a text that begins with one" + (", and after every special token" if scheme == "first" else "")
        found.append(f"llama.cpp puts a space before {where}; this tokenizer does not")
    stripping = [entry["content"] for entry in files.added_tokens if entry.get("lstrip") or entry.get("rstrip")]
    if stripping:
        found.append(f"llama.cpp may keep the spaces that this tokenizer drops around {', '.join(stripping[:3])}")
    if _joins_marks(files):
        found.append("llama.cpp cuts words at combining marks, where this tokenizer keeps them together")
    if _strips_accents(files):
        found.append("llama.cpp takes Korean and Indic scripts apart in another way than this tokenizer")
    return tuple(found)


def sample_of(files: TokenizerFiles) -> tuple[str, ...]:
    """Return `SAMPLE` and texts with the checkpoint's own added tokens, less what `limits_of` names.

    Raises:
        Damaged: a file of the tokenizer is malformed.
    """
    texts: list[str] = list(SAMPLE)
    added = [entry for entry in files.added_tokens if entry["content"].strip() and not entry.get("single_word")]
    if len(added) > _MAX_SPECIAL:
        added = [*added[: _MAX_SPECIAL // 2], *added[-(_MAX_SPECIAL // 2) :]]
    scheme = _metaspace(files)
    if scheme:
        texts = [text for text in texts if not text[0].isspace()]
    for entry in added:
        text = entry["content"]
        if scheme == "first":
            texts.append(f"user{text}{text}")
            continue
        gap = "" if entry.get("lstrip") or entry.get("rstrip") else "\n"
        texts.append(f"{text}user{text}{gap}Hello there{text}")
    if files.is_byte_level and (steps := [part for part in _normalizers(files) if part.get("type") != "ByteLevel"]):
        texts = [_normalized(files, text, steps) for text in texts]
    if _adds_prefix_space(files):
        texts = [text if text[0].isspace() else f" {text}" for text in texts[: len(SAMPLE)]]
    if _joins_marks(files):
        texts = [text for text in texts if not any(unicodedata.category(letter)[0] == "M" for letter in text)]
    if _strips_accents(files):
        texts = [text for text in texts if not any(map(_is_taken_apart, text))]
    return tuple(dict.fromkeys(texts))


def _joins_marks(files: TokenizerFiles) -> bool:
    """Say whether the words of this pre-tokenizer hold combining marks that llama.cpp's form of it leaves out."""
    return name_by_structure(files) in ("gpt-4o", "tekken")


def _is_taken_apart(letter: str) -> bool:
    """Say whether removing accents changes more of a letter than its accents: Hangul, spacing vowel signs."""
    return unicodedata.category(letter) == "Mc" or "가" <= letter <= "힣"


def _normalizers(files: TokenizerFiles) -> list[dict[str, Any]]:
    return parts((files.tokenizer or {}).get("normalizer"))


def _adds_prefix_space(files: TokenizerFiles) -> bool:
    splitters = parts((files.tokenizer or {}).get("pre_tokenizer"))
    return any(part.get("type") == "ByteLevel" and part.get("add_prefix_space") is True for part in splitters)


def _metaspace(files: TokenizerFiles) -> str | None:
    """Return how a Metaspace pre-tokenizer puts its space before a text: `first`, `always`, or None for not at all."""
    if not files.is_sentencepiece_like:
        return None
    splitters = parts((files.tokenizer or {}).get("pre_tokenizer"))
    schemes = [part.get("prepend_scheme", "always") for part in splitters if part.get("type") == "Metaspace"]
    return next((scheme for scheme in schemes if scheme in ("first", "always")), None)


def _strips_accents(files: TokenizerFiles) -> bool:
    for part in _normalizers(files):
        strips = part.get("strip_accents")
        if part.get("type") == "BertNormalizer" and (
            part.get("lowercase") is True if strips is None else strips is True
        ):
            return True
    return False


def _normalized(files: TokenizerFiles, text: str, steps: list[dict[str, Any]]) -> str:
    """Return a text that the tokenizer's normalizer would not change any more."""
    if all(step.get("type") in _UNICODE_FORMS for step in steps):
        for step in steps:
            text = unicodedata.normalize(step["type"], text)
        return text
    normalizer = load(files).normalizer
    return guarded(files, lambda: str(normalizer.normalize_str(text)))


def expected_ids(files: TokenizerFiles, sample: Sequence[str]) -> list[list[int]] | None:
    """Return the ids that the checkpoint's tokenizer.json gives, without begin and end tokens; None if there is none.

    Raises:
        Damaged: the tokenizer is malformed or fails on a text.
    """
    if files.tokenizer is None:
        return None
    tokenizer = load(files)
    return [encode(files, tokenizer, text, add_special=False) for text in sample]


def first_difference(
    files: TokenizerFiles, sample: Sequence[str], expected: Sequence[Sequence[int]], actual: Sequence[Sequence[int]]
) -> Difference | None:
    """Compare the ids of every text; return the first place where they part, None if they are equal."""
    for text, wanted, got in zip(sample, expected, actual, strict=True):
        if list(wanted) == list(got):
            continue
        pairs = zip(wanted, got, strict=False)
        index = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(wanted), len(got)))
        piece = _piece(files, load(files), text, index)
        return Difference(text, piece, index, tuple(wanted[index : index + 4]), tuple(got[index : index + 4]))
    return None


def _piece(files: TokenizerFiles, tokenizer: Tokenizer, text: str, index: int) -> str:
    """Return the part of a text that a few tokens from `index` on cover; its end where there are none."""
    spans: list[tuple[int, int]] = guarded(
        files, lambda: list(tokenizer.encode(text, add_special_tokens=False).offsets)
    )
    if index >= len(spans):
        return text[-16:]
    begin = spans[index][0]
    end = max(end for _, end in spans[index : index + 3])
    return text[max(begin - 1, 0) : max(end, begin + 1)]
