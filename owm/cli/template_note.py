"""What is said of a chat template that differs from the published one."""

from typing import TYPE_CHECKING

from owm.cli.output import Output
from owm.cli.terminal import one_line

if TYPE_CHECKING:
    from owm.library.chat_templates import Comparison
    from owm.store.local import Store
    from owm.store.model import StoredModel

MAX_QUOTED = 160
MAX_LINES = 40


def warn_of_template(stored: "StoredModel", store: "Store", out: Output) -> None:
    """Say in one line that a template adds texts, or conditions on what is said, to the published one."""
    from owm.errors import OwmError
    from owm.formats import gguf
    from owm.library.chat_templates import compare

    try:
        with store.reading(stored):
            header = gguf.read_header(stored.path)
            found = compare(stored, header, store)
    except OwmError:  # whoever opens the model or renders the template says what is wrong
        return
    if found is not None and found.is_suspect:
        n_texts = sum(trait.kind == "text" for trait in found.added)
        n_conditions = len(found.added) - n_texts
        parts = [_count(n_texts, "text"), _count(n_conditions, "condition", " on what is said")]
        out.warn(
            f"the chat template of {store.shown_name(stored)} adds {' and '.join(filter(None, parts))} to the one "
            f"published with {found.base}; `owm show {store.shown_name(stored)} --template` shows them"
        )


def say_comparison(found: "Comparison | None", out: Output) -> None:
    """Say how a template differs, each addition on a line."""
    if found is None:
        out.note("there is no published template known to compare this one with")
    elif found.is_same:
        out.note(f"this template is the one published with {found.base}")
    elif not found.added:
        out.note(f"this template is not the one published with {found.base}, but adds nothing to it")
    else:
        say = out.warn if found.is_suspect else out.note
        say(f"this template is not the one published with {found.base}:")
        for trait in found.added[:MAX_LINES]:
            quote = one_line(" ".join(trait.quote.split()))
            quote = quote if len(quote) <= MAX_QUOTED else quote[:MAX_QUOTED] + "…"
            does = "adds the text" if trait.kind == "text" else "looks at what is said"
            say(f"line {trait.line} {does}: {quote}")
        if len(found.added) > MAX_LINES:
            say(f"and {len(found.added) - MAX_LINES} more such lines")


def _count(number: int, noun: str, rest: str = "") -> str:
    return f"{number} {noun}{'s' * (number != 1)}{rest}" if number else ""
