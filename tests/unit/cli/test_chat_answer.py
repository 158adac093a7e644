"""Answers on the screen while they are made: thoughts collapse, Markdown streams, nothing steers the terminal."""

import re

import pytest

from owm.cli.chat.answer import AnswerView, Manner, thought_line
from owm.cli.chat.canvas import Canvas, Painter, Waiting
from owm.cli.chat.drafts import DraftsView, column_width
from owm.cli.look import Look
from owm.engine.request import Chunk
from support.window import Window

THOUGHT = ["Let me think.\n", "The sky is blue, ", "because of light.\n", "\nSo it is."]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def canvas(window: Window, look: Look | None = None) -> Canvas:
    return Canvas(window.write, lambda: window.screen.columns, lambda: window.screen.lines, look or Look())


def thinking(view: AnswerView, clock: Clock, window: Window) -> list[str]:
    """Let it think for six seconds; return the screen in the midst of it."""
    for text in THOUGHT:
        view.take(Chunk(0, "", 7, reasoning=text))
        clock.now += 1.5
        view.draw(clock.now)
    return window.lines()


@pytest.mark.parametrize("columns", [20, 60, 100])
def test_a_thought_is_live_and_one_line_once_the_answer_begins(columns: int) -> None:
    window, clock = Window(columns, 24), Clock()
    view = AnswerView(canvas(window), Manner(), clock=clock)
    live = thinking(view, clock, window)
    assert live[0] == "thinking, 6 s"
    assert "because of light." in " ".join(live)
    view.take(Chunk(0, "It is **blue**.", 8))
    view.draw(clock.now)
    view.finish()
    lines = window.lines()
    assert "".join(lines[:2]).startswith("thought for 6 s, 4 tokens" if columns > 24 else "thought for 6 s, 4 t")
    assert lines[-1] == "It is blue."
    assert not any("Let me think" in line for line in lines)


def test_a_thought_is_dim() -> None:
    window, clock = Window(60, 24), Clock()
    thinking(AnswerView(canvas(window), Manner(), clock=clock), clock, window)
    assert "\x1b[2mThe sky is blue, because of light.\x1b[0m" in window.raw()


def test_a_shown_thought_stays() -> None:
    window, clock = Window(60, 24), Clock()
    view = AnswerView(canvas(window), Manner("show"), clock=clock)
    thinking(view, clock, window)
    view.take(Chunk(0, "Blue.", 8))
    view.finish()
    assert window.lines() == [
        "Let me think.",
        "The sky is blue, because of light.",
        "",
        "So it is.",
        "thought for 6 s, 4 tokens",
        "",
        "Blue.",
    ]


def test_a_hidden_thought_is_never_shown() -> None:
    window, clock = Window(60, 24), Clock()
    view = AnswerView(canvas(window), Manner("hide"), clock=clock)
    assert thinking(view, clock, window) == ["thinking, 6 s"]
    view.take(Chunk(0, "Blue.", 8))
    view.finish()
    assert "sky" not in window.raw()


def test_a_thought_without_an_answer_leaves_its_line() -> None:
    window, clock = Window(60, 24), Clock()
    view = AnswerView(canvas(window), Manner(), clock=clock)
    thinking(view, clock, window)
    view.finish()
    assert window.lines() == ["thought for 6 s, 4 tokens"]


def test_a_long_thought_never_takes_more_than_the_window() -> None:
    window, clock = Window(40, 10), Clock()
    window.write("before\r\n")
    view = AnswerView(canvas(window), Manner(), clock=clock)
    for number in range(200):
        view.take(Chunk(0, "", 7, reasoning=f"line {number} of a thought that goes on and on and on\n"))
        clock.now += 0.1
        view.draw(clock.now)
    view.take(Chunk(0, "Done.", 8))
    view.finish()
    assert window.lines() == ["before", "thought for 20 s, 200 tokens", "", "Done."]


def test_raw_answers_are_as_the_model_writes_them() -> None:
    window, clock = Window(60, 24), Clock()
    view = AnswerView(canvas(window), Manner(is_raw=True), clock=clock)
    for text in ("\n\n**bo", "ld** and\n", "| a | b |"):
        view.take(Chunk(0, text, 7))
        view.draw(clock.now)
    view.finish()
    assert "".join(window.frames).split("\n") == ["**bold** and", "| a | b |", ""]


@pytest.mark.parametrize("manner", [Manner(), Manner("show"), Manner(is_raw=True)], ids=["live", "show", "raw"])
def test_nothing_that_a_model_writes_steers_the_terminal(manner: Manner) -> None:
    window, clock = Window(60, 24), Clock()
    view = AnswerView(canvas(window), manner, clock=clock)
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc"
    view.take(Chunk(0, "", 7, reasoning=evil))
    view.draw(clock.now)
    view.take(Chunk(0, evil, 8))
    view.draw(clock.now)
    view.finish()
    raw = window.raw()
    assert "owned" in raw
    assert not re.search("\x1b\\]|\x07|\x9b|\u202e|\x1b\\[2J", raw)


def test_a_window_without_escapes_gets_none() -> None:
    window, clock = Window(60, 24), Clock()
    view = AnswerView(canvas(window, Look(has_color=False, is_plain=True)), Manner(), clock=clock)
    view.draw(2.0)
    thinking(view, clock, window)
    view.take(Chunk(0, "**Blue**.", 8))
    view.finish()
    assert "\x1b" not in window.raw()


@pytest.mark.parametrize(
    ("seconds", "n", "line"),
    [
        (6.2, 412, "thought for 6 s, 412 tokens"),
        (0.4, 1, "thought for 400 ms, 1 token"),
        (59.7, 12000, "thought for 59.7 s, 12,000 tokens"),
        (125, 3, "thought for 2 min 05 s, 3 tokens"),
    ],
)
def test_the_line_of_a_thought(seconds: float, n: int, line: str) -> None:
    assert thought_line(seconds, n) == line.replace("59.7 s", "59.7 s")


def test_drafts_stand_side_by_side_where_there_is_room() -> None:
    window = Window(80, 24)
    view = DraftsView(canvas(window), [4, 5], clock=Clock())
    view.take(Chunk(5, "Second **answer**, which is long enough to need more than one line of a column", 7))
    view.draw(1.0)
    view.take(Chunk(4, "First.", 7))
    view.draw(2.0)
    view.finish()
    assert window.lines()[:3] == [
        "1:                                     │ 2:",
        "First.                                 │ Second answer, which is long enough to",
        "                                       │ need more than one line of a column",
    ]


def test_drafts_stand_one_under_the_other_in_a_narrow_window() -> None:
    window = Window(40, 24)
    view = DraftsView(canvas(window), [4, 5], clock=Clock())
    view.take(Chunk(5, "Second.", 7))
    view.draw(1.0)
    view.take(Chunk(4, "First.", 7))
    view.finish()
    assert window.lines() == ["1:", "First.", "", "2:", "Second."]


@pytest.mark.parametrize(("width", "n", "column"), [(80, 2, 38), (60, 2, 0), (200, 4, 47), (100, 3, 0), (200, 1, 0)])
def test_columns_of_drafts(width: int, n: int, column: int) -> None:
    assert column_width(width, n) == column


def test_what_is_waited_for_is_said_after_a_while_and_taken_away() -> None:
    window, clock = Window(60, 24), Clock()
    line = Waiting(canvas(window), "loading smollm2", clock=clock)
    line.draw(0.1)
    assert window.raw() == ""
    line.draw(3.4)
    assert window.lines() == ["loading smollm2, 3 s"]
    line.finish()
    assert window.lines() == []


def test_what_goes_wrong_while_drawing_is_told_to_who_draws() -> None:
    def fail(now: float) -> None:
        raise OSError(5, "gone")

    def draw() -> None:
        with Painter(fail) as painter:
            while True:
                painter.nudge()

    with pytest.raises(OSError, match="gone"):
        draw()
