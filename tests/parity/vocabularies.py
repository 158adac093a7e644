"""Small but real tokenizers, trained on the texts of this repository, in the files that checkpoints have."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.pre_tokenizers import PreTokenizer

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "LICENSE"]
SPICE = (
    "Où est-ce? Straße, naïve, 東京の天気は晴れ, привет мир, 123 4567, x = f(y) + 3.14; 🙂🚀\n\n\tfor i in range(10):\n"
)
N_TOKENS = 600
GEMMA_SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _TAIL
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*"
    rf"{_CONTRACTIONS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|" + _TAIL
)


@dataclass(frozen=True)
class Kind:
    """A tokenizer: how it is made in a folder, its name in llama.cpp, and the tokens that config.json names by id."""

    make: Callable[[Path], None]
    pre: str | None = None
    bos: str | None = None
    eos: str | None = None
    pad: str | None = None


def text() -> list[str]:
    """Return the text that vocabularies are trained on."""
    return [line for path in TEXTS for line in path.read_text(encoding="utf-8").splitlines(keepends=True)] + [SPICE] * 9


def _save(folder: Path, tokenizer: Tokenizer, config: dict[str, object]) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **{key: each for key, each in config.items() if each}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def bpe(
    *steps: str | PreTokenizer,
    pre: str,
    specials: tuple[str, ...],
    bos: str | None = None,
    eos: str | None = None,
    pad: str | None = None,
    has_bos: bool = False,
    nfc: bool = False,
    ignore_merges: bool = False,
    first: bool = False,
) -> Kind:
    """Describe a byte-level BPE.

    Args:
        steps: how text is cut before merging, expressions of splits or whole steps; none for GPT-2's own way. Bytes
            come last unless among them.
        pre: what llama.cpp calls that; owm finds it by the steps, as no tiny vocabulary has a published fingerprint.
        has_bos: begin every text with `bos`.
        first: put the special tokens before the others, as Falcon or Cohere do.
    """

    def make(folder: Path) -> None:
        tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
        if nfc:
            tokenizer.normalizer = normalizers.NFC()
        chain = [pre_tokenizers.Split(Regex(step), "isolated") if isinstance(step, str) else step for step in steps]
        if not any(isinstance(step, pre_tokenizers.ByteLevel) for step in chain):
            chain.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not steps))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(chain) if len(chain) > 1 else chain[0]
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=N_TOKENS - len(specials),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=list(specials) if first else [],
            show_progress=False,
        )
        tokenizer.train_from_iterator(text(), trainer)
        tokenizer.add_special_tokens(list(specials))
        if has_bos and bos:
            single, pair = f"{bos} $A", f"{bos} $A {bos} $B"
            ids = [(bos, tokenizer.token_to_id(bos))]
            tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
        _save(folder, tokenizer, {"bos_token": bos, "eos_token": eos, "pad_token": pad})

    return Kind(make, pre, bos, eos, pad)


def sentencepiece(
    *,
    model: bool = True,
    json_too: bool = True,
    prefix: bool = True,
    gemma: bool = False,
    added: tuple[str, ...] = (),
) -> Kind:
    """Describe a BPE with byte fallback, as SentencePiece trains it.

    Args:
        model: write tokenizer.model.
        json_too: write tokenizer.json.
        prefix: put a space before every text.
        gemma: order and names of Gemma's special tokens, and no space before a text.
        added: special tokens that the checkpoint adds after those of tokenizer.model.
    """

    def make(folder: Path) -> None:
        proto = _trained("bpe", gemma, add_dummy_prefix=prefix and not gemma)
        pieces = [(piece.piece, piece.score) for piece in proto.pieces]
        bos, eos = "<bos>" if gemma else "<s>", "<eos>" if gemma else "</s>"
        pad = "<pad>" if gemma else None
        config: dict[str, Any] = {"bos_token": bos, "eos_token": eos, "unk_token": "<unk>", "pad_token": pad}
        name = "GemmaTokenizer" if gemma else "LlamaTokenizer"
        tokenizer = _llama_json(pieces, prefix, gemma)
        tokenizer.add_special_tokens([AddedToken(each, normalized=False, special=True) for each in added])
        ids = {each: tokenizer.token_to_id(each) for each in (GEMMA_SPECIALS if gemma else added)}
        facts = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
        if ids:
            config["added_tokens_decoder"] = {
                str(i): {"content": each, "special": True, **facts} for each, i in ids.items()
            }
        if added:
            (folder / "added_tokens.json").write_text(json.dumps(ids), encoding="utf-8")
        _save(folder, tokenizer, {"tokenizer_class": name, **config})
        if not json_too:
            (folder / "tokenizer.json").unlink()
        if model:
            (folder / "tokenizer.model").write_bytes(proto.SerializeToString())

    if gemma:
        return Kind(make, None, "<bos>", "<eos>", "<pad>")
    return Kind(make, None, "<s>", "</s>")


def _trained(model_type: str, gemma: bool, add_dummy_prefix: bool) -> Any:
    """Train with SentencePiece; return its ModelProto."""
    import sentencepiece as library
    from sentencepiece import sentencepiece_model_pb2

    written = io.BytesIO()
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3} if gemma else {"unk_id": 0, "bos_id": 1, "eos_id": 2}
    names = {"bos_piece": "<bos>", "eos_piece": "<eos>"} if gemma else {}
    library.SentencePieceTrainer.train(
        sentence_iterator=(line.strip("\n") for line in text()),
        model_writer=written,
        model_type=model_type,
        vocab_size=N_TOKENS,
        byte_fallback=model_type == "bpe",
        split_digits=True,
        normalization_rule_name="identity" if model_type == "bpe" else "nmt_nfkc",
        remove_extra_whitespaces=model_type != "bpe",
        allow_whitespace_only_pieces=model_type == "bpe",
        add_dummy_prefix=add_dummy_prefix,
        character_coverage=0.999,
        minloglevel=2,
        user_defined_symbols=list(GEMMA_SPECIALS[4:]) if gemma else [],
        **ids,
        **names,
    )
    return sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())


def _llama_json(pieces: list[tuple[str, float]], prefix: bool, gemma: bool) -> Tokenizer:
    vocab = {piece: i for i, (piece, _) in enumerate(pieces)}
    ranks = [piece for piece, _ in sorted(pieces, key=lambda pair: -pair[1])]
    merges = [
        (piece[:cut], piece[cut:])
        for piece in ranks
        if not piece.startswith("<")
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    if gemma:
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    else:
        tokenizer.normalizer = normalizers.Sequence([*[normalizers.Prepend("▁")] * prefix, replace])
    strip = [] if gemma or not prefix else [decoders.Strip(" ", 1, 0)]
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(steps)
    bos = "<bos>" if gemma else "<s>"
    specials = GEMMA_SPECIALS if gemma else ("<unk>", "<s>", "</s>")
    tokenizer.add_special_tokens([AddedToken(each, normalized=False, special=True) for each in specials])
    single, pair = f"{bos} $A", f"{bos} $A {bos} $B:1"
    ids = [(bos, vocab[bos])]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    return tokenizer


def wordpiece() -> Kind:
    """Describe BERT's tokenizer, lower-casing."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

    def make(folder: Path) -> None:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=N_TOKENS, special_tokens=specials, show_progress=False)
        tokenizer.train_from_iterator(text(), trainer)
        ids = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        single, pair = "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
        names = {f"{each[1:-1].lower()}_token": each for each in specials}
        _save(folder, tokenizer, {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **names})
        vocab = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocab), encoding="utf-8")

    return Kind(make, "jina-v2-en", pad="[PAD]")


def unigram() -> Kind:
    """Describe XLM-RoBERTa's tokenizer: SentencePiece's unigram model, its ids moved by one."""

    def make(folder: Path) -> None:
        proto = _trained("unigram", gemma=False, add_dummy_prefix=True)
        pieces = [(piece.piece, piece.score) for piece in proto.pieces]
        head = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
        scored = [*head, *pieces[3:], ("<mask>", 0.0)]
        tokenizer = Tokenizer(models.Unigram(scored, 3, False))
        tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
        words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", "always")]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(words)
        tokenizer.decoder = decoders.Metaspace("▁", "always")
        tokenizer.add_special_tokens([*[name for name, _ in head], AddedToken("<mask>", lstrip=True, special=True)])
        ids = [("<s>", 0), ("</s>", 2)]
        single, pair = "<s> $A </s>", "<s> $A </s> </s> $B </s>"
        tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
        names = {
            "bos": "<s>",
            "eos": "</s>",
            "sep": "</s>",
            "cls": "<s>",
            "unk": "<unk>",
            "pad": "<pad>",
            "mask": "<mask>",
        }
        named: dict[str, object] = {f"{key}_token": name for key, name in names.items()}
        _save(folder, tokenizer, {"tokenizer_class": "XLMRobertaTokenizer", **named})
        (folder / "sentencepiece.bpe.model").write_bytes(proto.SerializeToString())

    return Kind(make, None, "<s>", "</s>", "<pad>")


_BYTE_WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_HEADERS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>")

_GLM = ("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
        "<|observation|>")  # fmt: skip

KINDS: dict[str, Kind] = {
    "bpe-gpt2": bpe(pre="gpt-2", specials=_IM[:1], bos=_IM[0], eos=_IM[0]),
    "bpe-llama3": bpe(
        _LLAMA3, pre="llama-bpe", specials=_HEADERS, bos=_HEADERS[0], eos=_HEADERS[1], has_bos=True, ignore_merges=True
    ),
    "bpe-qwen2": bpe(_QWEN2, pre="qwen2", specials=_IM, eos=_IM[2], pad=_IM[0], nfc=True),
    "bpe-gpt4o": bpe(
        _GPT4O, pre="gpt-4o", specials=("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|call|>"), eos="<|return|>"
    ),
    "bpe-deepseek3": bpe(
        r"\p{N}{1,3}",
        r"[一-龥぀-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
        r""" ?[\p{P}\p{S}]+[\r\n]*|""" + _TAIL,
        pre="deepseek-v3",
        specials=_DEEPSEEK,
        bos=_DEEPSEEK[0],
        eos=_DEEPSEEK[1],
        pad=_DEEPSEEK[2],
        has_bos=True,
        first=True,
    ),
    "bpe-glm4": bpe(_LLAMA3, pre="smaug-bpe", specials=_GLM, eos="<|user|>", pad="<|endoftext|>"),
    "bpe-digits": bpe(
        pre_tokenizers.Digits(individual_digits=True), _BYTE_WORDS, pre="smollm", specials=_IM, bos=_IM[1], eos=_IM[2]
    ),
    "bpe-tekken": bpe(
        _GPT4O.replace(f"{_CONTRACTIONS}?", "").replace("{1,3}", ""),
        pre="tekken",
        specials=("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
        has_bos=True,
        ignore_merges=True,
        first=True,
    ),
    "bpe-falcon": bpe(
        pre_tokenizers.Punctuation("contiguous"),
        _BYTE_WORDS,
        pre_tokenizers.Digits(individual_digits=False),
        "[0-9][0-9][0-9]",
        pre="falcon",
        specials=(">>TITLE<<", ">>QUESTION<<", "<|endoftext|>"),
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        first=True,
    ),
    "bpe-bloom": bpe(
        r" ?[^(\s|[.,!?…。，、।۔،])]+",
        pre="bloom",
        specials=("<unk>", "<s>", "</s>", "<pad>"),
        bos="<s>",
        eos="</s>",
        pad="<pad>",
        first=True,
    ),
    "spm-llama": sentencepiece(),
    "spm-llama-json": sentencepiece(model=False),
    "spm-llama-model": sentencepiece(json_too=False),
    "spm-phi3": sentencepiece(added=("<|endoftext|>", "<|assistant|>", "<|end|>", "<|system|>", "<|user|>")),
    "spm-gemma": sentencepiece(gemma=True),
    "spm-gemma-json": sentencepiece(gemma=True, model=False),
    "wordpiece": wordpiece(),
    "unigram": unigram(),
}


class Shelf:
    """Makes each tokenizer once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> Path:
        """Return the folder with the files of a tokenizer."""
        folder = self._folder / name
        if not folder.exists():
            folder.mkdir(parents=True)
            KINDS[name].make(folder)
        return folder


def special_ids(kind: Kind, folder: Path) -> dict[str, int]:
    """Return `vocab_size` and the ids that config.json has, for a tokenizer made in a folder."""
    path = folder / "tokenizer.json"
    if path.exists():
        tokenizer = Tokenizer.from_file(str(path))
        size, of = tokenizer.get_vocab_size(), tokenizer.token_to_id
    else:
        import sentencepiece as library

        processor = library.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        size, of = processor.get_piece_size(), processor.piece_to_id
    named = {"bos_token_id": kind.bos, "eos_token_id": kind.eos, "pad_token_id": kind.pad}
    return {"vocab_size": size} | {key: of(token) for key, token in named.items() if token}
