"""The first fenced code block of an answer (`--extract`), by CommonMark: in lists and quotes too, any length of fence.

One liberty: an HTML tag in a line of its own does not hide the fence below it, as models write `<answer>` before one.
An answer without a block is no empty block: the caller says so, with the whole answer, and fails.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """The text between two fences, with its last line end, and what the first one says of it (`python`)."""

    text: str
    language: str
    is_closed: bool


def first_code_block(answer: str) -> CodeBlock | None:
    """Return the first fenced code block, None if there is none; one that is never closed goes to the end.

    Line ends become `\\n`.
    """
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").disable(["html_block", "reference", "inline"])
    fence = next((token for token in parser.parse(answer) if token.type == "fence"), None)
    if fence is None or fence.map is None:
        return None
    n_lines = fence.content.count("\n") + (not fence.content.endswith("\n") and fence.content != "")
    n_fences = fence.map[1] - fence.map[0] - n_lines
    text = fence.content if fence.content.endswith("\n") or not fence.content else fence.content + "\n"
    return CodeBlock(text, fence.info.strip().partition(" ")[0], n_fences == 2)
