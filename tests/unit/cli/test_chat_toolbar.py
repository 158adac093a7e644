"""The line under the prompt, in windows of all widths."""

import pytest

from owm.cli.chat.toolbar import Status, toolbar_text
from owm.cli.wrapping import columns

FULL = Status(model="smollm2:135m:Q4_K_M", n_used=3400, n_ctx=8192, rate=47.31, branch="fork-1", n_branches=2)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (200, "smollm2:135m:Q4_K_M  ████░░░░░░ 3,400/8,192  47 t/s  fork-1"),
        (100, "smollm2:135m:Q4_K_M  ████░░░░░░ 3,400/8,192  47 t/s  fork-1"),
        (60, "smollm2:135m:Q4_K_M  ████░░░░░░ 3,400/8,192  47 t/s  fork-1"),
        (58, "smollm2:135m:Q4_K_M  3,400/8,192  47 t/s  fork-1"),
        (45, "smollm2:135m:Q4_K_M  3,400/8,192  47 t/s"),
        (30, "smollm2:135m:Q4_K_M"),
        (10, "smollm2:1…"),
    ],
)
def test_parts_that_do_not_fit_are_left_out_from_the_right(width: int, line: str) -> None:
    assert toolbar_text(FULL, width) == line


@pytest.mark.parametrize("width", range(1, 130))
def test_it_never_is_wider_than_the_window(width: int) -> None:
    wide = Status(model="模型" * 20, note="loading", n_used=1, n_ctx=131072, rate=3.2, branch="支" * 30, n_branches=3)
    for status in (FULL, wide, Status(), Status(model="x" * 100)):
        assert columns(toolbar_text(status, width)) <= width


def test_a_long_model_name_leaves_room_for_the_meter_at_60_columns() -> None:
    status = Status(model="someone/a-very-long-name-of-a-model-that-goes-on:Q4_K_M", n_used=120, n_ctx=8192)
    assert toolbar_text(status, 60).endswith("… █░░░░░░░░░ 120/8,192".replace("… ", "…  "))


@pytest.mark.parametrize(
    ("n_used", "meter"),
    [(0, "░" * 10), (1, "█" + "░" * 9), (999, "█" * 9 + "░"), (1000, "█" * 10), (1200, "█" * 10)],
)
def test_only_an_empty_context_looks_empty_and_only_a_full_one_full(n_used: int, meter: str) -> None:
    assert toolbar_text(Status(n_used=n_used, n_ctx=1000), 80) == f"{meter} {n_used:,}/1,000"


def test_one_branch_is_not_named() -> None:
    assert toolbar_text(Status(model="m", branch="main"), 80) == "m"


def test_what_is_under_way_stands_beside_the_model() -> None:
    assert toolbar_text(Status(model="m", note="loading"), 80) == "m  loading"


def test_a_slow_rate_has_a_decimal() -> None:
    assert toolbar_text(Status(model="m", rate=3.24), 80) == "m  3.2 t/s"


def test_names_cannot_steer_the_terminal() -> None:
    assert toolbar_text(Status(model="a\x1b[2J\nb"), 80) == "a\\x1b[2J\\nb"
