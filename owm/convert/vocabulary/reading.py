"""From a checkpoint's folder to the `tokenizer.*` metadata of a file: the tokenizer's kind and its family's ways."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from owm.convert.vocabulary import bpe, spm, unigram, wordpiece
from owm.convert.vocabulary.backend import encode, load
from owm.convert.vocabulary.chat_template import read_chat_templates
from owm.convert.vocabulary.files import TokenizerFiles, is_id, parts
from owm.convert.vocabulary.pretokenizers import ADDS_BOS, fingerprints, pre_tokenizer_name, published_name
from owm.convert.vocabulary.special_tokens import SpecialTokens, read_special_tokens
from owm.convert.vocabulary.tokens import TokenTable, check_size
from owm.errors import Damaged, Unsupported

# bytes are an array of UINT8
TokenizerValue = bool | int | float | str | bytes | list[int] | list[float] | list[str | bytes]


class Vocab(StrEnum):
    """Kinds of vocabulary, and the families that add something of their own to one."""

    BPE = "byte-level BPE"
    SENTENCEPIECE = "SentencePiece"
    WORDPIECE = "WordPiece"
    UNIGRAM = "unigram"
    NONE = "none"
    AUTO_LLAMA = "SentencePiece or BPE, Llama"
    GEMMA = "SentencePiece, Gemma"
    GEMMA2 = "SentencePiece, Gemma 2 and later"
    PHI2 = "byte-level BPE, Phi-2"
    PHI3 = "SentencePiece or BPE, Phi-3"
    INTERNLM2 = "SentencePiece, InternLM2"
    NEMOTRON = "SentencePiece, Nemotron"
    ERNIE = "SentencePiece, Ernie 4.5"
    GLM4 = "byte-level BPE, GLM 4"
    GLM4_MOE = "byte-level BPE, GLM 4.5 and later"
    HUNYUAN = "byte-level BPE, Hunyuan"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer's share of a GGUF file.

    `takes_any_text` is False where llama.cpp would abort on characters outside the vocabulary (no byte tokens).
    """

    metadata: dict[str, TokenizerValue]
    n_tokens: int
    tokenizer_path: Path | None
    files: TokenizerFiles
    warnings: tuple[str, ...] = ()
    takes_any_text: bool = True


@dataclass(slots=True)
class _Draft:
    """What is known so far about the vocabulary being read."""

    files: TokenizerFiles
    kind: Vocab
    n_tokens: int | None
    pre: str | None
    table: TokenTable
    special: SpecialTokens = field(default_factory=SpecialTokens)
    head: dict[str, TokenizerValue] = field(default_factory=dict)
    tail: dict[str, TokenizerValue] = field(default_factory=dict)
    merges: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    path: Path | None = None
    tokenizer: Tokenizer | None = None

    def is_token(self, token_id: int, text: str) -> bool:
        return token_id < len(self.table) and self.table.tokens[token_id] == text


_SPM_RULES = {
    Vocab.PHI3: spm.SpmRules(guesses_control=False, keeps_spaces=True, json_decides=True),
    Vocab.INTERNLM2: spm.SpmRules(guesses_control=False, keeps_spaces=True, json_decides=True, hides_unused=True),
}
_PURE_BPE = (Vocab.BPE, Vocab.PHI2, Vocab.GLM4, Vocab.GLM4_MOE, Vocab.HUNYUAN)
_EITHER = (Vocab.AUTO_LLAMA, Vocab.PHI3)


def read_vocabulary(
    folder: Path,
    kinds: Sequence[Vocab] | Vocab,
    *,
    vocab_size: int | None,
    config: Mapping[str, Any],
    pre: str | None = None,
) -> Vocabulary:
    """Read the tokenizer of a checkpoint.

    `kinds` are tried in order, the first whose files are there is taken, else what the files themselves show.
    `vocab_size` is the number of embedding rows (padding included), None to take the tokenizer's. `pre` overrides the
    name of the pre-tokenizer.

    Raises:
        Damaged: a file is malformed, missing, or contradicts another or the config.
        Unsupported: llama.cpp has no such tokenizer, or its pre-tokenizer is not known.
    """
    kinds = (kinds,) if isinstance(kinds, Vocab) else tuple(kinds)
    if vocab_size is not None:
        check_size(vocab_size)
    files = TokenizerFiles(folder, config)
    if Vocab.NONE in kinds:
        return Vocabulary({"tokenizer.ggml.model": "none"}, vocab_size or 0, None, files, takes_any_text=False)
    kind, read = _choose(files, kinds)
    draft = _Draft(files, kind, vocab_size, pre, TokenTable([], [], []))
    read(draft)
    draft.table.check_unique()
    draft.special = read_special_tokens(files, len(draft.table))
    _settle_added(draft)
    if family := _FAMILIES.get(kind):
        family(draft)
    return _finish(draft)


def _choose(files: TokenizerFiles, kinds: tuple[Vocab, ...]) -> tuple[Vocab, Callable[[_Draft], None]]:
    """Return the kind to read as, and its reader."""
    has_spm = spm.has_model_file(files)
    is_bpe = files.model_type == "BPE" and not files.is_sentencepiece_like
    for kind in kinds:
        if kind in _PURE_BPE:
            if is_bpe:
                return kind, _read_bpe
        elif kind is Vocab.WORDPIECE:
            if files.model_type == "WordPiece":
                return kind, _read_wordpiece
        elif kind is Vocab.UNIGRAM:
            if files.path(unigram.FILE) or files.model_type == "Unigram":
                return kind, _read_unigram
        elif kind is Vocab.PHI3 and is_bpe and (files.tokenizer_config or {}).get("tokenizer_class") == "GPT2Tokenizer":
            return kind, _read_bpe
        elif has_spm or files.is_sentencepiece_like:
            return kind, _read_spm
        elif kind in _EITHER and is_bpe:
            return kind, _read_bpe
    if has_spm or files.is_sentencepiece_like:
        return Vocab.SENTENCEPIECE, _read_spm
    if is_bpe:
        return Vocab.BPE, _read_bpe
    if files.model_type == "WordPiece":
        return Vocab.WORDPIECE, _read_wordpiece
    if files.model_type == "Unigram" or files.path(unigram.FILE):
        return Vocab.UNIGRAM, _read_unigram
    if files.tokenizer is not None:
        raise Unsupported(f"llama.cpp has no tokenizer of this type: {files.model_type}")
    if files.path("tekken.json"):
        raise Unsupported("the checkpoint has only Mistral's tekken.json; owm needs a tokenizer.json beside it")
    raise Damaged("the checkpoint has no tokenizer: neither tokenizer.json nor tokenizer.model")


def _read_bpe(draft: _Draft) -> None:
    files = draft.files
    bpe.check_against_vocab_json(files)
    draft.tokenizer = tokenizer = load(files, n_tokens=draft.n_tokens)
    draft.table = bpe.read_table(files, tokenizer, draft.n_tokens)
    draft.merges = bpe.read_merges(files)
    draft.path = files.folder / "tokenizer.json"
    name = draft.pre or pre_tokenizer_name(files, tokenizer)
    draft.head |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name}


def _read_wordpiece(draft: _Draft) -> None:
    files = draft.files
    tokenizer = load(files, n_tokens=draft.n_tokens)
    draft.table = bpe.read_table(files, tokenizer, draft.n_tokens)
    wordpiece.mark_word_beginnings(draft.table)
    draft.path = files.folder / "tokenizer.json"
    # llama.cpp cuts every WordPiece text the same way; the name is kept as the reference writes it.
    name = draft.pre or published_name(fingerprints(files, tokenizer)) or "default"
    draft.head |= {"tokenizer.ggml.model": "bert", "tokenizer.ggml.pre": name, **_segments(files)}


def _read_spm(draft: _Draft) -> None:
    files = draft.files
    is_auto = draft.kind is Vocab.AUTO_LLAMA and not spm.has_model_file(files)
    rules = _SPM_RULES.get(draft.kind, spm.SpmRules(guesses_control=not is_auto))
    found = spm.read_spm(files, draft.n_tokens, rules)
    draft.table, draft.warnings = found.table, found.warnings
    draft.path = files.folder / (spm.FILE if found.model else "tokenizer.json")
    draft.head |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"}
    if found.model is None and not spm.adds_space_prefix(files):
        draft.tail["tokenizer.ggml.add_space_prefix"] = False
    if draft.kind is Vocab.INTERNLM2 and found.model is not None:
        draft.tail["tokenizer.ggml.add_space_prefix"] = found.model.add_dummy_prefix


def _read_unigram(draft: _Draft) -> None:
    found = unigram.read_unigram(draft.files, draft.n_tokens)
    draft.table = found.table
    draft.path = draft.files.path(unigram.FILE) or draft.files.folder / "tokenizer.json"
    draft.head |= {"tokenizer.ggml.model": "t5", "tokenizer.ggml.pre": "default", **_segments(draft.files)}
    draft.tail["tokenizer.ggml.add_space_prefix"] = found.add_space_prefix
    draft.tail["tokenizer.ggml.remove_extra_whitespaces"] = found.remove_extra_whitespaces
    if found.precompiled_charsmap:
        draft.tail["tokenizer.ggml.precompiled_charsmap"] = found.precompiled_charsmap


def _segments(files: TokenizerFiles) -> dict[str, int]:
    """Return the number of segment embeddings, which the format counts among the tokenizer's facts."""
    stated = files.config_value("type_vocab_size")
    return {"tokenizer.ggml.token_type_count": stated if is_id(stated) else 1}


def _settle_added(draft: _Draft) -> None:
    """Say explicitly that nothing is added where llama.cpp would add a token that the tokenizer does not."""
    special, model = draft.special, draft.head["tokenizer.ggml.model"]
    if draft.tokenizer and draft.head.get("tokenizer.ggml.pre") in ADDS_BOS and "bos" not in special.added:
        with_bos = encode(draft.files, draft.tokenizer, "a", add_special=True)
        if with_bos == encode(draft.files, draft.tokenizer, "a", add_special=False):
            special.added["bos"] = False
    # llama.cpp has ids of its own where the file names none; written where those would be wrong.
    vocab = draft.files.model.get("vocab")
    unknown = vocab.get(str(draft.files.model.get("unk_token"))) if isinstance(vocab, dict) else None
    for kind, default, found in (
        ("unk", {"llama": 0, "bert": 100}, unknown if is_id(unknown) else None),
        ("sep", {"bert": 102}, special.ids.get("eos")),
    ):
        if model in default and found is not None and found != default[str(model)] and found < len(draft.table):
            special.set_default(kind, found)
    for kind in ("bos", "eos", "sep"):
        # llama.cpp aborts when it shall add a token that has no id. "llama" and "bert" have ids of their own.
        if special.added.get(kind) and kind not in special.ids and model in ("gpt2", "t5"):
            special.added[kind] = False


def _gemma(draft: _Draft) -> None:
    if draft.head["tokenizer.ggml.model"] == "llama":
        if draft.kind is Vocab.GEMMA and (
            draft.path == draft.files.folder / spm.FILE or draft.is_token(107, "<end_of_turn>")
        ):
            draft.special.set_default("eot", 107 if len(draft.table) > 107 else None)
        draft.tail["tokenizer.ggml.add_space_prefix"] = False


def _stated_prefix(draft: _Draft) -> None:
    stated = (draft.files.tokenizer_config or {}).get("add_prefix_space")
    if isinstance(stated, bool):
        draft.tail["tokenizer.ggml.add_space_prefix"] = stated


def _llama(draft: _Draft) -> None:
    _stated_prefix(draft)
    stated = draft.files.config_value("vocab_size")
    if stated == 32016:  # CodeLlama's infill
        draft.special.set_default("eot", 32010 if len(draft.table) > 32010 else None)
    if stated == 49152:  # the small Granite models
        draft.special.added["bos"] = False


def _phi2(draft: _Draft) -> None:
    draft.special.added["bos"] = False


def _nemotron(draft: _Draft) -> None:
    draft.special.ids |= {"pad": 0, "unk": 1}


def _internlm2(draft: _Draft) -> None:
    for source in (draft.files.added_tokens_decoder.items(), ((e["id"], e) for e in draft.files.added_tokens)):
        for token_id, entry in source:
            if entry["content"] == "<|im_end|>" and token_id < len(draft.table):
                draft.special.ids["eos"] = token_id  # else a chat would not end


_GLM_TOKENS = {
    Vocab.GLM4: (("eos", "<|endoftext|>"), ("eot", "<|user|>"), ("unk", "<|endoftext|>"), ("bos", "<|endoftext|>")),
    Vocab.GLM4_MOE: (("bos", "[gMASK]"), ("eot", "<|user|>"), ("unk", "<|endoftext|>"), ("eom", "<|observation|>")),
}


def _glm(draft: _Draft) -> None:
    ids = {entry["content"]: entry["id"] for entry in draft.files.added_tokens if entry["id"] < len(draft.table)}
    for kind, text in _GLM_TOKENS[draft.kind]:
        draft.special.set_default(kind, ids.get(text))


def _hunyuan(draft: _Draft) -> None:
    n_tokens = len(draft.table)
    eod = draft.files.config_value("eod_token_id")
    if is_id(eod) and eod < n_tokens:
        draft.special.ids["eos"] = eod
    ends = (draft.files.json("generation_config.json") or {}).get("eos_token_id")
    if isinstance(ends, list) and len(ends) > 1 and is_id(ends[0]) and ends[0] < n_tokens:
        draft.special.ids["eot"] = ends[0]


_FAMILIES: dict[Vocab, Callable[[_Draft], None]] = {
    Vocab.AUTO_LLAMA: _llama,
    Vocab.GEMMA: _gemma,
    Vocab.GEMMA2: _gemma,
    Vocab.NEMOTRON: _nemotron,
    Vocab.PHI2: _phi2,
    Vocab.ERNIE: _stated_prefix,
    Vocab.INTERNLM2: _internlm2,
    Vocab.GLM4: _glm,
    Vocab.GLM4_MOE: _glm,
    Vocab.HUNYUAN: _hunyuan,
}


def _finish(draft: _Draft) -> Vocabulary:
    table = draft.table
    metadata = dict(draft.head)
    metadata["tokenizer.ggml.tokens"] = table.tokens
    if table.scores:
        metadata["tokenizer.ggml.scores"] = table.scores
    metadata["tokenizer.ggml.token_type"] = table.types
    if draft.merges:
        metadata["tokenizer.ggml.merges"] = list[str | bytes](draft.merges)
    metadata |= draft.special.metadata()
    metadata.update(read_chat_templates(draft.files))
    metadata |= _normalizer_flags(draft.files)
    metadata |= draft.tail
    warnings = list(draft.warnings)
    takes_any_text = True
    if draft.head["tokenizer.ggml.model"] == "llama":
        known = set(table.tokens)
        takes_any_text = all(f"<0x{byte:02X}>" in known for byte in range(256))
        if not takes_any_text:
            warnings.append("the tokenizer has no byte tokens: llama.cpp cannot take characters outside its vocabulary")
    return Vocabulary(metadata, len(table), draft.path, draft.files, tuple(warnings), takes_any_text)


def _normalizer_flags(files: TokenizerFiles) -> dict[str, bool]:
    """Return whether text is lowered and stripped of accents, where tokenizer.json says so."""
    found: dict[str, bool] = {}
    for part in parts((files.tokenizer or {}).get("normalizer")):
        if part.get("type") == "Lowercase":
            found["lowercase"] = True
        elif part.get("type") == "StripAccents":
            found["strip_accents"] = True
        elif part.get("type") == "BertNormalizer":
            found |= {key: part[key] for key in ("lowercase", "strip_accents") if isinstance(part.get(key), bool)}
    return {f"tokenizer.ggml.normalizer.{key}": flag for key, flag in sorted(found.items())}
