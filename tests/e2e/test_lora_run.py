"""Adapters at work: what a model computes with one is what the merged weights compute."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from owm.convert.conversion import convert_folder
from owm.convert.lora import execute_adapter, plan_adapter
from owm.engine.adapter import AdapterChoice
from owm.engine.model import Model
from owm.errors import UsageError
from owm.native.logits import LogitReader
from support.run import Output, run_here
from support.tiny_adapter import MODULES, change, write_adapter, write_peft_adapter
from support.tiny_checkpoint import write_tiny_checkpoint

TOKENS = list(range(10, 58))


@dataclass(frozen=True)
class Files:
    """A model, two adapters of it, and the model with one, with half of one and with both merged into it."""

    model: Path
    first: Path
    second: Path
    merged: Path
    half: Path
    both: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("lora")
    random = np.random.default_rng(3)
    weights = {
        module: (random.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
        for module, shape in MODULES.items()
    }

    def model(name: str, scales: dict[int, float]) -> Path:
        tensors = {
            f"{module}.weight": weight + sum(scale * change(module, seed=seed) for seed, scale in scales.items())
            for module, weight in weights.items()
        }
        checkpoint = write_tiny_checkpoint(folder / name, tensors=tensors)
        convert_folder(checkpoint, folder / f"{name}.gguf", type="f32", check=False)
        return folder / f"{name}.gguf"

    plain = model("model", {})
    adapters = []
    for seed in (1, 2):
        peft = write_peft_adapter(folder / f"peft{seed}", seed=seed)
        adapters.append(folder / f"adapter{seed}.gguf")
        execute_adapter(plan_adapter(peft, folder / "model"), [adapters[-1]])
    return Files(plain, *adapters, model("merged", {1: 1.0}), model("half", {1: 0.5}), model("both", {1: 1.0, 2: -0.5}))


def logits(path: Path, *adapters: AdapterChoice) -> np.ndarray:
    with Model([path]) as model:
        assert model.load_adapters(adapters) == ()
        with LogitReader(model.native, n_ctx=64, n_threads=1) as reader:
            return np.concatenate([rows.copy() for _, rows in reader.read(TOKENS, 0, len(TOKENS))])


def test_logits_are_those_of_the_merged_weights(files: Files) -> None:
    with_adapter = logits(files.model, AdapterChoice(files.first))
    merged = logits(files.merged)
    assert np.abs(with_adapter - merged).max() < 1e-3 * np.abs(merged).max()
    assert (with_adapter.argmax(1) == merged.argmax(1)).all()
    assert np.abs(with_adapter - logits(files.model)).max() > 1


def test_a_scale_scales_and_none_is_no_adapter(files: Files) -> None:
    half, merged = logits(files.model, AdapterChoice(files.first, 0.5)), logits(files.half)
    assert np.abs(half - merged).max() < 1e-3 * np.abs(merged).max()
    np.testing.assert_array_equal(logits(files.model, AdapterChoice(files.first, 0)), logits(files.model))


def test_adapters_add_up(files: Files) -> None:
    found = logits(files.model, AdapterChoice(files.first), AdapterChoice(files.second, -0.5))
    merged = logits(files.both)
    assert np.abs(found - merged).max() < 1e-3 * np.abs(merged).max()
    assert np.abs(found - logits(files.merged)).max() > 1


def test_one_that_does_not_fit_leaves_the_model_as_it_was(files: Files, tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    wrong = write_adapter(
        tmp_path / "wrong.gguf",
        {f"{name}.lora_a": np.ones((4, 32), np.float32), f"{name}.lora_b": np.ones((64, 4), np.float32)},
    )
    with Model([files.model]) as model:
        with pytest.raises(UsageError, match="made for another model"):
            model.load_adapters([AdapterChoice(files.first), AdapterChoice(wrong)])
        with LogitReader(model.native, n_ctx=64, n_threads=1) as reader:
            found = np.concatenate([rows.copy() for _, rows in reader.read(TOKENS, 0, len(TOKENS))])
    np.testing.assert_array_equal(found, logits(files.model))


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Output]:
    """Run the command greedily."""
    monkeypatch.setattr(sys, "stdin", None)
    greedy = ["--raw", "--temp", "0", "-n", "24", "--ignore-eos", "--threads", "1", "--json"]
    return lambda model, *args: run_here(capsys, "run", model, "the tin on a", *greedy, *args)


def test_the_answer_is_that_of_the_merged_weights(files: Files, answer: Callable[..., Output]) -> None:
    def text(model: Path, *args: str) -> str:
        done = answer(model, *args)
        assert done.exit_code == 0, done.stderr
        return str(done.json["text"])

    first, second = ["--lora", str(files.first)], ["--lora", f"{files.second}=-0.5"]
    assert text(files.model, *first) == text(files.merged) != text(files.model)
    assert text(files.model, *first, *second) == text(files.both) != text(files.merged)
    assert text(files.model, "--lora", f"{files.first}=0") == text(files.model)


def test_an_adapter_for_another_model_is_refused(files: Files, tmp_path: Path, answer: Callable[..., Output]) -> None:
    name = "blk.7.attn_q.weight"
    factors = {f"{name}.lora_a": np.ones((4, 64), np.float32), f"{name}.lora_b": np.ones((64, 4), np.float32)}
    other = write_adapter(tmp_path / "qwen.gguf", factors, architecture="qwen2")
    deeper = write_adapter(tmp_path / "deeper.gguf", factors)
    for adapter, said in (
        (other, "the adapter qwen.gguf was made for a qwen2 model, model.gguf is a llama model"),
        (deeper, "the adapter deeper.gguf adapts blk.7.attn_q.weight, which model.gguf does not have"),
    ):
        done = answer(files.model, "--lora", str(adapter))
        assert (done, done.exit_code) == ("", 2)
        assert said in done.stderr


def test_a_scale_that_is_no_number_is_refused(files: Files, answer: Callable[..., Output]) -> None:
    done = answer(files.model, "--lora", f"{files.first}=nan")
    assert (done, done.exit_code) == ("", 2)
    assert "finite" in done.stderr
