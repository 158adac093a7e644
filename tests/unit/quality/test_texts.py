"""The evaluation text, and how a text is cut."""

import re
from pathlib import Path

import pytest

from owm.engine.model import Model
from owm.errors import ModelNotFound, UsageError
from owm.quality import calibration, texts
from support.tiny_gguf import write_tiny_gguf


def _lines(text: str) -> set[str]:
    return {line.strip() for line in re.split(r"[\n.]", text) if len(line.strip()) > 60}


def test_the_bundled_text_is_large_of_many_kinds_and_none_of_the_calibration_text() -> None:
    text = texts.bundled()
    assert 400_000 < len(text.content) < 700_000
    assert len(text.sha256) == 64
    folder = Path(texts.__file__).with_name("evaluation")
    sources = (folder / "SOURCES.md").read_text(encoding="utf-8")
    names = sorted(path.name for path in folder.glob("*.txt"))
    assert len(names) >= 8
    assert all(name in sources for name in names)
    for part in calibration.bundled().parts:
        read = "\n".join([part.text, *(str(message["content"]) for message in part.messages)])
        assert not _lines(read) & _lines(text.content), read[:80]


def test_a_text_is_cut_as_llama_perplexity_cuts_it(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("the inner ton " * 40 + "\n", encoding="utf-8")
    text = texts.read(tmp_path / "text")
    plain = write_tiny_gguf(tmp_path / "plain.gguf")
    with_bos = write_tiny_gguf(tmp_path / "bos.gguf", metadata={"tokenizer.ggml.add_bos_token": True})
    with Model([plain]) as model, Model([with_bos]) as other:
        tokens = model.native.tokenize(text.content[:-1], add_special=False, parse_special=False)
        chunks = texts.cut(text, model.native, 16)
        begun = texts.cut(text, other.native, 16)
        bos = other.native.bos
    assert chunks.tokens == tuple(tuple(tokens[i : i + 16]) for i in range(0, len(tokens) - 15, 16))
    assert (chunks.first, chunks.end, chunks.n_scored) == (8, 15, 7)
    assert list(chunks.inputs(1)) == tokens[16:32]
    assert list(chunks.targets(1)) == tokens[25:32]
    assert list(begun.inputs(1)) == [bos, *tokens[16:31]]  # the text itself begins with a BOS too
    assert list(begun.targets(1)) == tokens[24:31]


def test_texts_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such file"):
        texts.read(tmp_path / "missing")
    (tmp_path / "short").write_text("the end", encoding="utf-8")
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf")]) as model:
        short = texts.read(tmp_path / "short")
        with pytest.raises(UsageError, match="too short: 5 tokens, at least 1024"):
            texts.cut(short, model.native)
        with pytest.raises(UsageError, match="at least 8"):
            texts.cut(short, model.native, 4)
