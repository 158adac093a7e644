"""The fenced code blocks of an answer (`--extract`, `/save-code`), by CommonMark: in lists and quotes too, of any size.

One liberty: an HTML tag in a line of its own does not hide the fence below it, as models write `<answer>` before one.
An answer without a block is no empty block: the caller says so, with the whole answer, and fails.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """The text between two fences, with its last line end, and what the first one says of it (`python`)."""

    text: str
    language: str
    is_closed: bool


def first_code_block(answer: str) -> CodeBlock | None:
    """Return the first fenced code block, None if there is none; one that is never closed goes to the end."""
    return next(code_blocks(answer), None)


def code_blocks(answer: str) -> Iterator[CodeBlock]:
    """Yield the fenced code blocks in order. Line ends become `\\n`."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").disable(["html_block", "reference", "inline"])
    for fence in parser.parse(answer):
        if fence.type == "fence" and fence.map is not None:
            text = fence.content if fence.content.endswith("\n") or not fence.content else fence.content + "\n"
            n_fences = fence.map[1] - fence.map[0] - text.count("\n")
            yield CodeBlock(text, fence.info.strip().partition(" ")[0], n_fences == 2)
