"""Blocks of Markdown, held against markdown-it, which reads whole texts."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from owm.cli.markdown.blocks import (
    Block,
    CodeEnd,
    CodeLine,
    CodeStart,
    Container,
    Heading,
    Paragraph,
    Quote,
    Rule,
    TableEnd,
    TableRow,
    TableStart,
)
from owm.cli.markdown.reader import BlockReader, split_row

INDENTS = st.sampled_from(["", "", "", "", " ", "  ", "   ", "    ", "      "])
MARKERS = st.sampled_from(["", "", "", "- ", "* ", "1. ", "2. ", "10) ", "> ", ">", "-", "- - ", "> - ", "-     "])
CONTENTS = st.sampled_from(
    [
        *("", "", "", "text", "more text", "# heading", "## heading ##", "#no", "---", "===", "***", "- -", "``` py"),
        *("```", "~~~", "````", "a | b", "| a | b |", "|---|---|", "--- | :-:", "| 1 | 2 |", "1.", "+", "`|` | \\| b"),
    ]
)
LINES = st.tuples(INDENTS, MARKERS, CONTENTS).map("".join)
# Where markdown-it does not do as CommonMark says: lines that are indented like code and go on with a paragraph or a
# quote, and list items and quotes that are taken for the heading of a table.
ODD = re.compile(r"^ {4,}>|^ {0,3}\S.*\n {4,}|-\||^ *(?:[-*>+]|\d+[.)]).*\|.*\n[ >]*-*(?:\|---|--- \|)", re.MULTILINE)
TEXTS = st.lists(LINES, min_size=1, max_size=12).map("\n".join).filter(lambda text: not ODD.search(text))
Seen = tuple[str, str, list[str]]


@settings(max_examples=300)
@given(TEXTS)
def test_blocks_are_those_of_a_reader_that_sees_the_whole_text(text: str) -> None:
    assert _ours(text) == _theirs(text)


def test_a_line_without_a_bar_ends_a_table() -> None:
    assert _ours("| a |\n|---|\n| 1 |\ntext") == [("table", "", ["a", "1"]), ("text", "", ["text"])]


def test_what_is_too_deep_is_text() -> None:
    ((kind, path, lines),) = _ours("> " * 30 + "a")
    assert (kind, path, lines) == ("text", "q" * 20, ["> " * 10 + "a"])


def test_a_paragraph_without_end_is_given_in_parts() -> None:
    reader = BlockReader()
    given_by_line = [reader.read("word " * 20) for _ in range(100)]
    assert sum(map(len, given_by_line)) >= 4
    assert not reader.finish()[0].place.is_apart  # type: ignore[union-attr]


def test_a_fork_leaves_the_reader_as_it_is() -> None:
    reader = BlockReader()
    reader.read("- a")
    fork = reader.fork()
    fork.read("```")
    fork.finish()
    assert [block.text for block in reader.finish() if isinstance(block, Paragraph)] == ["a"]


def test_cells_beyond_the_heading_are_kept() -> None:
    assert _ours("| a | b |\n|---|---|\n| 1 | 2 | 3 |")[0][2] == ["a", "b", "1", "2 | 3"]


def test_bars_after_a_backslash_are_no_borders() -> None:
    assert split_row(r"| a \| b | c") == ["a | b", "c"]


def _ours(text: str) -> list[Seen]:
    reader = BlockReader()
    blocks = [block for line in text.split("\n") for block in reader.read(line)] + reader.finish()
    seen: list[Seen] = []
    for block in blocks:
        _see(seen, block)
    for kind, _, lines in seen:
        while kind == "code" and lines and not lines[-1].strip():
            del lines[-1]
    return [each for each in seen if each[0] != "text" or each[2] != [""]]


def _see(seen: list[Seen], block: Block) -> None:
    if isinstance(block, CodeLine):
        seen[-1][2].append(block.text.rstrip())
    elif isinstance(block, TableRow):
        seen[-1][2].extend(block.cells)
    elif isinstance(block, Paragraph):
        seen.append(("text", _path(block.place.containers), [line.strip() for line in block.text.split("\n")]))
    elif isinstance(block, Heading):
        lines = [line.strip() for line in block.text.split("\n")]
        seen.append((f"h{block.level}", _path(block.place.containers), lines))
    elif isinstance(block, Rule):
        seen.append(("rule", _path(block.place.containers), []))
    elif isinstance(block, CodeStart):
        seen.append(("code", _path(block.place.containers), []))
    elif isinstance(block, TableStart):
        seen.append(("table", _path(block.place.containers), list(block.cells)))
    else:
        assert isinstance(block, CodeEnd | TableEnd)


def _path(containers: tuple[Container, ...]) -> str:
    return "".join("q" if isinstance(container, Quote) else "i" for container in containers)


def _code(content: str) -> list[str]:
    return [line.rstrip() for line in content.rstrip().split("\n")] if content.strip() else []


def _theirs(text: str) -> list[Seen]:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("reference")
    seen: list[Seen] = []
    path, last = "", ""
    for token in parser.parse(text):
        if token.type in ("blockquote_open", "list_item_open"):
            path += "q" if token.type == "blockquote_open" else "i"
        elif token.type in ("blockquote_close", "list_item_close"):
            path = path[:-1]
        elif token.type in ("fence", "code_block"):
            seen.append(("code", path, _code(token.content)))
        elif token.type == "hr":
            seen.append(("rule", path, []))
        elif token.type == "table_open":
            seen.append(("table", path, []))
        elif token.type == "inline" and last in ("th", "td"):
            seen[-1][2].append(token.content)
        elif token.type == "inline":
            kind = "text" if last == "p" else last
            seen.append((kind, path, [line.strip() for line in token.content.split("\n")]))
        last = token.tag
    return seen
