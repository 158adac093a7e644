"""A whole conversation as a person sees it, at several widths, on a real terminal; see `test_screens` for the form."""

import re
from pathlib import Path

import pytest

from support.chat_terminal import ChatTerminal
from support.scripted_gguf import write_scripted_gguf

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.content.split('</think>')[-1] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)
ASKED = "<|im_end|><|im_start|>"
SORTED = """<think>They want a short list, ordered by how fast each of them is. A table would show that best.</think>\
# Sorting in *Python*

There are **three** ways worth knowing, and `sorted` is nearly always the one that you want, whatever it is that has to be put in order:

1. `sorted(words)` makes a new list
2. `words.sort()` changes the list that there is
   - it returns nothing
   - it is a little faster
3. a heap, for what comes bit by bit

## How they compare

| Way | Makes a list | Order of growth |
|---|:-:|--:|
| sorted | yes | n log n, in the worst case |
| sort | no | the same |
| heapq | as it goes | n log k, where k is how many of the largest are wanted |

```python
import heapq

def largest(words: list[str], k: int = 3) -> list[str]:
    return heapq.nlargest(k, words, key=lambda word: (len(word), word.casefold()))  # ties by the alphabet
```

> What is sorted already costs almost nothing to sort again.

See [the manual](https://docs.python.org/3/howto/sorting.html).
"""  # noqa: E501
LINES = (
    "How do I sort a list of words?",
    "/udno",
    "And which of them is the one that does not need a second list in memory?",
    "/fork in-place",
    "Why?",
    "/branches",
    "/switch nowhere",
    "/edit 12",
    "/context",
    "/think",
    "/help",
    "/save-code",
)


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_conversation(columns: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = write_scripted_gguf(
        tmp_path / "sorter.gguf",
        "I do not know.",
        after={
            f"of words?{ASKED}": SORTED,
            f"in memory?{ASKED}": "<think>In place.</think>The second way: `sort` copies nothing.",
            f"Why?{ASKED}": "It moves the words within the list that is there.",
        },
        marks=("<think>", "</think>"),
        template=TEMPLATE,
        n_ctx_train=4096,
    )
    with ChatTerminal(model, columns=columns, rows=250) as terminal:
        terminal.wait_for_prompt()
        for line in LINES:
            terminal.say(line)
        terminal.say("/undo")
        at_the_end = terminal.text()
        terminal.leave()
        when_left = terminal.text()[at_the_end.rindex("\n>") + 1 :]
    screen = f"{at_the_end}\n{'=' * columns}\n{when_left}\n"
    screen = re.sub(r"[\d,.]+ t/s", "<rate> t/s", screen)
    screen = re.sub(r"thought for \S+ m?s", "thought for <seconds>", screen)
    screen = re.sub(r"kept as \w+", "kept as <id>", screen)
    path = Path(__file__).parent / "screens" / f"chat-{columns}.txt"
    if request.config.getoption("--update-golden"):
        path.write_text(screen, "utf-8")
    assert screen == path.read_text("utf-8")
