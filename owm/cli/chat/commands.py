"""What can be typed at the prompt of `owm chat`: the table of commands, what a line means, and the text of `/help`.

What a command does is not known here.
"""

import difflib
import re
import textwrap
from dataclasses import dataclass

from owm.errors import UsageError

QUOTES = '"""'

_NAME = re.compile(r"\?|[A-Za-z][A-Za-z-]*")
_NEAR = 0.6
_VERY_NEAR = 0.85  # `/undo/` is a slip, `/export/home` a path


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """One command: `arguments` as help shows them, `about` in one line."""

    name: str
    arguments: str
    about: str
    group: str

    @property
    def usage(self) -> str:
        """The command as it is typed."""
        return f"/{self.name} {self.arguments}".rstrip()


@dataclass(frozen=True, slots=True)
class Call:
    """A command that was typed: its own name, and what stands after it."""

    name: str
    rest: str


_CONVERSATION, _BRANCHES, _FILES, _MODEL, _SCREEN = "Conversation", "Branches", "Files", "Model", "Screen"

COMMANDS: dict[str, ChatCommand] = {
    command.name: command
    for command in (
        ChatCommand("undo", "", "take back your last turn and its answer", _CONVERSATION),
        ChatCommand("retry", "", "answer your last turn again", _CONVERSATION),
        ChatCommand("edit", "[N]", "change your turn N, or the last one, and send it anew", _CONVERSATION),
        ChatCommand("alt", "[K]", "K answers to your last turn (3), of which you pick one", _CONVERSATION),
        ChatCommand("compact", "", "let a summary stand for the oldest turns", _CONVERSATION),
        ChatCommand("new", "", "begin a new conversation", _CONVERSATION),
        ChatCommand("title", "[TEXT]", "show or set the title", _CONVERSATION),
        ChatCommand("fork", "[NAME]", "begin a branch here", _BRANCHES),
        ChatCommand("branches", "", "list the branches", _BRANCHES),
        ChatCommand("switch", "NAME|N", "go to the end of a branch", _BRANCHES),
        ChatCommand("file", "PATH…", "attach files to your next turn; `@PATH` in a prompt does too", _FILES),
        ChatCommand("paste", "", "attach what is on the clipboard to your next turn", _FILES),
        ChatCommand("copy", "[code]", "copy the last answer, or its last code block", _FILES),
        ChatCommand("save-code", "FILE [N]", "write a code block of the last answer to a file", _FILES),
        ChatCommand("export", "[FILE]", "write the conversation as .md, .json or .html", _FILES),
        ChatCommand("model", "[NAME]", "show the model, or go on with another one", _MODEL),
        ChatCommand("system", "[TEXT]", "show or set the system prompt; `/system none` has none", _MODEL),
        ChatCommand("set", "[KEY [VALUE]]", "show or change settings; `/set KEY default` undoes it", _MODEL),
        ChatCommand("think", "[WORD]", "on, off, show or hide; or how hard: low, medium, high", _MODEL),
        ChatCommand("stats", "", "how long the last answer took, and how fast it was", _MODEL),
        ChatCommand("context", "", "what the context holds, turn by turn", _MODEL),
        ChatCommand("raw", "[on|off]", "show answers as the model writes them", _SCREEN),
        ChatCommand("multi", "[on|off]", "Enter begins a new line, Alt-Enter sends", _SCREEN),
        ChatCommand("clear", "", "clear the screen; the conversation stays", _SCREEN),
        ChatCommand("help", "[COMMAND]", "this list", _SCREEN),
        ChatCommand("quit", "", "leave; Ctrl-D does too", _SCREEN),
    )
}
ALIASES: dict[str, str] = {"exit": "quit", "q": "quit", "?": "help"}
KEYS_TEXT: tuple[tuple[str, str], ...] = (
    ("Enter", "send"),
    ("Alt-Enter, Esc Enter", "new line"),
    (QUOTES, f"at the beginning: Enter begins a new line until a closing {QUOTES}"),
    ("Tab", "complete commands, names and paths"),
    ("Up, Down, Ctrl-R", "what you typed before, also in other conversations"),
    ("Ctrl-X Ctrl-E", "write in $VISUAL or $EDITOR"),
    ("Ctrl-C", "stop the answer; clear the line"),
    ("//…", "a prompt that begins with /"),
)


def parse(text: str) -> Call | None:
    """Return the command that was typed, or None for a prompt (see `prompt_of`).

    A path as the first word is a prompt, unless it looks like a slip in a command.

    Raises:
        UsageError: it looks like a command, and there is none of that name.
    """
    text = text.lstrip()
    if not text.startswith("/") or text.startswith("//"):
        return None
    word, rest = re.match(r"/(\S*)\s*(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # it always matches
    name = word.lower()
    name = ALIASES.get(name, name)
    if name in COMMANDS:
        return Call(name, rest.rstrip())
    if word and not _NAME.match(word):
        return None  # `/* a comment`, `/[a-z]+/`
    if "/" in word and not difflib.get_close_matches(name, [*COMMANDS, *ALIASES], n=1, cutoff=_VERY_NEAR):
        return None
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=_NEAR)
    guess = f"did you mean `/{near[0]}`? " if near else ""
    raise UsageError(f"no such command: /{word}", hint=f"{guess}`/help` lists them, `//` begins a prompt with a slash")


def find(name: str) -> ChatCommand:
    """Return the command of a name or an alias, with or without its slash, for `/help NAME`.

    Raises:
        UsageError: there is none.
    """
    call = parse(f"/{name.strip().removeprefix('/')}")
    if call is None or call.name not in COMMANDS:
        raise UsageError(f"no such command: {name}", hint="`/help` lists them")
    return COMMANDS[call.name]


def prompt_of(text: str) -> str:
    """Return the prompt that a text means which `parse` gave None for: a doubled slash at the beginning is one."""
    return text[1:] if text.startswith("//") else text


def as_typed(prompt: str) -> str:
    """Return what is to be typed so that it means this prompt; the opposite of `prompt_of`, for `/edit`."""
    return f"/{prompt}" if prompt.startswith("/") else prompt


def is_block(text: str) -> bool:
    '''Tell whether a text begins a block with `"""`: one that a first line begins and does not also end.

    A first line with a whole `"""text"""` in it is a block if there is nothing else, and code otherwise.
    '''
    line, _, rest = text.partition("\n")
    if not line.startswith(QUOTES):
        return False
    return line.count(QUOTES) % 2 == 1 or (_is_whole(line) and not rest.strip())


def is_open(text: str) -> bool:
    '''Tell whether a text is a block that lacks its closing `"""`, at the end of a line.'''
    return is_block(text) and not _is_whole(text)


def unquoted(text: str) -> str:
    """Return what stands in a block, as something that is never a command; any other text as it is."""
    if not is_block(text):
        return text
    inner = text.rstrip()[len(QUOTES) :]
    inner = inner.removesuffix(QUOTES) if _is_whole(text) else inner
    return as_typed(inner.strip("\n").rstrip())


def help_text(width: int) -> str:
    """Return the table of commands and keys in lines of at most `width` columns."""
    rows = [(command.usage, command.about, command.group) for command in COMMANDS.values()]
    rows += [(*key, "Keys") for key in KEYS_TEXT]
    column = 2 + max(len(usage) for usage, *_ in rows) + 2
    is_narrow = width - column < 40
    lines: list[str] = []
    for place, (usage, about, group) in enumerate(rows):
        if not place or group != rows[place - 1][2]:
            lines += ["", group] if lines else [group]
        if is_narrow:
            short = f"  {usage:<{_NARROW_COLUMN}}  "
            is_beside = len(usage) <= _NARROW_COLUMN and width - len(short) >= 20
            lines += [] if is_beside else [f"  {usage}"]
            first = short if is_beside else " " * min(len(short), 4)
            lines += _filled(about, first, width, indent=len(short) if is_beside else 4)
        else:
            lines += _filled(about, f"  {usage}".ljust(column), width, indent=column)
    return "\n".join(lines) + "\n"


_NARROW_COLUMN = 18


def _filled(text: str, first: str, width: int, *, indent: int) -> list[str]:
    return textwrap.wrap(
        text, max(width, indent + 8), initial_indent=first, subsequent_indent=" " * indent, break_on_hyphens=False
    )


def _is_whole(text: str) -> bool:
    return len(text.rstrip()) >= 2 * len(QUOTES) and text.rstrip().endswith(QUOTES) and text.count(QUOTES) % 2 == 0
