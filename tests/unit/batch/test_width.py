"""How many rows at a time: what measuring tries, and what it makes of its measurements."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from owm.batch import width
from owm.batch.width import Width, measure_width
from owm.engine.model import Model
from owm.engine.tuning import Tuning
from support.tiny_gguf import write_tiny_gguf
from support.tiny_recurrent import write_tiny_mamba
from support.tiny_sliding import write_tiny_falcon_h1, write_tiny_gemma3

ONE_THREAD = Tuning(n_threads=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model([write_tiny_gguf(tmp_path_factory.mktemp("m") / "tiny.gguf", n_blocks=1)]) as opened:
        yield opened


@pytest.mark.parametrize(("most", "tried"), [(1, []), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])])
def test_widths_are_tried_up_to_the_most_there_can_be(model: Model, most: int, tried: list[int]) -> None:
    found = measure_width(model, [5], most=most, tuning=ONE_THREAD)
    assert [*found.rates] == tried
    assert found.n in (tried or [1])
    assert all(rate > 0 for rate in found.rates.values())


def _with_rates(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
    monkeypatch.setattr(width, "_measure", lambda context, prefix, widths: seconds)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),  # nothing is won
        ({1: 1.0, 2: 1.0, 4: 1.0}, 4),
        ({1: 1.0, 2: 1.2, 4: 2.39}, 2),  # what is won is not worth it
        ({1: 1.0, 2: 1.2, 4: 9.0}, 2),
        ({}, 1),
    ],
)
def test_the_smallest_width_near_the_best_rate_is_taken(
    model: Model, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], expected: int
) -> None:
    _with_rates(monkeypatch, seconds)
    assert measure_width(model, [5, 6], most=4, tuning=ONE_THREAD).n == expected


def test_what_would_take_too_long_is_not_tried(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = width._decode

    def slow(context: object, tokens: object) -> None:
        time.sleep(0.04)
        decode(context, tokens)  # type: ignore[arg-type]

    monkeypatch.setattr(width, "_decode", slow)
    monkeypatch.setattr(width, "SECONDS", 0.4)
    began = time.monotonic()
    found = measure_width(model, [5], most=128, tuning=ONE_THREAD)
    assert 1 <= len(found.rates) < 6, "that is what there was time for"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("write", [write_tiny_gemma3, write_tiny_falcon_h1, write_tiny_mamba])
def test_models_that_forget_are_measured_too(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    with Model([write(tmp_path / "m.gguf")]) as model:
        assert [*measure_width(model, [5, 6, 7], most=4, tuning=ONE_THREAD).rates] == [1, 2, 4]


def test_it_says_what_was_measured() -> None:
    assert str(Width(2, {1: 10.4, 2: 19.6})) == "2 at a time (measured tokens/s by width: 1: 10, 2: 20)"
