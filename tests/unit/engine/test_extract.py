"""The first fenced code block of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owm.engine.extract import CodeBlock, first_code_block


@pytest.mark.parametrize(
    ("answer", "text", "language"),
    [
        ("Sure:\n\n```python\nx = 1\n```\nThat is it.\n```\nno\n```", "x = 1\n", "python"),
        ("~~~\na\n~~~~~~\n", "a\n", ""),
        ("````md\n```\ninner\n```\n````", "```\ninner\n```\n", "md"),
        ("~~~\n```\n~~~", "```\n", ""),
        ("   ```js title=a.js\n   if (x)\n     y\n   ```", "if (x)\n  y\n", "js"),
        ("1. First do\n\n   ```sh\n   ls\n   ```\n2. Then", "ls\n", "sh"),
        ("10. deep\n    - deeper:\n      ```\n      a\n        b\n      ```", "a\n  b\n", ""),
        ("> ```\n> quoted\n> ```", "quoted\n", ""),
        ("<answer>\n```json\n{}\n```\n</answer>", "{}\n", "json"),
        ("text\n```\n\n\n```", "\n\n", ""),
        ("```\n```", "", ""),
        ("```\n```py\n```", "```py\n", ""),
        ("use `a` or ``b``:\n```\n*x* [y] &amp; <b>\n```", "*x* [y] &amp; <b>\n", ""),
    ],
)
def test_the_first_block_is_found(answer: str, text: str, language: str) -> None:
    assert first_code_block(answer) == CodeBlock(text, language, True)


@pytest.mark.parametrize(
    ("answer", "text"),
    [("```python\nx = 1", "x = 1\n"), ("```\nx\n", "x\n"), ("```", ""), ("```\nx\n``", "x\n``\n"),
     ("````\nx\n```\n", "x\n```\n"), ("```\nx\n    ```\n", "x\n    ```\n"), ("```\nx\n~~~", "x\n~~~\n")],
)  # fmt: skip
def test_a_block_that_is_never_closed_goes_to_the_end_and_says_so(answer: str, text: str) -> None:
    block = first_code_block(answer)
    assert block is not None
    assert (block.text, block.is_closed) == (text, False)


@pytest.mark.parametrize(
    "answer", ["", "no code", "a ```b``` c", "``\nx\n``", "text\n\n    ```\n    x\n    ```", "``` a`b"]
)
def test_an_answer_without_one_has_none(answer: str) -> None:
    assert first_code_block(answer) is None


_code = st.text(alphabet="ab `~\n>-#é\t", max_size=60)


@given(_code, st.sampled_from("`~"), st.integers(0, 3))
def test_what_stands_between_long_enough_fences_comes_back(code: str, sign: str, indent: int) -> None:
    fence = " " * indent + sign * 61
    lines = [" " * indent + line if line.strip(" ") else line for line in code.split("\n")]
    if indent and any("\t" in line[: len(line) - len(line.lstrip())] for line in lines):
        return  # tabs count as up to four spaces
    block = first_code_block("Here:\n" + "\n".join([fence + "x", *lines, fence]) + "\nand so on")
    assert block is not None
    assert block.is_closed
    expected = [line[min(indent, len(line) - len(line.lstrip(" "))) :] for line in lines]
    assert block.text == "\n".join(expected) + "\n"


@given(st.text(alphabet="`~ \nx>-1.", max_size=80))
def test_any_answer_gives_a_block_of_its_own_lines_or_none(answer: str) -> None:
    block = first_code_block(answer)
    if block is not None:
        assert all(line.strip() in answer for line in block.text.split("\n"))
        assert block.text == "" or block.text.endswith("\n")
