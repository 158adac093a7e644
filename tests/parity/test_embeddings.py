"""The proof of embeddings: text in, vector out, by owm and by transformers, tokenizers and pooling included."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from owm.convert.conversion import convert_folder
from owm.engine.model import Model
from owm.library.embedding import embed
from parity.cases import CASES
from parity.cases.bert import pooling
from parity.checkpoints import make
from parity.vocabularies import Shelf

MIN_COSINE = 0.9999
MAX_DIFFERENCE = (
    1e-4  # between a text among others and alone: llama.cpp looks GELU up in 16 bits, strong weights amplify
)
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "How much memory does a model need?",
    "A model file is hostile input: its names, its metadata, its chat template and its output.",
    "Où est-ce? Straße, naïve, 123 4567",
    "dog",
    "def main() -> int:\n    return 0",
    "Nothing is lost silently. " * 8,
]
MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}


@dataclass(frozen=True)
class Subject:
    """A model file, and the vectors that transformers makes with its checkpoint."""

    gguf: Path
    expected: np.ndarray


@pytest.fixture(
    scope="module",
    params=[
        ("bert-plain", "cls"),
        ("bert-plain", "mean"),
        ("bert-xlm", "cls"),
        ("bert-nomic", "mean"),
        ("qwen3-plain", "last"),
        ("qwen3-tied", "mean"),
    ],
    ids="-".join,
)
def subject(request: pytest.FixtureRequest, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Make a checkpoint that says how it pools, convert it, and embed the texts with transformers."""
    case_id, mode = request.param
    case = next(case for case in CASES if case.id == case_id)
    folder = tmp_path_factory.mktemp("embedding")
    checkpoint = make(replace(case, files=pooling(**{MODES[mode]: True})), shelf, folder / "checkpoint").folder
    if mode == "last":
        _end_texts(checkpoint)
    convert_folder(checkpoint, folder / "model.gguf", type="f32")
    return Subject(folder / "model.gguf", np.stack([_vector(checkpoint, case, text, mode) for text in TEXTS]))


def _end_texts(checkpoint: Path) -> None:
    """Let the tokenizer put an end after each text, whose vector is the text's: as Qwen3-Embedding does."""
    path = checkpoint / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    end = next(token for token in tokenizer["added_tokens"] if token["content"] == "<|endoftext|>")
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))
    text, special = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end["content"], "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [text, special],
        "pair": [text, special, {"Sequence": {"id": "B", "type_id": 1}}, special],
        "special_tokens": {end["content"]: {"id": end["content"], "ids": [end["id"]], "tokens": [end["content"]]}},
    }
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    settings["eos_token"] = end["content"]
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _vector(checkpoint: Path, case: Any, text: str, mode: str) -> np.ndarray:
    """Embed a text with transformers, in f32, pooled by hand."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(text).ids
    cls = getattr(transformers, (case.made_by or case.hf).replace("ForCausalLM", "Model"))
    model = cls.from_pretrained(checkpoint, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.inference_mode():
        rows = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy().astype(np.float64)
    vector = {"mean": rows.mean(0), "cls": rows[0], "last": rows[-1]}[mode]
    return np.asarray(vector / np.linalg.norm(vector))


def test_vectors_are_those_of_transformers(subject: Subject) -> None:
    with Model([subject.gguf]) as model:
        found = embed(model, TEXTS, n_threads=1)
    cosines = (found * subject.expected).sum(1)
    assert cosines.min() >= MIN_COSINE, cosines
    others = subject.expected @ subject.expected.T - 2 * np.eye(len(TEXTS))
    assert others.max() < MIN_COSINE, "the texts have the same vector"


def test_a_text_among_others_has_the_vector_that_it_has_alone(subject: Subject) -> None:
    with Model([subject.gguf]) as model:
        together = embed(model, TEXTS, n_threads=1)
        alone = np.stack([embed(model, text, n_threads=1) for text in TEXTS])
    assert np.abs(together - alone).max() <= MAX_DIFFERENCE
