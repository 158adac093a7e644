"""A question with a few answers, each on a line: what the editor of `owm chat` asks now and then."""

from collections.abc import Mapping

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition, is_done
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import ConditionalContainer, HSplit, Layout, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl

from owm.cli.chat.layout import Visible, prefix
from owm.cli.terminal import one_line, visible


def choice(question: str, answers: Mapping[str, str]) -> tuple[Layout, KeyBindings]:
    """Return layout and keys of the question; it ends with the key of an answer, or with what its meaning begins with.

    Args:
        answers: as typed -> what it means.
    """
    typed = Buffer(multiline=False)
    width = max(map(len, answers), default=0)
    listed = [f"  {one_line(key):<{width}}  {one_line(meaning)}".rstrip() for key, meaning in answers.items()]
    asked = "\n".join((visible(question), *listed))
    wrong = {"text": ""}
    bindings = KeyBindings()

    @bindings.add("enter")
    def enter(event: KeyPressEvent) -> None:
        if (found := answer_of(typed.text, answers)) is not None:
            event.app.exit(result=found)
            return
        wrong["text"] = f"one of: {', '.join(map(one_line, answers))}"
        typed.reset()

    @bindings.add("c-c")
    @bindings.add("<sigint>")
    def interrupt(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt)

    @bindings.add(Keys.Vt100MouseEvent)
    def nothing(event: KeyPressEvent) -> None:
        return

    @bindings.add("c-d")
    def leave(event: KeyPressEvent) -> None:
        event.app.exit(exception=EOFError)

    above = Window(FormattedTextControl(asked), wrap_lines=True, dont_extend_height=True, style="class:question")
    line = Window(
        BufferControl(typed, input_processors=[Visible()], include_default_input_processors=False),
        wrap_lines=True,
        dont_extend_height=True,
        get_line_prefix=prefix,
    )
    hint = Window(FormattedTextControl(lambda: wrong["text"]), height=1, style="class:toolbar")
    is_wrong = Condition(lambda: bool(wrong["text"]))
    return Layout(HSplit([above, line, ConditionalContainer(hint, ~is_done & is_wrong)]), line), bindings


def answer_of(text: str, answers: Mapping[str, str]) -> str | None:
    """Return the answer that is meant: its key, or the beginning of only one meaning; case aside."""
    wanted = text.strip().casefold()
    for key in answers:
        if key.casefold() == wanted:
            return key
    found = [key for key, meaning in answers.items() if wanted and meaning.casefold().startswith(wanted)]
    return found[0] if len(found) == 1 else None
