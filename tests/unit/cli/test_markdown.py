"""Markdown while it is being written, as a person sees it: everything is judged on a virtual screen."""

import re
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from owm.cli.look import Look, look_of_terminal
from owm.cli.markdown.stream import REST, MarkdownStream, markdown_lines
from support.window import Window

GOLDEN = Path(__file__).parents[2] / "golden" / "screens"
SAMPLE = """\
# Reading a file *safely*

A file that a stranger wrote is **hostile input**: read it with `open()`, never with `eval()`, and see the
[documentation](https://docs.python.org/3/library/functions.html) or <https://example.org>. Formulas such as
\\(a_1 * b_1\\) stay as they are, ~~mistakes~~ are struck out, and 日本語 and עברית take the room that they take.

## What to do

1. Open it
   - in binary,
   - with a limit:
     - of bytes
     - of time
2. Check it, with what is written down in a text that is long enough to need more than one line in a narrow window

10. Ten is wider

> Whoever trusts a length that stands in a file
> has not been bitten yet.
>
> > Twice.

| Format | Lines |  Checked by | Remarks |
|:-------|------:|:-----------:|---------|
| GGUF | 1,204 | owm | `header` first, then the tensors, which are read as they are needed |
| safetensors | 87 | owm | **always** |
| pickle | 0 | nobody | refused |

```python
def read(path: str, limit: int = 1 << 20) -> bytes:
    \"\"\"Read a file, but not more of it than was agreed; whoever wants more has to say so in so many words.\"\"\"
    with open(path, "rb") as file:
        return file.read(limit)  # never more
```

---

Line one of a poem,
  line two of it.

    not fenced, but code
"""
PIECES = st.sampled_from(
    [
        *("word ", "**bold** ", "*it", "* ", "`code` ", "``", "[a](b) ", "日本語", "שלום ", "é", "\t", "  ", "    "),
        *("\n", "\n", "\n", "\n\n", "- ", "1. ", "2) ", "> ", "# ", "### ", "---", "===", "***\n"),
        *("```", "```python\n", "~~~\n", "x = 1\n", '"""', "/* ", "| a | b |\n", "|---|--:|\n", "| 1 | 2 |\n", "|"),
        *("\\", "&amp;", "<br>", "$$", "\\(", "~~", "!", "\r\n", "\x1b[2J", "\u202e", "a" * 90),
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_the_sample_is_shown_as_on_the_stored_screen(columns: int, request: pytest.FixtureRequest) -> None:
    window = Window(columns, 24)
    window.show(SAMPLE)
    path = GOLDEN / f"markdown-{columns}.txt"
    screen = "\n".join(window.lines()) + "\n"
    if request.config.getoption("--update-golden"):
        path.write_text(screen, "utf-8")
    assert screen == path.read_text("utf-8")


@given(TEXTS, st.integers(0, 2**32), st.sampled_from([20, 47, 100]), st.sampled_from([3, 9, 40]))
def test_the_final_screen_does_not_depend_on_how_the_text_came_in_pieces(
    text: str, seed: int, columns: int, rows: int
) -> None:
    whole, pieces = Window(columns, rows), Window(columns, rows)
    for line in markdown_lines(text, width=columns, look=Look()):
        whole.write(line + "\r\n")
    pieces.show(text, random=Random(seed))
    assert pieces.lines() == whole.lines()
    assert (pieces.screen.cursor.x, pieces.screen.cursor.y) == (whole.screen.cursor.x, whole.screen.cursor.y)
    assert pieces.cells() == whole.cells()  # colours too


@given(TEXTS, st.sampled_from([1, 8, 20, 100]))
def test_no_line_but_code_is_wider_than_the_window(text: str, columns: int) -> None:
    text = re.sub("[`~\t]|    +|日|本|語", "", text)  # no code; and a wide character has no room in one column
    for line in markdown_lines(text, width=max(columns, 8), look=Look(is_plain=True, has_color=False)):
        assert cell_len(line) <= max(columns, 8)


def test_a_finished_block_is_written_once() -> None:
    window = Window(80, 24)
    with window.stream() as stream:
        for n in range(50):
            stream.feed(f"Paragraph {n} of many.\n\n")
            stream.tick(n)
    assert all(window.raw().count(f"Paragraph {n} of") == 1 for n in range(50))


def test_finished_lines_of_an_open_code_block_are_final() -> None:
    window = Window(80, 10)
    stream = window.stream()
    stream.feed("```\n")
    for n in range(200):
        stream.feed(f"line {n};\n")
        stream.tick(n)
    assert window.lines() == ["```", *(f"line {n};" for n in range(200))]
    assert all(window.raw().count(f"line {n};") == 1 for n in range(200))


def test_finished_rows_of_a_long_table_are_final() -> None:
    window = Window(80, 40)
    stream = window.stream()
    stream.feed("| n | text |\n|--:|---|\n")
    for n in range(60):
        stream.feed(f"| {n} | row-{n}! |\n")
        stream.tick(n)
    assert all(window.raw().count(f"row-{n}!") == 1 for n in range(12, 60))
    assert window.lines()[-1].split() == ["59", "row-59!"]


def test_the_live_part_is_never_higher_than_the_window() -> None:
    window = Window(30, 8)
    with window.stream() as stream:
        for n in range(300):
            stream.feed(f"word{n} ")
            stream.tick(n)
            assert window.frames[-1].count("\r\n") <= 7
            assert f"word{n}" in "".join(window.screen.display)
    moves = [int(up) for up in re.findall(r"\x1b\[(\d+)A", window.raw())]
    assert max(moves) <= 6
    assert " ".join(window.lines()).split() == [f"word{n}" for n in range(300)]


def test_a_frame_is_followed_by_twenty_times_its_cost_of_rest() -> None:
    clock = iter(range(10_000))
    frames: list[float] = []
    stream = MarkdownStream(
        lambda text: frames.append(now),
        width=lambda: 80,
        height=lambda: 24,
        look=Look(),
        clock=lambda: next(clock) / 100,
    )
    for step in range(1000):
        now = step / 1000
        stream.feed("word ")
        stream.tick(now)
    gaps = [later - earlier for earlier, later in pairwise(frames)]
    assert len(frames) == 5
    assert min(gaps) >= REST * 0.01


def test_there_are_at_most_thirty_frames_a_second() -> None:
    window = Window(80, 24)
    stream = window.stream()
    for step in range(1000):
        stream.feed("word ")
        stream.tick(step / 1000)
    assert 28 <= len(window.frames) <= 30


def test_nothing_is_drawn_where_nothing_is_new() -> None:
    window = Window(80, 24)
    stream = window.stream()
    stream.feed("word")
    for now in range(10):
        stream.tick(now)
    assert len(window.frames) == 1


def test_a_long_line_of_code_is_one_line_of_what_is_copied() -> None:
    window = Window(20, 10)
    code = "result = " + " + ".join(f"value_{n}" for n in range(30))
    window.show(f"- Item\n\n  ```python\n  {code}\n  ```\n")
    assert f"{code}\r\n" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", window.raw())
    assert "".join(window.lines()).replace(" ", "").endswith("```python" + code.replace(" ", "") + "```")


def test_code_has_nothing_beside_it() -> None:
    code = ["def f():", "    return 1", "", "print(f())"]
    text = "\n".join(["> quoted", "", "1. Item", "", "   ```python", *("   " + line for line in code), "   ```"])
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in markdown_lines(text, width=60, look=Look())]
    assert lines == ["│ quoted", "", "1. Item", "", "```python", *code, "```"]


def test_code_is_coloured_as_if_it_had_been_read_whole() -> None:
    words = [f"z{first}{second}z" for first in "abcdefgh" for second in "abcdefgh"]
    source = "".join(f'def {word}(x):\n    """Doc\n    of {word}."""\n    return {word}  # why\n\n\n' for word in words)
    lines = markdown_lines(f"```python\n{source}```", width=100, look=Look())
    blocks = [[line.replace(word, "") for line in lines[1 + 6 * n : 5 + 6 * n]] for n, word in enumerate(words)]
    assert all(block == blocks[0] for block in blocks)
    assert all("\x1b[" in line for line in blocks[0])


def test_a_comment_without_an_end_is_a_comment() -> None:
    opened = markdown_lines("```js\nlet a = 1\n/** Return\n * `if` it is\n", width=80, look=Look())
    closed = markdown_lines("```js\nlet a = 1\n/** Return\n * `if` it is\n */\n", width=80, look=Look())
    assert opened == closed[:-1]


def test_a_table_that_does_not_fit_has_cells_over_several_lines() -> None:
    text = "| name | what it is |\n|---|---|\n| a | " + "many words " * 9 + "|\n| b | few |\n"
    lines = markdown_lines(text, width=40, look=Look(is_plain=True))
    assert max(map(len, lines)) <= 40
    assert " ".join(lines).count("many words") == 9
    assert lines[-1].split() == ["b", "few"]
    assert set(lines[-2]) == {"─", " "}  # a line between rows, since they are not lines any more


def test_a_table_that_cannot_fit_has_a_line_for_each_cell() -> None:
    text = "| first | second | third |\n|---|---|---|\n| alphabet | betterment | gammaray |\n| 1 | 2 | 3 |\n"
    assert markdown_lines(text, width=20, look=Look(is_plain=True)) == [
        *("first: alphabet", "second: betterment", "third: gammaray", ""),
        *("first: 1", "second: 2", "third: 3"),
    ]


def test_what_is_final_stays_when_the_window_is_resized() -> None:
    window = Window(60, 20)
    with window.stream() as stream:
        stream.feed("Kept.\n\n" + "word " * 30)
        stream.tick(1)
        window.screen.resize(20, 30)
        stream.tick(2)
        assert window.lines()[:2] == ["Kept.", ""]
        stream.feed("end.")
        stream.tick(3)
        window.screen.resize(30, 80)
        stream.tick(4)
    lines = window.lines()
    assert lines[0] == "Kept."
    assert " ".join(lines).split() == ["Kept.", *["word"] * 30, "end."]
    assert max(map(len, lines)) > 60


@pytest.mark.parametrize(
    "text", ["Some **bold", "```python\nprint(", "| a | b |\n|---|---|\n| 1", "- item\n  - it", "x"]
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_text_that_breaks_off_leaves_the_cursor_below_it(text: str, error: type[BaseException]) -> None:
    def draw(window: Window) -> None:
        with window.stream() as stream:
            stream.feed(text)
            stream.tick(1)
            raise error

    window = Window(40, 10)
    with pytest.raises(error):
        draw(window)
    assert not window.screen.cursor.hidden
    assert (window.screen.cursor.x, window.screen.cursor.y) == (0, len(window.lines()))
    assert text.split()[-1].strip("*") in " ".join(window.lines())
    assert window.raw().count("\x1b[?7l") == window.raw().count("\x1b[?7h")


def test_the_cursor_is_shown_between_frames() -> None:
    window = Window(40, 10)
    stream = window.stream()
    for n in range(20):
        stream.feed("word ")
        stream.tick(n)
        assert not window.screen.cursor.hidden
        assert window.screen.display[window.screen.cursor.y].strip()


def test_an_interrupt_while_drawing_loses_nothing() -> None:
    window = Window(40, 10)
    is_hit = False

    def width() -> int:
        nonlocal is_hit
        if is_hit:
            is_hit = False
            raise KeyboardInterrupt
        return 40

    stream = MarkdownStream(window.write, width=width, height=lambda: 10, look=Look(), clock=lambda: 0.0)
    stream.feed("one\n\ntwo")
    stream.tick(1)
    stream.feed(" three\n\nfour")
    is_hit = True
    with pytest.raises(KeyboardInterrupt):
        stream.tick(2)
    stream.finish()
    assert window.lines() == ["one", "", "two three", "", "four"]


def test_unfinished_marks_are_shown_as_they_will_be() -> None:
    window = Window(40, 10)
    stream = window.stream()
    stream.feed("It is **very imp")
    stream.tick(1)
    assert window.lines() == ["It is very imp"]
    assert window.screen.buffer[0][8].bold
    stream.feed("ortant** indeed\n-")
    stream.tick(2)
    assert window.lines() == ["It is very important indeed"]


def test_no_color_takes_colours_away_and_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    look = look_of_terminal()
    raw = "\n".join(markdown_lines(SAMPLE, width=80, look=look))
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9|10)[0-7](?:;|m)", raw)
    assert "\x1b[1m" in raw
    assert "`open()`" in raw


def test_a_dumb_terminal_gets_no_escapes_and_finished_blocks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    window = Window(80, 24)
    window.show(SAMPLE, look=look_of_terminal())
    assert "\x1b" not in window.raw()
    assert "".join(window.frames).split("\n")[0] == "# Reading a file *safely*"


def test_text_that_is_no_markdown_keeps_its_lines() -> None:
    text = "src\n├── main.py\n│   └── a_b_c.py\n└── x\n\nName:   1 * 2 * 3\n  Street 5\n  City\n\n$ ls *.py\n<html>&lt;"
    assert markdown_lines(text, width=60, look=Look(is_plain=True)) == [*text.replace("&lt;", "<").split("\n")]


def test_formulas_keep_their_backslashes() -> None:
    text = "So \\(a_{1} * b_{1} * c\\) and $$x*y*z$$ hold."
    assert markdown_lines(text, width=80, look=Look(is_plain=True)) == [text]


def test_links_say_where_they_lead() -> None:
    lines = markdown_lines(
        "See [here](https://a.example/x) or <https://b.example>.", width=80, look=Look(is_plain=True)
    )
    assert lines == ["See here (https://a.example/x) or https://b.example."]
