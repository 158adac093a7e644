"""Calibration texts: the bundled one, files of both kinds, and how they become tokens."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from owm.engine.model import Model
from owm.errors import MalformedFile, StoreError, UsageError
from owm.events import Event
from owm.quality import calibration
from owm.quality.calibration import bundled, read_calibration, tokenize
from support.tiny_gguf import write_tiny_gguf

CHAT = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}
FOLDER = Path(calibration.__file__).parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")]) as opened:
        yield opened


def detokenized(model: Model, tokens: list[int]) -> str:
    return b"".join(model.native.piece(token, special=True) for token in tokens).decode()


def test_the_bundled_text_is_a_few_hundred_kilobytes_of_everything() -> None:
    found = bundled()
    size = sum(len(part.text.encode()) for part in found.parts)
    assert 200_000 < size < 500_000
    assert 10 < sum(bool(part.messages) for part in found.parts) < len(found.parts)
    assert len(found.sha256) == 64


def test_every_source_of_the_bundled_text_is_documented() -> None:
    lines = (FOLDER / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    sources = Counter(json.loads(line)["source"] for line in lines)
    documented = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    assert {source for source in sources if f"| `{source}` |" not in documented} == set()
    assert len(sources) + 1 == documented.count("\n| `")  # and the heading


def test_plain_text_stays_as_it_is_but_for_the_last_line_end(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"a line\r\n<|im_start|> is text here\n\n")
    found = read_calibration(file)
    assert found.name == str(file)
    tokens = tokenize(found, model)
    assert detokenized(model, tokens) == "a line\r\n<|im_start|> is text here\n"
    assert model.native.tokenize("<|im_start|>", add_special=False, parse_special=True)[0] not in tokens


def test_conversations_are_rendered_with_the_models_template(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(f'{json.dumps(CHAT)}\n\n{{"text": "plain\\n"}}\n', encoding="utf-8")
    tokens = tokenize(read_calibration(file), model)
    expected = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>\nplain\n"
    assert detokenized(model, tokens) == expected
    assert model.native.tokenize("<|im_start|>", add_special=False, parse_special=True)[0] == tokens[0]


@pytest.mark.parametrize("template", [None, "{{ raise_exception('only tools') }}"])
def test_without_a_template_that_takes_them_conversations_are_plain(tmp_path: Path, template: str | None) -> None:
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps(CHAT), encoding="utf-8")
    events: list[Event] = []
    with Model([write_tiny_gguf(tmp_path / "tiny.gguf", chat_template=template)]) as model:
        assert detokenized(model, tokenize(read_calibration(file), model, events.append)) == "Why?\n\nBecause."
    assert [("refuses 1 conversations" in str(event)) for event in events] == ([True] if template else [])


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("a.txt", b"", "a.txt holds no text to read"),
        ("a.txt", b" \n\n", "a.txt holds no text to read"),
        ("a.txt", b"abc\xff", "a.txt is no UTF-8 text, byte 3 is none"),
        ("a.jsonl", b"\n", "a.jsonl holds no text to read"),
        ("a.jsonl", b'{"text": "a"}\nnot json', "line 2 is neither a conversation nor a text"),
        ("a.jsonl", b'{"text": 5}', "line 1 is neither"),
        ("a.jsonl", b"[1]", "line 1 is neither"),
        ("a.jsonl", b'{"messages": []}', "line 1 is neither"),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}', "line 1 is neither"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": [1]}]}', "line 1 is neither"),
        ("a.jsonl", b"[" * 100_000, "line 1 is neither"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, cause: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises((UsageError, MalformedFile)) as caught:
        read_calibration(file)
    assert cause in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        read_calibration(tmp_path)
    with pytest.raises(StoreError, match="cannot read"):
        read_calibration(tmp_path / "missing.txt")
