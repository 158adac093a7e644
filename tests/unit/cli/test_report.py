"""The report: what beats what, in words; a table that leaves out what was not measured; a plot without a display."""

import json
import os
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.cli.output import Output
from owm.cli.report import Measured, beaten_by, check_plot, plot, records, say
from owm.errors import StoreError, UsageError

ROWS = [
    Measured("Q8_0", 145_000_000, 8.62, 1.2, 0.0012, (0.0012, 0.0012), 16.612, 0.985),
    Measured("Q4_0", 91_900_000, 5.46, 3.1, 0.142, (0.136, 0.148), 19.2, 0.82),
    Measured("Q4_K_S", 102_000_000, 6.06, 9.0, 0.043, (0.041, 0.045), 17.1, 0.901),
    Measured("own", 98_500_000, 5.85, 12.0, 0.034, (0.0325, 0.0355), 16.95, 0.911),
    Measured("Q4_K_M", 105_500_000, 6.27, 200.0, 0.0345, (0.0323, 0.0357), 16.9, 0.912),
]


def test_the_table_says_what_to_keep(capsys: pytest.CaptureFixture[str]) -> None:
    say(ROWS, Output())
    assert capsys.readouterr().err.splitlines() == [
        "TYPE        SIZE   BPW        TIME              KLD     PPL   TOP-1  PARETO FRONT",
        "Q4_0    87.6 MiB  5.46       3.1 s    0.142 ± 0.006  19.200  82.0 %  on it",
        "own     93.9 MiB  5.85      12.0 s  0.0340 ± 0.0015  16.950  91.1 %  on it",
        "Q4_K_S  97.3 MiB  6.06       9.0 s  0.0430 ± 0.0020  17.100  90.1 %  beaten by own",
        "Q4_K_M   101 MiB  6.27  3 min 20 s  0.0345 ± 0.0022  16.900  91.2 %  perhaps beaten by own",
        "Q8_0     138 MiB  8.62       1.2 s          0.00120  16.612  98.5 %  on it",
    ]


def test_columns_of_nothing_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    say([Measured("Q4_K_M", 105_500_000, 6.27, 9.4)], Output())
    assert capsys.readouterr().err.split() == [
        "TYPE",
        "SIZE",
        "BPW",
        "TIME",
        "Q4_K_M",
        "101",
        "MiB",
        "6.27",
        "9.4",
        "s",
    ]
    say([Measured("a", 10, 1.0, kld=0.5), Measured("b", 20, 2.0), Measured("c", 30, 3.0, kld=0.1)], Output())
    assert [line.split("  ")[-1].strip() for line in capsys.readouterr().err.splitlines()] == [
        "PARETO FRONT", "on it", "not measured", "on it",
    ]  # fmt: skip


def test_the_table_is_talk(capsys: pytest.CaptureFixture[str]) -> None:
    say(ROWS, Output())
    assert capsys.readouterr().out == ""
    say(ROWS, Output(quiet=True))
    assert capsys.readouterr().err == ""


def test_json_has_the_figures_themselves() -> None:
    first = json.loads(json.dumps(records(ROWS)))[2]
    assert first == {
        "label": "Q4_K_S", "size_bytes": 102_000_000, "bits_per_weight": 6.06, "seconds": 9.0, "kld_mean": 0.043,
        "kld_interval": [0.041, 0.045], "perplexity": 17.1, "top1_agreement": 0.901, "is_on_pareto_front": False,
    }  # fmt: skip
    assert records([Measured("a", 1, 1.0)])[0]["is_on_pareto_front"] is None


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=8))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    rows = [Measured(str(index), size, 1.0, kld=float(kld)) for index, (size, kld) in enumerate(points)]
    front = {(size, kld) for size, kld in points if not any(
        (a <= size and b <= kld and (a, b) != (size, kld)) for a, b in points)}  # fmt: skip
    for row, point in zip(rows, points, strict=True):
        other = beaten_by(row, rows)
        assert (other is None) == (point in front)
        if other is not None:  # named is one of the front
            assert beaten_by(other, rows) is None


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_plot_needs_no_display_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = tmp_path / f"plot.{suffix}"
    title = "a model $x_1$ \x1b[31m 模型"  # no mathematics, no terminal sequences, letters that the font lacks
    plot(ROWS, path, title=title)
    first = path.read_bytes()
    assert first.startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")
    plot(ROWS, path, title=title)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert "MPLCONFIGDIR" not in os.environ
    if suffix == "svg":
        text = first.decode()
        assert all(f">{row.label}</text>" in text for row in ROWS)
        assert "\x1b" not in text
        assert "$x_1$" in text


def test_a_plot_of_one_and_of_none(tmp_path: Path) -> None:
    plot([Measured("same", 5 << 30, 16.0, kld=0.0), Measured("unknown", 1, 1.0)], tmp_path / "one.svg", title="")
    text = (tmp_path / "one.svg").read_text()
    assert "size in GiB" in text
    assert "unknown" not in text
    with pytest.raises(UsageError, match="nothing to plot"):
        plot([Measured("unknown", 1, 1.0)], tmp_path / "none.svg", title="")


def test_a_plot_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    for wrong in ("plot.pdf", "plot", "nowhere/plot.svg"):
        with pytest.raises(UsageError):
            check_plot(tmp_path / wrong)
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(UsageError, match="folder"):
        check_plot(tmp_path / "folder.svg")


def test_a_disk_that_takes_no_more_is_told(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreError, match="File too large"):
            plot(ROWS, tmp_path / "plot.svg", title="")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
