"""Files whose vocabulary lies: what is tokenized with it takes the process down, often long after it was loaded."""

import struct

from hostile.gallery.exhibit import hostile
from support.crafted_gguf import N_EMBD, crafted, weights
from support.packed_gguf import ARRAY, BOOL, F32, I32, STRING, U8, U32
from support.tiny_gguf import vocabulary

TOKENS, KINDS = vocabulary()


def spoken(tokens: list[str | bytes], **keys: tuple[object, ...]) -> bytes:
    """Craft a model of this vocabulary, with matrices to fit."""
    of_tokens = {"tokens": (ARRAY, STRING, tokens), "token_type": (ARRAY, I32, [1] * len(tokens))} | keys
    tensors = {name: weights(N_EMBD, len(tokens)) for name in ("token_embd.weight", "output.weight")}
    return crafted({f"tokenizer.ggml.{name}": value for name, value in of_tokens.items()}, tensors)


def sentencepiece(texts: list[str]) -> list[str]:
    """Return a vocabulary that can write any byte, and these texts."""
    return ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *texts]


@hostile("a token of its vocabulary appears twice: '\\u0120a'", "aborts")
def token_twice() -> bytes:
    """Two tokens of one text."""
    return crafted({"tokenizer.ggml.tokens": (ARRAY, STRING, [*TOKENS[:-1], TOKENS[-2]])})


@hostile("a token of its vocabulary appears twice: 'aa'", "aborts")
def token_twice_to_c() -> bytes:
    """Two tokens that differ behind a zero byte, where C does not look."""
    return crafted({"tokenizer.ggml.tokens": (ARRAY, STRING, [*TOKENS[:-2], "aa\0b", "aa\0c"])})


@hostile("its vocabulary has no token for some bytes", "aborts")
def bytes_without_tokens() -> bytes:
    """A SentencePiece vocabulary that cannot write `x`: the prompt takes the process down."""
    return spoken(["<unk>", "<s>", "</s>", "<0x0A>", "▁"], model=(STRING, "llama"))


@hostile("its vocabulary has neither a token for each byte nor one for what it does not know", "aborts")
def bytes_unknown_to_rwkv() -> bytes:
    """A vocabulary of RWKV that cannot write `x`, nor say that it does not know it."""
    return spoken(["\\x00", "\\n", "a", "b"], model=(STRING, "rwkv"))


@hostile("'tokenizer.ggml.model' holds a zero byte", "aborts")
def vocabulary_behind_a_zero_byte() -> bytes:
    """The same, of a kind `llama\\0x`, which C takes for `llama` and a check for none that it knows."""
    return spoken(["<unk>", "<s>", "</s>", "<0x0A>", "▁"], model=(STRING, "llama\0x"))


@hostile("its tokenizer.ggml.model lies where it cannot be checked", "aborts")
def vocabulary_behind_long_texts() -> bytes:
    """The same, of a kind that is said behind more texts than a reader takes into memory."""
    texts = {f"text.{i}": (STRING, "x" * (1 << (45 - i) // 2)) for i in range(46)}
    return spoken(["<unk>", "<s>", "</s>", "<0x0A>", "▁"], **texts, model=(STRING, "llama"))


@hostile("its vocabulary is empty", "refuses")
def vocabulary_of_nothing() -> bytes:
    """A vocabulary of no tokens, and matrices for one."""
    keys = {"tokenizer.ggml.tokens": (ARRAY, STRING, []), "tokenizer.ggml.token_type": (ARRAY, I32, [])}
    return crafted(keys)


@hostile("its vocabulary has no token to begin a text with, as it asks for", "aborts")
def beginning_that_is_no_token() -> bytes:
    """A token to begin with that is asked for and not there."""
    keys = {"add_bos_token": (BOOL, True), "bos_token_id": (U32, 4_000_000), "eos_token_id": (U32, 0)}
    return spoken(["<a>", "<b>", "x", "y"], **keys)


@hostile("its vocabulary has no token to end a text with, as it asks for", "aborts")
def end_that_is_no_token() -> bytes:
    """A token to end with that is asked for and not there."""
    keys = {"add_eos_token": (BOOL, True), "bos_token_id": (U32, 0), "eos_token_id": (U32, 4_000_000)}
    return spoken(["<a>", "<b>", "x", "y"], **keys)


@hostile("its table of characters leads out of itself", "aborts")
def characters_that_lead_astray() -> bytes:
    """A table for normalizing characters with room for some: the first other one takes the process down."""
    table = struct.pack("<I", 4 * 64) + bytes(4 * 64) + b"a\0"
    keys = {"model": (STRING, "t5"), "precompiled_charsmap": (ARRAY, U8, list(table))}
    keys |= {"scores": (ARRAY, F32, [0.0] * 260), "unknown_token_id": (U32, 0), "add_eos_token": (BOOL, False)}
    return spoken(sentencepiece(["x"]), **keys)


@hostile("precompiled_charsmap too small", "refuses", code=1)
def characters_cut_short() -> bytes:
    """The same table, of three bytes."""
    keys = {"model": (STRING, "t5"), "precompiled_charsmap": (ARRAY, U8, [1, 2, 3])}
    return spoken(sentencepiece(["x"]), **keys)


@hostile("Index out of array bounds for scores (5 < 267)", "refuses", code=1)
def scores_missing() -> bytes:
    """Five scores for 267 tokens."""
    return crafted({"tokenizer.ggml.scores": (ARRAY, F32, [0.0] * 5)})


@hostile("Index out of array bounds for toktypes (3 < 267)", "refuses", code=1)
def kinds_missing() -> bytes:
    """Kinds of three of 267 tokens."""
    return crafted({"tokenizer.ggml.token_type": (ARRAY, I32, [1] * 3)})


@hostile("invalid gguf type for tokenizer.ggml.token_type", "refuses", code=1)
def kinds_of_another_type() -> bytes:
    """Kinds of tokens of 8 bits, read as 32 bits each."""
    return crafted({"tokenizer.ggml.token_type": (ARRAY, U8, [1] * len(TOKENS))})


@hostile("invalid gguf type for tokenizer.ggml.tokens", "refuses", code=1)
def tokens_that_are_numbers() -> bytes:
    """A vocabulary of numbers."""
    return crafted({"tokenizer.ggml.tokens": (ARRAY, U32, list(range(len(TOKENS))))})


@hostile("cannot find tokenizer vocab in model file", "refuses", code=1)
def tokens_missing() -> bytes:
    """A model of no vocabulary that says that it has one."""
    return crafted({"tokenizer.ggml.tokens": None})


@hostile("cannot find tokenizer merges in model file", "refuses", code=1)
def merges_missing() -> bytes:
    """A vocabulary of merges without merges."""
    return crafted({"tokenizer.ggml.merges": None})


@hostile("unknown tokenizer: 'abacus'", "refuses", code=1)
def vocabulary_of_an_unknown_kind() -> bytes:
    """A kind of vocabulary that does not exist."""
    return crafted({"tokenizer.ggml.model": (STRING, "abacus")})


@hostile("unknown pre-tokenizer type: 'abacus'", "refuses", code=1)
def words_of_an_unknown_kind() -> bytes:
    """A way of cutting texts into words that does not exist."""
    return crafted({"tokenizer.ggml.pre": (STRING, "abacus")})


@hostile("key tokenizer.ggml.add_bos_token has wrong type u32", "refuses", code=1)
def flag_of_another_type() -> bytes:
    """A flag of the vocabulary that is a number."""
    return crafted({"tokenizer.ggml.add_bos_token": (U32, 1)})


@hostile("has no vocabulary, so it cannot read or write text", "refuses", code=5)
def vocabulary_of_dummies() -> bytes:
    """A model without a vocabulary, for which llama.cpp would make 4,294,967,295 tokens up."""
    return crafted({"tokenizer.ggml.model": (STRING, "none"), "{a}.vocab_size": (U32, 2**32 - 1)})


@hostile("'tokenizer.chat_template' holds a zero byte", "loads")
def template_behind_a_zero_byte() -> bytes:
    """A chat template of two halves: C runs the first, who looks at it reads both."""
    return crafted({"tokenizer.chat_template": (STRING, "{{ messages[0].content }}\0{# harmless #}")})
