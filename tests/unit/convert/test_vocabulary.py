"""Tokenizers: what is written is what the reference writes, llama.cpp cuts texts by it as `tokenizers` does."""

import copy
import ctypes
import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from owm.convert.tokenizer_check import SAMPLE, expected_ids, first_difference, limits_of, sample_of
from owm.convert.vocabulary import Vocab, Vocabulary, read_sampling_defaults, read_vocabulary
from owm.convert.vocabulary.files import TokenizerFiles
from owm.convert.vocabulary.pretokenizer_hashes import NAME_OF, PROBE
from owm.convert.vocabulary.pretokenizers import name_by_structure
from owm.convert.vocabulary.tokens import TokenType
from owm.errors import Damaged, OwmError, Unsupported

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
)


def byte_level(*regexes: str, use_regex: bool = False) -> Any:
    splits = [pre_tokenizers.Split(Regex(regex), "isolated") for regex in regexes]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    return pre_tokenizers.Sequence([*splits, last]) if splits else last


PRE_TOKENIZERS = {
    "gpt-2": byte_level(use_regex=True),
    "llama-bpe": byte_level(LLAMA3),
    "qwen2": byte_level(QWEN2),
    "gpt-4o": byte_level(GPT4O),
    "deepseek-v3": byte_level(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


def make_bpe(folder: Path, pre: str = "gpt-2", *, special: tuple[str, ...] = ("<s>", "</s>"), **config: Any) -> Path:
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[pre]
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SAMPLE * 3, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False), AddedToken("<|x|>", special=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A", special_tokens=[(special[0], tokenizer.token_to_id(special[0]))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    stated = {"bos_token": special[0], "eos_token": {"content": special[1]}, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated))
    return folder


def spm_bytes(pieces: list[tuple[str, float, int]], *, add_dummy_prefix: bool = True, model_type: int = 2) -> bytes:
    def message(field: int, content: bytes) -> bytes:
        size, length = b"", len(content)
        while length > 127:
            size, length = size + bytes([length & 127 | 128]), length >> 7
        return bytes([field << 3 | 2]) + size + bytes([length]) + content

    found = b""
    for text, score, kind in pieces:
        found += message(1, message(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind]))
    found += message(2, bytes([0x18, model_type]))
    return found + message(3, bytes([0x18, add_dummy_prefix]))


def byte_pieces() -> list[tuple[str, float, int]]:
    return [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((f"<0x{byte:02X}>", 0.0, 6) for byte in range(256))]


def make_spm_json(folder: Path) -> Path:
    """Save a Llama-2-like tokenizer.json: BPE on characters with bytes as the way out."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    reserved = [text for text, _, _ in byte_pieces()]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=reserved, show_progress=False)
    trained.train_from_iterator(" ".join(SAMPLE).replace("\n", " ").split(" "), trainer)
    made = json.loads(trained.to_str())
    made["added_tokens"] = made["added_tokens"][:3]
    made["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    (folder / "tokenizer.json").write_text(json.dumps(made))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return folder


def read(folder: Path, kinds: Any = Vocab.BPE, *, vocab_size: int | None = None, **config: Any) -> Vocabulary:
    return read_vocabulary(folder, kinds, vocab_size=vocab_size, config=config)


def tokenize(vocabulary: Vocabulary, texts: tuple[str, ...], path: Path) -> list[list[int]]:
    """Return llama.cpp's ids for a file that holds this vocabulary and no tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    for add in ("block_count", "context_length", "embedding_length", "feed_forward_length", "head_count"):
        getattr(writer, f"add_{add}")(32)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in vocabulary.metadata.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model
    vocab = llama_cpp.llama_model_get_vocab(model)
    found = []
    for text in texts:
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 16))()
        count = llama_cpp.llama_tokenize(vocab, raw, len(raw), ids, len(ids), False, True)
        found.append(list(ids[:count]))
    llama_cpp.llama_model_free(model)
    return found


def check_against_llama_cpp(folder: Path, vocabulary: Vocabulary, path: Path) -> None:
    sample = sample_of(TokenizerFiles(folder, {}))
    expected = expected_ids(TokenizerFiles(folder, {}), sample)
    assert expected is not None
    difference = first_difference(TokenizerFiles(folder, {}), sample, expected, tokenize(vocabulary, sample, path))
    assert difference is None, str(difference)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_llama_cpp_cuts_like_the_checkpoint(tmp_path: Path, pre: str) -> None:
    made = read(make_bpe(tmp_path, pre))
    assert made.metadata["tokenizer.ggml.pre"] == pre
    check_against_llama_cpp(tmp_path, made, tmp_path / "x.gguf")


def test_tokenizer_json_of_sentencepiece_cuts_right(tmp_path: Path) -> None:
    """The order of the merges becomes scores: with one score for all, llama.cpp would merge from the left."""
    made = read(make_spm_json(tmp_path), Vocab.AUTO_LLAMA)
    assert made.metadata["tokenizer.ggml.model"] == "llama"
    assert made.takes_any_text
    check_against_llama_cpp(tmp_path, made, tmp_path / "x.gguf")
    scores = made.metadata["tokenizer.ggml.scores"]
    assert isinstance(scores, list)
    made.metadata["tokenizer.ggml.scores"] = [-1000.0] * len(scores)
    with pytest.raises(AssertionError):
        check_against_llama_cpp(tmp_path, made, tmp_path / "y.gguf")


def test_wordpiece(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        SAMPLE, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"cls_token": "[CLS]", "sep_token": "[SEP]"}))
    made = read(tmp_path, Vocab.WORDPIECE, type_vocab_size=2)
    tokens = made.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert tokens[:5] == special
    assert all(str(token).startswith("▁") or tokenizer.token_to_id(f"##{token}") for token in tokens[5:])
    facts = {key.removeprefix("tokenizer.ggml."): value for key, value in made.metadata.items()}
    assert (facts["bos_token_id"], facts["eos_token_id"], facts["seperator_token_id"]) == (2, 3, 3)
    assert (facts["add_bos_token"], facts["add_eos_token"], facts["token_type_count"]) == (True, True, 2)
    assert facts["normalizer.lowercase"] is True
    check_against_llama_cpp(tmp_path, made, tmp_path / "x.gguf")
    assert len(limits_of(TokenizerFiles(tmp_path, {}))) == 1


def test_types_and_padding(tmp_path: Path) -> None:
    make_bpe(tmp_path)
    n_tokens = read(tmp_path).n_tokens
    made = read(tmp_path, vocab_size=n_tokens + 2)
    tokens, types = made.metadata["tokenizer.ggml.tokens"], made.metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    by_text = dict(zip(tokens, types, strict=True))
    assert by_text["<s>"] == TokenType.CONTROL
    assert by_text["<tool>"] == TokenType.USER_DEFINED
    assert by_text["<|x|>"] == TokenType.CONTROL  # it looks like one
    assert tokens[-2:] == [f"[PAD{n_tokens}]", f"[PAD{n_tokens + 1}]"]
    assert types[-2:] == [TokenType.UNUSED] * 2
    with pytest.raises(Damaged, match="vocab_size is 300"):
        read(tmp_path, vocab_size=300)


def test_special_tokens(tmp_path: Path) -> None:
    made = read(make_bpe(tmp_path), unk_token_id=3, pad_token_id=-1).metadata
    ids = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert made["tokenizer.ggml.bos_token_id"] == ids.token_to_id("<s>")
    assert made["tokenizer.ggml.eos_token_id"] == ids.token_to_id("</s>")
    assert made["tokenizer.ggml.unknown_token_id"] == 3
    assert made["tokenizer.ggml.add_bos_token"] is True
    assert "tokenizer.ggml.padding_token_id" not in made


def test_no_begin_token_that_the_tokenizer_does_not_add(tmp_path: Path) -> None:
    """llama.cpp adds one for this pre-tokenizer unless the file says no."""
    make_bpe(tmp_path, "llama-bpe")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": None}))
    assert read(tmp_path).metadata["tokenizer.ggml.add_bos_token"] is False


def test_unknown_pre_tokenizer(tmp_path: Path) -> None:
    make_bpe(tmp_path)
    path = tmp_path / "tokenizer.json"
    made = json.loads(path.read_text())
    made["pre_tokenizer"]["use_regex"] = False
    path.write_text(json.dumps(made))
    with pytest.raises(Unsupported, match=r"fingerprint [0-9a-f]{64}") as error:
        read(tmp_path)
    assert "--pre" in str(error.value.hint)
    named = read_vocabulary(tmp_path, Vocab.BPE, vocab_size=None, config={}, pre="olmo")
    assert named.metadata["tokenizer.ggml.pre"] == "olmo"


def test_probe_is_the_reference_text() -> None:
    assert (
        hashlib.sha256(PROBE.encode()).hexdigest() == "a36179c1e2b1cfcfbfad1dc779addad2ffc778201e4cf0d538bddeafa2c526da"
    )
    assert NAME_OF["3ce83efda5659b07b1ad37ca97ca5797ea4285d9b9ab0dc679e4a720c9da7454"] == "gpt-2"
    assert len(NAME_OF) == 95


@pytest.mark.parametrize("removed", [False, True])
def test_structure_in_its_spellings(tmp_path: Path, removed: bool) -> None:
    make_bpe(tmp_path, "qwen2")
    files = TokenizerFiles(tmp_path, {})
    assert files.tokenizer is not None
    split = files.tokenizer["pre_tokenizer"]["pretokenizers"][0]
    split["pattern"]["Regex"] = split["pattern"]["Regex"].replace("\\r\\n", "\r\n")
    if removed:
        split |= {"behavior": "Removed", "invert": True}
    assert name_by_structure(files) == "qwen2"


def test_merges_with_spaces_in_their_parts(tmp_path: Path) -> None:
    make_bpe(tmp_path)
    path = tmp_path / "tokenizer.json"
    made = json.loads(path.read_text())
    made["model"]["vocab"] |= {" ": 5000, "  ": 5001}
    made["model"]["merges"].append([" ", " "])
    path.write_text(json.dumps(made))
    merges = read(tmp_path).metadata["tokenizer.ggml.merges"]
    assert isinstance(merges, list)
    assert merges[-1] == "Ġ Ġ"


def test_sentencepiece_model(tmp_path: Path) -> None:
    pieces = [*byte_pieces(), ("▁hello", -1.0, 1), ("▁", -2.0, 1), ("unused", -3.0, 5)]
    (tmp_path / "tokenizer.model").write_bytes(spm_bytes(pieces))
    (tmp_path / "added_tokens.json").write_text('{"<x>": 262}')
    listed = {"1": {"content": "<s>", "special": True}, "263": {"content": "a▁b", "special": False}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))
    made = read(tmp_path, Vocab.SENTENCEPIECE, vocab_size=265, bos_token_id=1)
    tokens, types = made.metadata["tokenizer.ggml.tokens"], made.metadata["tokenizer.ggml.token_type"]
    scores = made.metadata["tokenizer.ggml.scores"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert isinstance(scores, list)
    assert tokens[259:] == ["▁hello", "▁", "unused", "<x>", "a b", "[PAD264]"]
    assert types[259:] == [1, 1, 5, 4, 4, 5]
    assert scores[259:] == [-1.0, -2.0, -3.0, -1000.0, -1000.0, -10000.0]
    assert (types[:4], scores[1]) == ([2, 3, 3, 6], -1000.0)
    assert made.metadata["tokenizer.ggml.bos_token_id"] == 1
    assert expected_ids(TokenizerFiles(tmp_path, {}), ("a",)) is None


def test_two_tokenizers_that_contradict_each_other(tmp_path: Path) -> None:
    make_spm_json(tmp_path)
    vocab = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    texts = sorted(vocab, key=vocab.__getitem__)[259:]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(spm_bytes([*byte_pieces(), *((text, -float(i), 1) for i, text in enumerate(texts))]))
    assert read(tmp_path, Vocab.AUTO_LLAMA).n_tokens == len(vocab)
    texts[5], texts[6] = texts[6], texts[5]
    path.write_bytes(spm_bytes([*byte_pieces(), *((text, -float(i), 1) for i, text in enumerate(texts))]))
    with pytest.raises(Damaged, match="contradict each other: id 264 is"):
        read(tmp_path, Vocab.AUTO_LLAMA)


def test_one_text_under_two_ids_is_refused(tmp_path: Path) -> None:
    """llama.cpp aborts the process on such a file."""
    (tmp_path / "tokenizer.model").write_bytes(spm_bytes([*byte_pieces(), ("a", -1.0, 1), ("a", -2.0, 1)]))
    with pytest.raises(Damaged, match="one token under two ids, 259 and 260"):
        read(tmp_path, Vocab.SENTENCEPIECE)


@pytest.mark.parametrize(
    "content", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"hello world", b"\x0a\x03\x0a\x01\xff"]
)
def test_no_sentencepiece_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(Damaged, match="no SentencePiece model"):
        read(tmp_path, Vocab.SENTENCEPIECE)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="has no tokenizer"):
        read(tmp_path, Vocab.AUTO_LLAMA)
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(Unsupported, match="tekken"):
        read(tmp_path, Vocab.AUTO_LLAMA)


def test_before_tokenizer_json(tmp_path: Path) -> None:
    make_bpe(tmp_path)
    path = tmp_path / "tokenizer.json"
    model = json.loads(path.read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])) + "\n")
    wanted = read(tmp_path).metadata["tokenizer.ggml.merges"]
    path.unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    made = read(tmp_path)
    assert made.metadata["tokenizer.ggml.merges"] == wanted
    check_against_llama_cpp(tmp_path, made, tmp_path / "x.gguf")


def test_chat_templates(tmp_path: Path) -> None:
    make_bpe(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("plain")
    assert read(tmp_path).metadata["tokenizer.chat_template"] == "plain"
    extra = tmp_path / "additional_chat_templates"
    extra.mkdir()
    (extra / "tool-use.jinja").write_text("tools")
    made = read(tmp_path).metadata
    assert made["tokenizer.chat_template"] == "plain"
    assert made["tokenizer.chat_template.tool_use"] == "tools"
    assert made["tokenizer.chat_templates"] == ["tool_use"]
    make_bpe(tmp_path, chat_template="from the config")
    assert read(tmp_path).metadata["tokenizer.chat_template"] == "from the config"


def test_sampling_defaults(tmp_path: Path) -> None:
    assert read_sampling_defaults(tmp_path) == {}
    stated = {
        "temperature": 1,
        "top_k": 20.0,
        "top_p": "x",
        "min_p": True,
        "repetition_penalty": 1.1,
        "mirostat": 1 << 40,
    }
    (tmp_path / "generation_config.json").write_text(json.dumps(stated))
    assert read_sampling_defaults(tmp_path) == {
        "general.sampling.top_k": 20,
        "general.sampling.temp": 1.0,
        "general.sampling.penalty_repeat": 1.1,
    }


def test_families(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(spm_bytes([*byte_pieces(), ("\0", -1.0, 1), ("[UNUSED_1]", -2.0, 1)]))
    gemma = read(tmp_path, Vocab.GEMMA).metadata
    assert (gemma["tokenizer.ggml.eot_token_id"], gemma["tokenizer.ggml.add_space_prefix"]) == (107, False)
    intern = read(tmp_path, Vocab.INTERNLM2).metadata
    tokens, types = intern["tokenizer.ggml.tokens"], intern["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert (tokens[-2:], types[-2:]) == (["🐉", "[UNUSED_1]"], [1, 5])
    nemotron = read(tmp_path, Vocab.NEMOTRON).metadata
    assert (nemotron["tokenizer.ggml.padding_token_id"], nemotron["tokenizer.ggml.unknown_token_id"]) == (0, 1)
    assert read(tmp_path, Vocab.NONE).metadata == {"tokenizer.ggml.model": "none"}


def test_difference_names_the_piece(tmp_path: Path) -> None:
    make_bpe(tmp_path)
    expected = expected_ids(TokenizerFiles(tmp_path, {}), ("one two three",))
    assert expected is not None
    actual = [[*expected[0][:-1], 7]]
    found = first_difference(TokenizerFiles(tmp_path, {}), ("one two three",), expected, actual)
    assert found is not None
    assert found.piece in "one two three"
    assert found.index == len(expected[0]) - 1
    assert "differently" in str(found)


JUNK = [None, True, 0, -1, 3.5, 1e308, "", "x", "\ud800", [], {}, [[]], [1], {"id": 3}, 1 << 40, [["a", "b", "c"]]]


def test_wrong_types_everywhere(tmp_path: Path) -> None:
    """Whatever stands where something else belongs, the answer is one of owm's errors or a vocabulary."""
    make_bpe(tmp_path, "llama-bpe", chat_template=[{"name": "default", "template": "t"}])
    chance = random.Random(3)
    n_refused = 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = tmp_path / name
        whole = json.loads(path.read_text())
        for _ in range(60):
            broken = copy.deepcopy(whole)
            node = broken
            while True:
                keys = list(node)[:20] if isinstance(node, dict) else list(range(min(len(node), 6)))
                key = chance.choice(keys)
                if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.8:
                    node = node[key]
                    continue
                node[key] = chance.choice(JUNK)
                break
            path.write_text(json.dumps(broken))
            try:
                read(tmp_path)
                expected_ids(TokenizerFiles(tmp_path, {}), sample_of(TokenizerFiles(tmp_path, {}))[:3])
            except OwmError as error:
                n_refused += 1
                assert "\n" not in str(error)  # noqa: PT017
        path.write_text(json.dumps(whole))
    assert n_refused > 10
