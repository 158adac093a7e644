"""Texts cut at their tokens: nothing is lost, nothing doubled, no character split."""

from collections.abc import Iterator

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.model import Model
from owm.engine.tokenized import TokenizedText, tokenize
from owm.errors import Unsupported
from support import tiny_gguf
from support.tiny_gguf import write_tiny_gguf


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model([write_tiny_gguf(tmp_path_factory.mktemp("tokenized") / "tiny.gguf")], n_gpu_layers=0)


def of(pieces: list[bytes], text: str) -> TokenizedText:
    return TokenizedText(text, range(len(pieces)), pieces.__getitem__)


@given(st.text(alphabet=st.sampled_from("the in\n.é漢😀<|>_"), max_size=60), st.data())
def test_a_text_is_the_sum_of_its_cuts(model: Model, text: str, data: st.DataObject) -> None:
    tokenized = tokenize(model.native, text)
    k = data.draw(st.integers(0, tokenized.n_tokens))
    for cut in (tokenized.at_or_before(k), tokenized.at_or_after(k)):
        assert tokenized.between(0, cut) + tokenized.between(cut, tokenized.n_tokens) == text
    assert tokenized.at_or_before(k) <= k <= tokenized.at_or_after(k)


def test_control_tokens_are_part_of_the_text(model: Model) -> None:
    tokenized = tokenize(model.native, "the<|im_start|>in")
    assert tokenized.n_tokens == 3
    assert tokenized.between(1, 3) == "<|im_start|>in"


def test_a_boundary_inside_a_character_is_none(model: Model) -> None:
    tokenized = tokenize(model.native, "a漢b")  # three tokens of one byte each
    assert tokenized.n_tokens == 5
    assert [tokenized.at_or_before(k) for k in range(6)] == [0, 1, 1, 1, 4, 5]
    assert [tokenized.at_or_after(k) for k in range(6)] == [0, 1, 4, 4, 4, 5]


def test_a_space_that_the_vocabulary_puts_before_a_text_is_no_part_of_it() -> None:
    tokenized = of([b" the", b" in", "é".encode()[:1], "é".encode()[1:]], "the iné")
    assert [tokenized.between(0, k) for k in (1, 2, 4)] == ["the", "the in", "the iné"]
    assert tokenized.at_or_after(3) == 4


def test_spaces_that_a_control_token_takes_are_kept_in_the_text() -> None:
    tokenized = of([b"in", b"<|end|>", b"on"], "in <|end|>\n on")
    parts = [tokenized.between(k, k + 1) for k in range(3)]
    assert "".join(parts) == "in <|end|>\n on"
    assert [part.strip() for part in parts] == ["in", "<|end|>", "on"]


def test_tokens_of_another_text_are_refused() -> None:
    with pytest.raises(Unsupported, match="vocabulary changes texts"):
        of([b"in", b"on"], "IN ON")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two\nthree. four\n\nfive\nsix", "one two\nthree. four\n\n"),
        ("one two. three four\nfive six", "one two. three four\n"),
        ("one two. three four five", "one two."),
        ("onetwo three", "onetwo"),
    ],
)
def test_the_most_natural_cut_is_after_a_paragraph_then_a_line_a_sentence_a_word(text: str, expected: str) -> None:
    tokenized = of([bytes([byte]) for byte in text.encode()], text)
    cut = tokenized.natural(1, len(text) - 1, 1)
    assert cut is not None
    assert text[:cut].rstrip(" ") == expected.rstrip(" ")


def test_among_equal_cuts_the_nearest_is_taken() -> None:
    text = "a\nb\nc\nd\ne\n"
    tokenized = of([bytes([byte]) for byte in text.encode()], text)
    assert tokenized.natural(1, 9, 5) in (4, 6)
    assert tokenized.natural(7, 9, 5) == 8


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """A model with a SentencePiece vocabulary, which puts a space before every text."""
    kinds = gguf.TokenType
    pieces = ["▁", "t", "h", "e", "i", "n", "▁t", "▁th", "▁the", "in", "▁in", ".", "x"]
    words = [("<unk>", kinds.UNKNOWN), ("<|im_start|>", kinds.CONTROL), ("<|im_end|>", kinds.CONTROL)]
    words += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)] + [(piece, kinds.NORMAL) for piece in pieces]
    metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_gguf, "vocabulary", lambda: ([word for word, _ in words], [int(kind) for _, kind in words]))
        path = write_tiny_gguf(tmp_path_factory.mktemp("spm") / "spm.gguf", metadata=metadata)
    with Model([path], n_gpu_layers=0) as model:
        yield model


def test_a_vocabulary_that_begins_with_a_space_cuts_the_text_as_it_is(sentencepiece: Model) -> None:
    native = sentencepiece.native
    tokens = native.tokenize("the in", add_special=False, parse_special=True)
    assert [native.piece(token, special=True) for token in tokens] == [b" the", b" in"]
    tokenized = tokenize(native, "the in")
    assert [tokenized.between(0, k) for k in range(tokenized.n_tokens + 1)] == ["", "the", "the in"]


@given(st.text(alphabet=st.sampled_from("then x\n.é漢"), min_size=1, max_size=40), st.data())
def test_a_text_is_the_sum_of_its_cuts_in_sentencepiece_too(
    sentencepiece: Model, text: str, data: st.DataObject
) -> None:
    tokenized = tokenize(sentencepiece.native, text)
    k = tokenized.at_or_before(data.draw(st.integers(0, tokenized.n_tokens)))
    assert tokenized.between(0, k) + tokenized.between(k, tokenized.n_tokens) == text


@given(st.text(alphabet=st.sampled_from("then x\n.é漢<>|"), max_size=20))
def test_what_continues_a_text_is_nothing_but_itself(sentencepiece: Model, text: str) -> None:
    """A label or the beginning of an answer has no space before it that was not written."""
    tokens = sentencepiece.native.continuation(text)
    assert b"".join(sentencepiece.native.piece(token, special=False) for token in tokens) == text.encode()
