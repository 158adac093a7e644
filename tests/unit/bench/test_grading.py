"""Quality beside speed: what is measured against what, and what is left out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from owm.bench import grading
from owm.bench.case import Subject
from owm.bench.grading import Grade, Graded, grade
from owm.quality import divergence, texts
from support.tiny_gguf import write_tiny_gguf


@pytest.fixture(autouse=True)
def short_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    words = np.random.default_rng(5).choice(["the", "inner", "ton", "at", "on", "thread"], 1500)
    path.write_text(" ".join(words), encoding="utf-8")
    text = texts.read(path)
    monkeypatch.setattr(texts, "bundled", lambda: text)


def subject(tmp_path: Path, name: str, seed: int = 0, **how: object) -> Subject:
    return Subject(name, (write_tiny_gguf(tmp_path / f"{name}.gguf", seed=seed, n_blocks=1, **how),))  # type: ignore[arg-type]


def graded(*subjects: Subject, reference: Subject | None = None) -> tuple[dict[str, Grade], list[str]]:
    notes: list[str] = []
    found = grade(subjects, reference, n_threads=1, note=notes.append)
    return {one.name: each for one, each in found}, notes


def test_figures_are_those_of_owms_own_measurement(tmp_path: Path) -> None:
    first, second = subject(tmp_path, "first"), subject(tmp_path, "second", 1)
    found, notes = graded(second, reference=first)
    figures = divergence.compare(first.files, second.files, n_threads=1)
    assert not notes
    assert found["second"].reference == "first"
    assert found["second"].kld == pytest.approx(figures.kld_mean.value)
    assert found["second"].perplexity == pytest.approx(figures.perplexity.value)
    assert found["second"].top1_agreement == pytest.approx(figures.top1_agreement.value)


def test_the_model_with_the_most_bits_a_weight_is_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [subject(tmp_path, name, seed) for seed, name in enumerate("abc")]
    bits = {"a": 4.0, "b": 16.0, "c": 8.0}
    monkeypatch.setattr(Graded, "bpw", property(lambda self: bits[self.subject.name]))
    found, notes = graded(*models)
    assert not notes
    assert {name: each.reference for name, each in found.items()} == dict.fromkeys("abc", "b")
    best = found["b"]
    assert (best.kld, best.kld_margin, best.top1_agreement) == (0.0, 0.0, 1.0)
    assert best.perplexity > 1
    assert all((found[name].kld or 0) > 0 for name in "ac")


def test_models_that_have_no_room_together_are_measured_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [subject(tmp_path, name, seed) for seed, name in enumerate("abc")]
    together, _ = graded(*models, reference=models[0])
    monkeypatch.setattr(grading, "weights_room", lambda: 0)
    apart, _ = graded(*models, reference=models[0])
    assert apart.keys() == together.keys() == set("abc")
    for name in "bc":
        assert apart[name].kld == pytest.approx(together[name].kld, rel=0.2)


def test_of_one_model_alone_the_perplexity_is_measured(tmp_path: Path) -> None:
    found, notes = graded(subject(tmp_path, "alone"))
    assert not notes
    assert dataclasses.replace(found["alone"], perplexity=2.0) == Grade("", 2.0)
    assert found["alone"].perplexity > 1


def test_a_model_of_another_vocabulary_is_left_out_and_said(tmp_path: Path) -> None:
    first, second = subject(tmp_path, "first"), subject(tmp_path, "second", 1)
    other = subject(tmp_path, "other", metadata={"tokenizer.ggml.pre": "gpt-2"})
    assert Graded(other).vocabulary != Graded(first).vocabulary
    found, notes = graded(second, other, reference=first)
    assert list(found) == ["second"]
    assert notes == ["no quality of other: first has another vocabulary"]
    found, notes = graded(first, second, other)
    assert set(found) == {"first", "second"}
    assert notes == ["no quality of other: no other model here has its architecture and vocabulary"]


def test_a_model_that_cannot_be_measured_costs_the_others_nothing(tmp_path: Path) -> None:
    first, second = subject(tmp_path, "first"), subject(tmp_path, "second", 1)
    third = subject(tmp_path, "third", 2, metadata={"tokenizer.ggml.add_bos_token": True})
    found, notes = graded(second, third, reference=first)
    assert list(found) == ["second"]
    assert notes == ["no quality of third: third.gguf reads the text as other tokens than the reference"]
