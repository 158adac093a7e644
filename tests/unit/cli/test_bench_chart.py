"""Bars and pictures of results: as wide as there is room, and names that cover nothing."""

import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from owm.bench.record import Record
from owm.cli import bench_plot, plotting
from owm.cli.bench_chart import PIPE_COLUMNS, bar_columns, chart
from owm.errors import StoreError

THEIRS = Path(__file__).parents[1] / "bench" / "llama_bench" / "with_md.json"
ONE = Record.of_members(json.loads(THEIRS.read_text())[0])


def result(model: str, rate: float, *, is_answer: bool = True, **changes: Any) -> Record:
    work: dict[str, Any] = (
        {"n_prompt": 0, "n_gen": 128, "test": "tg128"} if is_answer else {"n_prompt": 512, "test": "pp512"}
    )
    return replace(ONE, model=model, avg_ts=rate, samples_ts=(rate,), **work, **changes)


def graded(n: int) -> list[Record]:
    """Results of models of nearly the same size and quality."""
    return [
        result(
            f"a-model-with-a-name-Q{i}", 50.0 + i, model_size=100_000_000 + 400_000 * i, quality_reference="best",
            kld=0.01 + 0.0002 * i, kld_margin=0.0005, perplexity=20.0 + i, top1_agreement=0.9,
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [40, 60, 100, 200])
def test_bars_have_the_width_that_there_is(columns: int) -> None:
    records = [result("smollm2:135m:Q4_1", 100.0), result("acme/a-model-with-quite-a-long-name-GGUF:Q4_K_M", 25.0)]
    lines = chart(records, columns)
    assert all(len(line) <= columns for line in lines)
    bars = [line.count("█") for line in lines if "█" in line]
    assert len(bars) == 2
    assert bars[0] >= 16
    assert bars[1] == pytest.approx(bars[0] / 4, abs=1)
    assert [line.split()[-2:] for line in lines if "█" in line] == [["100.00", "t/s"], ["25.00", "t/s"]]


def test_a_name_that_is_too_wide_keeps_its_end() -> None:
    lines = chart([result("x" * 80, 1.0, n_depth=4096)], 40)
    assert lines[0].endswith("x tg128")
    assert len(lines[0]) == 40


def test_wide_letters_and_steering_ones_break_no_line() -> None:
    from rich.cells import cell_len

    lines = chart([result("模型\x1b[31m", 10.0), result("small", 5.0)], 60)
    assert all(cell_len(line) <= 60 for line in lines)
    assert "\x1b" not in "".join(lines)


def test_prompts_and_answers_have_a_scale_each() -> None:
    bars = [line.count("█") for line in chart([result("m", 5000.0, is_answer=False), result("m", 50.0)], 80)]
    assert bars[0] == bars[1] > 16


def test_a_pipe_has_a_width_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert bar_columns(io.StringIO()) == PIPE_COLUMNS


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_picture_has_all_models_and_leaves_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot.{suffix}"
    assert bench_plot.draw(graded(4), path) == 4
    first = path.read_bytes()
    assert first.startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")
    bench_plot.draw(graded(4), path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]
    if suffix == "svg":
        assert [f"a-model-with-a-name-Q{i}, {50 + i} t/s" in texts(path) for i in range(4)] == [True] * 4
        assert "mean KL divergence from the reference, nats a token" in texts(path)
        assert "size in MiB; area of a mark: tg128, tokens per second" in texts(path)


def texts(path: Path) -> list[str]:
    return ["".join(each.itertext()) for each in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("n", [2, 8, 14])
def test_names_do_not_cover_each_other(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    name = plotting._name

    def noting(*args: Any) -> list[Any]:
        found.extend(name(*args))
        return found

    monkeypatch.setattr(plotting, "_name", noting)
    bench_plot.draw(graded(n), tmp_path / "plot.svg")
    assert len(found) == n
    for i, one in enumerate(found):
        assert not any(one.overlaps(other) for other in found[:i])


def test_a_reference_is_drawn_where_a_logarithm_has_no_place_for_it(tmp_path: Path) -> None:
    records = [
        result("best", 10.0, kld=0.0, perplexity=9.0, top1_agreement=1.0, quality_reference="best", model_size=300),
        result("good", 20.0, kld=0.001, perplexity=9.1, top1_agreement=0.99, quality_reference="best", model_size=200),
        result("poor", 30.0, kld=0.1, perplexity=10.0, top1_agreement=0.8, quality_reference="best", model_size=100),
    ]
    bench_plot.draw(records, tmp_path / "plot.svg")
    assert "best (reference), 10 t/s" in texts(tmp_path / "plot.svg")


def test_without_quality_rates_are_drawn_over_sizes(tmp_path: Path) -> None:
    records = [result("a", 10.0, is_answer=False), result("a", 1.0), result("b", 2.0, model_size=5 << 30)]
    assert bench_plot.draw(records, tmp_path / "plot.svg") == 2
    assert {"a", "b", "size in GiB", "tg128, tokens per second"} <= set(texts(tmp_path / "plot.svg"))


def test_of_several_settings_the_fastest_is_drawn_beside_the_quality() -> None:
    records = [replace(record, avg_ts=rate) for record in graded(2) for rate in (10.0, 30.0, 20.0)]
    points, *_ = bench_plot.points_of(records)
    assert [point.rate for point in points] == [30.0, 30.0]


def test_of_a_model_alone_its_perplexity_is_drawn() -> None:
    points, _, title, _ = bench_plot.points_of([result("m", 5.0, perplexity=12.0)])
    assert ([point.y for point in points], title) == ([12.0], "perplexity")


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "plot.svg").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        bench_plot.draw(graded(2), tmp_path / "plot.svg")
    assert [each.name for each in tmp_path.iterdir()] == ["plot.svg"]
