"""Progress in a log: a line every few seconds, none for what is quick, and warnings always."""

from collections.abc import Callable

import pytest

from owm.cli.output import Output
from owm.cli.progress import _Log, progress
from owm.events import Advanced, Finished, Started, Warned


def _clock(times: list[float]) -> Callable[[], float]:
    iterator = iter(times)
    return lambda: next(iterator)


def test_a_long_stage_says_share_rate_and_rest(capsys: pytest.CaptureFixture[str]) -> None:
    log = _Log(Output(), clock=_clock([0.0, 0.5, 4.0, 10.0, 11.0, 20.0]))
    log.take(Started("model.gguf", 100 << 20, "bytes"))
    log.take(Advanced("model.gguf", 0))
    log.take(Advanced("model.gguf", 10 << 20))
    log.take(Advanced("model.gguf", 50 << 20))
    log.take(Advanced("model.gguf", 55 << 20))
    log.take(Finished("model.gguf", 20.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["model.gguf: 50% of 100 MiB, 5.00 MiB/s, 10.0 s left", "model.gguf: done in 20.0 s"]


def test_a_resumed_stage_counts_its_rate_from_where_it_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    log = _Log(Output(), clock=_clock([0.0, 0.0, 10.0]))
    log.take(Started("m", 100 << 20, "bytes"))
    log.take(Advanced("m", 50 << 20))
    log.take(Advanced("m", 60 << 20))
    assert "1.00 MiB/s" in capsys.readouterr().err


def test_each_part_has_a_line_and_no_rate_that_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = _Log(Output(), clock=_clock([0.0, 0.0, 2.0, 4.0]))
    log.take(Started("reading the parts", 4, "parts"))
    log.take(Advanced("reading the parts", 0))
    log.take(Advanced("reading the parts", 1, "part 2 of 4"))
    log.take(Advanced("reading the parts", 2, "part 1 of 4"))
    assert capsys.readouterr().err.splitlines() == [
        "reading the parts: 25% of 4 parts, 6.0 s left",
        "reading the parts: 50% of 4 parts, 4.0 s left",
    ]


def test_a_quick_stage_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(Output()) as sink:
        sink(Started("m", 10, "bytes"))
        sink(Advanced("m", 10))
        sink(Finished("m", 0.1))
    assert capsys.readouterr() == ("", "")


def test_quiet_still_warns(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(Output(quiet=True)) as sink:
        sink(Started("m", None, "bytes"))
        sink(Warned("m", "the Hub cannot be reached"))
    assert capsys.readouterr().err == "warning: the Hub cannot be reached\n"
